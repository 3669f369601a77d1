//! From a command to the connection it leaves on: route, context, and on a mirrored endpoint its entry in the log.

use crate::command::{Command, Flags, Treatment, needs_private, takes_a_server_away};
use crate::resp::{Request, RequestScanner};

use super::Engine;
use super::call::{Call, ClientCall, Convert, NO_ENTRY, UNKNOWN};
use super::copy::copies_behind;
use super::effect::{self, Rule};
use super::expiry::minds_expiry;
use super::ingress::{Incoming, Step};
use super::keys::ANY;
use super::log::{Entry, Kind, State, UNCHECKED};
use super::place::Place;
use super::session::{Peering, Wait};
use super::store::{ADOPT, Piece};
use super::ticket::Ticket;
use super::upstream::{Entered, Phase, Role};
use crate::plan::spec::{Consistency, ReadLevel, WriteLevel};

/// A command whose bytes are to be taken over from the buffer they were read into.
#[derive(Debug)]
pub(super) struct Adoption {
    upstream: usize,
    entry: Option<Entry>,
    call: ClientCall,
}

impl Engine {
    /// Send a command on its way.
    pub(super) fn forward(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        incoming: &Incoming<'_, '_>,
    ) -> Step {
        let request = incoming.request;
        if let Some(command) = command
            && (command.treatment == Treatment::Private || needs_private(command, &request))
        {
            return self.private_command(slot, command, &request);
        }
        let grouped = self.is_in_group(slot);
        let placed = if grouped {
            self.place_in_group(slot, command)
        } else {
            match self.locate(slot, command, &request) {
                Ok(place) => Ok(place),
                Err(elsewhere) => return self.split(slot, command, &request, &elsewhere),
            }
        };
        let place = match placed {
            Ok(place) => place,
            Err(step) => return step,
        };
        if (place.writes != 0 || grouped) && command.is_some_and(|c| takes_a_server_away(c, &request)) {
            let text = format!(
                "ERR '{}' is refused: it would break the mirroring of this route; send it to the Redis itself",
                command.map_or("", |c| c.name)
            );
            return self.refuse(slot, &text);
        }
        if self.sessions[slot].is_tracking()
            && let Some(step) = self.forward_tracked(slot, command, &request, &place)
        {
            return step;
        }
        let simple = command.is_some_and(|c| c.simple_reply(request.len()));
        let key = match self.enter(slot, place.endpoint, simple) {
            Ok(key) => key,
            Err(step) => return step,
        };
        if let Some(text) = self.too_large_for_server(key, &request) {
            return self.refuse(slot, &text);
        }
        self.took_turn(place.endpoint);
        let Some(frame) = place.stripped(&request) else {
            let ticket = self.accept(slot);
            return self.send(ticket, command, incoming, &place, key, simple);
        };
        let mut scanner = RequestScanner::default();
        scanner.scan(&frame, ANY);
        let incoming = Incoming { request: scanner.request(&frame), owner: None };
        let ticket = self.accept(slot);
        self.send(ticket, command, &incoming, &place, key, simple)
    }

    /// A command is about to be sent.
    #[inline]
    pub(super) fn accept(&mut self, slot: usize) -> Ticket {
        self.count_request(slot);
        self.issue(slot)
    }

    /// The server would close the connection that all share: its own limit is lower than ours.
    pub(super) fn too_large_for_server(&self, key: usize, request: &Request<'_>) -> Option<String> {
        let max = self.upstreams.get(key)?.identity.as_ref()?.max_bulk;
        let over = request.frame.len() as u64 > max && request.args_from(0).any(|arg| arg.len() as u64 > max);
        over.then(|| format!("ERR an argument is larger than the server's proto-max-bulk-len ({max} bytes)"))
    }

    /// Queue a command, or a part of one, on its connection, which is ready and in its context.
    pub(super) fn send(
        &mut self,
        ticket: Ticket,
        command: Option<&'static Command>,
        incoming: &Incoming<'_, '_>,
        place: &Place,
        key: usize,
        simple: bool,
    ) -> Step {
        let slot = ticket.session().slot as usize;
        let request = &incoming.request;
        let writes = command.is_none_or(Command::is_write);
        let attempts = ticket.attempt().is_some();
        if place.samples != 0 {
            self.sample(&ticket, command, request, place);
        }
        let mut rule = Rule::Never;
        let mut rewritten = false;
        let mut entry = None;
        if writes && place.writes != 0 {
            rule = Rule::Same;
            if let Some(command) = command {
                self.scratch.clear();
                let prepared = effect::prepare(command, request, self.now.unix_ms, &mut self.scratch);
                (rule, rewritten) = (prepared.rule, prepared.rewritten);
            }
            if place.mixed && rule != Rule::Never {
                rule = Rule::Sync;
            }
            if minds_expiry(command, request) {
                rule = self.mind_expiry(key, command, request, rule);
            }
            if rule != Rule::Never && !copies_behind(rule) {
                let publishes = command.is_some_and(|c| c.flags.contains(Flags::PUBSUB));
                entry = Some((place.writes, if publishes { Kind::Publish } else { Kind::Write }));
            }
        } else if place.reads != 0 && command.is_some_and(|c| c.flags.contains(Flags::READONLY)) {
            rule = Rule::Same;
            entry = Some((place.reads, Kind::Read));
        }
        if writes && (rule != Rule::Never || place.marks != 0) {
            self.mark_request(place, self.sessions[slot].db, command, request);
        }
        let session = &mut self.sessions[slot];
        let upstream = &mut self.upstreams[key];
        session.path = key;
        let entry = entry.map(|(replicas, kind)| Entry {
            piece: Piece::EMPTY,
            replicas,
            db: session.db,
            replies: 1,
            state: State::Pending,
            kind,
            digest: UNCHECKED,
            selects: false,
            at_ms: self.now.ms,
        });
        let call = ClientCall {
            ticket: Some(ticket),
            started_us: self.now.us,
            offset: upstream.out.queued(),
            end: 0,
            entry: NO_ENTRY,
            command: command.map_or(UNKNOWN, |c| c.id),
            db: session.db,
            kept: None,
            hops: 0,
            rule,
            convert: match (simple, session.resp, upstream.resp()) {
                _ if matches!(session.peering, Peering::Stream { .. }) => Convert::Verbatim,
                _ if let Some(convert) = command.and_then(Convert::of) => convert,
                (true, 2, 3) => Convert::NilTo2,
                (true, 3, 2) => Convert::NilTo3,
                _ => Convert::Verbatim,
            },
            blocks: false,
        };
        if let Some(owner) = incoming.owner
            && !rewritten
            && !copies_behind(rule)
            && request.frame.len() >= ADOPT
            && self.blocked.is_empty()
        {
            owner.set(true);
            self.adoption = Some(Adoption { upstream: key, entry, call });
            return Step::Adopted;
        }
        let scratch = std::mem::take(&mut self.scratch);
        let bytes = if rewritten { &scratch[..] } else { request.frame };
        self.emit(key, entry, call, |log| match log {
            Room::Log(log, entry) => (log.append(bytes, entry), None),
            Room::Own(out, false) => {
                out.push(bytes);
                (NO_ENTRY, None)
            }
            Room::Own(out, true) => (NO_ENTRY, Some(out.push_kept(bytes))),
        });
        self.scratch = scratch;
        if copies_behind(rule) {
            self.copy_behind(slot, place, command, request);
        }
        if writes && !attempts && !self.blocked.is_empty() {
            let db = self.sessions[slot].db;
            let most = request.len().saturating_sub(2).max(1);
            self.wake_blocked(place.endpoint, db, request.frame, most);
        }
        Step::Done
    }

    /// The buffer of the command that was just taken, to leave as it is.
    pub(super) fn adopt_input(&mut self, bytes: Vec<u8>) {
        let Some(Adoption { upstream, entry, call }) = self.adoption.take() else { return };
        self.emit(upstream, entry, call, |place| match place {
            Room::Log(log, entry) => (log.adopt(bytes, entry), None),
            Room::Own(out, false) => {
                out.push_adopted(bytes);
                (NO_ENTRY, None)
            }
            Room::Own(out, true) => (NO_ENTRY, Some(out.push_adopted_kept(bytes))),
        });
    }

    /// Put a command's bytes where they leave from, and remember that a reply is awaited.
    #[inline]
    fn emit(
        &mut self,
        key: usize,
        entry: Option<Entry>,
        mut call: ClientCall,
        place: impl FnOnce(Room<'_>) -> (u64, Option<Piece>),
    ) {
        let kept = self.is_kept(key);
        let upstream = &mut self.upstreams[key];
        let endpoint = &mut self.endpoints[upstream.endpoint];
        match (entry, endpoint.sequencer.as_mut()) {
            (Some(entry), Some(sequencer)) => {
                (call.entry, _) = place(Room::Log(&mut sequencer.log, entry));
                if let Some(entry) = sequencer.log.get(call.entry) {
                    upstream.out.push_log(entry.piece);
                }
            }
            _ => {
                (_, call.kept) = place(Room::Own(&mut upstream.out, kept));
            }
        }
        call.end = upstream.out.queued();
        upstream.expect(Call::Client(call), self.now.ms);
        let count = &endpoint.stats.count;
        count.upstream_rq_total.inc();
        count.upstream_rq_active.add(1);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
    }

    /// The connection a session's next command takes, ready and in its context.
    pub(super) fn enter(&mut self, slot: usize, endpoint: usize, simple: bool) -> Result<usize, Step> {
        let session = &self.sessions[slot];
        let (id, resp, db) = (session.id, session.resp, session.db);
        let (path, in_flight) = (session.path, session.in_flight());
        let session = &mut self.sessions[slot];
        let overdue = std::mem::take(&mut session.overdue) | std::mem::take(&mut session.stuck);
        let again = self.reissue.is_some();
        let sequenced = self.endpoints[endpoint].sequencer.is_some();
        let grouped = self.is_groups_own(endpoint) || self.endpoints[endpoint].peer;
        let serve = if self.endpoints[endpoint].peer {
            serve_of(self.sessions[slot].consistency)
        } else {
            usize::from(resp == 3 && !sequenced)
        };
        let mut key = match self.endpoints[endpoint].serve[serve] {
            Some(key) => key,
            None => {
                let resp = if grouped { 2 } else { resp };
                let key = self.new_upstream(endpoint, Role::Serve, resp);
                self.endpoints[endpoint].serve[serve] = Some(key);
                key
            }
        };
        if self.is_held_up(key)
            && !again
            && let Some(relief) = self.relief(endpoint, serve)
        {
            key = relief;
        }
        if !again
            && self.sessions[slot].extra.is_some()
            && let Some(step) = self.wait_for_late(slot, endpoint, key, overdue)
        {
            return Err(step);
        }
        if in_flight > 0 && path != key && !again && !self.may_spread(path, key) {
            return Err(Step::Stall(Wait::Quiet));
        }
        let waits = self.endpoints[endpoint].sequencer.as_ref().is_some_and(|s| s.is_closed());
        let upstream = &mut self.upstreams[key];
        if waits && upstream.is_ready() {
            if overdue {
                return Err(self.not_filled(slot, endpoint));
            }
            upstream.wait(id, again);
            return Err(Step::Stall(Wait::Upstream));
        }
        if !upstream.is_ready() {
            if (upstream.is_worth_waiting() || grouped) && overdue {
                return Err(self.overdue(slot, endpoint));
            }
            if upstream.is_worth_waiting() || grouped {
                upstream.wait(id, again);
                return Err(Step::Stall(Wait::Upstream));
            }
            let endpoint = &self.endpoints[endpoint];
            endpoint.stats.count.upstream_rq_unavailable.inc();
            let doing = if matches!(upstream.phase, Phase::Down { .. }) { "is down" } else { "is not ready" };
            let text = format!(
                "UNAVAILABLE cluster {}: {} {doing}: {}; nothing was sent, try again",
                endpoint.cluster, endpoint.id, upstream.reason
            );
            return Err(self.refuse(slot, &text));
        }
        let full = upstream.is_full();
        if overdue && (full || !upstream.is_in(db)) {
            return Err(self.overdue(slot, endpoint));
        }
        if full {
            upstream.wait(id, again);
            return Err(Step::Stall(Wait::Upstream));
        }
        self.set_context(slot, key, db, (!simple).then_some(resp))
    }

    /// Bring a connection into a session's context, or have the session wait for that.
    #[inline]
    pub(super) fn set_context(
        &mut self,
        slot: usize,
        key: usize,
        db: u16,
        resp: Option<u8>,
    ) -> Result<usize, Step> {
        let (id, again) = (self.sessions[slot].id, self.reissue.is_some());
        let upstream = &mut self.upstreams[key];
        match upstream.enter(db, resp, self.now.ms) {
            Entered::Yes => Ok(key),
            Entered::Wait => {
                upstream.wait(id, again);
                Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
                Err(Step::Stall(Wait::Upstream))
            }
            Entered::Refused | Entered::Busy => {
                let text = upstream.refusal(db);
                Err(self.refuse(slot, &text))
            }
        }
    }

    /// A session has waited for its turn for `op_timeout`.
    pub(super) fn overdue(&mut self, slot: usize, endpoint: usize) -> Step {
        self.sessions[slot].stuck = self.sessions[slot].is_link();
        let endpoint = &self.endpoints[endpoint];
        let text = format!(
            "TIMEOUT cluster {}: {} has not answered for op_timeout; nothing was sent, try again",
            endpoint.cluster, endpoint.id
        );
        self.refuse(slot, &text)
    }

    /// A session has waited for a primary that is not to be used yet.
    fn not_filled(&mut self, slot: usize, endpoint: usize) -> Step {
        self.sessions[slot].stuck = self.sessions[slot].is_link();
        let endpoint = &self.endpoints[endpoint];
        endpoint.stats.count.upstream_rq_unavailable.inc();
        let text = format!(
            "UNAVAILABLE cluster {}: {} lost data and is being refilled from its mirror; nothing was sent, try again",
            endpoint.cluster, endpoint.id
        );
        self.refuse(slot, &text)
    }

    pub(super) fn unsupported(&mut self, slot: usize, name: &str) -> Step {
        if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
            listener.stats.count.downstream_rq_unsupported.inc();
        }
        let name = name.replace('|', " ");
        let text = format!(
            "ERR '{name}' cannot stand between MULTI and EXEC through redisha: send it outside of them"
        );
        self.refuse_queueing(slot, &text)
    }

    pub(super) fn no_route(&mut self, slot: usize, text: &str) -> Step {
        if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
            listener.stats.count.downstream_rq_no_route.inc();
        }
        self.refuse_queueing(slot, text)
    }
}

/// Which of the connections to another member is for a consistency.
fn serve_of(consistency: Consistency) -> usize {
    let read = usize::from(consistency.read == ReadLevel::Leader);
    read + 2 * match consistency.write {
        WriteLevel::One => 0,
        WriteLevel::Quorum => 1,
        WriteLevel::All => 2,
    }
}

/// The consistency that a connection to another member is for.
pub(super) fn consistency_of(serve: usize) -> Consistency {
    let write =
        [WriteLevel::One, WriteLevel::Quorum, WriteLevel::All].get(serve / 2).copied().unwrap_or_default();
    Consistency { write, read: if serve % 2 == 1 { ReadLevel::Leader } else { ReadLevel::One } }
}

/// Where a command's bytes are put.
enum Room<'a> {
    Log(&'a mut super::log::Log, Entry),
    /// With whether they are kept until the reply.
    Own(&'a mut super::outgoing::Outgoing, bool),
}
