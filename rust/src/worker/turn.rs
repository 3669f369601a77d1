//! The run loop.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use crate::flow::{Answer, Ends, Engine, Event, Intent, Now, REGION_BYTES, SLICES, Seat, SessionId};
use crate::net::{Bound, FileMemory, Interest, Io, Poller, Ready, Stream, boot_id, remove_files, words};
use crate::plan::{Address, Plan};
use crate::stats::Registry;

use super::clock::Clock;
use super::mailbox::{Draining, Order, WorkerEnd};
use super::pipe::{Pipe, Pumped};
use super::post::{Letter, Post};
use super::sockets::{
    SessionSocket, Sockets, UpstreamSocket, Whose, listener_token, pipe_token, session_token, upstream_token,
    whose,
};

/// Bytes of one read.
const READ: usize = 64 * 1024;
/// Reads of one upstream in one turn.
const UPSTREAM_READS: usize = 16;
/// Clients taken from one listener in one turn.
const ACCEPTS: usize = 64;
/// Pause of accepting after a failure (out of file descriptors), in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 100;
/// Longest wait for events, in milliseconds.
const LONGEST_WAIT_MS: u64 = 1_000;

/// The worker.
pub(super) struct Worker<'a> {
    poller: Poller,
    clock: Clock,
    engine: Engine,
    mailbox: &'a mut WorkerEnd,
    plan: Arc<Plan>,
    listeners: Vec<Option<Bound>>,
    accept_at: u64,
    sessions: Sockets<SessionSocket>,
    upstreams: Sockets<UpstreamSocket>,
    pipes: Sockets<Pipe>,
    /// How many there were.
    piped: u32,
    /// Sessions to be looked at in this turn.
    busy: Vec<SessionId>,
    /// The same for the next turn: their sockets may have more.
    again: Vec<SessionId>,
    busy_upstreams: Vec<(usize, u32)>,
    busy_pipes: Vec<usize>,
    buffer: Box<[u8]>,
    dirty_sessions: Vec<SessionId>,
    dirty_upstreams: Vec<usize>,
    drain: Option<Drain>,
    registry: Arc<Registry>,
    /// It is the first of the workers, or the only one.
    first: bool,
    post: Post,
    draining: Arc<Draining>,
}

/// What a worker begins with.
pub(super) struct Start {
    pub seat: Seat,
    pub plan: Arc<Plan>,
    pub bound: Vec<Bound>,
    pub registry: Arc<Registry>,
    pub seed: u64,
    pub post: Post,
    pub draining: Arc<Draining>,
}

struct Drain {
    deadline: u64,
    told: bool,
}

impl<'a> Worker<'a> {
    /// Made by the thread that starts it; run by its own.
    pub(super) fn new(poller: Poller, mailbox: &'a mut WorkerEnd, start: Start) -> io::Result<Self> {
        let Start { seat, plan, bound, registry, seed, post, draining } = start;
        let clock = Clock::start();
        let first = seat.is_first();
        let engine = Engine::seated(seat, Arc::clone(&plan), Arc::clone(&registry), clock.now(), seed);
        let mut worker = Self {
            poller,
            clock,
            engine,
            mailbox,
            plan,
            listeners: Vec::new(),
            accept_at: 0,
            sessions: Sockets::default(),
            upstreams: Sockets::default(),
            pipes: Sockets::default(),
            piped: 0,
            busy: Vec::new(),
            again: Vec::new(),
            busy_upstreams: Vec::new(),
            busy_pipes: Vec::new(),
            buffer: vec![0; READ].into_boxed_slice(),
            dirty_sessions: Vec::new(),
            dirty_upstreams: Vec::new(),
            drain: None,
            registry,
            first,
            post,
            draining,
        };
        worker.act();
        worker.remove_old_maps();
        for socket in bound {
            worker.add_listener(socket)?;
        }
        Ok(worker)
    }

    /// Until it is told to stop.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut now = self.clock.now();
        loop {
            self.poller.wait(Some(self.patience(now)))?;
            now = self.clock.now();
            self.engine.set_now(now);
            self.registry.worker.turns.inc();
            if !self.take_events(now) {
                break;
            }
            self.read_upstreams();
            self.read_sessions();
            self.engine.tick(now);
            self.engine.pump();
            self.write_upstreams();
            self.write_sessions();
            self.act();
            self.pump_pipes();
            if self.go_on_draining(now) && !self.first {
                break; // its links end, and with them the first worker's last sessions
            }
        }
        self.engine.abandon();
        self.engine.close_maps();
        self.write_sessions();
        Ok(())
    }

    fn patience(&self, now: Now) -> Duration {
        let busy = !self.again.is_empty() || !self.busy_upstreams.is_empty() || !self.busy_pipes.is_empty();
        if busy || self.engine.is_runnable() {
            return Duration::ZERO;
        }
        let mut at = self.engine.next_tick().min(now.ms + LONGEST_WAIT_MS);
        if self.accept_at != 0 {
            at = at.min(self.accept_at);
        }
        Duration::from_millis(at.saturating_sub(now.ms))
    }

    /// Sort the events; `false`: stop.
    fn take_events(&mut self, now: Now) -> bool {
        std::mem::swap(&mut self.busy, &mut self.again);
        let mut accepting = Vec::new();
        let mut orders = false;
        for event in self.poller.events() {
            match whose(event.token()) {
                Whose::Waker => orders = true,
                Whose::Listener(index) => accepting.push(index),
                Whose::Session(slot, used) => {
                    if let Some(socket) = self.sessions.get(slot)
                        && session_token(socket.id) == event.token()
                    {
                        debug_assert_eq!(socket.id.generation.get() & 0x3fff_ffff, used);
                        let blocked = !socket.ready.writable;
                        socket.ready.add(event);
                        if socket.ready.closed {
                            self.engine.session_hung_up(socket.id);
                        }
                        self.busy.push(socket.id);
                        if blocked && socket.ready.writable {
                            self.dirty_sessions.push(socket.id);
                        }
                    }
                }
                Whose::Pipe(index, number, side) => {
                    if let Some(pipe) = self.pipes.get(index).filter(|p| p.number == number)
                        && let Some(ready) = pipe.ready(side)
                    {
                        ready.add(event);
                        self.busy_pipes.push(index);
                    }
                }
                Whose::Upstream(key, _) => {
                    if let Some(socket) = self.upstreams.get(key)
                        && upstream_token(key, socket.epoch) == event.token()
                    {
                        let blocked = !socket.ready.writable;
                        socket.ready.add(event);
                        self.busy_upstreams.push((key, socket.epoch));
                        if blocked && socket.ready.writable {
                            self.dirty_upstreams.push(key);
                        }
                    }
                }
            }
        }
        if self.accept_at != 0 && now.ms >= self.accept_at {
            self.accept_at = 0;
            accepting = (0..self.listeners.len()).collect();
        }
        for index in accepting {
            self.accept(index, now);
        }
        !orders || self.look_at_mail(now)
    }

    /// Orders, and what other workers sent. A link may come with a plan that is among the orders, which is why the letters
    /// are taken out before them and read afterwards.
    fn look_at_mail(&mut self, now: Now) -> bool {
        let letters = self.post.take(now.ms);
        let goes_on = self.obey(now);
        for (letter, until_ms) in letters {
            match letter {
                Letter::Link { listener, stream } => {
                    match self.plan.listeners.iter().position(|l| l.link && l.name == listener) {
                        Some(at) => self.welcome(stream, at, Ends::default()),
                        None => self.post.put_back(listener, stream, until_ms),
                    }
                }
                Letter::Ask { from, number, frame } => {
                    let answer = self.engine.asked(&frame);
                    self.post.answer(from, number, answer);
                }
                Letter::Answer { number, answer } => self.engine.answered(number, answer),
            }
        }
        goes_on
    }

    fn obey(&mut self, now: Now) -> bool {
        while let Ok(order) = self.mailbox.orders.pop() {
            match order {
                Order::Apply(plan, bound, _done) => self.apply(plan, bound),
                Order::Drain(limit_ms) if self.drain.is_none() => {
                    self.listeners.clear();
                    self.engine.begin_drain();
                    self.drain = Some(Drain { deadline: now.ms + limit_ms, told: false });
                }
                Order::Drain(limit_ms) => {
                    if let Some(drain) = &mut self.drain {
                        drain.deadline = drain.deadline.min(now.ms + limit_ms);
                    }
                }
                Order::Resync(cluster, action) => self.engine.resync(&cluster, action),
                Order::Refilled(primary, ok) => self.engine.refilled(&primary, ok),
                Order::Doubt(primary, mirror, keys) => self.engine.doubt_keys(&primary, &mirror, &keys),
                Order::Lead(term) => self.engine.lead(term),
                Order::Follow(term, leader) => self.engine.follow(term, &leader),
                Order::YieldLead(on) => self.engine.yield_lead(on),
                Order::Count(members) => self.engine.count_members(members),
                Order::ArbiterBeat(age_ms) => self.engine.arbiter_beat(age_ms),
                Order::Ask(peer, number, text) => self.engine.ask_member(&peer, number, &text),
                Order::Answer(number, text) => self.engine.answer_member(number, &text),
                Order::Merged(peer, ok) => self.engine.merged(&peer, ok),
                Order::Stop => return false,
                #[expect(clippy::panic, reason = "asked for by the test that a panic ends the process")]
                Order::Panic => panic!("asked for by debug_panic"),
            }
        }
        true
    }

    fn apply(&mut self, plan: Arc<Plan>, bound: Vec<Bound>) {
        if self.drain.is_some() {
            return;
        }
        for place in &mut self.listeners {
            let Some(old) = place else { continue };
            match plan.listeners.iter().find(|l| l.bind.contains(&old.address)) {
                Some(listener) => old.listener.clone_from(&listener.name),
                None => *place = None,
            }
        }
        self.plan = Arc::clone(&plan);
        self.engine.apply(plan);
        self.act(); // dirty maps before the next write
        self.remove_old_maps();
        for socket in bound {
            let name = socket.listener.clone();
            if let Err(e) = self.add_listener(socket) {
                self.tell("listener", name, format!("cannot accept: {}", words(&e)));
            }
        }
    }

    fn add_listener(&mut self, mut socket: Bound) -> io::Result<()> {
        let index = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        self.poller.add(&mut socket, listener_token(index), Interest::READABLE)?;
        match self.listeners.get_mut(index) {
            Some(place) => *place = Some(socket),
            None => self.listeners.push(Some(socket)),
        }
        Ok(())
    }

    fn tell(&mut self, kind: &'static str, subject: String, detail: String) {
        self.mailbox.tell(Event { kind, subject, detail });
    }

    fn accept(&mut self, index: usize, now: Now) {
        for _ in 0..ACCEPTS {
            let Some(Some(bound)) = self.listeners.get(index) else { return };
            match bound.accept() {
                Ok(stream) => {
                    let listener =
                        self.plan.listeners.iter().position(|l| !l.link && l.name == bound.listener);
                    let ends = ends(&stream, &bound.address);
                    self.welcome(stream, listener.unwrap_or(usize::MAX), ends);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    let name = bound.listener.clone();
                    self.accept_at = now.ms + ACCEPT_PAUSE_MS;
                    return self.tell("listener", name, format!("accepting pauses: {}", words(&e)));
                }
            }
        }
        self.accept_at = now.ms; // there may be more
    }

    fn welcome(&mut self, mut stream: Stream, listener: usize, ends: Ends) {
        let id = match self.engine.session_open(listener, ends) {
            Ok(id) => id,
            Err(last_words) => {
                stream.write(last_words);
                return;
            }
        };
        if self.poller.add(&mut stream, session_token(id), Interest::READABLE | Interest::WRITABLE).is_err() {
            return self.engine.session_closed(id);
        }
        let ready = Ready { readable: true, writable: true, closed: false };
        self.sessions.set(id.slot as usize, SessionSocket { id, stream, ready });
        self.busy.push(id);
    }

    fn read_upstreams(&mut self) {
        for (key, epoch) in std::mem::take(&mut self.busy_upstreams) {
            self.read_upstream(key, epoch);
        }
    }

    fn read_upstream(&mut self, key: usize, epoch: u32) {
        let Some(socket) = self.upstreams.get(key).filter(|s| s.epoch == epoch) else { return };
        if socket.connecting {
            if !socket.ready.writable {
                return;
            }
            match socket.stream.connected() {
                Ok(false) => return,
                Ok(true) => {
                    socket.connecting = false;
                    self.engine.upstream_connected(key, epoch);
                }
                Err(e) => return self.engine.upstream_closed(key, epoch, &words(&e)),
            }
        }
        for _ in 0..UPSTREAM_READS {
            let Some(socket) = self.upstreams.get(key).filter(|s| s.epoch == epoch) else { return };
            if !socket.ready.readable {
                return;
            }
            match socket.stream.read(&mut self.buffer) {
                Io::Done(n) => {
                    if n < self.buffer.len() && !socket.ready.closed {
                        socket.ready.readable = false;
                    }
                    self.engine.upstream_bytes(key, epoch, self.buffer.get(..n).unwrap_or(&[]));
                }
                Io::Later => socket.ready.readable = false,
                Io::End => return self.engine.upstream_closed(key, epoch, "it closed the connection"),
                Io::Failed(e) => return self.engine.upstream_closed(key, epoch, &words(&e)),
            }
        }
        self.busy_upstreams.push((key, epoch));
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
        let Some(socket) = self.sessions.get(id.slot as usize).filter(|s| s.id == id) else { return };
        if !socket.ready.readable || !self.engine.wants_read(id) {
            return;
        }
        let (read, asked) = match self.engine.session_buffer(id) {
            Some((buffer, missing)) => {
                let asked = missing.min(16 * READ);
                (socket.stream.read_behind(buffer, asked), asked)
            }
            None => (socket.stream.read(&mut self.buffer), 0),
        };
        match read {
            Io::Done(n) => {
                let full = n >= if asked > 0 { asked } else { self.buffer.len() };
                if full || socket.ready.closed {
                    self.again.push(id);
                } else {
                    socket.ready.readable = false;
                }
                if asked > 0 {
                    self.engine.session_filled(id, n);
                } else {
                    self.engine.session_bytes(id, self.buffer.get(..n).unwrap_or(&[]));
                }
            }
            Io::Later => socket.ready.readable = false,
            Io::End => {
                socket.ready.readable = false;
                self.engine.session_end_of_input(id);
            }
            Io::Failed(_) => self.close(id),
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
            let Some(socket) = self.upstreams.get(key).filter(|s| !s.connecting && s.ready.writable) else {
                return;
            };
            let slices = slices.get(..count).unwrap_or(&[]);
            if slices.is_empty() {
                return;
            }
            let total: usize = slices.iter().map(|s| s.len()).sum();
            if total == 0 {
                let epoch = socket.epoch;
                return self.engine.upstream_closed(key, epoch, "internal error: bytes to be sent are gone");
            }
            match socket.stream.write_vectored(slices) {
                Io::Done(n) => {
                    socket.ready.writable = n == total;
                    self.engine.upstream_wrote(key, n);
                }
                Io::Later => {
                    socket.ready.writable = false;
                    return;
                }
                Io::End => return,
                Io::Failed(e) => {
                    let epoch = socket.epoch;
                    return self.engine.upstream_closed(key, epoch, &words(&e));
                }
            }
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
        let Some(socket) = self.sessions.get(id.slot as usize).filter(|s| s.id == id) else { return };
        let output = self.engine.session_output(id);
        if !output.is_empty() && socket.ready.writable {
            let asked = output.len();
            match socket.stream.write(output) {
                Io::Done(n) => {
                    socket.ready.writable = n == asked;
                    self.engine.session_wrote(id, n);
                }
                Io::Later => socket.ready.writable = false,
                Io::End | Io::Failed(_) => return self.close(id),
            }
        }
        if self.engine.session_is_finished(id) {
            self.close(id);
        }
    }

    fn close(&mut self, id: SessionId) {
        self.sessions.take(id.slot as usize);
        self.engine.session_closed(id);
    }

    /// Do what the flow wants done. Opening a socket may fail at once and want more.
    fn act(&mut self) {
        loop {
            let intents = self.engine.take_intents();
            if intents.is_empty() {
                return;
            }
            for intent in intents {
                match intent {
                    Intent::Connect { upstream, epoch, address, dead_after_ms } => {
                        self.connect(upstream, epoch, &address, dead_after_ms);
                    }
                    Intent::CloseUpstream { upstream } => drop(self.upstreams.take(upstream)),
                    Intent::CloseSession { session } => {
                        if self.sessions.get(session.slot as usize).is_some_and(|s| s.id == session) {
                            self.close(session);
                        }
                    }
                    Intent::Join { session, upstream, frame } => self.join(session, upstream, frame),
                    Intent::OpenMap { endpoint, bit, name } => self.open_map(endpoint, bit, name),
                    Intent::AskOthers { number, frame } => {
                        for _ in 0..self.post.ask(number, &Arc::from(frame)) {
                            self.engine.answered(number, Answer::default()); // it has ended: it has no session
                        }
                    }
                    Intent::Tell(event) => self.pass_on(event),
                }
            }
        }
    }

    /// From here on a session and a connection of its own are one.
    fn join(&mut self, session: SessionId, upstream: usize, mut to_server: Vec<u8>) {
        let is_its = self.sessions.get(session.slot as usize).is_some_and(|s| s.id == session);
        let client = if is_its { self.sessions.take(session.slot as usize) } else { None };
        let server = self.upstreams.take(upstream);
        let (to_client, behind) = self.engine.join(session, upstream);
        to_server.extend_from_slice(&behind);
        let (Some(client), Some(server)) = (client, server) else { return self.engine.unjoin() };
        let index = self.pipes.vacant();
        self.piped = self.piped % (u32::MAX >> 2) + 1;
        let mut pipe = Pipe::new(self.piped, client.stream, to_client, server.stream, to_server);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let poller = &self.poller;
        let mut sockets = pipe.sockets(|number, side| pipe_token(index, number, side));
        if sockets.any(|(stream, token)| poller.rename(stream, token, interest).is_err()) {
            return self.engine.unjoin();
        }
        drop(sockets);
        self.pipes.set(index, pipe);
    }

    fn pump_pipes(&mut self) {
        for index in std::mem::take(&mut self.busy_pipes) {
            let Some(pipe) = self.pipes.get(index) else { continue };
            match pipe.pump(&mut self.buffer) {
                Pumped::Later => {}
                Pumped::More => self.busy_pipes.push(index),
                Pumped::Over => {
                    self.pipes.take(index);
                    self.engine.unjoin();
                }
            }
        }
    }

    /// Of what all workers tell alike the first one's word is enough.
    fn pass_on(&mut self, event: Event) {
        if self.first || !matches!(event.kind, "applied" | "upstream_up" | "upstream_down") {
            self.mailbox.tell(event);
        }
    }

    /// The dirty map of a replica lives in a file, if there is a place for it.
    fn open_map(&mut self, endpoint: usize, bit: u32, name: u64) {
        let Some(state_dir) = self.plan.state_dir.as_ref() else {
            return self.engine.map_in_memory(endpoint, bit);
        };
        let path = state_dir.join(format!("{name:016x}.map"));
        match FileMemory::open(&path, REGION_BYTES) {
            Ok(memory) => self.engine.map_opened(endpoint, bit, Box::new(memory), boot_id()),
            Err(e) => self.engine.map_failed(endpoint, bit, &format!("{}: {}", path.display(), words(&e))),
        }
    }

    /// A map that nobody marks must not be believed when its mirror comes back.
    fn remove_old_maps(&self) {
        let Some(state_dir) = self.plan.state_dir.as_ref() else { return };
        // An endpoint that has not resolved yet may turn out to be several, with maps of their own.
        let routes =
            self.plan.listeners.iter().flat_map(|l| l.routes.routes()).filter(|r| !r.mirrors.is_empty());
        let mirrored: Vec<usize> =
            routes.flat_map(|r| r.mirrors.iter().map(|m| m.cluster).chain([r.cluster])).collect();
        let concerned = |at: &usize| self.plan.group.is_some() || mirrored.contains(at);
        let mut clusters =
            self.plan.clusters.iter().enumerate().filter(|(at, _)| concerned(at)).map(|(_, c)| c);
        if clusters.any(|c| c.endpoints.is_empty() || c.endpoints.iter().any(|e| e.address.is_none())) {
            return;
        }
        let used: Vec<String> = self.engine.map_names().iter().map(|name| format!("{name:016x}")).collect();
        remove_files(state_dir, |name| {
            let stem = name.strip_suffix(".map");
            stem.is_some_and(|stem| stem.len() == 16 && !used.iter().any(|used| used == stem))
        });
    }

    fn connect(&mut self, key: usize, epoch: u32, address: &Address, dead_after_ms: u64) {
        let stream = match address {
            Address::Link(link) => self.post.call(&link.listener),
            _ => Stream::connect(address, Duration::from_millis(dead_after_ms)),
        };
        let opened = stream.and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poller.add(&mut stream, upstream_token(key, epoch), interest)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => {
                self.upstreams
                    .set(key, UpstreamSocket { epoch, stream, ready: Ready::default(), connecting: true });
            }
            Err(e) => self.engine.upstream_closed(key, epoch, &words(&e)),
        }
    }

    /// Whether it has drained.
    fn go_on_draining(&mut self, now: Now) -> bool {
        let Some(drain) = &mut self.drain else { return false };
        if drain.told || !(self.engine.is_drained() || now.ms >= drain.deadline) {
            return drain.told;
        }
        drain.told = true;
        let left: Vec<SessionId> = self.sessions.iter().map(|s| s.id).collect();
        let clients = left.iter().filter(|id| !self.engine.is_link(**id)).count();
        for id in left {
            self.close(id);
        }
        for (replica, effects) in self.engine.undelivered() {
            self.tell("lost", replica, format!("{effects} effects were not delivered when the drain ended"));
        }
        if let Some(closed) = self.draining.done(clients) {
            self.tell("drained", String::new(), format!("{closed} sessions were closed at the limit"));
        }
        true
    }
}

/// Where a client comes from and came in.
fn ends(stream: &Stream, bound: &Address) -> Ends {
    match (stream.addresses(), bound) {
        (Some((remote, local)), _) => Ends::tcp(remote, local),
        (None, Address::Unix(path)) => Ends::unix(path),
        (None, Address::Tcp(_) | Address::Link(_)) => Ends::default(), // it is gone again
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn wakers_token_is_nobodys() {
        assert_eq!(super::whose(super::super::sockets::WAKER), super::Whose::Waker);
    }
}
