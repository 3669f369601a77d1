//! How the shadow Redis is looked through. `SCAN` promises what Redis promises and no more: a key that is there from
//! the first page to the last is returned. Others may be; keys may be returned twice, and a page may be empty.

use super::data::alive;
use super::redis::{Redis, text};
use super::value::Value;

/// Places of keys in the order of a scan, as bits: from 1, so that no cursor but the last is 0.
const PLACES: u32 = 20;
/// Keys of a page, at most: drawn anew for each.
const PAGE: [usize; 4] = [0, 3, 12, 40];

impl Redis {
    /// `SCAN cursor [COUNT n]`. The order of the keys is another one after each start, as with Redis.
    pub(super) fn scan(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let Ok(cursor) = text(&args[1]).parse::<u64>() else {
            return Value::Error("ERR invalid cursor".into());
        };
        let count = match args.get(2..).unwrap_or(&[]) {
            [] => 10,
            [word, n] if word.eq_ignore_ascii_case(b"COUNT") => text(n).parse().unwrap_or(0),
            _ => 0,
        };
        if count == 0 {
            return Value::Error("ERR syntax error".into());
        }
        let begin = place_of(cursor);
        let now = self.now_ms();
        let salt = self.runs();
        let keys = self.dbs.get(&db);
        let mut placed: Vec<(u32, Vec<u8>)> = keys
            .into_iter()
            .flat_map(|keys| alive(keys, now).into_keys())
            .map(|key| (place(salt, key), key.to_vec()))
            .collect();
        placed.sort_unstable();
        let (before, here) = placed.split_at(placed.partition_point(|(at, _)| *at < begin));
        let mut taken = self.rng.pick(&PAGE).min(2 * count).min(here.len());
        if here.first().is_some_and(|(at, _)| *at == begin) {
            taken = taken.max(1);
        }
        // Keys in the same place come together.
        while taken > 0 && taken < here.len() && here[taken].0 == here[taken - 1].0 {
            taken += 1;
        }
        let next = match here.get(taken) {
            None => 0,
            // Somewhere behind what was taken, or further than where it began.
            Some((at, _)) if taken > 0 => cursor_of(*at),
            Some((at, _)) => cursor_of(begin + (at - begin).div_ceil(2)),
        };
        let mut page: Vec<Vec<u8>> = here[..taken].iter().map(|(_, key)| key.clone()).collect();
        while !before.is_empty() && self.rng.one_in(3) {
            page.push(before[self.rng.index(before.len())].1.clone());
        }
        if !page.is_empty() {
            let turn = self.rng.index(page.len());
            page.rotate_left(turn);
        }
        let keys = page.into_iter().map(Value::Bulk).collect();
        Value::Array(vec![Value::Bulk(next.to_string().into_bytes()), Value::Array(keys)])
    }

    /// `INFO keyspace`: it counts what has expired and was not looked at since.
    pub(super) fn keyspace(&self) -> String {
        let mut lines = "# Keyspace\r\n".to_owned();
        for (db, keys) in self.dbs.iter().filter(|(_, keys)| !keys.is_empty()) {
            let expires = keys.values().filter(|item| item.expires.is_some()).count();
            lines.push_str(&format!("db{db}:keys={},expires={expires},avg_ttl=0\r\n", keys.len()));
        }
        lines
    }
}

/// Where a key comes in a scan.
fn place(salt: u64, key: &[u8]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    ((hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> (64 - PLACES)) as u32 + 1
}

/// A cursor looks like nothing in particular.
fn cursor_of(place: u32) -> u64 {
    u64::from(place).reverse_bits() >> 8
}

fn place_of(cursor: u64) -> u32 {
    (cursor << 8).reverse_bits() as u32
}
