//! A shadow Redis: connections that speak real RESP, databases, and the commands that the simulation uses.
//!
//! It remembers of each numbered command how often it ran and what it answered; that is what clients are checked against.

use std::collections::{BTreeMap, HashMap};

use redisha_core::command::{Flags, lookup};
use redisha_core::resp::{Bounds, Request, RequestScanner, Scanned};

use super::data::Keys;
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
    db: u16,
    resp: u8,
    input: Vec<u8>,
    transaction: Option<Transaction>,
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
    /// Commands that are decided or drawn are an error here.
    pub takes_effects_only: bool,
    /// Relative times may come here: there are plans without mirrors, so they are not made absolute.
    pub takes_relative_time: bool,
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
            ran: HashMap::new(),
            published: Vec::new(),
            paused_until: 0,
            down_until: 0,
            loading_until: 0,
            full_until: 0,
            takes_effects_only: false,
            takes_relative_time: false,
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
        let fresh = Connection { db: 0, resp: 2, input: Vec::new(), transaction: None };
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

    /// Start anew, with the same data.
    pub fn restart(&mut self) {
        self.connections.clear();
        self.runs += 1;
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
                    let reply = self.command(id, &request);
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
        let Some(connection) = self.connections.get_mut(&id) else { return Value::Nil };
        if let Some(transaction) = &mut connection.transaction
            && name != b"EXEC"
        {
            if transaction.commands.is_empty() && !transaction.failed {
                transaction.first = number;
            }
            if self.now_us < self.full_until && needs_memory(&args[0]) {
                transaction.failed = true;
                return out_of_memory();
            }
            transaction.commands.push((args, number));
            return Value::Status("QUEUED");
        }
        match (name.as_slice(), args.get(1).map(Vec::as_slice)) {
            (b"CLIENT", Some(b"SETNAME")) => return Value::Status("OK"),
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
        let reply = if self.now_us < self.full_until && needs_memory(&args[0]) {
            out_of_memory()
        } else {
            self.call(db, &args)
        };
        self.remember(number, &reply, db);
        reply
    }

    fn exec(&mut self, id: u64, mut db: u16, transaction: Transaction) -> Value {
        let begun_in = db;
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

    /// What is told of a command that ran. It may do so once.
    fn remember(&mut self, number: Option<u32>, reply: &Value, db: u16) {
        let Some(number) = number.filter(|_| !self.takes_effects_only) else { return };
        let ran = self.ran.entry(number).or_insert_with(|| Ran { reply: reply.clone(), db, times: 0 });
        ran.times += 1;
        assert_eq!(ran.times, 1, "command t{number} ran twice on {}", self.name);
    }

    fn info(&self, section: &[u8], loading: bool) -> Value {
        let text = match section {
            b"server" => {
                format!("# Server\r\nredis_version:7.0.15\r\nrun_id:{}-{}\r\n", self.name, self.runs)
            }
            b"persistence" => format!("loading:{}\r\nloading_loaded_perc:50\r\n", u8::from(loading)),
            _ => "role:master\r\n".to_owned(),
        };
        Value::Bulk(text.into_bytes())
    }
}

fn needs_memory(name: &[u8]) -> bool {
    lookup(name).is_some_and(|c| c.flags.contains(Flags::DENYOOM))
}

fn out_of_memory() -> Value {
    Value::Error("OOM command not allowed when used memory > 'maxmemory'.".into())
}

/// Text that the simulation itself made.
pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}
