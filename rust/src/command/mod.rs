//! What each Redis command is: its shape, where its keys are, what it changes, how it must be handled.
//!
//! ```text
//! rust/tools/command_table.py
//!     COMMAND of a real server ─▶ commands.json ─┐
//!     judged by hand ───────────▶ overlay.json ──┴─▶ table.rs ─▶ lookup (name → Command) ─▶ keys, treatment, effect
//! ```
//!
//! Owns the table and what follows from it alone. Never looks at data, at a reply or at a connection. A name that is
//! not in the table is a write whose keys are unknown, never a read: [`lookup`] gives `None` and the caller acts on it.

mod expiry;
mod flags;
pub mod keys;
mod lookup;
mod options;
pub mod slot;
#[cfg(test)]
pub(crate) mod testing;

pub use expiry::Expiry;
pub use flags::Flags;
pub use keys::{
    KeyShape, KeysResult, first_key, group_of, keys, needs_private, other_db, takes_a_server_away,
    without_block,
};
pub use lookup::lookup;
pub use options::{is_word, option_at, quoted};

use crate::resp::Request;

/// How the effect of a command is found; `flow::effect` acts on it, option by option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EffectClass {
    /// A read, or something that stays with the local Redis (`CONFIG`, `ACL`, `SAVE`).
    None,
    /// As sent, whatever the reply; only an error means that nothing changed.
    Always,
    /// As sent, unless the reply is nil, empty, or an integer below one.
    Changed,
    /// `SETNX`, `HSETNX`, `MSETNX`, `RENAMENX`: the same without the condition.
    Unconditional,
    /// `COPY`: with `REPLACE`.
    Replace,
    /// `RESTORE`: absolute time, with `REPLACE`.
    Restore,
    /// `SET`: absolute time, without conditions.
    Set,
    /// `SETEX`, `PSETEX`: `SET` with absolute time.
    SetEx,
    /// `GETEX`: absolute time; without options a read.
    GetEx,
    /// The `EXPIRE` family: absolute time, without conditions.
    Expire,
    /// `GETDEL`: `DEL`.
    GetDel,
    /// `SPOP`: `SREM` of the members in the reply.
    Pop,
    /// `INCRBYFLOAT`: `SET` to the reply.
    Float,
    /// `HINCRBYFLOAT`: `HSET` to the reply.
    HashFloat,
    /// `ZADD`: as sent; `CH` and `INCR` make its reply say whether anything changed.
    ZAdd,
    /// `BITFIELD`: a read unless it has `SET` or `INCRBY`.
    BitField,
    /// `SORT`: a read unless it has `STORE`.
    Sort,
    /// `GEORADIUS`, `GEORADIUSBYMEMBER`: a read unless they store.
    GeoRadius,
    /// `XADD`: with the id of the reply.
    XAdd,
    /// `XTRIM`: as sent when exact.
    XTrim,
    /// Its keys are copied, whatever the reply.
    CopyKeys,
    /// Its keys are copied, under the conditions of `Changed`.
    CopyChanged,
    /// A script or function: its declared keys are copied, after an error as well.
    Script,
}

/// Which types a command's reply can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyClass {
    /// Always a status, an integer, an error, a bulk string or nil, with the same bytes in RESP2 and RESP3 but for
    /// nil, which is `$-1` in RESP2 (never `*-1`).
    Simple,
    /// `Simple` when the command has exactly the arguments it needs (`LPOP key`), else anything (`LPOP key 3`).
    Bare,
    /// Anything.
    Varies,
}

/// Who handles a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Redis, on a shared connection.
    Forward,
    /// The session: answered by the proxy, or state of the session.
    Local,
    /// Redis, on a connection that belongs to the session.
    Private,
    /// Nobody where writes are mirrored; elsewhere Redis.
    Refused,
    /// The session's transaction: `MULTI`, `EXEC`, `DISCARD`.
    Transaction,
}

/// A subcommand that is not in the table: like an unknown command, a write whose keys are unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

/// One command, or one subcommand of a container command (`CONFIG GET`).
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Lower case; a subcommand's name is `container|subcommand`, as Redis writes it.
    pub name: &'static str,
    /// Dense, from 0 to [`COMMANDS`]; subcommands have their own.
    pub id: u16,
    /// The number of arguments with the name, or its lower bound when negative.
    pub arity: i16,
    /// What Redis says about it.
    pub flags: Flags,
    /// Where its keys are.
    pub shape: KeyShape,
    /// How its effect is found.
    pub effect: EffectClass,
    /// Which types its reply can have. See [`Command::simple_reply`].
    pub reply: ReplyClass,
    /// What it has to do with the expiry of its keys.
    pub expiry: Expiry,
    /// Who handles it. A container's own treatment is that of a subcommand the table does not know.
    pub treatment: Treatment,
    /// The rows of its subcommands; empty unless it is a container.
    subcommands: (u16, u16),
}

impl Command {
    /// The argument index of its key, if its shape says that it has exactly one.
    #[inline]
    pub fn only_key(&self) -> Option<usize> {
        match self.shape {
            KeyShape::Range(first, last, _) if i64::from(first) == i64::from(last) => {
                Some(usize::from(first))
            }
            _ => None,
        }
    }
}

/// One row of the generated table.
macro_rules! row {
    ($name:literal, $arity:literal, [$($flag:ident)*], $keys:ident $(($($at:literal),*))?, $effect:ident, $reply:ident,
     $treatment:ident, $first:literal..$end:literal) => {
        Command {
            name: $name,
            id: 0,
            arity: $arity,
            flags: $crate::command::Flags::empty()$(.union($crate::command::Flags::$flag))*,
            shape: $crate::command::KeyShape::$keys $(($($at),*))?,
            effect: $crate::command::EffectClass::$effect,
            reply: $crate::command::ReplyClass::$reply,
            expiry: $crate::command::Expiry::of($name, $crate::command::EffectClass::$effect),
            treatment: $crate::command::Treatment::$treatment,
            subcommands: ($first, $end),
        }
    };
}

// Below the macro, which it uses.
mod table;

pub use table::{TOP, VERSION};

/// The number of commands and subcommands, that is of ids.
pub const COMMANDS: usize = table::ROWS;

/// Gives each row its place as its id; runs at compile time.
const fn numbered(mut rows: [Command; COMMANDS]) -> [Command; COMMANDS] {
    let mut i = 0;
    while i < COMMANDS {
        rows[i].id = i as u16;
        i += 1;
    }
    rows
}

/// The command with an id; the first one for an id that is none.
pub fn by_id(id: u16) -> &'static Command {
    table::TABLE.get(usize::from(id)).unwrap_or(&table::TABLE[0])
}

impl Command {
    /// The subcommands of a container, by name; empty for others.
    pub fn subcommands(&self) -> &'static [Self] {
        let (first, end) = self.subcommands;
        table::TABLE.get(usize::from(first)..usize::from(end)).unwrap_or(&[])
    }

    /// The command that a request of this name runs: itself, or the subcommand its second argument names.
    ///
    /// `Unknown` says that a container has no such subcommand in the table; Redis may know it. A container without any
    /// argument gives itself, as in Redis (`COMMAND` is complete, `CONFIG` fails by its arity).
    #[inline]
    pub fn resolve(&'static self, req: &Request<'_>) -> Result<&'static Self, Unknown> {
        if self.subcommands.1 == 0 || req.len() < 2 {
            return Ok(self);
        }
        let wanted = req.arg(1);
        let is_it = |sub: &&Self| sub.own_name().as_bytes().eq_ignore_ascii_case(wanted);
        self.subcommands().iter().find(is_it).ok_or(Unknown)
    }

    /// The name without that of its container.
    fn own_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, own)| own)
    }

    /// Whether a request of `n` arguments, the name included, has as many as the command needs.
    #[inline]
    pub fn arity_ok(&self, n: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { n >= wanted } else { n == wanted }
    }

    /// Whether it can have effects that must be replicated. Broader than Redis's flag in one direction (`EVAL`,
    /// `PUBLISH`, `SCRIPT LOAD`) and the same in the other: all that Redis calls a write is one.
    #[inline]
    pub fn is_write(&self) -> bool {
        self.effect != EffectClass::None
    }

    /// Whether the reply to a request of `n` arguments can only be simple, see [`ReplyClass`].
    #[inline]
    pub fn simple_reply(&self, n: usize) -> bool {
        match self.reply {
            ReplyClass::Simple => true,
            ReplyClass::Bare => n == usize::from(self.arity.unsigned_abs()),
            ReplyClass::Varies => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Owned;
    use super::*;

    fn resolved(line: &str) -> Result<&'static str, Unknown> {
        let owned = Owned::new(line);
        let req = owned.request();
        lookup(req.arg(0)).expect(line).resolve(&req).map(|command| command.name)
    }

    #[test]
    fn subcommands_are_resolved() {
        for (line, name) in [
            ("GET k", Ok("get")),
            ("config GET maxmemory", Ok("config|get")),
            ("CONFIG ReSetStat", Ok("config|resetstat")),
            ("CONFIG nothing", Err(Unknown)),
            ("CONFIG", Ok("config")),
            ("COMMAND", Ok("command")),
            ("COMMAND COUNT", Ok("command|count")),
            ("XINFO STREAM s FULL", Ok("xinfo|stream")),
            ("CLUSTER count-failure-reports x", Ok("cluster|count-failure-reports")),
        ] {
            assert_eq!(resolved(line), name, "{line}");
        }
    }

    #[test]
    fn ids_are_dense_and_by_id_finds_them() {
        for (i, command) in table::TABLE.iter().enumerate() {
            assert_eq!(usize::from(command.id), i);
            assert_eq!(by_id(command.id).name, command.name);
        }
        assert_eq!(by_id(u16::MAX).id, 0);
    }

    #[test]
    fn every_subcommand_belongs_to_its_container() {
        let mut found = table::TOP;
        for command in &table::TABLE[..table::TOP] {
            for sub in command.subcommands() {
                assert_eq!(sub.name.split_once('|').map(|(container, _)| container), Some(command.name));
                found += 1;
            }
        }
        assert_eq!(found, COMMANDS);
    }

    #[test]
    fn what_redis_calls_a_write_is_one() {
        for command in &table::TABLE {
            assert!(command.is_write() || !command.flags.contains(Flags::WRITE), "{}", command.name);
            assert!(!command.is_write() || !command.flags.contains(Flags::READONLY), "{}", command.name);
        }
    }

    #[test]
    fn arity() {
        let get = lookup(b"get").expect("get");
        assert!(get.arity_ok(2) && !get.arity_ok(1) && !get.arity_ok(3));
        let del = lookup(b"del").expect("del");
        assert!(del.arity_ok(2) && del.arity_ok(9) && !del.arity_ok(1));
    }

    #[test]
    fn bare_replies_are_simple_only_without_options() {
        let pop = lookup(b"lpop").expect("lpop");
        assert!(pop.simple_reply(2) && !pop.simple_reply(3));
    }
}
