//! A member's turn (`worker/turn.rs`), with simulated sockets in place of real ones: the same order of reading, ticking
//! and writing, the same edge-triggered readiness.

use std::io::IoSlice;

use redisha_core::flow::{Ends, Intent, SLICES, SessionId};
use redisha_core::plan::Address;

use super::council::Order;
use super::member::{Member, SessionSocket, UpstreamSocket};
use super::pipe::Pipe;
use super::plans::NAMES;
use super::view::Snapshot;
use super::world::{From, LATE, Link, To, World, say};

impl World {
    pub(super) fn run_member(&mut self, index: usize) {
        let mut member = self.members[index].take().expect("it has not its turn");
        if member.engine.is_none() && member.back_at <= self.now {
            let seed = self.rng.next();
            say!(self, "sidecar {} is started", NAMES[index]);
            member.start(&self.options, self.now, seed);
            self.act(&mut member);
        }
        if member.engine.is_some() && member.frozen_until <= self.now {
            self.turn(&mut member);
        }
        self.members[index] = Some(member);
    }

    fn turn(&mut self, m: &mut Member) {
        let now = m.time(self.now);
        m.engine().set_now(now);
        self.obey(m);
        self.take_events(m);
        let keys: Vec<usize> = m.sockets.keys().copied().collect();
        for key in keys {
            self.read_upstream(m, key);
        }
        self.read_sessions(m);
        m.engine().tick(now);
        m.engine().pump();
        self.write_upstreams(m);
        self.write_sessions(m);
        self.act(m);
    }

    /// The council looks, and what it orders is done.
    fn obey(&mut self, m: &mut Member) {
        for (_, peer) in m.merges.extract_if(.., |(at, _)| *at <= self.now).collect::<Vec<_>>() {
            say!(self, "{}: what {peer} wrote is merged", NAMES[m.index]);
            m.engine().merged(&peer, true);
        }
        if m.council.look_at * 1_000 > self.now {
            return;
        }
        let pause = match self.rng.below(200) {
            0 => self.rng.below(200),
            _ => 1 + self.rng.below(12),
        };
        m.council.look_at = self.now / 1_000 + pause;
        let Some(snapshot) = Snapshot::read(&m.registry.group()) else { return };
        let orders = m.council.wake(self.now / 1_000, &snapshot, &mut m.events, &mut self.rng);
        for note in std::mem::take(&mut m.council.notes) {
            say!(self, "council: {note}");
        }
        for order in orders {
            if !matches!(order, Order::Ask(..) | Order::Answer(..)) {
                say!(self, "{} is ordered {order:?}", NAMES[m.index]);
            }
            let engine = m.engine.as_mut().expect("its sidecar lives");
            match order {
                Order::Lead(term) => {
                    self.count("leaderships");
                    if self.options.consistent {
                        let other = self.leaders.insert(term, m.index);
                        assert!(
                            other.is_none_or(|o| o == m.index),
                            "two members were elected in term {term}"
                        );
                    }
                    engine.lead(term);
                }
                Order::Follow(term, leader) => engine.follow(term, &leader),
                Order::Yield(on) => engine.yield_lead(on),
                Order::Count(members) => {
                    // It had asked for this record before it noticed that its Redis is gone, with data: now nobody else
                    // may be elected. A known limit.
                    let just_now = |(at, of): &(u64, usize)| *of == m.index && self.now < at + LATE;
                    if members == [NAMES[m.index]] && self.lossy.as_ref().is_some_and(just_now) {
                        self.lost_alone = self.now;
                    }
                    engine.count_members(members);
                }
                Order::Ask(peer, number, text) => engine.ask_member(&peer, number, &text),
                Order::Answer(number, text) => engine.answer_member(number, &text),
            }
        }
    }

    fn take_events(&mut self, m: &mut Member) {
        std::mem::swap(&mut m.busy, &mut m.again);
        let now = self.now;
        for socket in m.sessions.values_mut() {
            let Some(link) = self.links.get(&socket.link) else { continue };
            if !link.up_frozen {
                let (arrived, ended) = (link.up.arrived(now), link.up.at_end(now));
                if arrived > socket.seen || (ended && !socket.seen_end) {
                    socket.seen = arrived;
                    socket.seen_end = ended;
                    socket.readable = true;
                    m.busy.push(socket.id);
                }
            }
            if socket.blocked && link.down.room() > 0 {
                socket.blocked = false;
                m.dirty_sessions.push(socket.id);
            }
        }
        for (key, socket) in &mut m.sockets {
            let room = socket.link.and_then(|id| self.links.get(&id)).map_or(0, |link| link.up.room());
            if socket.blocked && room > 0 {
                socket.blocked = false;
                m.dirty_upstreams.push(*key);
            }
        }
    }

    fn read_upstream(&mut self, m: &mut Member, key: usize) {
        let Some(socket) = m.sockets.get_mut(&key) else { return };
        let epoch = socket.epoch;
        if let Some((at, succeeds)) = socket.connecting {
            if at > self.now {
                return;
            }
            socket.connecting = None;
            if !succeeds {
                return m.engine().upstream_closed(key, epoch, "connection refused");
            }
            m.engine().upstream_connected(key, epoch);
        }
        let Some(id) = m.sockets.get(&key).and_then(|s| s.link) else { return };
        if let (Some(link), Some(socket)) = (self.links.get(&id), m.sockets.get_mut(&key)) {
            // TCP gives up when nothing is acknowledged.
            if (link.up_frozen || link.down_frozen) && link.up.is_busy() {
                let since = *socket.stuck_since.get_or_insert(self.now);
                if self.now >= since + socket.dead_after_us {
                    return m.engine().upstream_closed(key, epoch, "connection timed out");
                }
            } else {
                socket.stuck_since = None;
            }
        }
        loop {
            let Some(link) = self.links.get_mut(&id).filter(|l| !l.down_frozen) else { return };
            let bytes = link.down.receive(self.now, self.read);
            if bytes.is_empty() {
                if link.down.at_end(self.now) {
                    m.engine().upstream_closed(key, epoch, "it closed the connection");
                }
                return;
            }
            m.engine().upstream_bytes(key, epoch, &bytes);
        }
    }

    fn read_sessions(&mut self, m: &mut Member) {
        let mut busy = std::mem::take(&mut m.busy);
        for id in busy.drain(..) {
            self.read_session(m, id);
        }
        m.engine().take_runnable(&mut busy);
        for id in busy.drain(..) {
            m.engine().session_resume(id);
            self.read_session(m, id);
        }
        m.busy = busy;
    }

    fn read_session(&mut self, m: &mut Member, id: SessionId) {
        let Some(socket) = m.sessions.get_mut(&id.slot).filter(|s| s.id == id) else { return };
        let engine = m.engine.as_mut().expect("its sidecar lives");
        if !socket.readable || !engine.wants_read(id) {
            return;
        }
        let Some(link) = self.links.get_mut(&socket.link).filter(|l| !l.up_frozen) else { return };
        let closed = link.up.at_end(self.now) || socket.seen_end;
        let own = engine.session_buffer(id);
        let asked = own.as_ref().map_or(self.read, |(_, missing)| (*missing).min(16 * self.read));
        let bytes = link.up.receive(self.now, asked);
        if bytes.is_empty() {
            socket.readable = false;
            if link.up.at_end(self.now) {
                // A reset, or an orderly end.
                if link.from_gone && self.rng.one_in(2) {
                    return self.close(m, id);
                }
                engine.session_end_of_input(id);
            }
            return;
        }
        if bytes.len() >= asked || closed {
            m.again.push(id);
        } else {
            socket.readable = false;
        }
        if let Some((buffer, _)) = own {
            buffer.extend_from_slice(&bytes);
            engine.session_filled(id, bytes.len());
        } else {
            engine.session_bytes(id, &bytes);
        }
    }

    fn write_upstreams(&mut self, m: &mut Member) {
        let mut dirty = std::mem::take(&mut m.dirty_upstreams);
        for key in dirty.drain(..) {
            self.write_upstream(m, key);
        }
        m.engine().take_dirty_upstreams(&mut dirty);
        for key in dirty.drain(..) {
            self.write_upstream(m, key);
        }
        m.dirty_upstreams = dirty;
    }

    fn write_upstream(&mut self, m: &mut Member, key: usize) {
        loop {
            let engine = m.engine.as_mut().expect("its sidecar lives");
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = engine.upstream_output(key, &mut slices);
            let Some(socket) = m.sockets.get_mut(&key).filter(|s| s.connecting.is_none() && !s.blocked)
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
            engine.upstream_wrote(key, n);
        }
    }

    fn write_sessions(&mut self, m: &mut Member) {
        let mut dirty = std::mem::take(&mut m.dirty_sessions);
        for id in dirty.drain(..) {
            self.write_session(m, id);
        }
        m.engine().take_dirty_sessions(&mut dirty);
        for id in dirty.drain(..) {
            self.write_session(m, id);
        }
        m.dirty_sessions = dirty;
    }

    fn write_session(&mut self, m: &mut Member, id: SessionId) {
        let Some(socket) = m.sessions.get_mut(&id.slot).filter(|s| s.id == id) else { return };
        let engine = m.engine.as_mut().expect("its sidecar lives");
        let output = engine.session_output(id).to_vec();
        if !output.is_empty()
            && !socket.blocked
            && let Some(link) = self.links.get_mut(&socket.link)
        {
            let n = output.len().min(link.down.room());
            if n > 0 {
                link.down.send(self.now, &output[..n], &mut self.rng);
                engine.session_wrote(id, n);
            }
            socket.blocked = n < output.len();
        }
        if engine.session_is_finished(id) {
            self.close(m, id);
        }
    }

    fn close(&mut self, m: &mut Member, id: SessionId) {
        if let Some(socket) = m.sessions.remove(&id.slot)
            && let Some(link) = self.links.get_mut(&socket.link)
        {
            link.to_gone = true;
            link.down.close(self.now, &mut self.rng);
            link.up.reset(self.now);
            if link.from_gone {
                self.links.remove(&socket.link);
            }
        }
        m.engine().session_closed(id);
    }

    fn act(&mut self, m: &mut Member) {
        loop {
            let intents = m.engine().take_intents();
            if intents.is_empty() {
                return;
            }
            for intent in intents {
                match intent {
                    Intent::Connect { upstream, epoch, address, dead_after_ms } => {
                        self.connect(m, upstream, epoch, &address, dead_after_ms);
                    }
                    Intent::CloseUpstream { upstream } => self.close_upstream(m, upstream),
                    Intent::CloseSession { session } => {
                        if m.sessions.get(&session.slot).is_some_and(|s| s.id == session) {
                            self.close(m, session);
                        }
                    }
                    Intent::OpenMap { endpoint, bit, name } => {
                        let region = m.shelf.open(name);
                        let boot = m.shelf.boot;
                        m.engine().map_opened(endpoint, bit, region, boot);
                    }
                    Intent::Join { .. } => unreachable!("no client replicates here"),
                    Intent::AskOthers { .. } => unreachable!("there is one worker"),
                    Intent::Tell(event) => {
                        if !matches!(event.kind, "ask" | "answer") {
                            say!(
                                self,
                                "{} tells {} {}: {}",
                                NAMES[m.index],
                                event.kind,
                                event.subject,
                                event.detail
                            );
                        }
                        if event.kind == "merge" {
                            // What each side wrote alone is not merged here: it is as if there were nothing.
                            let at = self.now + self.rng.below(30_000);
                            m.merges.push((at, event.subject.clone()));
                        }
                        m.events.push_back(event);
                    }
                }
            }
        }
    }

    fn close_upstream(&mut self, m: &mut Member, key: usize) {
        let Some(socket) = m.sockets.remove(&key) else { return };
        let Some(id) = socket.link else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        // What the engine gave to its socket may still arrive; what comes back is not read any more.
        link.from_gone = true;
        link.up.close(self.now, &mut self.rng);
        link.down.reset(self.now);
        if link.to_gone {
            self.links.remove(&id);
        }
    }

    fn connect(&mut self, m: &mut Member, key: usize, epoch: u32, address: &Address, dead_after_ms: u64) {
        let Address::Tcp(address) = address else { return };
        let octets = address.to_string();
        let (net, host) = (octets.as_bytes()[5], usize::from(octets.as_bytes()[7] - b'0'));
        let at = self.now + self.rng.below(self.delay + 1);
        let mut socket = UpstreamSocket {
            epoch,
            link: None,
            connecting: Some((at, false)),
            blocked: false,
            dead_after_us: dead_after_ms * 1_000,
            stuck_since: None,
        };
        let pipes = || (Pipe::new(self.room, self.delay), Pipe::new(self.room, self.delay));
        let mut to = None;
        if net == b'0' {
            if self.redises[host].down_until <= self.now {
                to = Some(To::Redis(host, self.redises[host].accept()));
            }
        } else if self.blocked[m.index][host] > self.now || self.blocked[host][m.index] > self.now {
            socket.connecting = Some((u64::MAX, true)); // nobody answers
        } else if self.lives(host) {
            to = Some(To::Member(host));
        }
        if let Some(to) = to {
            let (up, down) = pipes();
            let id = self.next_link;
            say!(self, "{} connects to {to:?}, link {id}", NAMES[m.index]);
            self.next_link += 1;
            if let To::Member(host) = to {
                let other = self.member(host);
                let Ok(session) = other.engine().session_open(1, Ends::default()) else { return };
                let fresh = SessionSocket {
                    id: session,
                    link: id,
                    readable: true,
                    seen: 0,
                    seen_end: false,
                    blocked: false,
                };
                other.sessions.insert(session.slot, fresh);
                other.busy.push(session);
            }
            let link = Link {
                from: From::Member(m.index),
                to,
                up,
                down,
                from_gone: false,
                to_gone: false,
                up_frozen: false,
                down_frozen: false,
            };
            self.links.insert(id, link);
            socket.link = Some(id);
            socket.connecting = Some((at, true));
        }
        m.sockets.insert(key, socket);
    }
}
