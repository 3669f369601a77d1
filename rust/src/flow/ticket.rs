//! The promise of an answer.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

/// A session, as the flow knows it: a slot and the generation of its use, so that a late reply never reaches the
/// slot's next owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The slot.
    pub slot: u32,
    /// Its use.
    pub generation: NonZeroU32,
}

/// Tickets that were dropped unsettled. Always 0, or a bug: told in the statistics.
pub static UNSETTLED: AtomicU64 = AtomicU64::new(0);

/// The number of a ticket for a part of a command has this bit, then the merge, then the part.
const PART: u64 = 1 << 63;

/// The number of a ticket for an attempt at a command that blocks has this bit, then the waiter.
const ATTEMPT: u64 = 1 << 62;

/// A part of a command that was sent in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartId {
    /// The merge that waits for its reply.
    pub merge: usize,
    /// Which of its parts.
    pub index: usize,
}

/// A session waits for an answer to one command. Settled exactly once, by [`Ticket::settle`]; dropped in any other way
/// it complains.
#[derive(Debug)]
pub struct Ticket {
    session: SessionId,
    number: u64,
}

impl Ticket {
    /// For the `number`th command of a session. A muted one (`CLIENT REPLY OFF`) is settled like any other.
    pub fn issue(session: SessionId, number: u64) -> Self {
        Self { session, number }
    }

    /// For a part of a session's command. Like any ticket it is settled exactly once, whatever becomes of the part.
    pub fn part_of(session: SessionId, part: PartId) -> Self {
        Self {
            session,
            number: PART | (part.merge as u64 & 0x7fff_ffff) << 32 | (part.index as u64 & 0xffff_ffff),
        }
    }

    /// For an attempt at a command that blocks.
    pub fn attempt_of(session: SessionId, waiter: usize) -> Self {
        Self { session, number: ATTEMPT | waiter as u64 }
    }

    /// Whether it is for a whole command.
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.number & (PART | ATTEMPT) == 0
    }

    /// The waiter whose attempt it is for.
    pub fn attempt(&self) -> Option<usize> {
        (self.number & (PART | ATTEMPT) == ATTEMPT).then_some((self.number & !ATTEMPT) as usize)
    }

    /// The part it is for.
    pub fn part(&self) -> Option<PartId> {
        let merge = (self.number & !PART) >> 32;
        (self.number & PART != 0)
            .then_some(PartId { merge: merge as usize, index: (self.number & 0xffff_ffff) as usize })
    }

    /// Whose it is.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The command's number in its session.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The answer is found: whose, and which.
    #[inline]
    pub fn settle(self) -> (SessionId, u64) {
        let found = (self.session, self.number);
        std::mem::forget(self);
        found
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        debug_assert!(
            std::thread::panicking(),
            "a ticket was dropped unsettled: {:?} {}",
            self.session,
            self.number
        );
        UNSETTLED.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_told_from_commands() {
        let ticket = Ticket::attempt_of(SessionId { slot: 3, generation: NonZeroU32::MIN }, 7);
        assert_eq!((ticket.is_whole(), ticket.part(), ticket.attempt()), (false, None, Some(7)));
        ticket.settle();
    }

    #[test]
    fn parts_are_told_from_commands() {
        let session = SessionId { slot: 3, generation: NonZeroU32::MIN };
        let whole = Ticket::issue(session, 7);
        assert!(whole.is_whole() && whole.part().is_none());
        whole.settle();
        for part in [PartId { merge: 0, index: 0 }, PartId { merge: 0x7fff_ffff, index: 0xffff_ffff }] {
            let ticket = Ticket::part_of(session, part);
            assert_eq!((ticket.is_whole(), ticket.part()), (false, Some(part)));
            ticket.settle();
        }
    }
}
