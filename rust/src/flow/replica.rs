//! One receiver of a sequencer's log, and the keys that must be copied to it whole.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::stats::ReplicaStats;

/// Most effects sent and not acknowledged; what is in doubt when the connection breaks is at most this.
pub const WINDOW: u64 = 4096;
/// Most keys that wait to be copied; past it the replica has lost effects.
const REPAIR_MAX: usize = 100_000;
/// Pause of all copies after one was refused: at first, and at most.
const RETRY_MS: (u64, u64) = (1_000, 30_000);

/// The receiver.
#[derive(Debug)]
pub struct Replica {
    /// Key of its endpoint.
    pub target: usize,
    /// Its connection.
    pub upstream: usize,
    /// Its number among the sequencer's replicas.
    pub bit: u32,
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
    /// Its Redis is another one, or was restarted: what it has of the past is not known.
    pub unproven: bool,
    /// The control plane knows that the log dropped something.
    pub told_lost: bool,
    /// What is counted.
    pub stats: Arc<ReplicaStats>,
}

impl Replica {
    /// `primary -> mirror`, as events name it.
    pub fn name(&self) -> String {
        format!("{} -> {}", self.stats.label.get("primary"), self.stats.label.get("mirror"))
    }
}

/// A key with its database.
pub type Key = (u16, Box<[u8]>);

/// Where the copy of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    /// To be asked for.
    Wanted,
    /// Asked for: its effect is the log's entry at this position.
    Asked(u64),
}

/// Keys that may differ on the replica until they have been copied. A key leaves only by a copy that was made after the
/// last doubt about it.
#[derive(Debug, Default)]
pub struct Repair {
    keys: HashMap<Key, Copy, foldhash::fast::RandomState>,
    /// To be asked for.
    wanted: VecDeque<Key>,
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

    /// Whether this key is in doubt.
    pub fn contains(&self, key: &Key) -> bool {
        self.keys.contains_key(key)
    }

    /// A doubt about a key as of `position`: a copy that comes later in the log ends it. `false`: no room.
    pub fn doubt(&mut self, key: Key, position: u64) -> bool {
        match self.keys.get(&key) {
            Some(Copy::Wanted) => return true,
            Some(Copy::Asked(at)) if *at > position => return true,
            Some(Copy::Asked(_)) => self.asked -= 1,
            None if self.keys.len() >= REPAIR_MAX => return false,
            None => {}
        }
        self.keys.insert(key.clone(), Copy::Wanted);
        self.wanted.push_back(key);
        true
    }

    /// The next key to be copied, if one is due. After a refusal one at a time, until one arrives.
    pub fn due(&mut self, now_ms: u64) -> Option<Key> {
        if now_ms < self.paused_until || (self.pause > 0 && self.asked > 0) {
            return None;
        }
        self.wanted.pop_front()
    }

    /// The copy of a key that was due cannot be asked for now.
    pub fn put_back(&mut self, key: Key) {
        self.wanted.push_front(key);
    }

    /// The copy of a key has been asked for; its effect will be at `position`.
    pub fn asked(&mut self, key: Key, position: u64) {
        if !matches!(self.keys.insert(key, Copy::Asked(position)), Some(Copy::Asked(_))) {
            self.asked += 1;
        }
    }

    /// The copy at `position` arrived.
    pub fn copied(&mut self, key: &Key, position: u64) {
        self.pause = 0;
        if self.keys.get(key) == Some(&Copy::Asked(position)) {
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
        self.doubt(key, position)
    }

    /// A key need not, or can never, be copied.
    pub fn forget(&mut self, key: &Key) {
        if matches!(self.keys.remove(key), Some(Copy::Asked(_))) {
            self.asked -= 1;
        }
    }

    /// The databases `a` and `b` were swapped while keys were in doubt.
    pub fn swap(&mut self, a: u16, b: u16, position: u64) {
        let there = |db| {
            if db == a {
                b
            } else if db == b {
                a
            } else {
                db
            }
        };
        let keys: Vec<Key> = self.keys.keys().filter(|(db, _)| *db == a || *db == b).cloned().collect();
        for (db, name) in keys {
            self.doubt((there(db), name), position);
        }
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
