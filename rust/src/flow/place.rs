//! Where a command goes: its route, its endpoint, and the replicas that get what it writes.

use smallvec::SmallVec;

use crate::command::{Command, KeysResult, keys};
use crate::resp::{Request, encode};

use super::{Engine, Listener, Target};
use crate::plan::Plan;

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
#[derive(Debug)]
pub(super) struct Place {
    pub endpoint: usize,
    /// Replicas that get it if it writes.
    pub writes: u32,
    /// Replicas that may lack it if it writes, although it does not go to them from here.
    pub marks: u32,
    /// Replicas that get it if it reads.
    pub reads: u32,
    /// Its keys, where they had to be looked at.
    pub keys: SmallVec<[Placed; 4]>,
    /// Its keys do not all have the same replicas.
    pub mixed: bool,
}

impl Engine {
    /// Where a command goes. The error is for the client.
    pub(super) fn place(
        &self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Result<Place, String> {
        let session = &self.sessions[slot];
        let (Some(plan), Some(listener)) =
            (self.plan.listeners.get(session.listener), self.listeners.get(session.listener))
        else {
            return Err("UNAVAILABLE this listener is being closed".to_owned());
        };
        let table = &plan.routes;
        if table.is_single()
            && let Some([only]) = listener.routes.first().map(|r| r.by_endpoint.as_slice())
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
                Some(command) if known || is_about_all_keys(command) => {
                    self.place_keyless(session.listener, command)
                }
                _ => self.place_unknown(session.listener, request),
            };
        }
        let mut place: Option<Place> = None;
        for &index in &indices {
            let key = request.arg(index as usize);
            let (target, strip) = self.place_key(session.listener, key)?;
            let (writes, reads) = self.replicas_of(target, key.get(strip..).unwrap_or(&[]));
            let placed = Placed { index, strip, replicas: writes };
            match &mut place {
                None => {
                    let keys = SmallVec::from_slice(&[placed]);
                    place = Some(Place {
                        endpoint: target.endpoint,
                        writes,
                        marks: 0,
                        reads,
                        keys,
                        mixed: false,
                    });
                }
                Some(place) if place.endpoint == target.endpoint => {
                    place.mixed |= place.writes != writes;
                    place.writes |= writes;
                    place.reads &= reads;
                    place.keys.push(placed);
                }
                Some(place) => return Err(self.cross_route(request, place, target.endpoint, key)),
            }
        }
        place.ok_or_else(|| "UNAVAILABLE no route".to_owned())
    }

    fn cross_route(&self, request: &Request<'_>, place: &Place, other: usize, key: &[u8]) -> String {
        let first = place.keys.first().map_or(&[][..], |k| request.arg(k.index as usize));
        let name =
            |endpoint: usize| self.endpoints.get(endpoint).map(super::Endpoint::name).unwrap_or_default();
        format!(
            "CROSSROUTE key '{}' is on {} and key '{}' on {}: send one command for each",
            first.escape_ascii(),
            name(place.endpoint),
            key.escape_ascii(),
            name(other)
        )
    }

    fn place_key(&self, listener: usize, key: &[u8]) -> Result<(&Target, usize), String> {
        let plan = &self.plan.listeners[listener];
        let Some(route) = plan.routes.select(key) else {
            return Err(format!(
                "UNAVAILABLE no route for key '{}': no prefix matches and the listener has no catch-all route",
                key.get(..64).unwrap_or(key).escape_ascii()
            ));
        };
        let strip = plan.routes.get(route).filter(|r| r.remove_prefix).map_or(0, |r| r.prefix.len());
        let targets = &self.listeners[listener].routes[route];
        let cluster = &self.plan.clusters[targets.cluster];
        let target =
            cluster.ring.pick(key.get(strip..).unwrap_or(&[])).and_then(|i| targets.by_endpoint.get(i));
        target.map(|t| (t, strip)).ok_or_else(|| no_endpoint(&cluster.name))
    }

    /// A command without keys: the catch-all route's.
    fn place_keyless(&self, listener: usize, command: &Command) -> Result<Place, String> {
        let name = command.name.replace('|', " ");
        let table = &self.plan.listeners[listener].routes;
        let routes = &self.listeners[listener].routes;
        let Some(targets) = table.catch_all().and_then(|route| routes.get(route)) else {
            return Err(format!(
                "UNAVAILABLE no route for '{name}': it has no key and the listener has no catch-all route"
            ));
        };
        let cluster = &self.plan.clusters[targets.cluster].name;
        let Some(first) = targets.by_endpoint.first() else { return Err(no_endpoint(cluster)) };
        if is_about_the_server(command) {
            return Ok(first.place());
        }
        let elsewhere = is_about_all_keys(command) && routes.iter().any(|r| r.cluster != targets.cluster);
        if elsewhere || targets.by_endpoint.len() > 1 {
            return Err(format!(
                "CROSSROUTE '{name}' concerns every Redis behind this listener: send it to each of them"
            ));
        }
        let mut place = first.place();
        if is_about_all_keys(command) {
            let same = routes.iter().flat_map(|r| &r.by_endpoint).filter(|t| t.endpoint == place.endpoint);
            place.writes = same.fold(0, |bits, t| bits | t.writes);
        }
        Ok(place)
    }

    /// A command whose keys nobody knows: fine where all keys go the same way.
    fn place_unknown(&self, listener: usize, request: &Request<'_>) -> Result<Place, String> {
        let routes = &self.listeners[listener].routes;
        match routes.first().map(|r| r.by_endpoint.as_slice()) {
            Some([only]) if self.plan.listeners[listener].routes.is_single() => Ok(only.place()),
            _ => Err(format!(
                "CROSSROUTE the keys of '{}' are not known, and behind this listener they may be in several places",
                String::from_utf8_lossy(request.arg(0))
            )),
        }
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

impl Place {
    /// One endpoint, and no replica of it.
    pub(super) fn at(endpoint: usize) -> Self {
        Self { endpoint, writes: 0, marks: 0, reads: 0, keys: SmallVec::new(), mixed: false }
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
        Place { writes: self.writes, reads: self.reads, ..Place::at(self.endpoint) }
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
    plan.listeners.iter().zip(listeners).any(|(listener, targets)| {
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
    plan.clusters.get(cluster).is_none_or(|c| c.endpoints.len() == 1 || c.ring.pick(key) == Some(endpoint))
}

fn no_endpoint(cluster: &str) -> String {
    format!(
        "UNAVAILABLE cluster {cluster} has no endpoint: its name has not resolved yet; nothing was sent, try again"
    )
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

/// Commands without keys which concern every key of their server.
fn is_about_all_keys(command: &Command) -> bool {
    matches!(command.name, "keys" | "scan" | "dbsize" | "flushall" | "flushdb" | "randomkey" | "swapdb")
}
