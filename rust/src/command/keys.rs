//! Where the keys of a request are.
//!
//! The common shapes come from the server's own key specifications; five commands have keys that only their options
//! tell, and are walked here as Redis walks them. What a request names is found, not what its script or pattern may
//! reach besides: undeclared keys are a documented limit.

use smallvec::SmallVec;

use super::{Command, is_word, option_at};
use crate::resp::{Request, parse_integer};

/// Where a command's keys are, as argument indices; 0 is the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyShape {
    /// It has none.
    None,
    /// Any key of one or more databases (`FLUSHALL`), or what a subcommand would tell.
    Every,
    /// First, last (negative: from the end), step.
    Range(u8, i8, u8),
    /// The number of keys is argument `.0`, the keys are behind it.
    Counted(u8),
    /// The same, and argument 1 is the destination.
    StoreCounted(u8),
    /// Argument 1, and what `STORE` names.
    Sort,
    /// Argument 1, and what `STORE` or `STOREDIST` names; options begin at `.0`.
    GeoRadius(u8),
    /// Argument 3, or what `KEYS` names.
    Migrate,
    /// The first half of what follows `STREAMS`.
    Streams,
}

/// Whether all keys are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysResult {
    /// These and no others. A malformed request, which Redis refuses as a whole, has those that can be told.
    Known,
    /// Any key may be meant.
    Unknown,
}

/// Options of `SORT` and how many arguments each takes.
const SORT: &[(&str, usize)] = &[("LIMIT", 2), ("GET", 1), ("BY", 1), ("STORE", 1)];
/// Options of `GEORADIUS`.
const GEO_RADIUS: &[(&str, usize)] = &[("STORE", 1), ("STOREDIST", 1), ("COUNT", 1)];
/// Options of `XREAD` and `XREADGROUP` up to `STREAMS`, which ends them.
const READ: &[(&str, usize)] = &[("BLOCK", 1), ("COUNT", 1), ("GROUP", 2), ("STREAMS", usize::MAX >> 1)];
/// Options of `MIGRATE` up to `KEYS`, which ends them.
const MIGRATE: &[(&str, usize)] = &[("AUTH", 1), ("AUTH2", 2), ("KEYS", usize::MAX >> 1)];

/// Puts the argument indices of all keys into `out`, which is cleared first.
#[inline]
pub fn keys(cmd: &Command, req: &Request<'_>, out: &mut SmallVec<[u32; 4]>) -> KeysResult {
    out.clear();
    match cmd.shape {
        KeyShape::None => {}
        KeyShape::Every => return KeysResult::Unknown,
        KeyShape::Range(first, last, _) if i64::from(first) == i64::from(last) => {
            push(req, Some(u32::from(first)), out);
        }
        KeyShape::Range(first, last, step) => {
            let end = if last < 0 { req.len() as i64 + i64::from(last) } else { i64::from(last) };
            let end = end.min(req.len() as i64 - 1) + 1;
            out.extend((u32::from(first)..end.max(0) as u32).step_by(usize::from(step.max(1))));
        }
        KeyShape::Counted(at) => counted(req, at, out),
        KeyShape::StoreCounted(at) => {
            push(req, Some(1), out);
            counted(req, at, out);
        }
        KeyShape::Sort => {
            push(req, Some(1), out);
            push(req, sort_store(req), out);
        }
        KeyShape::GeoRadius(from) => {
            push(req, Some(1), out);
            push(req, radius_store(req, from), out);
        }
        KeyShape::Migrate => match migrated(req) {
            (first, true) => out.extend(first..req.len() as u32),
            (first, false) => push(req, Some(first), out),
        },
        KeyShape::Streams => {
            if let Some(first) = streams(req) {
                let half = (req.len() as u32).saturating_sub(first) / 2;
                out.extend(first..first + half);
            }
        }
    }
    KeysResult::Known
}

/// The argument index of the first key; `None` when there is none, or any key may be meant.
#[inline]
pub fn first_key(cmd: &Command, req: &Request<'_>) -> Option<u32> {
    let first = match cmd.shape {
        KeyShape::None | KeyShape::Every => return None,
        KeyShape::Range(first, ..) => u32::from(first),
        KeyShape::StoreCounted(_) | KeyShape::Sort | KeyShape::GeoRadius(_) => 1,
        KeyShape::Counted(at) => {
            number_of_keys(req, at)?;
            u32::from(at) + 1
        }
        KeyShape::Migrate => migrated(req).0,
        KeyShape::Streams => streams(req)?,
    };
    ((first as usize) < req.len()).then_some(first)
}

/// Whether the request needs a connection of its own although its command does not: `XREAD` and `XREADGROUP` with
/// `BLOCK`. (`Treatment::Private` needs one always.)
#[inline]
pub fn needs_private(cmd: &Command, req: &Request<'_>) -> bool {
    match cmd.treatment {
        super::Treatment::Private => true,
        _ => cmd.shape == KeyShape::Streams && option_at(req, 1, READ, "BLOCK").is_some(),
    }
}

/// A request of `XREADGROUP` without `BLOCK`, and what it says there: the last one counts.
pub fn without_block<'a>(req: &Request<'a>) -> (Vec<&'a [u8]>, Option<&'a [u8]>) {
    let (mut args, mut wait) = (vec![req.arg(0)], None);
    let mut at = 1;
    while at < req.len() {
        let takes = READ.iter().find(|(word, _)| is_word(req.arg(at), word)).map_or(0, |(_, takes)| *takes);
        let end = req.len().min(at.saturating_add(takes).saturating_add(1));
        if is_word(req.arg(at), "BLOCK") {
            wait = Some(req.arg(at + 1));
        } else {
            args.extend((at..end).map(|i| req.arg(i)));
        }
        at = end;
    }
    (args, wait)
}

/// The consumer group that a request of `XREADGROUP` is about.
pub fn group_of<'a>(req: &Request<'a>) -> Option<&'a [u8]> {
    option_at(req, 1, READ, "GROUP").map(|at| req.arg(at + 1))
}

/// `DEBUG`s that look at a server, or set what has nothing to do with its data.
const HARMLESS_DEBUG: [&str; 15] = [
    "DIGEST",
    "DIGEST-VALUE",
    "ERROR",
    "HELP",
    "HTSTATS",
    "HTSTATS-KEY",
    "LISTPACK",
    "LOG",
    "OBJECT",
    "PAUSE-CRON",
    "QUICKLIST",
    "REPLYBUFFER",
    "SDSLEN",
    "SET-DISABLE-DENY-SCRIPTS",
    "STRUCTSIZE",
];

/// Whether the request would change one server behind the back of the others, or end it: where several hold the same it is
/// refused.
#[inline]
pub fn takes_a_server_away(cmd: &Command, req: &Request<'_>) -> bool {
    cmd.treatment == super::Treatment::Refused
        && !(cmd.name == "debug" && HARMLESS_DEBUG.iter().any(|word| is_word(req.arg(1), word)))
}

/// The other database in which keys of the request lie: the target of `MOVE`, and of `COPY … DB n`. In `COPY` it holds
/// only the second key, in `MOVE` the same key.
pub fn other_db(cmd: &Command, req: &Request<'_>) -> Option<u32> {
    let at = match cmd.name {
        "move" => 2,
        "copy" => option_at(req, 3, &[("DB", 1)], "DB")? + 1,
        _ => return None,
    };
    parse_integer(req.arg(at)).and_then(|db| u32::try_from(db).ok())
}

fn push(req: &Request<'_>, at: Option<u32>, out: &mut SmallVec<[u32; 4]>) {
    if let Some(at) = at.filter(|at| (*at as usize) < req.len()) {
        out.push(at);
    }
}

/// How many keys argument `at` announces; `None` when it is none or the request has fewer arguments than that, which
/// Redis refuses.
fn number_of_keys(req: &Request<'_>, at: u8) -> Option<u32> {
    let room = req.len().checked_sub(usize::from(at) + 1)?;
    let keys = usize::try_from(parse_integer(req.arg(usize::from(at)))?).ok()?;
    (1..=room).contains(&keys).then_some(keys as u32)
}

fn counted(req: &Request<'_>, at: u8, out: &mut SmallVec<[u32; 4]>) {
    if let Some(keys) = number_of_keys(req, at) {
        let first = u32::from(at) + 1;
        out.extend(first..first + keys);
    }
}

/// The argument that `SORT … STORE` names.
pub(crate) fn sort_store(req: &Request<'_>) -> Option<u32> {
    option_at(req, 2, SORT, "STORE").map(|at| at as u32 + 1)
}

/// Whether `SORT` has an option.
pub(crate) fn sort_has(req: &Request<'_>, word: &str) -> bool {
    option_at(req, 2, SORT, word).is_some()
}

/// The argument that `GEORADIUS … STORE` or `STOREDIST` names.
pub(crate) fn radius_store(req: &Request<'_>, from: u8) -> Option<u32> {
    let at = |word| option_at(req, usize::from(from), GEO_RADIUS, word);
    at("STORE").max(at("STOREDIST")).map(|at| at as u32 + 1)
}

/// The first argument behind `STREAMS`.
fn streams(req: &Request<'_>) -> Option<u32> {
    option_at(req, 1, READ, "STREAMS").map(|at| at as u32 + 1)
}

/// The first key of `MIGRATE`, and whether it is the first of all that follow.
fn migrated(req: &Request<'_>) -> (u32, bool) {
    let listed = option_at(req, 6, MIGRATE, "KEYS").filter(|_| req.arg(3).is_empty());
    listed.map_or((3, false), |at| (at as u32 + 1, true))
}

#[cfg(test)]
mod tests {
    use super::super::lookup;
    use super::super::testing::Owned;
    use super::*;

    /// A request, the indices of its keys.
    const CASES: &[(&str, &[u32])] = &[
        ("PING", &[]),
        ("GET k", &[1]),
        ("GET", &[]),
        ("SET k v EX 1", &[1]),
        ("DEL a b c", &[1, 2, 3]),
        ("MGET a b c d e f", &[1, 2, 3, 4, 5, 6]),
        ("MSET a 1 b 2 c 3", &[1, 3, 5]),
        ("BITOP AND d a b", &[2, 3, 4]),
        ("BLPOP a b 0", &[1, 2]),
        ("RENAME a b", &[1, 2]),
        ("LMOVE a b LEFT LEFT", &[1, 2]),
        ("COPY a b DB 2", &[1, 2]),
        ("PFMERGE d", &[1]),
        ("OBJECT ENCODING k", &[2]),
        ("XGROUP CREATE s g $", &[2]),
        ("PUBLISH c m", &[]),
        ("SPUBLISH c m", &[]),
        ("EVAL return 2 a b x", &[3, 4]),
        ("EVAL return 0 x", &[]),
        ("EVAL return 3 a b", &[]),
        ("EVAL return -1 a b", &[]),
        ("EVAL return x a b", &[]),
        ("EVAL return", &[]),
        ("FCALL_RO f 1 k", &[3]),
        ("ZUNION 2 a b WITHSCORES", &[2, 3]),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", &[1, 3, 4]),
        ("ZUNIONSTORE d 5 a b", &[1]),
        ("LMPOP 2 a b LEFT", &[2, 3]),
        ("BLMPOP 0 2 a b LEFT", &[3, 4]),
        ("SINTERCARD 1 a LIMIT 1", &[2]),
        ("SORT k", &[1]),
        ("SORT k BY STORE ALPHA STORE d", &[1, 6]),
        ("SORT k LIMIT 0 1 store d GET STORE", &[1, 6]),
        ("SORT k STORE", &[1]),
        ("SORT_RO k BY a", &[1]),
        ("GEORADIUS g 1 1 1 m", &[1]),
        ("GEORADIUS g 1 1 1 m COUNT 5 ANY STORE d", &[1, 10]),
        ("GEORADIUS g 1 1 1 m STOREDIST STORE", &[1, 7]),
        ("GEORADIUS g 1 1 1 m STORE a STOREDIST b", &[1, 9]),
        ("GEORADIUSBYMEMBER g m 1 m STORE d", &[1, 6]),
        ("GEOSEARCHSTORE d g FROMMEMBER m BYRADIUS 1 m", &[1, 2]),
        ("MIGRATE h 1 k 0 10", &[3]),
        ("MIGRATE h 1 \"\" 0 10 COPY AUTH2 KEYS p KEYS a b", &[11, 12]),
        ("MIGRATE h 1 k 0 10 KEYS a b", &[3]),
        ("XREAD COUNT 2 STREAMS a b 0 0", &[4, 5]),
        ("XREAD BLOCK 0 STREAMS STREAMS $", &[4]),
        ("XREAD STREAMS a b 0", &[2]),
        ("XREAD COUNT", &[]),
        ("XREADGROUP GROUP STREAMS STREAMS COUNT 1 STREAMS s >", &[7]),
    ];

    #[test]
    fn keys_are_found() {
        let mut out = SmallVec::new();
        for (line, expected) in CASES {
            let owned = Owned::new(line);
            let req = owned.request();
            let command = lookup(req.arg(0)).and_then(|command| command.resolve(&req).ok()).expect(line);
            assert_eq!(keys(command, &req, &mut out), KeysResult::Known, "{line}");
            assert_eq!(out.as_slice(), *expected, "{line}");
            assert_eq!(first_key(command, &req), expected.first().copied(), "{line}");
        }
    }

    #[test]
    fn some_commands_mean_every_key() {
        for line in ["FLUSHALL", "FLUSHDB ASYNC", "SWAPDB 0 1"] {
            let owned = Owned::new(line);
            let req = owned.request();
            let command = lookup(req.arg(0)).expect(line);
            assert_eq!(keys(command, &req, &mut SmallVec::new()), KeysResult::Unknown, "{line}");
            assert_eq!(first_key(command, &req), None);
        }
    }

    #[test]
    fn only_blocking_reads_need_a_connection_of_their_own() {
        for (line, expected) in [
            ("XREAD COUNT 2 STREAMS a 0", false),
            ("XREAD COUNT 2 BLOCK 0 STREAMS a 0", true),
            ("XREAD STREAMS BLOCK 0", false),
            ("XREADGROUP GROUP g BLOCK STREAMS a >", false),
            ("XREADGROUP GROUP g c block 5 STREAMS a >", true),
            ("BLPOP a 0", true),
            ("SUBSCRIBE c", true),
            ("GET BLOCK", false),
        ] {
            let owned = Owned::new(line);
            let req = owned.request();
            assert_eq!(needs_private(lookup(req.arg(0)).expect(line), &req), expected, "{line}");
        }
    }

    #[test]
    fn other_databases() {
        for (line, expected) in [
            ("MOVE k 3", Some(3)),
            ("MOVE k -3", None),
            ("COPY a b", None),
            ("COPY a b REPLACE DB 7", Some(7)),
            ("COPY DB DB", None),
            ("SET k 3", None),
        ] {
            let owned = Owned::new(line);
            let req = owned.request();
            assert_eq!(other_db(lookup(req.arg(0)).expect(line), &req), expected, "{line}");
        }
    }
}
