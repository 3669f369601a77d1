//! Which commands read a key.

use crate::resp::{Reply, encode};

/// A type that can be copied by commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `GET`, `SET`: also bitmaps and `HyperLogLogs`.
    String,
    /// `LRANGE`, `RPUSH`.
    List,
    /// `SMEMBERS`, `SADD`.
    Set,
    /// `HGETALL`, `HSET`.
    Hash,
    /// `ZRANGE`, `ZADD`: also positions.
    SortedSet,
    /// `XINFO STREAM FULL`, `XADD` and what belongs to groups.
    Stream,
}

/// What `TYPE key` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no such key.
    Gone,
    /// It can be copied.
    Kind(Kind),
    /// It cannot: a type of a module, or of a newer Redis.
    Foreign,
}

impl Kind {
    /// What a reply of `TYPE key` tells; `None` if it is not one (an error).
    pub fn of(type_reply: Reply<'_>) -> Option<Found> {
        Some(match type_reply.text()? {
            b"none" => Found::Gone,
            b"string" => Found::Kind(Self::String),
            b"list" => Found::Kind(Self::List),
            b"set" => Found::Kind(Self::Set),
            b"hash" => Found::Kind(Self::Hash),
            b"zset" => Found::Kind(Self::SortedSet),
            b"stream" => Found::Kind(Self::Stream),
            _ => Found::Foreign,
        })
    }
}

/// Writes the commands that read a key of that kind, one behind the other, and returns how many replies will come; the
/// last is for [`logical_effect`](super::logical_effect). Without `PEXPIRETIME` (Redis before 7.0) the time to live and the server's own time
/// are read.
pub fn logical_commands(kind: Kind, has_pexpiretime: bool, key: &[u8], out: &mut Vec<u8>) -> usize {
    encode::command(out, &[b"MULTI"]);
    encode::command(out, &[b"TYPE", key]);
    encode::command(out, &[if has_pexpiretime { b"PEXPIRETIME" } else { &b"PTTL"[..] }, key]);
    match kind {
        Kind::String => encode::command(out, &[b"GET", key]),
        Kind::List => encode::command(out, &[b"LRANGE", key, b"0", b"-1"]),
        Kind::Set => encode::command(out, &[b"SMEMBERS", key]),
        Kind::Hash => encode::command(out, &[b"HGETALL", key]),
        Kind::SortedSet => encode::command(out, &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]),
        // All entries are in it: `XRANGE` would tell them twice.
        Kind::Stream => encode::command(out, &[&b"XINFO"[..], b"STREAM", key, b"FULL", b"COUNT", b"0"]),
    }
    let mut replies = 5;
    if !has_pexpiretime {
        encode::command(out, &[b"TIME"]);
        replies += 1;
    }
    encode::command(out, &[b"EXEC"]);
    replies
}

#[cfg(test)]
mod tests {
    use super::super::testing::lines;
    use super::*;

    #[test]
    fn types() {
        for (reply, found) in [
            ("+none\r\n", Some(Found::Gone)),
            ("+hash\r\n", Some(Found::Kind(Kind::Hash))),
            ("$4\r\nzset\r\n", Some(Found::Kind(Kind::SortedSet))),
            ("+ReJSON-RL\r\n", Some(Found::Foreign)),
            ("-NOPERM\r\n", None),
            (":1\r\n", None),
        ] {
            assert_eq!(Kind::of(Reply::new(reply.as_bytes())), found, "{reply:?}");
        }
    }

    #[test]
    fn commands_and_their_number_of_replies() {
        for (kind, read) in [
            (Kind::String, "GET k"),
            (Kind::List, "LRANGE k 0 -1"),
            (Kind::Set, "SMEMBERS k"),
            (Kind::Hash, "HGETALL k"),
            (Kind::SortedSet, "ZRANGE k 0 -1 WITHSCORES"),
            (Kind::Stream, "XINFO STREAM k FULL COUNT 0"),
        ] {
            let mut out = Vec::new();
            let replies = logical_commands(kind, true, b"k", &mut out);
            let expected = format!("MULTI; TYPE k; PEXPIRETIME k; {read}; EXEC");
            assert_eq!(lines(replies, &out), expected);
            out.clear();
            let replies = logical_commands(kind, false, b"k", &mut out);
            assert_eq!(lines(replies, &out), format!("MULTI; TYPE k; PTTL k; {read}; TIME; EXEC"));
        }
    }
}
