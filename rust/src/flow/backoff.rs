//! When to try a broken upstream again: exponential, with full jitter over the upper half, so that sidecars that lost
//! the same Redis do not come back in step.

/// The state of one upstream's retries. Times in milliseconds.
#[derive(Debug)]
pub struct Backoff {
    next: u64,
    longest: u64,
    seed: u64,
}

impl Backoff {
    /// The first pause.
    pub const FIRST: u64 = 25;
    /// The longest pause.
    pub const LONGEST: u64 = 1_000;

    /// `seed` must differ between upstreams and processes.
    pub fn new(seed: u64) -> Self {
        Self { next: Self::FIRST, longest: Self::LONGEST, seed: seed | 1 }
    }

    /// No pause is longer than this.
    pub fn limit(&mut self, longest: u64) {
        self.longest = longest.clamp(Self::FIRST, Self::LONGEST);
    }

    /// The pause before the next try.
    pub fn pause(&mut self) -> u64 {
        let longest = self.next.min(self.longest);
        self.next = (self.next * 2).min(Self::LONGEST);
        // xorshift64: any spread will do.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        longest / 2 + self.seed % (longest / 2 + 1)
    }

    /// A connection stood: start small again.
    pub fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let mut backoff = Backoff::new(7);
        let pauses: Vec<u64> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= Backoff::FIRST);
        assert!(pauses.iter().all(|&p| p <= Backoff::LONGEST));
        assert!(pauses[10..].iter().all(|&p| p >= Backoff::LONGEST / 2));
        backoff.reset();
        assert!(backoff.pause() <= Backoff::FIRST);
        backoff.limit(100);
        assert!((0..20).all(|_| backoff.pause() <= 100));
    }
}
