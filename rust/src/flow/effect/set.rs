//! `SET`, `SETEX`, `PSETEX` and `GETEX`: absolute time, and without conditions once decided.

use smallvec::SmallVec;

use super::expire::Unit;
use super::{Effect, Prepared, Rule};
use crate::command::{Command, is_word};
use crate::resp::{Reply, Request, encode, parse_integer};

/// `NX` or `XX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Absent,
    Present,
}

/// What happens to the key's expiry; with a time, the argument that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    Keep,
    Persist,
    In(Unit, usize),
    At(Unit, usize),
}

/// The options of `SET` and `GETEX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    condition: Option<Condition>,
    get: bool,
    expiry: Option<Expiry>,
}

impl Options {
    /// Options from argument `from` on, as Redis accepts them: repeated ones too, the last time wins. `None` where
    /// Redis 7.0 says "syntax error".
    fn parse(req: &Request<'_>, from: usize) -> Option<Self> {
        let (mut options, mut at) = (Self::default(), from);
        while at < req.len() {
            let word = req.arg(at);
            if is_word(word, "NX") {
                options.decide(Condition::Absent)?;
            } else if is_word(word, "XX") {
                options.decide(Condition::Present)?;
            } else if is_word(word, "GET") {
                options.get = true;
            } else {
                let expiry = expiry_of(word, at + 1)?;
                if matches!(expiry, Expiry::In(..) | Expiry::At(..)) {
                    at += 1;
                }
                options.expire(expiry)?;
            }
            at += 1;
        }
        // An option that takes a time has one.
        (at == req.len()).then_some(options)
    }

    fn decide(&mut self, condition: Condition) -> Option<()> {
        let agrees = self.condition.is_none_or(|other| other == condition);
        self.condition = Some(condition);
        agrees.then_some(())
    }

    fn expire(&mut self, expiry: Expiry) -> Option<()> {
        let agrees = match (self.expiry, expiry) {
            (None, _) => true,
            (Some(Expiry::In(a, _)), Expiry::In(b, _)) | (Some(Expiry::At(a, _)), Expiry::At(b, _)) => a == b,
            (Some(other), _) => other == expiry,
        };
        self.expiry = Some(expiry);
        agrees.then_some(())
    }
}

fn expiry_of(word: &[u8], time: usize) -> Option<Expiry> {
    let words = [
        ("EX", Expiry::In(Unit::Seconds, time)),
        ("PX", Expiry::In(Unit::Milliseconds, time)),
        ("EXAT", Expiry::At(Unit::Seconds, time)),
        ("PXAT", Expiry::At(Unit::Milliseconds, time)),
        ("KEEPTTL", Expiry::Keep),
        ("PERSIST", Expiry::Persist),
    ];
    words.into_iter().find_map(|(name, expiry)| is_word(word, name).then_some(expiry))
}

/// The time of `EX` and its like, made absolute; `None` where Redis refuses it. Unlike `EXPIRE`, it must be positive.
fn absolute(req: &Request<'_>, unit: Unit, at: usize, now: i64) -> Option<i64> {
    parse_integer(req.arg(at)).filter(|after| *after > 0).and_then(|after| unit.at(after, now))
}

/// `SET`: `EX` and `PX` become `PXAT`; the rest stays.
pub(super) fn prepare(req: &Request<'_>, now: i64, out: &mut Vec<u8>) -> Prepared {
    if req.len() == 3 {
        return Prepared::verbatim(Rule::Same);
    }
    let Some(options) = Options::parse(req, 3).filter(|options| options.expiry != Some(Expiry::Persist))
    else {
        return Prepared::NOT_UNDERSTOOD;
    };
    let rule = if options.condition.is_some() || options.get { Rule::Set } else { Rule::Same };
    let Some(Expiry::In(unit, at)) = options.expiry else { return Prepared::verbatim(rule) };
    let Some(time) = absolute(req, unit, at, now) else { return Prepared::NOT_UNDERSTOOD };
    let mut digits = itoa::Buffer::new();
    let mut args: SmallVec<[&[u8]; 8]> =
        SmallVec::from_slice(&[b"SET", req.arg(1), req.arg(2), b"PXAT", digits.format(time).as_bytes()]);
    args.extend(options.condition.map(|condition| match condition {
        Condition::Absent => &b"NX"[..],
        Condition::Present => b"XX",
    }));
    args.extend(options.get.then_some(&b"GET"[..]));
    encode::command(out, &args);
    Prepared::rewritten(rule)
}

/// `SETEX`, `PSETEX` → `SET … PXAT`.
pub(super) fn prepare_setex(cmd: &Command, req: &Request<'_>, now: i64, out: &mut Vec<u8>) -> Prepared {
    let unit = if cmd.name == "setex" { Unit::Seconds } else { Unit::Milliseconds };
    let Some(time) = absolute(req, unit, 2, now).filter(|_| req.len() == 4) else {
        return Prepared::NOT_UNDERSTOOD;
    };
    let mut digits = itoa::Buffer::new();
    encode::command(out, &[b"SET", req.arg(1), req.arg(3), b"PXAT", digits.format(time).as_bytes()]);
    Prepared::rewritten(Rule::Same)
}

/// `GETEX`: `EX` and `PX` become `PXAT`; without options it is a read.
pub(super) fn prepare_getex(req: &Request<'_>, now: i64, out: &mut Vec<u8>) -> Prepared {
    let understood = |options: &Options| {
        options.condition.is_none() && !options.get && options.expiry != Some(Expiry::Keep)
    };
    let Some(options) = Options::parse(req, 2).filter(understood) else { return Prepared::NOT_UNDERSTOOD };
    match options.expiry {
        None => Prepared::verbatim(Rule::Never),
        Some(Expiry::In(unit, at)) => {
            let Some(time) = absolute(req, unit, at, now) else { return Prepared::NOT_UNDERSTOOD };
            let mut digits = itoa::Buffer::new();
            encode::command(out, &[b"GETEX", req.arg(1), b"PXAT", digits.format(time).as_bytes()]);
            Prepared::rewritten(Rule::GetEx)
        }
        Some(_) => Prepared::verbatim(Rule::GetEx),
    }
}

/// `SET` with a condition or `GET` → plain `SET`, if it did set. With `GET` the reply is the old value: nil means that
/// there was none, so `NX` did set and `XX` did not.
pub(super) fn commit(sent: &Request<'_>, reply: Reply<'_>, out: &mut Vec<u8>) -> Effect {
    let Some(options) = Options::parse(sent, 3) else { return Effect::Sync };
    let did_set = match (options.condition, options.get) {
        (None, _) => true,
        (Some(Condition::Absent), true) => reply.is_nil(),
        (Some(_), _) => !reply.is_nil(),
    };
    if !did_set {
        return Effect::Nothing;
    }
    let mut args: SmallVec<[&[u8]; 5]> = SmallVec::from_slice(&[b"SET", sent.arg(1), sent.arg(2)]);
    match options.expiry {
        Some(Expiry::At(unit, at)) => args.extend([at_word(unit), sent.arg(at)]),
        // A key that was not there has no expiry to keep.
        Some(Expiry::Keep) if options.condition != Some(Condition::Absent) => args.push(b"KEEPTTL"),
        Some(Expiry::In(..)) => return Effect::Sync,
        _ => {}
    }
    encode::command(out, &args);
    Effect::Bytes
}

/// `GETEX` of a key that is there → `EXPIREAT`, `PEXPIREAT` or `PERSIST`, as Redis propagates it.
pub(super) fn commit_getex(sent: &Request<'_>, out: &mut Vec<u8>) -> Effect {
    match Options::parse(sent, 2).and_then(|options| options.expiry) {
        Some(Expiry::Persist) => encode::command(out, &[b"PERSIST", sent.arg(1)]),
        Some(Expiry::At(Unit::Seconds, at)) => {
            encode::command(out, &[b"EXPIREAT", sent.arg(1), sent.arg(at)]);
        }
        Some(Expiry::At(_, at)) => encode::command(out, &[b"PEXPIREAT", sent.arg(1), sent.arg(at)]),
        _ => return Effect::Sync,
    }
    Effect::Bytes
}

fn at_word(unit: Unit) -> &'static [u8] {
    match unit {
        Unit::Seconds => b"EXAT",
        Unit::Milliseconds => b"PXAT",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{committed, prepared};
    use super::*;

    #[test]
    fn relative_time_becomes_absolute() {
        for (line, sent, rule) in [
            ("SET k v", "", Rule::Same),
            ("SET k v EX 10", "SET k v PXAT 1000000010000", Rule::Same),
            ("set k v px 10", "SET k v PXAT 1000000000010", Rule::Same),
            ("SET k v EX 5 EX 10", "SET k v PXAT 1000000010000", Rule::Same),
            ("SET k v NX EX 10 GET", "SET k v PXAT 1000000010000 NX GET", Rule::Set),
            ("SET k v PX 10 xx", "SET k v PXAT 1000000000010 XX", Rule::Set),
            ("SET k v PXAT 10", "", Rule::Same),
            ("SET k v EXAT 10 NX", "", Rule::Set),
            ("SET k v KEEPTTL", "", Rule::Same),
            ("SET k v KEEPTTL GET", "", Rule::Set),
            ("SET k v NX NX", "", Rule::Set),
            ("SETEX k 10 v", "SET k v PXAT 1000000010000", Rule::Same),
            ("PSETEX k 10 v", "SET k v PXAT 1000000000010", Rule::Same),
            ("GETEX k", "", Rule::Never),
            ("GETEX k EX 10", "GETEX k PXAT 1000000010000", Rule::GetEx),
            ("GETEX k PX 10", "GETEX k PXAT 1000000000010", Rule::GetEx),
            ("GETEX k EXAT 10", "", Rule::GetEx),
            ("GETEX k PERSIST", "", Rule::GetEx),
        ] {
            assert_eq!(prepared(line), (sent.to_owned(), rule), "{line}");
        }
    }

    #[test]
    fn what_redis_refuses_is_sent_as_it_is() {
        for line in [
            "SET k v EX 0",
            "SET k v EX -1",
            "SET k v EX +1",
            "SET k v EX 01",
            "SET k v EX 1.5",
            "SET k v EX \"\"",
            "SET k v EX",
            "SET k v PX 9223372036854775807",
            "SET k v EX 9223372036854776",
            "SET k v EX 9223372036854775808",
            "SET k v EX 1 PX 1",
            "SET k v EX 1 EXAT 1",
            "SET k v EX 1 KEEPTTL",
            "SET k v PERSIST",
            "SET k v NX XX",
            "SET k v IFEQ old",
            "SET k v v",
            "SETEX k 0 v",
            "SETEX k x v",
            "SETEX k 1",
            "SETEX k 1 v w",
            "PSETEX k -1 v",
            "GETEX k EX 0",
            "GETEX k KEEPTTL",
            "GETEX k NX",
            "GETEX k GET",
            "GETEX k EX 1 PERSIST",
        ] {
            assert_eq!(prepared(line), (String::new(), Rule::Sync), "{line}");
        }
    }

    #[test]
    fn what_was_decided_is_not_decided_again() {
        for (line, reply, effect) in [
            ("SET k v NX", "+OK\r\n", "SET k v"),
            ("SET k v NX", "$-1\r\n", "nothing"),
            ("SET k v NX EX 10", "+OK\r\n", "SET k v PXAT 1000000010000"),
            ("SET k v XX KEEPTTL", "+OK\r\n", "SET k v KEEPTTL"),
            ("SET k v NX KEEPTTL", "+OK\r\n", "SET k v"),
            ("SET k v NX GET", "$-1\r\n", "SET k v"),
            ("SET k v NX GET", "_\r\n", "SET k v"),
            ("SET k v NX GET", "$1\r\no\r\n", "nothing"),
            ("SET k v XX GET", "$-1\r\n", "nothing"),
            ("SET k v XX GET EXAT 9", "$1\r\n", "SET k v EXAT 9"),
            ("SET k v GET", "$-1\r\n", "SET k v"),
            ("SET k v GET", "$1\r\no\r\n", "SET k v"),
            ("SET k v GET", "-WRONGTYPE\r\n", "nothing"),
            ("SET k v EX 10", "+OK\r\n", "SET k v PXAT 1000000010000"),
            ("SET k v EX 0", "-ERR invalid expire time\r\n", "nothing"),
            ("SET k v IFEQ old", "+OK\r\n", "sync"),
            ("GETEX k EX 10", "$1\r\nv\r\n", "PEXPIREAT k 1000000010000"),
            ("GETEX k EXAT 10", "$0\r\n\r\n", "EXPIREAT k 10"),
            ("GETEX k PERSIST", "$1\r\nv\r\n", "PERSIST k"),
            ("GETEX k PERSIST", "$-1\r\n", "nothing"),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }
}
