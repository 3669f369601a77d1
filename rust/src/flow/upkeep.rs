//! What happens with time rather than with bytes: connecting, giving up, closing, draining.

use crate::resp::encode;

use super::peer::Purpose;
use super::replica::{Judged, Need};
use super::sequencer::{Proof, Sequencer};
use super::upstream::{Phase, Role, Stream, Upstream};
use super::{Engine, Intent, Now};
use crate::plan::spec::Consistency;

/// Time between looks at timeouts, in milliseconds.
const UPKEEP_MS: u64 = 20;
/// The same while nothing is on its way.
const QUIET_MS: u64 = 200;
/// How much longer than `op_timeout` the kernel waits for the other side's acknowledgement of our bytes.
const DEAD_AFTER_MS: u64 = 5_000;
/// How long a Redis that the plan no longer has is given to take what the log holds.
const RETIRE_MS: u64 = 10_000;

impl Engine {
    /// When [`Engine::tick`] wants to be called next, milliseconds of the worker's clock.
    pub fn next_tick(&self) -> u64 {
        self.upkeep_at.min(self.pause.ends_at())
    }

    /// Look after everything that time alone can change.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        if now.ms >= self.pause.ends_at() {
            self.unpause();
        }
        if now.ms < self.upkeep_at.min(self.upkept_ms + UPKEEP_MS) {
            return; // in a quiet time, that it is called at all says that something has happened
        }
        self.upkept_ms = now.ms;
        self.upkeep_at =
            if self.is_quiet() { self.blocked.next_end().min(now.ms + QUIET_MS) } else { now.ms + UPKEEP_MS };
        for key in 0..self.upstreams.capacity() {
            if self.upstreams.contains(key) {
                self.tick_upstream(key);
            }
        }
        for key in 0..self.endpoints.capacity() {
            if self.endpoints.contains(key) {
                self.tick_endpoint(key);
            }
        }
        if !self.strays.is_empty() {
            self.send_strays();
        }
        self.tick_group();
        self.close_hung();
        self.tend_spares();
        self.tick_blocked();
        self.settle_waits();
        self.expire_asking();
        self.keep_budget();
        self.tell_direct();
        if now.ms >= self.sweep_at {
            self.sweep_at = now.ms + 1_000;
            self.sweep_sessions();
        }
        self.registry.worker.now_ms.set(now.ms);
    }

    /// Whether nothing is on its way but what may take any time: clients that block or listen cost nothing.
    fn is_quiet(&self) -> bool {
        let busy = |u: &Upstream| !u.is_ready() || !(u.is_private() || u.calls.is_empty());
        let mends = |s: &Sequencer| s.replicas().any(|r| r.resync.is_some() || !r.repair.is_empty());
        self.group.is_none()
            && self.waits.is_empty()
            && self.asking.is_empty()
            && self.strays.is_empty()
            && !self.upstreams.iter().any(|(_, u)| busy(u))
            && !self.endpoints.iter().filter_map(|(_, e)| e.sequencer.as_deref()).any(mends)
    }

    fn tick_upstream(&mut self, key: usize) {
        let now = self.now;
        self.expire_waiters(key);
        let greeting = self.greeting_of(key);
        let may_connect = self.may_connect(key);
        if self.own_redis_hangs(key) {
            return self.break_upstream(key, "it answers nothing, and another member can lead");
        }
        let silence_ms = self.group.as_ref().map_or(u64::MAX, |g| 2 * g.spec.timeout_ms);
        let upstream = &mut self.upstreams[key];
        let endpoint = &self.endpoints[upstream.endpoint];
        let op_timeout_us = endpoint.op_timeout_us;
        match upstream.phase {
            Phase::Down { .. } if !may_connect => {}
            Phase::Down { retry_at } if now.ms >= retry_at => match endpoint.address.clone() {
                Some(address) => {
                    self.epoch = self.epoch.wrapping_add(1).max(1);
                    let deadline = now.ms + endpoint.connect_timeout_ms;
                    upstream.greeting = greeting;
                    upstream.link = address.is_link();
                    upstream.connecting(deadline, self.epoch, endpoint.credentials.clone());
                    endpoint.stats.count.upstream_cx_total.inc();
                    let dead_after_ms = op_timeout_us / 1_000 + DEAD_AFTER_MS;
                    self.intents.push(Intent::Connect {
                        upstream: key,
                        epoch: self.epoch,
                        address,
                        dead_after_ms,
                    });
                }
                None if upstream.patient => self.break_upstream(key, "its name has not resolved yet"),
                None => {}
            },
            // It stands beside one that is ready: the Redis is there, and busy.
            Phase::Handshake { deadline, .. }
                if upstream.is_beside() && now.ms < deadline + op_timeout_us / 1_000 => {}
            Phase::Connecting { deadline } | Phase::Handshake { deadline, .. } if now.ms >= deadline => {
                self.break_upstream(key, "it did not answer within connect_timeout");
            }
            Phase::Ready => {
                let silent = now.ms.saturating_sub(upstream.waiting_since) * 1_000 > op_timeout_us;
                let stalled = silent && !upstream.calls.is_empty();
                let wake = !upstream.waiters.is_empty() && upstream.has_room();
                if stalled && matches!(upstream.role, Role::Replica { .. } | Role::Tap { .. }) {
                    return self.break_upstream(key, "it did not acknowledge an effect within op_timeout");
                }
                let beatless = now.ms.saturating_sub(upstream.waiting_since) > silence_ms;
                if upstream.role == Role::Beat && beatless && !upstream.calls.is_empty() {
                    return self.break_upstream(key, "it does not answer beats");
                }
                if upstream.is_private() && !self.expire_private(key, silent) {
                    return;
                }
                self.expire_calls(key, op_timeout_us);
                self.upstreams[key].out.shrink();
                if wake {
                    self.wake_waiters(key);
                }
                if self.upstreams[key].role == Role::Relief {
                    self.tend_relief(key);
                }
            }
            _ => {}
        }
    }

    /// Whether a connection is wanted now. In a group only the leader sends effects, and only to it are commands sent.
    fn may_connect(&self, key: usize) -> bool {
        let Some(upstream) = self.upstreams.get(key) else { return false };
        if upstream.is_private() {
            return upstream.patient; // once: its session decides whether there is another
        }
        let Some(group) = self.group.as_ref() else { return true };
        match upstream.role {
            Role::Replica { primary, .. } if primary == group.local => {
                group.post == super::group::Post::Leader
            }
            Role::Serve if self.endpoints.get(upstream.endpoint).is_some_and(|e| e.peer) => {
                group.leaders_endpoint() == Some(upstream.endpoint)
            }
            _ => true,
        }
    }

    /// The first words on a connection, where it leads to another member.
    fn greeting_of(&self, key: usize) -> Vec<u8> {
        let Some(upstream) = self.upstreams.get(key).filter(|u| matches!(u.phase, Phase::Down { .. })) else {
            return Vec::new();
        };
        let Some(endpoint) = self.endpoints.get(upstream.endpoint).filter(|e| e.peer) else {
            return Vec::new();
        };
        self.greeting(match upstream.role {
            Role::Beat => Purpose::Beat,
            Role::Replica { .. } | Role::Tap { .. } => Purpose::Stream,
            Role::Private { session } => {
                let session = self.sessions.get(session.slot as usize).filter(|s| s.id == session);
                Purpose::Call(session.map(|s| s.consistency).unwrap_or_default())
            }
            Role::Spare | Role::Relief => Purpose::Call(Consistency::default()),
            Role::Serve => {
                let at = endpoint.serve.iter().position(|s| *s == Some(key)).unwrap_or(0);
                Purpose::Call(super::forward::consistency_of(at))
            }
        })
    }

    /// Sessions that have waited for their turn for `op_timeout` get an answer.
    fn expire_waiters(&mut self, key: usize) {
        let upstream = &self.upstreams[key];
        if upstream.waiters.is_empty() {
            return;
        }
        let patience_ms = self.endpoints[upstream.endpoint].op_timeout_us / 1_000;
        for id in &self.upstreams[key].waiters {
            if let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == *id)
                && session.wait == super::session::Wait::Upstream
                && session.waiting_since + patience_ms <= self.now.ms
            {
                session.overdue = true;
                Self::wake(session, &mut self.runnable);
            }
        }
    }

    /// Answer the commands that have waited too long. They stay in the line: a late reply still commits or is swallowed.
    fn expire_calls(&mut self, key: usize, op_timeout_us: u64) {
        let now_us = self.now.us;
        loop {
            let upstream = &mut self.upstreams[key];
            let at = upstream.expired;
            if at == 0 && upstream.stream != Stream::Whole {
                upstream.expired = 1; // its reply is on its way out; those behind it are not
                continue;
            }
            let written = upstream.out.written();
            let Some(call) = upstream.calls.get_mut(at) else { return };
            match call.started_us() {
                Some(started) if started + op_timeout_us > now_us => return,
                _ => {}
            }
            upstream.expired += 1;
            let unsent = call.offset().is_some_and(|offset| offset >= written);
            let Some(ticket) = call.take_ticket() else { continue };
            self.note_late(key, at, ticket.session());
            let endpoint = &self.endpoints[self.upstreams[key].endpoint];
            endpoint.stats.count.upstream_rq_timeout.inc();
            let text = format!(
                "INDOUBT cluster {}: {} did not answer within op_timeout ({} ms); the command {}",
                endpoint.cluster,
                endpoint.id,
                op_timeout_us / 1_000,
                if unsent {
                    "waits to be sent and may still be applied"
                } else {
                    "was sent and may have been applied"
                }
            );
            self.settle(ticket, |out| encode::error(out, &text));
        }
    }

    fn tick_endpoint(&mut self, key: usize) {
        let now = self.now;
        self.tick_proof(key);
        self.label_replicas(key);
        let endpoint = &mut self.endpoints[key];
        if let Some(sequencer) = &mut endpoint.sequencer {
            sequencer.log.shrink();
            let stats = &sequencer.stats;
            stats.entries.set(sequencer.log.len() as u64);
            stats.bytes.set(sequencer.log.held() as u64);
            stats.committed_total.set(sequencer.log.committed());
        }
        self.touch_sequencer(key);
        let answers =
            self.is_superseded(key) && self.upstreams_of(key).iter().any(|&u| self.has_unblocked(u));
        let endpoint = &mut self.endpoints[key];
        if !endpoint.retired {
            endpoint.retired_at = None;
            let unused = endpoint
                .sequencer
                .as_ref()
                .is_some_and(|s| s.replicas().next().is_none() && s.log.len() == 0);
            let quiet =
                endpoint.serve[0].and_then(|u| self.upstreams.get(u)).is_none_or(|u| u.calls.is_empty());
            if unused && quiet {
                endpoint.sequencer = None;
                self.publish();
            }
            return;
        }
        let since = *endpoint.retired_at.get_or_insert(now.ms);
        let behind = endpoint.sequencer.as_ref().is_some_and(|s| s.replicas().any(|r| r.acked < s.log.end()));
        let busy = endpoint
            .serve
            .iter()
            .flatten()
            .any(|&u| self.upstreams.get(u).is_some_and(|u| !u.calls.is_empty()));
        if ((behind || busy || answers) && now.ms < since + RETIRE_MS) || now.ms < endpoint.wanted_ms {
            return;
        }
        let mine: Vec<usize> = endpoint
            .serve
            .iter()
            .flatten()
            .copied()
            .chain(endpoint.sequencer.iter().flat_map(|s| s.replicas().map(|r| r.upstream)))
            .collect();
        let private = |u: &super::upstream::Upstream| u.is_private() && u.endpoint == key;
        let theirs: Vec<usize> = self.upstreams.iter().filter(|(_, u)| private(u)).map(|(k, _)| k).collect();
        for upstream in mine.into_iter().chain(theirs) {
            self.remove_upstream(upstream);
        }
        self.endpoints[key].serve = [None; super::SERVES];
        for replica in self.endpoints[key].sequencer.iter_mut().flat_map(|s| s.replicas_mut()) {
            replica.map.abandon();
        }
        self.endpoints[key].sequencer = None;
        if self.upstreams.iter().all(|(_, u)| u.endpoint != key) {
            self.endpoints.remove(key);
        }
        self.publish();
    }

    /// Whether a session's own connection is about to tell that it blocks no more.
    fn has_unblocked(&self, key: usize) -> bool {
        self.upstreams.get(key).is_some_and(|u| u.is_private() && !u.calls.is_empty())
    }

    /// Put the replicas' states where they can be read.
    fn label_replicas(&mut self, key: usize) {
        let standby = self.is_standby(key);
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        let super::sequencer::Sequencer { log, replicas, proof, pace, .. } = &mut **sequencer;
        let each_second = self.now.ms >= self.sweep_at;
        let mut changes = Vec::new();
        for replica in replicas.iter_mut().flatten() {
            let Some(upstream) = self.upstreams.get(replica.upstream) else { continue };
            let lag = log.decided().saturating_sub(replica.acked);
            let count = &replica.stats.count;
            count.lag.set(lag);
            count.lag_bytes.set(if lag == 0 { 0 } else { log.held() as u64 });
            count.repair_keys.set(replica.repair.len() as u64);
            count.unrepaired_keys.set(replica.unrepaired.len() as u64);
            count.generation.set(replica.map.generation());
            count.resync_limit.set(u64::from(pace.limit()));
            if each_second {
                let known = replica.is_clean() && replica.marked == replica.map.generation();
                count.dirty_buckets.set(if known { replica.map.fresh() } else { replica.map.dirty() });
                let done = replica.resync.as_ref().map_or(0, |r| r.done);
                count.resync_rate.set(done.saturating_sub(count.resync_done.get()));
            }
            if let Some(resync) = replica.resync.as_ref().filter(|_| each_second) {
                count.resync_done.set(resync.done);
                count.resync_total.set(resync.total);
            }
            let state = match upstream.phase {
                _ if standby => "standby",
                _ if replica.refused => "refused",
                Phase::Down { .. } => "down",
                Phase::Connecting { .. } | Phase::Handshake { .. } if replica.state == "down" => "down",
                Phase::Connecting { .. } | Phase::Handshake { .. } => "connecting",
                Phase::Ready if matches!(proof, Proof::Held { .. }) => "held",
                Phase::Ready if *proof == Proof::Doubtful => "unproven",
                Phase::Ready
                    if replica.paused
                        && (replica.resync.is_some()
                            || replica.judged != Judged::Yes
                            || replica.need != Need::Nothing) =>
                {
                    "paused"
                }
                Phase::Ready
                    if replica.resync.is_some()
                        || replica.judged != Judged::Yes
                        || replica.need != Need::Nothing =>
                {
                    "resync"
                }
                Phase::Ready if !replica.repair.is_empty() || lag > super::replica::WINDOW => "catching_up",
                Phase::Ready if !replica.unrepaired.is_empty() => "diverged",
                Phase::Ready if replica.unproven => "unproven",
                Phase::Ready => "in_sync",
            };
            if state == replica.state {
                continue;
            }
            replica.state = state;
            let reason = match state {
                "down" => upstream.reason.clone(),
                "refused" => "it is the primary's own Redis".to_owned(),
                "held" => "the primary lost data: its clients wait until it is filled from a mirror".to_owned(),
                "unproven" if *proof != Proof::Proven => {
                    "the primary lost data, or cannot prove that it did not: nothing is copied from it until it is taken \
                     as it is (redisha resync CLUSTER --accept)"
                        .to_owned()
                }
                "unproven" => format!(
                    "it had data of its own, or another redisha writes there: {} keys that were there were left alone. \
                     Compare with redisha verify; if the mirror is this sidecar's alone: redisha resync CLUSTER --full",
                    count.unproven_keys.get()
                ),
                "diverged" => replica.stats.label.get("reason"),
                _ => String::new(),
            };
            let label = &replica.stats.label;
            label.set("state", state);
            if !matches!(state, "catching_up" | "resync" | "diverged") {
                label.set("reason", reason.as_str()); // there it is the words of the last refusal
            }
            let detail = if reason.is_empty() { state.to_owned() } else { format!("{state}: {reason}") };
            changes.push((replica.name(), detail));
        }
        for (subject, detail) in changes {
            self.tell("replica", subject, detail);
        }
    }

    /// The bound of each log: the configured one, or its share of half the budget.
    pub(super) fn log_limit(&self) -> usize {
        let logs = self.endpoints.iter().filter(|(_, e)| e.sequencer.is_some()).count().max(1);
        self.limits.log_bytes.min(self.limits.memory_bytes / 2 / logs)
    }

    /// When more is held than the budget allows, the sessions that hold most are closed. Logs and queues have a bound of
    /// their own, half the budget; sessions have the rest, and what of that half is not used.
    fn keep_budget(&mut self) {
        let logs: usize =
            self.endpoints.iter().filter_map(|(_, e)| Some(e.sequencer.as_ref()?.log.held())).sum();
        let mut queues = 0;
        let mut own = Vec::new();
        for (_, upstream) in &self.upstreams {
            let held = upstream.out.held() + upstream.partial.capacity();
            match upstream.role {
                Role::Private { session } if held >= super::HEAVY => own.push((held, session)),
                _ => queues += held,
            }
        }
        let merges: usize = self.merges.iter().map(|(_, m)| m.held).sum();
        let mut shared = logs + queues + merges + self.buffers.held();
        let mut total = 0;
        let mut weights = Vec::with_capacity(self.heavy.len());
        let sessions = &mut self.sessions;
        self.heavy.retain(|id| {
            let Some(session) = sessions.get_mut(id.slot as usize).filter(|s| s.id == *id) else {
                return false;
            };
            let held = session.held();
            session.heavy = held >= super::HEAVY;
            if session.is_link() {
                shared += held; // it is many clients'
            } else {
                total += held;
                weights.push((held, *id));
            }
            session.heavy
        });
        let room = self.limits.memory_bytes - shared.min(self.limits.memory_bytes / 2);
        for (_, id) in &weights {
            self.check_output(*id);
        }
        total += own.iter().map(|(held, _)| held).sum::<usize>();
        weights.append(&mut own);
        self.registry.worker.memory_bytes.set((total + shared) as u64);
        weights.sort_unstable_by_key(|(held, _)| *held);
        while total > room
            && let Some((held, id)) = weights.pop()
        {
            total -= held;
            let slot = id.slot as usize;
            if self.sessions.get(slot).is_none_or(|s| s.id != id) {
                continue; // closed for its other share
            }
            if let Some(listener) = self.sessions.get(slot).and_then(|s| self.listeners.get(s.listener)) {
                listener.stats.count.downstream_cx_memory_overflow.inc();
            }
            self.close_session(slot);
        }
    }

    /// Close sessions that outstayed a timeout, give back memory of those that rest.
    fn sweep_sessions(&mut self) {
        self.buffers.take(); // one a second: what a burst left goes in time
        let (idle, handshake) = (self.limits.idle_timeout_ms, self.limits.handshake_timeout_ms);
        let mut late = Vec::new();
        self.sweep_private();
        for (slot, session) in &mut self.sessions {
            let resting = self.now.ms.saturating_sub(session.active_ms);
            if !session.authenticated
                && handshake > 0
                && self.now.ms.saturating_sub(session.since_ms) >= handshake
            {
                late.push((slot, true));
            } else if idle > 0
                && resting >= idle
                && session.in_flight() == 0
                && !session.is_listening()
                && session.wait != super::session::Wait::Pause
                && session.peering == super::session::Peering::Client
            {
                late.push((slot, false));
            }
            if resting > 1_000 && session.output.is_empty() {
                session.output = Vec::new();
            }
        }
        for (slot, by_handshake) in late {
            let Some(listener) = self.listeners.get(self.sessions[slot].listener) else { continue };
            let count = &listener.stats.count;
            if by_handshake {
                &count.downstream_cx_handshake_timeout
            } else {
                &count.downstream_cx_idle_timeout
            }
            .inc();
            self.close_session(slot);
        }
        self.sessions.shrink_to_fit();
    }

    /// Take no more sessions, let each finish what is in flight, then close it.
    pub fn begin_drain(&mut self) {
        self.draining = true;
        let clients = self.sessions.iter().filter(|(_, s)| !s.is_link());
        let slots: Vec<usize> = clients.map(|(slot, _)| slot).collect();
        self.unpause();
        for slot in slots {
            self.unblock(slot, super::unblock::Unblock::Timeout);
        }
        // A link ends with the other worker's last client.
        for (_, session) in self.sessions.iter_mut().filter(|(_, s)| !s.is_link()) {
            session.end_input();
            Self::mark_session(session, &mut self.dirty_sessions);
            if let Some(listener) = self.listeners.get(session.listener) {
                listener.stats.count.downstream_cx_drain_close.inc();
            }
        }
    }

    /// Replicas that have not got everything: who, and how many effects.
    pub fn undelivered(&self) -> Vec<(String, u64)> {
        let sequencers = self.endpoints.iter().filter_map(|(_, e)| e.sequencer.as_ref());
        let replicas =
            sequencers.flat_map(|s| s.replicas().map(|r| (s.log.end() - r.acked + r.repair.len() as u64, r)));
        replicas.filter(|(left, _)| *left > 0).map(|(left, r)| (r.name(), left)).collect()
    }

    /// Whether nothing is in flight any more, to clients or to replicas.
    pub fn is_drained(&self) -> bool {
        self.sessions.is_empty()
            && self.endpoints.iter().all(|(_, e)| {
                e.sequencer
                    .as_ref()
                    .is_none_or(|s| s.replicas().all(|r| r.acked >= s.log.end() && r.repair.is_empty()))
            })
    }
}
