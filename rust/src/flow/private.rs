//! Connections of one client: for what a connection that all share must not carry.
//!
//! A subscription, MONITOR, what is watched, and a command that blocks belong to the connection they were sent on. A
//! session that needs one gets a connection of its own to the Redis, beside the shared one that its other commands take.
//! It is kept for a while after its last use and ends with the session.

use crate::command::Command;
use crate::resp::{Request, RequestScanner, encode};

use super::Engine;
use super::call::{Call, ClientCall, Convert, NO_ENTRY};
use super::effect::Rule;
use super::ingress::Step;
use super::keys::ANY;
use super::place::Place;
use super::replicate::is_replication;
use super::session::{NO_PATH, Session, Wait};
use super::subscribe::is_subscription;
use super::ticket::SessionId;
use super::tracking::{Becomes, Tracking};
use super::unblock::blocks;
use super::upstream::{Role, Upstream};

/// How long a connection is kept that carries nothing, milliseconds.
const KEPT_MS: u64 = 30_000;

/// A session's own connection and what it carries.
#[derive(Debug)]
pub struct Private {
    /// The connection; none once it broke with keys being watched.
    pub upstream: usize,
    /// Subscriptions to channels, patterns and shard channels.
    pub channels: u32,
    /// See `channels`.
    pub patterns: u32,
    /// See `channels`.
    pub shards: u32,
    /// It sees every command of the server.
    pub monitors: bool,
    /// Keys are being watched.
    pub watching: bool,
    /// The server remembers what is read on it.
    pub tracking: Option<Tracking>,
    /// Another session's reads are invalidated here.
    pub told: bool,
    /// What `tracking` becomes if the server agrees.
    pub becomes: Becomes,
    /// They were watched on a connection that broke: what is done to them is not known.
    pub(super) lost: bool,
    /// Messages that wait for the end of a long reply.
    pub(super) held: Vec<u8>,
    /// The command that it blocks in, if it does.
    pub(super) waits_for: Box<[u8]>,
    /// When it last carried something, milliseconds.
    used_ms: u64,
}

impl Private {
    /// A connection that carries nothing yet. `watching`: keys were watched on one before, which is lost.
    pub fn new(upstream: usize, watching: bool, now_ms: u64) -> Self {
        Self {
            upstream,
            channels: 0,
            patterns: 0,
            shards: 0,
            monitors: false,
            watching,
            tracking: None,
            told: false,
            becomes: Becomes::Unchanged,
            lost: watching,
            held: Vec::new(),
            waits_for: Box::default(),
            used_ms: now_ms,
        }
    }
}

/// What a command needs a connection of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Subscribe,
    Monitor,
    Watch,
    /// It may block, or ends what keeps the shared connection busy.
    Command,
    /// It takes this connection, and the session goes on.
    Tracked,
    /// The connection is given up to the client.
    Replicate,
}

impl Use {
    fn of(command: &Command) -> Option<Self> {
        match command.name {
            _ if is_subscription(command) => Some(Self::Subscribe),
            "monitor" => Some(Self::Monitor),
            "watch" => Some(Self::Watch),
            "function|kill" | "script|kill" => Some(Self::Command),
            _ if blocks(command) => Some(Self::Command),
            _ => None,
        }
    }
}

impl Session {
    /// Its own connection.
    pub fn private(&mut self) -> Option<&mut Private> {
        self.extra.as_mut()?.private.as_mut()
    }

    pub(super) fn private_ref(&self) -> Option<&Private> {
        self.extra.as_ref()?.private.as_ref()
    }

    /// Whether it has a connection of its own.
    pub fn has_private(&self) -> bool {
        self.private_ref().is_some()
    }
}

impl Engine {
    /// A command that needs a connection of its own.
    pub(super) fn private_command(
        &mut self,
        slot: usize,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Step {
        if is_replication(command) {
            return self.replicate(slot, command, request);
        }
        let Some(wanted) = Use::of(command) else { return self.refuse_privately(slot, command) };
        if wanted == Use::Subscribe
            && command.name.contains("unsubscribe")
            && !self.sessions[slot].is_subscriber()
        {
            return self.unsubscribe_nothing(slot, command, request);
        }
        let place = match self.place_privately(slot, wanted, command, request) {
            Ok(place) => place,
            Err(step) => return step,
        };
        let sequenced = self.endpoints[place.endpoint].sequencer.is_some();
        if sequenced && wanted == Use::Command && command.is_write() {
            return self.block_in_line(slot, command, request, place);
        }
        let key = match self.enter_private(slot, place.endpoint, wanted) {
            Ok(key) => key,
            Err(step) => return step,
        };
        let frame = place.stripped(request);
        self.send_privately(slot, key, wanted, command, request, frame.as_deref().unwrap_or(request.frame))
    }

    pub(super) fn refuse_privately(&mut self, slot: usize, command: &Command) -> Step {
        let text = format!(
            "ERR '{}' is refused: it is not for clients of a sidecar; send it to the Redis itself",
            command.name.replace('|', " ")
        );
        self.refuse(slot, &text)
    }

    fn block_in_line(&mut self, slot: usize, command: &Command, request: &Request<'_>, place: Place) -> Step {
        let Some(frame) = place.stripped(request) else { return self.block(slot, command, request, place) };
        let mut scanner = RequestScanner::default();
        scanner.scan(&frame, ANY);
        self.block(slot, command, &scanner.request(&frame), place)
    }

    pub(super) fn send_privately(
        &mut self,
        slot: usize,
        key: usize,
        wanted: Use,
        command: &'static Command,
        request: &Request<'_>,
        frame: &[u8],
    ) -> Step {
        self.count_request(slot);
        let ticket = self.issue(slot);
        let session = &mut self.sessions[slot];
        session.path = key;
        let Some(private) = session.extra.as_mut().and_then(|e| e.private.as_mut()) else {
            return Step::Done;
        };
        let waits = wanted == Use::Command && blocks(command);
        private.waits_for = if waits { request.frame.into() } else { Box::default() };
        let upstream = &mut self.upstreams[key];
        let offset = upstream.out.queued();
        let redirects = self.endpoints[upstream.endpoint].redirects && wanted != Use::Subscribe;
        let kept = redirects.then(|| upstream.out.push_kept(frame));
        if kept.is_none() {
            upstream.out.push(frame);
        }
        let count = &self.endpoints[upstream.endpoint].stats.count;
        count.upstream_rq_total.inc();
        let call = if wanted == Use::Subscribe {
            let named = request.len() - 1;
            let left = if named > 0 { named } else { private.ended_by(command.name).max(1) as usize };
            Call::Subscribe { ticket: Some(ticket), left, offset }
        } else {
            count.upstream_rq_active.add(1);
            private.watching |= wanted == Use::Watch;
            private.monitors |= wanted == Use::Monitor;
            Call::Client(ClientCall {
                ticket: Some(ticket),
                started_us: self.now.us,
                offset,
                end: upstream.out.queued(),
                entry: NO_ENTRY,
                command: command.id,
                db: session.db,
                kept,
                hops: 0,
                rule: Rule::Never,
                convert: Convert::of(command).unwrap_or(Convert::Verbatim),
                blocks: waits,
            })
        };
        upstream.expect(call, self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        if self.sessions[slot].hung_up {
            self.hung.push(self.sessions[slot].id);
        }
        if matches!(wanted, Use::Watch | Use::Tracked) { Step::Done } else { Step::Taken(Wait::Quiet) }
    }

    /// The Redis of this sidecar, in a group; else where a command without keys goes.
    pub(super) fn place_nearest(
        &mut self,
        slot: usize,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Result<Place, Step> {
        if self.is_in_group(slot) {
            return Ok(Place::at(self.group.as_ref().map_or(usize::MAX, |g| g.local)));
        }
        self.place(slot, Some(command), request).map_err(|text| self.no_route(slot, &text))
    }

    /// Who subscribes and who looks on does so at the nearest Redis; other commands go where their keys are.
    fn place_privately(
        &mut self,
        slot: usize,
        wanted: Use,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Result<Place, Step> {
        let own = self.sessions[slot].private_ref().and_then(|p| self.upstreams.get(p.upstream));
        if let Some(own) = own.filter(|_| command.name.ends_with("unsubscribe")) {
            return Ok(Place::at(own.endpoint)); // where it is subscribed
        }
        if !self.is_in_group(slot) || matches!(wanted, Use::Subscribe | Use::Monitor) {
            return self.place_nearest(slot, command, request);
        }
        // What is watched, and what is waited for, is where the writes are.
        let ends = command.name.ends_with("|kill") && !self.runs_script();
        let reads = wanted == Use::Command && !command.is_write() && !ends;
        self.place_in_group(slot, Some(command).filter(|_| reads))
    }

    /// Whether this member's own Redis may be busy with a script of a client.
    fn runs_script(&self) -> bool {
        let local = self.group.as_ref().and_then(|g| self.endpoints.get(g.local)?.serve[0]);
        local.and_then(|key| self.upstreams.get(key)).is_some_and(Upstream::runs_script)
    }

    /// The session's own connection, to this endpoint, ready and in its context.
    pub(super) fn enter_private(&mut self, slot: usize, endpoint: usize, wanted: Use) -> Result<usize, Step> {
        let session = &mut self.sessions[slot];
        let overdue = std::mem::take(&mut session.overdue);
        let (id, resp, db, path, in_flight) =
            (session.id, session.resp, session.db, session.path, session.in_flight());
        let in_flight = in_flight - u64::from(self.reissue.is_some());
        let session = &self.sessions[slot];
        let own = session.private_ref().map(|p| p.upstream).filter(|key| *key != NO_PATH);
        if let Some(elsewhere) =
            own.filter(|key| self.upstreams.get(*key).is_none_or(|u| u.endpoint != endpoint))
        {
            if session.is_watching() || session.is_listening() {
                let name = self.upstreams.get(elsewhere).and_then(|u| self.endpoints.get(u.endpoint));
                let text = format!(
                    "CROSSROUTE this connection watches keys on {}, or is subscribed there: use another connection for {}",
                    name.map(super::Endpoint::name).unwrap_or_default(),
                    self.endpoints[endpoint].name()
                );
                return Err(self.refuse(slot, &text));
            }
            if in_flight > 0 {
                return Err(Step::Stall(Wait::Quiet));
            }
            self.leave_private(slot);
        }
        let key = self.open_private(slot, endpoint, wanted);
        if in_flight > 0 && path != key {
            return Err(Step::Stall(Wait::Quiet));
        }
        if self.reissue.is_none()
            && let Some(step) = self.wait_for_late(slot, endpoint, key, overdue)
        {
            return Err(step);
        }
        if let Some(private) = self.sessions[slot].private() {
            private.used_ms = self.now.ms;
        }
        let upstream = &mut self.upstreams[key];
        if !upstream.is_ready() {
            if upstream.patient && !overdue {
                upstream.wait(id, false);
                return Err(Step::Stall(Wait::Upstream));
            }
            let reason = std::mem::take(&mut upstream.reason);
            self.leave_broken(slot, key);
            let endpoint = &self.endpoints[endpoint];
            endpoint.stats.count.upstream_rq_unavailable.inc();
            let text = format!(
                "UNAVAILABLE cluster {}: a connection of its own to {} could not be opened: {reason}; nothing was sent, try \
                 again",
                endpoint.cluster, endpoint.id
            );
            return Err(self.refuse(slot, &text));
        }
        if upstream.is_full() {
            if overdue {
                return Err(self.overdue(slot, endpoint));
            }
            upstream.wait(id, self.reissue.is_some());
            return Err(Step::Stall(Wait::Upstream));
        }
        if wanted == Use::Replicate
            || wanted == Use::Subscribe && resp == 2 && self.sessions[slot].is_subscriber()
        {
            return Ok(key); // in this state the server takes nothing else
        }
        self.set_context(slot, key, db, Some(resp))
    }

    /// The session's own connection; a new one unless there is one.
    pub(super) fn open_private(&mut self, slot: usize, endpoint: usize, wanted: Use) -> usize {
        let (session, resp, now_ms) = (self.sessions[slot].id, self.sessions[slot].resp, self.now.ms);
        let open = self.sessions[slot].private_ref().map_or(NO_PATH, |p| p.upstream);
        if open != NO_PATH {
            return open;
        }
        let resp = if self.endpoints[endpoint].peer { 2 } else { resp };
        // (Who monitors would see how others are opened.)
        let spare = if wanted == Use::Monitor { None } else { self.take_spare(endpoint, session, resp) };
        self.took_turn(endpoint);
        let key = spare.unwrap_or_else(|| self.new_upstream(endpoint, Role::Private { session }, resp));
        let watching = self.sessions[slot].is_watching(); // on the one before: so it stays until EXEC
        self.sessions[slot].extra().private = Some(Private::new(key, watching, now_ms));
        key
    }

    /// Another member says that it does not lead: nothing that waits for a reply there was executed.
    pub(super) fn refused_privately(&mut self, key: usize, id: SessionId) {
        let resp3 = self.session(id).is_some_and(|s| s.resp == 3);
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let (calls, endpoint) = (std::mem::take(&mut upstream.calls), upstream.endpoint);
        for mut call in calls {
            let watched = matches!(call, Call::Transaction(_));
            if call.started_us().is_some() {
                self.endpoints[endpoint].stats.count.upstream_rq_active.dec();
            }
            let Some(ticket) = call.take_ticket() else { continue };
            let text = "UNAVAILABLE another member of the group leads now; nothing was done, try again";
            self.settle(ticket, |out| {
                if watched {
                    encode::nil_array(out, resp3); // what was watched is not known any more
                } else {
                    encode::error(out, text);
                }
            });
        }
        self.break_upstream(key, "it does not lead");
    }

    /// A private connection is gone. `stood`: it was ready.
    pub(super) fn private_lost(&mut self, key: usize, id: SessionId, stood: bool) {
        if !stood {
            return; // its session asks for it, and is told why
        }
        if self.upstreams.contains(key) {
            self.upstreams.remove(key);
        }
        self.private_removed(key, id);
    }

    /// The same, whatever its state was: its session must not take the next connection of that key for its own.
    pub(super) fn private_removed(&mut self, key: usize, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        let listening = session.is_listening();
        let Some(private) = session.private().filter(|p| p.upstream == key) else { return };
        private.upstream = NO_PATH;
        if listening {
            // What it would have been told is lost: its client subscribes again, as with a Redis that is lost.
            self.close_session(id.slot as usize);
        } else if !private.watching {
            self.sessions[id.slot as usize].extra().private = None;
        }
    }

    /// The session needs no connection of its own any more.
    pub(super) fn leave_private(&mut self, slot: usize) {
        let private = self.sessions.get_mut(slot).and_then(|s| s.extra.as_mut()?.private.take());
        if let Some(private) = private.filter(|p| p.upstream != NO_PATH) {
            self.remove_upstream(private.upstream);
        }
    }

    /// The session's own connection could not be opened. That it watched keys on one before is not forgotten.
    fn leave_broken(&mut self, slot: usize, key: usize) {
        match self.sessions[slot].private().filter(|p| p.watching) {
            Some(private) => {
                private.upstream = NO_PATH;
                self.remove_upstream(key);
            }
            None => self.leave_private(slot),
        }
    }

    /// Look at a private connection that is ready: whether its calls may be answered by time.
    pub(super) fn expire_private(&mut self, key: usize, silent: bool) -> bool {
        match self.upstreams[key].calls.front() {
            Some(Call::Client(call)) => !call.blocks,
            Some(Call::Subscribe { .. }) if silent => {
                self.break_upstream(key, "it did not answer within op_timeout");
                false
            }
            Some(Call::Subscribe { .. }) => false,
            _ => true,
        }
    }

    /// Close private connections that carry nothing.
    pub(super) fn sweep_private(&mut self) {
        let idle = |s: &Session| {
            s.private_ref().is_some_and(|p| {
                !p.watching && !s.is_listening() && p.used_ms + KEPT_MS <= self.now.ms && s.in_flight() == 0
            })
        };
        let slots: Vec<usize> = self.sessions.iter().filter(|(_, s)| idle(s)).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.leave_private(slot);
        }
    }

    /// The session speaks another version of the protocol: what it is told is written in that.
    pub(super) fn speak_privately(&mut self, slot: usize) {
        let session = &self.sessions[slot];
        let (resp, db) = (session.resp, session.db);
        let Some(key) = session.private_ref().map(|p| p.upstream) else { return };
        if let Some(upstream) = self.upstreams.get_mut(key).filter(|u| u.is_ready() && u.resp() != resp) {
            upstream.enter(db, Some(resp), self.now.ms);
            Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        }
    }
}
