//! The simulated world around one engine: clients, servers, the lines between them, and time.
//!
//! `World::turn` (in `shell`) does what `worker/turn.rs` does, call by call and with its edge-triggered readiness: an engine that
//! forgets to name a session or an upstream that has work hangs here as it would there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use redisha_core::flow::{Ends, Engine, Now, SessionId};
use redisha_core::stats::Registry;

use super::actor::{Actor, Ledger};
use super::care::Refill;
use super::client::{Client, Reading};
use super::life::{Comeback, Save};
use super::maps::Shelf;
use super::pipe::Pipe;
use super::plans::{Bounds, NAMES, Routes, plan};
use super::population;
use super::redis::Redis;
use super::rng::Rng;
use super::script::Mix;
use super::tag;

/// Lines of the trace that are kept.
const TRACE: usize = 200_000;

/// How one run is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub routes: Routes,
    pub bounds: Bounds,
    pub mix: Mix,
    /// Connections to the primary and to mirrors are cut, servers pause, restart, fill up.
    pub chaos: bool,
    /// Clients vanish, stop reading, close half.
    pub rude: bool,
    /// Mirrors come and go with new plans.
    pub reload: bool,
    /// Something goes wrong in about a dozen steps out of so many.
    pub calmness: u64,
    /// Databases of the mirrors.
    pub databases: u16,
    /// A mirror restarts once in so many steps, with all its data, with older data or with none; 0: never.
    pub comebacks: u64,
    /// The sidecar dies once in so many steps; 0: never.
    pub deaths: u64,
    /// An operator gives an order once in so many steps; 0: never.
    pub orders: u64,
    /// The primary loses data once in so many steps; 0: never.
    pub losses: u64,
    /// Nobody asks anything for some seconds, once in so many steps; 0: never.
    pub lulls: u64,
    /// Keys that the primary has from the beginning.
    pub population: u32,
    /// The mirrors have data of their own from the beginning.
    pub foreign: bool,
    /// Whether each Redis knows functions. A mirror that is older than the primary takes no payloads of it.
    pub modern: [bool; 3],
    /// The primary says that it writes an append-only file: what it comes back with counts for more.
    pub aof: bool,
    /// The primary lets nobody `DUMP`.
    pub no_dump: bool,
    /// Clients that wait for elements, and that count under WATCH.
    pub actors: usize,
    pub steps: u32,
    pub clients: usize,
}

/// A connection of the engine to a Redis. It may outlive the engine's socket.
#[derive(Debug)]
pub struct Link {
    pub(super) redis: usize,
    /// The server's number for it.
    pub(super) connection: u64,
    pub up: Pipe,
    pub down: Pipe,
}

/// The engine's socket of an upstream.
#[derive(Debug)]
pub(super) struct UpstreamSocket {
    pub(super) epoch: u32,
    pub(super) link: Option<u64>,
    /// When the connect has its outcome, and whether it succeeds.
    pub(super) connecting: Option<(u64, bool)>,
    pub(super) blocked: bool,
}

/// The engine's socket of a client.
#[derive(Debug)]
pub(super) struct SessionSocket {
    pub(super) id: SessionId,
    pub(super) client: usize,
    pub(super) readable: bool,
    /// What had arrived when the last event came.
    pub(super) seen: u64,
    pub(super) seen_end: bool,
    pub(super) blocked: bool,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub engine: Engine,
    /// What the engine keeps beyond its life.
    pub shelf: Shelf,
    /// The plan's routes.
    pub routes: Routes,
    pub registry: Arc<Registry>,
    pub redises: Vec<Redis>,
    /// What each of them had in the beginning.
    pub at_start: Vec<Save>,
    pub links: BTreeMap<u64, Link>,
    pub clients: Vec<Client>,
    pub options: Options,
    pub trace: Option<VecDeque<String>>,
    /// Connections cut so far.
    pub cuts: u64,
    /// Sidecars that died.
    pub crashes: u64,
    /// The sidecar dies after so many steps of its turn.
    pub dying: Option<u32>,
    /// Mirrors with data of their own that the operator gave to the engine.
    pub claimed: [bool; 3],
    /// Primaries that the control plane is filling.
    pub refills: Vec<Refill>,
    /// How often each kind of event was told.
    pub told: BTreeMap<&'static str, u64>,
    pub numbers: u32,
    /// What the actors know.
    pub ledger: Ledger,
    /// All clients' [`Client::never`] that are gone.
    pub never: Vec<u32>,
    pub answered: u64,
    pub draining: bool,
    /// Connects fail until then, per Redis.
    pub refused_until: [u64; 3],
    pub(super) sockets: BTreeMap<usize, UpstreamSocket>,
    pub(super) sessions: BTreeMap<u32, SessionSocket>,
    pub(super) busy: Vec<SessionId>,
    pub(super) again: Vec<SessionId>,
    pub(super) dirty_sessions: Vec<SessionId>,
    pub(super) dirty_upstreams: Vec<usize>,
    pub(super) next_link: u64,
    pub(super) next_client: u32,
    pub(super) generation: u64,
    pub(super) read: usize,
    pub(super) room: usize,
    pub(super) delay: u64,
}

/// Say what happens, if somebody listens.
macro_rules! say {
    ($world:expr, $($text:tt)*) => {
        if $world.trace.is_some() {
            let line = format!($($text)*);
            $world.note(line);
        }
    };
}
pub(super) use say;

impl World {
    pub fn new(seed: u64, options: Options, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let registry = Arc::new(Registry::default());
        let plan = plan(options.routes, &options.bounds, 1);
        let engine =
            Engine::new(plan, Arc::clone(&registry), Now { us: 1_000, ms: 1, unix_ms: tag::EPOCH_MS }, seed);
        let mut redises: Vec<Redis> = NAMES.iter().map(|name| Redis::new(name, rng.fork())).collect();
        for (redis, modern) in redises.iter_mut().zip(options.modern) {
            redis.is_modern = modern;
            redis.journal = traced.then(Vec::new);
        }
        for mirror in &mut redises[1..] {
            mirror.takes_effects_only = true;
            mirror.databases = options.databases;
            mirror.refuses_payloads = options.modern[0] && !mirror.is_modern;
        }
        redises[0].forbids_dump = options.no_dump;
        redises[0].keeps_aof = options.aof;
        redises[0].takes_relative_time = options.reload;
        population::settle(&mut redises, &options, &mut rng);
        let room = rng.pick(&[600, 9_000, 70_000, 300_000]);
        Self {
            now: 1_000,
            engine,
            shelf: Shelf::default(),
            routes: options.routes,
            registry,
            at_start: redises.iter().map(Redis::data).collect(),
            redises,
            links: BTreeMap::new(),
            clients: Vec::new(),
            options,
            trace: traced.then(VecDeque::new),
            cuts: 0,
            crashes: 0,
            dying: None,
            refills: Vec::new(),
            claimed: [false; 3],
            told: BTreeMap::new(),
            numbers: 0,
            ledger: Ledger::default(),
            never: Vec::new(),
            answered: 0,
            draining: false,
            refused_until: [0; 3],
            sockets: BTreeMap::new(),
            sessions: BTreeMap::new(),
            busy: Vec::new(),
            again: Vec::new(),
            dirty_sessions: Vec::new(),
            dirty_upstreams: Vec::new(),
            next_link: 1,
            next_client: 1,
            generation: 1,
            read: rng.pick(&[700, 4_096, 65_536]),
            room,
            delay: rng.pick(&[50, 400, 3_000]),
            rng,
        }
    }

    pub fn note(&mut self, line: String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            if trace.len() >= TRACE {
                trace.pop_front();
            }
            trace.push_back(format!("{:>9.3} ms  {line}", now as f64 / 1_000.0));
        }
    }

    /// A client connects.
    pub fn welcome(&mut self) {
        let Ok(id) = self.engine.session_open(0, Ends::default()) else { return };
        let name = self.next_client;
        self.next_client += 1;
        let reading = match self.rng.below(16) {
            0 if self.options.rude => Reading::Never,
            1 if self.options.rude => Reading::Slowly,
            _ => Reading::AtOnce,
        };
        let pipe = || Pipe::new(self.room, self.delay);
        let mut client = Client::new(name, id, pipe(), pipe(), reading);
        let acting = self.clients.iter().filter(|c| c.session.is_some() && c.actor.is_some()).count();
        if acting < self.options.actors {
            client.reading = Reading::AtOnce;
            client.actor = Some(Actor::new(&mut self.rng));
        }
        say!(self, "c{name} comes ({reading:?})");
        let index = self.clients.len();
        self.clients.push(client);
        let socket =
            SessionSocket { id, client: index, readable: true, seen: 0, seen_end: false, blocked: false };
        self.sessions.insert(id.slot, socket);
        self.busy.push(id);
    }

    /// A client sends what it has to ask.
    pub fn ask(&mut self, index: usize) {
        let mix = self.options.mix;
        let bytes = match &mut self.clients[index].actor {
            Some(actor) => actor.ask(&mut self.rng, &mut self.ledger),
            None => self.clients[index].ask(&mut self.rng, &mut self.numbers, &mix),
        };
        say!(self, "c{} asks {}", self.clients[index].name, bytes[..bytes.len().min(400)].escape_ascii());
        self.clients[index].up.send(self.now, &bytes, &mut self.rng);
    }

    /// Time passes.
    pub fn pass(&mut self, us: u64) {
        self.now += us;
        self.run_servers();
        self.run_refills();
        self.turn();
        self.run_clients();
    }

    pub(super) fn time(&self) -> Now {
        Now { us: self.now, ms: self.now / 1_000, unix_ms: tag::EPOCH_MS + self.now / 1_000 }
    }

    pub(super) fn run_servers(&mut self) {
        let now = self.now;
        let mut ids: Vec<u64> = self.links.keys().copied().collect();
        for i in (1..ids.len()).rev() {
            ids.swap(i, self.rng.index(i + 1));
        }
        let mut notes = Vec::new();
        for id in ids {
            let Some(link) = self.links.get_mut(&id) else { continue };
            let redis = &mut self.redises[link.redis];
            if redis.is_open(link.connection) && redis.paused_until <= now {
                let most = if self.rng.one_in(4) { 1 + self.rng.index(200) } else { usize::MAX };
                let bytes = link.up.receive(now, most);
                let out = redis.receive(link.connection, &bytes, now);
                link.down.send(now, &out, &mut self.rng);
                notes.extend(redis.journal.iter_mut().flat_map(std::mem::take));
                if link.up.at_end(now) {
                    redis.hang_up(link.connection);
                }
            }
            if !self.redises[link.redis].is_open(link.connection) {
                link.down.close(now, &mut self.rng);
                link.up.reset(now);
                let held = self.sockets.values().any(|s| s.link == Some(id));
                if !held {
                    self.links.remove(&id);
                }
            }
        }
        notes.into_iter().for_each(|line| self.note(line));
    }

    fn run_clients(&mut self) {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.closed || client.vanished {
                continue;
            }
            let reads = match client.reading {
                Reading::AtOnce => true,
                Reading::Slowly => self.rng.one_in(20),
                Reading::Never => false,
            };
            if !reads {
                continue;
            }
            let bytes = client.down.receive(self.now, usize::MAX);
            let ended = client.down.at_end(self.now);
            if !bytes.is_empty() {
                say!(
                    self,
                    "c{} hears {}",
                    self.clients[index].name,
                    bytes[..bytes.len().min(400)].escape_ascii()
                );
                let client = &mut self.clients[index];
                let verdict = match &mut client.actor {
                    Some(actor) => actor.hear(&bytes, &mut self.ledger),
                    None => client.hear(&bytes, &self.redises[0]),
                };
                self.check(verdict);
            }
            if ended {
                say!(self, "c{} sees the end", self.clients[index].name);
                let verdict = if let Some(actor) = &mut self.clients[index].actor {
                    actor.gone(&mut self.ledger);
                    let idle = !actor.waits();
                    self.clients[index].closed = true;
                    let ended = idle || self.cuts > 0 || self.clients[index].finished;
                    if ended { Ok(()) } else { Err("an actor was closed".to_owned()) }
                } else {
                    let small = self.options.bounds.max_output < 1 << 20;
                    self.clients[index].end(self.cuts > 0, small)
                };
                if !self.draining {
                    self.check(verdict);
                }
            }
        }
    }

    pub(super) fn check(&mut self, verdict: Result<(), String>) {
        if let Err(why) = verdict {
            self.note(format!("WRONG: {why}"));
            panic!("{why}");
        }
    }

    // The rest is worker/turn.rs.

    /// Another plan is in force.
    pub fn reload(&mut self, routes: Routes) {
        self.generation += 1;
        self.routes = routes;
        say!(self, "plan {} has {routes:?}", self.generation);
        self.engine.apply(plan(routes, &self.options.bounds, self.generation));
    }

    /// Cut a connection; each side notices on its own.
    pub fn cut(&mut self, id: u64) {
        self.cuts += 1;
        let Some(link) = self.links.get_mut(&id) else { return };
        let line = format!("{} #{} is cut", NAMES[link.redis], link.connection);
        link.up.cut(self.now, &mut self.rng);
        if self.rng.one_in(2) {
            link.down.reset(self.now);
        } else {
            link.down.cut(self.now, &mut self.rng);
        }
        self.note(line);
    }

    /// A server says something that nobody asked for: the engine must not take it for a reply.
    pub fn speak_out(&mut self, id: u64) {
        self.cuts += 1;
        let Some(link) = self.links.get_mut(&id) else { return };
        let line = format!("{} #{} speaks out of turn", NAMES[link.redis], link.connection);
        link.down.send(self.now, b">2\r\n$7\r\nmessage\r\n:1\r\n", &mut self.rng);
        self.note(line);
    }

    /// A Redis ends and comes back.
    pub fn restart(&mut self, redis: usize, comeback: Comeback, down_us: u64) {
        self.cuts += 1;
        self.note(format!("{} restarts ({comeback:?})", NAMES[redis]));
        let now = self.now;
        self.redises[redis].restart(comeback);
        self.redises[redis].down_until = now + down_us;
        self.redises[redis].loading_until = now + down_us + self.rng.below(20_000);
    }

    /// A client is gone.
    pub fn vanish(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.vanished = true;
        if let Some(actor) = &mut client.actor {
            actor.gone(&mut self.ledger);
        }
        if self.rng.one_in(2) {
            client.up.cut(self.now, &mut self.rng);
        } else {
            client.up.close(self.now, &mut self.rng);
        }
        client.down.reset(self.now);
        self.note(format!("c{} vanishes", self.clients[index].name));
    }

    /// A client closes its half.
    pub fn close_half(&mut self, index: usize) {
        self.clients[index].finished = true;
        self.clients[index].up.close(self.now, &mut self.rng);
        self.note(format!("c{} closes its half", self.clients[index].name));
    }

    /// The sessions that the engine still has, in words.
    pub fn left(&self) -> Vec<String> {
        let show = |socket: &SessionSocket| {
            let c = &self.clients[socket.client];
            format!(
                "c{} {:?} finished {} vanished {} readable {} wants_read {} blocked {} input ended {} waits for {}",
                c.name,
                c.reading,
                c.finished,
                c.vanished,
                socket.readable,
                self.engine.wants_read(socket.id),
                socket.blocked,
                c.up.at_end(self.now),
                c.waits_for()
            )
        };
        self.sessions.values().map(show).collect()
    }

    /// Whether anything is on its way.
    pub fn is_busy(&self) -> bool {
        let connecting = |s: &UpstreamSocket| s.connecting.is_some_and(|(at, _)| at != u64::MAX);
        self.links.values().any(|l| l.up.is_busy() || l.down.is_busy())
            || self.sockets.values().any(connecting)
    }

    /// Forget clients that are gone, once the engine has forgotten them too.
    pub fn bury(&mut self) {
        if self.clients.len() < 32 {
            return;
        }
        let used: Vec<usize> = self.sessions.values().map(|s| s.client).collect();
        let mut kept = Vec::new();
        let mut moved = BTreeMap::new();
        for (index, client) in std::mem::take(&mut self.clients).into_iter().enumerate() {
            let over = client.closed || client.vanished || client.reading != Reading::AtOnce;
            if over && client.session.is_none() && !used.contains(&index) {
                self.never.extend(client.never);
                self.answered += client.answered;
            } else {
                moved.insert(index, kept.len());
                kept.push(client);
            }
        }
        self.clients = kept;
        for socket in self.sessions.values_mut() {
            socket.client = moved[&socket.client];
        }
    }
}
