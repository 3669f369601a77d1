//! A whole key, copied from the primary to replicas: what its effect would have been cannot be told, or was lost.
//!
//! The copy is asked for on the primary's own connection and is an entry of the log like any other, so it is ordered
//! with the writes and needs no pause.

use smallvec::SmallVec;

use crate::command::{Command, keys, other_db};
use crate::resp::{Reply, Request};

use super::Engine;
use super::call::{Call, SyncCall};
use super::effect::{self, Rule};
use super::log::{Entry, Kind, State, UNCHECKED};
use super::place::Place;
use super::replica::Key;
use super::store::Piece;
use super::upstream::{Entered, Upstream};

/// Most keys of one command that are copied directly behind it.
const COPIES_AT_ONCE: usize = 64;

/// Most copies in flight on a primary: what clients wait for comes first.
const COPIES_MAX: u32 = 64;

/// Rules whose keys are copied whatever the reply: the copy follows directly, so that nothing comes between.
pub(super) fn copies_behind(rule: Rule) -> bool {
    matches!(rule, Rule::Sync | Rule::Script)
}

impl Engine {
    /// Have a command's keys copied directly behind it, because its effect cannot be told from its reply.
    pub(super) fn copy_behind(
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

    pub(super) fn doubt_now(&mut self, primary: usize, db: u16, name: &[u8], replicas: u32) {
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

    /// Have the keys copied whose copy is due.
    pub(super) fn ask_for_copies(&mut self, primary: usize) {
        let Some(count) =
            self.endpoints.get(primary).and_then(|e| e.sequencer.as_ref()).map(|s| s.replicas.len())
        else {
            return;
        };
        for bit in 0..count as u32 {
            loop {
                let now_ms = self.now.ms;
                let ready = |key: Option<usize>, all: &slab::Slab<Upstream>| {
                    key.and_then(|k| all.get(k)).is_some_and(|u| u.is_ready() && !u.is_full())
                };
                let serve = self.endpoints[primary].serve[0];
                let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
                let full = sequencer.copying >= COPIES_MAX;
                let Some(replica) = sequencer.replica(bit) else { break };
                if full || !ready(serve, &self.upstreams) || !ready(Some(replica.upstream), &self.upstreams) {
                    break;
                }
                let Some(key) = replica.repair.due(now_ms) else { break };
                if serve.and_then(|k| self.upstreams.get(k)).is_some_and(|u| u.is_refused(key.0)) {
                    replica.repair.forget(&key); // the command in doubt named a database that is not there
                    continue;
                }
                match self.copy_key(primary, key.0, &key.1, 1 << bit) {
                    Some(position) => {
                        if let Some(replica) =
                            self.endpoints[primary].sequencer.as_mut().and_then(|s| s.replica(bit))
                        {
                            replica.stats.count.resync_keys_total.inc();
                            replica.repair.asked(key, position);
                        }
                    }
                    None => {
                        if let Some(replica) =
                            self.endpoints[primary].sequencer.as_mut().and_then(|s| s.replica(bit))
                        {
                            replica.repair.put_back(key);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// The copy of a key is larger than what may be held: the replica cannot get it.
    pub(super) fn give_up_copy(&mut self, key: usize, call: &SyncCall) {
        let primary = self.upstreams[key].endpoint;
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        sequencer.copying = sequencer.copying.saturating_sub(1);
        let replicas = sequencer.log.get(call.entry).map_or(0, |e| e.replicas);
        sequencer.log.decide(call.entry, State::Nothing, None);
        let name = (call.db, call.key.as_slice().into());
        for replica in sequencer.replicas_mut().filter(|r| replicas & (1 << r.bit) != 0) {
            replica.repair.copied(&name, call.entry);
            replica.stats.count.lost_total.inc();
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
    }

    /// The copy of a key is here: its effect is the key as it is now.
    pub(super) fn commit_copy(&mut self, key: usize, call: SyncCall, reply: Reply<'_>) {
        let primary = self.upstreams[key].endpoint;
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        sequencer.copying = sequencer.copying.saturating_sub(1);
        let mut effect = Vec::new();
        let copied = !reply.is_error() && effect::sync_effect(&call.key, reply, &mut effect).is_some();
        debug_assert_eq!(sequencer.log.get(call.entry).map(|e| e.kind), Some(Kind::Sync));
        let replicas = sequencer.log.get(call.entry).map_or(0, |e| e.replicas);
        if copied {
            sequencer.log.decide(call.entry, State::Committed, Some((&effect, 1)));
        } else {
            sequencer.log.decide(call.entry, State::Nothing, None);
            let name: Key = (call.db, call.key.into());
            let now_ms = self.now.ms;
            for replica in sequencer.replicas_mut().filter(|r| replicas & (1 << r.bit) != 0) {
                replica.stats.count.error_total.inc();
                if !replica.repair.refused(name.clone(), call.entry, now_ms) {
                    replica.stats.count.lost_total.inc();
                }
            }
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
    }
}
