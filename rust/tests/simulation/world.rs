//! The simulated world around one engine: clients, servers, the lines between them, and time.
//!
//! [`World::turn`] does what `worker/turn.rs` does, call by call and with its edge-triggered readiness: an engine that
//! forgets to name a session or an upstream that has work hangs here as it would there.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use redisha_core::flow::{Engine, Intent, Now, SLICES, SessionId};
use redisha_core::plan::Address;
use redisha_core::stats::Registry;

use super::client::{Client, Reading};
use super::pipe::Pipe;
use super::plans::{Bounds, NAMES, Routes, plan};
use super::redis::Redis;
use super::rng::Rng;
use super::script::Mix;
use super::tag;

/// Lines of the trace that are kept.
const TRACE: usize = 40_000;

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
    pub steps: u32,
    pub clients: usize,
}

/// A connection of the engine to a Redis. It may outlive the engine's socket.
#[derive(Debug)]
pub struct Link {
    redis: usize,
    /// The server's number for it.
    connection: u64,
    pub up: Pipe,
    pub down: Pipe,
}

/// The engine's socket of an upstream.
#[derive(Debug)]
struct UpstreamSocket {
    epoch: u32,
    link: Option<u64>,
    /// When the connect has its outcome, and whether it succeeds.
    connecting: Option<(u64, bool)>,
    blocked: bool,
}

/// The engine's socket of a client.
#[derive(Debug)]
struct SessionSocket {
    id: SessionId,
    client: usize,
    readable: bool,
    /// What had arrived when the last event came.
    seen: u64,
    seen_end: bool,
    blocked: bool,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub engine: Engine,
    pub registry: Arc<Registry>,
    pub redises: Vec<Redis>,
    pub links: BTreeMap<u64, Link>,
    pub clients: Vec<Client>,
    pub options: Options,
    pub trace: Option<VecDeque<String>>,
    /// Connections cut so far.
    pub cuts: u64,
    pub numbers: u32,
    /// All clients' [`Client::never`] that are gone.
    pub never: Vec<u32>,
    pub answered: u64,
    pub draining: bool,
    /// Connects fail until then, per Redis.
    pub refused_until: [u64; 3],
    sockets: BTreeMap<usize, UpstreamSocket>,
    sessions: BTreeMap<u32, SessionSocket>,
    busy: Vec<SessionId>,
    again: Vec<SessionId>,
    dirty_sessions: Vec<SessionId>,
    dirty_upstreams: Vec<usize>,
    next_link: u64,
    next_client: u32,
    generation: u64,
    read: usize,
    room: usize,
    delay: u64,
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

impl World {
    pub fn new(seed: u64, options: Options, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let registry = Arc::new(Registry::default());
        let plan = plan(options.routes, &options.bounds, 1);
        let engine =
            Engine::new(plan, Arc::clone(&registry), Now { us: 1_000, ms: 1, unix_ms: tag::EPOCH_MS }, seed);
        let mut redises: Vec<Redis> = NAMES.iter().map(|name| Redis::new(name, rng.fork())).collect();
        for mirror in &mut redises[1..] {
            mirror.takes_effects_only = true;
            mirror.databases = options.databases;
        }
        redises[0].takes_relative_time = options.reload;
        let room = rng.pick(&[600, 9_000, 70_000, 300_000]);
        Self {
            now: 1_000,
            engine,
            registry,
            redises,
            links: BTreeMap::new(),
            clients: Vec::new(),
            options,
            trace: traced.then(VecDeque::new),
            cuts: 0,
            numbers: 0,
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
        let Ok(id) = self.engine.session_open(0) else { return };
        let name = self.next_client;
        self.next_client += 1;
        let reading = match self.rng.below(16) {
            0 if self.options.rude => Reading::Never,
            1 if self.options.rude => Reading::Slowly,
            _ => Reading::AtOnce,
        };
        let pipe = || Pipe::new(self.room, self.delay);
        let client = Client::new(name, id, pipe(), pipe(), reading);
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
        let bytes = self.clients[index].ask(&mut self.rng, &mut self.numbers, &mix);
        say!(self, "c{} asks {}", self.clients[index].name, bytes[..bytes.len().min(240)].escape_ascii());
        self.clients[index].up.send(self.now, &bytes, &mut self.rng);
    }

    /// Time passes.
    pub fn pass(&mut self, us: u64) {
        self.now += us;
        self.run_servers();
        self.turn();
        self.run_clients();
    }

    fn time(&self) -> Now {
        Now { us: self.now, ms: self.now / 1_000, unix_ms: tag::EPOCH_MS + self.now / 1_000 }
    }

    fn run_servers(&mut self) {
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
                if self.trace.is_some() && !bytes.is_empty() {
                    let shown = |b: &[u8]| b[..b.len().min(240)].escape_ascii().to_string();
                    notes.push(format!(
                        "{} #{}: {} -> {}",
                        redis.name,
                        link.connection,
                        shown(&bytes),
                        shown(&out)
                    ));
                }
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
                    bytes[..bytes.len().min(240)].escape_ascii()
                );
                let verdict = self.clients[index].hear(&bytes, &self.redises[0]);
                self.check(verdict);
            }
            if ended {
                say!(self, "c{} sees the end", self.clients[index].name);
                let verdict = {
                    let small = self.options.bounds.max_output < 1 << 20;
                    self.clients[index].end(self.cuts > 0, small)
                };
                if !self.draining {
                    self.check(verdict);
                }
            }
        }
    }

    fn check(&mut self, verdict: Result<(), String>) {
        if let Err(why) = verdict {
            self.note(format!("WRONG: {why}"));
            panic!("{why}");
        }
    }

    // The rest is worker/turn.rs.

    fn turn(&mut self) {
        let now = self.time();
        self.engine.set_now(now);
        self.take_events();
        let keys: Vec<usize> = self.sockets.keys().copied().collect();
        for key in keys {
            self.read_upstream(key);
        }
        self.read_sessions();
        self.engine.tick(now);
        self.engine.pump();
        self.write_upstreams();
        self.write_sessions();
        self.act();
    }

    fn take_events(&mut self) {
        std::mem::swap(&mut self.busy, &mut self.again);
        let now = self.now;
        for socket in self.sessions.values_mut() {
            let client = &self.clients[socket.client];
            let arrived = client.up.arrived(now);
            let ended = client.up.at_end(now);
            if arrived > socket.seen || (ended && !socket.seen_end) {
                socket.seen = arrived;
                socket.seen_end = ended;
                socket.readable = true;
                self.busy.push(socket.id);
            }
            if socket.blocked && client.down.room() > 0 {
                socket.blocked = false;
                self.dirty_sessions.push(socket.id);
            }
        }
        for (key, socket) in &mut self.sockets {
            let room = socket.link.and_then(|id| self.links.get(&id)).map_or(0, |link| link.up.room());
            if socket.blocked && room > 0 {
                socket.blocked = false;
                self.dirty_upstreams.push(*key);
            }
        }
    }

    fn read_upstream(&mut self, key: usize) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let epoch = socket.epoch;
        if let Some((at, succeeds)) = socket.connecting {
            if at > self.now {
                return;
            }
            socket.connecting = None;
            if !succeeds {
                return self.engine.upstream_closed(key, epoch, "connection refused");
            }
            self.engine.upstream_connected(key, epoch);
        }
        let Some(id) = self.sockets.get(&key).and_then(|s| s.link) else { return };
        loop {
            let Some(link) = self.links.get_mut(&id) else { return };
            let bytes = link.down.receive(self.now, self.read);
            if bytes.is_empty() {
                if link.down.at_end(self.now) {
                    say!(self, "upstream {key} sees the end");
                    self.engine.upstream_closed(key, epoch, "it closed the connection");
                }
                return;
            }
            self.engine.upstream_bytes(key, epoch, &bytes);
        }
    }

    fn read_sessions(&mut self) {
        let mut busy = std::mem::take(&mut self.busy);
        for id in busy.drain(..) {
            self.read_session(id);
        }
        self.engine.take_runnable(&mut busy);
        for id in busy.drain(..) {
            self.engine.session_resume(id);
            self.read_session(id);
        }
        self.busy = busy;
    }

    fn read_session(&mut self, id: SessionId) {
        let Some(socket) = self.sessions.get_mut(&id.slot).filter(|s| s.id == id) else { return };
        if !socket.readable || !self.engine.wants_read(id) {
            return;
        }
        let client = &mut self.clients[socket.client];
        let closed = client.up.at_end(self.now) || socket.seen_end;
        let own = self.engine.session_buffer(id);
        let asked = own.as_ref().map_or(self.read, |(_, missing)| (*missing).min(16 * self.read));
        let bytes = client.up.receive(self.now, asked);
        if bytes.is_empty() {
            socket.readable = false;
            if client.up.at_end(self.now) {
                if client.vanished && self.rng.one_in(2) {
                    return self.close(id);
                }
                self.engine.session_end_of_input(id);
            }
            return;
        }
        if bytes.len() >= asked || closed {
            self.again.push(id);
        } else {
            socket.readable = false;
        }
        if let Some((buffer, _)) = own {
            buffer.extend_from_slice(&bytes);
            self.engine.session_filled(id, bytes.len());
        } else {
            self.engine.session_bytes(id, &bytes);
        }
    }

    fn write_upstreams(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty_upstreams);
        for key in dirty.drain(..) {
            self.write_upstream(key);
        }
        self.engine.take_dirty_upstreams(&mut dirty);
        for key in dirty.drain(..) {
            self.write_upstream(key);
        }
        self.dirty_upstreams = dirty;
    }

    fn write_upstream(&mut self, key: usize) {
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.engine.upstream_output(key, &mut slices);
            let Some(socket) = self.sockets.get_mut(&key).filter(|s| s.connecting.is_none() && !s.blocked)
            else {
                return;
            };
            if count == 0 {
                return;
            }
            let bytes: Vec<u8> = slices[..count].iter().map(|slice| &**slice).collect::<Vec<_>>().concat();
            assert!(!bytes.is_empty(), "upstream {key} has {count} slices to write and no byte in them");
            let Some(link) = socket.link.and_then(|id| self.links.get_mut(&id)) else { return };
            let mut n = bytes.len().min(link.up.room());
            if n > 1 && self.rng.one_in(8) {
                n = 1 + self.rng.index(n - 1);
            }
            if n == 0 {
                socket.blocked = true;
                return;
            }
            socket.blocked = n < bytes.len();
            link.up.send(self.now, &bytes[..n], &mut self.rng);
            self.engine.upstream_wrote(key, n);
        }
    }

    fn write_sessions(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty_sessions);
        for id in dirty.drain(..) {
            self.write_session(id);
        }
        self.engine.take_dirty_sessions(&mut dirty);
        for id in dirty.drain(..) {
            self.write_session(id);
        }
        self.dirty_sessions = dirty;
    }

    fn write_session(&mut self, id: SessionId) {
        let Some(socket) = self.sessions.get_mut(&id.slot).filter(|s| s.id == id) else { return };
        let output = self.engine.session_output(id).to_vec();
        if !output.is_empty() && !socket.blocked {
            let down = &mut self.clients[socket.client].down;
            let n = output.len().min(down.room());
            if n > 0 {
                down.send(self.now, &output[..n], &mut self.rng);
                self.engine.session_wrote(id, n);
            }
            socket.blocked = n < output.len();
        }
        if self.engine.session_is_finished(id) {
            self.close(id);
        }
    }

    fn close(&mut self, id: SessionId) {
        if let Some(socket) = self.sessions.remove(&id.slot) {
            let client = &mut self.clients[socket.client];
            client.session = None;
            client.down.close(self.now, &mut self.rng);
            client.up.reset(self.now);
        }
        self.engine.session_closed(id);
    }

    fn act(&mut self) {
        loop {
            let intents = self.engine.take_intents();
            if intents.is_empty() {
                return;
            }
            for intent in intents {
                match intent {
                    Intent::Connect { upstream, epoch, address, .. } => {
                        self.connect(upstream, epoch, &address);
                    }
                    Intent::CloseUpstream { upstream } => self.close_upstream(upstream),
                    Intent::CloseSession { session } => {
                        if self.sessions.get(&session.slot).is_some_and(|s| s.id == session) {
                            say!(self, "session {session:?} is closed by the engine");
                            self.close(session);
                        }
                    }
                    Intent::Tell(event) => say!(self, "told: {event:?}"),
                }
            }
        }
    }

    fn close_upstream(&mut self, key: usize) {
        let Some(socket) = self.sockets.remove(&key) else { return };
        let Some(link) = socket.link.and_then(|id| self.links.get_mut(&id)) else { return };
        // What the engine gave to its socket may still arrive; what comes back is not read any more.
        link.up.close(self.now, &mut self.rng);
        link.down.reset(self.now);
    }

    fn connect(&mut self, key: usize, epoch: u32, address: &Address) {
        let Address::Tcp(address) = address else { return };
        let redis = address.to_string().as_bytes()[7].wrapping_sub(b'0') as usize;
        let refused = self.redises[redis].down_until > self.now
            || self.refused_until[redis] > self.now
            || (self.options.chaos && self.rng.one_in(10));
        let at = self.now + self.rng.below(self.delay + 1);
        let mut socket = UpstreamSocket { epoch, link: None, connecting: Some((at, false)), blocked: false };
        if !refused {
            socket.connecting = Some((at, true));
            if self.options.chaos && self.rng.one_in(20) {
                socket.connecting = Some((u64::MAX, true)); // nobody answers
            }
            let connection = self.redises[redis].accept();
            let pipe = || Pipe::new(self.room, self.delay);
            self.links.insert(self.next_link, Link { redis, connection, up: pipe(), down: pipe() });
            socket.link = Some(self.next_link);
            self.next_link += 1;
        }
        say!(self, "upstream {key} connects to {} ({:?})", NAMES[redis], socket.connecting);
        self.sockets.insert(key, socket);
    }

    /// Another plan is in force.
    pub fn reload(&mut self, routes: Routes) {
        self.generation += 1;
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

    /// A Redis ends and comes back, with its data.
    pub fn restart(&mut self, redis: usize, down_us: u64) {
        self.cuts += 1;
        self.note(format!("{} restarts", NAMES[redis]));
        let now = self.now;
        self.redises[redis].restart();
        self.redises[redis].down_until = now + down_us;
        self.redises[redis].loading_until = now + down_us + self.rng.below(20_000);
    }

    /// A client is gone.
    pub fn vanish(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.vanished = true;
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
