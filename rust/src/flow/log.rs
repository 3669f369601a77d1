//! The log of one sequencer: effects in the order of the primary's execution, each at a position.
//!
//! An entry is *pending* from the moment its command is queued to the primary until the reply is here, then
//! *committed* (replicas must get it) or *nothing* (it changed nothing, or its fate is left to a SYNC of its keys).
//! One connection carries all commands, so entries are decided in the order in which they were appended.

use std::collections::VecDeque;

use super::store::{Piece, Store};

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its command has no reply yet.
    Pending,
    /// Its effect is known and belongs on the replicas.
    Committed,
    /// Replicas skip it.
    Nothing,
}

/// What kind of effect an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A change of data.
    Write,
    /// A read that the mirror wants too; worth nothing once it is late.
    Read,
    /// A message; not delivered when it is older than a second.
    Publish,
    /// A whole key, copied.
    Sync,
    /// The function libraries, copied.
    Functions,
}

/// One effect.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The command as sent; from the commit on, the effect.
    pub piece: Piece,
    /// The replicas that must get it, a bit each.
    pub replicas: u32,
    /// Its database.
    pub db: u16,
    /// Replies a replica will give to it (a transaction of n effects: n + 2).
    pub replies: u32,
    /// Its fate.
    pub state: State,
    /// Its kind.
    pub kind: Kind,
    /// What the primary's reply looked like ([`digest`]), to notice a replica on which the effect did something else.
    pub digest: u32,
    /// It holds a SELECT: the connection's database is another one afterwards.
    pub selects: bool,
    /// When it was appended, in milliseconds of the worker's clock.
    pub at_ms: u64,
}

/// The digest of a reply that is not compared.
pub const UNCHECKED: u32 = 0;
/// Longest reply that is compared.
const DIGEST_MAX: usize = 128;

/// A few bits of a reply: the same on every server that was in the same state. [`UNCHECKED`] where it need not be the
/// same (the two versions of RESP) or tells nothing (a status).
#[inline]
pub fn digest(reply: &[u8], resp: u8) -> u32 {
    match reply.first() {
        Some(b':') => {}
        Some(b'$' | b'*') if resp == 2 && reply.len() <= DIGEST_MAX => {}
        _ => return UNCHECKED,
    }
    reply.iter().fold(0x811c_9dc5, |hash: u32, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) | 1
}

/// The run of entries that some replica still needs.
#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    /// The position of the first entry.
    first: u64,
    /// Entries before this position are decided.
    decided: u64,
    store: Store,
    committed: u64,
    /// Keys that end, on which entries build: in the order of the entries.
    ends: VecDeque<End>,
}

/// The end of a key's life on which an entry builds.
#[derive(Clone, Copy, Debug)]
struct End {
    position: u64,
    /// The key's hash.
    key: u64,
    /// Milliseconds since 1970.
    at: u64,
}

impl Log {
    /// Copy a command in, pending.
    #[inline]
    pub fn append(&mut self, bytes: &[u8], entry: Entry) -> u64 {
        let piece = self.store.append(bytes);
        self.push(Entry { piece, ..entry })
    }

    /// Take a large command over, pending.
    pub fn adopt(&mut self, bytes: Vec<u8>, entry: Entry) -> u64 {
        let piece = self.store.adopt(bytes);
        self.push(Entry { piece, ..entry })
    }

    #[inline]
    fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(Entry { state: State::Pending, ..entry });
        self.end() - 1
    }

    /// The entry at `position`.
    #[inline]
    pub fn get(&self, position: u64) -> Option<&Entry> {
        self.entries.get(position.checked_sub(self.first)? as usize)
    }

    /// The bytes of an entry.
    pub fn bytes(&self, entry: &Entry) -> &[u8] {
        self.store.get(entry.piece)
    }

    /// The effect at `position` will get a reply with this digest from a replica in the primary's state.
    #[inline]
    pub fn expect(&mut self, position: u64, digest: u32) {
        if let Some(entry) = self.entries.get_mut(position.wrapping_sub(self.first) as usize) {
            entry.digest = digest;
        }
    }

    /// The entry at `position` builds on a key whose life ends `at` a time. Told in the order of the entries.
    pub fn set_end(&mut self, position: u64, key: u64, at: u64) {
        debug_assert!(self.ends.back().is_none_or(|last| last.position <= position));
        self.ends.push_back(End { position, key, at });
    }

    /// Whether any entry builds on a key that ends.
    #[inline]
    pub fn has_ends(&self) -> bool {
        !self.ends.is_empty()
    }

    /// The keys that end on which the entry at `position` builds, each with its time.
    pub fn ends(&self, position: u64) -> impl Iterator<Item = (u64, u64)> {
        let from = self.ends.partition_point(|end| end.position < position);
        self.ends.range(from..).take_while(move |end| end.position == position).map(|end| (end.key, end.at))
    }

    /// Decide the oldest pending entry. `effect`: other bytes than the command's, with the replies they give.
    #[inline]
    pub fn decide(&mut self, position: u64, state: State, effect: Option<(&[u8], u32)>) {
        debug_assert_eq!(position, self.decided, "entries are decided in the order of their commands");
        let Some(entry) = self.entries.get_mut((position - self.first) as usize) else { return };
        debug_assert!(entry.state == State::Pending && state != State::Pending);
        entry.state = state;
        self.decided = position + 1;
        match (state, effect) {
            (State::Committed, Some((bytes, replies))) => {
                self.store.release(entry.piece);
                entry.piece = self.store.append(bytes);
                entry.replies = replies;
            }
            (State::Nothing, _) => {
                self.store.release(entry.piece);
                entry.piece = Piece::default();
            }
            _ => {}
        }
        self.committed += u64::from(state == State::Committed);
    }

    /// Every position before this one is decided.
    #[inline]
    pub fn decided(&self) -> u64 {
        self.decided
    }

    /// The position after the last entry.
    #[inline]
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The position of the first entry that is kept.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Forget decided entries before `position`.
    #[inline]
    pub fn trim(&mut self, position: u64) {
        let end = position.min(self.decided);
        while self.first < end {
            let Some(entry) = self.entries.pop_front() else { break };
            self.first += 1;
            if entry.state == State::Committed {
                self.store.release(entry.piece);
            }
        }
        while self.ends.front().is_some_and(|end| end.position < self.first) {
            self.ends.pop_front();
        }
    }

    /// Bytes held, in whole chunks and entries.
    pub fn held(&self) -> usize {
        self.store.held() + self.entries.len() * size_of::<Entry>() + self.ends.len() * size_of::<End>()
    }

    /// Entries kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Entries committed since the start: the sequence number of the newest.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Where the bytes are, for the connections that send them.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Give back memory that only waits for the next burst.
    pub fn shrink(&mut self) {
        if self.entries.is_empty() {
            self.store.shrink();
            self.entries.shrink_to(64);
            self.ends.shrink_to(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry {
        piece: Piece::EMPTY,
        replicas: 1,
        db: 0,
        replies: 1,
        state: State::Pending,
        kind: Kind::Write,
        digest: UNCHECKED,
        selects: false,
        at_ms: 0,
    };

    #[test]
    fn entries_live_until_trimmed() {
        let mut log = Log::default();
        for i in 0..100u8 {
            assert_eq!(log.append(&[i; 10], ENTRY), u64::from(i));
        }
        for i in 0..60 {
            let state = if i % 2 == 0 { State::Committed } else { State::Nothing };
            log.decide(i, state, (i % 4 == 0).then_some((&b"other"[..], 1)));
        }
        log.trim(1_000);
        assert_eq!((log.first(), log.decided(), log.end()), (60, 60, 100));
        assert_eq!(log.committed(), 30);
        let entry = *log.get(60).expect("pending entries stay");
        assert_eq!(log.bytes(&entry), [60; 10]);
        assert!(log.get(59).is_none());
    }

    #[test]
    fn ends_live_as_long_as_their_entries() {
        let mut log = Log::default();
        for i in 0..5 {
            log.append(b"INCR k", ENTRY);
            if i != 2 {
                log.set_end(i, 7, 100 + i);
                log.set_end(i, 8, 200 + i);
            }
        }
        assert!(log.ends(2).next().is_none());
        assert_eq!(log.ends(3).collect::<Vec<_>>(), [(7, 103), (8, 203)]);
        for i in 0..5 {
            log.decide(i, State::Nothing, None);
        }
        log.trim(4);
        assert!(log.ends(3).next().is_none());
        assert_eq!(log.ends(4).count(), 2);
        log.trim(5);
        assert!(!log.has_ends());
    }

    #[test]
    fn an_effect_may_have_other_bytes() {
        let mut log = Log::default();
        let at = log.append(b"SPOP k", ENTRY);
        log.decide(at, State::Committed, Some((b"SREM k a", 1)));
        let entry = *log.get(at).expect("kept");
        assert_eq!(log.bytes(&entry), b"SREM k a");
    }
}
