//! What waits to be written to one upstream connection: pieces, in order, of the connection's own store (reads,
//! injected context) and of its sequencer's log. Neighbours leave as one.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::store::{Piece, Store};

/// Most slices of one `writev`.
pub const SLICES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Own,
    Log,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    source: Source,
    piece: Piece,
    /// Pieces of the own store joined in this segment, to be released when it has left.
    joined: u32,
}

/// The queue of bytes to one upstream.
#[derive(Debug, Default)]
pub struct Outgoing {
    segments: VecDeque<Segment>,
    own: Store,
    /// Bytes of the first segment that have left already.
    sent: usize,
    waiting: usize,
    /// Bytes ever queued and ever written on this connection; positions in its stream.
    queued: u64,
}

impl Outgoing {
    /// Queue a copy of `bytes`.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        let piece = self.own.append(bytes);
        self.enqueue(Source::Own, piece);
    }

    /// Queue a copy of `bytes` that stays until [`Self::release`], written or not.
    #[inline]
    pub fn push_kept(&mut self, bytes: &[u8]) -> Piece {
        let piece = self.own.append(bytes);
        self.own.keep(piece);
        self.enqueue(Source::Own, piece);
        piece
    }

    /// The same for a large frame, without copying it.
    pub fn push_adopted_kept(&mut self, bytes: Vec<u8>) -> Piece {
        let piece = self.own.adopt(bytes);
        self.own.keep(piece);
        self.enqueue(Source::Own, piece);
        piece
    }

    /// Bytes that were kept.
    pub fn kept(&self, piece: Piece) -> &[u8] {
        self.own.get(piece)
    }

    /// They need not be kept any more.
    #[inline]
    pub fn release(&mut self, piece: Piece) {
        self.own.release(piece);
    }

    /// Queue a large frame without copying it.
    pub fn push_adopted(&mut self, bytes: Vec<u8>) {
        let piece = self.own.adopt(bytes);
        self.enqueue(Source::Own, piece);
    }

    /// Queue bytes of the log. The log keeps them until the reply is here or the connection is gone.
    #[inline]
    pub fn push_log(&mut self, piece: Piece) {
        self.enqueue(Source::Log, piece);
    }

    #[inline]
    fn enqueue(&mut self, source: Source, piece: Piece) {
        self.waiting += piece.len();
        self.queued += piece.len() as u64;
        if let Some(last) = self.segments.back_mut()
            && last.source == source
            && last.piece.joins(&piece)
        {
            last.piece.end = piece.end;
            last.joined += 1;
            return;
        }
        self.segments.push_back(Segment { source, piece, joined: 1 });
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes of its own store, in whole chunks.
    pub fn held(&self) -> usize {
        self.own.held()
    }

    /// The position in the stream of the next byte to be queued.
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// The position in the stream up to which bytes were given to the socket.
    pub fn written(&self) -> u64 {
        self.queued - self.waiting as u64
    }

    /// Fill `slices` with what leaves next; gives how many.
    pub fn slices<'a>(&'a self, log: Option<&'a Store>, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut filled = 0;
        let mut skip = self.sent;
        for (slot, segment) in slices.iter_mut().zip(&self.segments) {
            let piece = segment.piece.part(skip, segment.piece.len());
            skip = 0;
            let bytes = match (segment.source, log) {
                (Source::Own, _) => self.own.get(piece),
                (Source::Log, Some(log)) => log.get(piece),
                (Source::Log, None) => &[],
            };
            *slot = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// `n` bytes have left.
    pub fn advance(&mut self, mut n: usize) {
        debug_assert!(n <= self.waiting);
        self.waiting -= n;
        while let Some(first) = self.segments.front() {
            let left = first.piece.len() - self.sent;
            if n < left {
                self.sent += n;
                return;
            }
            n -= left;
            self.sent = 0;
            if first.source == Source::Own {
                for _ in 0..first.joined {
                    self.own.release(first.piece);
                }
            }
            self.segments.pop_front();
        }
    }

    /// The connection is gone: forget everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Give back memory that only waits for the next burst.
    pub fn shrink(&mut self) {
        if self.segments.is_empty() {
            self.own.shrink();
            self.segments.shrink_to(16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(out: &mut Outgoing, log: &Store, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while out.waiting() > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let n = out.slices(Some(log), &mut slices);
            let bytes: Vec<u8> = slices[..n].iter().flat_map(|s| s.iter().copied()).take(step).collect();
            out.advance(bytes.len());
            all.extend(bytes);
        }
        all
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_socket_takes() {
        for step in [1, 2, 7, 1000] {
            let mut log = Store::default();
            let mut out = Outgoing::default();
            let mut expected = Vec::new();
            for i in 0..50u8 {
                let bytes = vec![i; usize::from(i) + 1];
                expected.extend_from_slice(&bytes);
                match i % 3 {
                    0 => out.push(&bytes),
                    1 => out.push_adopted(bytes),
                    _ => out.push_log(log.append(&bytes)),
                }
            }
            assert_eq!(out.queued(), expected.len() as u64);
            assert_eq!(drain(&mut out, &log, step), expected);
            assert_eq!(out.written(), out.queued());
        }
    }

    #[test]
    fn neighbours_leave_as_one_slice() {
        let log = Store::default();
        let mut out = Outgoing::default();
        for _ in 0..32 {
            out.push(b"*1\r\n$4\r\nPING\r\n");
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        assert_eq!(out.slices(Some(&log), &mut slices), 1);
    }
}
