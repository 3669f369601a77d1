//! Commands whose options decide whether, and how surely, they write.

use super::Rule;
use crate::command::{Command, KeyShape, is_word, keys};
use crate::resp::Request;

/// `ZADD`. NX, XX, GT and LT stay: which members they let pass is not in the reply, and on equal data they decide the
/// same again. So do sums: they are IEEE doubles. Without `CH` or `INCR` a reply of 0 may hide an update.
pub(super) fn zadd(req: &Request<'_>) -> Rule {
    let flag = |arg: &&[u8]| ["NX", "XX", "GT", "LT", "CH", "INCR"].iter().any(|word| is_word(arg, word));
    let told = |arg: &[u8]| is_word(arg, "CH") || is_word(arg, "INCR");
    if req.args_from(2).take_while(flag).any(told) { Rule::Changed } else { Rule::Same }
}

/// `BITFIELD`: a read if all it does is `GET`.
pub(super) fn bitfield(req: &Request<'_>) -> Rule {
    let mut at = 2;
    while at < req.len() {
        let operation = req.arg(at);
        at += match operation {
            _ if is_word(operation, "GET") => 3,
            _ if is_word(operation, "OVERFLOW") => 2,
            // `SET`, `INCRBY`, or nothing that Redis 7.0 would accept.
            _ => return Rule::Same,
        };
    }
    Rule::Never
}

/// `SORT`: a read without `STORE`. What is stored depends on the sorted key alone, in a total order, unless `BY` or `GET`
/// reads other keys, which may expire meanwhile; and with `BY … ALPHA`, ties come in the order of a hash table.
pub(super) fn sort(req: &Request<'_>) -> Rule {
    if keys::sort_store(req).is_none() {
        Rule::Never
    } else if keys::sort_has(req, "BY") || keys::sort_has(req, "GET") {
        Rule::Sync
    } else {
        Rule::Same
    }
}

/// `GEORADIUS`, `GEORADIUSBYMEMBER`: reads unless they store.
pub(super) fn georadius(cmd: &Command, req: &Request<'_>) -> Rule {
    match cmd.shape {
        KeyShape::GeoRadius(options) if keys::radius_store(req, options).is_none() => Rule::Never,
        _ => Rule::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{committed, prepared};
    use super::*;

    #[test]
    fn rules() {
        for (line, rule) in [
            ("ZADD k 1 m", Rule::Same),
            ("ZADD k NX GT 1 m", Rule::Same),
            ("ZADD k XX ch 1 m", Rule::Changed),
            ("ZADD k INCR 1 m", Rule::Changed),
            ("ZADD k 1 CH", Rule::Same),
            ("BITFIELD k", Rule::Never),
            ("BITFIELD k GET u8 0 OVERFLOW WRAP GET u8 SET", Rule::Never),
            ("BITFIELD k GET u8 0 incrby u8 0 1", Rule::Same),
            ("BITFIELD k SET u8 0 1", Rule::Same),
            ("BITFIELD_RO k GET u8 0", Rule::Never),
            ("SORT k", Rule::Never),
            ("SORT k BY STORE", Rule::Never),
            ("SORT k ALPHA DESC LIMIT 0 5 STORE d", Rule::Same),
            ("SORT k BY w_* STORE d", Rule::Sync),
            ("SORT k STORE d GET p_*", Rule::Sync),
            ("SORT k STORE BY", Rule::Same),
            ("GEORADIUS g 1 1 1 m WITHDIST", Rule::Never),
            ("GEORADIUS g 1 1 1 m STORE d", Rule::Same),
            ("GEORADIUSBYMEMBER g STORE 1 m", Rule::Never),
            ("GEORADIUSBYMEMBER g m 1 m STOREDIST d", Rule::Same),
        ] {
            assert_eq!(prepared(line), (String::new(), rule), "{line}");
        }
    }

    #[test]
    fn replies() {
        for (line, reply, effect) in [
            ("ZADD k 1 m", ":0\r\n", "="),
            ("ZADD k CH 1 m", ":0\r\n", "nothing"),
            ("ZADD k NX INCR 1 m", "$-1\r\n", "nothing"),
            ("ZADD k INCR 1 m", "$1\r\n0\r\n", "="),
            ("ZADD k INCR 1 m", ",0\r\n", "="),
            ("SORT k STORE d", ":0\r\n", "="),
            ("SORT k BY w_* STORE d", ":0\r\n", "sync"),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }
}
