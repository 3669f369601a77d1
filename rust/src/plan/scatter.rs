//! Balancing without a hash: a command goes to whose turn it is, wherever its keys are. So the endpoints are to have the
//! same data, or it does not matter which of it is found.

use super::spec::BalanceSpec;

/// How the turns go.
#[derive(Clone, Debug)]
pub struct Scatter {
    endpoints: usize,
    turns: Turns,
}

#[derive(Clone, Debug)]
enum Turns {
    RoundRobin,
    Random,
    /// Of so many drawn ones, the one with the fewest requests in flight.
    LeastRequest(u32),
}

impl Scatter {
    /// Turns of so many endpoints; `None` where the policy looks at keys.
    pub fn new(balance: BalanceSpec, endpoints: usize, choices: u32) -> Option<Self> {
        let turns = match balance {
            BalanceSpec::RoundRobin => Turns::RoundRobin,
            BalanceSpec::Random => Turns::Random,
            BalanceSpec::LeastRequest => Turns::LeastRequest(choices),
            BalanceSpec::Maglev | BalanceSpec::RingHash | BalanceSpec::Slots => return None,
        };
        Some(Self { endpoints, turns })
    }

    /// One of them, always the same.
    pub fn first(&self) -> Option<usize> {
        (self.endpoints > 0).then_some(0)
    }

    /// Whether there is a choice.
    pub fn is_several(&self) -> bool {
        self.endpoints > 1
    }

    /// Whose turn it is: of those that are up, or of all when none is. The same arguments give the same endpoint.
    ///
    /// `turn` counts the commands so far, `draw` is a random number of this command.
    pub fn pick(
        &self,
        turn: u64,
        draw: u64,
        is_up: impl Fn(usize) -> bool,
        in_flight: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        let ups = (0..self.endpoints).filter(|i| is_up(*i)).count();
        let nth = |n: u64| match ups {
            0 => (n % self.endpoints.max(1) as u64) as usize,
            _ => (0..self.endpoints).filter(|i| is_up(*i)).nth((n % ups as u64) as usize).unwrap_or(0),
        };
        match self.turns {
            _ if self.endpoints == 0 => None,
            Turns::RoundRobin => Some(nth(turn)),
            Turns::Random => Some(nth(draw)),
            Turns::LeastRequest(choices) => {
                (0..u64::from(choices)).map(|i| nth(mix(draw.wrapping_add(i)))).min_by_key(|i| in_flight(*i))
            }
        }
    }
}

/// Scrambles a number (the last step of `SplitMix64`).
#[inline]
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scatter(balance: BalanceSpec, endpoints: usize) -> Scatter {
        Scatter::new(balance, endpoints, 2).expect("no hash")
    }

    fn counts(balance: BalanceSpec, up: &[usize], load: [usize; 3]) -> [u32; 3] {
        let scatter = scatter(balance, 3);
        let mut counts = [0; 3];
        for n in 0..9_000u64 {
            let draw = mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let at = scatter.pick(n, draw, |i| up.contains(&i), |i| load[i]).expect("three endpoints");
            counts[at] += 1;
        }
        counts
    }

    #[test]
    fn turns_go_round() {
        assert_eq!(counts(BalanceSpec::RoundRobin, &[0, 1, 2], [0; 3]), [3_000; 3]);
        assert_eq!(counts(BalanceSpec::RoundRobin, &[0, 2], [0; 3]), [4_500, 0, 4_500]);
    }

    #[test]
    fn draws_are_even() {
        // (Six standard deviations are 268.)
        for n in counts(BalanceSpec::Random, &[0, 1, 2], [0; 3]) {
            assert!((2_732..=3_268).contains(&n), "{n} of 9000");
        }
    }

    #[test]
    fn the_busier_of_two_is_spared() {
        let counts = counts(BalanceSpec::LeastRequest, &[0, 1, 2], [5, 0, 9]);
        // The busiest is taken only where both draws are it (1 of 9), the idle one where either is (5 of 9).
        assert!((730..=1_270).contains(&counts[2]), "{counts:?}");
        assert!((4_700..=5_300).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn when_all_are_down_any_is_asked() {
        assert_eq!(counts(BalanceSpec::RoundRobin, &[], [0; 3]), [3_000; 3]);
        assert_eq!(scatter(BalanceSpec::Random, 0).pick(1, 2, |_| true, |_| 0), None);
    }

    #[test]
    fn policies_with_a_hash_have_no_turns() {
        assert!(Scatter::new(BalanceSpec::Maglev, 3, 2).is_none());
        assert!(Scatter::new(BalanceSpec::RingHash, 3, 2).is_none());
    }
}
