//! What a command has to do with the expiry of its keys. A key's life may end between the primary and a replica that is
//! late, and then some effects do something else there: `SADD` makes a set that never ends.

use super::EffectClass;

/// What a command has to do with the expiry of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing: it reads, or leaves the same whatever was there (`DEL`, `MSET`), or it only takes away (`SREM`, `LPOP`),
    /// and where a life has ended nothing is left, before and after.
    Apart,
    /// It writes on top of what is there, and makes it anew where nothing is.
    Builds,
    /// The same, but the reply to its effect tells a life that has ended from one that goes on: an error, another
    /// integer.
    Told,
    /// It overwrites what is there and gives it an expiry. A script may.
    Gives,
    /// It changes the expiry of what is there; the reply tells, as with [`Expiry::Told`].
    Changes,
    /// Its second key gets the expiry of the first; the reply tells.
    Carries,
    /// `SET`: [`Expiry::Gives`], or `KEEPTTL`, or neither.
    Set,
}

impl Expiry {
    /// Of the command of this name and effect. What writes and is not named here builds.
    #[expect(clippy::match_same_arms, reason = "an arm for each reason")]
    pub(super) const fn of(name: &str, effect: EffectClass) -> Self {
        if matches!(effect, EffectClass::None) {
            return Self::Apart;
        }
        match name.as_bytes() {
            b"set" => Self::Set,
            b"setex" | b"psetex" | b"restore" | b"restore-asking" => Self::Gives,
            b"eval" | b"evalsha" | b"fcall" => Self::Gives,
            b"expire" | b"pexpire" | b"expireat" | b"pexpireat" | b"getex" => Self::Changes,
            b"rename" | b"renamenx" | b"copy" => Self::Carries,
            // They leave the same whatever was there.
            b"del" | b"unlink" | b"getdel" | b"getset" | b"mset" | b"msetnx" | b"setnx" | b"migrate" => {
                Self::Apart
            }
            b"flushall" | b"flushdb" | b"swapdb" | b"publish" | b"spublish" => Self::Apart,
            b"function" | b"function|delete" | b"function|flush" | b"function|load" | b"function|restore" => {
                Self::Apart
            }
            b"script" | b"script|flush" | b"script|load" => Self::Apart,
            // They only take away.
            b"lpop" | b"rpop" | b"lmpop" | b"blpop" | b"brpop" | b"blmpop" | b"lrem" | b"ltrim" => {
                Self::Apart
            }
            b"spop" | b"srem" | b"hdel" => Self::Apart,
            b"zrem" | b"zremrangebylex" | b"zremrangebyrank" | b"zremrangebyscore" => Self::Apart,
            b"zpopmax" | b"zpopmin" | b"zmpop" | b"bzpopmax" | b"bzpopmin" | b"bzmpop" => Self::Apart,
            b"xdel" | b"xtrim" | b"xack" | b"xgroup|delconsumer" | b"xgroup|destroy" => Self::Apart,
            // A list has at least one element, so a push that finds none has another length.
            b"lpush" | b"rpush" | b"lpushx" | b"rpushx" | b"linsert" | b"lset" => Self::Told,
            b"persist" | b"move" | b"xsetid" | b"xgroup|setid" | b"xgroup|createconsumer" => Self::Told,
            // Their target is made anew, and has as many members as they answer: a source less is another set only if it
            // is another number. (Not so with scores, bits and counters of distinct elements.)
            b"sdiffstore" | b"sinterstore" | b"sunionstore" | b"zdiffstore" | b"zinterstore" => Self::Told,
            b"zrangestore" | b"geosearchstore" | b"georadius" | b"georadiusbymember" | b"sort" => Self::Told,
            _ => Self::Builds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::TABLE;
    use super::*;

    #[test]
    fn what_builds_was_looked_at() {
        let builds: Vec<&str> =
            TABLE.iter().filter(|c| c.expiry == Expiry::Builds).map(|command| command.name).collect();
        assert_eq!(
            builds.join(" "),
            "append bitfield bitop blmove brpoplpush decr decrby geoadd hincrby hincrbyfloat hmset hset hsetnx incr \
             incrby incrbyfloat lmove pfadd pfdebug pfmerge rpoplpush sadd setbit setrange smove xadd xautoclaim xclaim \
             xgroup xreadgroup zadd zincrby zunionstore xgroup|create"
        );
    }
}
