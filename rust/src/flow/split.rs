//! Commands that concern several servers: one part for each of them, and one reply for the client.
//!
//! ```text
//! MGET a:1 b:1 a:2 ─▶ MGET a:1 a:2 ─▶ cluster a ─▶ *2 … ┐
//!                  └▶ MGET b:1 ─────▶ cluster b ─▶ *1 … ┴▶ Merge ─▶ *3 …
//! ```
//!
//! A part is a client's command like any other, with its own entry in its sequencer's log; only its ticket says that the
//! reply belongs to a [`Merge`]. Nothing else of the session is in flight meanwhile.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::command::{Command, KeysResult, keys};
use crate::resp::{Request, RequestScanner, encode};

use super::Engine;
use super::cursor;
use super::ingress::{Incoming, Step, wrong_arity};
use super::keys::ANY;
use super::merge::{Join, Merge, Naming, Part};
use super::part::{frame_of, plain, scan_frame};
use super::place::{Called, Elsewhere, Place, Server};
use super::session::Wait;
use super::ticket::{PartId, Ticket};

/// What one server is sent.
struct Share {
    endpoint: usize,
    writes: u32,
    reads: u32,
    samples: u32,
    frame: Vec<u8>,
    part: Part,
}

/// Keys that go the same way.
struct Group {
    endpoint: usize,
    writes: u32,
    reads: u32,
    samples: u32,
    /// Each key's argument, and how much of it is cut off.
    keys: Vec<(usize, usize)>,
    /// The place of each among all keys.
    places: Vec<u32>,
}

/// Why a command cannot be sent in parts.
enum Refusal {
    NoRoute(String),
    Malformed(String),
}

impl Engine {
    /// A command that has no single place: sent in parts, if that is possible.
    #[cold]
    pub(super) fn split(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
        elsewhere: &Elsewhere,
    ) -> Step {
        let join = |c| self.join_of(c, elsewhere).or_else(|| self.join_of_slots(slot, c, elsewhere));
        let Some((command, join)) = command.and_then(|c| Some((c, join(c)?))) else {
            let text = self.why_not(slot, request, elsewhere);
            return self.no_route(slot, &text);
        };
        if self.sessions[slot].in_flight() > 0 {
            return Step::Stall(Wait::Quiet);
        }
        let shares = match (elsewhere, join) {
            (Elsewhere::Everywhere, Join::Page { .. }) => self.share_of_scan(slot, command, request),
            (Elsewhere::Everywhere, _) => self.shares_of_all(slot, command, request).map(|s| (join, s)),
            _ => self.shares_of_keys(slot, command, request, join).map(|s| (join, s)),
        };
        match shares {
            Ok((join, shares)) => self.send_shares(slot, command, join, shares),
            Err(Refusal::NoRoute(text)) => self.no_route(slot, &text),
            Err(Refusal::Malformed(text)) => self.refuse(slot, &text),
        }
    }

    /// How the replies of a command become one, if it can be sent in parts.
    fn join_of(&self, command: &Command, elsewhere: &Elsewhere) -> Option<Join> {
        match (elsewhere, command.name) {
            (Elsewhere::Apart(_), "mget") => Some(Join::Elements),
            (Elsewhere::Apart(_), "mset") | (Elsewhere::Everywhere, "flushall" | "flushdb") => {
                Some(Join::Status)
            }
            (Elsewhere::Apart(_), "del" | "unlink" | "exists" | "touch")
            | (Elsewhere::Everywhere, "dbsize") => Some(Join::Sum),
            (Elsewhere::Everywhere, "keys") => Some(Join::Names),
            (Elsewhere::Everywhere, "randomkey") => {
                let drawn = self.seed.wrapping_add(self.now.us).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                Some(Join::Any { draw: drawn >> 16 })
            }
            (Elsewhere::Everywhere, "scan") => Some(Join::Page { index: 0, servers: 0 }),
            _ => None,
        }
    }

    /// The same where any server may be asked to run a script or a function: those are for all of them.
    fn join_of_slots(&self, slot: usize, command: &Command, elsewhere: &Elsewhere) -> Option<Join> {
        let listener = self.listeners.get(self.sessions[slot].listener)?;
        let libraries = matches!(
            command.name,
            "script|load"
                | "script|flush"
                | "function|load"
                | "function|delete"
                | "function|flush"
                | "function|restore"
        );
        let anywhere = listener.routes.iter().all(|r| r.by_slot || r.scattered);
        (libraries && anywhere && matches!(elsewhere, Elsewhere::Everywhere)).then_some(Join::First)
    }

    /// The parts of a command with keys: those that go the same way together, in the client's order.
    fn shares_of_keys(
        &self,
        slot: usize,
        command: &'static Command,
        request: &Request<'_>,
        join: Join,
    ) -> Result<Vec<Share>, Refusal> {
        let mut indices = SmallVec::new();
        let known = keys(command, request, &mut indices) == KeysResult::Known;
        let values = usize::from(command.name == "mset");
        if !known || request.len() != 1 + indices.len() * (1 + values) {
            return Err(Refusal::Malformed(wrong_arity(command.name)));
        }
        let reads = super::place::only_reads(command);
        let mut groups: Vec<Group> = Vec::new();
        // (A Redis Cluster has thousands of slots.)
        let mut ways = HashMap::with_hasher(FixedState::default());
        for (place, index) in (0..).zip(indices.iter().map(|i| *i as usize)) {
            let found = self
                .place_key(slot, Some(command), request.arg(index), reads)
                .map_err(|e| Refusal::NoRoute(self.why_not(slot, request, &e)))?;
            let (endpoint, writes, reads) = (found.target.endpoint, found.writes, found.reads);
            let samples = found.target.samples;
            let at = *ways.entry((endpoint, writes, reads, samples, found.slot)).or_insert_with(|| {
                groups.push(Group { endpoint, writes, reads, samples, keys: Vec::new(), places: Vec::new() });
                groups.len() - 1
            });
            groups[at].keys.push((index, found.strip));
            groups[at].places.push(place);
        }
        let share = |group: Group| {
            let Group { endpoint, writes, reads, samples, keys, places } = group;
            let places = if join == Join::Elements { places } else { Vec::new() };
            let part = Part { endpoint, places, naming: None, reply: None };
            Share { endpoint, writes, reads, samples, frame: frame_of(request, &keys, values), part }
        };
        Ok(groups.into_iter().map(share).collect())
    }

    /// The parts of a command about all keys.
    fn shares_of_all(
        &self,
        slot: usize,
        command: &Command,
        request: &Request<'_>,
    ) -> Result<Vec<Share>, Refusal> {
        let servers = self.servers_of(slot, command, request)?;
        let mut shares = Vec::with_capacity(servers.len());
        for server in &servers {
            let naming = match command.name {
                "keys" | "randomkey" => self.naming_of(slot, server, command)?,
                _ => None,
            };
            let (frame, naming) = match naming {
                // The server does not know the whole names, so all of its keys are looked at here.
                Some(naming) if command.name == "keys" => {
                    let mut frame = Vec::new();
                    encode::command(&mut frame, &[request.arg(0), b"*"]);
                    let pattern = Some(request.arg(1).to_vec());
                    (frame, Some(Naming { pattern, ..naming }))
                }
                naming => (plain(request), naming),
            };
            shares.push(share_of(server, frame, naming));
        }
        Ok(shares)
    }

    /// The one part of a `SCAN`: the server whose turn it is.
    fn share_of_scan(
        &self,
        slot: usize,
        command: &Command,
        request: &Request<'_>,
    ) -> Result<(Join, Vec<Share>), Refusal> {
        let servers = self.servers_of(slot, command, request)?;
        let Some((server, index, own)) = cursor::parse(request.arg(1), servers.len())
            .and_then(|(index, own)| Some((servers.get(index)?, index, own)))
        else {
            return Err(Refusal::Malformed("ERR invalid cursor".to_owned()));
        };
        let naming = self.naming_of(slot, server, command)?;
        let (frame, pattern) = scan_frame(request, own, naming.is_some());
        let naming = naming.map(|n| Naming { pattern, ..n });
        Ok((Join::Page { index, servers: servers.len() }, vec![share_of(server, frame, naming)]))
    }

    fn servers_of(
        &self,
        slot: usize,
        command: &Command,
        request: &Request<'_>,
    ) -> Result<Vec<Server>, Refusal> {
        let servers = self.servers_behind(self.sessions[slot].listener, command);
        servers.map_err(|e| Refusal::NoRoute(self.why_not(slot, request, &e)))
    }

    /// What clients call the keys of a server. An error where that is not one thing.
    fn naming_of(&self, slot: usize, server: &Server, command: &Command) -> Result<Option<Naming>, Refusal> {
        let routes = self.plan.listeners.get(self.sessions[slot].listener).map(|l| &l.routes);
        match server.called {
            Called::AsTheyAre => Ok(None),
            Called::WithoutPrefix(route) => {
                let prefix = routes.and_then(|r| r.get(route)).map(|r| r.prefix.clone()).unwrap_or_default();
                Ok(Some(Naming { prefix, pattern: None }))
            }
            Called::InSeveralWays => Err(Refusal::NoRoute(format!(
                "CROSSROUTE '{}' cannot tell the names of the keys on {}: several routes lead there, and with remove_prefix a key \
                 does not tell which; send it to that Redis",
                command.name,
                self.name_of(server.endpoint)
            ))),
        }
    }

    /// Send all parts, or none: not before each connection is ready.
    fn send_shares(
        &mut self,
        slot: usize,
        command: &'static Command,
        join: Join,
        shares: Vec<Share>,
    ) -> Step {
        let overdue = std::mem::take(&mut self.sessions[slot].overdue);
        let mut scanner = RequestScanner::default();
        let mut ways = Vec::with_capacity(shares.len());
        for share in &shares {
            scanner.scan(&share.frame, ANY);
            let request = scanner.request(&share.frame);
            let simple = command.simple_reply(request.len());
            let mut entered = self.enter(slot, share.endpoint, simple);
            if overdue && matches!(entered, Err(Step::Stall(_))) {
                // It is this one that was waited for.
                self.sessions[slot].overdue = true;
                entered = self.enter(slot, share.endpoint, simple);
            }
            let key = match entered {
                Ok(key) => key,
                Err(step) => return step,
            };
            if let Some(text) = self.too_large_for_server(key, &request) {
                return self.refuse(slot, &text);
            }
            ways.push((key, simple));
        }
        for share in &shares {
            self.took_turn(share.endpoint);
        }
        let ticket = self.accept(slot);
        let session = ticket.session();
        let (parts, sent): (Vec<Part>, Vec<_>) = shares
            .into_iter()
            .map(|s| (s.part, (s.endpoint, [s.writes, s.reads, s.samples], s.frame)))
            .unzip();
        let merge = self.merges.insert(Merge {
            ticket: Some(ticket),
            started_us: self.now.us,
            command: command.name,
            writes: command.is_write(),
            join,
            parts,
            held: 0,
            overflowed: false,
        });
        for (index, ((endpoint, [writes, reads, samples], frame), (key, simple))) in
            sent.into_iter().zip(ways).enumerate()
        {
            scanner.scan(&frame, ANY);
            let incoming = Incoming { request: scanner.request(&frame), owner: None };
            let place = Place { writes, reads, samples, ..Place::at(endpoint) };
            let ticket = Ticket::part_of(session, PartId { merge, index });
            self.send(ticket, Some(command), &incoming, &place, key, simple);
        }
        Step::Taken(Wait::Quiet)
    }

    /// The end of a part.
    #[cold]
    pub(super) fn part_answered(&mut self, ticket: Ticket, write: impl FnOnce(&mut Vec<u8>)) {
        let (part, attempt) = (ticket.part(), ticket.attempt());
        ticket.settle();
        let mut reply = Vec::new();
        write(&mut reply);
        if let Some(waiter) = attempt {
            return self.attempt_answered(waiter, &reply);
        }
        if let Some(part) = part {
            self.join_part(part, reply);
        }
    }

    fn join_part(&mut self, part: PartId, reply: Vec<u8>) {
        let max = self.limits.max_output;
        let Some(merge) = self.merges.get_mut(part.merge) else { return };
        if !merge.answered(part.index, reply, max) {
            return;
        }
        let mut merge = self.merges.remove(part.merge);
        let Some(ticket) = merge.ticket.take() else { return };
        let failed = merge.failed().map(|endpoint| self.name_of(endpoint)).unwrap_or_default();
        let id = ticket.session();
        if let Some(listener) = self.session(id).map(|s| s.listener).and_then(|l| self.listeners.get(l)) {
            listener.stats.time.record(self.now.us.saturating_sub(merge.started_us));
        }
        self.settle(ticket, |out| merge.write(max, &failed, out));
    }

    /// The reply to a part is held until the others are here. When that is more than may be held, none of them is.
    pub(super) fn shed_part(&mut self, key: usize) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let Some(call) = upstream.calls.front_mut() else { return };
        let Some(part) = call.ticket().and_then(Ticket::part) else { return };
        let Some(merge) = self.merges.get_mut(part.merge) else { return };
        if !merge.overflowed && merge.held + upstream.partial.len() <= self.limits.max_output {
            return;
        }
        merge.overflow();
        if let Some(ticket) = call.take_ticket() {
            self.settle(ticket, |_| {});
        }
    }
}

fn share_of(server: &Server, frame: Vec<u8>, naming: Option<Naming>) -> Share {
    let Server { endpoint, writes, reads, samples, .. } = *server;
    let part = Part { endpoint, places: Vec::new(), naming, reply: None };
    Share { endpoint, writes, reads, samples, frame, part }
}
