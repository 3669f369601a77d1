//! Which of a cluster's endpoints a command goes to: by its keys, or whose turn it is.

use super::maglev::Maglev;
use super::ring_hash::RingHash;
use super::scatter::Scatter;
use super::slots::Slots;

/// Which of a cluster's endpoints holds a key.
#[derive(Clone, Debug)]
pub enum Ring {
    /// By hash, the same for whoever knows the endpoints.
    Maglev(Maglev),
    /// The same on a ring of points.
    RingHash(RingHash),
    /// By slot, as the servers themselves have agreed.
    Slots(Slots),
    /// None of them, or all: whose turn it is gets the command.
    Scatter(Scatter),
}

impl Ring {
    /// Which endpoint holds `key`; `None` when there is none. Where keys have no home, the first one stands for all.
    #[inline]
    pub fn pick(&self, key: &[u8]) -> Option<usize> {
        match self {
            Self::Maglev(ring) => ring.pick(key),
            Self::RingHash(ring) => ring.pick(key),
            Self::Slots(map) => map.pick(key),
            Self::Scatter(scatter) => scatter.first(),
        }
    }

    /// Whether a key may be at this endpoint.
    pub fn has(&self, endpoint: usize, key: &[u8]) -> bool {
        self.scatter().is_some() || self.pick(key) == Some(endpoint)
    }

    /// Whether only the part in `{}` of a key is hashed.
    pub fn hash_tags(&self) -> bool {
        match self {
            Self::Maglev(ring) => ring.hash_tags(),
            Self::RingHash(ring) => ring.hash_tags(),
            Self::Slots(_) => true,
            Self::Scatter(_) => false,
        }
    }

    /// What else than the names of the endpoints decides where a key is.
    pub fn kind(&self) -> String {
        match self {
            Self::RingHash(ring) => format!("ring_hash {}", ring.kind()),
            // (As it was before there were others: a map that is known stays so.)
            Self::Maglev(_) | Self::Slots(_) | Self::Scatter(_) => String::new(),
        }
    }

    /// The slot map, where there is one.
    #[inline]
    pub fn slots(&self) -> Option<&Slots> {
        match self {
            Self::Slots(map) => Some(map),
            _ => None,
        }
    }

    /// How the turns go, where keys have no home and there are several endpoints.
    #[inline]
    pub fn scatter(&self) -> Option<&Scatter> {
        match self {
            Self::Scatter(scatter) if scatter.is_several() => Some(scatter),
            _ => None,
        }
    }
}

/// The 64-bit `MurmurHash2` variant of GNU libstdc++, with its standard seed: Envoy's hash of a key.
pub fn key_hash(key: &[u8]) -> u64 {
    const MUL: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0xc70f_6907;
    let mix = |v: u64| v ^ (v >> 47);
    let mut hash = SEED ^ (key.len() as u64).wrapping_mul(MUL);
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        let word = word.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
        hash = (hash ^ mix(word.wrapping_mul(MUL)).wrapping_mul(MUL)).wrapping_mul(MUL);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        let word = tail.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}
