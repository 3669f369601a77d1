//! What a write did, as commands that give the same result anywhere.
//!
//! ```text
//! client's command ─▶ prepare ─▶ bytes for the primary ─▶ reply ─▶ commit ─▶ Effect ─▶ log ─▶ replicas
//!                     absolute time                               unconditional, what the reply tells
//! ```
//!
//! The default is to replicate the sent bytes. `Nothing` is answered only where it is certain for that command and
//! those options; what is not understood (an option of a newer Redis) becomes `Sync`: a copy of the keys is right
//! whatever they did. A command that fails has changed nothing, but a script may fail half-way.
//!
//! Owns nothing: pure functions of a command, a time and a reply. Never reads a clock, never sees a connection.

mod choose;
mod expire;
mod logical;
mod plain;
mod restore;
mod set;
mod stream;
mod sync;
#[cfg(test)]
mod testing;

pub use logical::{ELEMENTS_PER_COMMAND, Found, Kind, Logical, logical_commands, logical_effect};
pub use sync::{functions_effect, sync_commands, sync_effect};

use crate::command::{Command, EffectClass, keys};
use crate::resp::{Reply, Request};

/// How the effect of a sent command is found once its reply is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It has none.
    Never,
    /// The sent bytes.
    Same,
    /// The sent bytes, unless the reply is nil, empty, or an integer below one.
    Changed,
    /// Under the conditions of `Changed`: the same command without the `NX` at the end of its name.
    WithoutNx,
    /// Under the conditions of `Changed`: `DEL` of the key.
    Delete,
    /// Under the conditions of `Changed`: the first three arguments, without options.
    Expire,
    /// Under the conditions of `Changed`: what `GETEX` did to the key's expiry.
    GetEx,
    /// Under the conditions of `Changed`: with `REPLACE`.
    Replace,
    /// `SET` without `NX`, `XX` and `GET`, if it did set.
    Set,
    /// `SREM` of the members in the reply.
    Pop,
    /// `SET` to the reply, keeping the expiry.
    Float,
    /// `HSET` to the reply.
    HashFloat,
    /// `XADD` with the id in the reply.
    XAdd,
    /// A copy of the keys.
    Sync,
    /// A copy of the keys, under the conditions of `Changed`.
    SyncChanged,
    /// A copy of the keys, even after an error.
    Script,
}

impl Rule {
    /// What a server in the primary's state answers to the effect, where that is known although the effect is another
    /// command than the one that got `reply`.
    pub fn expected(self, reply: Reply<'_>) -> Option<&[u8]> {
        match self {
            Self::Replace | Self::Expire if reply.integer().is_some() => Some(reply.bytes()),
            Self::Delete | Self::GetEx => Some(b":1\r\n"),
            _ => None,
        }
    }

    /// Whether `commit` needs all of the reply. If not, its first line is enough, so that a long reply may be streamed.
    #[inline]
    pub fn wants_whole_reply(self) -> bool {
        matches!(self, Self::Pop | Self::Float | Self::HashFloat | Self::XAdd)
    }
}

/// What to send, and what to do once the reply is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// For `commit`.
    pub rule: Rule,
    /// The bytes to send were appended to `out`; if not, they are the request's own.
    pub rewritten: bool,
}

impl Prepared {
    const fn verbatim(rule: Rule) -> Self {
        Self { rule, rewritten: false }
    }

    const fn rewritten(rule: Rule) -> Self {
        Self { rule, rewritten: true }
    }

    /// Redis will refuse it, or knows more than we do; then a copy of the keys is right.
    const NOT_UNDERSTOOD: Self = Self::verbatim(Rule::Sync);
}

/// What to replicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing changed.
    Nothing,
    /// The sent bytes.
    Same,
    /// One command, appended to `out`.
    Bytes,
    /// A copy of the sent command's keys, see [`sync_commands`].
    Sync,
}

/// Decides how a command is sent to the primary: relative time becomes absolute, and the client's reply stays what it
/// would have been. `unix_ms` is the time now.
///
/// A time that Redis would refuse, or that lies outside what it can hold, is sent as it is: Redis gives its own error.
#[inline]
pub fn prepare(cmd: &Command, req: &Request<'_>, unix_ms: u64, out: &mut Vec<u8>) -> Prepared {
    let now = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let rule = match cmd.effect {
        EffectClass::None => Rule::Never,
        EffectClass::Always => Rule::Same,
        EffectClass::Changed => Rule::Changed,
        EffectClass::Unconditional => Rule::WithoutNx,
        EffectClass::Replace => restore::copy_rule(req),
        EffectClass::Restore => return restore::prepare(req, now, out),
        EffectClass::Set => return set::prepare(req, now, out),
        EffectClass::SetEx => return set::prepare_setex(cmd, req, now, out),
        EffectClass::GetEx => return set::prepare_getex(req, now, out),
        EffectClass::Expire => return expire::prepare(cmd, req, now, out),
        EffectClass::GetDel => Rule::Delete,
        EffectClass::Pop => Rule::Pop,
        EffectClass::Float => Rule::Float,
        EffectClass::HashFloat => Rule::HashFloat,
        EffectClass::ZAdd => choose::zadd(req),
        EffectClass::BitField => choose::bitfield(req),
        EffectClass::Sort => choose::sort(req),
        EffectClass::GeoRadius => choose::georadius(cmd, req),
        EffectClass::XAdd => stream::add_rule(req),
        EffectClass::XTrim => stream::trim_rule(req),
        EffectClass::CopyKeys => Rule::Sync,
        EffectClass::CopyChanged => Rule::SyncChanged,
        // Without declared keys there is nothing to copy: what such a script writes is a documented limit.
        EffectClass::Script => keys::first_key(cmd, req).map_or(Rule::Never, |_| Rule::Script),
    };
    Prepared::verbatim(rule)
}

/// The effect of a command, now that its reply is here. `sent` is what was sent, that is after rewriting.
#[inline]
pub fn commit(rule: Rule, cmd: &Command, sent: &Request<'_>, reply: Reply<'_>, out: &mut Vec<u8>) -> Effect {
    if rule == Rule::Same && !reply.is_error() {
        return Effect::Same;
    }
    commit_by_rule(rule, cmd, sent, reply, out)
}

fn commit_by_rule(
    rule: Rule,
    cmd: &Command,
    sent: &Request<'_>,
    reply: Reply<'_>,
    out: &mut Vec<u8>,
) -> Effect {
    match rule {
        Rule::Never => Effect::Nothing,
        Rule::Script => Effect::Sync,
        _ if reply.is_error() => Effect::Nothing,
        Rule::Same => Effect::Same,
        Rule::Sync => Effect::Sync,
        Rule::Set => set::commit(sent, reply, out),
        Rule::Pop => plain::pop(sent, reply, out),
        _ if unchanged(reply) => Effect::Nothing,
        Rule::Changed => Effect::Same,
        Rule::SyncChanged => Effect::Sync,
        Rule::WithoutNx => plain::without_nx(sent, out),
        Rule::Delete => plain::delete(sent, out),
        Rule::Float => plain::float(sent, reply, out),
        Rule::HashFloat => plain::hash_float(sent, reply, out),
        Rule::Expire => expire::commit(sent, out),
        Rule::GetEx => set::commit_getex(sent, out),
        Rule::Replace => restore::commit(cmd, sent, out),
        Rule::XAdd => stream::add(sent, reply, out),
    }
}

/// Whether a reply says that nothing changed, for the commands where it can say so: nil (nothing there), an integer
/// below one (nothing done; `LINSERT` says -1), an empty array (nothing popped).
fn unchanged(reply: Reply<'_>) -> bool {
    let aggregate = matches!(reply.bytes().first(), Some(b'*' | b'~' | b'%'));
    reply.is_nil() || reply.integer().is_some_and(|n| n < 1) || (aggregate && reply.elem_count() == 0)
}

#[cfg(test)]
mod tests {
    use super::testing::{committed, prepared};

    #[test]
    fn default_is_to_replicate() {
        for (line, reply, effect) in [
            ("SET k v", "+OK\r\n", "="),
            ("SET k v", "-OOM no\r\n", "nothing"),
            ("GET k", "$1\r\nv\r\n", "nothing"),
            ("HSET k f v", ":0\r\n", "="),
            ("SETBIT k 1 1", ":0\r\n", "="),
            ("GETSET k v", "$-1\r\n", "="),
            ("SUNIONSTORE d a b", ":0\r\n", "="),
            ("ZUNIONSTORE d 1 a", ":0\r\n", "="),
            ("GEOSEARCHSTORE d g FROMMEMBER m BYRADIUS 1 m", ":0\r\n", "="),
            ("ZINCRBY k 1 m", "$1\r\n1\r\n", "="),
            ("FLUSHALL", "+OK\r\n", "="),
            ("SWAPDB 0 1", "+OK\r\n", "="),
            ("PUBLISH c m", ":0\r\n", "="),
            ("XSETID s 5-1", "+OK\r\n", "="),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }

    #[test]
    fn subcommands_have_effects_of_their_own() {
        for (line, reply, effect) in [
            ("SCRIPT LOAD return", "$3\r\nsha\r\n", "="),
            ("SCRIPT FLUSH", "+OK\r\n", "="),
            ("SCRIPT EXISTS sha", "*1\r\n:0\r\n", "nothing"),
            ("FUNCTION LOAD body", "$1\r\nl\r\n", "="),
            ("FUNCTION DUMP", "$1\r\nl\r\n", "nothing"),
            ("CONFIG SET maxmemory 1", "+OK\r\n", "nothing"),
            ("XGROUP CREATECONSUMER s g c", ":0\r\n", "nothing"),
            ("XGROUP DELCONSUMER s g c", ":0\r\n", "="),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }

    #[test]
    fn a_reply_says_nothing_changed_only_where_the_table_says_so() {
        for (line, reply, effect) in [
            ("DEL a b", ":0\r\n", "nothing"),
            ("DEL a b", ":1\r\n", "="),
            ("LINSERT k BEFORE a b", ":-1\r\n", "nothing"),
            ("RPOPLPUSH a b", "$-1\r\n", "nothing"),
            ("RPOPLPUSH a b", "_\r\n", "nothing"),
            ("LPOP k", "$0\r\n\r\n", "="),
            ("LPOP k 2", "*-1\r\n", "nothing"),
            ("LPOP k 0", "*0\r\n", "nothing"),
            ("LPOP k 1", "*1\r\n$1\r\na\r\n", "="),
            ("LPOP k 1", "*1\r\n", "="),
            ("ZPOPMIN k", "*0\r\n", "nothing"),
            ("LMPOP 1 k LEFT", "*-1\r\n", "nothing"),
            ("LMPOP 1 k LEFT", "_\r\n", "nothing"),
            ("ZMPOP 1 k MIN", "*2\r\n", "="),
            ("SMOVE a b m", ":0\r\n", "nothing"),
            ("MOVE k 3", ":1\r\n", "="),
            ("LPUSHX k a", ":0\r\n", "nothing"),
            ("PERSIST k", ":1\r\n", "="),
            ("PFADD k", ":0\r\n", "nothing"),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }

    #[test]
    fn scripts_are_copied_even_after_an_error() {
        for (line, reply, effect) in [
            ("EVAL body 1 k", "$-1\r\n", "sync"),
            ("EVAL body 1 k", "-ERR half-way\r\n", "sync"),
            ("FCALL f 2 a b", ":1\r\n", "sync"),
            ("EVALSHA sha 0", "+OK\r\n", "nothing"),
            ("EVAL body 2 k", "-ERR Number of keys\r\n", "nothing"),
            ("EVAL_RO body 1 k", ":1\r\n", "nothing"),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_copied() {
        for (line, reply, effect) in [
            ("XCLAIM s g c 0 1-1", "*0\r\n", "sync"),
            ("XCLAIM s g c 0 1-1", "-NOGROUP\r\n", "nothing"),
            ("XAUTOCLAIM s g c 0 0", "*3\r\n", "sync"),
            ("BLPOP k 0", "*2\r\n", "sync"),
            ("BLPOP k 0", "*-1\r\n", "nothing"),
        ] {
            assert_eq!(committed(line, reply), effect, "{line} {reply}");
        }
    }

    #[test]
    fn only_effects_out_of_the_reply_need_all_of_it() {
        for (line, expected) in
            [("SPOP k", true), ("XADD s * f v", true), ("INCRBYFLOAT k 1", true), ("SET k v GET", false)]
        {
            assert_eq!(prepared(line).1.wants_whole_reply(), expected, "{line}");
        }
    }
}
