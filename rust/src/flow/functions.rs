//! Function libraries as an application sees them: without those that are our markers.

use crate::resp::{Reply, encode};

use super::call::Convert;
use super::marker::{Marker, Place};

/// What the name of a marker's library begins with.
const OURS: &[u8] = b"redisha_";
/// What its code begins with.
const CODE: &[u8] = b"#!lua name=redisha_";
/// A library in a dump (`RDB_OPCODE_FUNCTION2`).
const LIBRARY: u8 = 245;
/// The version of the dump's format and its checksum.
const FOOTER: usize = 2 + 8;

/// A reply that tells of libraries, without markers. `there`: how many the server is known to have.
pub(super) fn without_markers(convert: Convert, reply: Reply<'_>, there: usize, out: &mut Vec<u8>) {
    let changed = match convert {
        Convert::HideInList => listed(reply, out),
        Convert::HideInStats => counted(reply, there, out),
        Convert::HideInDump => reply.text().and_then(dumped).map(|dump| encode::bulk(out, &dump)),
        _ => None,
    };
    if changed.is_none() {
        out.extend_from_slice(reply.bytes());
    }
}

/// How many of a server's libraries are markers.
pub(super) fn libraries(markers: &[Marker], place: Place) -> usize {
    if place == Place::Library { markers.len() } else { 0 }
}

/// `FUNCTION LIST`.
fn listed(reply: Reply<'_>, out: &mut Vec<u8>) -> Option<()> {
    if reply.bytes().first() != Some(&b'*') {
        return None;
    }
    let is_ours = |library: &Reply<'_>| {
        let mut fields = library.elements().skip_while(|f| f.text() != Some(b"library_name"));
        fields.next();
        fields.next().and_then(Reply::text).is_some_and(|name| name.starts_with(OURS))
    };
    let kept = || reply.elements().filter(|library| !is_ours(library));
    encode::array(out, kept().count());
    kept().for_each(|library| out.extend_from_slice(library.bytes()));
    Some(())
}

/// `FUNCTION STATS`: each marker is a library with one function.
fn counted(reply: Reply<'_>, there: usize, out: &mut Vec<u8>) -> Option<()> {
    let mut from = 0;
    let bytes = reply.bytes();
    let mut changed = Vec::with_capacity(bytes.len());
    for name in [&b"libraries_count\r\n:"[..], b"functions_count\r\n:"] {
        let at = from + memchr::memmem::find(bytes.get(from..)?, name)? + name.len();
        let digits = bytes.get(at..)?.iter().take_while(|b| b.is_ascii_digit()).count();
        let number: usize = std::str::from_utf8(bytes.get(at..at + digits)?).ok()?.parse().ok()?;
        changed.extend_from_slice(bytes.get(from..at)?);
        changed.extend_from_slice(itoa::Buffer::new().format(number.saturating_sub(there)).as_bytes());
        from = at + digits;
    }
    out.extend_from_slice(&changed);
    out.extend_from_slice(bytes.get(from..)?);
    Some(())
}

/// `FUNCTION DUMP`: libraries as in an RDB file, a version and a checksum. `None`: it has no marker, or is not understood.
fn dumped(dump: &[u8]) -> Option<Vec<u8>> {
    let (libraries, footer) = dump.split_at_checked(dump.len().checked_sub(FOOTER)?)?;
    let mut kept = Vec::with_capacity(dump.len());
    let mut rest = libraries;
    while let Some((&LIBRARY, code)) = rest.split_first() {
        let (ours, len) = code_at(code)?;
        if !ours {
            kept.extend_from_slice(rest.get(..1 + len)?);
        }
        rest = code.get(len..)?;
    }
    if !rest.is_empty() || kept.len() == libraries.len() {
        return None;
    }
    kept.extend_from_slice(footer.get(..2)?);
    let sum = crc64(&kept);
    kept.extend_from_slice(&sum.to_le_bytes());
    Some(kept)
}

/// Whether the string that `bytes` begin with is a marker's code, and how long it is. (A compressed one begins with a run of
/// plain bytes, behind its length.)
fn code_at(bytes: &[u8]) -> Option<(bool, usize)> {
    let &first = bytes.first()?;
    if first == 0xc3 {
        let (packed, a) = length(bytes.get(1..)?)?;
        let (_, b) = length(bytes.get(1 + a..)?)?;
        let at = 1 + a + b;
        return Some((bytes.get(at + 1..)?.starts_with(CODE), at + packed));
    }
    let (len, at) = length(bytes)?;
    Some((bytes.get(at..)?.starts_with(CODE), at + len))
}

/// A length as RDB files have it, and how many bytes it takes.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let &first = bytes.first()?;
    let low = usize::from(first & 0x3f);
    match first >> 6 {
        0 => Some((low, 1)),
        1 => Some((low << 8 | usize::from(*bytes.get(1)?), 2)),
        _ if first == 0x80 => Some((u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize, 5)),
        _ => None,
    }
}

/// The checksum of RDB files: CRC-64 of Jones, reflected, from 0.
fn crc64(bytes: &[u8]) -> u64 {
    const REFLECTED: u64 = 0x95ac_9329_ac4b_c9b5;
    bytes.iter().fold(0, |sum, &byte| {
        (0..8)
            .fold(sum ^ u64::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ REFLECTED } else { sum >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_redis() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca); // crc64.c
    }

    #[test]
    fn what_is_not_understood_stays() {
        for dump in [&b""[..], b"x", b"\xf5\x05ab\x0a\x0012345678", b"\xf6\x01a\x0a\x0012345678"] {
            assert_eq!(dumped(dump), None);
        }
    }

    #[test]
    fn stats_are_those_of_the_others() {
        let stats = |libraries, functions| {
            format!(
                "*4\r\n$14\r\nrunning_script\r\n$-1\r\n$7\r\nengines\r\n*2\r\n$3\r\nLUA\r\n*4\r\n$15\r\nlibraries_count\r\n:{libraries}\r\n$15\r\nfunctions_count\r\n:{functions}\r\n"
            )
        };
        let mut out = Vec::new();
        without_markers(Convert::HideInStats, Reply::new(stats(10, 12).as_bytes()), 1, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), stats(9, 11));
    }
}
