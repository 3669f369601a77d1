//! What happens with time rather than with bytes: connecting, giving up, closing, draining. And the two turning points
//! of a connection's life, becoming ready and breaking.

use std::collections::VecDeque;

use crate::resp::encode;

use super::call::{Call, NO_ENTRY};
use super::log::State;
use super::upstream::{Phase, Role, Stream};
use super::{Engine, Intent, Now};

/// Time between looks at timeouts, in milliseconds.
const UPKEEP_MS: u64 = 20;
/// How much longer than `op_timeout` the kernel waits for the other side's acknowledgement of our bytes.
const DEAD_AFTER_MS: u64 = 5_000;
/// How long a Redis that the plan no longer has is given to take what the log holds.
const RETIRE_MS: u64 = 10_000;

impl Engine {
    /// When [`Engine::tick`] wants to be called next, milliseconds of the worker's clock.
    pub fn next_tick(&self) -> u64 {
        self.upkeep_at
    }

    /// Look after everything that time alone can change.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        if now.ms < self.upkeep_at {
            return;
        }
        let quiet = self.sessions.is_empty()
            && self.upstreams.iter().all(|(_, u)| u.is_ready() && u.calls.is_empty());
        self.upkeep_at = now.ms + if quiet { 10 * UPKEEP_MS } else { UPKEEP_MS };
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
        self.keep_budget();
        if now.ms >= self.sweep_at {
            self.sweep_at = now.ms + 1_000;
            self.sweep_sessions();
        }
        self.registry.worker.now_ms.set(now.ms);
    }

    fn tick_upstream(&mut self, key: usize) {
        let now = self.now;
        let upstream = &mut self.upstreams[key];
        let endpoint = &self.endpoints[upstream.endpoint];
        let op_timeout_us = endpoint.op_timeout_us;
        match upstream.phase {
            Phase::Down { retry_at } if now.ms >= retry_at => {
                self.epoch = self.epoch.wrapping_add(1).max(1);
                upstream.connecting(
                    now.ms + endpoint.connect_timeout_ms,
                    self.epoch,
                    endpoint.credentials.clone(),
                );
                endpoint.stats.count.upstream_cx_total.inc();
                let address = endpoint.address.clone();
                let dead_after_ms = op_timeout_us / 1_000 + DEAD_AFTER_MS;
                self.intents.push(Intent::Connect {
                    upstream: key,
                    epoch: self.epoch,
                    address,
                    dead_after_ms,
                });
            }
            Phase::Connecting { deadline } | Phase::Handshake { deadline, .. } if now.ms >= deadline => {
                self.break_upstream(key, "it did not answer within connect_timeout");
            }
            Phase::Ready => {
                let silent = now.ms.saturating_sub(upstream.waiting_since) * 1_000 > op_timeout_us;
                upstream.stalled = silent && !upstream.calls.is_empty();
                let wake = !upstream.waiters.is_empty() && (upstream.stalled || upstream.has_room());
                if upstream.stalled && matches!(upstream.role, Role::Replica { .. }) {
                    return self.break_upstream(key, "it did not acknowledge an effect within op_timeout");
                }
                self.expire_calls(key, op_timeout_us);
                self.upstreams[key].out.shrink();
                if wake {
                    self.wake_waiters(key);
                }
            }
            _ => {}
        }
    }

    /// Answer the commands that have waited too long. They stay in the line: a late reply still commits or is swallowed.
    fn expire_calls(&mut self, key: usize, op_timeout_us: u64) {
        let now_us = self.now.us;
        loop {
            let upstream = &mut self.upstreams[key];
            let at = upstream.expired;
            if at == 0 && upstream.stream != Stream::Whole {
                return; // its reply is on its way out
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
            let endpoint = &self.endpoints[upstream.endpoint];
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
        if (behind || busy) && now.ms < since + RETIRE_MS {
            return;
        }
        let mine: Vec<usize> = endpoint
            .serve
            .iter()
            .flatten()
            .copied()
            .chain(endpoint.sequencer.iter().flat_map(|s| s.replicas().map(|r| r.upstream)))
            .collect();
        for upstream in mine {
            self.remove_upstream(upstream);
        }
        self.endpoints[key].serve = [None; 2];
        self.endpoints[key].sequencer = None;
        if self.upstreams.iter().all(|(_, u)| u.endpoint != key) {
            self.endpoints.remove(key);
        }
        self.publish();
    }

    /// Put the replicas' states where they can be read.
    fn label_replicas(&mut self, key: usize) {
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        let super::sequencer::Sequencer { log, replicas, .. } = &mut **sequencer;
        let mut changes = Vec::new();
        for replica in replicas.iter_mut().flatten() {
            let Some(upstream) = self.upstreams.get(replica.upstream) else { continue };
            let lag = log.decided().saturating_sub(replica.acked);
            let count = &replica.stats.count;
            count.lag.set(lag);
            count.lag_bytes.set(if lag == 0 { 0 } else { log.held() as u64 });
            count.repair_keys.set(replica.repair.len() as u64);
            let state = match upstream.phase {
                Phase::Down { .. } => "down",
                Phase::Connecting { .. } | Phase::Handshake { .. } if replica.state == "down" => "down",
                Phase::Connecting { .. } | Phase::Handshake { .. } => "connecting",
                Phase::Ready if count.lost_total.get() > 0 => "diverged",
                Phase::Ready if !replica.repair.is_empty() || lag > super::replica::WINDOW => "catching_up",
                Phase::Ready if replica.unproven => "unproven",
                Phase::Ready => "in_sync",
            };
            if state == replica.state {
                continue;
            }
            replica.state = state;
            let reason = match state {
                "down" => upstream.reason.clone(),
                "unproven" => {
                    "its Redis was restarted; what it kept of what it had is not known: compare the two"
                        .to_owned()
                }
                "diverged" => {
                    format!("{} effects could not be delivered; it needs a full copy", count.lost_total.get())
                }
                _ => String::new(),
            };
            let label = &replica.stats.label;
            label.set("state", state);
            label.set("reason", reason.as_str());
            let detail = if reason.is_empty() { state.to_owned() } else { format!("{state}: {reason}") };
            changes.push((replica.name(), detail));
        }
        for (subject, detail) in changes {
            self.tell("replica", subject, detail);
        }
    }

    /// When more is held than the budget allows, the sessions that hold most are closed.
    fn keep_budget(&mut self) {
        let logs: usize =
            self.endpoints.iter().filter_map(|(_, e)| Some(e.sequencer.as_ref()?.log.held())).sum();
        let queues: usize = self.upstreams.iter().map(|(_, u)| u.out.held() + u.partial.capacity()).sum();
        let mut total = logs + queues + self.buffers.held();
        let mut weights = Vec::with_capacity(self.heavy.len());
        let sessions = &mut self.sessions;
        self.heavy.retain(|id| {
            let Some(session) = sessions.get_mut(id.slot as usize).filter(|s| s.id == *id) else {
                return false;
            };
            session.heavy = session.held() >= super::HEAVY;
            total += session.held();
            weights.push((session.held(), *id));
            session.heavy
        });
        self.registry.worker.memory_bytes.set(total as u64);
        weights.sort_unstable_by_key(|(held, _)| *held);
        while total > self.limits.memory_bytes
            && let Some((held, id)) = weights.pop()
        {
            total -= held;
            let slot = id.slot as usize;
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
        for (slot, session) in &mut self.sessions {
            let resting = self.now.ms.saturating_sub(session.active_ms);
            if !session.authenticated
                && handshake > 0
                && self.now.ms.saturating_sub(session.since_ms) >= handshake
            {
                late.push((slot, true));
            } else if idle > 0 && resting >= idle && session.in_flight() == 0 {
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

    /// A socket stands.
    pub fn upstream_connected(&mut self, key: usize, epoch: u32) {
        let Some(upstream) = self.upstreams.get_mut(key).filter(|u| u.epoch == epoch) else { return };
        upstream.connected();
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
    }

    /// A socket could not be opened, or is gone.
    pub fn upstream_closed(&mut self, key: usize, epoch: u32, reason: &str) {
        if self.upstreams.get(key).is_some_and(|u| u.epoch == epoch) {
            self.break_upstream(key, reason);
        }
    }

    /// The handshake is done.
    pub(super) fn upstream_ready(&mut self, key: usize) {
        let upstream = &self.upstreams[key];
        let role = upstream.role;
        let identity = upstream.identity.clone().unwrap_or_default();
        let endpoint = &self.endpoints[upstream.endpoint];
        endpoint.stats.count.upstream_cx_active.add(1);
        let label = &endpoint.stats.label;
        label.set("state", "ready");
        label.set("reason", "");
        label.set("run_id", identity.run_id.as_str());
        label.set("version", identity.version.as_str());
        let name = endpoint.name();
        self.tell("upstream_up", name, format!("redis {} run_id {}", identity.version, identity.run_id));
        match role {
            Role::Serve => {
                self.wake_waiters(key);
                let primary = self.upstreams[key].endpoint;
                self.touch_sequencer(primary);
            }
            Role::Replica { primary, bit } => {
                if let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut())
                    && let Some(replica) = sequencer.replica(bit)
                {
                    let restarted = replica.run_id.as_ref().is_some_and(|before| *before != identity.run_id);
                    replica.stats.count.restarts_total.add(u64::from(restarted));
                    replica.unproven |= restarted;
                    replica.run_id = Some(identity.run_id);
                }
                self.touch_sequencer(primary);
            }
        }
    }

    /// A connection is lost, or must not be used any more. Every call on it finds its end here.
    pub(super) fn break_upstream(&mut self, key: usize, reason: &str) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let stood = upstream.is_ready();
        let written = upstream.out.written();
        let stream = upstream.stream;
        let (role, of) = (upstream.role, upstream.endpoint);
        let mut calls = upstream.broken(reason.to_owned(), self.now.ms);
        self.upkeep_at = 0;
        self.intents.push(Intent::CloseUpstream { upstream: key });
        let endpoint = &self.endpoints[of];
        let count = &endpoint.stats.count;
        if stood {
            count.upstream_cx_active.dec();
            count.upstream_cx_destroy.inc();
        } else {
            count.upstream_cx_connect_fail.inc();
        }
        let label = &endpoint.stats.label;
        let told = label.get("state") == "down" && label.get("reason") == reason;
        label.set("state", "down");
        label.set("reason", reason);
        let name = endpoint.name();
        if !told {
            self.tell("upstream_down", name, reason.to_owned());
        }
        if let Stream::To(id) = stream {
            // Half a reply is out: no error can follow it.
            if let Some(ticket) = calls.front_mut().and_then(Call::take_ticket) {
                ticket.settle();
            }
            if self.session(id).is_some() {
                self.close_session(id.slot as usize);
            }
        }
        match role {
            Role::Serve => self.lose_calls(of, calls, written, reason),
            Role::Replica { primary, bit } => self.lose_effects(primary, bit, &calls),
        }
        self.wake_waiters(key);
    }

    /// What was in flight on a primary: commands that were not sent are refused, the others are in doubt. A command is
    /// never sent twice.
    fn lose_calls(&mut self, primary: usize, calls: VecDeque<Call>, written: u64, reason: &str) {
        let (cluster, id) = (self.endpoints[primary].cluster.clone(), self.endpoints[primary].id.clone());
        let indoubt = format!(
            "INDOUBT cluster {cluster}: the connection to {id} broke before the reply ({reason}); the command may have been applied"
        );
        let unsent = format!(
            "UNAVAILABLE cluster {cluster}: the connection to {id} broke ({reason}); nothing was sent, try again"
        );
        for mut call in calls {
            let sent = call.offset().is_none_or(|offset| offset < written);
            match &call {
                Call::Client(c) => self.lose_entry(primary, c.entry, sent),
                Call::Transaction(c) => self.lose_entry(primary, c.entry, sent),
                Call::Sync(c) => {
                    let key = (c.db, c.key.clone().into());
                    let entry =
                        self.endpoints[primary].sequencer.as_ref().and_then(|s| s.log.get(c.entry).copied());
                    if let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() {
                        sequencer.copying = 0;
                        sequencer.log.decide(c.entry, State::Nothing, None);
                    }
                    self.doubt(primary, entry.map_or(0, |e| e.replicas), c.entry, Some(&[key]));
                }
                _ => {}
            }
            let is_command = call.started_us().is_some();
            let count = &self.endpoints[primary].stats.count;
            if is_command {
                count.upstream_rq_active.dec();
            }
            if let Some(ticket) = call.take_ticket() {
                if sent { &count.upstream_rq_indoubt } else { &count.upstream_rq_unavailable }.inc();
                self.settle(ticket, |out| encode::error(out, if sent { &indoubt } else { &unsent }));
            }
        }
        self.touch_sequencer(primary);
    }

    pub(super) fn lose_entry(&mut self, primary: usize, position: u64, sent: bool) {
        if position == NO_ENTRY {
            return;
        }
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        let Some(entry) = sequencer.log.get(position).copied() else { return };
        let keys = sent.then(|| super::keys::keys_of(sequencer.log.bytes(&entry), entry.db));
        sequencer.log.decide(position, State::Nothing, None);
        if let Some(keys) = keys
            && entry.kind == super::log::Kind::Write
        {
            self.doubt(primary, entry.replicas, position, keys.as_deref());
        }
    }

    /// What was in flight to a replica is in doubt there.
    fn lose_effects(&mut self, primary: usize, bit: u32, calls: &VecDeque<Call>) {
        let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        let super::sequencer::Sequencer { log, replicas, .. } = &mut **sequencer;
        let Some(replica) = replicas.get_mut(bit as usize).and_then(Option::as_mut) else { return };
        for call in calls {
            let Call::Effect { position, .. } = call else { continue };
            let Some(entry) = log.get(*position) else { continue };
            if matches!(entry.kind, super::log::Kind::Read | super::log::Kind::Publish) {
                continue;
            }
            match super::keys::keys_of(log.bytes(entry), entry.db) {
                None => replica.stats.count.lost_total.inc(),
                Some(keys) => {
                    for key in keys {
                        // As of the end of the log: whatever copy is on its way was asked for before this doubt.
                        if !replica.repair.doubt(key, log.end()) {
                            replica.stats.count.lost_total.inc();
                        }
                    }
                }
            }
        }
        replica.in_flight = 0;
        replica.repair.forget_asked();
        replica.acked = replica.next;
        self.touch_sequencer(primary);
    }

    /// Take no more sessions, let each finish what is in flight, then close it.
    pub fn begin_drain(&mut self) {
        self.draining = true;
        for (_, session) in &mut self.sessions {
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
