//! What is known of the data on a primary and its mirrors, and how it stays known: dirty maps, markers, generations.

use super::call::Call;
use super::dirty::{DirtyMap, Found, Region};
use super::handshake::{Identity, Predecessor};
use super::marker::{Marker, Part, Place, name_hash};
use super::replica::{Judged, Need, Replica};
use super::resync::{Decision, Resync, Step, View, Way, decide};
use super::sequencer::{Proof, Sequencer};
use super::upstream::{Entered, Role, Upstream};
use super::{Endpoint, Engine};

/// Time between two generations (milliseconds).
const GENERATION_MS: u64 = 10_000;
/// Fewer dirty buckets than this may wait longer.
const FEW: u64 = 1_024;
const GENERATION_FEW_MS: u64 = 60_000;
/// When a mirror that refused its first marker for a passing reason gets another (milliseconds).
const JUDGE_AGAIN_MS: u64 = 1_000;
/// How long a primary that lost data waits for a mirror to be filled from.
const HOLD_MS: u64 = 10_000;

/// The set of a primary that no marker and no map names: it must differ from every other.
fn new_set(seed: u64, unix_ms: u64, name: &str) -> u64 {
    name_hash(&[name, &seed.to_string(), &unix_ms.to_string()]).max(1)
}

impl Engine {
    /// The memory of a replica's dirty map is here. `boot` names the machine's boot.
    pub fn map_opened(&mut self, endpoint: usize, bit: u32, region: Region, boot: [u8; 16]) {
        let Some((primary, replica)) = self.replica_at(endpoint, bit) else { return };
        let names = name_hash(&[&primary, &replica.stats.label.get("mirror")]);
        let (mut map, found) = DirtyMap::open(region, names, boot);
        map.merge(&replica.map);
        replica.map = map;
        let (name, upstream) = (replica.name(), replica.upstream);
        let connections = [replica.map.connection(0), replica.map.connection(1)];
        for (key, (run, number)) in
            [self.endpoints[endpoint].serve[0], Some(upstream)].iter().zip(connections)
        {
            // A process before this one may have left something half-sent.
            if let Some(upstream) = key.and_then(|key| self.upstreams.get_mut(key))
                && upstream.predecessor.number == 0
            {
                upstream.predecessor = Predecessor { run, number };
            }
        }
        if let Found::Untrusted(why) = found {
            self.tell("map", name, format!("the dirty map is not used: {why}; every key counts as dirty"));
        }
        self.agree_on_set(endpoint);
    }

    /// The file of a replica's dirty map cannot be used.
    pub fn map_failed(&mut self, endpoint: usize, bit: u32, why: &str) {
        let Some((_, replica)) = self.replica_at(endpoint, bit) else { return };
        let name = replica.name();
        let text = format!(
            "the dirty map is kept in memory only: {why}; when redisha ends, every key counts as dirty"
        );
        self.tell("map", name, text);
        self.agree_on_set(endpoint);
    }

    /// The process ends in order: its maps may be believed after another boot, too.
    pub fn close_maps(&mut self) {
        for (_, endpoint) in &mut self.endpoints {
            for replica in endpoint.sequencer.iter_mut().flat_map(|s| s.replicas_mut()) {
                replica.map.close();
            }
        }
    }

    /// The names of the dirty maps in use.
    pub fn map_names(&self) -> Vec<u64> {
        let mut names = Vec::new();
        for (_, endpoint) in &self.endpoints {
            let replicas = endpoint.sequencer.iter().flat_map(|s| s.replicas());
            names.extend(replicas.map(|r| name_hash(&[&endpoint.name(), &r.stats.label.get("mirror")])));
        }
        names
    }

    fn replica_at(&mut self, endpoint: usize, bit: u32) -> Option<(String, &mut Replica)> {
        let endpoint = self.endpoints.get_mut(endpoint)?;
        let name = endpoint.name();
        Some((name, endpoint.sequencer.as_mut()?.replica(bit)?))
    }

    /// A new replica of a primary whose data is known is about that data.
    pub(super) fn agree_on_sets(&mut self) {
        for key in 0..self.endpoints.capacity() {
            if self.endpoints.contains(key) {
                self.agree_on_set(key);
            }
        }
    }

    /// One set and one generation for all replicas of a primary.
    fn agree_on_set(&mut self, endpoint: usize) {
        let Some(sequencer) = self.endpoints[endpoint].sequencer.as_mut() else { return };
        let maps = || sequencer.replicas.iter().flatten().map(|r| &r.map);
        let known = maps().map(DirtyMap::set).find(|set| *set != 0);
        let newest = maps().map(DirtyMap::generation).max().unwrap_or(1);
        let marked = maps().map(DirtyMap::primary_marked).max().unwrap_or(0);
        if sequencer.set == 0 {
            sequencer.set = known.unwrap_or(0);
            sequencer.marked = marked;
        }
        sequencer.generation = sequencer.generation.max(newest);
        let (set, generation, marked) = (sequencer.set, sequencer.generation, sequencer.marked);
        for replica in sequencer.replicas_mut() {
            adopt(&mut replica.map, set, generation, marked);
        }
    }

    /// A primary has come (back): is its data what replicas are to have?
    pub(super) fn prove_primary(&mut self, key: usize) {
        let Some((endpoint, identity)) = self.primary_identity(key) else { return };
        let name = endpoint.name();
        let of = name_hash(&[&name]);
        let Some(sequencer) = &endpoint.sequencer else { return };
        let restarted = !sequencer.run_id.is_empty() && sequencer.run_id != identity.run_id;
        if !restarted && matches!(sequencer.proof, Proof::Proven | Proof::Doubtful) {
            return;
        }
        let known = sequencer.set;
        let marker =
            identity.markers.iter().find(|m| m.part == Part::Primary && (known == 0 || m.set == known));
        let marker = marker.copied();
        let process = name_hash(&[&identity.run_id]);
        let proven = match (known, marker) {
            // The very process whose data was proven; FUNCTION FLUSH takes markers away.
            (1.., _) if sequencer.replicas().any(|r| r.map.set() == known && r.map.run(0) == process) => true,
            (0, Some(marker)) => !marker.partial,
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
            (_, Some(marker)) => !marker.partial && marker.generation >= sequencer.marked,
            (_, None) => sequencer.marked == 0,
        };
        if let Some(marker) = marker {
            self.adopt_set(key, marker.set, marker.generation);
        }
        let (seed, unix_ms, now_ms) = (self.seed, self.now.unix_ms, self.now.ms);
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        sequencer.run_id.clone_from(&identity.run_id);
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
        self.prove_primary(primary);
    }

    /// What time changes in what is known.
    pub(super) fn tick_proof(&mut self, key: usize) {
        let bounds = (self.limits.resync_keys_per_s, self.limits.resync_bytes_per_s);
        let now_ms = self.now.ms;
        let endpoint = &mut self.endpoints[key];
        let totals = endpoint.stats.time.totals();
        let Some(sequencer) = endpoint.sequencer.as_mut() else { return };
        sequencer.pace.look(now_ms, totals, sequencer.copying > 0, bounds);
        match sequencer.proof {
            Proof::Unknown => self.prove_primary(key),
            Proof::Held { .. } => self.hold(key),
            Proof::Proven => {
                self.retry_unrepaired(key);
                self.advance_generation(key);
            }
            Proof::Doubtful => {}
        }
    }

    /// The command that writes the marker which a replica has now.
    pub(super) fn marker_of(&self, replica: &Replica, set: u64, primary: usize) -> Option<Vec<u8>> {
        let identity = self.upstreams.get(replica.upstream)?.identity.as_ref()?;
        let marker = Marker {
            set,
            part: Part::Mirror,
            of: name_hash(&[&self.endpoints.get(primary)?.name()]),
            generation: if replica.marked > 0 { replica.marked } else { replica.since },
            partial: replica.marked == 0,
            sole: replica.sole,
        };
        let mut bytes = Vec::new();
        marker.write(identity.place, &mut bytes);
        (identity.place == Place::Library && !replica.markless).then_some(bytes)
    }

    /// A primary's data counts from now on. `need`: what its replicas may lack beside what they know.
    fn proven(&mut self, key: usize, need: Need) {
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        sequencer.proof = Proof::Proven;
        sequencer.remark = true;
        sequencer.advance_at = 0;
        let (set, generation, marked) = (sequencer.set, sequencer.generation, sequencer.marked);
        let process = name_hash(&[&sequencer.run_id]);
        for replica in sequencer.replicas_mut() {
            adopt(&mut replica.map, set, generation, marked);
            replica.map.set_run(0, process);
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

    fn primary_identity(&self, key: usize) -> Option<(&Endpoint, Identity)> {
        let endpoint = self.endpoints.get(key)?;
        endpoint.sequencer.as_ref()?;
        let upstream = self.upstreams.get(endpoint.serve[0]?).filter(|u| u.is_ready())?;
        Some((endpoint, upstream.identity.clone()?))
    }

    fn adopt_set(&mut self, key: usize, set: u64, generation: u64) {
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

    /// The marker of a mirror of this primary in an earlier life.
    fn orphan(&self, key: usize, of: u64) -> Option<Marker> {
        let replicas = self.endpoints[key].sequencer.iter().flat_map(|s| s.replicas());
        let identities = replicas.filter_map(|r| self.upstreams.get(r.upstream)?.identity.as_ref());
        let orphans = identities.flat_map(|i| &i.markers).filter(|m| m.part == Part::Mirror && m.of == of);
        orphans.max_by_key(|m| (m.sole && !m.partial, m.generation)).copied()
    }

    /// A primary that lost data: find a mirror that has it.
    pub(super) fn hold(&mut self, key: usize) {
        let Some(sequencer) = self.endpoints[key].sequencer.as_ref() else { return };
        let Proof::Held { since_ms, from } = sequencer.proof else { return };
        if from.is_some() {
            return;
        }
        let (set, of) = (sequencer.set, name_hash(&[&self.endpoints[key].name()]));
        let markers = |r: &Replica| {
            let upstream = self.upstreams.get(r.upstream).filter(|u| u.is_ready())?;
            upstream.identity.as_ref().map(|i| i.markers.as_slice())
        };
        let has_it = |r: &&Replica| {
            let Some(markers) = markers(r) else { return false };
            if r.judged == Judged::Yes {
                return r.sole && r.resync.is_none() && !r.unproven;
            }
            let mine = markers.iter().any(|m| m.set == set && m.part == Part::Mirror && m.sole && !m.partial);
            mine && !r.map.is_shared() && !markers.iter().any(|m| m.is_foreign(set, of))
        };
        let delivered = |r: &&Replica| r.acked >= sequencer.log.decided() && r.in_flight == 0;
        let source = sequencer.replicas().filter(has_it).find(delivered).map(|r| (r.bit, r.name()));
        let none_can = sequencer.replicas().all(|r| r.map.is_shared());
        if let Some((bit, name)) = source {
            if let Some(sequencer) = self.endpoints[key].sequencer.as_mut() {
                sequencer.proof = Proof::Held { since_ms, from: Some(bit) };
            }
            self.tell("refill", name, "the primary lost data that its mirror has".to_owned());
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

    fn doubt_primary(&mut self, key: usize) {
        let name = self.endpoints[key].name();
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        sequencer.proof = Proof::Doubtful;
        let text = "it lost data, and no mirror was there to fill it from: it serves what it has, and nothing is copied \
                    from it. Restart it while its mirror is up to have it filled, or take it as it is: redisha resync \
                    CLUSTER --accept";
        self.tell("primary", name, text.to_owned());
        if let Some(serve) = self.endpoints[key].serve[0] {
            self.wake_waiters(serve);
        }
    }

    /// A primary was filled from its mirror, or could not be.
    pub fn refilled(&mut self, primary: &str, ok: bool) {
        let Some(key) = self.endpoints.iter().find(|(_, e)| e.name() == primary).map(|(key, _)| key) else {
            return;
        };
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        if !matches!(sequencer.proof, Proof::Held { .. }) {
            return;
        }
        if ok {
            self.tell("primary", primary.to_owned(), "it has been filled from its mirror".to_owned());
            self.proven(key, Need::Marked);
        } else {
            sequencer.proof = Proof::Held { since_ms: self.now.ms, from: None };
        }
    }

    /// What the operator wants of the replicas of a cluster.
    pub fn resync(&mut self, cluster: &str, action: Action) {
        for key in 0..self.endpoints.capacity() {
            let Some(endpoint) = self.endpoints.get(key) else { continue };
            let of_primary = endpoint.cluster == cluster;
            let Some(sequencer) = endpoint.sequencer.as_ref() else { continue };
            if action == Action::Accept && of_primary && sequencer.proof != Proof::Proven {
                let set = new_set(self.seed, self.now.unix_ms, cluster);
                if let Some(sequencer) = self.endpoints[key].sequencer.as_mut().filter(|s| s.set == 0) {
                    sequencer.set = set;
                }
                self.proven(key, Need::Full);
                continue;
            }
            let targets: Vec<u32> = sequencer
                .replicas()
                .filter(|r| of_primary || self.endpoints.get(r.target).is_some_and(|e| e.cluster == cluster))
                .map(|r| r.bit)
                .collect();
            let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { continue };
            for replica in sequencer.replicas_mut().filter(|r| targets.contains(&r.bit)) {
                match action {
                    Action::Pause => replica.paused = true,
                    Action::Resume => replica.paused = false,
                    Action::Start => {
                        replica.paused = false;
                        replica.lack(Need::Marked);
                    }
                    Action::Full => {
                        replica.paused = false;
                        replica.claimed = true;
                        replica.resync = None;
                        replica.lack(Need::Full);
                    }
                    Action::Accept => {}
                }
            }
            self.touch_sequencer(key);
        }
    }

    /// Keys were found to differ: have them copied.
    pub fn doubt_keys(&mut self, primary: &str, mirror: &str, keys: &[(u16, Vec<u8>)]) {
        let Some(key) = self.endpoints.iter().find(|(_, e)| e.name() == primary).map(|(key, _)| key) else {
            return;
        };
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        let end = sequencer.log.end();
        for replica in sequencer.replicas_mut().filter(|r| r.stats.label.get("mirror") == mirror && r.sole) {
            for (db, name) in keys {
                replica.doubt((*db, name.as_slice().into()), end);
            }
        }
        self.touch_sequencer(key);
    }

    /// A mirror's connection stands.
    pub(super) fn replica_ready(&mut self, primary: usize, bit: u32, identity: &Identity) {
        let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        let Some(replica) = sequencer.replica(bit) else { return };
        let Predecessor { run, number } = Predecessor::of(identity);
        replica.map.set_connection(1, run, number);
        let continues = replica.run_id.as_ref() == Some(&identity.run_id);
        let restarted = replica.run_id.is_some() && !continues;
        replica.stats.count.restarts_total.add(u64::from(restarted));
        replica.run_id = Some(identity.run_id.clone());
        replica.markless = false;
        replica.logical &= continues;
        if !continues || (replica.need != Need::Nothing && replica.resync.is_none()) {
            replica.judged = Judged::No;
        } else if replica.open {
            replica.stats.label.set("resync", "log");
        } else {
            replica.judged = Judged::No; // its first marker may be lost
            replica.resync = None;
        }
        if !continues {
            replica.open = false;
            replica.resync = None;
            replica.marked = 0;
            replica.mark = None;
        } else if replica.mark.is_none() {
            sequencer.remark = true; // one may have been lost with the connection
        }
        self.refuse_same_server(primary, bit);
        if self.endpoints[primary].sequencer.as_ref().is_some_and(|s| s.proof == Proof::Unknown) {
            self.prove_primary(primary);
        }
        self.touch_sequencer(primary);
    }

    /// A mirror that is its own primary would get every write twice.
    pub(super) fn refuse_same_server(&mut self, primary: usize, bit: u32) {
        let Some((_, ours)) = self.primary_identity(primary) else { return };
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        let key = replica.upstream;
        let Some(theirs) = self.upstreams.get(key).filter(|u| u.is_ready()).and_then(|u| u.identity.as_ref())
        else {
            return;
        };
        let same = !ours.run_id.is_empty() && theirs.run_id == ours.run_id;
        let run_id = ours.run_id;
        let Some((name, replica)) = self.replica_at(primary, bit) else { return };
        replica.refused = same;
        if same {
            let (subject, mirror) = (replica.name(), replica.stats.label.get("mirror"));
            let text = format!(
                "{mirror} and {name} are the same Redis (run_id {run_id}): nothing is mirrored to it"
            );
            self.break_upstream(key, &text);
            self.tell("same_server", subject, text);
        }
    }

    /// A mirror that was another server's replica for a while may have that one's data now, in the same process.
    pub(super) fn look_closer(&mut self, primary: usize, bit: u32) {
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        if replica.suspect
            && replica.judged == Judged::Yes
            && replica.repair.is_empty()
            && replica.resync.is_none()
        {
            replica.suspect = false;
            replica.marked = 0;
            replica.map.set_run(1, 0); // only its marker can tell
            replica.lack(Need::Dirty);
        }
    }

    /// Find out what a replica's Redis lacks, if that is not known. Its connection and its primary's are ready.
    pub(super) fn judge(&mut self, primary: usize, bit: u32) {
        let now_ms = self.now.ms;
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        let (set, proven) = (sequencer.set, sequencer.proof == Proof::Proven);
        let Some(replica) = sequencer.replica(bit) else { return };
        if !proven || replica.paused || now_ms < replica.judge_at {
            return;
        }
        match replica.judged {
            Judged::Asked => {}
            // First the resync in course.
            Judged::Yes if replica.need == Need::Nothing || replica.resync.is_some() => {}
            // Its markers are as fresh as its connection.
            Judged::No => {
                let Some(identity) = self.upstreams[replica.upstream].identity.clone() else { return };
                self.sentence(primary, bit, set, &identity);
            }
            Judged::Yes => {
                let upstream = replica.upstream;
                if self.ask_for_markers(upstream, bit)
                    && let Some((_, replica)) = self.replica_at(primary, bit)
                {
                    replica.judged = Judged::Asked;
                }
            }
        }
    }

    /// Read a mirror's markers again; `false`: not yet.
    pub(super) fn ask_for_markers(&mut self, key: usize, bit: u32) -> bool {
        let Role::Replica { primary, .. } = self.upstreams[key].role else { return false };
        let Some(id) = self.replica_at(primary, bit).map(|(_, replica)| replica.id) else { return false };
        let upstream = &mut self.upstreams[key];
        let place = upstream.identity.as_ref().map_or(Place::Library, |i| i.place);
        if let Place::Hash(db) = place
            && upstream.enter(db, None, self.now.ms) != Entered::Yes
        {
            Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
            return false; // the database is being proven
        }
        let mut bytes = Vec::new();
        Marker::read(place, &mut bytes);
        upstream.out.push(&bytes);
        upstream.expect(Call::Look { bit, id, step: Step::Markers }, self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        true
    }

    /// The rules say what follows.
    fn sentence(&mut self, primary: usize, bit: u32, set: u64, identity: &Identity) {
        let now_ms = self.now.ms;
        self.numbers += 1;
        let number = self.numbers;
        let of = name_hash(&[&self.endpoints[primary].name()]);
        let has_functions = self.primary_identity(primary).is_some_and(|(_, i)| i.place == Place::Library);
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        let others: Vec<Marker> = identity.markers.iter().filter(|m| m.set != set).copied().collect();
        let foreign: Vec<Marker> = others.iter().filter(|m| m.is_foreign(set, of)).copied().collect();
        // Another sidecar's primary is never taken from it.
        replica.claimed &= foreign.iter().all(|m| m.part == Part::Mirror);
        if replica.claimed {
            replica.map.set_shared(false);
        } else if !foreign.is_empty() {
            replica.map.set_shared(true);
        }
        let process = name_hash(&[&identity.run_id]);
        let known = replica.map.set() == set && replica.map.run(1) == process;
        let view = View {
            set,
            of,
            same_process: known.then(|| (replica.map.base(), replica.map.is_sole())),
            markers: &identity.markers,
            empty: identity.empty,
            shared: replica.map.is_shared(),
            claimed: replica.claimed,
            full: replica.need == Need::Full,
        };
        let Decision { way, sole } = decide(&view);
        let scope = match way {
            Way::Since(generation) => {
                let marked = if replica.need == Need::Marked { replica.map.base() } else { generation };
                replica.map.since(generation.min(marked))
            }
            Way::Full => Some(super::dirty::Scope::everything()),
        };
        let scope = scope.unwrap_or_else(super::dirty::Scope::everything);
        replica.since = match way {
            Way::Since(generation) if !scope.all => generation.min(replica.map.generation()),
            _ => 0,
        };
        replica.judged = Judged::Yes;
        replica.need = Need::Nothing;
        replica.sole = sole;
        replica.unproven = false;
        replica.stats.label.set("sole", if sole { "yes" } else { "no" });
        if scope.all {
            replica.map.mark_all(); // should this process end before it is done
            replica.map.mark_functions();
        }
        replica.map.set_run(1, 0);
        replica.map.set_sole(sole);
        replica.map.set_run(1, process);
        // A Redis that may be emptied gets its marker before its first effect: whatever arrives, that has.
        replica.open |= scope.is_empty() || !sole || replica.markless;
        if scope.is_empty() {
            let complete = |m: &&Marker| m.set == set && m.part == Part::Mirror && !m.partial;
            replica.marked = identity.markers.iter().find(complete).map_or(0, |m| m.generation);
            replica.stats.label.set("resync", "log");
            if let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() {
                sequencer.remark = true;
            }
            return;
        }
        let copied = replica.stats.count.resync_keys_total.get();
        if scope.functions && has_functions && identity.place == Place::Library {
            replica.repair.find((super::replica::FUNCTIONS, Box::default()), !sole);
        }
        let resync = Resync::new(number, scope, sole, now_ms, copied);
        let count = &replica.stats.count;
        count.resync_runs_total.inc();
        count.resync_full_total.add(u64::from(resync.full));
        count.unproven_keys.set(0);
        replica.stats.label.set("resync", resync.name());
        replica.resync = Some(resync);
        replica.mark = None;
        replica.marked = 0;
        // Before the first key is copied, and the first effect sent: should it end here, the marker says so.
        replica.unmarked = sole && !replica.markless;
        replica.obsolete = if sole { others } else { Vec::new() };
    }

    /// Write the marker that comes before a resync, and take those away that it replaces.
    pub(super) fn send_first_mark(&mut self, primary: usize, bit: u32) {
        let now_ms = self.now.ms;
        if !self.send_mark(primary, bit, true) {
            return; // its database is being proven
        }
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        replica.unmarked = false;
        let (obsolete, key) = (std::mem::take(&mut replica.obsolete), replica.upstream);
        let upstream = &mut self.upstreams[key];
        let place = upstream.identity.as_ref().map_or(Place::Library, |i| i.place);
        for marker in &obsolete {
            let mut bytes = Vec::new();
            marker.remove(place, &mut bytes);
            upstream.out.push(&bytes);
            upstream.expect(Call::Look { bit, id: 0, step: Step::Over }, now_ms);
        }
    }

    /// Write a replica's marker, now, in order with its stream; `false`: not yet.
    pub(super) fn send_mark(&mut self, primary: usize, bit: u32, partial: bool) -> bool {
        let now_ms = self.now.ms;
        let of = name_hash(&[&self.endpoints[primary].name()]);
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return false };
        let set = sequencer.set;
        let Some(replica) = sequencer.replica(bit) else { return false };
        let generation = match replica.mark {
            Some((_, generation)) if !partial => generation,
            _ => replica.since,
        };
        let marker = Marker { set, part: Part::Mirror, of, generation, partial, sole: replica.sole };
        let key = replica.upstream;
        let upstream = &mut self.upstreams[key];
        let written = write_marker(upstream, &marker, now_ms);
        if written && !partial {
            replica.mark = None;
        }
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        written
    }

    /// A marker was written, or refused.
    pub(super) fn marked(&mut self, key: usize, generation: u64, complete: bool, reply: &[u8]) {
        let failed = reply.first() == Some(&b'-');
        let lasting = [&b"-ERR"[..], b"-NOPERM"].iter().any(|code| reply.starts_with(code));
        let passing = failed && !lasting;
        let now_ms = self.now.ms;
        let upstream = &mut self.upstreams[key];
        let (role, endpoint) = (upstream.role, upstream.endpoint);
        let sequencer_of = match role {
            super::upstream::Role::Serve => endpoint,
            super::upstream::Role::Replica { primary, .. } => primary,
        };
        let Some(sequencer) = self.endpoints.get_mut(sequencer_of).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        let text =
            String::from_utf8_lossy(reply.get(1..160.min(reply.len())).unwrap_or(&[])).trim_end().to_owned();
        match role {
            super::upstream::Role::Serve => {
                sequencer.marking = false;
                sequencer.markless = failed && !passing;
                if !failed {
                    sequencer.marked = generation;
                    for replica in sequencer.replicas_mut() {
                        replica.map.set_primary_marked(generation);
                    }
                }
            }
            super::upstream::Role::Replica { bit, .. } => {
                if let Some(replica) = sequencer.replica(bit) {
                    if passing && !complete && !replica.open {
                        // It could not be told later that it is this sidecar's alone.
                        replica.judged = Judged::No;
                        replica.resync = None;
                        replica.judge_at = now_ms + JUDGE_AGAIN_MS;
                        replica.stats.label.set("reason", format!("it refuses its marker for now: {text}"));
                        return;
                    }
                    replica.open |= !complete;
                    if failed && !passing {
                        replica.markless = true;
                        replica.stats.label.set("reason", format!("it refused its marker: {text}"));
                    } else if !failed && complete {
                        replica.marked = generation;
                    }
                }
            }
        }
        self.touch_sequencer(sequencer_of);
    }

    /// Begin a generation where it is time to.
    pub(super) fn advance_generation(&mut self, key: usize) {
        let now_ms = self.now.ms;
        let Some((endpoint, _)) = self.primary_identity(key) else { return };
        let (name, serve) = (endpoint.name(), endpoint.serve[0]);
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        // A marker on its way may be taken away by a command behind it.
        let due = sequencer.remark || (!sequencer.marking && is_time(sequencer, now_ms));
        if sequencer.proof != Proof::Proven || !due {
            return;
        }
        let Some(serve) = serve else { return };
        let upstream = &mut self.upstreams[serve];
        let generation = sequencer.generation + 1;
        let marker = Marker {
            set: sequencer.set,
            part: Part::Primary,
            of: name_hash(&[&name]),
            generation,
            partial: false,
            sole: true,
        };
        let written = write_marker(upstream, &marker, now_ms);
        Self::mark_upstream(upstream, serve, &mut self.dirty_upstreams);
        if !written {
            return; // its database is being proven
        }
        let before = sequencer.generation;
        sequencer.generation = generation;
        sequencer.marking = true;
        sequencer.remark = false;
        sequencer.advance_at = now_ms + GENERATION_MS;
        let end = sequencer.log.end();
        for replica in sequencer.replicas_mut() {
            let clean = replica.is_clean();
            replica.map.advance(generation, replica.marked == before);
            replica.mark = clean.then_some((end, generation));
        }
        // Somebody else may have begun to write to a mirror.
        let connected: Vec<(usize, u32)> = sequencer
            .replicas()
            .filter(|r| r.judged == Judged::Yes && r.resync.is_none())
            .map(|r| (r.upstream, r.bit))
            .collect();
        for (upstream, bit) in connected {
            if self.upstreams.get(upstream).is_some_and(Upstream::is_ready) {
                self.ask_for_markers(upstream, bit);
            }
        }
        self.touch_sequencer(key);
    }

    /// A replica's questions and marks that were in flight are lost with its connection.
    pub(super) fn forget_questions(replica: &mut Replica) {
        if let Some(resync) = &mut replica.resync {
            resync.asked = false;
        }
        if replica.judged == Judged::Asked {
            replica.judged = Judged::No;
        }
    }

    /// The answer to a question about markers.
    pub(super) fn markers_read(&mut self, key: usize, primary: usize, bit: u32, id: u64, reply: &[u8]) {
        let Some(identity) = self.upstreams[key].identity.as_mut() else { return };
        if reply.first() != Some(&b'-') {
            identity.markers = Marker::all_in(reply);
        }
        let identity = identity.clone();
        let of = name_hash(&[&self.endpoints[primary].name()]);
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        let set = sequencer.set;
        let Some(replica) = sequencer.replica(bit).filter(|r| r.id == id) else { return };
        if replica.judged == Judged::Asked {
            return self.sentence(primary, bit, set, &identity);
        }
        let foreign = identity.markers.iter().any(|m| m.is_foreign(set, of));
        let mine = identity.markers.iter().find(|m| m.set == set && m.part == Part::Mirror);
        let has_mine = mine.is_some_and(|m| !m.partial && m.generation >= replica.marked);
        // Hashes come and go with FLUSHALL; a library goes only with the data.
        if replica.marked > 0 && !has_mine && identity.place == Place::Library && reply.first() != Some(&b'-')
        {
            replica.suspect = true;
        }
        if foreign && !replica.claimed {
            replica.map.set_shared(true);
            replica.sole = false;
        }
        let sole = replica.sole;
        if let Some(resync) = replica.resync.as_mut().filter(|r| r.step == Step::Markers) {
            resync.proceed(sole);
            replica.stats.label.set("resync", resync.name());
        }
    }
}

/// What an operator can ask of a resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look at what may differ.
    Start,
    /// Look at everything; the mirror is this sidecar's alone.
    Full,
    /// Stop.
    Pause,
    /// Go on.
    Resume,
    /// A primary's data counts as it is.
    Accept,
}

impl std::str::FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "start" => Self::Start,
            "full" => Self::Full,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            "accept" => Self::Accept,
            other => return Err(format!("not start, full, pause, resume or accept: {other}")),
        })
    }
}

/// Give a map the set and the generation of its primary. A map about other data knows nothing.
fn adopt(map: &mut DirtyMap, set: u64, generation: u64, primary_marked: u64) {
    let (foreign, behind) = (set != 0 && map.set() != set, generation > map.generation());
    if foreign {
        map.set_set(set);
        map.set_primary_marked(0);
    }
    if behind {
        map.advance(generation, false); // it was not there when those generations were marked
    }
    if foreign || behind {
        map.mark_all();
        map.mark_functions();
    }
    map.set_primary_marked(primary_marked.max(map.primary_marked()));
}

/// Queue a marker; `false` while its database is not proven yet.
fn write_marker(upstream: &mut Upstream, marker: &Marker, now_ms: u64) -> bool {
    let place = upstream.identity.as_ref().map_or(Place::Library, |i| i.place);
    if let Place::Hash(db) = place
        && upstream.enter(db, None, now_ms) != Entered::Yes
    {
        return false;
    }
    let mut bytes = Vec::new();
    marker.write(place, &mut bytes);
    upstream.out.push(&bytes);
    upstream.expect(Call::Mark { generation: marker.generation, complete: !marker.partial }, now_ms);
    true
}

fn is_time(sequencer: &Sequencer, now_ms: u64) -> bool {
    if now_ms < sequencer.advance_at {
        return false;
    }
    let marks = |r: &Replica| r.map.fresh() + if r.map.had_all() { FEW } else { 0 };
    let dirty = sequencer.replicas().filter(|r| r.is_clean()).map(marks).max().unwrap_or(0);
    let old = now_ms >= sequencer.advance_at + GENERATION_FEW_MS - GENERATION_MS;
    dirty >= FEW || (dirty > 0 && old)
}
