//! Streams: the id of the reply, trimming, consumer groups.
//!
//! Approximate trimming (`~`) depends on how a server lays out its nodes, and `XREADGROUP` writes delivery times: there
//! the stream is copied, for now. When `XREADGROUP` read nothing, nothing is copied, since who polls an empty stream
//! should not have it copied each time. (From Redis 7.2 on it may have created its consumer then; that one has nothing
//! pending, and reading creates it elsewhere too.)

use super::{Effect, Rule};
use crate::command::is_word;
use crate::resp::{Reply, Request, encode};

/// The parts of an `XADD` that matter.
struct Add {
    /// Where the id is.
    id: usize,
    /// Where `NOMKSTREAM` is.
    existing_only: Option<usize>,
    /// Whether it trims approximately.
    approximate: bool,
}

/// `XADD key [NOMKSTREAM] [MAXLEN|MINID [=|~] threshold [LIMIT count]] id field value …`; `None` if there is an
/// option that Redis 7.0 does not have.
fn parse_add(req: &Request<'_>) -> Option<Add> {
    let (mut at, mut existing_only, mut approximate) = (2, None, false);
    loop {
        let arg = req.arg(at);
        if at >= req.len() {
            return None;
        } else if is_word(arg, "NOMKSTREAM") {
            existing_only = Some(at);
        } else if is_word(arg, "LIMIT") {
            at += 1;
        } else if is_word(arg, "MAXLEN") || is_word(arg, "MINID") {
            if matches!(req.arg(at + 1), b"~" | b"=") {
                at += 1;
                approximate = req.arg(at) == b"~";
            }
            at += 1;
        } else {
            let is_id = matches!(arg, [b'0'..=b'9' | b'*', ..]);
            return is_id.then_some(Add { id: at, existing_only, approximate });
        }
        at += 1;
    }
}

/// `XADD`: as sent if that says everything.
pub(super) fn add_rule(req: &Request<'_>) -> Rule {
    match parse_add(req) {
        Some(add) if add.approximate => Rule::SyncChanged,
        Some(add) if add.existing_only.is_none() && !req.arg(add.id).ends_with(b"*") => Rule::Same,
        Some(_) => Rule::XAdd,
        None => Rule::SyncChanged,
    }
}

/// The entry was added: with the id it got, unconditionally.
pub(super) fn add(sent: &Request<'_>, reply: Reply<'_>, out: &mut Vec<u8>) -> Effect {
    let (Some(add), Some(id)) = (parse_add(sent), reply.text()) else { return Effect::Sync };
    encode::array(out, sent.len() - usize::from(add.existing_only.is_some()));
    for (i, arg) in sent.args_from(0).enumerate() {
        if i == add.id {
            encode::bulk(out, id);
        } else if Some(i) != add.existing_only {
            encode::bulk(out, arg);
        }
    }
    Effect::Bytes
}

/// `XTRIM`: exact trimming gives the same anywhere.
pub(super) fn trim_rule(req: &Request<'_>) -> Rule {
    if req.args_from(2).any(|arg| arg == b"~") { Rule::SyncChanged } else { Rule::Changed }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{committed, prepared};
    use super::*;

    #[test]
    fn rules() {
        for (line, rule) in [
            ("XADD s * f v", Rule::XAdd),
            ("XADD s 5-* f v", Rule::XAdd),
            ("XADD s 5-1 f v", Rule::Same),
            ("XADD s 5 f v", Rule::Same),
            ("XADD s MAXLEN 10 5-1 f v", Rule::Same),
            ("XADD s maxlen = 10 * f v", Rule::XAdd),
            ("XADD s NOMKSTREAM 5-1 f v", Rule::XAdd),
            ("XADD s MAXLEN ~ 10 * f v", Rule::SyncChanged),
            ("XADD s MINID ~ 10 LIMIT 5 * f ~", Rule::SyncChanged),
            ("XADD s LIMIT 5 MINID ~ 10 5-1 f v", Rule::SyncChanged),
            ("XADD s KEEPREF * f v", Rule::SyncChanged),
            ("XADD s MAXLEN", Rule::SyncChanged),
            ("XADD s 5-1 MAXLEN ~", Rule::Same),
            ("XTRIM s MAXLEN 10", Rule::Changed),
            ("XTRIM s MAXLEN = 10", Rule::Changed),
            ("XTRIM s MAXLEN ~ 10 LIMIT 5", Rule::SyncChanged),
            ("XREADGROUP GROUP g c STREAMS s >", Rule::SyncChanged),
        ] {
            assert_eq!(prepared(line), (String::new(), rule), "{line}");
        }
    }

    #[test]
    fn effects() {
        for (line, reply, effect) in [
            ("XADD s * f v", "$3\r\n7-1\r\n", "XADD s 7-1 f v"),
            ("XADD s MAXLEN = 10 5-* f *", "$3\r\n5-9\r\n", "XADD s MAXLEN = 10 5-9 f *"),
            ("XADD s NOMKSTREAM * f v", "$3\r\n7-1\r\n", "XADD s 7-1 f v"),
            ("XADD s NOMKSTREAM * f v", "$-1\r\n", "nothing"),
            ("XADD s * f v", "-ERR\r\n", "nothing"),
            ("XADD s 7-1 f v", "$3\r\n7-1\r\n", "="),
            ("XADD s MAXLEN ~ 10 * f v", "$3\r\n7-1\r\n", "sync"),
            ("XADD s NOMKSTREAM MAXLEN ~ 10 * f v", "_\r\n", "nothing"),
            ("XTRIM s MAXLEN 10", ":0\r\n", "nothing"),
            ("XTRIM s MAXLEN 10", ":2\r\n", "="),
            ("XTRIM s MAXLEN ~ 10", ":0\r\n", "nothing"),
            ("XTRIM s MAXLEN ~ 10", ":2\r\n", "sync"),
            ("XREADGROUP GROUP g c STREAMS s >", "*-1\r\n", "nothing"),
            ("XREADGROUP GROUP g c STREAMS s >", "_\r\n", "nothing"),
            ("XREADGROUP GROUP g c STREAMS a b > >", "*1\r\n", "sync"),
            ("XREADGROUP GROUP g c STREAMS s >", "%1\r\n", "sync"),
            ("XREADGROUP GROUP g c STREAMS s >", "-NOGROUP\r\n", "nothing"),
            ("XDEL s 1-1", ":0\r\n", "nothing"),
            ("XACK s g 1-1", ":1\r\n", "="),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }
}
