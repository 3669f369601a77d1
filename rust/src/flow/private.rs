//! Connections of one client: for what a connection that all share must not carry.
//!
//! A subscription, MONITOR, what is watched, and a command that blocks belong to the connection they were sent on. A
//! session that needs one gets a connection of its own to the Redis, beside the shared one that its other commands take.
//! It is kept for a while after its last use and ends with the session. What the server says on it unasked goes to the
//! session as it comes.

use crate::command::{Command, Flags, KeyShape, Treatment};
use crate::resp::{Reply, Request, RequestScanner, encode};

use super::Engine;
use super::blocked::Unblock;
use super::call::{Call, ClientCall, Convert, NO_ENTRY, command_of};
use super::effect::Rule;
use super::ingress::Step;
use super::keys::ANY;
use super::place::Place;
use super::session::{Ending, NO_PATH, Session, Wait};
use super::ticket::SessionId;
use super::tracking::{Becomes, Tracking};
use super::upstream::{Entered, Role, Stream, Upstream};

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
    lost: bool,
    /// Messages that wait for the end of a long reply.
    held: Vec<u8>,
    /// When it last carried something, milliseconds.
    used_ms: u64,
}

/// What a command needs a connection of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Subscribe,
    Monitor,
    Watch,
    /// It may block, or ends what keeps the shared connection busy.
    Command,
    /// It reads, and the server is to remember what.
    Tracked,
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

/// Whether a command starts or ends subscriptions.
pub fn is_subscription(command: &Command) -> bool {
    matches!(
        command.name,
        "subscribe" | "unsubscribe" | "psubscribe" | "punsubscribe" | "ssubscribe" | "sunsubscribe"
    )
}

/// Whether a command may block: `BLPOP`, `WAIT`, and `XREAD` and `XREADGROUP` if they say so.
pub fn blocks(command: &Command) -> bool {
    command.flags.contains(Flags::BLOCKING) || command.shape == KeyShape::Streams || command.name == "wait"
}

impl Private {
    fn subscriptions(&self) -> u32 {
        self.channels + self.patterns + self.shards
    }

    /// A subscription began or ended; `count` is what the server says there are now, of channels and patterns or of shard
    /// channels.
    fn count(&mut self, kind: &[u8], count: u32) {
        match kind {
            b"subscribe" | b"unsubscribe" => self.channels = count.saturating_sub(self.patterns),
            b"psubscribe" | b"punsubscribe" => self.patterns = count.saturating_sub(self.channels),
            _ => self.shards = count,
        }
    }

    /// How many there are of those that a command without arguments ends.
    fn ended_by(&self, name: &str) -> u32 {
        match name {
            "unsubscribe" => self.channels,
            "punsubscribe" => self.patterns,
            _ => self.shards,
        }
    }
}

impl Session {
    /// Its own connection.
    pub fn private(&mut self) -> Option<&mut Private> {
        self.extra.as_mut()?.private.as_mut()
    }

    fn private_ref(&self) -> Option<&Private> {
        self.extra.as_ref()?.private.as_ref()
    }

    /// Whether it has a connection of its own.
    pub fn has_private(&self) -> bool {
        self.private_ref().is_some()
    }

    /// Whether it has subscriptions.
    #[inline]
    pub fn is_subscriber(&self) -> bool {
        self.private_ref().is_some_and(|p| p.subscriptions() > 0)
    }

    /// Its subscriptions to channels, patterns and shard channels.
    pub fn subscriptions(&self) -> [u32; 3] {
        self.private_ref().map_or([0; 3], |p| [p.channels, p.patterns, p.shards])
    }

    /// Whether it sees every command of the server.
    pub fn is_monitor(&self) -> bool {
        self.private_ref().is_some_and(|p| p.monitors)
    }

    /// Whether it is told what nobody asked for.
    pub fn is_listening(&self) -> bool {
        self.is_subscriber()
            || self.private_ref().is_some_and(|p| p.monitors || p.told || p.tracking.is_some())
    }

    /// Whether it watches keys.
    pub fn is_watching(&self) -> bool {
        self.private_ref().is_some_and(|p| p.watching)
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
        let Some(wanted) = Use::of(command) else {
            let text = format!(
                "ERR '{}' is refused: it is not for clients of a sidecar; send it to the Redis itself",
                command.name.replace('|', " ")
            );
            return self.refuse(slot, &text);
        };
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
        private.used_ms = self.now.ms;
        let upstream = &mut self.upstreams[key];
        let offset = upstream.out.queued();
        let redirects = self.endpoints[upstream.endpoint].redirects;
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
                convert: Convert::Verbatim,
            })
        };
        upstream.expect(call, self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        if self.sessions[slot].hung_up {
            self.hung.push(self.sessions[slot].id);
        }
        if matches!(wanted, Use::Watch | Use::Tracked) { Step::Done } else { Step::Taken(Wait::Quiet) }
    }

    /// Who subscribes and who looks on does so at the nearest Redis; other commands go where their keys are.
    pub(super) fn place_privately(
        &mut self,
        slot: usize,
        wanted: Use,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Result<Place, Step> {
        let grouped = self.is_in_group(slot);
        if grouped && matches!(wanted, Use::Subscribe | Use::Monitor) {
            let local = self.group.as_ref().map_or(usize::MAX, |g| g.local);
            return Ok(Place::at(local));
        }
        if grouped {
            // What is watched, and what is waited for, is where the writes are.
            let ends = command.name.ends_with("|kill") && !self.runs_script();
            let reads = wanted == Use::Command && !command.is_write() && !ends;
            return self.place_in_group(slot, Some(command).filter(|_| reads));
        }
        self.place(slot, Some(command), request).map_err(|text| self.no_route(slot, &text))
    }

    /// Whether this member's own Redis may be busy with a script of a client.
    fn runs_script(&self) -> bool {
        let local = self.group.as_ref().and_then(|g| self.endpoints.get(g.local)?.serve[0]);
        let first = local.and_then(|key| self.upstreams.get(key)?.calls.front());
        let script = |c: &Command| c.name.starts_with("eval") || c.name.starts_with("fcall");
        matches!(first, Some(Call::Client(call)) if command_of(call.command).is_some_and(script))
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
        let key = self.open_private(slot, endpoint);
        if in_flight > 0 && path != key {
            return Err(Step::Stall(Wait::Quiet));
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
        if wanted == Use::Subscribe && resp == 2 && self.sessions[slot].is_subscriber() {
            return Ok(key); // in this state the server takes nothing else
        }
        let upstream = &mut self.upstreams[key];
        match upstream.enter(db, Some(resp), self.now.ms) {
            Entered::Yes => Ok(key),
            Entered::Wait => {
                upstream.wait(id, false);
                Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
                Err(Step::Stall(Wait::Upstream))
            }
            Entered::Refused | Entered::Busy => {
                let text = upstream.refusal(db);
                Err(self.refuse(slot, &text))
            }
        }
    }

    /// The session's own connection; a new one unless there is one.
    pub(super) fn open_private(&mut self, slot: usize, endpoint: usize) -> usize {
        let (session, resp, now_ms) = (self.sessions[slot].id, self.sessions[slot].resp, self.now.ms);
        let open = self.sessions[slot].private_ref().map_or(NO_PATH, |p| p.upstream);
        if open != NO_PATH {
            return open;
        }
        let resp = if self.endpoints[endpoint].peer { 2 } else { resp };
        let key = self.new_upstream(endpoint, Role::Private { session }, resp);
        let watching = self.sessions[slot].is_watching(); // on the one before: so it stays until EXEC
        self.sessions[slot].extra().private = Some(Private {
            upstream: key,
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
            used_ms: now_ms,
        });
        key
    }

    /// `UNSUBSCRIBE` and its like by who has no subscription.
    fn unsubscribe_nothing(&mut self, slot: usize, command: &Command, request: &Request<'_>) -> Step {
        let resp3 = self.sessions[slot].resp == 3;
        self.answer_now(slot, |out| {
            for i in 1..request.len().max(2) {
                encode::push(out, 3, resp3);
                encode::bulk(out, command.name.as_bytes());
                if request.len() > 1 {
                    encode::bulk(out, request.arg(i));
                } else {
                    encode::nil(out, resp3);
                }
                encode::integer(out, 0);
            }
        })
    }

    /// Whether what a private connection says is not the reply to a command: then it is passed on.
    pub(super) fn told_privately(&mut self, key: usize, id: SessionId, reply: Reply<'_>) -> bool {
        let upstream = &self.upstreams[key];
        let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id) else {
            return false;
        };
        let asked = matches!(upstream.calls.front(), Some(Call::Subscribe { .. }));
        let said = match reply.bytes().first() {
            Some(b'>') => true,
            Some(b'*') => upstream.resp() == 2 && (asked || session.is_subscriber()),
            Some(b'-') => {
                let refused = matches!(
                    upstream.calls.front(),
                    Some(Call::Client(call)) if command_of(call.command).is_some_and(|c| c.name == "monitor")
                );
                if let Some(private) = session.private().filter(|_| refused) {
                    private.monitors = false;
                }
                false
            }
            Some(b'+') => upstream.calls.is_empty() && session.private_ref().is_some_and(|p| p.monitors),
            _ => false,
        };
        if !said {
            if session.private_ref().is_some_and(|p| p.becomes != Becomes::Unchanged) {
                self.note_tracking(key, id.slot as usize, reply);
            }
            return false;
        }
        let busy = self.upstreams.get(session.path).is_some_and(|u| u.stream == Stream::To(id));
        let mut fields = reply.elements();
        let kind = fields.next().and_then(Reply::text).unwrap_or_default();
        let changes = kind.ends_with(b"subscribe");
        let count = if changes { fields.nth(1).and_then(Reply::integer).unwrap_or(0) } else { 0 };
        let silent = session.resp == 2 && session.is_muted(session.issued);
        if session.ending != Ending::Broken && !silent {
            match session.extra.as_mut().and_then(|e| e.private.as_mut()).filter(|_| busy) {
                Some(private) => private.held.extend_from_slice(reply.bytes()),
                None => session.output.extend_from_slice(reply.bytes()),
            }
            Self::mark_session(session, &mut self.dirty_sessions);
        }
        if let Some(private) = session.private().filter(|_| changes) {
            private.count(kind, u32::try_from(count).unwrap_or(0));
        }
        let upstream = &mut self.upstreams[key];
        upstream.alive(self.now.ms);
        if changes && let Some(Call::Subscribe { left, .. }) = upstream.calls.front_mut() {
            *left -= 1;
            if *left == 0
                && let Some(Call::Subscribe { ticket: Some(ticket), .. }) = upstream.settled(self.now.ms)
            {
                self.settle(ticket, |_| {});
            }
        }
        self.check_output(id);
        true
    }

    /// Whether what is being received there, and is long, is a message rather than a reply.
    pub(super) fn is_told_privately(&self, key: usize) -> bool {
        let Some(upstream) = self.upstreams.get(key) else { return false };
        upstream.partial.first() == Some(&b'>')
            || matches!(upstream.calls.front(), Some(Call::Subscribe { .. }) | None)
    }

    /// The long reply to a session has ended: what it was to be told meanwhile follows.
    pub(super) fn tell_held(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        if let Some(held) = session.private().map(|p| std::mem::take(&mut p.held)) {
            session.output.extend_from_slice(&held);
        }
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
            Some(Call::Client(call)) => !command_of(call.command).is_some_and(blocks),
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

    /// `UNWATCH`, and what implies it.
    pub(super) fn forget_watched(&mut self, slot: usize) {
        let Some(private) = self.sessions[slot].private().filter(|p| p.watching) else { return };
        private.watching = false;
        private.lost = false;
        let key = private.upstream;
        let Some(upstream) = self.upstreams.get_mut(key).filter(|u| u.is_ready()) else {
            return self.leave_private(slot);
        };
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &["UNWATCH"]);
        upstream.out.push(&bytes);
        upstream.expect(Call::Told, self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
    }

    /// `UNWATCH`.
    pub(super) fn unwatch(&mut self, slot: usize) -> Step {
        self.forget_watched(slot);
        self.answer_now(slot, |out| encode::status(out, "OK"))
    }

    /// The connection that a transaction of a session takes which watches keys. `endpoint`: where its commands go, if they
    /// go anywhere. `Ok(None)`: what was watched is lost, and the transaction must not be executed.
    pub(super) fn enter_watched(
        &mut self,
        slot: usize,
        endpoint: Option<usize>,
    ) -> Result<Option<usize>, Step> {
        let own = self.sessions[slot].private_ref().filter(|p| !p.lost);
        let key = own.map_or(NO_PATH, |p| p.upstream);
        let Some(upstream) = self.upstreams.get(key).filter(|u| u.is_ready()) else { return Ok(None) };
        let endpoint = endpoint.unwrap_or(upstream.endpoint);
        if self.is_in_group(slot) && upstream.endpoint != endpoint {
            return Ok(None); // another member leads now
        }
        let overdue = self.sessions[slot].overdue;
        let key = self.enter_private(slot, endpoint, Use::Watch)?;
        if self.endpoints[endpoint].sequencer.is_some() {
            self.sessions[slot].overdue = overdue; // to wait for the barrier is no less to wait
            self.bar(slot, endpoint)?;
        }
        Ok(Some(key))
    }

    /// The client of a session is gone, or will send no more. One that blocks is not waited with: what it would be given
    /// would be lost (Redis does the same).
    pub fn session_hung_up(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        session.hung_up = true;
        if self.is_blocked(id.slot as usize) {
            self.leave_line(id, Unblock::Gone);
            self.close_session(id.slot as usize);
        }
    }

    /// The same for those that blocked afterwards and were not answered at once.
    pub(super) fn close_hung(&mut self) {
        for id in std::mem::take(&mut self.hung) {
            self.session_hung_up(id);
        }
    }

    /// End what a session blocks for. `false`: it does not block.
    pub(super) fn unblock(&mut self, slot: usize, how: Unblock) -> bool {
        if !self.is_blocked(slot) {
            return false;
        }
        if self.leave_line(self.sessions[slot].id, how) {
            return true;
        }
        let own = self.sessions[slot].private_ref().and_then(|p| self.upstreams.get(p.upstream));
        let Some((number, endpoint)) =
            own.and_then(|u| Some((u.identity.as_ref()?.client_id, u.endpoint))).filter(|(n, _)| *n != 0)
        else {
            return false;
        };
        let word = if how == Unblock::Error { "ERROR" } else { "TIMEOUT" };
        // Where its own connection waits for that reply, another has to say it.
        let serves = self.endpoints[endpoint].serve.iter().flatten().copied();
        let ready = |key: &usize| self.upstreams.get(*key).is_some_and(Upstream::is_ready);
        let Some(key) = serves.into_iter().find(ready) else { return false };
        let upstream = &mut self.upstreams[key];
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &["CLIENT", "UNBLOCK", &number.to_string(), word]);
        upstream.out.push(&bytes);
        upstream.expect(Call::Told, self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        true
    }

    /// Whether the session waits for a command that blocks.
    pub(super) fn is_blocked(&self, slot: usize) -> bool {
        let Some(session) = self.sessions.get(slot) else { return false };
        if self.waits_in_line(session.id) {
            return true;
        }
        let own = session.private_ref().map(|p| p.upstream);
        let upstream = own.and_then(|key| self.upstreams.get(key));
        upstream.and_then(|u| u.calls.front()).is_some_and(|call| match call {
            Call::Client(call) => call.ticket.is_some() && command_of(call.command).is_some_and(blocks),
            _ => false,
        })
    }
}

/// Whether a command may stand between MULTI and EXEC although it needs a connection of its own elsewhere: there it does
/// not block.
pub fn is_harmless_in_transaction(command: &Command) -> bool {
    (command.treatment == Treatment::Private || command.shape == KeyShape::Streams) && blocks(command)
}
