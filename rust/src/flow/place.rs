//! Where a command goes: its route, its endpoint, and the replicas that get what it writes.

use smallvec::SmallVec;

use crate::command::{Command, KeysResult, keys, slot};
use crate::resp::{Request, encode};

use super::turns::is_for_any;
use super::{Engine, Listener, Target};
use crate::plan::{Plan, Ring};

/// A key of a command and where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    /// Its argument.
    pub index: u32,
    /// Bytes of its prefix that are cut off.
    pub strip: usize,
    /// The replicas that get it.
    pub replicas: u32,
}

/// Where a command goes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub endpoint: usize,
    /// Replicas that get it if it writes.
    pub writes: u32,
    /// Replicas that may lack it if it writes, although it does not go to them from here.
    pub marks: u32,
    /// Replicas that get it if it reads.
    pub reads: u32,
    /// The samples that it is drawn for.
    pub samples: u32,
    /// Its keys, where they had to be looked at.
    pub keys: SmallVec<[Placed; 4]>,
    /// Its keys do not all have the same replicas.
    pub mixed: bool,
}

/// Why a command has no single place.
#[derive(Debug)]
pub(super) enum Elsewhere {
    /// It has none at all: the error for its client.
    Nowhere(String),
    /// Two of its keys, as arguments, and the endpoints that they are on.
    Apart([(u32, usize); 2]),
    /// It concerns all keys, and those are on several endpoints, or have other names there.
    Everywhere,
}

/// Where one key goes.
#[derive(Debug)]
pub(super) struct Located<'a> {
    pub target: &'a Target,
    /// Bytes of its prefix that are cut off.
    pub strip: usize,
    pub writes: u32,
    pub reads: u32,
    /// Its hash slot, where keys are spread by that.
    pub slot: Option<u16>,
}

/// A server behind a listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    pub endpoint: usize,
    pub writes: u32,
    pub reads: u32,
    pub samples: u32,
    pub called: Called,
}

/// What clients call the keys of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// What it calls them itself.
    AsTheyAre,
    /// With the prefix of this route in front.
    WithoutPrefix(usize),
    /// It depends on the route, and a key does not tell which.
    InSeveralWays,
}

/// Whether its first argument is a channel of a slot, as a key is (redis.io, Sharded Pub/Sub).
fn is_sharded(command: &Command) -> bool {
    matches!(command.name, "spublish" | "ssubscribe" | "sunsubscribe")
}

impl Engine {
    /// Where a command goes that cannot go to several places. The error is for the client.
    pub(super) fn place(
        &self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Result<Place, String> {
        self.locate_for(slot, command, request, false)
            .map_err(|elsewhere| self.why_not(slot, request, &elsewhere))
    }

    /// Where a command goes, if that is one place.
    pub(super) fn locate(
        &self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Result<Place, Elsewhere> {
        self.locate_for(slot, command, request, command.is_some_and(only_reads))
    }

    /// The same; what only `reads` may go to a replica of a Redis Cluster.
    pub(super) fn locate_for(
        &self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
        reads: bool,
    ) -> Result<Place, Elsewhere> {
        let session = &self.sessions[slot];
        let (Some(plan), Some(listener)) =
            (self.plan.listeners.get(session.listener), self.listeners.get(session.listener))
        else {
            return Err(Elsewhere::Nowhere("UNAVAILABLE this listener is being closed".to_owned()));
        };
        let table = &plan.routes;
        if table.is_single()
            && let Some([only]) =
                listener.routes.first().filter(|r| !r.by_slot).map(|r| r.by_endpoint.as_slice())
            && only.spread.is_empty()
            && !table.get(0).is_some_and(|r| r.remove_prefix)
        {
            return Ok(only.place());
        }
        let mut indices = SmallVec::new();
        let known = match command {
            Some(command) => keys(command, request, &mut indices) == KeysResult::Known,
            None => false,
        };
        if indices.is_empty() {
            return match command {
                Some(command) if is_sharded(command) && listener.routes.iter().all(|r| r.by_slot) => {
                    let found = self.place_key(slot, None, request.arg(1), false)?;
                    Ok(Place::at(found.target.endpoint))
                }
                Some(command) if is_about_all_keys(command) => {
                    self.place_everywhere(session.listener, command)
                }
                Some(command) if known => self.place_keyless(slot, command),
                _ => self.place_unknown(slot, command, request),
            };
        }
        let mut place: Option<Place> = None;
        let mut hash_slot = None;
        for &index in &indices {
            let key = request.arg(index as usize);
            let found = self.place_key(slot, command, key, reads)?;
            let Located { target, strip, writes, reads, slot: of } = found;
            let same_slot = *hash_slot.get_or_insert(of) == of;
            let placed = Placed { index, strip, replicas: writes };
            match &mut place {
                None => {
                    let keys = SmallVec::from_slice(&[placed]);
                    place = Some(Place {
                        endpoint: target.endpoint,
                        writes,
                        marks: 0,
                        reads,
                        samples: target.samples,
                        keys,
                        mixed: false,
                    });
                }
                Some(place) if place.endpoint == target.endpoint && same_slot => {
                    place.mixed |= place.writes != writes;
                    place.writes |= writes;
                    place.reads &= reads;
                    place.samples &= target.samples;
                    place.keys.push(placed);
                }
                Some(place) => {
                    let first = place.keys.first().map_or(0, |k| k.index);
                    return Err(Elsewhere::Apart([(first, place.endpoint), (index, target.endpoint)]));
                }
            }
        }
        place.ok_or_else(|| Elsewhere::Nowhere("UNAVAILABLE no route".to_owned()))
    }

    /// Where one key of a session's command goes. What only `reads` may go to a replica of a Redis Cluster.
    pub(super) fn place_key(
        &self,
        slot: usize,
        command: Option<&'static Command>,
        key: &[u8],
        reads: bool,
    ) -> Result<Located<'_>, Elsewhere> {
        let listener = self.sessions[slot].listener;
        let plan = &self.plan.listeners[listener];
        let Some(route) = plan.routes.select(key) else {
            return Err(Elsewhere::Nowhere(format!(
                "UNAVAILABLE no route for key '{}': no prefix matches and the listener has no catch-all route",
                key.get(..64).unwrap_or(key).escape_ascii()
            )));
        };
        let strip = plan.routes.get(route).filter(|r| r.remove_prefix).map_or(0, |r| r.prefix.len());
        let targets = &self.listeners[listener].routes[route];
        let cluster = &self.plan.clusters[targets.cluster];
        let key = key.get(strip..).unwrap_or(&[]);
        let target_at = |at: Option<usize>| targets.by_endpoint.get(at?);
        let map = cluster.ring.slots();
        let target = match &cluster.ring {
            Ring::Slots(map) if reads && map.reads_replicas() => {
                let is_up = |i: usize| targets.by_endpoint.get(i).is_some_and(|t| self.is_up(t.endpoint));
                let at = map.pick_read(key, slot, is_up);
                target_at(Some(at.ok_or_else(|| no_replica(&cluster.name, slot::slot(key)))?))
            }
            Ring::Scatter(scatter) => self.turn_of(slot, command, scatter, targets),
            ring => target_at(ring.pick(key)),
        };
        let target = target.ok_or_else(|| no_endpoint(&cluster.name))?;
        let (writes, reads) = self.replicas_of(target, key);
        Ok(Located { target, strip, writes, reads, slot: map.map(|_| slot::slot(key)) })
    }

    /// A command without keys: the catch-all route's.
    fn place_keyless(&self, slot: usize, command: &'static Command) -> Result<Place, Elsewhere> {
        let listener = self.sessions[slot].listener;
        let table = &self.plan.listeners[listener].routes;
        let routes = &self.listeners[listener].routes;
        let Some(targets) = table.catch_all().and_then(|route| routes.get(route)) else {
            return Err(Elsewhere::Nowhere(format!(
                "UNAVAILABLE no route for '{}': it has no key and the listener has no catch-all route",
                command.name.replace('|', " ")
            )));
        };
        if targets.by_slot && command.name.starts_with("cluster") {
            // What clients see is one Redis.
            return Err(Elsewhere::Nowhere("ERR This instance has cluster support disabled".to_owned()));
        }
        let ring = &self.plan.clusters[targets.cluster].ring;
        match targets.by_endpoint.as_slice() {
            [] => Err(no_endpoint(&self.plan.clusters[targets.cluster].name)),
            [first] => Ok(first.place()),
            [first, ..] if is_for_any(command) && targets.scattered => {
                let turn = ring.scatter().and_then(|s| self.turn_of(slot, Some(command), s, targets));
                Ok(turn.unwrap_or(first).place())
            }
            all @ [first, ..]
                if is_about_the_server(command) || (targets.by_slot && is_script_without_keys(command)) =>
            {
                let meets = command.flags.contains(crate::command::Flags::PUBSUB);
                let any = targets.by_slot || (targets.scattered && !meets);
                let up = all.iter().find(|t| any && self.is_up(t.endpoint));
                Ok(up.unwrap_or(first).place())
            }
            _ => Err(Elsewhere::Everywhere),
        }
    }

    /// A command about every key: all servers behind the listener.
    fn place_everywhere(&self, listener: usize, command: &Command) -> Result<Place, Elsewhere> {
        let names_keys = matches!(command.name, "keys" | "scan" | "randomkey");
        match self.servers_behind(listener, command)?.as_slice() {
            [only] if !names_keys || only.called == Called::AsTheyAre => Ok(Place {
                writes: only.writes,
                reads: only.reads,
                samples: only.samples,
                ..Place::at(only.endpoint)
            }),
            _ => Err(Elsewhere::Everywhere),
        }
    }

    /// The servers that the routes of a listener lead to, each once, in the order of the routes. One that is in two clusters
    /// is read once, but what empties it is for the mirrors of both.
    pub(super) fn servers_behind(
        &self,
        listener: usize,
        command: &Command,
    ) -> Result<Vec<Server>, Elsewhere> {
        let address = |endpoint: usize| {
            self.endpoints.get(endpoint).filter(|_| !command.is_write())?.address.as_ref()?.redis()
        };
        let mut servers: Vec<Server> = Vec::new();
        let table = &self.plan.listeners[listener].routes;
        for (at, route) in self.listeners[listener].routes.iter().enumerate() {
            if route.by_endpoint.is_empty() {
                return Err(no_endpoint(&self.plan.clusters[route.cluster].name));
            }
            let cut = table.get(at).is_some_and(|r| r.remove_prefix && !r.prefix.is_empty());
            let called = if cut { Called::WithoutPrefix(at) } else { Called::AsTheyAre };
            let map = self.plan.clusters[route.cluster].ring.slots();
            let everywhere = command.name.starts_with("script|");
            let masters = |(i, _): &(usize, &Target)| everywhere || map.is_none_or(|map| map.is_master(*i));
            for (_, target) in route.by_endpoint.iter().enumerate().filter(masters) {
                let here = address(target.endpoint);
                let found = servers.iter_mut().find(|s| {
                    s.endpoint == target.endpoint || (here.is_some() && address(s.endpoint) == here)
                });
                let Some(server) = found else {
                    let Target { endpoint, writes, reads, samples, .. } = *target;
                    servers.push(Server { endpoint, writes, reads, samples, called });
                    continue;
                };
                server.writes |= target.writes;
                server.reads &= target.reads;
                server.samples &= target.samples;
                if server.called != called {
                    server.called = Called::InSeveralWays;
                }
            }
        }
        Ok(servers)
    }

    /// A command whose keys nobody knows: fine where all keys go the same way.
    fn place_unknown(
        &self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Result<Place, Elsewhere> {
        let listener = self.sessions[slot].listener;
        let routes = &self.listeners[listener].routes;
        let only = routes.first().filter(|_| self.plan.listeners[listener].routes.is_single());
        let scattered = only
            .filter(|r| r.scattered)
            .and_then(|r| self.turn_of(slot, command, self.plan.clusters[r.cluster].ring.scatter()?, r));
        match only.map(|r| r.by_endpoint.as_slice()) {
            Some([only]) => Ok(only.place()),
            _ if let Some(turn) = scattered => Ok(turn.place()),
            _ => Err(Elsewhere::Nowhere(format!(
                "CROSSROUTE the keys of '{}' are not known, and behind this listener they may be on several Redis servers ({})",
                String::from_utf8_lossy(request.arg(0)),
                self.names_behind(listener)
            ))),
        }
    }

    /// Whether an endpoint can be read from now.
    pub(super) fn is_up(&self, endpoint: usize) -> bool {
        let serve = self.endpoints.get(endpoint).and_then(|e| e.serve[0]);
        serve.and_then(|key| self.upstreams.get(key)).is_some_and(super::upstream::Upstream::is_ready)
    }

    /// The replicas that a key's writes and reads go to.
    fn replicas_of(&self, target: &Target, key: &[u8]) -> (u32, u32) {
        let mut writes = target.writes;
        for (cluster, bits) in &target.spread {
            let chosen = self.plan.clusters.get(*cluster).and_then(|c| c.ring.pick(key));
            for (i, bit) in bits.iter().enumerate() {
                if chosen != Some(i) {
                    writes &= !(1 << bit);
                }
            }
        }
        (writes, target.reads & writes)
    }
}

/// Whether a command may go to a replica, if its client wants that.
pub(super) fn only_reads(command: &Command) -> bool {
    command.flags.contains(crate::command::Flags::READONLY) && !command.is_write()
}

impl Place {
    /// One endpoint, and no replica of it.
    pub(super) fn at(endpoint: usize) -> Self {
        Self { endpoint, writes: 0, marks: 0, reads: 0, samples: 0, keys: SmallVec::new(), mixed: false }
    }

    /// The command with its prefixes cut off; `None` when nothing is cut off.
    pub(super) fn stripped(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        if self.keys.iter().all(|k| k.strip == 0) {
            return None;
        }
        let mut frame = Vec::with_capacity(request.frame.len());
        encode::array(&mut frame, request.len());
        for i in 0..request.len() {
            let strip = self.keys.iter().find(|k| k.index as usize == i).map_or(0, |k| k.strip);
            encode::bulk(&mut frame, request.arg(i).get(strip..).unwrap_or(&[]));
        }
        Some(frame)
    }
}

impl Target {
    fn place(&self) -> Place {
        Place { writes: self.writes, reads: self.reads, samples: self.samples, ..Place::at(self.endpoint) }
    }
}

/// Whether the writes of a key, as `primary` has it, go to its replica `bit`.
pub(super) fn is_mirrored(plan: &Plan, listeners: &[Listener], primary: usize, bit: u32, key: &[u8]) -> bool {
    let mirrors = |t: &Target| {
        let spread = |(cluster, bits): &(usize, Vec<u32>)| {
            bits.iter().position(|b| *b == bit).is_none_or(|one| has_share(plan, *cluster, one, key))
        };
        t.endpoint == primary && t.writes & (1 << bit) != 0 && t.spread.iter().all(spread)
    };
    is_routed(plan, listeners, mirrors, key)
}

/// Whether a route leads to one of these endpoints with a key.
pub(super) fn is_served(
    plan: &Plan,
    listeners: &[Listener],
    wanted: impl Fn(usize) -> bool,
    key: &[u8],
) -> bool {
    is_routed(plan, listeners, |t| wanted(t.endpoint), key)
}

/// Whether a route leads to such a target with a key, as the target has it.
fn is_routed(plan: &Plan, listeners: &[Listener], wanted: impl Fn(&Target) -> bool, key: &[u8]) -> bool {
    plan.listeners.iter().zip(listeners).filter(|(l, _)| !l.link).any(|(listener, targets)| {
        listener.routes.routes().iter().zip(&targets.routes).enumerate().any(|(i, (route, targets))| {
            let Some(at) = targets.by_endpoint.iter().position(&wanted) else { return false };
            let selected = if listener.routes.is_single() {
                Some(i)
            } else if route.remove_prefix {
                listener.routes.select(&[&route.prefix, key].concat())
            } else {
                listener.routes.select(key)
            };
            selected == Some(i) && has_share(plan, targets.cluster, at, key)
        })
    })
}

/// Whether a key belongs to this endpoint of a cluster.
fn has_share(plan: &Plan, cluster: usize, endpoint: usize, key: &[u8]) -> bool {
    plan.clusters.get(cluster).is_none_or(|c| c.endpoints.len() == 1 || c.ring.has(endpoint, key))
}

fn no_endpoint(cluster: &str) -> Elsewhere {
    Elsewhere::Nowhere(format!(
        "UNAVAILABLE cluster {cluster} has no endpoint: its name has not resolved yet; nothing was sent, try again"
    ))
}

fn no_replica(cluster: &str, slot: u16) -> Elsewhere {
    Elsewhere::Nowhere(format!(
        "UNAVAILABLE cluster {cluster} has no replica of slot {slot}, and its read_policy is 'replica'; nothing was sent"
    ))
}

/// Commands without keys which any one server of a cluster may answer.
pub(super) fn is_about_the_server(command: &Command) -> bool {
    let head = command.name.split('|').next().unwrap_or_default();
    // Who publishes and who subscribes meet at the same one.
    command.flags.contains(crate::command::Flags::PUBSUB)
        || matches!(
            head,
            "info"
                | "command"
                | "time"
                | "config"
                | "lolwut"
                | "role"
                | "memory"
                | "latency"
                | "slowlog"
                | "acl"
                | "pubsub"
                | "monitor"
        )
}

/// A script that names no key: any node of a Redis Cluster runs it.
fn is_script_without_keys(command: &Command) -> bool {
    command.name.starts_with("eval") || command.name.starts_with("fcall")
}

/// Commands without keys which concern every key of their server.
fn is_about_all_keys(command: &Command) -> bool {
    matches!(command.name, "keys" | "scan" | "dbsize" | "flushall" | "flushdb" | "randomkey" | "swapdb")
}
