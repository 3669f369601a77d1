//! Bytes that stay where they are: append-only chunks, addressed by number.
//!
//! A command is copied here once and leaves from here for every socket that gets it, so a chunk lives as long as
//! anything points into it. Large frames are adopted: their buffer becomes a chunk.

use std::collections::VecDeque;

/// Bytes of an ordinary chunk.
const CHUNK: usize = 64 * 1024;
/// A frame of at least this size is adopted rather than copied.
pub const ADOPT: usize = 32 * 1024;

/// Where some bytes lie in a [`Store`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    chunk: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Piece {
    /// No bytes, nowhere.
    pub const EMPTY: Self = Self { chunk: 0, start: 0, end: 0 };

    /// The number of bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether `next` lies directly behind, so that both can leave as one.
    #[inline]
    pub fn joins(&self, next: &Self) -> bool {
        self.chunk == next.chunk && self.end == next.start
    }

    /// A part of this piece.
    pub fn part(&self, from: usize, to: usize) -> Self {
        debug_assert!(from <= to && to <= self.len());
        Self { chunk: self.chunk, start: self.start + from as u32, end: self.start + to as u32 }
    }
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    /// Pieces that are still wanted.
    live: u32,
    /// Nothing more is appended.
    sealed: bool,
}

/// A run of chunks.
#[derive(Debug, Default)]
pub struct Store {
    chunks: VecDeque<Chunk>,
    /// The number of the first chunk in `chunks`; numbers wrap.
    first: u32,
    /// Capacity held, in bytes.
    held: usize,
    /// One free chunk, so that a steady flow allocates nothing.
    spare: Option<Vec<u8>>,
}

impl Store {
    /// Copy `bytes` in; the piece counts as live until [`Self::release`].
    #[inline]
    pub fn append(&mut self, bytes: &[u8]) -> Piece {
        let fits = |c: &Chunk| !c.sealed && c.bytes.len() + bytes.len() <= c.bytes.capacity();
        if !self.chunks.back().is_some_and(fits) {
            self.open(bytes.len());
        }
        let chunk = self.first.wrapping_add(self.chunks.len() as u32).wrapping_sub(1);
        let Some(tail) = self.chunks.back_mut() else { return Piece::default() };
        let start = tail.bytes.len() as u32;
        tail.bytes.extend_from_slice(bytes);
        tail.live += 1;
        Piece { chunk, start, end: tail.bytes.len() as u32 }
    }

    /// Take a buffer over without copying it.
    pub fn adopt(&mut self, bytes: Vec<u8>) -> Piece {
        let piece = Piece {
            chunk: self.first.wrapping_add(self.chunks.len() as u32),
            start: 0,
            end: bytes.len() as u32,
        };
        self.held += bytes.capacity();
        self.chunks.push_back(Chunk { bytes, live: 1, sealed: true });
        piece
    }

    /// The bytes of a piece that is live.
    #[inline]
    pub fn get(&self, piece: Piece) -> &[u8] {
        let chunk = self.chunks.get(piece.chunk.wrapping_sub(self.first) as usize);
        debug_assert!(chunk.is_some_and(|c| c.live > 0), "a piece was used after its release");
        chunk.and_then(|c| c.bytes.get(piece.start as usize..piece.end as usize)).unwrap_or(&[])
    }

    /// A piece is no longer wanted.
    #[inline]
    pub fn release(&mut self, piece: Piece) {
        let Some(chunk) = self.chunks.get_mut(piece.chunk.wrapping_sub(self.first) as usize) else { return };
        debug_assert!(chunk.live > 0, "a piece was released twice");
        chunk.live = chunk.live.saturating_sub(1);
        if chunk.live == 0 {
            self.free();
        }
    }

    /// A piece is wanted once more.
    #[inline]
    pub fn keep(&mut self, piece: Piece) {
        if let Some(chunk) = self.chunks.get_mut(piece.chunk.wrapping_sub(self.first) as usize) {
            chunk.live += 1;
        }
    }

    /// Bytes held, counted in whole chunks.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Give back what only waits for the next burst.
    pub fn shrink(&mut self) {
        self.spare = None;
        if self.chunks.len() == 1 && self.chunks.front().is_some_and(|c| c.live == 0) {
            self.drop_front();
            self.spare = None;
        }
    }

    /// Drop the chunks in front that nothing points into; the last one is used again from its start.
    fn free(&mut self) {
        while self.chunks.len() > 1 && self.chunks.front().is_some_and(|c| c.live == 0) {
            self.drop_front();
        }
        if self.chunks.len() == 1 {
            match self.chunks.front_mut() {
                Some(only) if only.live == 0 && only.sealed => self.drop_front(),
                Some(only) if only.live == 0 => only.bytes.clear(),
                _ => {}
            }
        }
    }

    fn drop_front(&mut self) {
        let Some(chunk) = self.chunks.pop_front() else { return };
        self.first = self.first.wrapping_add(1);
        self.held -= chunk.bytes.capacity();
        if chunk.bytes.capacity() == CHUNK && self.spare.is_none() {
            let mut bytes = chunk.bytes;
            bytes.clear();
            self.spare = Some(bytes);
        }
    }

    fn open(&mut self, at_least: usize) {
        let bytes = match self.spare.take() {
            Some(spare) if spare.capacity() >= at_least => spare,
            _ => Vec::with_capacity(at_least.max(CHUNK)),
        };
        self.held += bytes.capacity();
        self.chunks.push_back(Chunk { bytes, live: 0, sealed: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_their_bytes_until_released() {
        let mut store = Store::default();
        let pieces: Vec<Piece> = (0..10_000u32).map(|i| store.append(&i.to_le_bytes().repeat(9))).collect();
        for (i, piece) in pieces.iter().enumerate() {
            assert_eq!(store.get(*piece), (i as u32).to_le_bytes().repeat(9));
        }
        assert!(store.held() > 5 * CHUNK);
        for piece in &pieces {
            store.release(*piece);
        }
        assert_eq!(store.held(), CHUNK, "the last chunk stays for the next burst");
        store.shrink();
        assert_eq!(store.held(), 0);
    }

    #[test]
    fn chunks_in_the_middle_wait_for_those_in_front() {
        let mut store = Store::default();
        let first = store.append(b"first");
        let large = store.adopt(vec![7; ADOPT]);
        let last = store.append(b"last");
        store.release(large);
        assert_eq!(store.get(first), b"first");
        assert_eq!(store.get(last), b"last");
        store.release(first);
        assert_eq!(store.get(last), b"last");
        assert_eq!(store.held(), CHUNK);
    }

    #[test]
    fn neighbours_join() {
        let mut store = Store::default();
        let (a, b) = (store.append(b"ab"), store.append(b"cd"));
        assert!(a.joins(&b) && !b.joins(&a));
        assert_eq!(store.get(a.part(1, 2)), b"b");
    }
}
