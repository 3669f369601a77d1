//! Putting a plan in force: what both plans have goes on untouched.

use std::sync::Arc;

use crate::plan::{Address, Cluster, Plan, Route, Slots};
use crate::stats::{EndpointStats, ListenerStats, ReplicaStats};

use super::dirty::DirtyMap;
use super::handshake::Credentials;
use super::marker::name_hash;
use super::repair::Repair;
use super::replica::{Judged, Lack, Need, Replica};
use super::session::Ending;
use super::upstream::{Role, Upstream};
use super::{Endpoint, Engine, Intent, Listener, RouteTargets, Target};

impl Engine {
    /// Make `plan` the plan.
    pub fn apply(&mut self, plan: Arc<Plan>) {
        for (_, endpoint) in &mut self.endpoints {
            endpoint.retired = true;
            endpoint.scattered = None;
            endpoint.taps.clear();
        }
        let by_cluster: Vec<Vec<usize>> = plan.clusters.iter().map(|c| self.place_cluster(c)).collect();
        self.turns = vec![0; plan.clusters.len()];
        for (i, _) in plan.clusters.iter().enumerate().filter(|(_, c)| c.ring.scatter().is_some()) {
            for key in by_cluster.get(i).into_iter().flatten() {
                self.endpoints[*key].scattered = Some(i);
            }
        }
        self.place_group(&plan, &by_cluster);
        let mut listeners = Vec::with_capacity(plan.listeners.len());
        let (mut wanted, mut wanted_taps) = (Vec::new(), Vec::new());
        for listener in &plan.listeners {
            let routes = listener
                .routes
                .routes()
                .iter()
                .map(|r| {
                    let ring = plan.clusters.get(r.cluster).map(|c| &c.ring);
                    let mut by_endpoint = self.place_route(r, &by_cluster, &mut wanted);
                    for target in &mut by_endpoint {
                        target.samples =
                            self.place_taps(target.endpoint, r, &plan, &by_cluster, &mut wanted_taps);
                    }
                    RouteTargets {
                        cluster: r.cluster,
                        by_slot: ring.is_some_and(|r| r.slots().is_some()),
                        scattered: ring.is_some_and(|r| r.scatter().is_some()),
                        by_endpoint,
                    }
                })
                .collect();
            let known = self.plan.listeners.iter().position(|l| l.is(listener));
            let stats = match known.and_then(|i| self.listeners.get(i)) {
                Some(old) => Arc::clone(&old.stats),
                None => Arc::new(ListenerStats::default()),
            };
            stats.label.set("name", listener.name.as_str());
            listeners.push(Listener { routes, stats });
        }
        self.remove_replicas(&wanted);
        self.remove_taps(&wanted_taps);
        self.agree_on_sets();
        self.move_sessions(&plan);
        self.listeners = listeners;
        self.limits = plan.limits;
        self.plan = plan;
        self.registry.worker.plan_generation.set(self.plan.generation);
        self.tell_direct();
        self.reroute_blocked();
        self.look_at_shares();
        self.publish();
        self.tell("applied", self.plan.generation.to_string(), String::new());
        self.wake_everyone();
        self.upkeep_at = 0;
    }

    /// The endpoints of a cluster, made where they are new.
    fn place_cluster(&mut self, cluster: &Cluster) -> Vec<usize> {
        let credentials = Credentials {
            username: cluster.username.clone(),
            password: cluster.password.clone(),
            read_only: cluster.ring.slots().is_some_and(Slots::reads_replicas),
            redirects: cluster.redirects,
            any_copy: cluster.ring.scatter().is_some(),
        };
        let mut keys = Vec::with_capacity(cluster.endpoints.len());
        for spec in &cluster.endpoints {
            let link = spec.address.as_ref().is_some_and(Address::is_link);
            let known = self
                .endpoints
                .iter()
                .find(|(_, e)| e.cluster == cluster.name && e.id == spec.id && e.is_link() == link)
                .map(|(k, _)| k);
            let key = known.unwrap_or_else(|| {
                self.endpoints.insert(Endpoint {
                    cluster: cluster.name.clone(),
                    id: spec.id.clone(),
                    address: spec.address.clone(),
                    credentials: credentials.clone(),
                    connect_timeout_ms: 0,
                    op_timeout_us: 0,
                    serve: [None; super::SERVES],
                    peer: false,
                    spares: super::spare::Spares::default(),
                    relief_ms: 0,
                    sequencer: None,
                    taps: Vec::new(),
                    redirects: false,
                    wanted_ms: 0,
                    tell_moved_ms: 0,
                    scattered: None,
                    retired: false,
                    retired_at: None,
                    stats: Arc::new(EndpointStats::default()),
                })
            });
            let endpoint = &mut self.endpoints[key];
            endpoint.retired = false;
            endpoint.connect_timeout_ms = cluster.connect_timeout.as_millis() as u64;
            endpoint.op_timeout_us = cluster.op_timeout.as_micros() as u64;
            endpoint.redirects = cluster.redirects;
            let moved = endpoint.address != spec.address && !link; // the first worker goes there
            let policies = |c: &Credentials| (c.read_only, c.any_copy);
            let changed = policies(&endpoint.credentials) != policies(&credentials);
            endpoint.address.clone_from(&spec.address);
            endpoint.credentials = credentials.clone();
            let label = &endpoint.stats.label;
            label.set("cluster", cluster.name.as_str());
            label.set("id", spec.id.as_str());
            let address = spec.address.as_ref().map(ToString::to_string).unwrap_or_default();
            label.set("address", address.as_str());
            if moved || changed {
                let why = if moved {
                    format!("its address is now {address}")
                } else {
                    "read_policy or balance".to_owned()
                };
                for upstream in self.upstreams_of(key) {
                    self.break_upstream(upstream, &why);
                }
            }
            keys.push(key);
        }
        keys
    }

    /// Whether the first worker gives the writes to an endpoint their order from now on: it is reached by a link instead.
    pub(super) fn is_superseded(&self, key: usize) -> bool {
        let Some(old) = self.endpoints.get(key).filter(|e| e.retired && !e.is_link()) else { return false };
        self.endpoints.iter().any(|(_, e)| e.is_link() && e.cluster == old.cluster && e.id == old.id)
    }

    /// The first worker hears of what is on its way to endpoints that this one does not send to any more.
    pub(super) fn tell_direct(&self) {
        if self.seat.is_first() {
            return;
        }
        let left = |u: &Upstream| {
            !u.link && !u.calls.is_empty() && self.endpoints.get(u.endpoint).is_some_and(|e| e.retired)
        };
        let calls = self.upstreams.iter().filter(|(_, u)| left(u)).count();
        self.seat.tell_direct(self.plan.generation, calls as u64);
    }

    /// Every connection to an endpoint, as primary or as mirror.
    pub(super) fn upstreams_of(&self, endpoint: usize) -> Vec<usize> {
        self.upstreams.iter().filter(|(_, u)| u.endpoint == endpoint).map(|(key, _)| key).collect()
    }

    /// A route's targets; connections and replicas are made where they are new. `wanted` collects the replicas in use.
    fn place_route(
        &mut self,
        route: &Route,
        by_cluster: &[Vec<usize>],
        wanted: &mut Vec<(usize, u32)>,
    ) -> Vec<Target> {
        let mut by_endpoint = Vec::new();
        for &key in by_cluster.get(route.cluster).into_iter().flatten() {
            self.place_serve(key);
            let mut target = Target { endpoint: key, writes: 0, reads: 0, samples: 0, spread: Vec::new() };
            for mirror in &route.mirrors {
                let Some(mirrors) = by_cluster.get(mirror.cluster) else { continue };
                let bits: Vec<u32> = mirrors.iter().filter_map(|&m| self.place_replica(key, m)).collect();
                for &bit in &bits {
                    wanted.push((key, bit));
                    target.writes |= 1 << bit;
                    target.reads |= u32::from(mirror.reads) << bit;
                }
                if bits.len() > 1 {
                    target.spread.push((mirror.cluster, bits));
                }
            }
            by_endpoint.push(target);
        }
        by_endpoint
    }

    fn place_serve(&mut self, key: usize) {
        let Some(endpoint) = self.endpoints.get(key) else { return };
        if endpoint.serve[0].is_none() {
            let upstream = self.new_upstream(key, Role::Serve, 2);
            self.endpoints[key].serve[0] = Some(upstream);
        }
    }

    /// A new connection to an endpoint; the next upkeep opens it.
    pub(super) fn new_upstream(&mut self, key: usize, role: Role, resp: u8) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.upkeep_at = 0;
        let credentials = self.endpoints[key].credentials.clone();
        self.upstreams.insert(Upstream::new(key, role, resp, credentials, self.seed))
    }

    /// The replica of `primary`'s log at `mirror`; `None` when the sequencer has no place left.
    fn place_replica(&mut self, primary: usize, mirror: usize) -> Option<u32> {
        let sequencer = self.endpoints[primary].sequencer.get_or_insert_default();
        if let Some(replica) = sequencer.replicas().find(|r| r.target == mirror) {
            return Some(replica.bit);
        }
        let bit = sequencer.free_bit()?;
        let start = sequencer.log.end();
        let upstream = self.new_upstream(mirror, Role::Replica { primary, bit }, 2);
        self.numbers += 1;
        let stats = Arc::new(ReplicaStats::default());
        let (primary_name, mirror_name) = (self.endpoints[primary].name(), self.endpoints[mirror].name());
        stats.label.set("primary", primary_name.as_str());
        stats.label.set("mirror", mirror_name.as_str());
        stats.label.set("state", "connecting");
        let replica = Replica {
            target: mirror,
            upstream,
            bit,
            id: self.numbers,
            next: start,
            acked: start,
            in_flight: 0,
            repair: Repair::default(),
            run_id: None,
            state: "connecting",
            map: DirtyMap::in_memory(name_hash(&[&primary_name, &mirror_name])),
            judged: Judged::No,
            open: false,
            map_pending: true,
            unrepaired_more: false,
            lacked: false,
            lacked_then: Lack::Keys,
            late: false,
            missed: None,
            share: 0,
            sisters: false,
            judge_at: 0,
            since: 0,
            unmarked: false,
            marks: None,
            told: (0, (0, 0)),
            sealed: false,
            led: false,
            merged: false,
            merging: false,
            obsolete: Vec::new(),
            need: Need::Nothing,
            resync: None,
            sole: false,
            claimed: false,
            unproven: false,
            paused: false,
            refused: false,
            mark: None,
            marked: 0,
            markless: false,
            unrepaired: Vec::new(),
            retry_at: 0,
            logical: false,
            told_lost: false,
            stats,
        };
        self.intents.push(Intent::OpenMap {
            endpoint: primary,
            bit,
            name: name_hash(&[&primary_name, &mirror_name]),
        });
        let replicas = &mut self.endpoints[primary].sequencer.as_mut()?.replicas;
        match replicas.get_mut(bit as usize) {
            Some(place) => *place = Some(replica),
            None => replicas.push(Some(replica)),
        }
        Some(bit)
    }

    /// Remove the replicas that no route wants any more. A sequencer without any stays until nothing refers to its log.
    fn remove_replicas(&mut self, wanted: &[(usize, u32)]) {
        let mut gone = Vec::new();
        for (key, endpoint) in &mut self.endpoints {
            if endpoint.retired {
                continue; // its log may still be needed; see upkeep
            }
            let Some(sequencer) = &mut endpoint.sequencer else { continue };
            for place in &mut sequencer.replicas {
                if place.as_ref().is_some_and(|r| !wanted.contains(&(key, r.bit)))
                    && let Some(mut replica) = place.take()
                {
                    replica.map.abandon();
                    gone.push(replica.upstream);
                }
            }
        }
        for upstream in gone {
            self.remove_upstream(upstream);
        }
    }

    /// Which keys each replica gets. One that gets others than before lacks them.
    fn look_at_shares(&mut self) {
        let mut shares = Vec::new();
        for (key, endpoint) in &self.endpoints {
            for replica in endpoint.sequencer.iter().flat_map(|s| s.replicas()) {
                let sisters = self.endpoints.iter().any(|(other, e)| {
                    let replicas = || e.sequencer.iter().flat_map(|s| s.replicas());
                    let mirrors = other != key && replicas().any(|r| self.is_same(r.target, replica.target));
                    mirrors || (self.is_same(other, replica.target) && self.is_served(other))
                });
                shares.push((key, replica.bit, self.share_of(key, replica.bit), sisters));
            }
        }
        for (key, bit, share, sisters) in shares {
            let sequencer = self.endpoints.get_mut(key).and_then(|e| e.sequencer.as_mut());
            let Some(replica) = sequencer.and_then(|s| s.replica(bit)) else { continue };
            replica.sisters = sisters;
            replica.share(share);
        }
    }

    /// Whether two endpoints are one Redis, as far as their addresses tell.
    pub(super) fn is_same(&self, a: usize, b: usize) -> bool {
        let address = |key: usize| self.endpoints.get(key).and_then(|e| e.address.as_ref());
        a == b || address(a).is_some_and(|address_a| Some(address_a) == address(b))
    }

    /// Whether a route leads to an endpoint.
    fn is_served(&self, endpoint: usize) -> bool {
        let mut targets = self.listeners.iter().flat_map(|l| &l.routes).flat_map(|r| &r.by_endpoint);
        targets.any(|t| t.endpoint == endpoint)
    }

    /// A hash of what decides which keys of `primary` its replica `bit` gets.
    fn share_of(&self, primary: usize, bit: u32) -> u64 {
        let mut words: Vec<String> = Vec::new();
        let cluster = |words: &mut Vec<String>, at: usize| {
            if let Some(cluster) = self.plan.clusters.get(at) {
                words.push(cluster.name.clone());
                words.push(format!("{}", cluster.ring.hash_tags()));
                words.extend(Some(cluster.ring.kind()).filter(|kind| !kind.is_empty()));
                words.extend(cluster.endpoints.iter().map(|e| e.id.clone()));
            }
        };
        for (listener, targets) in self.plan.listeners.iter().zip(&self.listeners).filter(|(l, _)| !l.link) {
            let leads = |t: &RouteTargets| {
                t.by_endpoint.iter().any(|t| t.endpoint == primary && t.writes & (1 << bit) != 0)
            };
            // (What a route without that mirror leads there is not marked.)
            let near = |t: &RouteTargets| t.by_endpoint.iter().any(|t| t.endpoint == primary);
            if !targets.routes.iter().any(near) {
                continue;
            }
            words.push(format!("{}", listener.routes.any_case()));
            for (route, targets) in listener.routes.routes().iter().zip(&targets.routes) {
                let mine = leads(targets);
                words.push(format!("{:?} {} {mine}", route.prefix, route.remove_prefix));
                if mine {
                    cluster(&mut words, route.cluster);
                    route.mirrors.iter().for_each(|m| cluster(&mut words, m.cluster));
                }
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        name_hash(&words).max(1)
    }

    /// Close a connection for good; its calls are answered.
    pub(super) fn remove_upstream(&mut self, key: usize) {
        self.break_upstream(key, "the configuration no longer has it");
        if let Some(Role::Private { session }) = self.upstreams.get(key).map(|u| u.role) {
            self.private_removed(key, session);
        }
        if self.upstreams.contains(key) {
            self.upstreams.remove(key);
            self.intents.push(Intent::CloseUpstream { upstream: key });
        }
    }

    /// Sessions follow their listener by name; those of a listener that is gone finish and are closed.
    fn move_sessions(&mut self, plan: &Plan) {
        let moved: Vec<Option<usize>> =
            self.plan.listeners.iter().map(|old| plan.listeners.iter().position(|new| new.is(old))).collect();
        for (_, session) in &mut self.sessions {
            match moved.get(session.listener).copied().flatten() {
                Some(listener) => {
                    session.listener = listener;
                    if let Some(new) = plan.listeners.get(listener) {
                        session.port = new.port;
                    }
                }
                // What is on its way is answered: it was not executed. The other worker ends it.
                None if session.is_link() => session.listener = usize::MAX,
                None => {
                    session.listener = usize::MAX;
                    session.ending = Ending::Draining;
                    session.input.clear();
                    Self::mark_session(session, &mut self.dirty_sessions);
                }
            }
        }
    }

    pub(super) fn wake_everyone(&mut self) {
        for (_, session) in &mut self.sessions {
            if session.wait == super::session::Wait::Upstream {
                Self::wake(session, &mut self.runnable);
            }
        }
    }

    /// List what is counted, for readers of the statistics.
    pub(super) fn publish(&self) {
        let mut replicas = Vec::new();
        let mut logs = Vec::new();
        for (_, endpoint) in &self.endpoints {
            if let Some(sequencer) = &endpoint.sequencer {
                sequencer.stats.limit.set(self.log_limit() as u64);
                logs.push((endpoint.name(), Arc::clone(&sequencer.stats)));
                replicas.extend(sequencer.replicas().map(|r| Arc::clone(&r.stats)));
            }
        }
        replicas.extend(self.tap_stats());
        // What goes over a link is counted at its ends: at the client's listener, and at the Redis.
        let clients = self.listeners.iter().zip(&self.plan.listeners).filter(|(_, l)| !l.link);
        let servers = self.endpoints.iter().filter(|(_, e)| !e.is_link());
        self.registry.publish(
            clients.map(|(l, _)| Arc::clone(&l.stats)).collect(),
            servers.map(|(_, e)| Arc::clone(&e.stats)).collect(),
            replicas,
            logs,
        );
    }
}
