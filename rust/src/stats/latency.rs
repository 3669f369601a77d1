//! A latency histogram with one writer.

use histogram::{AtomicHistogram, Histogram};

/// Relative error 1/32; longest time 2^32 µs (72 minutes). 7 KB.
const GROUPING_POWER: u8 = 5;
const MAX_VALUE_POWER: u8 = 32;

/// Times in microseconds.
#[derive(Debug)]
pub struct Latency {
    histogram: Option<AtomicHistogram>,
    sum: super::Counter,
    count: super::Counter,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            histogram: AtomicHistogram::new(GROUPING_POWER, MAX_VALUE_POWER).ok(),
            sum: super::Counter::default(),
            count: super::Counter::default(),
        }
    }
}

impl Latency {
    /// Record one.
    #[inline]
    pub fn record(&self, us: u64) {
        self.sum.add(us);
        self.count.inc();
        if let Some(histogram) = &self.histogram {
            let _ = histogram.increment(us.min((1 << MAX_VALUE_POWER) - 1));
        }
    }

    /// How many there were, and their sum.
    pub fn totals(&self) -> (u64, u64) {
        (self.count.get(), self.sum.get())
    }
}

/// Count, sum and percentiles, by name, of the times of all that are given.
pub fn summary<'a>(parts: impl Iterator<Item = &'a Latency>) -> Vec<(&'static str, u64)> {
    const PERCENTILES: [(&str, f64); 5] =
        [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
    let (mut count, mut sum) = (0, 0);
    let mut all: Option<Histogram> = None;
    for part in parts {
        let (n, us) = part.totals();
        (count, sum) = (count + n, sum + us);
        if let Some(loaded) = part.histogram.as_ref().map(AtomicHistogram::load) {
            all = Some(match all.take() {
                Some(before) => before.wrapping_add(&loaded).unwrap_or(before),
                None => loaded,
            });
        }
    }
    let mut out = vec![("count", count), ("sum", sum)];
    for (name, p) in PERCENTILES {
        out.push((name, all.as_ref().and_then(|h| percentile(h, p)).unwrap_or(0)));
    }
    out
}

fn percentile(histogram: &Histogram, p: f64) -> Option<u64> {
    let total: u64 = histogram.as_slice().iter().sum();
    if total == 0 {
        return None;
    }
    let rank = ((total as f64) * p).ceil().max(1.0) as u64;
    let mut seen = 0;
    for bucket in histogram {
        seen += bucket.count();
        if seen >= rank {
            return Some(bucket.end());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&Latency], name: &str) -> u64 {
        summary(parts.iter().copied()).iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v)
    }

    #[test]
    fn percentiles_are_close() {
        let latency = Latency::default();
        for us in 1..=1000 {
            latency.record(us);
        }
        let value = |name| of(&[&latency], name);
        assert_eq!((value("count"), value("sum")), (1000, 500_500));
        assert!((500..=520).contains(&value("p50")), "{}", value("p50"));
        assert!((990..=1023).contains(&value("p99")), "{}", value("p99"));
    }

    #[test]
    fn percentiles_are_of_all_times_together() {
        let (quick, slow) = (Latency::default(), Latency::default());
        for us in 1..=500 {
            quick.record(us);
            slow.record(us + 500);
        }
        let value = |name| of(&[&quick, &slow], name);
        assert_eq!((value("count"), value("sum")), (1000, 500_500));
        assert!((500..=520).contains(&value("p50")), "{}", value("p50"));
        assert!((990..=1023).contains(&value("p99")), "{}", value("p99"));
        assert_eq!(of(&[], "p50"), 0);
    }
}
