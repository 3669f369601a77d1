//! The keys that must be copied to a replica whole.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hashbrown::HashMap;

/// Most keys that wait to be copied; past it the replica has lost effects.
const REPAIR_MAX: usize = 100_000;
/// Most of them whose copy waits for a time to come.
const LATER_MAX: usize = REPAIR_MAX / 2;
/// Pause of all copies after one was refused: at first, and at most.
const RETRY_MS: (u64, u64) = (1_000, 30_000);
/// So many are a few.
const FEW: usize = 64;

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

/// A key that may differ.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    copy: Copy,
    /// What came before this position of the log is on the replica.
    since: u64,
}

/// Keys that may differ on the replica until they have been copied. A key leaves only by a copy that was made after the
/// last doubt about it.
#[derive(Debug, Default)]
pub struct Repair {
    keys: HashMap<Key, Doubt, foldhash::fast::RandomState>,
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

    /// Everything before this position of the log is on the replica, as far as the keys in doubt tell. Where there are
    /// more than a few of them: 0.
    pub fn oldest(&self) -> u64 {
        if self.keys.len() > FEW { 0 } else { self.keys.values().map(|d| d.since).min().unwrap_or(u64::MAX) }
    }

    /// What is in doubt about a key has been so since `position`.
    pub fn backdate(&mut self, key: &Key, position: u64) {
        if let Some(doubt) = self.keys.get_mut(key) {
            doubt.since = doubt.since.min(position);
        }
    }

    fn copy(&self, key: &Key) -> Option<Copy> {
        self.keys.get(key).map(|d| d.copy)
    }

    /// A key changes its state, at `position` if it was in none.
    fn set(&mut self, key: Key, copy: Copy, position: u64) {
        let doubt = self.keys.entry(key).or_insert(Doubt { copy, since: position });
        doubt.copy = copy;
        doubt.since = doubt.since.min(position);
    }

    /// Whether the last copy was refused.
    pub fn is_refused(&self) -> bool {
        self.pause > 0
    }

    /// The keys in doubt.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.keys()
    }

    /// Whether this key is in doubt.
    pub fn contains(&self, key: &Key) -> bool {
        self.keys.contains_key(key)
    }

    /// A doubt about a key as of `position`: a copy that comes later in the log ends it. `false`: no room.
    pub fn doubt(&mut self, key: Key, position: u64) -> bool {
        match self.copy(&key) {
            Some(Copy::Asked { at, gentle: false }) if at > position => return true,
            Some(Copy::Asked { .. }) => self.asked -= 1,
            Some(Copy::Wanted { .. }) => {
                self.set(key, WANTED, position);
                return true;
            }
            None if self.keys.len() >= REPAIR_MAX => return false,
            Some(Copy::Later(_)) | None => {}
        }
        self.set(key.clone(), WANTED, position);
        self.wanted.push_back(key);
        true
    }

    /// A key that a resync has found. `gentle`: to be added only if the replica has none.
    ///
    /// A copy that was asked for before `position` does not count.
    pub fn find(&mut self, key: Key, gentle: bool, position: u64) {
        let stale = matches!(self.copy(&key), Some(Copy::Asked { at, .. }) if at < position);
        if stale {
            self.asked -= 1;
        }
        if stale || !self.keys.contains_key(&key) {
            self.set(key.clone(), Copy::Wanted { gentle }, 0);
            self.wanted.push_back(key);
        }
    }

    /// Whether the copy of a key leaves alone what is there.
    pub fn is_gentle(&self, key: &Key) -> bool {
        matches!(self.copy(key), Some(Copy::Wanted { gentle: true } | Copy::Asked { gentle: true, .. }))
    }

    /// Keys that wait to be asked for.
    pub fn waiting(&self) -> usize {
        self.wanted.len()
    }

    /// The same, but the copy should not be made before `due_ms`. It may be: any copy that comes later in the log ends the
    /// doubt. Where too many wait it is wanted at once.
    pub fn doubt_later(&mut self, key: Key, position: u64, due_ms: u64) -> bool {
        match self.copy(&key) {
            Some(Copy::Wanted { gentle: false } | Copy::Later(_)) => return true,
            Some(Copy::Asked { at, gentle: false }) if at > position => return true,
            _ if self.later.len() >= LATER_MAX => return self.doubt(key, position),
            Some(Copy::Asked { .. }) => self.asked -= 1,
            None if self.keys.len() >= REPAIR_MAX => return false,
            Some(Copy::Wanted { gentle: true }) | None => {}
        }
        self.set(key.clone(), Copy::Later(due_ms), position);
        self.later.push(Reverse((due_ms, key)));
        true
    }

    /// A doubt that comes from another key of the same effect. What is copied later anyway is copied then.
    pub fn spread(&mut self, key: Key, position: u64) -> bool {
        matches!(self.copy(&key), Some(Copy::Later(_))) || self.doubt(key, position)
    }

    /// What was to be copied later and is due is wanted.
    fn mature(&mut self, now_ms: u64) {
        while self.later.peek().is_some_and(|Reverse((due_ms, _))| *due_ms <= now_ms) {
            let Some(Reverse((due_ms, key))) = self.later.pop() else { return };
            if let Some(doubt) = self.keys.get_mut(&key).filter(|d| d.copy == Copy::Later(due_ms)) {
                doubt.copy = WANTED;
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
            if matches!(self.copy(&key), Some(Copy::Wanted { .. })) {
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
        self.asked += usize::from(!matches!(self.copy(&key), Some(Copy::Asked { .. })));
        self.set(key, Copy::Asked { at: position, gentle }, position);
    }

    /// The copy that was asked for at `before` will be at `position` instead.
    pub fn moved(&mut self, key: &Key, before: u64, position: u64) {
        if let Some(Doubt { copy: Copy::Asked { at, .. }, .. }) = self.keys.get_mut(key)
            && *at == before
        {
            *at = position;
        }
    }

    /// The copy at `position` arrived.
    pub fn copied(&mut self, key: &Key, position: u64) {
        self.pause = 0;
        match self.keys.get_mut(key) {
            Some(Doubt { copy: Copy::Asked { at, .. }, .. }) if *at == position => self.forget(key),
            // What came before it arrived; what is in doubt came later.
            Some(Doubt { copy: WANTED | Copy::Asked { gentle: false, .. }, since }) => {
                *since = position.max(*since);
            }
            _ => {}
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
        if matches!(self.keys.remove(key), Some(Doubt { copy: Copy::Asked { .. }, .. })) {
            self.asked -= 1;
        }
    }

    /// The keys in doubt of two databases.
    pub fn of_databases(&self, a: u16, b: u16) -> Vec<Key> {
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
        assert_eq!(repair.oldest(), 5);
        repair.copied(&key("a"), 9);
        assert!(repair.contains(&key("a")));
        assert_eq!(repair.oldest(), 9, "what came before the copy is there");
        assert_eq!(repair.due(0), Some(key("a")));
        repair.asked(key("a"), 20);
        repair.copied(&key("a"), 20);
        assert!(repair.is_empty());
        assert_eq!(repair.oldest(), u64::MAX);
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
