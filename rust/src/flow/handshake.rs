//! The first words on an upstream connection: who are we, who is there, and what of the connection before this one.
//!
//! Nothing of a client is sent before it is done. When the Redis is the one that an earlier connection spoke to, that
//! connection is killed there first, so that nothing half-sent runs after what comes now (fencing).

use std::collections::VecDeque;

use crate::command::{TOP, VERSION};
use crate::resp::{Reply, encode, parse_integer};

use super::marker::{self, Marker, Place, name_hash};
use super::resync::databases;

/// Whether a server has the very commands of our table: the same version, without modules.
pub fn has_commands_of_table(version: &str, commands: i64) -> bool {
    commands == TOP as i64 && version.strip_prefix(VERSION).is_some_and(|rest| rest.starts_with('.'))
}

/// What is known of the server and of our connection to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Changes with each start of the server.
    pub run_id: String,
    /// The server's number for this connection; 0 when it did not tell.
    pub client_id: i64,
    /// The other member's name, where it is one.
    pub member: String,
    /// `redis_version`.
    pub version: String,
    /// How many commands it has; 0 when it did not tell.
    pub commands: i64,
    /// `proto-max-bulk-len`: the longest argument it takes.
    pub max_bulk: u64,
    /// What it says of its data.
    pub markers: Vec<Marker>,
    /// Where markers are on it.
    pub place: Place,
    /// It keeps an append-only file: after a restart it has what it had.
    pub aof: bool,
    /// It has no key, but for the markers.
    pub empty: bool,
    /// It may have had keys with an expiry when the connection was made.
    pub expires: bool,
}

impl Identity {
    /// Whether the server knows `PEXPIRETIME` (7.0).
    pub fn has_pexpiretime(&self) -> bool {
        self.version
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok())
            .is_none_or(|major| major >= 7)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Member,
    Auth,
    Hello,
    /// Its reply tells nothing: without it the server redirects.
    ReadOnly,
    SetName,
    ClientId,
    /// The same of a server that may be too busy to tell.
    BusyId,
    Server,
    Persistence,
    Replication,
    Commands,
    MaxBulk,
    Databases,
    Keyspace,
    Libraries,
    Select,
    Hash,
    Kill,
}

/// What a reply meant for the handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More replies are awaited.
    More,
    /// More commands must be sent first.
    Send,
    /// The connection may be used.
    Done,
    /// It may not; why.
    Refused(String),
}

/// The connection before, perhaps of another process: nothing half-sent on it may run after what comes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Predecessor {
    /// A hash of the server's `run_id`.
    pub run: u64,
    /// The server's number for the connection; 0: there was none.
    pub number: u64,
}

impl Predecessor {
    /// A connection to this server.
    pub fn of(identity: &Identity) -> Self {
        Self { run: name_hash(&[&identity.run_id]), number: identity.client_id.max(0) as u64 }
    }
}

/// A handshake in course.
#[derive(Debug)]
pub struct Handshake {
    awaited: VecDeque<Step>,
    predecessor: Predecessor,
    /// Its number of databases.
    databases: u16,
    /// Those that have keys, with how many.
    keyspace: Vec<(u16, u64)>,
    /// A replica will do, if it is one of a Redis Cluster.
    may_be_replica: bool,
    /// Any replica will do.
    any_copy: bool,
    /// The second round of commands has been sent.
    second: bool,
    /// What was learnt.
    pub identity: Identity,
}

/// What the other side is asked behind the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// The number of this connection.
    Connection,
    /// That, and everything about the Redis.
    Server,
}

/// What a handshake needs to know of its upstream.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// ACL user.
    pub username: Option<String>,
    /// Password; without it no AUTH is sent.
    pub password: Option<String>,
    /// Reads are wanted even from a replica of a Redis Cluster.
    pub read_only: bool,
    /// It may be a replica of a Redis Cluster: it redirects, or is read from.
    pub redirects: bool,
    /// It may be any replica: its cluster's servers are copies of the same data.
    pub any_copy: bool,
}

impl Handshake {
    /// Write the first round of commands to `out`.
    pub fn begin(
        credentials: &Credentials,
        resp3: bool,
        asked: Asked,
        predecessor: Predecessor,
        out: &mut Vec<u8>,
    ) -> Self {
        let mut handshake = Self::expecting(VecDeque::new(), predecessor);
        handshake.may_be_replica = credentials.redirects;
        handshake.any_copy = credentials.any_copy;
        let mut send = |step, args: &[&str]| {
            encode::command(out, args);
            handshake.awaited.push_back(step);
        };
        if let Some(password) = &credentials.password {
            match &credentials.username {
                Some(user) => send(Step::Auth, &["AUTH", user, password]),
                None => send(Step::Auth, &["AUTH", password]),
            }
        }
        if resp3 {
            send(Step::Hello, &["HELLO", "3"]);
        }
        if credentials.read_only {
            send(Step::ReadOnly, &["READONLY"]);
        }
        if asked == Asked::Connection {
            // It may be to end a script that keeps the server busy.
            send(Step::BusyId, &["CLIENT", "ID"]);
            return handshake;
        }
        send(Step::SetName, &["CLIENT", "SETNAME", "redisha"]);
        handshake.ask(out);
        handshake
    }

    /// The same behind the words with which another member is greeted, which are in `out` already.
    pub fn with_member(asked: Asked, predecessor: Predecessor, out: &mut Vec<u8>) -> Self {
        let mut handshake = Self::expecting(VecDeque::from([Step::Member]), predecessor);
        match asked {
            Asked::Nothing => {}
            Asked::Connection => {
                encode::command(out, &["CLIENT", "ID"]);
                handshake.awaited.push_back(Step::ClientId);
            }
            Asked::Server => handshake.ask(out),
        }
        handshake
    }

    /// Ask the server who it is.
    fn ask(&mut self, out: &mut Vec<u8>) {
        let mut send = |step, args: &[&str]| {
            encode::command(out, args);
            self.awaited.push_back(step);
        };
        send(Step::ClientId, &["CLIENT", "ID"]);
        send(Step::Server, &["INFO", "server"]);
        send(Step::Persistence, &["INFO", "persistence"]);
        send(Step::Replication, &["INFO", "replication"]);
        send(Step::Commands, &["COMMAND", "COUNT"]);
        send(Step::MaxBulk, &["CONFIG", "GET", "proto-max-bulk-len"]);
        send(Step::Databases, &["CONFIG", "GET", "databases"]);
        send(Step::Keyspace, &["INFO", "keyspace"]);
        send(Step::Libraries, &["FUNCTION", "LIST", "LIBRARYNAME", marker::LIBRARIES, "WITHCODE"]);
    }

    fn expecting(awaited: VecDeque<Step>, predecessor: Predecessor) -> Self {
        Self {
            awaited,
            predecessor,
            databases: 1,
            keyspace: Vec::new(),
            may_be_replica: false,
            any_copy: false,
            second: false,
            identity: Identity { max_bulk: u64::MAX, expires: true, ..Identity::default() },
        }
    }

    /// Take the next reply. After [`Progress::Send`] the commands of the second round are in `out`.
    pub fn reply(&mut self, reply: Reply<'_>, out: &mut Vec<u8>) -> Progress {
        if reply.bytes().first() == Some(&b'>') {
            // It is nobody's answer.
            return Progress::Refused(super::replies::PUSHED.to_owned());
        }
        let Some(step) = self.awaited.pop_front() else {
            return Progress::Refused("it answered more than it was asked".to_owned());
        };
        let text = String::from_utf8_lossy(reply.text().unwrap_or(reply.bytes())).trim_end().to_owned();
        match step {
            Step::Member if reply.is_error() => {
                return Progress::Refused(text.trim_start_matches('-').to_owned());
            }
            Step::Member => {
                // +OK its name, and a number of its process
                let mut words = text.trim_start_matches('+').split(' ').skip(1);
                words.next().unwrap_or_default().clone_into(&mut self.identity.member);
                words.next().unwrap_or_default().clone_into(&mut self.identity.run_id);
            }
            Step::Auth | Step::Hello if reply.is_error() => {
                let what = if matches!(step, Step::Auth) { "AUTH" } else { "HELLO 3" };
                return Progress::Refused(format!("it refused our {what}: {}", text.trim_start_matches('-')));
            }
            // What an ACL forbids us to know we can do without; anything else (LOADING, BUSY, NOAUTH) must pass first.
            Step::SetName | Step::ClientId | Step::Server | Step::Persistence | Step::Replication
                if reply.is_error() && !text.contains("NOPERM") =>
            {
                return Progress::Refused(text.trim_start_matches('-').to_owned());
            }
            Step::MaxBulk => {
                let value = reply.elements().nth(1).and_then(Reply::text).and_then(parse_integer);
                self.identity.max_bulk = value.and_then(|n| u64::try_from(n).ok()).unwrap_or(u64::MAX);
            }
            Step::Databases => {
                let value = reply.elements().nth(1).and_then(Reply::text).and_then(parse_integer);
                self.databases = value.and_then(|n| u16::try_from(n).ok()).unwrap_or(1);
            }
            Step::Keyspace => {
                self.identity.expires = super::expiring::keyspace_expires(&text);
                self.keyspace = databases(&text);
            }
            Step::Libraries if reply.is_error() => {
                self.identity.place = Place::Hash(self.databases.saturating_sub(1));
            }
            Step::Libraries | Step::Hash => {
                self.identity.markers.extend(Marker::all_in(reply.bytes()));
            }
            // Then the command behind it reads where we are.
            Step::Select if reply.is_error() => self.identity.place = Place::Hash(0),
            Step::Commands => self.identity.commands = reply.integer().unwrap_or(0),
            Step::ClientId | Step::BusyId => self.identity.client_id = reply.integer().unwrap_or(0),
            Step::Server => {
                field(&text, "run_id").unwrap_or_default().clone_into(&mut self.identity.run_id);
                field(&text, "redis_version").unwrap_or_default().clone_into(&mut self.identity.version);
                self.may_be_replica &= field(&text, "redis_mode") == Some("cluster");
            }
            Step::Persistence if field(&text, "loading") == Some("1") => {
                let done = field(&text, "loading_loaded_perc").unwrap_or("?");
                return Progress::Refused(format!("it is loading its data set ({done} % done)"));
            }
            Step::Persistence => self.identity.aof = field(&text, "aof_enabled") != Some("0"),
            Step::Replication
                if field(&text, "role") == Some("slave") && !self.may_be_replica && !self.any_copy =>
            {
                return Progress::Refused(
                    "it is a replica (REPLICAOF); a standalone Redis is needed".to_owned(),
                );
            }
            _ => {}
        }
        if !self.awaited.is_empty() {
            return Progress::More;
        }
        if self.second {
            self.finish();
            return Progress::Done;
        }
        self.second = true;
        let mut send = |step, args: &[&[u8]]| {
            encode::command(out, args);
            self.awaited.push_back(step);
        };
        let Predecessor { run, number } = self.predecessor;
        if number != 0 && run == name_hash(&[&self.identity.run_id]) {
            send(Step::Kill, &[b"CLIENT", b"KILL", b"ID", number.to_string().as_bytes()]);
        }
        if let Place::Hash(db) = self.identity.place {
            send(Step::Select, &[b"SELECT", db.to_string().as_bytes()]);
            send(Step::Hash, &[b"HGETALL", marker::KEY]);
            send(Step::Select, &[b"SELECT", b"0"]);
        }
        if self.awaited.is_empty() {
            self.finish();
            return Progress::Done;
        }
        Progress::Send
    }

    fn finish(&mut self) {
        self.identity.empty = is_empty(&self.keyspace, self.identity.place, &self.identity.markers);
    }
}

/// Whether a Redis has no key but the one with its markers.
pub fn is_empty(keyspace: &[(u16, u64)], place: Place, markers: &[Marker]) -> bool {
    keyspace
        .iter()
        .all(|&(db, keys)| keys == 0 || (place == Place::Hash(db) && keys == 1 && !markers.is_empty()))
}

/// The value of a line `name:value` of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

/// The database number of a client's `SELECT`, or Redis's own error text.
pub fn database(argument: &[u8]) -> Result<u16, &'static str> {
    match parse_integer(argument) {
        Some(n) if (0..i64::from(u16::MAX)).contains(&n) => Ok(n as u16),
        Some(n) if i32::try_from(n).is_ok() => Err("ERR DB index is out of range"),
        _ => Err("ERR value is not an integer or out of range"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &[u8] = b":42\r\n";

    fn bulk(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode::bulk(&mut out, text.as_bytes());
        out
    }

    fn run(predecessor: Predecessor, persistence: &str, role: &str) -> (Progress, Identity, Vec<u8>) {
        let mut out = Vec::new();
        let mut handshake =
            Handshake::begin(&Credentials::default(), false, Asked::Server, predecessor, &mut out);
        out.clear();
        let replies = [
            b"+OK\r\n".to_vec(),
            ID.to_vec(),
            bulk("# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n"),
            bulk(persistence),
            bulk(role),
            b":240\r\n".to_vec(),
            b"*2\r\n$18\r\nproto-max-bulk-len\r\n$9\r\n536870912\r\n".to_vec(),
            b"*2\r\n$9\r\ndatabases\r\n$2\r\n16\r\n".to_vec(),
            bulk("# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n"),
            b"*0\r\n".to_vec(),
        ];
        let mut last = Progress::More;
        for reply in &replies {
            if last != Progress::More {
                break;
            }
            last = handshake.reply(Reply::new(reply), &mut out);
        }
        (last, handshake.identity, out)
    }

    #[test]
    fn a_fresh_server_is_taken_at_once() {
        let (progress, identity, out) = run(Predecessor::default(), "loading:0\r\n", "role:master\r\n");
        assert_eq!((progress, out.as_slice()), (Progress::Done, &b""[..]));
        assert_eq!(
            identity,
            Identity {
                run_id: "abc".into(),
                client_id: 42,
                version: "7.0.15".into(),
                commands: 240,
                max_bulk: 1 << 29,
                aof: true,
                ..Identity::default()
            }
        );
        assert!(has_commands_of_table(&identity.version, identity.commands));
        assert!(identity.has_pexpiretime());
    }

    #[test]
    fn the_predecessor_is_fenced_on_the_same_server_only() {
        let before = |run_id: &str| Predecessor { run: name_hash(&[run_id]), number: 7 };
        let (progress, _, out) = run(before("abc"), "loading:0\r\n", "role:master\r\n");
        assert_eq!(progress, Progress::Send);
        assert!(out.ends_with(b"$4\r\nKILL\r\n$2\r\nID\r\n$1\r\n7\r\n"));
        assert_eq!(run(before("other"), "loading:0\r\n", "role:master\r\n").0, Progress::Done);
    }

    #[test]
    fn a_server_that_is_not_ready_is_refused() {
        let refused = |p| matches!(p, Progress::Refused(_));
        let mut out = Vec::new();
        let mut handshake =
            Handshake::begin(&Credentials::default(), false, Asked::Server, Predecessor::default(), &mut out);
        assert!(refused(handshake.reply(Reply::new(b"-LOADING Redis is loading\r\n"), &mut out)));
        let credentials =
            Credentials { username: None, password: Some("x".into()), ..Credentials::default() };
        let mut handshake =
            Handshake::begin(&credentials, false, Asked::Server, Predecessor::default(), &mut out);
        assert!(refused(handshake.reply(Reply::new(b"-WRONGPASS invalid\r\n"), &mut out)));
        let mut handshake =
            Handshake::begin(&Credentials::default(), true, Asked::Server, Predecessor::default(), &mut out);
        let push = b">2\r\n$7\r\nmessage\r\n$1\r\nx\r\n";
        assert!(refused(handshake.reply(Reply::new(push), &mut out)), "a push is nobody's answer");
    }

    #[test]
    fn databases_are_numbers_as_redis_reads_them() {
        assert_eq!(database(b"15"), Ok(15));
        assert_eq!(database(b"-1"), Err("ERR DB index is out of range"));
        assert_eq!(database(b"x"), Err("ERR value is not an integer or out of range"));
        assert_eq!(database(b"99999999999"), Err("ERR value is not an integer or out of range"));
    }
}
