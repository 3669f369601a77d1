//! Bytes cut anywhere, as a network does.

use proptest::prelude::*;

/// Where to cut: fractions of the length, so that they can be drawn before it is known.
pub fn cuts() -> impl Strategy<Value = Vec<u16>> {
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u16>(), 1..4),
        prop::collection::vec(any::<u16>(), 1..40)
    ]
}

/// The ends of the pieces, the last one `len`.
pub fn ends(len: usize, cuts: &[u16]) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|&c| len * usize::from(c) / 65_535).collect();
    ends.push(len);
    ends.sort_unstable();
    ends.dedup();
    ends
}
