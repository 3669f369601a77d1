//! The worker's turn, with simulated sockets in place of real ones: the same order of reading, ticking and writing, the
//! same edge-triggered readiness.

use std::io::IoSlice;

use redisha_core::flow::{Intent, SLICES, SessionId};
use redisha_core::plan::Address;

use super::pipe::Pipe;
use super::plans::NAMES;
use super::world::{Link, UpstreamSocket, World, say};

impl World {
    pub(super) fn turn(&mut self) {
        if self.run_turn().is_none() {
            self.crash_engine();
        }
    }

    /// `None`: the sidecar died in the middle of it.
    fn run_turn(&mut self) -> Option<()> {
        let now = self.time();
        self.engine.set_now(now);
        self.take_events();
        let keys: Vec<usize> = self.sockets.keys().copied().collect();
        for key in keys {
            self.live_on()?;
            self.read_upstream(key);
        }
        self.live_on()?;
        self.read_sessions();
        self.live_on()?;
        self.engine.tick(now);
        self.engine.pump();
        self.live_on()?;
        self.write_upstreams()?;
        self.live_on()?;
        self.write_sessions();
        self.live_on()?;
        self.act();
        self.live_on()
    }

    /// `None`: the sidecar dies here.
    fn live_on(&mut self) -> Option<()> {
        (!self.dies()).then_some(())
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
            if ended && client.vanished {
                self.engine.session_hung_up(socket.id);
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

    fn write_upstreams(&mut self) -> Option<()> {
        let mut dirty = std::mem::take(&mut self.dirty_upstreams);
        for key in dirty.drain(..) {
            self.write_upstream(key);
        }
        self.engine.take_dirty_upstreams(&mut dirty);
        for key in dirty.drain(..) {
            self.live_on()?;
            self.write_upstream(key);
        }
        self.dirty_upstreams = dirty;
        Some(())
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

    pub(super) fn write_sessions(&mut self) {
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

    pub(super) fn close(&mut self, id: SessionId) {
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
                    Intent::OpenMap { endpoint, bit, name } => {
                        if self.shelf.blind && self.rng.one_in(2) {
                            say!(self, "the map {name:016x} cannot be opened");
                            self.engine.map_failed(endpoint, bit, "no space left on device");
                        } else {
                            say!(self, "the map {name:016x} is opened");
                            let region = self.shelf.open(name);
                            self.engine.map_opened(endpoint, bit, region, self.shelf.boot);
                        }
                    }
                    Intent::Join { .. } => unreachable!("no client replicates here"),
                    Intent::AskOthers { .. } => unreachable!("there is one worker"),
                    Intent::Tell(event) => {
                        *self.told.entry(event.kind).or_default() += 1;
                        say!(self, "told: {event:?}");
                        if event.kind == "refill" {
                            self.refill(&event.subject);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn close_upstream(&mut self, key: usize) {
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
}
