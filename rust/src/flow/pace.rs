//! How fast keys are copied: as fast as clients do not notice, and no faster than the configuration allows.

/// Copies in flight on a primary: at least, at first, and at most.
const IN_FLIGHT: (u32, u32, u32) = (2, 16, 256);
/// Clients may wait so much longer on average than without copies: half as long, and so many microseconds. Their slowest wait
/// several times that.
const SLOWER_US: u64 = 50;

/// What was copied beyond a bound is paid for within this time, milliseconds.
const OWED_MS: u64 = 60_000;
/// In this time (milliseconds) as many pages of keys are looked through as copies may be in flight.
const LOOK_MS: u32 = 20;

/// The pace of one primary's copies.
#[derive(Debug)]
pub struct Pace {
    /// Most copies in flight now.
    in_flight: u32,
    /// What clients wait on average while nothing is copied, microseconds, times 4096; 0: not known.
    usual: u64,
    /// Pages of keys that may still be asked for until the next look.
    pages: u32,
    /// Requests and their time, at the last look.
    seen: (u64, u64),
    /// Thousandths of copies and bytes that the bounds still allow; what was spent too much is owed.
    keys: i64,
    bytes: i64,
    at_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { in_flight: IN_FLIGHT.1, usual: 0, pages: 1, seen: (0, 0), keys: 0, bytes: 0, at_ms: 0 }
    }
}

impl Pace {
    /// Look at how long clients waited: `totals` are requests and their time since the start. `copying`: keys are looked for
    /// or copied in these days, if not at this moment. A bound of 0 is none.
    pub fn look(&mut self, now_ms: u64, totals: (u64, u64), copying: bool, bounds: (u64, u64)) {
        let count = totals.0.wrapping_sub(self.seen.0);
        let time = totals.1.wrapping_sub(self.seen.1);
        self.seen = totals;
        if let Some(mean) = time.checked_div(count) {
            let bearable = self.usual / 4096 * 3 / 2 + SLOWER_US;
            // Where copying never ends, what is usual then becomes so, within minutes.
            let weight = if self.usual == 0 {
                1
            } else if copying {
                4096
            } else {
                16
            };
            self.usual = self.usual - self.usual / weight + mean * 4096 / weight;
            if !copying {
                self.in_flight = IN_FLIGHT.1;
            } else if mean > bearable {
                self.in_flight = (self.in_flight / 2).max(IN_FLIGHT.0);
            } else {
                self.in_flight = (self.in_flight + 2).min(IN_FLIGHT.2);
            }
        } else if copying {
            self.in_flight = IN_FLIGHT.2;
        }
        let passed = now_ms.saturating_sub(self.at_ms).min(1_000);
        self.pages = (self.in_flight * passed as u32 / LOOK_MS).max(1);
        self.at_ms = now_ms;
        for (left, bound) in [(&mut self.keys, bounds.0), (&mut self.bytes, bounds.1)] {
            let most = (bound * 250).max(1_000) as i64; // a quarter of a second's worth at once
            let owed = -((bound * OWED_MS) as i64);
            *left = (*left + (bound * passed) as i64).clamp(owed, most);
        }
    }

    /// Whether one more copy may be asked for while `copying` are in flight.
    pub fn allows(&self, copying: u32, bounds: (u64, u64)) -> bool {
        copying < self.in_flight && (bounds.0 == 0 || self.keys > 0) && (bounds.1 == 0 || self.bytes > 0)
    }

    /// Whether one more page of keys may be asked for now; it is counted.
    pub fn turns_page(&mut self) -> bool {
        let may = self.pages > 0;
        self.pages = self.pages.saturating_sub(1);
        may
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
        for _ in 0..200 {
            live(&mut pace, 400, true);
        }
        assert_eq!(pace.limit(), IN_FLIGHT.2, "they hardly notice");
        for _ in 0..100 {
            live(&mut pace, 700, true);
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
