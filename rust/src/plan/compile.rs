//! From the described plan to the one the data plane walks: names become indices, prefixes a table, endpoints a ring.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::balance::Ring;
use super::maglev::Maglev;
use super::ring_hash::RingHash;
use super::scatter::Scatter;
use super::select::RouteTable;
use super::slots::Slots;
use super::spec::{
    Address, BalanceSpec, ClusterSpec, Consistency, EndpointSpec, GroupSpec, Limits, MAX_RING, MILLION,
    PlanSpec, Port, ReadsSpec, RouteSpec, UserSpec,
};

/// Offsets within a command are 32 bits wide.
const MAX_REQUEST: usize = 1 << 30;
/// Routes name samples by the bits of a word.
const MAX_SAMPLES: usize = 32;

/// The plan cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not the JSON that this version reads.
    #[error("plan: {0}")]
    Json(#[from] serde_json::Error),
    /// Something in it contradicts something else.
    #[error("plan: {0}")]
    Wrong(String),
}

/// The compiled plan.
#[derive(Debug)]
pub struct Plan {
    /// Grows with each plan.
    pub generation: u64,
    /// Bounds.
    pub limits: Limits,
    /// In the order of the configuration.
    pub listeners: Vec<Listener>,
    /// In the order of the configuration; routes name them by index.
    pub clusters: Vec<Cluster>,
    /// All ways in which a part of a route's commands is given away; routes name them by bit.
    pub samples: Vec<Sample>,
    /// The name of this sidecar's machine.
    pub host: String,
    /// Where dirty maps are kept; `None`: in memory.
    pub state_dir: Option<PathBuf>,
    /// The group that this sidecar is a member of.
    pub group: Option<Group>,
    /// Threads that serve clients.
    pub workers: usize,
}

/// The group, with its clusters by index.
#[derive(Debug)]
pub struct Group {
    /// As it came.
    pub spec: GroupSpec,
    /// This member's own Redis.
    pub local: usize,
    /// The other members' peer ports.
    pub peers: Vec<usize>,
}

/// Where clients come in.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Identity across plans.
    pub name: String,
    /// Addresses it accepts on.
    pub bind: Vec<Address>,
    /// Who may come in; empty: everybody.
    pub users: Vec<User>,
    /// Its routes.
    pub routes: RouteTable,
    /// Who comes in.
    pub port: Port,
    /// What clients of a group get.
    pub consistency: Consistency,
    /// No client comes in here, but the commands of another worker's clients.
    pub link: bool,
}

impl Listener {
    /// Whether it is the same in another plan.
    pub fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.link == other.link
    }
}

/// A name and a password that a client may give.
pub type User = UserSpec;

/// A key prefix and where its keys live.
#[derive(Clone, Debug)]
pub struct Route {
    /// The prefix; lower case when the table matches in any case.
    pub prefix: Vec<u8>,
    /// Whether it is cut off before sending.
    pub remove_prefix: bool,
    /// Index of the cluster.
    pub cluster: usize,
    /// Who gets its writes.
    pub mirrors: Vec<Mirror>,
    /// Who gets a part of its commands: bits of [`Plan::samples`].
    pub samples: u32,
}

/// A receiver of a route's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Index of the cluster.
    pub cluster: usize,
    /// Whether it gets reads too.
    pub reads: bool,
}

/// A receiver of a part of a route's commands, which is no copy therefore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Index of the cluster.
    pub cluster: usize,
    /// Whether it gets reads too.
    pub reads: bool,
    /// Of [`MILLION`] commands those that it gets.
    pub fraction: u32,
}

/// A set of upstream endpoints.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Identity across plans.
    pub name: String,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Which of them holds a key.
    pub ring: Ring,
    /// Whether a command that is answered with `MOVED` or `ASK` is sent where that says.
    pub redirects: bool,
    /// Limit of connect and handshake.
    pub connect_timeout: Duration,
    /// Limit of one request.
    pub op_timeout: Duration,
    /// ACL user for the upstream.
    pub username: Option<String>,
    /// Password for the upstream.
    pub password: Option<String>,
}

/// One Redis.
pub type Endpoint = EndpointSpec;

impl Plan {
    /// Read, check and compile.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PlanError> {
        let spec: PlanSpec = serde_json::from_slice(bytes)?;
        let wrong = |text: String| Err(PlanError::Wrong(text));
        if spec.limits.max_request > MAX_REQUEST {
            return wrong(format!("max_request is more than {MAX_REQUEST} bytes"));
        }
        let mut index = HashMap::new();
        for (i, cluster) in spec.clusters.iter().enumerate() {
            if index.insert(cluster.name.as_str(), i).is_some() {
                return wrong(format!("two clusters are named {}", cluster.name));
            }
            for (j, endpoint) in cluster.endpoints.iter().enumerate() {
                if cluster.endpoints.iter().take(j).any(|e| e.id == endpoint.id) {
                    return wrong(format!("cluster {} has the endpoint {} twice", cluster.name, endpoint.id));
                }
            }
        }
        let find = |name: &str, place: &str| {
            index
                .get(name)
                .copied()
                .ok_or_else(|| PlanError::Wrong(format!("{place} names the unknown cluster {name}")))
        };
        let mut listeners: Vec<Listener> = Vec::new();
        let mut samples = Vec::new();
        for listener in &spec.listeners {
            if listeners.iter().any(|l| l.name == listener.name) {
                return wrong(format!("two listeners are named {}", listener.name));
            }
            let mut routes = Vec::new();
            for route in &listener.routes {
                let place = format!("route \"{}\" of listener {}", route.prefix, listener.name);
                routes.push(compile_route(route, listener.case_insensitive, &mut samples, |name| {
                    find(name, &place)
                })?);
            }
            let routes = RouteTable::new(routes, listener.case_insensitive)
                .map_err(|e| PlanError::Wrong(format!("listener {}: {e}", listener.name)))?;
            listeners.push(Listener {
                name: listener.name.clone(),
                bind: listener.bind.clone(),
                users: listener.users.clone(),
                routes,
                port: listener.port,
                consistency: listener.consistency,
                link: false,
            });
        }
        let group = match &spec.group {
            Some(group) => {
                let place = format!("group {}", group.name);
                let peers: Result<_, _> = group.peers.iter().map(|name| find(name, &place)).collect();
                Some(Group { local: find(&group.local, &place)?, peers: peers?, spec: group.clone() })
            }
            None => None,
        };
        if group.is_none() && listeners.iter().any(|l| l.port != Port::Routes) {
            return wrong("a listener is of a group, and there is none".to_owned());
        }
        let clusters: Vec<Cluster> =
            spec.clusters.into_iter().map(compile_cluster).collect::<Result<_, PlanError>>()?;
        for route in listeners.iter().flat_map(|l| l.routes.routes()) {
            let scattered = |i: usize| clusters.get(i).is_some_and(|c| c.ring.scatter().is_some());
            let copied = !route.mirrors.is_empty() && scattered(route.cluster);
            if copied || route.mirrors.iter().any(|m| scattered(m.cluster)) {
                return wrong(format!(
                    "route \"{}\" is mirrored, and the keys of a cluster of it have no home",
                    route.prefix.escape_ascii()
                ));
            }
            let by_slot = |i: &usize| clusters.get(*i).is_some_and(|c| c.redirects);
            let mut mirrors = route.mirrors.iter().map(|m| m.cluster);
            if !route.mirrors.is_empty() && (by_slot(&route.cluster) || mirrors.any(|m| by_slot(&m))) {
                return wrong(format!(
                    "route \"{}\" is mirrored, and a cluster of it follows redirections",
                    route.prefix.escape_ascii()
                ));
            }
        }
        Ok(Self {
            generation: spec.generation,
            limits: spec.limits,
            listeners,
            clusters,
            samples,
            host: spec.host,
            state_dir: spec.state_dir,
            group,
            workers: spec.workers.max(1),
        })
    }
}

fn compile_cluster(c: ClusterSpec) -> Result<Cluster, PlanError> {
    if c.ring.minimum > c.ring.maximum || c.ring.maximum > MAX_RING || c.choices == 0 {
        return Err(PlanError::Wrong(format!(
            "cluster {} has a ring or choices of no possible size",
            c.name
        )));
    }
    let ids = c.endpoints.iter().map(|e| e.id.as_str());
    let ring = match c.balance {
        BalanceSpec::Maglev => Ring::Maglev(Maglev::new(ids, c.hash_tags)),
        BalanceSpec::RingHash => Ring::RingHash(RingHash::new(ids, c.hash_tags, c.ring)),
        BalanceSpec::RoundRobin | BalanceSpec::Random | BalanceSpec::LeastRequest => {
            let scatter = Scatter::new(c.balance, c.endpoints.len(), c.choices);
            let no = || PlanError::Wrong(format!("cluster {} has no such balancing", c.name));
            Ring::Scatter(scatter.ok_or_else(no)?)
        }
        BalanceSpec::Slots => {
            let map = Slots::new(&c.slots, c.endpoints.len(), c.reads);
            Ring::Slots(map.map_err(|e| PlanError::Wrong(format!("cluster {}: {e}", c.name)))?)
        }
    };
    Ok(Cluster {
        redirects: c.redirects || ring.slots().is_some(),
        ring,
        name: c.name,
        endpoints: c.endpoints,
        connect_timeout: Duration::from_millis(c.connect_timeout_ms),
        op_timeout: Duration::from_millis(c.op_timeout_ms),
        username: c.username,
        password: c.password,
    })
}

fn compile_route(
    route: &RouteSpec,
    any_case: bool,
    samples: &mut Vec<Sample>,
    find: impl Fn(&str) -> Result<usize, PlanError>,
) -> Result<Route, PlanError> {
    let cluster = find(&route.cluster)?;
    let mut mirrors: Vec<Mirror> = Vec::new();
    let mut given: Vec<usize> = vec![cluster];
    let mut sampled = 0;
    for mirror in &route.mirrors {
        let target = find(&mirror.cluster)?;
        if given.contains(&target) {
            return Err(PlanError::Wrong(format!(
                "route \"{}\" sends cluster {} the same writes twice",
                route.prefix, mirror.cluster
            )));
        }
        let reads = mirror.reads == ReadsSpec::Include;
        given.push(target);
        if mirror.fraction < MILLION {
            let sample = Sample { cluster: target, reads, fraction: mirror.fraction };
            let bit = samples.iter().position(|s| *s == sample).unwrap_or_else(|| {
                samples.push(sample);
                samples.len() - 1
            });
            if bit >= MAX_SAMPLES {
                return Err(PlanError::Wrong(format!(
                    "more than {MAX_SAMPLES} mirrors get a part of the commands"
                )));
            }
            sampled |= 1 << bit;
        } else {
            mirrors.push(Mirror { cluster: target, reads });
        }
    }
    let mut prefix = route.prefix.clone().into_bytes();
    if any_case {
        prefix.make_ascii_lowercase();
    }
    Ok(Route { prefix, remove_prefix: route.remove_prefix, cluster, mirrors, samples: sampled })
}
