//! Ketama's consistent hashing, as Envoy's `RING_HASH` does it: each endpoint has points on a ring of hashes, and a key
//! belongs to the first point that is not before its own hash.

use super::balance::key_hash;
use super::spec::{HashFunction, RingSpec};
use crate::command::slot::hash_tag;

/// A ring of points.
#[derive(Clone, Debug)]
pub struct RingHash {
    endpoints: usize,
    /// Hash and endpoint, by hash. Empty for fewer than two endpoints.
    points: Vec<(u64, u16)>,
    hash_tags: bool,
    spec: RingSpec,
}

impl RingHash {
    /// A ring over endpoints, known by their ids.
    pub fn new<'a>(ids: impl Iterator<Item = &'a str>, hash_tags: bool, spec: RingSpec) -> Self {
        let ids: Vec<&str> = ids.collect();
        let points = if ids.len() > 1 { build(&ids, spec) } else { Vec::new() };
        Self { endpoints: ids.len(), points, hash_tags, spec }
    }

    /// Whether only the part in `{}` of a key is hashed.
    pub fn hash_tags(&self) -> bool {
        self.hash_tags
    }

    /// What else than the ids decides where a key is.
    pub fn kind(&self) -> String {
        let RingSpec { minimum, maximum, function } = self.spec;
        format!("{minimum} {maximum} {function:?}")
    }

    /// Which endpoint holds `key`; `None` when there is none.
    #[inline]
    pub fn pick(&self, key: &[u8]) -> Option<usize> {
        if self.points.is_empty() {
            return (self.endpoints > 0).then_some(0);
        }
        let key = if self.hash_tags { hash_tag(key) } else { key };
        let hash = key_hash(key);
        let at = self.points.partition_point(|(point, _)| *point < hash);
        self.points.get(at).or(self.points.first()).map(|(_, endpoint)| usize::from(*endpoint))
    }
}

/// The points of all endpoints. Each has the same number of them unless the maximum leaves parts of points: then a running
/// sum decides whose the odd ones are, with Envoy's own floating-point steps.
fn build(ids: &[&str], spec: RingSpec) -> Vec<(u64, u16)> {
    let weight = 1.0 / ids.len() as f64;
    let scale = ((weight * spec.minimum as f64).ceil() / weight).min(spec.maximum as f64);
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    let mut text = Vec::new();
    let (mut target, mut digits) = (0.0, itoa::Buffer::new());
    for (endpoint, id) in ids.iter().enumerate() {
        target += scale * weight;
        let mut i = 0u64;
        while (points.len() as f64) < target {
            text.clear();
            text.extend_from_slice(id.as_bytes());
            text.push(b'_');
            text.extend_from_slice(digits.format(i).as_bytes());
            let hash = match spec.function {
                HashFunction::XxHash => xxhash_rust::xxh64::xxh64(&text, 0),
                HashFunction::MurmurHash2 => key_hash(&text),
            };
            points.push((hash, endpoint as u16));
            i += 1;
        }
    }
    points.sort_unstable();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: RingSpec = RingSpec { minimum: 1024, maximum: 8 << 20, function: HashFunction::XxHash };

    /// Where Envoy 1.40 put `key:0` to `key:59`: three static endpoints, `RING_HASH`, one listener.
    #[test]
    fn keys_are_where_envoy_puts_them() {
        let homes = |spec| -> String {
            let ring =
                RingHash::new(["127.0.0.1:7811", "127.0.0.1:7812", "127.0.0.1:7813"].into_iter(), true, spec);
            (0..60).filter_map(|i| ring.pick(format!("key:{i}").as_bytes())).map(|i| i.to_string()).collect()
        };
        assert_eq!(homes(SPEC), "101102210020221022110010121102221022102101001210221220111120");
        let murmur = RingSpec { minimum: 100, function: HashFunction::MurmurHash2, ..SPEC };
        assert_eq!(homes(murmur), "202120122200021010202121111201001000102102012100221210010211");
        let odd = RingSpec { minimum: 5, maximum: 7, function: HashFunction::XxHash };
        assert_eq!(homes(odd), "010222222221122221210222211012002222222222202122222222122222");
    }

    #[test]
    fn keys_spread_and_move_little() {
        let ids = ["a:1", "b:1", "c:1", "d:1"];
        let four = RingHash::new(ids.into_iter(), false, SPEC);
        let three = RingHash::new(ids.into_iter().take(3), false, SPEC);
        let mut counts = [0u32; 4];
        let mut moved = 0;
        for i in 0..10_000 {
            let key = format!("key:{i}");
            let home = four.pick(key.as_bytes()).expect("four endpoints");
            counts[home] += 1;
            moved += u32::from(home != 3 && three.pick(key.as_bytes()) != Some(home));
        }
        assert!(counts.iter().all(|&n| (1_800..3_300).contains(&n)), "{counts:?}");
        // (Three have 342 points each, and four 256: so some move even between those that stay.)
        assert!(moved < 2_500, "{moved} keys moved between endpoints that stayed");
    }

    #[test]
    fn a_maximum_leaves_parts_of_points() {
        let spec = RingSpec { minimum: 4, maximum: 6, function: HashFunction::XxHash };
        let counts = |ids: &[&str], spec| {
            let points = build(ids, spec);
            (0..ids.len() as u16).map(|i| points.iter().filter(|(_, e)| *e == i).count()).collect::<Vec<_>>()
        };
        assert_eq!(counts(&["a", "b", "c"], spec), [2, 2, 2]);
        assert_eq!(counts(&["a", "b", "c", "d"], RingSpec { minimum: 6, ..spec }), [2, 1, 2, 1]);
        assert_eq!(counts(&["a", "b", "c"], SPEC), [342, 342, 342]);
    }

    #[test]
    fn hash_tags_keep_keys_together() {
        let ring = RingHash::new(["a:1", "b:1", "c:1"].into_iter(), true, SPEC);
        for i in 0..100 {
            assert_eq!(ring.pick(format!("{{user}}:{i}").as_bytes()), ring.pick(b"user"));
        }
    }

    #[test]
    fn one_endpoint_needs_no_points() {
        assert_eq!(RingHash::new(["a:1"].into_iter(), false, SPEC).pick(b"x"), Some(0));
        assert_eq!(RingHash::new([].into_iter(), false, SPEC).pick(b"x"), None);
    }
}
