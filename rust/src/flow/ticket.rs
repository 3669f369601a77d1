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
