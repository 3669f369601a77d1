//! One receiver of a sequencer's log.

use std::sync::Arc;

use crate::stats::ReplicaStats;

use super::dirty::{DirtyMap, Scope, bucket};
use super::log::{Kind, Log, State};
use super::marker::Marker;
use super::repair::{FUNCTIONS, Key, Repair};
use super::resync::Resync;

/// Most effects sent and not acknowledged; what is in doubt when the connection breaks is at most this.
pub const WINDOW: u64 = 4096;
/// When a mirror whose data may be other data is asked for its markers.
const SUSPECT_MS: u64 = 1_000;

/// The receiver.
#[derive(Debug)]
pub struct Replica {
    /// Key of its endpoint.
    pub target: usize,
    /// Its connection.
    pub upstream: usize,
    /// Its number among the sequencer's replicas.
    pub bit: u32,
    /// No other replica has this number.
    pub id: u64,
    /// The next position to be sent.
    pub next: u64,
    /// Every position before this one is done with.
    pub acked: u64,
    /// Effects sent and not acknowledged.
    pub in_flight: u64,
    /// Keys to be copied.
    pub repair: Repair,
    /// `run_id` of the Redis that has what was acknowledged.
    pub run_id: Option<String>,
    /// The state last told.
    pub state: &'static str,
    /// What may differ there, as it was marked.
    pub map: DirtyMap,
    /// What its Redis has is known: by its marker, or because it is the one that we sent everything to.
    pub judged: Judged,
    /// Effects may be sent: what its Redis had before is known.
    pub open: bool,
    /// What it lacked when the primary's connection broke, beside what was in flight.
    pub lacked_then: Lack,
    /// Which keys the routes give it, as a hash.
    pub share: u64,
    /// Other primaries of this sidecar write to its Redis, too.
    pub sisters: bool,
    /// What the log and the keys in doubt cannot heal.
    pub need: Need,
    /// It is being made equal by looking at its keys.
    pub resync: Option<Resync>,
    /// Nobody else writes to its Redis.
    pub sole: bool,
    /// The operator said that nobody else does.
    pub claimed: bool,
    /// A resync could only add: whether the rest is equal is not known.
    pub unproven: bool,
    /// The operator has stopped its resync.
    pub paused: bool,
    /// It is the primary's own Redis.
    pub refused: bool,
    /// The next marker: sent when the stream has come to this position.
    pub mark: Option<(u64, u64)>,
    /// The generation whose marker it has acknowledged.
    pub marked: u64,
    /// It is not asked again before then, milliseconds.
    pub judge_at: u64,
    /// The marker that comes before a resync has still to be sent.
    pub unmarked: bool,
    /// What the member that it is has marked as perhaps not known to this one.
    pub marks: Option<Scope>,
    /// The generation, and the position, that the member was told of last.
    pub told: (u64, (u64, u64)),
    /// The leader has given way, and its successor, if it is this one, knows who lacks nothing of that leadership.
    pub sealed: bool,
    /// It has led itself, and has not been filled by another leader since.
    pub led: bool,
    /// What it wrote while it led itself has been merged, or is being merged.
    pub merged: bool,
    /// See `merged`.
    pub merging: bool,
    /// Markers that it replaces.
    pub obsolete: Vec<Marker>,
    /// Marks since this generation are needed until the resync in course is over; 0: all.
    pub since: u64,
    /// It refused its marker.
    pub markless: bool,
    /// The file of its map has not been opened yet.
    pub map_pending: bool,
    /// Its last resync ended with keys in doubt, of any age, and there still are some.
    pub late: bool,
    /// It may not have got effects from this position on that were sent to it, and there still are keys in doubt: of a
    /// group, its position is not that of what it was sent.
    pub missed: Option<u64>,
    /// It lacked something at the last look.
    pub lacked: bool,
    /// There are more of those than are listed.
    pub unrepaired_more: bool,
    /// Keys that cannot be copied to it.
    pub unrepaired: Vec<Key>,
    /// When those are tried again, milliseconds.
    pub retry_at: u64,
    /// Copies by commands, not by payload: it refuses payloads.
    pub logical: bool,
    /// The control plane knows that the log dropped something.
    pub told_lost: bool,
    /// What is counted.
    pub stats: Arc<ReplicaStats>,
}

/// Whether it is known what a replica's Redis has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Not since the connection stands.
    No,
    /// It was asked for its markers.
    Asked,
    /// Yes.
    Yes,
}

/// What a replica lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// Nothing.
    Nothing,
    /// The last changes of so many keys, whose copies were on their way.
    Changes(usize),
    /// More, or it is not known what.
    Keys,
}

/// What a replica needs beside the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// What was marked dirty.
    Dirty,
    /// Everything that is still marked, whatever its marker says: the primary may have lost its newest writes.
    Marked,
    /// Every key.
    Full,
}

impl Replica {
    /// A key may differ there as of `position`, until it is copied.
    pub fn doubt(&mut self, key: Key, position: u64) {
        mark(&mut self.map, &key);
        if !self.repair.doubt(key, position) {
            self.lack(Need::Dirty);
        }
    }

    /// The copy at `position` was refused, or will not arrive: it is asked for again, after a pause in the first case.
    pub fn miss(&mut self, key: Key, position: u64, refused_ms: Option<u64>) {
        mark(&mut self.map, &key);
        let room = match refused_ms {
            Some(now_ms) => self.repair.refused(key, position, now_ms),
            None => self.repair.dropped(key, position),
        };
        if !room {
            self.lack(Need::Dirty);
        }
    }

    /// A doubt that comes from another key of the same effect.
    pub fn spread(&mut self, key: Key, position: u64) {
        mark(&mut self.map, &key);
        if !self.repair.spread(key, position) {
            self.lack(Need::Dirty);
        }
    }

    /// A key may differ as of `position`, and is not to be copied before `due_ms`.
    pub fn doubt_later(&mut self, key: Key, position: u64, due_ms: u64) {
        mark(&mut self.map, &key);
        if !self.repair.doubt_later(key, position, due_ms) {
            self.lack(Need::Dirty);
        }
    }

    /// The databases `a` and `b` were swapped while keys were in doubt.
    pub fn swap(&mut self, a: u16, b: u16, position: u64) {
        let since = self.repair.oldest();
        for (db, name) in self.repair.of_databases(a, b) {
            let key = (if db == a { b } else { a }, name);
            self.doubt(key.clone(), position);
            self.repair.backdate(&key, since);
        }
    }

    /// What was in flight may not have arrived. A copy that only adds is asked for again as such.
    pub fn again(&mut self, key: Key, position: u64) {
        if self.repair.is_gentle(&key) {
            self.miss(key, position, None);
        } else {
            self.doubt(key, position);
        }
    }

    /// The routes give it these keys. If they were others before, it lacks some.
    pub fn share(&mut self, share: u64) {
        let before = if self.share == 0 { self.map.share() } else { self.share };
        self.share = share;
        self.map.set_share(share);
        if before != 0 && before != share {
            self.doubt_all();
        }
    }

    /// It cannot be told which keys may differ.
    pub fn doubt_all(&mut self) {
        self.map.mark_all();
        self.lack(Need::Full);
    }

    /// The log alone will not make it equal.
    pub fn lack(&mut self, need: Need) {
        self.need = self.need.max(need);
        self.mark = None;
    }

    /// What its Redis has may be other data by now, in the same process: it said that it was another server's replica, or
    /// its marker is gone. Only its marker can tell, and nothing more is sent before.
    pub fn suspect(&mut self, now_ms: u64) {
        if self.judged == Judged::No && !self.open {
            return; // the replies to what was in flight
        }
        self.judged = Judged::No;
        self.judge_at = now_ms + SUSPECT_MS;
        self.open = false;
        self.resync = None;
        self.marked = 0;
        self.map.set_run(1, 0);
        self.mark = None;
        if self.sole {
            self.lack(Need::Dirty); // to one that others write to, a resync brings less than the log
        }
    }

    /// Go on with what is not decided yet: a resync finds what the effects before have changed.
    pub fn skip(&mut self, log: &Log) {
        while self.next < log.decided() {
            let at = self.next;
            self.next += 1;
            if let Some(entry) = log.get(at)
                && entry.state == State::Committed
                && entry.kind != Kind::Write
            {
                super::mirror::drop_effect(self, entry, log.bytes(entry), at);
            }
        }
        if self.in_flight == 0 {
            self.acked = self.next;
        }
    }

    /// Whether whatever it lacks is marked in the current generation, once [`Self::mark_again`] was called: its marker may
    /// say that all before is there.
    pub fn is_known(&self) -> bool {
        self.judged == Judged::Yes && self.need == Need::Nothing && self.resync.is_none()
    }

    /// Keys in doubt are marked in the generation that has begun.
    pub fn mark_again(&mut self) {
        if self.unrepaired_more {
            self.map.mark_all();
        }
        for key in self.repair.keys().chain(&self.unrepaired) {
            mark(&mut self.map, key);
        }
    }

    /// Whether it has, or is about to have, all that the primary has.
    pub fn is_clean(&self) -> bool {
        self.is_known() && self.repair.is_empty() && self.unrepaired.is_empty() && !self.unproven
    }

    /// What it lacks beside what is in flight.
    pub fn lack_now(&self) -> Lack {
        match self.repair.len() {
            _ if !self.is_known() || self.unproven || !self.unrepaired.is_empty() => Lack::Keys,
            0 => Lack::Nothing,
            _ if self.late || self.repair.is_refused() => Lack::Keys,
            keys => Lack::Changes(keys),
        }
    }

    /// It missed the effect at a position of the log.
    pub fn miss_from(&mut self, position: u64) {
        self.missed = Some(self.missed.map_or(position, |p| p.min(position)));
    }

    /// Everything before this position of the log is there.
    pub fn has_until(&self) -> u64 {
        self.acked.min(self.missed.unwrap_or(u64::MAX)).min(self.repair.oldest())
    }

    /// `primary -> mirror`, as events name it.
    pub fn name(&self) -> String {
        format!("{} -> {}", self.stats.label.get("primary"), self.stats.label.get("mirror"))
    }
}

/// A key may differ: its bucket is dirty.
fn mark(map: &mut DirtyMap, (db, name): &Key) {
    match *db {
        FUNCTIONS => map.mark_functions(),
        db => map.mark(bucket(db, name)),
    }
}
