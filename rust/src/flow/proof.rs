//! What is known of a primary's data: it counts, or it lost some and is to be filled from a mirror first.

use std::cmp::Reverse;

use super::handshake::Identity;
use super::maps::adopt;
use super::marker::{Marker, Owner, Part, name_hash};
use super::replica::{Judged, Lack, Need, Replica};
use super::sequencer::Proof;
use super::{Endpoint, Engine};

/// How long a primary that lost data waits for a mirror to be filled from.
const HOLD_MS: u64 = 10_000;

/// The set of a primary that no marker and no map names: it must differ from every other.
pub(super) fn new_set(seed: u64, unix_ms: u64, name: &str) -> u64 {
    name_hash(&[name, &seed.to_string(), &unix_ms.to_string()]).max(1)
}

impl Engine {
    /// What tells the markers of a primary's mirrors from those of others.
    pub(super) fn owner(&self, primary: usize) -> Owner {
        let Some(endpoint) = self.endpoints.get(primary) else { return Owner::default() };
        let sets = self.endpoints.iter().filter_map(|(_, e)| e.sequencer.as_ref());
        Owner {
            set: endpoint.sequencer.as_ref().map_or(0, |s| s.set),
            of: name_hash(&[&self.plan.host, &endpoint.name()]),
            sets: sets.map(|s| s.set).filter(|set| *set != 0).collect(),
        }
    }

    /// A primary has come (back): is its data what replicas are to have?
    pub(super) fn prove_primary(&mut self, key: usize) {
        if self.is_groups_own(key) {
            return; // what it has counts if its member leads
        }
        let Some((endpoint, identity)) = self.primary_identity(key) else { return };
        let name = endpoint.name();
        let of = self.owner(key).of;
        let Some(sequencer) = &endpoint.sequencer else { return };
        let restarted = !sequencer.run_id.is_empty() && sequencer.run_id != identity.run_id;
        if !restarted && matches!(sequencer.proof, Proof::Proven | Proof::Doubtful) {
            return;
        }
        let known = sequencer.set;
        if restarted && let Some(sequencer) = self.endpoints[key].sequencer.as_mut() {
            sequencer.proof = Proof::Unknown; // whatever it was before
        }
        let Some((endpoint, identity)) = self.primary_identity(key) else { return };
        let Some(sequencer) = &endpoint.sequencer else { return };
        let marker =
            identity.markers.iter().find(|m| m.part == Part::Primary && (known == 0 || m.set == known));
        let marker = marker.copied();
        if identity.run_id.is_empty() {
            return self.doubt_primary_because(
                key,
                "its user may not ask INFO, so that nothing is known of its data: give it +info",
            );
        }
        let process = name_hash(&[&identity.run_id]);
        if sequencer.replicas().any(|r| r.map.run(2) == process) {
            return self.doubt_primary(key); // as before this process
        }
        // A mirror that knows of later generations than the primary: this is an old copy of it.
        let newer = |marker: &Marker| {
            let replicas =
                sequencer.replicas().filter_map(|r| self.upstreams.get(r.upstream)?.identity.as_ref());
            let mut mirrors = replicas.flat_map(|i| &i.markers).filter(|m| m.part == Part::Mirror);
            mirrors.any(|m| m.set == marker.set && m.sole && !m.partial && m.generation > marker.generation)
        };
        let proven = match (known, marker) {
            // The very process whose data was proven; FUNCTION FLUSH takes markers away.
            (1.., _) if sequencer.replicas().any(|r| r.map.set() == known && r.map.run(0) == process) => true,
            (0, Some(_)) if self.has_pending_mirrors(key) => return,
            (0, Some(marker)) => !marker.partial && !newer(&marker),
            (0, None) => {
                // Before it is taken for a new one: does a mirror have what it had?
                if self.has_pending_mirrors(key) {
                    return;
                }
                match self.orphan(key, of) {
                    Some(orphan) => {
                        self.adopt_set(key, orphan.set, orphan.generation);
                        // A mirror never has a complete marker before its primary has it.
                        orphan.partial || !orphan.sole
                    }
                    None => true,
                }
            }
            // A snapshot may be as old as the generation. A mirror that went on has what came after it.
            (1.., Some(_)) if !identity.aof && self.has_pending_mirrors(key) => return,
            (1.., Some(_)) if !identity.aof && self.has_newer_mirror(key) => false,
            (_, Some(marker)) => !marker.partial && marker.generation >= sequencer.marked && !newer(&marker),
            // It takes no markers. One that is empty, and was not, has lost what a mirror has.
            (_, None) => sequencer.marked == 0 && !(identity.empty && self.sources(key).next().is_some()),
        };
        if let Some(marker) = marker {
            self.adopt_set(key, marker.set, marker.generation);
        }
        let (seed, unix_ms, now_ms) = (self.seed, self.now.unix_ms, self.now.ms);
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        sequencer.run_id.clone_from(&identity.run_id);
        if !proven && marker.is_none() && !identity.empty {
            // It has data, and none of it is what it had: another Redis, perhaps.
            return self.doubt_primary(key);
        }
        if !proven {
            sequencer.proof = Proof::Held { since_ms: now_ms, from: None };
            let text = "it lost data: its marker is missing or old; it waits to be filled from a mirror";
            self.tell("primary", name, text.to_owned());
            return self.hold(key);
        }
        if sequencer.set == 0 {
            sequencer.set = new_set(seed, unix_ms, &name);
        }
        self.proven(key, if restarted { Need::Marked } else { Need::Nothing });
    }

    /// A primary's connection stands.
    pub(super) fn primary_ready(&mut self, primary: usize, key: usize) {
        let Some(endpoint) = self.endpoints.get_mut(primary).filter(|e| e.serve[0] == Some(key)) else {
            return;
        };
        let connection = self.upstreams.get(key).map(|u| u.predecessor).unwrap_or_default();
        for replica in endpoint.sequencer.iter_mut().flat_map(|s| s.replicas_mut()) {
            replica.map.set_connection(0, connection.run, connection.number);
        }
        let bits: Vec<u32> = endpoint.sequencer.iter().flat_map(|s| s.replicas()).map(|r| r.bit).collect();
        for bit in bits {
            self.refuse_same_server(primary, bit);
        }
        if self.is_groups_own(primary) {
            return self.own_redis_ready(primary);
        }
        self.prove_primary(primary);
    }

    /// What time changes in what is known.
    pub(super) fn tick_proof(&mut self, key: usize) {
        let bounds = (self.limits.resync_keys_per_s, self.limits.resync_bytes_per_s);
        let now_ms = self.now.ms;
        let grouped = self.is_groups_own(key);
        let endpoint = &mut self.endpoints[key];
        let totals = endpoint.stats.time.totals();
        let Some(sequencer) = endpoint.sequencer.as_mut() else { return };
        let (mut lacking, mut copying) = (false, sequencer.copying > 0);
        let generation =
            if sequencer.proof == Proof::Proven && !sequencer.marking { sequencer.generation } else { 0 };
        for replica in sequencer.replicas_mut() {
            let lacks = replica.need > Need::Nothing;
            lacking |= lacks && !replica.lacked;
            replica.lacked = lacks;
            replica.late &= !replica.repair.is_empty();
            // Its marker was due while it still lacked something.
            lacking |= grouped
                && replica.open
                && replica.is_clean()
                && replica.mark.is_none()
                && replica.marked < generation
                && !replica.markless;
            copying |= replica.resync.is_some() || replica.repair.waiting() > 0;
        }
        sequencer.remark |= lacking; // from here on the primary's marker is newer than that mirror's
        sequencer.pace.look(now_ms, totals, copying, bounds);
        if copying {
            Self::mark_sequencer(sequencer, key, &mut self.dirty_sequencers); // it may go on
        }
        match sequencer.proof {
            Proof::Unknown => self.prove_primary(key),
            Proof::Held { .. } => self.hold(key),
            Proof::Proven => {
                self.retry_unrepaired(key);
                self.advance_generation(key);
            }
            Proof::Doubtful | Proof::Following => {}
        }
    }

    /// A primary's data counts from now on. `need`: what its replicas may lack beside what they know.
    pub(super) fn proven(&mut self, key: usize, need: Need) {
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        sequencer.proof = Proof::Proven;
        sequencer.remark = true;
        sequencer.advance_at = 0;
        let (set, generation, marked) = (sequencer.set, sequencer.generation, sequencer.marked);
        let process = name_hash(&[&sequencer.run_id]);
        for replica in sequencer.replicas_mut() {
            adopt(&mut replica.map, set, generation, marked);
            replica.map.set_run(0, process);
            replica.map.set_run(2, 0);
            if need > Need::Nothing {
                replica.lack(need);
                replica.resync = None;
            }
        }
        self.touch_sequencer(key);
        if let Some(serve) = self.endpoints[key].serve[0] {
            self.wake_waiters(serve);
        }
    }

    pub(super) fn primary_identity(&self, key: usize) -> Option<(&Endpoint, Identity)> {
        let endpoint = self.endpoints.get(key)?;
        endpoint.sequencer.as_ref()?;
        let upstream = self.upstreams.get(endpoint.serve[0]?).filter(|u| u.is_ready())?;
        Some((endpoint, upstream.identity.clone()?))
    }

    pub(super) fn adopt_set(&mut self, key: usize, set: u64, generation: u64) {
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        sequencer.set = set;
        sequencer.generation = sequencer.generation.max(generation);
        let (generation, marked) = (sequencer.generation, sequencer.marked);
        for replica in sequencer.replicas_mut() {
            adopt(&mut replica.map, set, generation, marked);
        }
    }

    /// Whether a mirror may still turn out to be there.
    fn has_pending_mirrors(&self, key: usize) -> bool {
        let replicas = self.endpoints[key].sequencer.iter().flat_map(|s| s.replicas());
        replicas.filter_map(|r| self.upstreams.get(r.upstream)).any(|u| !u.is_ready() && u.is_worth_waiting())
    }

    /// Whether a mirror still runs which had everything up to the end of the primary's process.
    fn has_newer_mirror(&self, key: usize) -> bool {
        self.sources(key).filter(|r| r.lacked_then == Lack::Nothing || r.judged != Judged::Yes).any(|r| {
            let upstream = self.upstreams.get(r.upstream).and_then(|u| u.identity.as_ref());
            upstream.is_some_and(|i| name_hash(&[&i.run_id]) == r.map.run(1))
        })
    }

    /// The mirrors that a primary could be filled from: they are this sidecar's alone, get everything that the primary
    /// has, and lacked no more than the last changes of some keys when it was lost.
    fn sources(&self, key: usize) -> impl Iterator<Item = &Replica> {
        let owner = self.owner(key);
        let sequencer = self.endpoints[key].sequencer.as_ref();
        // Which server of several had which key, the one that fills it cannot know.
        let alone = |name: &str| {
            let cluster = self.plan.clusters.iter().find(|c| c.name == name); // those of links are behind it
            cluster.is_some_and(|c| c.endpoints.len() == 1)
        };
        let marked = sequencer.map_or(0, |s| s.marked);
        sequencer.into_iter().flat_map(|s| s.replicas()).filter(move |r| {
            let pair = [key, r.target].into_iter().filter_map(|e| self.endpoints.get(e));
            let Some(identity) =
                self.upstreams.get(r.upstream).filter(|u| u.is_ready()).and_then(|u| u.identity.as_ref())
            else {
                return false;
            };
            let mut targets = self.listeners.iter().flat_map(|l| &l.routes).flat_map(|r| &r.by_endpoint);
            // What no mirror has cannot be had back from one.
            let whole = targets.all(|t| t.endpoint != key || t.writes == 0 || t.writes & (1 << r.bit) != 0);
            let complete = |m: &Marker| {
                m.set == owner.set && m.part == Part::Mirror && m.sole && !m.partial && m.generation >= marked
            };
            let has_it = if r.judged == Judged::Yes {
                r.sole && r.lacked_then != Lack::Keys && r.resync.is_none()
            } else {
                !r.map.is_shared() && identity.markers.iter().any(complete)
            };
            let foreign = identity.markers.iter().any(|m| m.is_foreign(&owner));
            whole
                && has_it
                && r.need == Need::Nothing
                && !foreign
                && pair.into_iter().all(|e| alone(&e.cluster))
        })
    }

    /// The marker of a mirror of this primary in an earlier life.
    fn orphan(&self, key: usize, of: u64) -> Option<Marker> {
        let replicas = self.endpoints[key].sequencer.iter().flat_map(|s| s.replicas());
        let identities = replicas.filter_map(|r| self.upstreams.get(r.upstream)?.identity.as_ref());
        let orphans = identities.flat_map(|i| &i.markers).filter(|m| m.part == Part::Mirror && m.of == of);
        orphans.max_by_key(|m| (m.sole && !m.partial, m.generation)).copied()
    }

    /// A primary that lost data: find a mirror that has it.
    pub(super) fn hold(&mut self, key: usize) {
        if self.primary_identity(key).is_none() {
            return; // nothing may be queued to a connection that is down
        }
        let Some(sequencer) = self.endpoints[key].sequencer.as_ref() else { return };
        let Proof::Held { since_ms, from } = sequencer.proof else { return };
        if from.is_some() {
            return;
        }
        let delivered = |r: &&Replica| r.acked >= sequencer.log.decided() && r.in_flight == 0;
        let source = self.sources(key).filter(delivered);
        let source = source.max_by_key(|r| (Reverse(r.lacked_then), r.map.generation()));
        let source = source.map(|r| (r.bit, r.name(), r.run_id.clone().unwrap_or_default(), r.lacked_then));
        let none_can = sequencer.replicas().all(|r| r.map.is_shared());
        if let Some((bit, name, run_id, lack)) = source {
            if !self.mark_partial(key) {
                return; // should the filling end half-way, that has to be there
            }
            if let Some(sequencer) = self.endpoints[key].sequencer.as_mut() {
                // Once it is being filled, only the end of that opens it.
                sequencer.proof = Proof::Held { since_ms: u64::MAX / 2, from: Some(bit) };
            }
            let missing = match lack {
                Lack::Changes(keys) => format!(
                    "; copies of {keys} keys to it were on their way when it was lost: their last changes may be missing"
                ),
                Lack::Nothing | Lack::Keys => String::new(),
            };
            let text = format!("the primary lost data that its mirror (run_id {run_id}) has{missing}");
            self.tell("refill", name, text);
        } else if none_can {
            // Two that write to each other: whichever lost its data is one writer of several, and each adds what is
            // missing.
            let name = self.endpoints[key].name();
            self.tell(
                "primary",
                name,
                "it lost data, and no mirror is this sidecar's alone: it counts as it is".into(),
            );
            self.proven(key, Need::Full);
        } else if self.now.ms >= since_ms + HOLD_MS {
            self.doubt_primary(key);
        }
    }

    /// A primary's data may lack something, and no mirror can tell.
    pub(super) fn doubt_primary(&mut self, key: usize) {
        let text = "it lost data, and no mirror was there to fill it from: it serves what it has, and nothing is copied \
                    from it. Restart it while its mirror is up to have it filled, or take it as it is: redisha resync \
                    CLUSTER --accept";
        self.doubt_primary_because(key, text);
    }

    fn doubt_primary_because(&mut self, key: usize, text: &str) {
        let name = self.endpoints[key].name();
        let run_id = self.primary_identity(key).map(|(_, identity)| identity.run_id).unwrap_or_default();
        let process = if run_id.is_empty() { 0 } else { name_hash(&[&run_id]) };
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        let told = sequencer.proof == Proof::Doubtful;
        sequencer.proof = Proof::Doubtful;
        sequencer.run_id = run_id;
        sequencer.replicas_mut().for_each(|r| r.map.set_run(2, process));
        if !told {
            self.tell("primary", name, text.to_owned());
        }
        if let Some(serve) = self.endpoints[key].serve[0] {
            self.wake_waiters(serve);
        }
    }

    /// A primary was filled from its mirror, or could not be.
    pub fn refilled(&mut self, primary: &str, ok: bool) {
        let Some(key) = self.endpoints.iter().find(|(_, e)| e.name() == primary).map(|(key, _)| key) else {
            return;
        };
        let run_id = self.primary_identity(key).map(|(_, identity)| identity.run_id);
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        // Should the mirror have been lost meanwhile, what was copied is not what it had.
        let Proof::Held { from, .. } = sequencer.proof else { return };
        let same = run_id.is_some_and(|run_id| run_id == sequencer.run_id);
        // Another mirror may have the changes that the one it was filled from lacked.
        let lacked = |r: &&Replica| Some(r.bit) == from && r.lacked_then != Lack::Nothing;
        let few = sequencer.replicas().count() == 1 || !sequencer.replicas().any(|r| lacked(&r));
        if ok && same && from.is_some() {
            self.tell("primary", primary.to_owned(), "it has been filled from its mirror".to_owned());
            self.proven(key, if few { Need::Marked } else { Need::Full });
        } else {
            sequencer.proof = Proof::Held { since_ms: self.now.ms, from: None };
        }
    }
}
