//! One direction of a connection: bytes come out in the order they went in, in other pieces, later, or not at all.

use std::collections::VecDeque;

use super::rng::Rng;

/// The bytes on their way. Times in microseconds.
#[derive(Debug)]
pub struct Pipe {
    segments: VecDeque<(u64, Vec<u8>)>,
    /// When the last byte arrives.
    last: u64,
    held: usize,
    room: usize,
    delay: u64,
    /// When the reader sees the end.
    end: Option<u64>,
    /// Nothing that is sent arrives any more.
    lost: bool,
    sent: u64,
    taken: u64,
}

impl Pipe {
    /// A pipe that holds `room` bytes, each on its way for up to `delay`.
    pub fn new(room: usize, delay: u64) -> Self {
        Self {
            segments: VecDeque::new(),
            last: 0,
            held: 0,
            room,
            delay,
            end: None,
            lost: false,
            sent: 0,
            taken: 0,
        }
    }

    /// Bytes that can be sent now.
    pub fn room(&self) -> usize {
        if self.lost { usize::MAX } else { self.room.saturating_sub(self.held) }
    }

    /// Whether something is on its way.
    pub fn is_busy(&self) -> bool {
        self.held > 0
    }

    /// Send, in pieces that arrive one after the other.
    pub fn send(&mut self, now: u64, mut bytes: &[u8], rng: &mut Rng) {
        self.sent += bytes.len() as u64;
        if self.lost || self.end.is_some() {
            return;
        }
        self.held += bytes.len();
        while !bytes.is_empty() {
            let n = if rng.one_in(3) { 1 + rng.index(bytes.len()) } else { bytes.len() };
            let (piece, rest) = bytes.split_at(n);
            self.last = self.last.max(now + rng.below(self.delay + 1));
            self.segments.push_back((self.last, piece.to_vec()));
            bytes = rest;
        }
    }

    /// How many bytes have arrived since the beginning; grows only.
    pub fn arrived(&self, now: u64) -> u64 {
        let here: usize = self.segments.iter().take_while(|(at, _)| *at <= now).map(|(_, b)| b.len()).sum();
        self.taken + here as u64
    }

    /// Take up to `max` bytes that have arrived.
    pub fn receive(&mut self, now: u64, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < max
            && let Some((at, bytes)) = self.segments.front_mut()
            && *at <= now
        {
            let n = bytes.len().min(max - out.len());
            out.extend(bytes.drain(..n));
            if bytes.is_empty() {
                self.segments.pop_front();
            }
        }
        self.held -= out.len();
        self.taken += out.len() as u64;
        out
    }

    /// Whether the reader has seen the end.
    pub fn at_end(&self, now: u64) -> bool {
        self.segments.is_empty() && self.end.is_some_and(|end| end <= now)
    }

    /// The sender closes: the end comes behind what was sent.
    pub fn close(&mut self, now: u64, rng: &mut Rng) {
        if self.end.is_none() {
            self.end = Some(self.last.max(now + rng.below(self.delay + 1)));
        }
    }

    /// The line is cut: what is on its way arrives up to a random point, perhaps much later, then the end.
    pub fn cut(&mut self, now: u64, rng: &mut Rng) {
        if self.lost {
            return;
        }
        let here = self.segments.iter().take_while(|(at, _)| *at <= now).count();
        let keep = here + rng.index(self.segments.len() - here + 1);
        self.segments.truncate(keep);
        if keep > here
            && rng.one_in(2)
            && let Some((_, bytes)) = self.segments.back_mut()
        {
            let n = rng.index(bytes.len());
            bytes.truncate(n);
        }
        self.segments.retain(|(_, bytes)| !bytes.is_empty());
        if rng.one_in(3) {
            let late = rng.below(400_000);
            self.segments.iter_mut().skip(here).for_each(|(at, _)| *at += late);
        }
        self.held = self.segments.iter().map(|(_, b)| b.len()).sum();
        self.last = self.segments.back().map_or(now, |(at, _)| (*at).max(now));
        self.end = Some(self.last + rng.below(self.delay + 1));
        self.lost = true;
    }

    /// The reader sees the end at once, and nothing of what is on its way.
    pub fn reset(&mut self, now: u64) {
        self.segments.clear();
        self.held = 0;
        self.end = Some(now);
        self.lost = true;
    }
}
