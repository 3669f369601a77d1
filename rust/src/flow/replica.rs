//! One receiver of a sequencer's log, and the keys that must be copied to it whole.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::stats::ReplicaStats;

use super::dirty::{DirtyMap, bucket};
use super::log::{Kind, Log, State};
use super::marker::Marker;
use super::resync::Resync;

/// Most effects sent and not acknowledged; what is in doubt when the connection breaks is at most this.
pub const WINDOW: u64 = 4096;
/// Most keys that wait to be copied; past it the replica has lost effects.
const REPAIR_MAX: usize = 100_000;
/// Most of them whose copy waits for a time to come.
const LATER_MAX: usize = REPAIR_MAX / 2;
/// Pause of all copies after one was refused: at first, and at most.
const RETRY_MS: (u64, u64) = (1_000, 30_000);
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
        self.mark_doubt(&key);
        if !self.repair.doubt(key, position) {
            self.lack(Need::Dirty);
        }
    }

    /// The copy at `position` was refused, or will not arrive: it is asked for again, after a pause in the first case.
    pub fn miss(&mut self, key: Key, position: u64, refused_ms: Option<u64>) {
        self.mark_doubt(&key);
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
        self.mark_doubt(&key);
        if !self.repair.spread(key, position) {
            self.lack(Need::Dirty);
        }
    }

    /// A key may differ as of `position`, and is not to be copied before `due_ms`.
    pub fn doubt_later(&mut self, key: Key, position: u64, due_ms: u64) {
        self.mark_doubt(&key);
        if !self.repair.doubt_later(key, position, due_ms) {
            self.lack(Need::Dirty);
        }
    }

    /// The databases `a` and `b` were swapped while keys were in doubt.
    pub fn swap(&mut self, a: u16, b: u16, position: u64) {
        for (db, name) in self.repair.of_databases(a, b) {
            self.doubt((if db == a { b } else { a }, name), position);
        }
    }

    fn mark_doubt(&mut self, (db, name): &Key) {
        match *db {
            FUNCTIONS => self.map.mark_functions(),
            db => self.map.mark(bucket(db, name)),
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
        for (db, name) in self.repair.keys.keys().chain(&self.unrepaired) {
            match *db {
                FUNCTIONS => self.map.mark_functions(),
                db => self.map.mark(bucket(db, name)),
            }
        }
    }

    /// Whether it has, or is about to have, all that the primary has.
    pub fn is_clean(&self) -> bool {
        self.judged == Judged::Yes
            && self.need == Need::Nothing
            && self.resync.is_none()
            && self.repair.is_empty()
            && self.unrepaired.is_empty()
            && !self.unproven
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

    /// `primary -> mirror`, as events name it.
    pub fn name(&self) -> String {
        format!("{} -> {}", self.stats.label.get("primary"), self.stats.label.get("mirror"))
    }
}

/// A key with its database.
pub type Key = (u16, Box<[u8]>);

/// The database number under which the function libraries are copied, as if they were a key.
pub const FUNCTIONS: u16 = u16::MAX;

/// Where the copy of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    /// To be asked for from this time on (milliseconds).
    Later(u64),
    /// To be asked for. If gently, what the replica has already is left alone.
    Wanted { gentle: bool },
    /// Asked for: its effect is the log's entry at this position.
    Asked { at: u64, gentle: bool },
}

const WANTED: Copy = Copy::Wanted { gentle: false };

/// Keys that may differ on the replica until they have been copied. A key leaves only by a copy that was made after the
/// last doubt about it.
#[derive(Debug, Default)]
pub struct Repair {
    keys: HashMap<Key, Copy, foldhash::fast::RandomState>,
    /// To be asked for.
    wanted: VecDeque<Key>,
    /// To be asked for later, by time; a key that is in another state by now does not count.
    later: BinaryHeap<Reverse<(u64, Key)>>,
    /// After a refusal no copy is asked for before this time (milliseconds).
    paused_until: u64,
    /// The next pause; 0 unless the last copy was refused.
    pause: u64,
    /// Keys in the state `Asked`.
    asked: usize,
}

impl Repair {
    /// Whether no key is in doubt.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys in doubt.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the last copy was refused.
    pub fn is_refused(&self) -> bool {
        self.pause > 0
    }

    /// Whether this key is in doubt.
    pub fn contains(&self, key: &Key) -> bool {
        self.keys.contains_key(key)
    }

    /// A doubt about a key as of `position`: a copy that comes later in the log ends it. `false`: no room.
    pub fn doubt(&mut self, key: Key, position: u64) -> bool {
        match self.keys.get(&key) {
            Some(Copy::Wanted { gentle: false }) => return true,
            Some(Copy::Asked { at, gentle: false }) if *at > position => return true,
            Some(Copy::Asked { .. }) => self.asked -= 1,
            Some(Copy::Wanted { gentle: true }) => {
                self.keys.insert(key, WANTED);
                return true;
            }
            None if self.keys.len() >= REPAIR_MAX => return false,
            Some(Copy::Later(_)) | None => {}
        }
        self.keys.insert(key.clone(), WANTED);
        self.wanted.push_back(key);
        true
    }

    /// A key that a resync has found. `gentle`: to be added only if the replica has none.
    ///
    /// A copy that was asked for before `position` does not count.
    pub fn find(&mut self, key: Key, gentle: bool, position: u64) {
        let stale = matches!(self.keys.get(&key), Some(Copy::Asked { at, .. }) if *at < position);
        if stale {
            self.asked -= 1;
        }
        if stale || !self.keys.contains_key(&key) {
            self.keys.insert(key.clone(), Copy::Wanted { gentle });
            self.wanted.push_back(key);
        }
    }

    /// Whether the copy of a key leaves alone what is there.
    pub fn is_gentle(&self, key: &Key) -> bool {
        matches!(self.keys.get(key), Some(Copy::Wanted { gentle: true } | Copy::Asked { gentle: true, .. }))
    }

    /// Keys that wait to be asked for.
    pub fn waiting(&self) -> usize {
        self.wanted.len()
    }

    /// The same, but the copy should not be made before `due_ms`. It may be: any copy that comes later in the log ends the
    /// doubt. Where too many wait it is wanted at once.
    pub fn doubt_later(&mut self, key: Key, position: u64, due_ms: u64) -> bool {
        match self.keys.get(&key) {
            Some(Copy::Wanted { gentle: false } | Copy::Later(_)) => return true,
            Some(Copy::Asked { at, gentle: false }) if *at > position => return true,
            _ if self.later.len() >= LATER_MAX => return self.doubt(key, position),
            Some(Copy::Asked { .. }) => self.asked -= 1,
            None if self.keys.len() >= REPAIR_MAX => return false,
            Some(Copy::Wanted { gentle: true }) | None => {}
        }
        self.keys.insert(key.clone(), Copy::Later(due_ms));
        self.later.push(Reverse((due_ms, key)));
        true
    }

    /// A doubt that comes from another key of the same effect. What is copied later anyway is copied then.
    pub fn spread(&mut self, key: Key, position: u64) -> bool {
        matches!(self.keys.get(&key), Some(Copy::Later(_))) || self.doubt(key, position)
    }

    /// What was to be copied later and is due is wanted.
    fn mature(&mut self, now_ms: u64) {
        while self.later.peek().is_some_and(|Reverse((due_ms, _))| *due_ms <= now_ms) {
            let Some(Reverse((due_ms, key))) = self.later.pop() else { return };
            if self.keys.get(&key) == Some(&Copy::Later(due_ms)) {
                self.keys.insert(key.clone(), WANTED);
                self.wanted.push_back(key);
            }
        }
    }

    /// The next key to be copied, if one is due. After a refusal one at a time, until one arrives.
    pub fn due(&mut self, now_ms: u64) -> Option<Key> {
        self.mature(now_ms);
        if now_ms < self.paused_until || (self.pause > 0 && self.asked > 0) {
            return None;
        }
        while let Some(key) = self.wanted.pop_front() {
            // It may have been forgotten, or asked for, since it was put there.
            if matches!(self.keys.get(&key), Some(Copy::Wanted { .. })) {
                return Some(key);
            }
        }
        None
    }

    /// The copy of a key that was due cannot be asked for now.
    pub fn put_back(&mut self, key: Key) {
        self.wanted.push_front(key);
    }

    /// The copy of a key has been asked for; its effect will be at `position`.
    pub fn asked(&mut self, key: Key, position: u64) {
        let gentle = self.is_gentle(&key);
        if !matches!(self.keys.insert(key, Copy::Asked { at: position, gentle }), Some(Copy::Asked { .. })) {
            self.asked += 1;
        }
    }

    /// The copy that was asked for at `before` will be at `position` instead.
    pub fn moved(&mut self, key: &Key, before: u64, position: u64) {
        if let Some(Copy::Asked { at, .. }) = self.keys.get_mut(key)
            && *at == before
        {
            *at = position;
        }
    }

    /// The copy at `position` arrived.
    pub fn copied(&mut self, key: &Key, position: u64) {
        self.pause = 0;
        if matches!(self.keys.get(key), Some(Copy::Asked { at, .. }) if *at == position) {
            self.forget(key);
        }
    }

    /// The copy at `position` was refused: ask again, but not at once. `false`: no room.
    pub fn refused(&mut self, key: Key, position: u64, now_ms: u64) -> bool {
        if now_ms >= self.paused_until {
            self.pause = (self.pause * 2).clamp(RETRY_MS.0, RETRY_MS.1);
            self.paused_until = now_ms + self.pause;
        }
        self.dropped(key, position)
    }

    /// The copy at `position` will not arrive: ask again. `false`: no room.
    pub fn dropped(&mut self, key: Key, position: u64) -> bool {
        let gentle = self.is_gentle(&key);
        if gentle {
            self.forget(&key);
            self.find(key, true, 0);
            return true;
        }
        self.doubt(key, position)
    }

    /// A key need not, or can never, be copied.
    pub fn forget(&mut self, key: &Key) {
        if matches!(self.keys.remove(key), Some(Copy::Asked { .. })) {
            self.asked -= 1;
        }
    }

    /// The keys in doubt of two databases.
    fn of_databases(&self, a: u16, b: u16) -> Vec<Key> {
        let mut keys: Vec<Key> = self.keys.keys().filter(|(db, _)| *db == a || *db == b).cloned().collect();
        keys.sort_unstable(); // a run of the simulation depends on its seed alone
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        (0, name.as_bytes().into())
    }

    #[test]
    fn a_doubt_ends_with_a_later_copy_only() {
        let mut repair = Repair::default();
        assert!(repair.doubt(key("a"), 5));
        assert_eq!(repair.due(0), Some(key("a")));
        repair.asked(key("a"), 9);
        assert!(repair.doubt(key("a"), 8), "the copy comes after the doubt");
        assert_eq!(repair.due(0), None);
        assert!(repair.doubt(key("a"), 12), "the doubt comes after the copy");
        repair.copied(&key("a"), 9);
        assert!(repair.contains(&key("a")));
        assert_eq!(repair.due(0), Some(key("a")));
        repair.asked(key("a"), 20);
        repair.copied(&key("a"), 20);
        assert!(repair.is_empty());
    }

    #[test]
    fn a_refused_copy_is_tried_again_later() {
        let mut repair = Repair::default();
        repair.doubt(key("a"), 1);
        let due = repair.due(0).expect("due");
        repair.asked(due, 2);
        repair.doubt(key("b"), 1);
        assert!(repair.refused(key("a"), 2, 100));
        assert_eq!(repair.due(100), None, "nothing is asked of a replica that refuses");
        let first = repair.due(100 + RETRY_MS.0).expect("due");
        repair.asked(first, 3);
        assert_eq!(repair.due(100 + RETRY_MS.0), None, "one at a time");
        repair.copied(&key("b"), 3);
        assert_eq!(repair.due(100 + RETRY_MS.0), Some(key("a")));
    }

    #[test]
    fn a_copy_may_wait_for_a_time_to_come() {
        let mut repair = Repair::default();
        assert!(repair.doubt_later(key("a"), 5, 300));
        assert!(repair.doubt_later(key("b"), 5, 200));
        assert!(
            repair.doubt_later(key("a"), 6, 400),
            "the first time counts: its copy comes after both effects"
        );
        assert!(repair.contains(&key("a")) && !repair.is_empty());
        assert_eq!(repair.due(199), None);
        assert_eq!(repair.due(200), Some(key("b")));
        repair.asked(key("b"), 9);
        assert!(repair.doubt_later(key("b"), 8, 500), "the copy comes after the doubt");
        repair.copied(&key("b"), 9);
        assert!(!repair.contains(&key("b")));
        assert_eq!(repair.due(299), None);
        assert_eq!(repair.due(300), Some(key("a")));
        repair.asked(key("a"), 12);
        assert!(repair.doubt_later(key("a"), 15, 600), "the doubt comes after the copy");
        repair.copied(&key("a"), 12);
        assert!(repair.contains(&key("a")));
        assert!(repair.spread(key("a"), 16));
        assert_eq!(repair.due(400), None, "what is copied later is copied then");
        assert!(repair.doubt(key("a"), 17));
        assert_eq!(repair.due(400), Some(key("a")), "it is wanted at once");
        repair.asked(key("a"), 20);
        repair.copied(&key("a"), 20);
        assert!(repair.is_empty());
        assert_eq!(repair.due(1_000), None, "it is not copied for the time that passed");
    }

    #[test]
    fn where_too_many_wait_the_copy_is_wanted_at_once() {
        let mut repair = Repair::default();
        for n in 0..LATER_MAX {
            assert!(repair.doubt_later(key(&n.to_string()), 1, 1_000));
        }
        assert!(repair.doubt_later(key("more"), 1, 1_000));
        assert_eq!(repair.due(0), Some(key("more")));
        assert_eq!(repair.due(0), None);
    }

    #[test]
    fn copies_that_were_lost_do_not_stop_the_repair() {
        let mut repair = Repair::default();
        for name in ["a", "b"] {
            repair.doubt(key(name), 1);
            let due = repair.due(0).expect("due");
            repair.asked(due, 2);
        }
        repair.doubt(key("a"), 5); // the primary's connection broke with the copies in flight
        repair.doubt(key("b"), 5);
        let due = repair.due(0).expect("due");
        repair.asked(due.clone(), 6);
        repair.refused(due, 6, 0);
        assert!(repair.due(RETRY_MS.0).is_some(), "nothing is in flight, so one may be tried");
    }
}
