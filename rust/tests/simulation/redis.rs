//! A shadow Redis: connections that speak real RESP, databases, and the commands that the simulation uses.
//!
//! It remembers of each numbered command how often it ran and what it answered; that is what clients are checked against.

use std::collections::{BTreeMap, HashMap};

use redisha_core::command::{Flags, lookup};
use redisha_core::resp::{Bounds, Request, RequestScanner, Scanned};

use super::data::{Item, Keys};
use super::library::Libraries;
use super::life::Save;
use super::rng::Rng;
use super::tag;
use super::value::Value;

/// Databases of a shadow Redis.
pub const DATABASES: u16 = 8;

/// What became of a numbered command (of a transaction: under the number of its first command).
#[derive(Clone, Debug)]
pub struct Ran {
    pub reply: Value,
    pub db: u16,
    pub times: u32,
}

/// One client connection, as the server has it.
#[derive(Debug)]
struct Connection {
    name: Vec<u8>,
    db: u16,
    resp: u8,
    input: Vec<u8>,
    transaction: Option<Transaction>,
    /// What was there when it was watched.
    watched: Vec<(u16, Vec<u8>, Option<Item>)>,
}

#[derive(Debug, Default)]
struct Transaction {
    commands: Vec<(Vec<Vec<u8>>, Option<u32>)>,
    first: Option<u32>,
    failed: bool,
}

/// The server.
#[derive(Debug)]
pub struct Redis {
    pub name: &'static str,
    pub dbs: BTreeMap<u16, Keys>,
    pub databases: u16,
    /// Function libraries.
    pub libraries: Libraries,
    /// It knows functions and `PEXPIRETIME`, as Redis does since 7.0.
    pub is_modern: bool,
    /// It takes no payload of the primary's: that is of a newer version.
    pub refuses_payloads: bool,
    /// It says that it writes an append-only file.
    pub keeps_aof: bool,
    /// Nobody may `DUMP`.
    pub forbids_dump: bool,
    /// Older copies of its data.
    pub(super) saves: Vec<Save>,
    /// Numbered commands that ran.
    pub ran: HashMap<u32, Ran>,
    /// Numbers of the messages published here, in order.
    pub published: Vec<Vec<u8>>,
    /// Does nothing until then; microseconds.
    pub paused_until: u64,
    /// Takes no connections until then.
    pub down_until: u64,
    /// Says that it is loading until then.
    pub loading_until: u64,
    /// Refuses what needs memory until then.
    pub full_until: u64,
    /// Refuses to write until then.
    pub read_only_until: u64,
    /// Commands that are decided or drawn are an error here.
    pub takes_effects_only: bool,
    /// What ran is checked by others: it is not told here.
    pub remembers_nothing: bool,
    /// Relative times may come here: there are plans without mirrors, so they are not made absolute.
    pub takes_relative_time: bool,
    /// What each command was answered, for the trace.
    pub journal: Option<Vec<String>>,
    /// How often elements were asked for, for those who wait.
    pub tries: u64,
    connections: BTreeMap<u64, Connection>,
    next_id: u64,
    runs: u64,
    pub(super) rng: Rng,
    pub(super) now_us: u64,
}

impl Redis {
    pub fn new(name: &'static str, rng: Rng) -> Self {
        Self {
            name,
            dbs: BTreeMap::new(),
            databases: DATABASES,
            libraries: Libraries::new(),
            is_modern: true,
            refuses_payloads: false,
            keeps_aof: false,
            forbids_dump: false,
            saves: Vec::new(),
            ran: HashMap::new(),
            published: Vec::new(),
            paused_until: 0,
            down_until: 0,
            loading_until: 0,
            full_until: 0,
            read_only_until: 0,
            takes_effects_only: false,
            remembers_nothing: false,
            takes_relative_time: false,
            journal: None,
            tries: 0,
            connections: BTreeMap::new(),
            next_id: 1,
            runs: 1,
            rng,
            now_us: 0,
        }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        tag::EPOCH_MS + self.now_us / 1_000
    }

    /// A client has connected; its number.
    pub fn accept(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let fresh = Connection {
            name: Vec::new(),
            db: 0,
            resp: 2,
            input: Vec::new(),
            transaction: None,
            watched: Vec::new(),
        };
        self.connections.insert(id, fresh);
        id
    }

    /// Whether a connection is open; `CLIENT KILL` closes it too.
    pub fn is_open(&self, id: u64) -> bool {
        self.connections.contains_key(&id)
    }

    /// A client has gone.
    pub fn hang_up(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    /// The process ends, and another one takes its place.
    pub(super) fn end_connections(&mut self) {
        self.connections.clear();
        self.runs += 1;
    }

    /// How often it was started.
    pub(super) fn runs(&self) -> u64 {
        self.runs
    }

    /// Bytes of a client; what it is answered.
    pub fn receive(&mut self, id: u64, bytes: &[u8], now_us: u64) -> Vec<u8> {
        self.now_us = now_us;
        let mut out = Vec::new();
        let Some(connection) = self.connections.get_mut(&id) else { return out };
        connection.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut connection.input);
        let mut at = 0;
        let mut scanner = RequestScanner::default();
        let open = Bounds { request: 1 << 30, authenticated: true };
        loop {
            match scanner.scan(&input[at..], open) {
                Scanned::Frame(len) => {
                    let request = scanner.request(&input[at..at + len]);
                    let db = self.connections.get(&id).map_or(0, |connection| connection.db);
                    let reply = self.command(id, &request);
                    self.note(id, db, || request.args_from(0).map(<[u8]>::to_vec).collect(), &reply);
                    at += len;
                    let Some(connection) = self.connections.get(&id) else { return out };
                    reply.encode(connection.resp, &mut out);
                }
                Scanned::Incomplete(_) => break,
                other => panic!("{} was sent {other:?}: {}", self.name, input[at..].escape_ascii()),
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.input = input[at..].to_vec();
        }
        out
    }

    fn command(&mut self, id: u64, request: &Request<'_>) -> Value {
        let args: Vec<Vec<u8>> = request.args_from(0).map(<[u8]>::to_vec).collect();
        let name = args[0].to_ascii_uppercase();
        let number = tag::of(request);
        let loading = self.now_us < self.loading_until;
        let refusal = self.refusal(request);
        let Some(connection) = self.connections.get_mut(&id) else { return Value::Nil };
        if let Some(transaction) = &mut connection.transaction
            && name != b"EXEC"
        {
            if transaction.commands.is_empty() && !transaction.failed {
                transaction.first = number;
            }
            if let Some(refusal) = refusal {
                transaction.failed = true;
                return refusal;
            }
            transaction.commands.push((args, number));
            return Value::Status("QUEUED");
        }
        match (name.as_slice(), args.get(1).map(Vec::as_slice)) {
            (b"CLIENT", Some(b"SETNAME")) => {
                connection.name.clone_from(&args[2]);
                return Value::Status("OK");
            }
            (b"WATCH", _) => {
                let db = connection.db;
                for key in &args[1..] {
                    let item = self.dbs.get(&db).and_then(|keys| keys.get(key)).cloned();
                    self.connections.get_mut(&id).unwrap().watched.push((db, key.clone(), item));
                }
                return Value::Status("OK");
            }
            (b"UNWATCH", _) => {
                connection.watched.clear();
                return Value::Status("OK");
            }
            (b"CLIENT", Some(b"UNBLOCK")) => return Value::Integer(0),
            (b"CLIENT", Some(b"LIST")) => return self.client_list(),
            (b"CLIENT", Some(b"ID")) => return Value::Integer(id as i64),
            (b"CLIENT", Some(b"KILL")) => {
                let victim: u64 = text(&args[3]).parse().unwrap();
                let found = self.connections.remove(&victim).is_some();
                return Value::Integer(i64::from(found));
            }
            (b"INFO", Some(section)) => return self.info(section, loading),
            (b"HELLO", Some(version)) => {
                connection.resp = version[0] - b'0';
                return Value::Map(vec![(b"server".to_vec(), b"redis".to_vec())]);
            }
            (b"SELECT", Some(db)) => {
                let db: u16 = text(db).parse().unwrap();
                if db >= self.databases {
                    return Value::Error("ERR DB index is out of range".into());
                }
                connection.db = db;
                return Value::Status("OK");
            }
            (b"MULTI", _) => {
                connection.transaction = Some(Transaction::default());
                return Value::Status("OK");
            }
            _ => {}
        }
        let db = connection.db;
        if name == b"EXEC" {
            let Some(transaction) = connection.transaction.take() else {
                return Value::Error("ERR EXEC without MULTI".into());
            };
            return self.exec(id, db, transaction);
        }
        let reply = refusal.unwrap_or_else(|| self.call(db, &args));
        self.remember(number, &reply, db);
        reply
    }

    fn exec(&mut self, id: u64, mut db: u16, transaction: Transaction) -> Value {
        let begun_in = db;
        let watched =
            self.connections.get_mut(&id).map(|c| std::mem::take(&mut c.watched)).unwrap_or_default();
        let same = |(db, key, item): &(u16, Vec<u8>, Option<Item>)| {
            self.dbs.get(db).and_then(|keys| keys.get(key)) == item.as_ref()
        };
        if !watched.iter().all(same) && !transaction.failed {
            return Value::NilArray;
        }
        if transaction.failed {
            let text = "EXECABORT Transaction discarded because of previous errors.";
            let reply = Value::Error(text.into());
            self.remember(transaction.first, &reply, db);
            return reply;
        }
        let mut replies = Vec::new();
        for (args, number) in &transaction.commands {
            let reply = if args[0].eq_ignore_ascii_case(b"SELECT") {
                self.select_in_transaction(&mut db, &args[1])
            } else {
                self.call(db, args)
            };
            self.note(id, db, || [&[b"EXEC:".to_vec()], args.as_slice()].concat(), &reply);
            if *number != transaction.first {
                self.remember(*number, &reply, db);
            }
            replies.push(reply);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.db = db;
        }
        let reply = Value::Array(replies);
        self.remember(transaction.first, &reply, begun_in);
        reply
    }

    fn select_in_transaction(&self, db: &mut u16, wanted: &[u8]) -> Value {
        match text(wanted).parse() {
            Ok(n) if n < self.databases => {
                *db = n;
                Value::Status("OK")
            }
            _ => Value::Error("ERR DB index is out of range".into()),
        }
    }

    fn note(&mut self, id: u64, db: u16, args: impl FnOnce() -> Vec<Vec<u8>>, reply: &Value) {
        let Some(journal) = &mut self.journal else { return };
        let shown = |bytes: &[u8]| bytes[..bytes.len().min(500)].escape_ascii().to_string();
        let words: Vec<String> = args().iter().map(|arg| shown(arg)).collect();
        journal.push(format!(
            "{} #{id} db{db}: {} -> {}",
            self.name,
            words.join(" "),
            shown(&reply.bytes(2))
        ));
    }

    /// What is told of a command that ran. It may do so once.
    fn remember(&mut self, number: Option<u32>, reply: &Value, db: u16) {
        let Some(number) = number.filter(|_| !self.takes_effects_only && !self.remembers_nothing) else {
            return;
        };
        let shown = || Ran { reply: reply.clone().without_markers(), db, times: 0 };
        let ran = self.ran.entry(number).or_insert_with(shown);
        ran.times += 1;
        assert_eq!(ran.times, 1, "command t{number} ran twice on {}", self.name);
    }

    /// What it answers to a command that it does not run.
    fn refusal(&self, request: &Request<'_>) -> Option<Value> {
        let name = request.arg(0);
        let command = lookup(name).and_then(|command| command.resolve(request).ok());
        let is = |flag: Flags| command.is_some_and(|command| command.flags.contains(flag));
        if !self.is_modern && [&b"FUNCTION"[..], b"PEXPIRETIME"].iter().any(|n| n.eq_ignore_ascii_case(name))
        {
            return Some(Value::Error(format!("ERR unknown command `{}`", text(name))));
        }
        if self.forbids_dump && name.eq_ignore_ascii_case(b"DUMP") {
            let text = "NOPERM this user has no permissions to run the 'dump' command";
            return Some(Value::Error(text.into()));
        }
        if self.now_us < self.full_until && is(Flags::DENYOOM) {
            return Some(Value::Error("OOM command not allowed when used memory > 'maxmemory'.".into()));
        }
        if self.now_us < self.read_only_until && is(Flags::WRITE) {
            return Some(Value::Error("READONLY You can't write against a read only replica.".into()));
        }
        None
    }

    fn client_list(&self) -> Value {
        let mut lines = String::new();
        for (id, connection) in &self.connections {
            lines.push_str(&format!(
                "id={id} addr=10.0.0.9:{id} laddr=10.0.0.1:6379 fd=8 name={} age=0 db={}\n",
                text(&connection.name),
                connection.db
            ));
        }
        Value::Bulk(lines.into_bytes())
    }

    fn info(&self, section: &[u8], loading: bool) -> Value {
        let version = if self.is_modern { "7.0.15" } else { "6.2.14" };
        let text = match section {
            b"server" => {
                format!("# Server\r\nredis_version:{version}\r\nrun_id:{}-{}\r\n", self.name, self.runs)
            }
            b"keyspace" => self.keyspace(),
            b"persistence" => {
                let aof = u8::from(self.keeps_aof);
                format!("loading:{}\r\nloading_loaded_perc:50\r\naof_enabled:{aof}\r\n", u8::from(loading))
            }
            _ => "role:master\r\n".to_owned(),
        };
        Value::Bulk(text.into_bytes())
    }
}

/// Text that the simulation itself made.
pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}
