//! `RESTORE` with absolute time, `RESTORE` and `COPY` with `REPLACE`.

use super::expire::Unit;
use super::{Effect, Prepared, Rule};
use crate::command::{Command, option_at};
use crate::resp::{Request, encode, parse_integer};

/// Options of `RESTORE` that take a value.
const RESTORE: &[(&str, usize)] = &[("IDLETIME", 1), ("FREQ", 1)];
/// Options of `COPY` that take a value.
const COPY: &[(&str, usize)] = &[("DB", 1)];

/// `RESTORE key ttl payload`: the time to live becomes a point in time with `ABSTTL`; 0 is no expiry.
pub(super) fn prepare(req: &Request<'_>, now: i64, out: &mut Vec<u8>) -> Prepared {
    if option_at(req, 4, RESTORE, "ABSTTL").is_some() {
        return Prepared::verbatim(Rule::Replace);
    }
    let at = match parse_integer(req.arg(2)) {
        Some(0) => return Prepared::verbatim(Rule::Replace),
        Some(ttl) if ttl > 0 => Unit::Milliseconds.at(ttl, now),
        _ => None,
    };
    let Some(at) = at.filter(|_| req.len() >= 4) else { return Prepared::NOT_UNDERSTOOD };
    encode::array(out, req.len() + 1);
    for (i, arg) in req.args_from(0).enumerate() {
        if i == 2 {
            encode::bulk(out, itoa::Buffer::new().format(at).as_bytes());
        } else {
            encode::bulk(out, arg);
        }
    }
    encode::bulk(out, b"ABSTTL");
    Prepared::rewritten(Rule::Replace)
}

/// `COPY` is as unconditional as it can be with `REPLACE`.
pub(super) fn copy_rule(req: &Request<'_>) -> Rule {
    if option_at(req, 3, COPY, "REPLACE").is_some() { Rule::Changed } else { Rule::Replace }
}

/// The same with `REPLACE`. `RESTORE-ASKING`, which is `RESTORE` inside a Redis Cluster, loses its second half.
pub(super) fn commit(cmd: &Command, sent: &Request<'_>, out: &mut Vec<u8>) -> Effect {
    let (from, values) = if cmd.name == "copy" { (3, COPY) } else { (4, RESTORE) };
    let replaces = option_at(sent, from, values, "REPLACE").is_some();
    if replaces && cmd.name != "restore-asking" {
        return Effect::Same;
    }
    encode::array(out, sent.len() + usize::from(!replaces));
    encode::bulk(out, if cmd.name == "copy" { b"COPY" } else { b"RESTORE" });
    sent.args_from(1).for_each(|arg| encode::bulk(out, arg));
    if !replaces {
        encode::bulk(out, b"REPLACE");
    }
    Effect::Bytes
}

#[cfg(test)]
mod tests {
    use super::super::testing::{committed, prepared};
    use super::*;

    #[test]
    fn relative_time_becomes_absolute() {
        for (line, sent, rule) in [
            ("RESTORE k 0 p", "", Rule::Replace),
            ("RESTORE k 10 p", "RESTORE k 1000000000010 p ABSTTL", Rule::Replace),
            (
                "restore k 10 p IDLETIME ABSTTL FREQ 1 REPLACE",
                "restore k 1000000000010 p IDLETIME ABSTTL FREQ 1 REPLACE ABSTTL",
                Rule::Replace,
            ),
            ("RESTORE k 10 p absttl", "", Rule::Replace),
            ("RESTORE-ASKING k 10 p", "RESTORE-ASKING k 1000000000010 p ABSTTL", Rule::Replace),
            ("RESTORE k -1 p", "", Rule::Sync),
            ("RESTORE k x p", "", Rule::Sync),
            ("RESTORE k 9223372036854775807 p", "", Rule::Sync),
            ("RESTORE k 10", "", Rule::Sync),
            ("COPY a b", "", Rule::Replace),
            ("COPY a b DB 1 REPLACE", "", Rule::Changed),
        ] {
            assert_eq!(prepared(line), (sent.to_owned(), rule), "{line}");
        }
    }

    #[test]
    fn effects_replace() {
        for (line, reply, effect) in [
            ("RESTORE k 0 p", "+OK\r\n", "RESTORE k 0 p REPLACE"),
            ("RESTORE k 10 p", "+OK\r\n", "RESTORE k 1000000000010 p ABSTTL REPLACE"),
            ("RESTORE k 10 p REPLACE", "+OK\r\n", "RESTORE k 1000000000010 p REPLACE ABSTTL"),
            ("RESTORE k 0 p REPLACE", "+OK\r\n", "="),
            ("RESTORE k 0 p", "-BUSYKEY\r\n", "nothing"),
            ("RESTORE-ASKING k 0 p", "+OK\r\n", "RESTORE k 0 p REPLACE"),
            ("RESTORE-ASKING k 0 p REPLACE", "+OK\r\n", "RESTORE k 0 p REPLACE"),
            ("COPY a b", ":1\r\n", "COPY a b REPLACE"),
            ("COPY a b DB 1", ":1\r\n", "COPY a b DB 1 REPLACE"),
            ("COPY a b REPLACE", ":1\r\n", "="),
            ("COPY a b", ":0\r\n", "nothing"),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }
}
