//! From a command to the connection it leaves on: route, context, and on a mirrored endpoint its entry in the log.

use smallvec::SmallVec;

use crate::command::{Command, Flags, KeysResult, Treatment, keys, needs_private, other_db};
use crate::resp::{Request, RequestScanner, encode};

use super::call::{Call, ClientCall, Convert, NO_ENTRY, SyncCall, UNKNOWN};
use super::effect::{self, Rule};
use super::ingress::{Incoming, Step};
use super::keys::ANY;
use super::log::{Entry, Kind, State, UNCHECKED};
use super::session::Wait;
use super::store::{ADOPT, Piece};
use super::upstream::{Entered, Phase, Role};
use super::{Engine, Target};

/// Most keys of one command that are copied directly behind it.
const COPIES_AT_ONCE: usize = 64;

/// A key of a command and where it goes.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// Its argument.
    index: u32,
    /// Bytes of its prefix that are cut off.
    strip: usize,
    /// The replicas that get it.
    replicas: u32,
}

/// Where a command goes.
#[derive(Debug)]
pub(super) struct Place {
    pub endpoint: usize,
    /// Replicas that get it if it writes.
    pub writes: u32,
    /// Replicas that get it if it reads.
    pub reads: u32,
    /// Its keys, where they had to be looked at.
    keys: SmallVec<[Placed; 4]>,
    /// Its keys do not all have the same replicas.
    mixed: bool,
}

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
            return self.unsupported(slot, command.name);
        }
        let place = match self.place(slot, command, &request) {
            Ok(place) => place,
            Err(text) => return self.no_route(slot, &text),
        };
        if place.writes != 0 && command.is_some_and(|c| c.treatment == Treatment::Refused) {
            let text = format!(
                "ERR '{}' is refused: it would break the mirroring of this route; send it to the Redis itself",
                command.map_or("", |c| c.name)
            );
            return self.refuse(slot, &text);
        }
        let simple = command.is_some_and(|c| c.simple_reply(request.len()));
        let key = match self.enter(slot, place.endpoint, simple) {
            Ok(key) => key,
            Err(step) => return step,
        };
        if let Some(text) = self.too_large_for_server(key, &request) {
            return self.refuse(slot, &text);
        }
        let Some(frame) = Self::stripped(&request, &place) else {
            return self.send(slot, command, incoming, &place, key, simple);
        };
        let mut scanner = RequestScanner::default();
        scanner.scan(&frame, ANY);
        let incoming = Incoming { request: scanner.request(&frame), owner: None };
        self.send(slot, command, &incoming, &place, key, simple)
    }

    /// The server would close the connection that all share: its own limit is lower than ours.
    fn too_large_for_server(&self, key: usize, request: &Request<'_>) -> Option<String> {
        let max = self.upstreams[key].identity.as_ref()?.max_bulk;
        let over = request.frame.len() as u64 > max && request.args_from(0).any(|arg| arg.len() as u64 > max);
        over.then(|| format!("ERR an argument is larger than the server's proto-max-bulk-len ({max} bytes)"))
    }

    /// The command with its prefixes cut off; `None` when nothing is cut off.
    pub(super) fn stripped(request: &Request<'_>, place: &Place) -> Option<Vec<u8>> {
        if place.keys.iter().all(|k| k.strip == 0) {
            return None;
        }
        let mut frame = Vec::with_capacity(request.frame.len());
        encode::array(&mut frame, request.len());
        for i in 0..request.len() {
            let strip = place.keys.iter().find(|k| k.index as usize == i).map_or(0, |k| k.strip);
            encode::bulk(&mut frame, request.arg(i).get(strip..).unwrap_or(&[]));
        }
        Some(frame)
    }

    /// Queue a command on its connection, which is ready and in its context.
    fn send(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        incoming: &Incoming<'_, '_>,
        place: &Place,
        key: usize,
        simple: bool,
    ) -> Step {
        let request = &incoming.request;
        let writes = command.is_none_or(Command::is_write);
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
            if rule != Rule::Never && !copies_behind(rule) {
                let publishes = command.is_some_and(|c| c.flags.contains(Flags::PUBSUB));
                entry = Some((place.writes, if publishes { Kind::Publish } else { Kind::Write }));
            }
        } else if place.reads != 0 && command.is_some_and(|c| c.flags.contains(Flags::READONLY)) {
            rule = Rule::Same;
            entry = Some((place.reads, Kind::Read));
        }
        self.count_request(slot);
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
            ticket: Some(session.issue()),
            started_us: self.now.us,
            offset: upstream.out.queued(),
            end: 0,
            entry: NO_ENTRY,
            command: command.map_or(UNKNOWN, |c| c.id),
            rule,
            convert: match (simple, session.resp, upstream.resp()) {
                (true, 2, 3) => Convert::NilTo2,
                (true, 3, 2) => Convert::NilTo3,
                _ => Convert::Verbatim,
            },
        };
        if let Some(owner) = incoming.owner
            && !rewritten
            && !copies_behind(rule)
            && request.frame.len() >= ADOPT
        {
            owner.set(true);
            self.adoption = Some(Adoption { upstream: key, entry, call });
            return Step::Adopted;
        }
        let scratch = std::mem::take(&mut self.scratch);
        let bytes = if rewritten { &scratch[..] } else { request.frame };
        self.emit(key, entry, call, |log| match log {
            Room::Log(log, entry) => log.append(bytes, entry),
            Room::Own(out) => {
                out.push(bytes);
                NO_ENTRY
            }
        });
        self.scratch = scratch;
        if copies_behind(rule) {
            self.copy_behind(slot, place, command, request);
        }
        Step::Done
    }

    /// The buffer of the command that was just taken, to leave as it is.
    pub(super) fn adopt_input(&mut self, bytes: Vec<u8>) {
        let Some(Adoption { upstream, entry, call }) = self.adoption.take() else { return };
        self.emit(upstream, entry, call, |place| match place {
            Room::Log(log, entry) => log.adopt(bytes, entry),
            Room::Own(out) => {
                out.push_adopted(bytes);
                NO_ENTRY
            }
        });
    }

    /// Put a command's bytes where they leave from, and remember that a reply is awaited.
    #[inline]
    fn emit(
        &mut self,
        key: usize,
        entry: Option<Entry>,
        mut call: ClientCall,
        place: impl FnOnce(Room<'_>) -> u64,
    ) {
        let upstream = &mut self.upstreams[key];
        let endpoint = &mut self.endpoints[upstream.endpoint];
        match (entry, endpoint.sequencer.as_mut()) {
            (Some(entry), Some(sequencer)) => {
                call.entry = place(Room::Log(&mut sequencer.log, entry));
                if let Some(entry) = sequencer.log.get(call.entry) {
                    upstream.out.push_log(entry.piece);
                }
            }
            _ => {
                place(Room::Own(&mut upstream.out));
            }
        }
        call.end = upstream.out.queued();
        upstream.expect(Call::Client(call), self.now.ms);
        let count = &endpoint.stats.count;
        count.upstream_rq_total.inc();
        count.upstream_rq_active.add(1);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
    }

    /// Have a command's keys copied directly behind it, because its effect cannot be told from its reply.
    fn copy_behind(
        &mut self,
        slot: usize,
        place: &Place,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) {
        let db = self.sessions[slot].db;
        if place.keys.is_empty() {
            let mut indices = SmallVec::new();
            if let Some(command) = command {
                keys(command, request, &mut indices);
            }
            let names = indices.iter().map(|&i| (request.arg(i as usize), place.writes));
            return self.copy_keys(place.endpoint, db, names.collect());
        }
        let names = place.keys.iter().map(|k| (request.arg(k.index as usize), k.replicas));
        self.copy_keys(place.endpoint, db, names.collect());
        // `COPY a b DB n`, where a and b have different mirrors.
        let other = command.and_then(|c| other_db(c, request)).and_then(|n| u16::try_from(n).ok());
        for (other, key) in other.into_iter().flat_map(|other| place.keys.iter().map(move |k| (other, k))) {
            self.doubt_now(place.endpoint, other, request.arg(key.index as usize), key.replicas);
        }
    }

    /// Copy each key once. What is more than a few is copied a little later, as if it had been in doubt: others wait
    /// behind these copies.
    pub(super) fn copy_keys(&mut self, primary: usize, db: u16, mut keys: Vec<(&[u8], u32)>) {
        keys.sort_unstable();
        keys.dedup_by_key(|(name, _)| *name);
        let rest = keys.split_off(keys.len().min(COPIES_AT_ONCE));
        for (name, replicas) in keys {
            if self.copy_key(primary, db, name, replicas).is_none() {
                self.doubt_now(primary, db, name, replicas);
            }
        }
        for (name, replicas) in rest {
            self.doubt_now(primary, db, name, replicas);
        }
    }

    fn doubt_now(&mut self, primary: usize, db: u16, name: &[u8], replicas: u32) {
        let end = self.endpoints.get(primary).and_then(|e| e.sequencer.as_ref()).map_or(0, |s| s.log.end());
        self.doubt(primary, replicas, end, Some(&[(db, name.into())]));
    }

    /// Copy a key to replicas: what it is after everything that was queued before. `false`: not now.
    pub(super) fn copy_key(&mut self, primary: usize, db: u16, name: &[u8], replicas: u32) -> Option<u64> {
        let endpoint = self.endpoints.get_mut(primary)?;
        let key = endpoint.serve[0]?;
        let upstream = self.upstreams.get_mut(key)?;
        let sequencer = endpoint.sequencer.as_mut()?;
        if !upstream.is_ready() {
            return None;
        }
        if upstream.enter(db, None, self.now.ms) != Entered::Yes {
            // A SELECT that proves the database may have been queued.
            Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
            return None;
        }
        let modern = upstream.identity.as_ref().is_none_or(super::handshake::Identity::has_pexpiretime);
        self.scratch.clear();
        let left = effect::sync_commands(modern, name, &mut self.scratch) as u32;
        let entry = Entry {
            piece: Piece::EMPTY,
            replicas,
            db,
            replies: 1,
            state: State::Pending,
            kind: Kind::Sync,
            digest: UNCHECKED,
            selects: false,
            at_ms: self.now.ms,
        };
        let position = sequencer.log.append(&self.scratch, entry);
        if let Some(entry) = sequencer.log.get(position) {
            upstream.out.push_log(entry.piece);
        }
        sequencer.copying += 1;
        let call = SyncCall { db, key: name.to_vec(), entry: position, left };
        upstream.expect(Call::Sync(Box::new(call)), self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        Some(position)
    }

    /// The connection a session's next command takes, ready and in its context.
    pub(super) fn enter(&mut self, slot: usize, endpoint: usize, simple: bool) -> Result<usize, Step> {
        let session = &self.sessions[slot];
        let (id, resp, db) = (session.id, session.resp, session.db);
        let (path, in_flight) = (session.path, session.in_flight());
        let sequenced = self.endpoints[endpoint].sequencer.is_some();
        let serve = usize::from(resp == 3 && !sequenced);
        let key = match self.endpoints[endpoint].serve[serve] {
            Some(key) => key,
            None => {
                let key = self.new_upstream(endpoint, Role::Serve, resp);
                self.endpoints[endpoint].serve[serve] = Some(key);
                key
            }
        };
        if in_flight > 0 && path != key {
            return Err(Step::Stall(Wait::Quiet));
        }
        let upstream = &mut self.upstreams[key];
        if !upstream.is_ready() {
            if upstream.is_worth_waiting() {
                upstream.waiters.push(id);
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
        if upstream.stalled && (full || !upstream.is_in(db)) {
            let endpoint = &self.endpoints[endpoint];
            let text = format!(
                "TIMEOUT cluster {}: {} has not answered for op_timeout; nothing was sent, try again",
                endpoint.cluster, endpoint.id
            );
            return Err(self.refuse(slot, &text));
        }
        if full {
            upstream.waiters.push(id);
            return Err(Step::Stall(Wait::Upstream));
        }
        match upstream.enter(db, (!simple).then_some(resp), self.now.ms) {
            Entered::Yes => Ok(key),
            Entered::Wait => {
                upstream.waiters.push(id);
                Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
                Err(Step::Stall(Wait::Upstream))
            }
            Entered::Refused => Err(self.refuse(slot, "ERR DB index is out of range")),
        }
    }

    /// Where a command goes. The error is for the client.
    pub(super) fn place(
        &self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Result<Place, String> {
        let session = &self.sessions[slot];
        let (Some(plan), Some(listener)) =
            (self.plan.listeners.get(session.listener), self.listeners.get(session.listener))
        else {
            return Err("UNAVAILABLE this listener is being closed".to_owned());
        };
        let table = &plan.routes;
        if table.is_single()
            && let Some([only]) = listener.routes.first().map(|r| r.by_endpoint.as_slice())
            && only.spread.is_empty()
            && !table.get(0).is_some_and(|r| r.remove_prefix)
        {
            return Ok(only.place());
        }
        let mut indices = SmallVec::new();
        let known = match command {
            Some(command) => keys(command, request, &mut indices) == KeysResult::Known,
            None => false,
        };
        if indices.is_empty() {
            return match command {
                Some(command) if known => self.place_keyless(session.listener, command),
                _ => self.place_unknown(session.listener, request),
            };
        }
        let mut place: Option<Place> = None;
        for &index in &indices {
            let key = request.arg(index as usize);
            let (target, strip) = self.place_key(session.listener, key)?;
            let (writes, reads) = self.replicas_of(target, key.get(strip..).unwrap_or(&[]));
            let placed = Placed { index, strip, replicas: writes };
            match &mut place {
                None => {
                    let keys = SmallVec::from_slice(&[placed]);
                    place = Some(Place { endpoint: target.endpoint, writes, reads, keys, mixed: false });
                }
                Some(place) if place.endpoint == target.endpoint => {
                    place.mixed |= place.writes != writes;
                    place.writes |= writes;
                    place.reads &= reads;
                    place.keys.push(placed);
                }
                Some(place) => return Err(self.cross_route(request, place, target.endpoint, key)),
            }
        }
        place.ok_or_else(|| "UNAVAILABLE no route".to_owned())
    }

    fn cross_route(&self, request: &Request<'_>, place: &Place, other: usize, key: &[u8]) -> String {
        let first = place.keys.first().map_or(&[][..], |k| request.arg(k.index as usize));
        let name =
            |endpoint: usize| self.endpoints.get(endpoint).map(super::Endpoint::name).unwrap_or_default();
        format!(
            "CROSSROUTE key '{}' is on {} and key '{}' on {}: send one command for each",
            first.escape_ascii(),
            name(place.endpoint),
            key.escape_ascii(),
            name(other)
        )
    }

    fn place_key(&self, listener: usize, key: &[u8]) -> Result<(&Target, usize), String> {
        let plan = &self.plan.listeners[listener];
        let Some(route) = plan.routes.select(key) else {
            return Err(format!(
                "UNAVAILABLE no route for key '{}': no prefix matches and the listener has no catch-all route",
                key.get(..64).unwrap_or(key).escape_ascii()
            ));
        };
        let strip = plan.routes.get(route).filter(|r| r.remove_prefix).map_or(0, |r| r.prefix.len());
        let targets = &self.listeners[listener].routes[route];
        let cluster = &self.plan.clusters[targets.cluster];
        let target =
            cluster.ring.pick(key.get(strip..).unwrap_or(&[])).and_then(|i| targets.by_endpoint.get(i));
        target.map(|t| (t, strip)).ok_or_else(|| no_endpoint(&cluster.name))
    }

    /// A command without keys: the catch-all route's.
    fn place_keyless(&self, listener: usize, command: &Command) -> Result<Place, String> {
        let name = command.name.replace('|', " ");
        let table = &self.plan.listeners[listener].routes;
        let routes = &self.listeners[listener].routes;
        let Some(targets) = table.catch_all().and_then(|route| routes.get(route)) else {
            return Err(format!(
                "UNAVAILABLE no route for '{name}': it has no key and the listener has no catch-all route"
            ));
        };
        let cluster = &self.plan.clusters[targets.cluster].name;
        let Some(first) = targets.by_endpoint.first() else { return Err(no_endpoint(cluster)) };
        if is_about_the_server(command) {
            return Ok(first.place());
        }
        let elsewhere = is_about_all_keys(command) && routes.iter().any(|r| r.cluster != targets.cluster);
        if elsewhere || targets.by_endpoint.len() > 1 {
            return Err(format!(
                "CROSSROUTE '{name}' concerns every Redis behind this listener: send it to each of them"
            ));
        }
        let mut place = first.place();
        if is_about_all_keys(command) {
            let same = routes.iter().flat_map(|r| &r.by_endpoint).filter(|t| t.endpoint == place.endpoint);
            place.writes = same.fold(0, |bits, t| bits | t.writes);
        }
        Ok(place)
    }

    /// A command whose keys nobody knows: fine where all keys go the same way.
    fn place_unknown(&self, listener: usize, request: &Request<'_>) -> Result<Place, String> {
        let routes = &self.listeners[listener].routes;
        match routes.first().map(|r| r.by_endpoint.as_slice()) {
            Some([only]) if self.plan.listeners[listener].routes.is_single() => Ok(only.place()),
            _ => Err(format!(
                "CROSSROUTE the keys of '{}' are not known, and behind this listener they may be in several places",
                String::from_utf8_lossy(request.arg(0))
            )),
        }
    }

    /// The replicas that a key's writes and reads go to.
    fn replicas_of(&self, target: &Target, key: &[u8]) -> (u32, u32) {
        let mut writes = target.writes;
        for (cluster, bits) in &target.spread {
            let chosen = self.plan.clusters.get(*cluster).and_then(|c| c.ring.pick(key));
            for (i, bit) in bits.iter().enumerate() {
                if chosen != Some(i) {
                    writes &= !(1 << bit);
                }
            }
        }
        (writes, target.reads & writes)
    }

    pub(super) fn unsupported(&mut self, slot: usize, name: &str) -> Step {
        if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
            listener.stats.count.downstream_rq_unsupported.inc();
        }
        let name = name.replace('|', " ");
        let text = format!(
            "ERR '{name}' needs a connection of its own, which this version of redisha does not give yet"
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

/// Where a command's bytes are put.
enum Room<'a> {
    Log(&'a mut super::log::Log, Entry),
    Own(&'a mut super::outgoing::Outgoing),
}

impl Place {
    /// Whether its keys do not all have the same replicas.
    pub(super) fn is_mixed(&self) -> bool {
        self.mixed
    }
}

impl Target {
    fn place(&self) -> Place {
        Place {
            endpoint: self.endpoint,
            writes: self.writes,
            reads: self.reads,
            keys: SmallVec::new(),
            mixed: false,
        }
    }
}

fn no_endpoint(cluster: &str) -> String {
    format!(
        "UNAVAILABLE cluster {cluster} has no endpoint: its name has not resolved yet; nothing was sent, try again"
    )
}

/// Commands without keys which any one server of a cluster may answer.
fn is_about_the_server(command: &Command) -> bool {
    let head = command.name.split('|').next().unwrap_or_default();
    matches!(
        head,
        "info" | "command" | "time" | "config" | "lolwut" | "role" | "memory" | "latency" | "slowlog" | "acl"
    )
}

/// Commands without keys which concern every key of their server.
fn is_about_all_keys(command: &Command) -> bool {
    matches!(command.name, "keys" | "scan" | "dbsize" | "flushall" | "flushdb" | "randomkey" | "swapdb")
}

/// Rules whose keys are copied whatever the reply: the copy follows directly, so that nothing comes between.
pub(super) fn copies_behind(rule: Rule) -> bool {
    matches!(rule, Rule::Sync | Rule::Script)
}
