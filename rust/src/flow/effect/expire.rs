//! The `EXPIRE` family: absolute time, without conditions.

use smallvec::SmallVec;

use super::{Effect, Prepared, Rule};
use crate::command::{Command, is_word};
use crate::resp::{Request, encode, parse_integer};

/// A unit of time in a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    /// The point in time `after` units from `now`, in milliseconds; `None` where Redis says "invalid expire time", or
    /// would a few milliseconds later.
    pub(super) fn at(self, after: i64, now: i64) -> Option<i64> {
        let milliseconds = match self {
            Self::Seconds => after.checked_mul(1000)?,
            Self::Milliseconds => after,
        };
        milliseconds.checked_add(now)
    }
}

/// `EXPIRE`, `PEXPIRE` → `PEXPIREAT` with the same conditions. What is not in the future needs no clock: it deletes,
/// whenever it runs, and is sent as it is. `EXPIREAT`, `PEXPIREAT` are absolute already.
pub(super) fn prepare(cmd: &Command, req: &Request<'_>, now: i64, out: &mut Vec<u8>) -> Prepared {
    let condition = |arg: &[u8]| ["NX", "XX", "GT", "LT"].iter().any(|word| is_word(arg, word));
    if !req.args_from(3).all(condition) {
        return Prepared::NOT_UNDERSTOOD;
    }
    let rule = if req.len() > 3 { Rule::Expire } else { Rule::Changed };
    let unit = match cmd.name {
        "expire" => Unit::Seconds,
        "pexpire" => Unit::Milliseconds,
        _ => return Prepared::verbatim(rule),
    };
    match parse_integer(req.arg(2)).map(|after| (after > 0, unit.at(after, now))) {
        Some((true, Some(at))) => {
            let mut digits = itoa::Buffer::new();
            let mut args: SmallVec<[&[u8]; 8]> =
                SmallVec::from_slice(&[b"PEXPIREAT", req.arg(1), digits.format(at).as_bytes()]);
            args.extend(req.args_from(3));
            encode::command(out, &args);
            Prepared::rewritten(rule)
        }
        Some((false, Some(_))) => Prepared::verbatim(Rule::Delete),
        _ => Prepared::NOT_UNDERSTOOD,
    }
}

/// The expiry was set: the same without conditions.
pub(super) fn commit(sent: &Request<'_>, out: &mut Vec<u8>) -> Effect {
    encode::command(out, &[sent.arg(0), sent.arg(1), sent.arg(2)]);
    Effect::Bytes
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, committed, prepared};
    use super::*;

    #[test]
    fn relative_time_becomes_absolute() {
        let rewritten = |line: &str, rule| (line.to_owned(), rule);
        for (line, expected) in [
            ("EXPIRE k 10", rewritten("PEXPIREAT k 1000000010000", Rule::Changed)),
            ("PEXPIRE k 10", rewritten("PEXPIREAT k 1000000000010", Rule::Changed)),
            ("expire k 10 nx", rewritten("PEXPIREAT k 1000000010000 nx", Rule::Expire)),
            ("PEXPIRE k 1 XX GT", rewritten("PEXPIREAT k 1000000000001 XX GT", Rule::Expire)),
            // Redis refuses these two together, with one text for the whole family.
            ("PEXPIRE k 1 NX XX", rewritten("PEXPIREAT k 1000000000001 NX XX", Rule::Expire)),
            ("EXPIREAT k 10", rewritten("", Rule::Changed)),
            ("PEXPIREAT k 10 LT", rewritten("", Rule::Expire)),
            ("EXPIRE k 0", rewritten("", Rule::Delete)),
            ("PEXPIRE k -5 LT", rewritten("", Rule::Delete)),
            ("EXPIRE k +10", rewritten("", Rule::Sync)),
            ("EXPIRE k 010", rewritten("", Rule::Sync)),
            ("EXPIRE k ten", rewritten("", Rule::Sync)),
            ("EXPIRE k \"\"", rewritten("", Rule::Sync)),
            ("EXPIRE k 10 ZZ", rewritten("", Rule::Sync)),
            ("EXPIRE k 9223372036854775", rewritten("", Rule::Sync)),
            ("PEXPIRE k 9223372036854775807", rewritten("", Rule::Sync)),
            ("EXPIRE k -9223372036854776", rewritten("", Rule::Sync)),
            ("EXPIRE k", rewritten("", Rule::Sync)),
        ] {
            assert_eq!(prepared(line), expected, "{line} at {NOW}");
        }
    }

    #[test]
    fn conditions_are_not_decided_again() {
        for (line, reply, effect) in [
            ("EXPIRE k 10", ":1\r\n", "PEXPIREAT k 1000000010000"),
            ("EXPIRE k 10", ":0\r\n", "nothing"),
            ("EXPIRE k 10 NX", ":1\r\n", "PEXPIREAT k 1000000010000"),
            ("EXPIRE k 10 NX", ":0\r\n", "nothing"),
            ("EXPIREAT k 10 XX", ":1\r\n", "EXPIREAT k 10"),
            ("EXPIREAT k 10", ":1\r\n", "="),
            ("EXPIRE k -1 LT", ":1\r\n", "DEL k"),
            ("EXPIRE k -1", ":0\r\n", "nothing"),
            ("EXPIRE k 10 NX XX", "-ERR not compatible\r\n", "nothing"),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }
}
