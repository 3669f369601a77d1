//! One receiver of a sequencer's log, and the keys that must be copied to it whole.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::stats::ReplicaStats;

/// Most effects sent and not acknowledged; what is in doubt when the connection breaks is at most this.
pub const WINDOW: u64 = 4096;
/// Most keys that wait to be copied; past it the replica has lost effects.
const REPAIR_MAX: usize = 100_000;
/// Pause after a copy that the replica refused.
const RETRY_MS: u64 = 1_000;

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
    /// The control plane knows that the log dropped something.
    pub told_lost: bool,
    /// What is counted.
    pub stats: Arc<ReplicaStats>,
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
    /// To be asked for now.
    wanted: VecDeque<Key>,
    /// To be asked for at a time (milliseconds), soonest first.
    later: VecDeque<(u64, Key)>,
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
            None if self.keys.len() >= REPAIR_MAX => return false,
            _ => {}
        }
        self.keys.insert(key.clone(), Copy::Wanted);
        self.wanted.push_back(key);
        true
    }

    /// The next key to be copied, if one is due.
    pub fn due(&mut self, now_ms: u64) -> Option<Key> {
        while let Some((_, key)) = self.later.pop_front_if(|(at, _)| *at <= now_ms) {
            self.wanted.push_back(key);
        }
        self.wanted.pop_front()
    }

    /// The copy of a key that was due cannot be asked for now.
    pub fn put_back(&mut self, key: Key) {
        self.wanted.push_front(key);
    }

    /// The copy of a key has been asked for; its effect will be at `position`.
    pub fn asked(&mut self, key: Key, position: u64) {
        self.keys.insert(key, Copy::Asked(position));
    }

    /// The copy at `position` arrived.
    pub fn copied(&mut self, key: &Key, position: u64) {
        if self.keys.get(key) == Some(&Copy::Asked(position)) {
            self.keys.remove(key);
        }
    }

    /// The copy at `position` was refused: ask again, but not at once.
    pub fn refused(&mut self, key: Key, position: u64, now_ms: u64) {
        match self.keys.get(&key) {
            Some(Copy::Wanted) => return,
            Some(Copy::Asked(at)) if *at > position => return,
            _ => {}
        }
        self.keys.insert(key.clone(), Copy::Wanted);
        self.later.push_back((now_ms + RETRY_MS, key));
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
        repair.refused(key("a"), 2, 100);
        assert_eq!(repair.due(100), None);
        assert_eq!(repair.due(100 + RETRY_MS), Some(key("a")));
    }
}
