//! Maglev consistent hashing (Eisenbud et al., NSDI 2016, listing 1), with the key hash and the table that Envoy uses,
//! so that a sharded data set stays where it is when redisha takes over from it.

use super::balance::key_hash;
use crate::command::slot::hash_tag;

/// Entries of a table: a prime, as the paper recommends and Envoy has it.
const TABLE: usize = 65_537;

/// The endpoint of each hash.
#[derive(Clone, Debug)]
pub struct Maglev {
    endpoints: usize,
    /// Empty for fewer than two endpoints.
    table: Vec<u16>,
    hash_tags: bool,
}

impl Maglev {
    /// A table over endpoints, known by their ids.
    pub fn new<'a>(ids: impl Iterator<Item = &'a str>, hash_tags: bool) -> Self {
        let ids: Vec<&str> = ids.collect();
        let table = if ids.len() > 1 { build(&ids) } else { Vec::new() };
        Self { endpoints: ids.len(), table, hash_tags }
    }

    /// Whether only the part in `{}` of a key is hashed.
    pub fn hash_tags(&self) -> bool {
        self.hash_tags
    }

    /// Which endpoint holds `key`; `None` when there is none.
    #[inline]
    pub fn pick(&self, key: &[u8]) -> Option<usize> {
        if self.table.is_empty() {
            return (self.endpoints > 0).then_some(0);
        }
        let key = if self.hash_tags { hash_tag(key) } else { key };
        self.table.get((key_hash(key) % TABLE as u64) as usize).map(|&i| usize::from(i))
    }
}

fn build(ids: &[&str]) -> Vec<u16> {
    const FREE: u16 = u16::MAX;
    let size = TABLE as u64;
    let mut table = vec![FREE; TABLE];
    let mut turns: Vec<(u64, u64)> = ids
        .iter()
        .map(|id| {
            let hash = |seed| xxhash_rust::xxh64::xxh64(id.as_bytes(), seed);
            (hash(0) % size, hash(1) % (size - 1) + 1)
        })
        .collect();
    let mut filled = 0;
    loop {
        for (endpoint, (next, skip)) in turns.iter_mut().enumerate() {
            while let Some(slot) = table.get_mut(*next as usize) {
                *next = (*next + *skip) % size;
                if *slot == FREE {
                    *slot = endpoint as u16;
                    break;
                }
            }
            filled += 1;
            if filled == TABLE {
                return table;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_evenly_and_move_little() {
        let ids = ["a:1", "b:1", "c:1", "d:1"];
        let four = Maglev::new(ids.into_iter(), false);
        let three = Maglev::new(ids.into_iter().take(3), false);
        let mut counts = [0u32; 4];
        let mut moved = 0;
        for i in 0..10_000 {
            let key = format!("key:{i}");
            let home = four.pick(key.as_bytes()).expect("four endpoints");
            counts[home] += 1;
            moved += u32::from(home != 3 && three.pick(key.as_bytes()) != Some(home));
        }
        assert!(counts.iter().all(|&n| (2_200..2_800).contains(&n)), "{counts:?}");
        assert!(moved < 500, "{moved} keys moved between endpoints that stayed");
    }

    /// Where Envoy 1.40 put these keys: three static endpoints, MAGLEV, one listener.
    #[test]
    fn keys_are_where_envoy_puts_them() {
        let ring = Maglev::new(["127.0.0.1:7811", "127.0.0.1:7812", "127.0.0.1:7813"].into_iter(), true);
        let homes: Vec<usize> = (0..30).filter_map(|i| ring.pick(format!("key:{i}").as_bytes())).collect();
        assert_eq!(
            homes,
            [2, 2, 2, 0, 2, 1, 2, 1, 2, 0, 2, 0, 0, 0, 2, 0, 1, 1, 2, 1, 1, 1, 0, 0, 2, 1, 2, 2, 2, 0]
        );
    }

    #[test]
    fn hash_tags_keep_keys_together() {
        let ring = Maglev::new(["a:1", "b:1", "c:1"].into_iter(), true);
        assert_eq!(ring.pick(b"{user}:a"), ring.pick(b"{user}:b"));
        assert_eq!(ring.pick(b"{user}:a"), ring.pick(b"user"));
    }

    #[test]
    fn one_endpoint_needs_no_table() {
        assert_eq!(Maglev::new(["a:1"].into_iter(), false).pick(b"x"), Some(0));
        assert_eq!(Maglev::new([].into_iter(), false).pick(b"x"), None);
    }
}
