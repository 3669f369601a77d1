//! The only place that reads the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::flow::Now;

/// The worker's clock; starts near zero.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Start it.
    #[expect(clippy::disallowed_methods, reason = "the worker's clock is where time comes in")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Read it.
    #[expect(clippy::disallowed_methods, reason = "the worker's clock is where time comes in")]
    pub fn now(&self) -> Now {
        let us = self.start.elapsed().as_micros() as u64 + 1_000;
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        Now { us, ms: us / 1_000, unix_ms }
    }
}
