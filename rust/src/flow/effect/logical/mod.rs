//! A key's value and expiry, copied by commands of its type: for mirrors that refuse the payload of `RESTORE` and
//! primaries that have no `DUMP`. The sister of [`sync_effect`](super::sync_effect), which copies more and costs less.
//!
//! ```text
//! MULTI, TYPE, PEXPIRETIME, GET, EXEC ─▶ primary ─▶ reply of EXEC ─▶ logical_effect ─▶ SET key value PXAT ms
//!                           LRANGE …                                                 MULTI, DEL, RPUSH …, PEXPIREAT, EXEC
//! ```
//!
//! Not copied, as no command of 7.0 says or sets it: expiries of a hash's fields (7.4), and of a stream see [`stream`].
//! Keys of types that a module or a newer Redis brought are not copied at all.
//!
//! A value is read by one command and made in one transaction, so it must fit into what both servers let a client hold
//! (`client-output-buffer-limit`, `client-query-buffer-limit`, `proto-max-bulk-len`), and into what we hold of a reply.

mod commands;
mod read;
mod stream;
#[cfg(test)]
mod testing;

pub use read::{Found, Kind, logical_commands};

use commands::Commands;

use crate::resp::{Reply, parse_integer};

/// Most elements, pairs or ids of one command: far from the 1,048,576 arguments that a Redis before 7.0 takes, and few
/// replies. A stream has a command, and so a reply, for each entry.
pub const ELEMENTS_PER_COMMAND: usize = 512;

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logical {
    /// It was written.
    Effect {
        /// How many a server gives to it: one for each of its commands.
        replies: u32,
    },
    /// Nothing was written: the key is of this kind now, so it must be read anew. `None`: of a kind that cannot be copied.
    OtherKind(Option<Kind>),
    /// Nothing was written: the reply is not one of a read that succeeded.
    Failed,
}

/// Turns the reply of that `EXEC` into the commands that make the key what it is there, or `DEL key` if there is none.
/// They run on an empty key and in a transaction, so nobody sees half of it.
///
/// `has_counters`: all who receive it know the counters of streams (7.0, as with `PEXPIRETIME`). An older server takes
/// none of a transaction with `XSETID … ENTRIESADDED` in it, however new the primary is.
pub fn logical_effect(
    kind: Kind,
    has_counters: bool,
    key: &[u8],
    exec_reply: Reply<'_>,
    out: &mut Vec<u8>,
) -> Logical {
    let start = out.len();
    let mut commands = Commands { key, has_counters, out, count: 0 };
    effect(kind, exec_reply, &mut commands).unwrap_or_else(|| {
        out.truncate(start);
        Logical::Failed
    })
}

fn effect(kind: Kind, exec_reply: Reply<'_>, commands: &mut Commands<'_>) -> Option<Logical> {
    let key = commands.key;
    let mut results = exec_reply.elements();
    match Kind::of(results.next()?)? {
        Found::Kind(found) if found == kind => {
            let (expiry, value, time) = (results.next()?.integer()?, results.next()?, results.next());
            if is_gone(value) {
                // Not all servers let no time pass in a transaction: it expired behind `TYPE`.
                commands.add(&[b"DEL", key]);
            } else {
                let at = match (expiry, time) {
                    (-1, _) => None,
                    // The key was gone for one command and is there for the next: not one transaction.
                    (..-1, _) => return None,
                    (at, None) => Some(at),
                    (ttl, Some(time)) => Some(ttl.checked_add(milliseconds(time)?)?),
                };
                make(kind, value, at, commands)?;
            }
        }
        Found::Kind(other) => return Some(Logical::OtherKind(Some(other))),
        Found::Foreign => return Some(Logical::OtherKind(None)),
        Found::Gone => commands.add(&[b"DEL", key]),
    }
    Some(Logical::Effect { replies: commands.count })
}

/// Whether a read found no key. A stream may be empty, but what is told of it is not.
fn is_gone(value: Reply<'_>) -> bool {
    value.is_nil() || (is_aggregate(value) && value.elem_count() == 0)
}

fn is_aggregate(reply: Reply<'_>) -> bool {
    matches!(reply.bytes().first(), Some(b'*' | b'~' | b'%'))
}

/// The reply of `TIME`, seconds and microseconds, in milliseconds.
fn milliseconds(time: Reply<'_>) -> Option<i64> {
    let mut parts = time.elements().map(|part| part.text().and_then(parse_integer));
    let (seconds, microseconds) = (parts.next()??, parts.next()??);
    seconds.checked_mul(1000)?.checked_add(microseconds / 1000)
}

/// The commands that make the key, whatever is there.
fn make(kind: Kind, value: Reply<'_>, at: Option<i64>, commands: &mut Commands<'_>) -> Option<()> {
    let (key, mut digits) = (commands.key, itoa::Buffer::new());
    let at = at.map(|at| digits.format(at).as_bytes());
    if kind == Kind::String {
        match (value.text()?, at) {
            (value, None) => commands.add(&[b"SET", key, value]),
            (value, Some(at)) => commands.add(&[b"SET", key, value, b"PXAT", at]),
        }
        return Some(());
    }
    commands.add(&[b"MULTI"]);
    commands.add(&[b"DEL", key]);
    fill(kind, value, commands)?;
    if let Some(at) = at {
        commands.add(&[b"PEXPIREAT", key, at]);
    }
    commands.add(&[b"EXEC"]);
    Some(())
}

/// The commands that fill a key that is not there.
fn fill(kind: Kind, value: Reply<'_>, commands: &mut Commands<'_>) -> Option<()> {
    let count = value.elem_count();
    match kind {
        _ if !is_aggregate(value) => None,
        Kind::String => None, // made above
        Kind::List => commands.fill(b"RPUSH", count, value.elements().map(|one| Some([one.text()?]))),
        Kind::Set => commands.fill(b"SADD", count, value.elements().map(|one| Some([one.text()?]))),
        Kind::Hash if count % 2 == 1 => None,
        Kind::Hash => commands.fill(b"HSET", count / 2, pairs(value)),
        Kind::SortedSet => fill_sorted(value, commands),
        Kind::Stream => stream::fill(value, commands),
    }
}

/// Members and scores: one behind the other, or in RESP3 an array of two for each. A score is text that the server wrote
/// so that it reads the same number again.
fn fill_sorted(value: Reply<'_>, commands: &mut Commands<'_>) -> Option<()> {
    let score_first = |[member, score]: [_; 2]| [score, member];
    if value.elements().next().is_some_and(is_aggregate) {
        let each = value.elements().map(|pair| pairs(pair).next()?.map(score_first));
        return commands.fill(b"ZADD", value.elem_count(), each);
    }
    if value.elem_count() % 2 == 1 {
        return None;
    }
    commands.fill(b"ZADD", value.elem_count() / 2, pairs(value).map(|pair| pair.map(score_first)))
}

/// The elements, two by two; `None` for a pair that is not two strings.
fn pairs(reply: Reply<'_>) -> impl Iterator<Item = Option<[&[u8]; 2]>> {
    let mut elements = reply.elements();
    std::iter::from_fn(move || {
        let first = elements.next()?;
        Some(first.text().zip(elements.next().and_then(Reply::text)).map(<[_; 2]>::from))
    })
}

#[cfg(test)]
mod tests {
    use super::testing::effect_of;
    use super::*;

    /// Answers of 7.0 with `PEXPIRETIME`, and of 6.2 with `PTTL` and `TIME`.
    #[test]
    fn effects() {
        for (kind, reply, effect) in [
            (Kind::String, "*3\r\n+string\r\n:-1\r\n$1\r\nv\r\n", "SET k v"),
            (Kind::String, "*3\r\n+string\r\n:-1\r\n$0\r\n\r\n", "SET k "),
            (Kind::String, "*3\r\n+string\r\n:4102444800000\r\n$1\r\nv\r\n", "SET k v PXAT 4102444800000"),
            (
                Kind::String,
                "*4\r\n+string\r\n:2307094652310\r\n$1\r\nv\r\n*2\r\n$10\r\n1795350147\r\n$6\r\n690457\r\n",
                "SET k v PXAT 4102444800000",
            ),
            (
                Kind::String,
                "*4\r\n+string\r\n:-1\r\n$1\r\nv\r\n*2\r\n$10\r\n1795350147\r\n$6\r\n689718\r\n",
                "SET k v",
            ),
            (
                Kind::List,
                "*3\r\n+list\r\n:-1\r\n*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\na\r\n",
                "MULTI; DEL k; RPUSH k a b a; EXEC",
            ),
            (
                Kind::List,
                "*3\r\n+list\r\n:4102444800000\r\n*1\r\n$1\r\na\r\n",
                "MULTI; DEL k; RPUSH k a; PEXPIREAT k 4102444800000; EXEC",
            ),
            (Kind::Set, "*3\r\n+set\r\n:-1\r\n*1\r\n$1\r\na\r\n", "MULTI; DEL k; SADD k a; EXEC"),
            (Kind::Set, "*3\r\n+set\r\n:-1\r\n~1\r\n$1\r\na\r\n", "MULTI; DEL k; SADD k a; EXEC"),
            (
                Kind::Hash,
                "*3\r\n+hash\r\n:-1\r\n*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$0\r\n\r\n",
                "MULTI; DEL k; HSET k a 1 b ; EXEC",
            ),
            (
                Kind::Hash,
                "*3\r\n+hash\r\n:-1\r\n%2\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$0\r\n\r\n",
                "MULTI; DEL k; HSET k a 1 b ; EXEC",
            ),
            (
                Kind::SortedSet,
                "*3\r\n+zset\r\n:-1\r\n*8\r\n$3\r\nlow\r\n$4\r\n-inf\r\n$1\r\na\r\n$3\r\n1.5\r\n\
                 $1\r\nb\r\n$23\r\n1.0000000000000001e+300\r\n$4\r\nhigh\r\n$3\r\ninf\r\n",
                "MULTI; DEL k; ZADD k -inf low 1.5 a 1.0000000000000001e+300 b inf high; EXEC",
            ),
            (
                Kind::SortedSet,
                "*3\r\n+zset\r\n:-1\r\n*4\r\n*2\r\n$3\r\nlow\r\n,-inf\r\n*2\r\n$1\r\na\r\n,1.5\r\n\
                 *2\r\n$1\r\nb\r\n,1.0000000000000001e+300\r\n*2\r\n$4\r\nhigh\r\n,inf\r\n",
                "MULTI; DEL k; ZADD k -inf low 1.5 a 1.0000000000000001e+300 b inf high; EXEC",
            ),
        ] {
            assert_eq!(effect_of(kind, true, reply), effect, "{reply:?}");
        }
    }

    #[test]
    fn a_key_that_is_gone_is_deleted() {
        for (kind, reply) in [
            (Kind::String, "*3\r\n+none\r\n:-2\r\n$-1\r\n"),
            (Kind::List, "*3\r\n+none\r\n:-2\r\n*0\r\n"),
            (Kind::Hash, "*3\r\n+none\r\n:-2\r\n%0\r\n"),
            (Kind::Stream, "*3\r\n+none\r\n:-2\r\n-ERR no such key\r\n"),
            (Kind::Set, "*4\r\n+none\r\n:-2\r\n*0\r\n*2\r\n$10\r\n1795350147\r\n$6\r\n693611\r\n"),
            // It expired behind `TYPE`, or behind `PTTL`.
            (Kind::String, "*3\r\n+string\r\n:-2\r\n_\r\n"),
            (Kind::SortedSet, "*4\r\n+zset\r\n:1\r\n*0\r\n*2\r\n$10\r\n1795350147\r\n$6\r\n694923\r\n"),
        ] {
            assert_eq!(effect_of(kind, true, reply), "DEL k", "{reply:?}");
        }
    }

    #[test]
    fn a_key_of_another_kind_is_told() {
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
        for (name, kind) in [
            ("string", Some(Kind::String)),
            ("set", Some(Kind::Set)),
            ("hash", Some(Kind::Hash)),
            ("zset", Some(Kind::SortedSet)),
            ("stream", Some(Kind::Stream)),
            ("vectorset", None),
            ("MBbloom--", None),
        ] {
            let reply = format!("*3\r\n+{name}\r\n:-1\r\n{wrong}");
            assert_eq!(effect_of(Kind::List, true, &reply), format!("{:?}", Logical::OtherKind(kind)));
        }
    }

    #[test]
    fn what_is_not_understood_writes_nothing() {
        for (kind, reply) in [
            (Kind::String, "-EXECABORT Transaction discarded because of previous errors.\r\n"),
            (Kind::String, "*-1\r\n"),
            (Kind::String, "*0\r\n"),
            (Kind::String, "*2\r\n+string\r\n:-1\r\n"),
            (Kind::String, "*3\r\n+string\r\n:-1\r\n$5\r\nv"),
            (Kind::String, "*3\r\n-NOPERM\r\n:-1\r\n$1\r\nv\r\n"),
            (Kind::String, "*3\r\n:1\r\n:-1\r\n$1\r\nv\r\n"),
            (Kind::String, "*3\r\n+string\r\n-NOPERM\r\n$1\r\nv\r\n"),
            (Kind::String, "*3\r\n+string\r\n:-1\r\n-NOPERM\r\n"),
            (Kind::String, "*3\r\n+string\r\n:-1\r\n*1\r\n$1\r\nv\r\n"),
            (Kind::String, "*3\r\n+string\r\n:-2\r\n$1\r\nv\r\n"),
            (Kind::String, "*4\r\n+string\r\n:5\r\n$1\r\nv\r\n-NOPERM\r\n"),
            (Kind::String, "*4\r\n+string\r\n:5\r\n$1\r\nv\r\n*2\r\n$1\r\nx\r\n$1\r\n0\r\n"),
            (
                Kind::String,
                "*4\r\n+string\r\n:9223372036854775807\r\n$1\r\nv\r\n*2\r\n$1\r\n1\r\n$1\r\n0\r\n",
            ),
            (Kind::List, "*3\r\n+list\r\n:-1\r\n-NOPERM\r\n"),
            (Kind::List, "*3\r\n+list\r\n:-1\r\n$1\r\na\r\n"),
            (Kind::List, "*3\r\n+list\r\n:-1\r\n*2\r\n$1\r\na\r\n$-1\r\n"),
            (Kind::Set, "*3\r\n+set\r\n:-1\r\n*2\r\n$1\r\na\r\n:1\r\n"),
            (Kind::Hash, "*3\r\n+hash\r\n:-1\r\n*3\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n"),
            (Kind::Hash, "*3\r\n+hash\r\n:-1\r\n*2\r\n$1\r\na\r\n*0\r\n"),
            (Kind::SortedSet, "*3\r\n+zset\r\n:-1\r\n*3\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n"),
            (Kind::SortedSet, "*3\r\n+zset\r\n:-1\r\n*1\r\n*1\r\n$1\r\na\r\n"),
            (Kind::SortedSet, "*3\r\n+zset\r\n:-1\r\n*2\r\n*2\r\n$1\r\na\r\n,1\r\n$1\r\nb\r\n"),
            (Kind::Stream, "*3\r\n+stream\r\n:-1\r\n-ERR no such key\r\n"),
        ] {
            assert_eq!(effect_of(kind, true, reply), "Failed", "{reply:?}");
        }
    }

    #[test]
    fn a_long_value_is_several_commands() {
        let words = |n: usize| "$1\r\na\r\n".repeat(n);
        let arguments = |kind, reply: String| -> Vec<usize> {
            effect_of(kind, true, &reply).split("; ").map(|line| line.split(' ').count()).collect()
        };
        for (elements, made) in [(512, vec![514]), (513, vec![514, 3]), (1024, vec![514, 514])] {
            let expected = [vec![1, 2], made, vec![1]].concat();
            let reply = format!("*3\r\n+list\r\n:-1\r\n*{elements}\r\n{}", words(elements));
            assert_eq!(arguments(Kind::List, reply), expected);
        }
        let reply = format!("*3\r\n+hash\r\n:-1\r\n*1026\r\n{}", words(1026));
        assert_eq!(arguments(Kind::Hash, reply), [1, 2, 2 + 1024, 4, 1]);
    }

    proptest::proptest! {
        /// What is written is whole commands, as many as told, or nothing; `effect_of` looks.
        #[test]
        fn never_half_a_command(
            kind in 0..6usize,
            value in "([*%~][0-4]\r\n|[$]1\r\na\r\n|[$]-1\r\n|:1\r\n|,1\r\n|-E\r\n|[$]4\r\nname\r\n){0,12}",
        ) {
            let (kind, name) = [
                (Kind::String, "string"),
                (Kind::List, "list"),
                (Kind::Set, "set"),
                (Kind::Hash, "hash"),
                (Kind::SortedSet, "zset"),
                (Kind::Stream, "stream"),
            ][kind];
            effect_of(kind, true, &format!("*3\r\n+{name}\r\n:-1\r\n{value}"));
        }
    }
}
