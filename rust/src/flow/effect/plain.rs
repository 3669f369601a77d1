//! Effects that say plainly what happened: what was decided or drawn at the primary is not decided again.

use super::Effect;
use crate::resp::{Reply, Request, encode};

/// `SETNX`, `HSETNX`, `MSETNX`, `RENAMENX` → the same without the condition.
pub(super) fn without_nx(sent: &Request<'_>, out: &mut Vec<u8>) -> Effect {
    let name = sent.arg(0);
    encode::array(out, sent.len());
    encode::bulk(out, name.get(..name.len().saturating_sub(2)).unwrap_or(name));
    sent.args_from(1).for_each(|arg| encode::bulk(out, arg));
    Effect::Bytes
}

/// `GETDEL`, and an expiry in the past → `DEL`.
pub(super) fn delete(sent: &Request<'_>, out: &mut Vec<u8>) -> Effect {
    encode::command(out, &[b"DEL", sent.arg(1)]);
    Effect::Bytes
}

/// `SPOP` → `SREM` of what came back. One member is a string, several are a set or an array.
pub(super) fn pop(sent: &Request<'_>, reply: Reply<'_>, out: &mut Vec<u8>) -> Effect {
    let one = reply.text();
    let members = one.map_or_else(|| reply.elem_count(), |_| 1);
    if members == 0 {
        return Effect::Nothing;
    }
    if one.is_none() && reply.elements().filter_map(Reply::text).count() != members {
        return Effect::Sync; // not what Redis answers: fewer members than announced would leave half a command
    }
    encode::array(out, members + 2);
    encode::bulk(out, b"SREM");
    encode::bulk(out, sent.arg(1));
    one.into_iter()
        .chain(reply.elements().filter_map(Reply::text))
        .for_each(|member| encode::bulk(out, member));
    Effect::Bytes
}

/// `INCRBYFLOAT` → `SET … KEEPTTL`: how a sum is rounded is the primary's affair.
pub(super) fn float(sent: &Request<'_>, reply: Reply<'_>, out: &mut Vec<u8>) -> Effect {
    let Some(sum) = reply.text() else { return Effect::Sync };
    encode::command(out, &[b"SET", sent.arg(1), sum, b"KEEPTTL"]);
    Effect::Bytes
}

/// `HINCRBYFLOAT` → `HSET`.
pub(super) fn hash_float(sent: &Request<'_>, reply: Reply<'_>, out: &mut Vec<u8>) -> Effect {
    let Some(sum) = reply.text() else { return Effect::Sync };
    encode::command(out, &[b"HSET", sent.arg(1), sent.arg(2), sum]);
    Effect::Bytes
}

#[cfg(test)]
mod tests {
    use super::super::testing::committed;

    #[test]
    fn effects() {
        for (line, reply, effect) in [
            ("SETNX k v", ":1\r\n", "SET k v"),
            ("setnx k v", ":0\r\n", "nothing"),
            ("HSETNX k f v", ":1\r\n", "HSET k f v"),
            ("MSETNX a 1 b 2", ":1\r\n", "MSET a 1 b 2"),
            ("renamenx a b", ":1\r\n", "rename a b"),
            ("RENAMENX a b", "-ERR no such key\r\n", "nothing"),
            ("GETDEL k", "$1\r\nv\r\n", "DEL k"),
            ("GETDEL k", "$-1\r\n", "nothing"),
            ("SPOP k", "$1\r\nm\r\n", "SREM k m"),
            ("SPOP k", "_\r\n", "nothing"),
            ("SPOP k 2", "*2\r\n$1\r\nm\r\n$1\r\nn\r\n", "SREM k m n"),
            ("SPOP k 2", "~1\r\n$1\r\nm\r\n", "SREM k m"),
            ("SPOP k 2", "*0\r\n", "nothing"),
            ("SPOP k 2", "*2\r\n:1\r\n$1\r\nn\r\n", "sync"),
            ("SPOP k", "-WRONGTYPE\r\n", "nothing"),
            ("INCRBYFLOAT k 0.1", "$3\r\n0.3\r\n", "SET k 0.3 KEEPTTL"),
            ("HINCRBYFLOAT k f 0.1", "$3\r\n0.3\r\n", "HSET k f 0.3"),
            ("HINCRBYFLOAT k f 0.1", ",0.3\r\n", "HSET k f 0.3"),
            ("INCRBYFLOAT k 0.1", ":1\r\n", "sync"),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }
}
