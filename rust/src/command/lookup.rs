//! From a name on the wire to its row, in any case, without allocation.
//!
//! A name is packed into three words of its bytes, lower-cased eight at a time, and its length. So a comparison is four
//! integer comparisons, and the hash one multiplication. The index is open addressing over 512 places for 240 names; the
//! compiler builds it, so generator and lookup cannot disagree about the hash.

use super::Command;
use super::table::{TABLE, TOP};

const PLACES: usize = 512;
const EMPTY: u16 = u16::MAX;

/// The longest name that can be packed; no command's is longer.
const LONGEST: usize = 24;

/// A name: its bytes, in words that overlap where it is no multiple of their size, and its length.
type Packed = [u64; 4];

static INDEX: [u16; PLACES] = index();
static NAMES: [Packed; TOP] = names();

/// The command of a name in any case; `None` if the table has none of that name.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    if name.len() > LONGEST {
        return None;
    }
    let wanted = pack(name);
    let mut place = hash(wanted);
    // Ends: the index has free places.
    loop {
        let id = usize::from(*INDEX.get(place)?);
        if NAMES.get(id)? == &wanted {
            return TABLE.get(id);
        }
        place = (place + 1) % PLACES;
    }
}

/// Packs up to 24 bytes. Overlapping words, because they need no copy of a length that is known only at run time.
#[inline]
const fn pack(name: &[u8]) -> Packed {
    let length = name.len() as u64;
    if let (Some((first, rest)), Some(last)) = (name.split_first_chunk(), name.last_chunk()) {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        return match rest.first_chunk() {
            Some(second) => [lower(first), lower(u64::from_le_bytes(*second)), lower(last), length],
            None => [lower(first), lower(last), 0, length],
        };
    }
    let word = match (name.first_chunk(), name.last_chunk(), name) {
        (Some(first), Some(last), _) => {
            u32::from_le_bytes(*first) as u64 | ((u32::from_le_bytes(*last) as u64) << 32)
        }
        (.., [one]) => *one as u64,
        (.., [one, two]) => u16::from_le_bytes([*one, *two]) as u64,
        (.., [one, two, three]) => u32::from_le_bytes([*one, *two, *three, 0]) as u64,
        _ => 0,
    };
    [lower(word), 0, 0, length]
}

/// Eight ASCII bytes in lower case. A byte is upper case if adding reaches bit 7 from `A` on, but not from past `Z` on.
#[inline]
const fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7f);
    let from_a = low.wrapping_add(ONES * (0x80 - b'A' as u64));
    let past_z = low.wrapping_add(ONES * (0x7f - b'Z' as u64));
    let upper = from_a & !past_z & !word & (ONES * 0x80);
    word | (upper >> 2)
}

#[inline]
const fn hash([a, b, c, length]: Packed) -> usize {
    // By the golden ratio's bits; the top nine bits of the product depend on all bits below.
    let mixed = a ^ b.rotate_left(21) ^ c.rotate_left(42) ^ (length << 56);
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 55) as usize % PLACES
}

const fn names() -> [Packed; TOP] {
    let (mut packed, mut id) = ([[0; 4]; TOP], 0);
    while id < TOP {
        let name = TABLE[id].name.as_bytes();
        assert!(name.len() <= LONGEST, "a command's name is too long to be packed");
        packed[id] = pack(name);
        id += 1;
    }
    packed
}

const fn index() -> [u16; PLACES] {
    let (mut index, names, mut id) = ([EMPTY; PLACES], names(), 0);
    while id < TOP {
        let mut place = hash(names[id]);
        while index[place] != EMPTY {
            place = (place + 1) % PLACES;
        }
        index[place] = id as u16;
        id += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_any_case() {
        for (id, command) in TABLE[..TOP].iter().enumerate() {
            let mixed: String = command
                .name
                .char_indices()
                .map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c })
                .collect();
            for name in [command.name, &command.name.to_ascii_uppercase(), &mixed] {
                assert_eq!(lookup(name.as_bytes()).map(|found| usize::from(found.id)), Some(id), "{name}");
            }
        }
    }

    #[test]
    fn what_is_no_command_is_not_found() {
        let long = [b'a'; 64];
        for name in [
            &b""[..],
            b"get\0",
            b"\0",
            b"ge",
            b"gett",
            b"config|get",
            b"GET ",
            b"\xe7\xe5\xf4",
            b"\x07\x05\x14",
            b"georadiusbymember_ro_nothing",
            b"g\0t",
            b"s\0\0",
            b"seteset",
            b"georadiusbymembermber_ro",
            &long[..24],
            &long,
        ] {
            assert!(lookup(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn words_are_in_lower_case() {
        for byte in 0..=255u8 {
            let bytes = [byte, 0, byte, b'Z', b'@', b'[', 0xff, byte];
            assert_eq!(
                lower(u64::from_le_bytes(bytes)).to_le_bytes(),
                bytes.map(|b| b.to_ascii_lowercase()),
                "{byte}"
            );
        }
    }

    #[test]
    fn probes_are_short() {
        let probes: Vec<usize> = (0..TOP)
            .map(|id| {
                let at = INDEX.iter().position(|entry| usize::from(*entry) == id).expect("in the index");
                (at + PLACES - hash(NAMES[id])) % PLACES
            })
            .collect();
        let (longest, sum) = (probes.iter().max(), probes.iter().sum::<usize>());
        assert!(longest < Some(&16) && sum < TOP, "longest {longest:?}, sum {sum}");
    }
}
