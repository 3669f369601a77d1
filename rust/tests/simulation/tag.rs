//! Which command is this? Each command of a simulated client has a number that travels with it, so that the simulation
//! knows whether, how often and with which reply it ran.
//!
//! Redis skips the two bytes behind an argument without looking at them, and redisha forwards a frame verbatim: so the
//! number stands in place of the line breaks behind the first two arguments, even in `GET k`. Where redisha writes a
//! command anew (`SET … EX`, `EXPIRE`), the number is in the value or in the time, see [`far`].

use redisha_core::resp::{Request, encode};

/// The simulation's clock starts here, milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_700_000_000_000;
/// Times further apart than any run is long.
const STRIDE_MS: u64 = 100_000_000_000;

/// A time to live that lies far beyond the end and names the command: so many milliseconds from any now.
pub fn far(tag: u32) -> u64 {
    u64::from(tag) * STRIDE_MS
}

/// A value that names the command.
pub fn value(tag: u32, more: usize) -> Vec<u8> {
    let mut value = format!("t{tag}.").into_bytes();
    value.resize(value.len() + more, b'a' + (tag % 26) as u8);
    value
}

/// The frame of a command of at least two arguments, numbered.
pub fn frame(args: &[Vec<u8>], tag: u32) -> Vec<u8> {
    let mut out = Vec::new();
    encode::array(&mut out, args.len());
    let [a, b, c, d] = (tag | 0x8000_0000).to_be_bytes();
    for (i, arg) in args.iter().enumerate() {
        encode::bulk(&mut out, arg);
        let end = out.len();
        match i {
            0 => out[end - 2..].copy_from_slice(&[a, b]),
            1 => out[end - 2..].copy_from_slice(&[c, d]),
            _ => {}
        }
    }
    out
}

/// The number of a command as it arrives at the Redis.
pub fn of(request: &Request<'_>) -> Option<u32> {
    let behind = |i: usize| {
        let end = request.args.get(i)?.end as usize;
        request.frame.get(end..end + 2)
    };
    if let (Some(&[a, b]), Some(&[c, d])) = (behind(0), behind(1))
        && a & 0x80 != 0
    {
        return Some(u32::from_be_bytes([a & 0x7f, b, c, d]));
    }
    let name = request.arg(0).to_ascii_uppercase();
    match name.as_slice() {
        b"SET" => of_value(request.arg(2)),
        b"PEXPIREAT" => of_time(request.arg(2)),
        b"GETEX" => of_time(request.arg(3)),
        b"RESTORE" => of_value(request.arg(3).get(1..)?),
        _ => None,
    }
}

fn of_value(value: &[u8]) -> Option<u32> {
    let digits = value.strip_prefix(b"t")?.split(|b| *b == b'.').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn of_time(at: &[u8]) -> Option<u32> {
    let at: u64 = std::str::from_utf8(at).ok()?.parse().ok()?;
    u32::try_from(at.checked_sub(EPOCH_MS)? / STRIDE_MS).ok()
}
