//! The plan as it comes from the control plane: the serde mirror of `redisha/plan.py`. Times in milliseconds, sizes in
//! bytes. Unknown fields are refused, so that the two sides cannot drift apart unnoticed.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

/// The whole plan.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSpec {
    /// Grows with each plan.
    pub generation: u64,
    /// Bounds of the process and of each session.
    pub limits: Limits,
    /// Where clients come in.
    pub listeners: Vec<ListenerSpec>,
    /// Where commands go.
    pub clusters: Vec<ClusterSpec>,
    /// The name of this sidecar's machine: part of what tells its markers from those of others.
    #[serde(default)]
    pub host: String,
    /// Where dirty maps are kept; `None`: in memory.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// The group that this sidecar is a member of.
    #[serde(default)]
    pub group: Option<GroupSpec>,
    /// Threads that serve clients.
    #[serde(default = "one")]
    pub workers: usize,
}

fn one() -> usize {
    1
}

/// Several sidecars, each with a Redis of its own, that behave like one Redis.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Its name.
    pub name: String,
    /// This member's name.
    pub member: String,
    /// The cluster of this member's own Redis.
    pub local: String,
    /// The clusters of the other members' peer ports, one each.
    pub peers: Vec<String>,
    /// What every member must know.
    pub secret: Option<String>,
    /// Time between two beats.
    pub heartbeat_ms: u64,
    /// A member that answers no beat for so long is taken for gone.
    pub timeout_ms: u64,
    /// How many members must be in sync for a write of `quorum` or `all`.
    pub min_in_sync: usize,
    /// No write that a quorum acknowledged is ever missing; the side without a majority takes no writes.
    pub consistent: bool,
}

impl fmt::Debug for GroupSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupSpec")
            .field("name", &self.name)
            .field("member", &self.member)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// How many members must have a write before its client is answered.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WriteLevel {
    /// The leader.
    #[default]
    One,
    /// More than half of those in sync.
    Quorum,
    /// All that are in sync.
    All,
}

/// Which member answers a read.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ReadLevel {
    /// The one that the client speaks to.
    #[default]
    One,
    /// The leader, in order with the writes: no read is older than a write that was answered before it.
    Leader,
}

/// What a client gets, unless it asks for something else.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Consistency {
    /// Of its writes.
    pub write: WriteLevel,
    /// Of its reads.
    pub read: ReadLevel,
}

/// Who comes in at a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Port {
    /// Clients of routes.
    #[default]
    Routes,
    /// Clients of the group.
    Group,
    /// Its other members.
    Peers,
}

/// Every bound of the data plane.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most sessions at a time.
    pub max_clients: u32,
    /// Most bytes of one command.
    pub max_request: usize,
    /// Most bytes that wait for one client to read them; past it the client is closed.
    pub max_output: usize,
    /// Most bytes held for all of them together: requests not complete, replies not read, logs.
    pub memory_bytes: usize,
    /// Most bytes of effects kept for replicas, per sequencer.
    pub log_bytes: usize,
    /// A session with nothing in flight for so long is closed; 0: never.
    pub idle_timeout_ms: u64,
    /// Time to authenticate where it is demanded; 0: no limit.
    pub handshake_timeout_ms: u64,
    /// Most keys that a resync copies in a second; 0: no limit but the clients' latency.
    #[serde(default)]
    pub resync_keys_per_s: u64,
    /// Most bytes that a resync copies in a second; 0: the same.
    #[serde(default)]
    pub resync_bytes_per_s: u64,
}

/// One listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerSpec {
    /// Its name; the identity across plans.
    pub name: String,
    /// The addresses it accepts on.
    pub bind: Vec<Address>,
    /// Who may come in; empty: everybody.
    pub users: Vec<UserSpec>,
    /// Whether prefixes match in any case.
    pub case_insensitive: bool,
    /// Its routes; prefixes are unique.
    pub routes: Vec<RouteSpec>,
    /// Who comes in.
    #[serde(default)]
    pub port: Port,
    /// What clients of a group get.
    #[serde(default)]
    pub consistency: Consistency,
}

/// A name and a password that a client may give.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    /// `None`: the default user, who may also send `AUTH password`.
    pub name: Option<String>,
    /// The password.
    pub password: String,
}

impl fmt::Debug for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserSpec({:?})", self.name)
    }
}

/// Key prefix → cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// The prefix; empty: every key that no other route takes, and commands without keys.
    pub prefix: String,
    /// Whether the prefix is cut off before the command is sent.
    pub remove_prefix: bool,
    /// The cluster's name.
    pub cluster: String,
    /// Clusters that receive the route's writes.
    pub mirrors: Vec<MirrorSpec>,
}

/// A mirror of a route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorSpec {
    /// The cluster's name.
    pub cluster: String,
    /// Whether it gets the route's reads too.
    pub reads: ReadsSpec,
    /// Of [`MILLION`] commands those that it gets. With less than all it is no copy.
    #[serde(default = "million")]
    pub fraction: u32,
}

/// All commands, as a mirror's part of them.
pub const MILLION: u32 = 1_000_000;

fn million() -> u32 {
    MILLION
}

/// What happens to reads on a mirror.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ReadsSpec {
    /// Only writes are mirrored.
    Exclude,
    /// Reads are mirrored too, their replies ignored.
    Include,
}

/// A set of upstream endpoints.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// Its name; the identity across plans.
    pub name: String,
    /// Its endpoints; empty while nothing has resolved.
    pub endpoints: Vec<EndpointSpec>,
    /// How keys are spread over them.
    pub balance: BalanceSpec,
    /// Who has which slots, where keys are spread by slot; empty while that is not known.
    #[serde(default)]
    pub slots: Vec<SlotRange>,
    /// Who is read from, where keys are spread by slot.
    #[serde(default)]
    pub reads: ReadPolicy,
    /// Whether a command that is answered with `MOVED` or `ASK` is sent where that says.
    #[serde(default)]
    pub redirects: bool,
    /// The ring, where keys are spread by that.
    #[serde(default)]
    pub ring: RingSpec,
    /// How many endpoints are drawn, of which the one with the fewest requests is taken.
    #[serde(default = "two")]
    pub choices: u32,
    /// Whether only the part in `{}` of a key is hashed.
    pub hash_tags: bool,
    /// Limit of connect and handshake.
    pub connect_timeout_ms: u64,
    /// Limit of one request.
    pub op_timeout_ms: u64,
    /// ACL user for the upstream, if any.
    pub username: Option<String>,
    /// Password for the upstream, if any.
    pub password: Option<String>,
}

impl fmt::Debug for ClusterSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterSpec")
            .field("name", &self.name)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// How keys are spread over a cluster's endpoints.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum BalanceSpec {
    /// Google's Maglev hashing.
    Maglev,
    /// Ketama's ring of hashes.
    RingHash,
    /// The hash slots of Redis Cluster.
    Slots,
    /// No key has a home: one endpoint after the other.
    RoundRobin,
    /// The same: any.
    Random,
    /// The same: of some drawn ones, the one with the fewest requests in flight.
    LeastRequest,
}

/// The ring of `ring_hash`; Envoy's words and defaults.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RingSpec {
    /// It has at least so many points.
    pub minimum: u64,
    /// It has at most so many points.
    pub maximum: u64,
    /// What places endpoints on it.
    pub function: HashFunction,
}

impl Default for RingSpec {
    fn default() -> Self {
        Self { minimum: 1024, maximum: MAX_RING, function: HashFunction::XxHash }
    }
}

/// What places endpoints on a ring.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum HashFunction {
    /// xxHash, 64 bits.
    XxHash,
    /// `MurmurHash2`, the variant of GNU libstdc++.
    #[serde(rename = "murmur_hash_2")]
    MurmurHash2,
}

/// Most points that a ring may have.
pub const MAX_RING: u64 = 8 << 20;

fn two() -> u32 {
    2
}

/// A run of hash slots and who has them: indices of the cluster's endpoints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotRange {
    /// The first slot.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// Who takes its writes.
    pub master: u16,
    /// Who has copies.
    pub replicas: Vec<u16>,
}

/// Who is read from in a Redis Cluster; Envoy's words.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ReadPolicy {
    /// The master.
    #[default]
    Master,
    /// The master, unless it is down.
    PreferMaster,
    /// A replica.
    Replica,
    /// A replica, unless all are down.
    PreferReplica,
    /// Any of them.
    Any,
}

/// One Redis.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// The identity across plans, `host:port` of the configuration.
    pub id: String,
    /// Where it is now; `None` while its name has not resolved.
    pub address: Option<Address>,
}

/// A socket address, `1.2.3.4:6379`, `[::1]:6379` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
    /// The worker that gives the writes to a Redis their order; never in a configuration.
    Link(Box<Link>),
}

/// How a worker reaches a Redis by way of another worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The listener that is for it there.
    pub listener: String,
    /// Where that Redis is; `None` while its name has not resolved.
    pub redis: Option<Address>,
}

impl Address {
    /// Whether it is another worker.
    pub fn is_link(&self) -> bool {
        matches!(self, Self::Link(_))
    }

    /// The address of the Redis that is reached here; `None` while it is not known.
    pub fn redis(&self) -> Option<&Self> {
        match self {
            Self::Link(link) => link.redis.as_ref(),
            direct => Some(direct),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| format!("not an address (ip:port or unix:/path): {text}")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Link(link) => write!(f, "the first worker ({})", link.listener),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
