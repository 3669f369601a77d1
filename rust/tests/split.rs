//! A seeded simulation of commands over several servers: an engine in front of four shadow Redis servers (two by prefix, two
//! by a key's hash), one client that knows what must be there, and connections that break in the middle of anything.
//!
//! Each command gets one answer, in order. An answer without an error is the one that a single Redis would give; after
//! `UNAVAILABLE` and `TIMEOUT` nothing has changed, after `INDOUBT` only what the command is about. `SEEDS=n` runs more seeds.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::trivially_copy_pass_by_ref,
    clippy::needless_for_each,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    clippy::assigning_clones,
    clippy::many_single_char_names,
    reason = "a test that panics has found something"
)]
#![allow(dead_code, reason = "modules of the other simulation are used in part")]

#[path = "simulation/commands.rs"]
mod commands;
#[path = "simulation/data.rs"]
mod data;
#[path = "simulation/library.rs"]
mod library;
#[path = "simulation/life.rs"]
mod life;
#[path = "simulation/redis.rs"]
mod redis;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/scan.rs"]
mod scan;
#[path = "simulation/tag.rs"]
mod tag;
#[path = "simulation/value.rs"]
mod value;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redisha_core::flow::{Ends, Engine, Intent, Now, SLICES, SessionId, UNSETTLED};
use redisha_core::plan::{Address, Plan};
use redisha_core::resp::{Reply, ReplyScanner, encode};
use redisha_core::stats::Registry;
use serde_json::json;

use redis::Redis;
use rng::Rng;

const SERVERS: usize = 4;

/// An engine's connection to a server.
struct Link {
    epoch: u32,
    server: usize,
    connection: u64,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    cut: bool,
}

/// What the client knows of a key. `None`: it may or may not have changed.
type Known = Option<Option<String>>;

struct World {
    rng: Rng,
    now_ms: u64,
    engine: Engine,
    servers: Vec<Redis>,
    paused_until: [u64; SERVERS],
    links: BTreeMap<usize, Link>,
    session: SessionId,
    asked: VecDeque<Vec<String>>,
    heard: Vec<u8>,
    known: BTreeMap<String, Known>,
    trouble: bool,
    /// The last reply to SCAN.
    page: Vec<u8>,
    /// Answers: right ones, those of which nothing was sent, those in doubt.
    answers: [u64; 3],
}

fn plan() -> Arc<Plan> {
    let cluster = |name: &str, servers: &[usize]| {
        let endpoint = |i: &usize| json!({"id": format!("{i}:6379"), "address": format!("10.0.0.{i}:6379")});
        json!({
            "name": name, "balance": "maglev", "hash_tags": false, "username": null, "password": null,
            "endpoints": servers.iter().map(endpoint).collect::<Vec<_>>(), "connect_timeout_ms": 100, "op_timeout_ms": 300,
        })
    };
    let route = |prefix: &str, cluster: &str| json!({"prefix": prefix, "remove_prefix": prefix == "b:", "cluster": cluster, "mirrors": []});
    let plan = json!({
        "generation": 1,
        "limits": {
            "max_clients": 9, "max_request": 1 << 20, "max_output": 1 << 20, "log_bytes": 1 << 20, "memory_bytes": 64 << 20,
            "idle_timeout_ms": 0, "handshake_timeout_ms": 0,
        },
        "listeners": [{
            "name": "clients", "bind": ["127.0.0.1:6380"], "users": [], "case_insensitive": false,
            "routes": [route("a:", "a"), route("b:", "b"), route("", "rest")],
        }],
        "clusters": [cluster("a", &[0]), cluster("b", &[1]), cluster("rest", &[2, 3])],
    });
    Arc::new(Plan::from_json(plan.to_string().as_bytes()).expect("a plan"))
}

fn keys() -> impl Iterator<Item = String> {
    (0..24).map(|i| format!("{}{i}", ["a:", "b:", "x"][i % 3]))
}

/// The keys that a command is about.
fn about(words: &[String]) -> Vec<String> {
    let step = if words[0] == "MSET" || words[0] == "SET" { 2 } else { 1 };
    if words[0] == "FLUSHALL" { keys().collect() } else { words[1..].iter().step_by(step).cloned().collect() }
}

fn reads(words: &[String]) -> bool {
    matches!(words[0].as_str(), "MGET" | "EXISTS" | "GET" | "SCAN")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let servers = (0..SERVERS).map(|_| Redis::new("r", rng.fork())).collect();
        let now = Now { us: 1_000, ms: 1, unix_ms: tag::EPOCH_MS };
        let mut engine = Engine::new(plan(), Arc::new(Registry::default()), now, seed);
        let session = engine.session_open(0, Ends::default()).expect("room for one");
        Self {
            rng,
            now_ms: 1,
            engine,
            servers,
            paused_until: [0; SERVERS],
            links: BTreeMap::new(),
            session,
            asked: VecDeque::new(),
            heard: Vec::new(),
            known: keys().map(|key| (key, Some(None))).collect(),
            trouble: true,
            page: Vec::new(),
            answers: [0; 3],
        }
    }

    /// A command about some keys.
    fn draw(&mut self) -> Vec<String> {
        let all: Vec<String> = keys().collect();
        let some: Vec<String> =
            (0..=self.rng.below(5)).map(|_| all[self.rng.index(all.len())].clone()).collect();
        let name =
            self.rng.pick(&["MGET", "MGET", "MSET", "MSET", "DEL", "EXISTS", "GET", "SET", "FLUSHALL"]);
        let mut words = vec![name.to_owned()];
        match name {
            "FLUSHALL" if self.rng.one_in(4) => {}
            "FLUSHALL" => words = vec!["GET".to_owned(), some[0].clone()],
            "GET" => words.push(some[0].clone()),
            "SET" => words.extend([some[0].clone(), self.rng.below(1_000).to_string()]),
            "MSET" => {
                let size = if self.rng.one_in(20) { 40_000 } else { 1 };
                let value = |rng: &mut Rng| rng.below(1_000).to_string().repeat(size);
                words.extend(some.into_iter().flat_map(|key| [key, value(&mut self.rng)]));
            }
            _ => words.extend(some),
        }
        words
    }

    fn ask(&mut self, words: Vec<String>) {
        let mut frame = Vec::new();
        encode::command(&mut frame, &words);
        self.asked.push_back(words);
        self.engine.session_bytes(self.session, &frame);
    }

    /// Some time passes, and everything that can move does, at times.
    fn step(&mut self) {
        self.now_ms += 1 + self.rng.below(4);
        let now = Now { us: self.now_ms * 1_000, ms: self.now_ms, unix_ms: tag::EPOCH_MS + self.now_ms };
        self.engine.set_now(now);
        if self.trouble && self.rng.one_in(60) {
            let server = self.rng.index(SERVERS);
            match self.rng.below(3) {
                0 => self.paused_until[server] = self.now_ms + self.rng.below(600),
                _ => self.links.values_mut().filter(|l| l.server == server).for_each(|l| l.cut = true),
            }
        }
        self.serve();
        self.engine.tick(now);
        self.act();
        let mut runnable = Vec::new();
        self.engine.take_runnable(&mut runnable);
        runnable.into_iter().for_each(|id| self.engine.session_resume(id));
        self.act();
        self.write();
        let output = self.engine.session_output(self.session).to_vec();
        self.engine.session_wrote(self.session, output.len());
        self.heard.extend_from_slice(&output);
        self.hear();
    }

    /// Bytes go between the engine and the servers, in pieces.
    fn serve(&mut self) {
        let live: Vec<usize> = self.links.keys().copied().collect();
        for key in live {
            let link = self.links.get_mut(&key).unwrap();
            let some = |rng: &mut Rng, of: &mut VecDeque<u8>| -> Vec<u8> {
                let n = if rng.one_in(3) { rng.index(of.len() + 1) } else { of.len() };
                of.drain(..n).collect()
            };
            if self.paused_until[link.server] <= self.now_ms {
                let bytes = some(&mut self.rng, &mut link.up);
                let server = &mut self.servers[link.server];
                link.down.extend(server.receive(link.connection, &bytes, self.now_ms * 1_000));
                link.cut |= !server.is_open(link.connection);
            }
            let bytes = some(&mut self.rng, &mut link.down);
            let (epoch, cut) = (link.epoch, link.cut);
            if !bytes.is_empty() {
                self.engine.upstream_bytes(key, epoch, &bytes);
            }
            if cut {
                self.links.remove(&key);
                self.engine.upstream_closed(key, epoch, "it was cut");
            }
        }
    }

    fn act(&mut self) {
        for intent in self.engine.take_intents() {
            match intent {
                Intent::Connect { upstream, epoch, address: Address::Tcp(address), .. } => {
                    if self.trouble && self.rng.one_in(8) {
                        self.engine.upstream_closed(upstream, epoch, "it refuses");
                        continue;
                    }
                    let server = address.to_string().as_bytes()[7].wrapping_sub(b'0') as usize;
                    let connection = self.servers[server].accept();
                    let (up, down) = (VecDeque::new(), VecDeque::new());
                    self.links.insert(upstream, Link { epoch, server, connection, up, down, cut: false });
                    self.engine.upstream_connected(upstream, epoch);
                }
                Intent::CloseUpstream { upstream } => {
                    self.links.remove(&upstream);
                }
                Intent::CloseSession { .. } => self.begin_anew(),
                _ => {}
            }
        }
    }

    /// The client was closed. That is right when half of a long reply was out as its server went away, and only then.
    fn begin_anew(&mut self) {
        self.heard.extend_from_slice(self.engine.session_output(self.session));
        self.hear();
        assert!(
            !self.heard.is_empty(),
            "the client was closed, and {:?} is not answered",
            self.asked.front()
        );
        self.engine.session_closed(self.session);
        self.session = self.engine.session_open(0, Ends::default()).expect("room for one");
        self.heard.clear();
        for words in std::mem::take(&mut self.asked) {
            if !reads(&words) {
                about(&words).into_iter().for_each(|key| drop(self.known.insert(key, None)));
            }
        }
    }

    fn write(&mut self) {
        let mut dirty = Vec::new();
        self.engine.take_dirty_upstreams(&mut dirty);
        for key in dirty {
            loop {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = self.engine.upstream_output(key, &mut slices);
                let Some(link) = self.links.get_mut(&key).filter(|_| count > 0) else { break };
                let bytes: Vec<u8> =
                    slices[..count].iter().map(|slice| &**slice).collect::<Vec<_>>().concat();
                link.up.extend(&bytes);
                self.engine.upstream_wrote(key, bytes.len());
            }
        }
    }

    /// Each reply that is complete is the one to the oldest command.
    fn hear(&mut self) {
        loop {
            let mut scanner = ReplyScanner::default();
            let Some(n) = scanner.scan(&self.heard).expect("RESP") else { return };
            let rest = self.heard.split_off(n);
            let frame = std::mem::replace(&mut self.heard, rest);
            let words = self.asked.pop_front().expect("an answer to nothing");
            self.check(&words, Reply::new(&frame));
        }
    }

    fn check(&mut self, words: &[String], reply: Reply<'_>) {
        let shown = String::from_utf8_lossy(&reply.bytes()[..reply.bytes().len().min(200)]).into_owned();
        let about = about(words);
        if reply.is_error() {
            let doubt = shown.starts_with("-INDOUBT ");
            assert!(
                doubt || shown.starts_with("-UNAVAILABLE ") || shown.starts_with("-TIMEOUT "),
                "{words:?}: {shown}"
            );
            self.answers[1 + usize::from(doubt)] += 1;
            if doubt && !reads(words) {
                about.into_iter().for_each(|key| drop(self.known.insert(key, None)));
            }
            return;
        }
        self.answers[0] += 1;
        if words[0] == "SCAN" {
            self.page = reply.bytes().to_vec();
            return;
        }
        match words[0].as_str() {
            "MGET" | "GET" => {
                let values: Vec<Reply<'_>> =
                    if words[0] == "GET" { vec![reply] } else { reply.elements().collect() };
                assert_eq!(values.len(), about.len(), "{words:?}: {shown}");
                for (key, value) in about.iter().zip(values) {
                    let value = value.text().map(|text| String::from_utf8(text.to_vec()).unwrap());
                    let known = self.known.insert(key.clone(), Some(value.clone())).unwrap();
                    assert!(
                        known.is_none() || known == Some(value),
                        "{words:?}: {key} is not what it was: {shown}"
                    );
                }
            }
            "MSET" | "SET" => {
                assert_eq!(shown, "+OK\r\n", "{words:?}");
                for pair in words[1..].chunks_exact(2) {
                    self.known.insert(pair[0].clone(), Some(Some(pair[1].clone())));
                }
            }
            "FLUSHALL" => about.into_iter().for_each(|key| drop(self.known.insert(key, Some(None)))),
            name => {
                let deletes = name == "DEL";
                let counted: Vec<&String> = if deletes {
                    about.iter().collect::<BTreeSet<_>>().into_iter().collect()
                } else {
                    about.iter().collect()
                };
                let known: Option<Vec<bool>> =
                    counted.iter().map(|key| self.known[*key].as_ref().map(Option::is_some)).collect();
                if let Some(known) = known {
                    let count = known.iter().filter(|there| **there).count() as i64;
                    assert_eq!(reply.integer(), Some(count), "{words:?}");
                }
                if deletes {
                    about.into_iter().for_each(|key| drop(self.known.insert(key, Some(None))));
                }
            }
        }
    }

    fn answered(&mut self) {
        for _ in 0..2_000 {
            if self.asked.is_empty() {
                return;
            }
            self.step();
        }
        panic!("no answer to {:?}", self.asked.front());
    }

    /// All keys, by a scan to its end. A server may return one twice, as Redis may.
    fn scan(&mut self) -> BTreeSet<String> {
        let (mut found, mut cursor) = (BTreeSet::new(), "0".to_owned());
        loop {
            let words = ["SCAN", &cursor, "COUNT", "3"].map(str::to_owned);
            self.ask(words.to_vec());
            self.answered();
            let page = std::mem::take(&mut self.page);
            let mut elements = Reply::new(&page).elements();
            cursor = String::from_utf8(elements.next().unwrap().text().unwrap().to_vec()).unwrap();
            for key in elements.next().unwrap().elements() {
                found.insert(String::from_utf8(key.text().unwrap().to_vec()).unwrap());
            }
            if cursor == "0" {
                return found;
            }
        }
    }
}

/// Live through one seed; gives how often there was which answer.
fn live(seed: u64) -> [u64; 3] {
    let mut world = World::new(seed);
    for _ in 0..120 {
        for _ in 0..=world.rng.below(6) {
            let words = world.draw();
            world.ask(words);
        }
        (0..world.rng.below(30)).for_each(|_| world.step());
    }
    world.trouble = false;
    world.answered();
    // Whoever was in doubt is not any more, and a scan finds what is there and nothing else.
    let ready = |world: &mut World| {
        let before = world.answers[0];
        (0..50).for_each(|_| world.step());
        world.ask([vec!["MGET".to_owned()], keys().collect()].concat());
        world.answered();
        world.answers[0] > before
    };
    assert!((0..100).any(|_| ready(&mut world)), "the servers are not back");
    let there = |(key, value): (&String, &Known)| value.as_ref()?.as_ref().map(|_| key.clone());
    let expected: BTreeSet<String> = world.known.iter().filter_map(there).collect();
    assert_eq!(world.scan(), expected);
    world.answers
}

#[test]
fn each_answer_is_right_or_honest() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let mut total = [0; 3];
    for seed in 0..seeds {
        let found = std::panic::catch_unwind(|| live(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        total.iter_mut().zip(found).for_each(|(all, one)| *all += one);
    }
    eprintln!("{total:?}");
    assert!(total.iter().all(|n| *n > 0), "{total:?}");
    assert_eq!(UNSETTLED.load(Ordering::Relaxed), 0);
}
