//! One engine among those of a process: each worker has one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::stats::Registry;

use super::ticket::SessionId;

/// Which of the workers it is, and what they have together. Alone by default, and then nothing is shared.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    /// Its number among them.
    pub index: usize,
    /// The others' common knowledge; `None`: there are no others.
    pub crew: Option<Arc<Crew>>,
}

/// What several workers have together.
#[derive(Debug)]
pub struct Crew {
    workers: usize,
    /// Sessions of clients, of all of them.
    sessions: AtomicUsize,
    /// What the first one counts: it alone is connected to what has an order.
    first: Arc<Registry>,
    /// Of each worker.
    direct: Vec<Direct>,
}

/// What a worker still has on its way, past the first one, to servers that it does not send to itself any more.
#[derive(Debug, Default)]
struct Direct {
    /// By which plan.
    generation: AtomicU64,
    calls: AtomicU64,
}

impl Seat {
    /// The seats of so many workers; `first`: what the first one counts.
    pub fn row(workers: usize, first: &Arc<Registry>) -> Vec<Self> {
        if workers == 1 {
            return vec![Self::default()];
        }
        let direct = (0..workers).map(|_| Direct::default()).collect();
        let crew = Crew { workers, sessions: AtomicUsize::new(0), first: Arc::clone(first), direct };
        let crew = Some(Arc::new(crew));
        (0..workers).map(|index| Self { index, crew: crew.clone() }).collect()
    }

    /// Whether it is the first of several, or the only one.
    pub fn is_first(&self) -> bool {
        self.index == 0
    }

    /// How many other workers there are.
    pub(super) fn others(&self) -> usize {
        self.crew.as_ref().map_or(0, |crew| crew.workers - 1)
    }

    /// Whether another worker may have a session of this number.
    pub(super) fn is_elsewhere(&self, number: i64) -> bool {
        let workers = self.crew.as_ref().map_or(1, |crew| crew.workers as i64);
        number > 0 && (number - 1) % workers != self.index as i64
    }

    /// The number of a session: no other of the process has it.
    pub(super) fn number(&self, id: SessionId) -> i64 {
        let nth = i64::from(id.generation.get());
        self.crew.as_ref().map_or(nth, |crew| (nth - 1) * crew.workers as i64 + self.index as i64 + 1)
    }

    /// A session has come; `false`: there are `max` already. `mine`: those that are here.
    pub(super) fn comes(&self, mine: usize, max: usize) -> bool {
        let Some(crew) = &self.crew else { return mine < max };
        let before = crew.sessions.fetch_add(1, Ordering::Relaxed);
        if before >= max {
            self.goes();
        }
        before < max
    }

    /// One that goes from its worker stays a client of the process.
    pub(super) fn stays(&self) {
        if let Some(crew) = &self.crew {
            crew.sessions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One that had come has gone.
    pub(super) fn goes(&self) {
        if let Some(crew) = &self.crew {
            crew.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What this worker has on its way to servers that this plan does not let it send to.
    pub(super) fn tell_direct(&self, generation: u64, calls: u64) {
        if let Some(direct) = self.crew.as_ref().and_then(|crew| crew.direct.get(self.index)) {
            direct.calls.store(calls, Ordering::Release);
            direct.generation.store(generation, Ordering::Release);
        }
    }

    /// Whether a write of another worker may reach a server without the first worker's knowing, although it has that plan.
    pub(super) fn others_write(&self, generation: u64) -> bool {
        let waits = |d: &Direct| {
            d.generation.load(Ordering::Acquire) < generation || d.calls.load(Ordering::Acquire) != 0
        };
        self.crew.as_ref().is_some_and(|crew| crew.direct.iter().skip(1).any(waits))
    }

    /// What the first worker knows of a server: its version and how many commands it has.
    pub(super) fn server(&self, cluster: &str, id: &str) -> Option<(String, i64)> {
        self.crew.as_ref()?.first.server(cluster, id)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn numbers_are_of_one_session_each_and_the_bound_is_of_all() {
        let row = Seat::row(3, &Arc::default());
        let mut numbers: Vec<i64> = Vec::new();
        for generation in [1, 2, 3].map(|n| NonZeroU32::new(n).expect("a generation")) {
            numbers.extend(row.iter().map(|seat| seat.number(SessionId { slot: 0, generation })));
        }
        assert_eq!(numbers, (1..=9).collect::<Vec<i64>>());
        assert!(row[0].comes(0, 2) && row[1].comes(0, 2) && !row[2].comes(0, 2));
        row[1].goes();
        assert!(row[2].comes(0, 2) && !row[0].comes(1, 2));
    }

    #[test]
    fn alone_it_counts_its_own() {
        let seat = Seat::row(1, &Arc::default()).remove(0);
        let id = SessionId { slot: 3, generation: NonZeroU32::new(7).expect("a generation") };
        assert_eq!(seat.number(id), 7);
        assert!(seat.comes(1, 2) && !seat.comes(2, 2));
    }
}
