//! A whole key, copied from the primary to replicas: what its effect would have been cannot be told, or was lost.
//!
//! The copy is asked for on the primary's own connection and is an entry of the log like any other, so it is ordered
//! with the writes and needs no pause.

use smallvec::SmallVec;

use crate::command::{Command, keys, other_db};
use crate::resp::{Reply, Request, encode};

use super::Engine;
use super::call::{Call, Form, SyncCall};
use super::effect::{self, Logical, Rule};
use super::log::{Entry, Kind, State, UNCHECKED};
use super::marker;
use super::place::Place;
use super::repair::{FUNCTIONS, Key};
use super::replica::Judged;
use super::sequencer::Proof;
use super::store::Piece;
use super::upstream::{Entered, Upstream};

/// Most keys of one command that are copied directly behind it.
const COPIES_AT_ONCE: usize = 64;

/// A key whose payload is larger is not copied: nothing of this size is held for it.
pub(super) const PAYLOAD_MAX: usize = 32 << 20;

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
        if command.is_some_and(|c| c.name.starts_with("function|")) {
            // With each replica's own marker, which FUNCTION FLUSH would take away.
            self.doubt_now(place.endpoint, FUNCTIONS, b"", place.writes);
            return self.advance_generation(place.endpoint);
        }
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
            if self.copy_key(primary, db, name, replicas, Form::Payload).is_none() {
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
    pub(super) fn copy_key(
        &mut self,
        primary: usize,
        db: u16,
        name: &[u8],
        replicas: u32,
        form: Form,
    ) -> Option<u64> {
        let endpoint = self.endpoints.get_mut(primary)?;
        let key = endpoint.serve[0]?;
        let upstream = self.upstreams.get_mut(key)?;
        let sequencer = endpoint.sequencer.as_mut()?;
        if !upstream.is_ready() {
            return None;
        }
        let functions = db == FUNCTIONS;
        let db = if functions { 0 } else { db };
        if upstream.enter(db, None, self.now.ms) != Entered::Yes {
            // A SELECT that proves the database may have been queued.
            Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
            return None;
        }
        let modern = upstream.identity.as_ref().is_none_or(super::handshake::Identity::has_pexpiretime);
        self.scratch.clear();
        let left = if functions {
            encode::command(&mut self.scratch, &["FUNCTION", "LIST", "WITHCODE"]);
            1
        } else if let Form::Commands(kind) = form {
            effect::logical_commands(kind, modern, name, &mut self.scratch) as u32
        } else {
            effect::sync_commands(modern, name, &mut self.scratch) as u32
        };
        let entry = Entry {
            piece: Piece::EMPTY,
            replicas,
            db,
            replies: 1,
            state: State::Pending,
            kind: if functions { Kind::Functions } else { Kind::Sync },
            digest: UNCHECKED,
            selects: false,
            at_ms: self.now.ms,
        };
        let position = sequencer.log.append(&self.scratch, entry);
        if let Some(entry) = sequencer.log.get(position) {
            upstream.out.push_log(entry.piece);
        }
        sequencer.copying += 1;
        let db = if functions { FUNCTIONS } else { db };
        let call = SyncCall { db, key: name.to_vec(), form, entry: position, left };
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
        let limits = self.limits;
        // Copies wait in the log as effects do, and must not push these out.
        let room = self.log_limit() / 2;
        // Each in its turn: where the pace allows one at a time, the first one would take all.
        self.numbers += 1;
        let first = self.numbers as usize % count.max(1);
        for bit in (first..count).chain(0..first).map(|bit| bit as u32) {
            loop {
                let now_ms = self.now.ms;
                let ready = |key: Option<usize>, all: &slab::Slab<Upstream>| {
                    key.and_then(|k| all.get(k)).is_some_and(|u| u.is_ready() && !u.is_overfull())
                };
                let serve = self.endpoints[primary].serve[0];
                let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
                let bounds = (limits.resync_keys_per_s, limits.resync_bytes_per_s);
                let full = !sequencer.pace.allows(sequencer.copying, bounds) || sequencer.log.held() > room;
                let proven = sequencer.proof == Proof::Proven;
                if sequencer.log.held() > room {
                    sequencer.give_way(bit);
                }
                let Some(replica) = sequencer.replica(bit) else { break };
                if full
                    || !proven
                    || replica.paused
                    || replica.judged != Judged::Yes
                    || !ready(serve, &self.upstreams)
                    || !ready(Some(replica.upstream), &self.upstreams)
                {
                    break;
                }
                let Some(key) = replica.repair.due(now_ms) else { break };
                if serve.and_then(|k| self.upstreams.get(k)).is_some_and(|u| u.is_refused(key.0)) {
                    replica.repair.forget(&key); // the command in doubt named a database that is not there
                    continue;
                }
                if key.0 == FUNCTIONS {
                    let has = |key: Option<usize>| {
                        let upstream = key.and_then(|k| self.upstreams.get(k));
                        upstream
                            .and_then(|u| u.identity.as_ref())
                            .is_some_and(|i| i.place == marker::Place::Library)
                    };
                    if !has(serve) || !has(Some(replica.upstream)) {
                        replica.repair.forget(&key); // there are none (before 7.0), or they are out of reach
                        continue;
                    }
                }
                let gentle = replica.repair.is_gentle(&key) || (key.0 == FUNCTIONS && !replica.sole);
                let form = match (gentle, replica.logical) {
                    (true, _) => Form::Gentle,
                    (false, true) => Form::Commands(effect::Kind::String), // the reply tells which it is
                    (false, false) => Form::Payload,
                };
                match self.copy_key(primary, key.0, &key.1, 1 << bit, form) {
                    Some(position) => {
                        if let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() {
                            sequencer.pace.asked();
                        }
                        if let Some(replica) =
                            self.endpoints[primary].sequencer.as_mut().and_then(|s| s.replica(bit))
                        {
                            replica.stats.count.resync_keys_total.add(u64::from(key.0 != FUNCTIONS));
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

    /// A key cannot be copied; why.
    pub(super) fn give_up_copy(&mut self, key: usize, call: &SyncCall, reason: &str) {
        let primary = self.upstreams[key].endpoint;
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        sequencer.copying = sequencer.copying.saturating_sub(1);
        let replicas = sequencer.log.get(call.entry).map_or(0, |e| e.replicas);
        sequencer.log.decide(call.entry, State::Nothing, None);
        let now_ms = self.now.ms;
        for replica in sequencer.replicas_mut().filter(|r| replicas & (1 << r.bit) != 0) {
            replica.give_up((call.db, call.key.as_slice().into()), reason, now_ms);
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
    }

    /// The copy of a key is here: its effect is the key as it is now.
    pub(super) fn commit_copy(&mut self, key: usize, call: SyncCall, reply: Reply<'_>) {
        let primary = self.upstreams[key].endpoint;
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        sequencer.pace.copied(reply.bytes().len());
        let replicas = sequencer.log.get(call.entry).map_or(0, |e| e.replicas);
        let mut effect = Vec::new();
        let replies = match call.form {
            _ if reply.is_error() => None,
            Form::Commands(kind) if call.db != FUNCTIONS => {
                let counters = self.mirrors_have_counters(primary, replicas);
                match effect::logical_effect(kind, counters, &call.key, reply, &mut effect) {
                    Logical::Effect { replies } => Some(replies),
                    Logical::OtherKind(Some(kind)) => return self.copy_again(primary, replicas, &call, kind),
                    Logical::OtherKind(None) => {
                        return self.give_up_copy(key, &call, "its type cannot be copied by commands");
                    }
                    Logical::Failed => None,
                }
            }
            _ if call.db == FUNCTIONS => {
                let set = self.endpoints[primary].sequencer.as_ref().map_or(0, |s| s.set);
                let sequencer = self.endpoints[primary].sequencer.as_ref();
                let replica = sequencer.and_then(|s| s.replicas().find(|r| replicas & (1 << r.bit) != 0));
                let marker = replica.and_then(|r| self.marker_of(r, set, primary));
                Some(effect::functions_effect(
                    reply,
                    call.form == Form::Gentle,
                    marker.as_deref(),
                    &mut effect,
                ))
            }
            form => effect::sync_effect(&call.key, form == Form::Gentle, reply, &mut effect).map(|()| 1),
        };
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        sequencer.copying = sequencer.copying.saturating_sub(1);
        let name: Key = (call.db, call.key.into());
        let now_ms = self.now.ms;
        let state = if replies.is_some() && !effect.is_empty() { State::Committed } else { State::Nothing };
        sequencer.log.decide(call.entry, state, replies.map(|n| (effect.as_slice(), n)));
        let text = String::from_utf8_lossy(reply.bytes().get(1..200.min(reply.bytes().len())).unwrap_or(&[]));
        for replica in sequencer.replicas_mut().filter(|r| replicas & (1 << r.bit) != 0) {
            replica.stats.count.resync_bytes_total.add(effect.len() as u64);
            match (replies, state) {
                (Some(_), State::Committed) => {}
                (Some(_), _) => replica.repair.copied(&name, call.entry), // gentle, and gone
                (None, _) => {
                    replica.stats.count.error_total.inc();
                    replica.stats.label.set(
                        "reason",
                        format!("the primary refuses to have a key copied: {}", text.trim_end()),
                    );
                    if call.form == Form::Gentle && call.db != FUNCTIONS {
                        // There is no other way to add a key only if it is not there.
                        let reason = "the primary refuses DUMP, and the mirror is not this sidecar's alone";
                        replica.give_up(name.clone(), reason, now_ms);
                    } else if call.form == Form::Payload && !replica.logical && call.db != FUNCTIONS {
                        replica.logical = true; // DUMP may be forbidden, or renamed
                        replica.again(name.clone(), call.entry);
                    } else {
                        replica.miss(name.clone(), call.entry, Some(now_ms));
                    }
                }
            }
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
    }

    /// The key turned out to be of another type than was asked for.
    fn copy_again(&mut self, primary: usize, replicas: u32, call: &SyncCall, kind: effect::Kind) {
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        sequencer.copying = sequencer.copying.saturating_sub(1);
        sequencer.log.decide(call.entry, State::Nothing, None);
        let position = self.copy_key(primary, call.db, &call.key, replicas, Form::Commands(kind));
        let name: Key = (call.db, call.key.as_slice().into());
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        for replica in sequencer.replicas_mut().filter(|r| replicas & (1 << r.bit) != 0) {
            match position {
                Some(position) => replica.repair.moved(&name, call.entry, position),
                None => replica.again(name.clone(), call.entry),
            }
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
    }

    /// Whether all of these replicas know the counters of a stream (7.0).
    fn mirrors_have_counters(&self, primary: usize, replicas: u32) -> bool {
        let all = self.endpoints[primary].sequencer.iter().flat_map(|s| s.replicas());
        let mut of =
            all.filter(|r| replicas & (1 << r.bit) != 0).filter_map(|r| self.upstreams.get(r.upstream));
        of.all(|u| u.identity.as_ref().is_some_and(super::handshake::Identity::has_pexpiretime))
    }
}
