//! Which keys of a primary may have an expiry: a bit for each bucket of keys.
//!
//! A clear bit saves the question that an effect on such a key needs, see `expiry.rs`. A bit is set when a command that
//! may give an expiry is queued, and stays. What is not known counts as set: a primary that had expiring keys when the
//! connection was made, or commands whose keys nobody knows, set all.

use std::hash::Hasher;

use crate::command::{Command, Expiry, is_word};
use crate::resp::{Request, parse_integer};

use super::handshake::Identity;

/// Buckets; 8 KB of bits.
const BUCKETS: usize = 1 << 16;

/// The bits, and what else a sequencer keeps for the question.
#[derive(Debug)]
pub struct Expiring {
    /// Every key may have an expiry. The bits are kept all the same: a later connection may find that none has.
    all: bool,
    bits: Vec<u64>,
    /// `run_id` of the Redis that the bits are about.
    run_id: String,
    /// The primary refuses to tell expiry times: it is not asked again on this connection.
    pub refused: bool,
    /// Room for a question.
    pub question: Vec<u8>,
}

impl Default for Expiring {
    fn default() -> Self {
        Self { all: true, bits: Vec::new(), run_id: String::new(), refused: false, question: Vec::new() }
    }
}

impl Expiring {
    /// A connection to the primary stands, and nothing has been sent on it. What the one before it sent may have run
    /// after this primary counted its expiring keys, unless it is another one: then the bits stay.
    pub fn connected(&mut self, identity: &Identity) {
        self.refused = false;
        self.all = identity.expires;
        if !self.run_id.is_empty() && self.run_id != identity.run_id {
            self.bits = Vec::new();
        }
        self.run_id.clone_from(&identity.run_id);
    }

    /// Whether the key may have an expiry.
    #[inline]
    pub fn may(&self, key: &[u8]) -> bool {
        self.all || (!self.bits.is_empty() && self.has(hash(key)))
    }

    fn has(&self, hash: u64) -> bool {
        self.bits.get(word(hash)).is_some_and(|word| word & (1 << (hash % 64)) != 0)
    }

    /// The key may have an expiry from now on.
    pub fn add(&mut self, key: &[u8]) {
        if self.bits.is_empty() {
            self.bits = vec![0; BUCKETS / 64];
        }
        let hash = hash(key);
        if let Some(word) = self.bits.get_mut(word(hash)) {
            *word |= 1 << (hash % 64);
        }
    }

    /// What was noted is not known any more: another member's writes came between.
    pub fn forget(&mut self) {
        self.bits = Vec::new();
        self.all = true;
    }

    /// Every key may.
    pub fn add_all(&mut self) {
        self.all = true;
    }

    /// Take note of what a command may do to the expiry of its keys (arguments `keys`). Gives whether the expiry they have
    /// before it matters: `reply_tells` is whether the replies of replicas will be compared.
    pub fn note(
        &mut self,
        command: &Command,
        request: &Request<'_>,
        keys: &[u32],
        reply_tells: bool,
    ) -> bool {
        let mut names = keys.iter().map(|&i| request.arg(i as usize));
        let builds = match command.expiry {
            Expiry::Apart | Expiry::Gives => false,
            Expiry::Builds => true,
            Expiry::Told | Expiry::Changes | Expiry::Carries => !reply_tells,
            Expiry::Set => request.args_from(3).any(|arg| is_word(arg, "KEEPTTL")),
        };
        // Before the bits are set: what has no expiry yet cannot have ended.
        let matters = builds && keys.iter().any(|&i| self.may(request.arg(i as usize)));
        match command.expiry {
            Expiry::Gives | Expiry::Changes if request.len() > 2 => names.for_each(|name| self.add(name)),
            Expiry::Set if request.len() > 4 => names.for_each(|name| self.add(name)),
            Expiry::Carries => {
                if let (Some(from), Some(to)) = (names.next(), names.next())
                    && self.may(from)
                {
                    self.add(to);
                }
            }
            _ => {}
        }
        matters
    }
}

/// The same for a key in every database: commands carry keys from one to another.
#[inline]
pub fn hash(key: &[u8]) -> u64 {
    use std::hash::BuildHasher;
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    hasher.write(key);
    hasher.finish()
}

fn word(hash: u64) -> usize {
    (hash >> 6) as usize % (BUCKETS / 64)
}

/// The point in time at which a command ends its key's life, in milliseconds since 1970: absolute, as it is sent. `None` if
/// it gives none.
pub fn given(command: &Command, request: &Request<'_>) -> Option<u64> {
    let time = |at: usize, unit: u64| u64::try_from(parse_integer(request.arg(at))?).ok()?.checked_mul(unit);
    let option = |from: usize| {
        let at = (from..request.len())
            .find(|&i| ["PXAT", "EXAT"].iter().any(|word| is_word(request.arg(i), word)))?;
        time(at + 1, if is_word(request.arg(at), "EXAT") { 1_000 } else { 1 })
    };
    match command.name {
        // `SETEX` and `PSETEX` are sent as `SET`.
        "set" | "setex" | "psetex" => option(3),
        "getex" => option(2),
        // `EXPIRE` and `PEXPIRE` are sent as `PEXPIREAT`, unless they end the life at once.
        "expire" | "pexpire" | "pexpireat" if is_word(request.arg(0), "PEXPIREAT") => time(2, 1),
        "expireat" => time(2, 1_000),
        "restore" | "restore-asking" => time(2, 1).filter(|at| *at > 0),
        _ => None,
    }
}

/// Whether a server may have keys with an expiry, by its `INFO keyspace`. It has none if it says so for every database.
pub fn keyspace_expires(info: &str) -> bool {
    let mut lines = info.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_keyspace = lines.next() == Some("# Keyspace");
    !is_keyspace || lines.any(|line| !line.split([':', ',']).any(|field| field == "expires=0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Owned;
    use crate::command::{keys, lookup};
    use smallvec::SmallVec;

    fn identity(run_id: &str, expires: bool) -> Identity {
        Identity { run_id: run_id.into(), expires, ..Identity::default() }
    }

    fn fresh() -> Expiring {
        let mut expiring = Expiring::default();
        expiring.connected(&identity("a", false));
        expiring
    }

    /// Note a command; whether the expiry of its keys matters.
    fn note(expiring: &mut Expiring, line: &str, reply_tells: bool) -> bool {
        let owned = Owned::new(line);
        let request = owned.request();
        let command = lookup(request.arg(0)).expect(line);
        let mut indices = SmallVec::new();
        keys(command, &request, &mut indices);
        expiring.note(command, &request, &indices, reply_tells)
    }

    #[test]
    fn nothing_is_asked_until_an_expiry_was_given() {
        for line in
            ["INCR k", "SET k v KEEPTTL", "SADD k a", "BITOP OR d k", "LMOVE a k LEFT LEFT", "PFMERGE k a"]
        {
            let mut expiring = fresh();
            assert!(!note(&mut expiring, line, true), "{line}");
            expiring.add(b"k");
            assert!(note(&mut expiring, line, true), "{line}");
        }
    }

    #[test]
    fn what_gives_an_expiry() {
        for (line, gives) in [
            ("SET k v", false),
            ("SET k v NX", false),
            ("SET k v PXAT 5", true),
            ("SET k v NX EX 5", true),
            ("SETEX k 5 v", true),
            ("GETEX k", false),
            ("GETEX k PERSIST", true),
            ("EXPIRE k 5 NX", true),
            ("RESTORE k 5 payload", true),
            ("EVAL body 1 k", true),
            ("FCALL f 2 j k", true),
            ("INCR k", false),
            ("DEL k", false),
            ("RENAME j k", false),
        ] {
            let mut expiring = fresh();
            note(&mut expiring, line, true);
            assert_eq!(expiring.may(b"k"), gives, "{line}");
            assert!(!expiring.may(b"other"), "{line}");
        }
    }

    #[test]
    fn an_expiry_is_carried() {
        for line in ["RENAME k j", "RENAMENX k j", "COPY k j DB 3 REPLACE"] {
            let mut expiring = fresh();
            note(&mut expiring, "SET k v PXAT 5", true);
            note(&mut expiring, line, true);
            assert!(expiring.may(b"j"), "{line}");
        }
    }

    #[test]
    fn what_a_reply_tells_is_not_asked_where_it_is_compared() {
        for line in
            ["LPUSH k a", "PERSIST k", "EXPIRE k 5", "RENAME k j", "SUNIONSTORE d k", "GETEX k PERSIST"]
        {
            let mut expiring = fresh();
            expiring.add(b"k");
            assert!(!note(&mut expiring, line, true), "{line}");
            assert!(note(&mut expiring, line, false), "{line}");
        }
    }

    #[test]
    fn what_does_not_build_is_never_asked() {
        let mut expiring = Expiring::default();
        for line in [
            "SET k v",
            "SET k v PXAT 5",
            "SETEX k 5 v",
            "DEL k",
            "MSET k v",
            "GETSET k v",
            "SPOP k",
            "LREM k 0 a",
            "GET k",
        ] {
            assert!(!note(&mut expiring, line, false), "{line}");
        }
        assert!(!note(&mut fresh(), "EXPIRE k 5", false), "it had no expiry before");
    }

    #[test]
    fn a_connection_begins_with_what_the_primary_says() {
        let mut expiring = Expiring::default();
        assert!(expiring.may(b"any"), "nothing is known");
        expiring.connected(&identity("a", false));
        expiring.add(b"k");
        expiring.connected(&identity("a", false));
        assert!(expiring.may(b"k") && !expiring.may(b"j"), "what was in flight may have run since");
        expiring.connected(&identity("b", false));
        assert!(!expiring.may(b"k"), "another one");
        expiring.connected(&identity("b", true));
        assert!(expiring.may(b"any"));
        expiring.connected(&identity("b", false));
        assert!(!expiring.may(b"any"));
        expiring.add_all();
        assert!(expiring.may(b"any"));
    }

    #[test]
    fn times_that_are_given() {
        for (line, expected) in [
            ("SET k v PXAT 1234", Some(1234)),
            ("SET k v NX exat 12 GET", Some(12_000)),
            ("SET k v KEEPTTL", None),
            ("SET k v", None),
            ("GETEX k PXAT 7", Some(7)),
            ("GETEX k PERSIST", None),
            ("PEXPIREAT k 9 NX", Some(9)),
            ("EXPIREAT k 9", Some(9_000)),
            ("EXPIRE k -1", None),
            ("RESTORE k 8 payload ABSTTL", Some(8)),
            ("RESTORE k 0 payload", None),
            ("INCR k", None),
        ] {
            let owned = Owned::new(line);
            let request = owned.request();
            assert_eq!(given(lookup(request.arg(0)).expect(line), &request), expected, "{line}");
        }
    }

    #[test]
    fn expiring_keys_are_counted_by_the_server() {
        for (info, expected) in [
            ("# Keyspace\r\n", false),
            ("# Keyspace\r\ndb0:keys=2,expires=0,avg_ttl=0\r\n", false),
            (
                "# Keyspace\r\ndb0:keys=2,expires=0,avg_ttl=0,subexpiry=0\r\ndb3:keys=9,expires=0,avg_ttl=0\r\n",
                false,
            ),
            ("# Keyspace\r\ndb0:keys=2,expires=0,avg_ttl=0\r\ndb3:keys=9,expires=1,avg_ttl=5\r\n", true),
            ("# Keyspace\r\ndb0:keys=2,expires=07\r\n", true),
            ("# Keyspace\r\ndb0:something else\r\n", true),
            ("", true),
            ("-NOPERM no\r\n", true),
        ] {
            assert_eq!(keyspace_expires(info), expected, "{info}");
        }
    }
}
