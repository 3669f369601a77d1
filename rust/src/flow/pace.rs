//! How fast keys are copied: as fast as clients do not notice, and no faster than the configuration allows.

/// Copies in flight on a primary: at least, at first, and at most.
const IN_FLIGHT: (u32, u32, u32) = (4, 64, 256);
/// Clients may wait so much longer than without copies: a factor, and microseconds on top.
const SLOWER: (u64, u64) = (2, 200);

/// The pace of one primary's copies.
#[derive(Debug)]
pub struct Pace {
    /// Most copies in flight now.
    in_flight: u32,
    /// What clients waited on average while nothing was copied, microseconds.
    usual_us: u64,
    /// Requests and their time, at the last look.
    seen: (u64, u64),
    /// Thousandths of copies and bytes that the bounds still allow; what was spent too much is owed.
    keys: i64,
    bytes: i64,
    at_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { in_flight: IN_FLIGHT.1, usual_us: 0, seen: (0, 0), keys: 0, bytes: 0, at_ms: 0 }
    }
}

impl Pace {
    /// Look at how long clients waited: `totals` are requests and their time since the start. A bound of 0 is none.
    pub fn look(&mut self, now_ms: u64, totals: (u64, u64), copying: bool, bounds: (u64, u64)) {
        let count = totals.0.wrapping_sub(self.seen.0);
        let time = totals.1.wrapping_sub(self.seen.1);
        self.seen = totals;
        if let Some(mean) = time.checked_div(count) {
            let bearable = self.usual_us * SLOWER.0 + SLOWER.1;
            if !copying {
                self.usual_us = if self.usual_us == 0 { mean } else { (self.usual_us * 15 + mean) / 16 };
                self.in_flight = IN_FLIGHT.1;
            } else if mean > bearable {
                self.in_flight = (self.in_flight * 3 / 4).max(IN_FLIGHT.0);
            } else {
                self.in_flight = (self.in_flight + 4).min(IN_FLIGHT.2);
            }
        } else if copying {
            self.in_flight = IN_FLIGHT.2;
        }
        let passed = now_ms.saturating_sub(self.at_ms).min(1_000);
        self.at_ms = now_ms;
        for (left, bound) in [(&mut self.keys, bounds.0), (&mut self.bytes, bounds.1)] {
            let most = (bound * 250).max(1_000) as i64; // a quarter of a second's worth at once
            *left = (*left + (bound * passed) as i64).min(most);
        }
    }

    /// Whether one more copy may be asked for while `copying` are in flight.
    pub fn allows(&self, copying: u32, bounds: (u64, u64)) -> bool {
        copying < self.in_flight && (bounds.0 == 0 || self.keys > 0) && (bounds.1 == 0 || self.bytes > 0)
    }

    /// A copy was asked for.
    pub fn asked(&mut self) {
        self.keys -= 1_000;
    }

    /// A copy of so many bytes is here.
    pub fn copied(&mut self, bytes: usize) {
        self.bytes -= bytes as i64 * 1_000;
    }

    /// Most copies in flight now.
    pub fn limit(&self) -> u32 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_make_room_for_clients() {
        let mut pace = Pace::default();
        let (mut count, mut time) = (0, 0);
        let mut live = |pace: &mut Pace, mean: u64, copying| {
            count += 100;
            time += 100 * mean;
            pace.look(count, (count, time), copying, (0, 0));
            pace.limit()
        };
        for _ in 0..100 {
            live(&mut pace, 300, false);
        }
        for _ in 0..100 {
            live(&mut pace, 700, true);
        }
        assert_eq!(pace.limit(), IN_FLIGHT.2, "they hardly notice");
        for _ in 0..100 {
            live(&mut pace, 1_500, true);
        }
        assert_eq!(pace.limit(), IN_FLIGHT.0);
    }

    #[test]
    fn bounds_hold_over_time() {
        let mut pace = Pace::default();
        let bounds = (1_000, 0);
        let mut copies = 0;
        for now in (0..10_000).step_by(20) {
            pace.look(now, (0, 0), true, bounds);
            while pace.allows(0, bounds) {
                pace.asked();
                copies += 1;
            }
        }
        assert!((9_000..=10_300).contains(&copies), "{copies}");
    }

    #[test]
    fn a_large_copy_is_paid_for_later() {
        let mut pace = Pace::default();
        let bounds = (0, 1_000_000);
        pace.look(0, (0, 0), true, bounds);
        pace.look(20, (0, 0), true, bounds);
        assert!(pace.allows(0, bounds));
        pace.copied(2_000_000);
        pace.look(1_000, (0, 0), true, bounds);
        assert!(!pace.allows(0, bounds));
        for now in [2_000, 3_000] {
            pace.look(now, (0, 0), true, bounds);
        }
        assert!(pace.allows(0, bounds));
    }
}
