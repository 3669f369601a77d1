//! Where dirty maps come from and go to, and that all of one primary are about the same data.

use super::Engine;
use super::dirty::{DirtyMap, Found, Region};
use super::handshake::Predecessor;
use super::marker::name_hash;
use super::replica::Replica;
use super::sequencer::Proof;

impl Engine {
    /// The memory of a replica's dirty map is here. `boot` names the machine's boot.
    pub fn map_opened(&mut self, endpoint: usize, bit: u32, region: Region, boot: [u8; 16]) {
        let Some((primary, replica)) = self.replica_at(endpoint, bit) else { return };
        let names = name_hash(&[&primary, &replica.stats.label.get("mirror")]);
        let (mut map, found) = DirtyMap::open(region, names, boot);
        map.merge(&replica.map);
        replica.map = map;
        replica.map_pending = false;
        let share = std::mem::take(&mut replica.share);
        if share != 0 {
            replica.share(share);
        }
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
        replica.map_pending = false;
        let name = replica.name();
        if let Some(sequencer) = self.endpoints[endpoint].sequencer.as_mut() {
            // Nothing is written before the primary has a marker that is newer than the file.
            sequencer.forgetful |= sequencer.proof == Proof::Unknown;
        }
        let text = format!(
            "the dirty map is kept in memory only: {why}; when redisha ends, every key counts as dirty"
        );
        self.tell("map", name, text);
        self.agree_on_set(endpoint);
    }

    /// There is no place for files: a replica's dirty map is in memory, as was asked for.
    pub fn map_in_memory(&mut self, endpoint: usize, bit: u32) {
        if let Some((_, replica)) = self.replica_at(endpoint, bit) {
            replica.map_pending = false;
        }
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

    pub(super) fn replica_at(&mut self, endpoint: usize, bit: u32) -> Option<(String, &mut Replica)> {
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

    /// A generation that was used already does not come again.
    pub(super) fn raise_generation(&mut self, endpoint: usize, generation: u64) {
        let Some(sequencer) = self.endpoints[endpoint].sequencer.as_mut() else { return };
        sequencer.generation = sequencer.generation.max(generation);
        sequencer.remark = true;
        let (set, generation, marked) = (sequencer.set, sequencer.generation, sequencer.marked);
        for replica in sequencer.replicas_mut() {
            adopt(&mut replica.map, set, generation, marked);
        }
    }

    /// One set and one generation for all replicas of a primary.
    fn agree_on_set(&mut self, endpoint: usize) {
        let Some(sequencer) = self.endpoints[endpoint].sequencer.as_mut() else { return };
        if sequencer.replicas().any(|r| r.map_pending) {
            return; // its file may know more
        }
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
}

/// Give a map the set and the generation of its primary. A map about other data knows nothing.
pub(super) fn adopt(map: &mut DirtyMap, set: u64, generation: u64, primary_marked: u64) {
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
