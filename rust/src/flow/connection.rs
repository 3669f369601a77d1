//! The two turning points of an upstream connection's life: becoming ready, and breaking. Every call on a connection that
//! breaks finds its end here.

use std::collections::VecDeque;

use crate::resp::encode;

use super::call::{Call, NO_ENTRY};
use super::keys::keys_of;
use super::log::{Kind, State};
use super::repair::{FUNCTIONS, Key};
use super::sequencer::{Proof, Sequencer};
use super::upstream::{Role, Stream};
use super::{Engine, Intent};

impl Engine {
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
        if upstream.is_beside() {
            self.endpoints[upstream.endpoint].stats.count.upstream_cx_active.add(1);
            return self.wake_waiters(key);
        }
        let identity = upstream.identity.clone().unwrap_or_default();
        let endpoint = &self.endpoints[upstream.endpoint];
        endpoint.stats.count.upstream_cx_active.add(1);
        let label = &endpoint.stats.label;
        label.set("state", "ready");
        label.set("reason", "");
        label.set("run_id", identity.run_id.as_str());
        label.set("version", identity.version.as_str());
        *endpoint.stats.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            (identity.version.clone(), identity.commands);
        let name = endpoint.name();
        self.tell("upstream_up", name, format!("redis {} run_id {}", identity.version, identity.run_id));
        match role {
            Role::Serve => {
                let primary = self.upstreams[key].endpoint;
                let endpoint = &mut self.endpoints[primary];
                if let Some(sequencer) =
                    endpoint.sequencer.as_mut().filter(|_| endpoint.serve[0] == Some(key))
                {
                    sequencer.expiring.connected(&identity);
                }
                self.send_fences(key);
                self.primary_ready(primary, key);
                self.wake_waiters(key);
                self.touch_sequencer(primary);
                if !self.strays.is_empty() {
                    self.send_strays();
                }
            }
            Role::Replica { primary, bit } => {
                self.replica_ready(primary, bit, &identity);
            }
            Role::Private { .. } | Role::Spare | Role::Relief => {}
            Role::Tap { tap } => self.tap_ready(tap),
            Role::Beat => {
                if let Some(group) = self.group.as_mut() {
                    for peer in group.peers.iter_mut().filter(|p| p.beat == key) {
                        peer.member.clone_from(&identity.member);
                    }
                    group.beat_at = 0;
                }
                self.upkeep_at = 0; // the beat goes out now
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
        if let Role::Private { session } = role {
            self.fence(key, session);
        }
        self.rescue_calls(key, written);
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
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
        if !matches!(role, Role::Private { .. } | Role::Spare | Role::Relief) {
            self.tell_down(of, reason);
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
            Role::Serve => {
                if stood {
                    self.note_clean(of, key);
                }
                if stood && self.is_groups_own(of) {
                    self.own_redis_lost();
                }
                self.lose_calls(of, calls, written, reason);
            }
            Role::Beat => {}
            Role::Tap { tap } => self.tap_lost(tap, &calls, reason),
            Role::Replica { primary, bit } => self.lose_effects(primary, bit, &calls),
            Role::Spare => return self.spare_lost(key),
            Role::Relief => {
                self.lose_calls(of, calls, written, reason);
                self.wake_waiters(key);
                return self.relief_lost(key);
            }
            Role::Private { session } => {
                self.lose_calls(of, calls, written, reason);
                self.unbar(session);
                self.wake_waiters(key);
                return self.private_lost(key, session, stood);
            }
        }
        self.wake_waiters(key);
    }

    /// The control plane and the numbers say that an endpoint is down.
    fn tell_down(&mut self, endpoint: usize, reason: &str) {
        let endpoint = &self.endpoints[endpoint];
        let label = &endpoint.stats.label;
        let told = label.get("state") == "down" && label.get("reason") == reason;
        label.set("state", "down");
        label.set("reason", reason);
        let name = endpoint.name();
        if !told {
            self.tell("upstream_down", name, reason.to_owned());
        }
    }

    /// Which mirrors had everything, should the primary turn out to have lost something.
    fn note_clean(&mut self, primary: usize, key: usize) {
        let endpoint = &mut self.endpoints[primary];
        if endpoint.serve[0] != Some(key) {
            return;
        }
        let Some(sequencer) = endpoint.sequencer.as_mut().filter(|s| s.proof == Proof::Proven) else {
            return;
        };
        sequencer.replicas_mut().for_each(|r| r.lacked_then = r.lack_now());
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
        // What another member executes instead is not in doubt there; here its keys are marked.
        let handed_over = self.group.as_ref().is_some_and(|g| g.local == primary && g.lost);
        for mut call in calls {
            let sent = call.offset().is_none_or(|offset| offset < written);
            match &call {
                Call::Client(c) => self.lose_entry(primary, c.entry, sent && !handed_over),
                Call::Transaction(c) => self.lose_entry(primary, c.entry, sent && !handed_over),
                Call::Mark { .. } => {
                    if let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() {
                        sequencer.marking = false;
                        sequencer.remark = true;
                    }
                }
                Call::Look { bit, .. } | Call::Exists { bit, .. } => {
                    let sequencer = self.endpoints[primary].sequencer.as_mut();
                    if let Some(resync) = sequencer.and_then(|s| s.replica(*bit)?.resync.as_mut()) {
                        resync.asked = false;
                    }
                }
                Call::Sync(c) => {
                    let key: Key = (c.db, c.key.clone().into());
                    let entry =
                        self.endpoints[primary].sequencer.as_ref().and_then(|s| s.log.get(c.entry).copied());
                    if let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() {
                        sequencer.copying = 0;
                        sequencer.log.decide(c.entry, State::Nothing, None);
                    }
                    let replicas = entry.map_or(0, |e| e.replicas);
                    if let Some(sequencer) =
                        self.endpoints[primary].sequencer.as_mut().filter(|_| !handed_over)
                    {
                        for replica in sequencer.replicas_mut().filter(|r| replicas & (1 << r.bit) != 0) {
                            replica.again(Key::clone(&key), c.entry);
                        }
                    }
                }
                _ => {}
            }
            if let Call::Waited { endpoint, db } = call {
                self.waited_are_there(endpoint, db, None);
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
        let keys = sent.then(|| keys_of(sequencer.log.bytes(&entry), entry.db));
        sequencer.log.decide(position, State::Nothing, None);
        if let Some(keys) = keys
            && entry.kind == Kind::Write
        {
            self.doubt(primary, entry.replicas, position, keys.as_deref());
        }
    }

    /// What was in flight to a replica is in doubt there.
    fn lose_effects(&mut self, primary: usize, bit: u32, calls: &VecDeque<Call>) {
        self.note_what_is_lost(primary);
        let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        if let Proof::Held { from, .. } = &mut sequencer.proof
            && *from == Some(bit)
        {
            *from = None; // whether it still has what it had is decided anew
        }
        let Sequencer { log, replicas, .. } = &mut **sequencer;
        let Some(replica) = replicas.get_mut(bit as usize).and_then(Option::as_mut) else { return };
        for call in calls {
            let Call::Effect { position, .. } = call else { continue };
            let Some(entry) = log.get(*position) else { continue };
            if matches!(entry.kind, Kind::Read | Kind::Publish) {
                continue;
            }
            replica.miss_from(*position);
            match keys_of(log.bytes(entry), entry.db) {
                _ if entry.kind == Kind::Functions => replica.doubt((FUNCTIONS, Box::default()), log.end()),
                None => {
                    replica.stats.count.lost_total.inc();
                    replica.doubt_all();
                }
                Some(keys) => {
                    for key in keys {
                        // As of the end of the log: whatever copy is on its way was asked for before this doubt.
                        replica.again(key, log.end());
                    }
                }
            }
        }
        Self::forget_questions(replica);

        replica.told = (0, (0, 0));
        replica.in_flight = 0;
        replica.acked = replica.next;
        self.touch_sequencer(primary);
    }
}
