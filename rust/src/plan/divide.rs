//! The plans of several workers: what each gets of the one that was described.
//!
//! ```text
//!                   ┌─ worker 1 ─┐   link: listener "to redis-001/host:6379"   ┌─ worker 0 ─┐
//!   clients ───────▶│ no log     │──────────────────────────────────────────▶│ sequencer  │──▶ a Redis with mirrors
//!                   └────────────┘                                            └────────────┘
//!                         └──────────────────────────────────────────────────────────────────▶ a Redis without
//! ```
//!
//! Writes to a Redis with mirrors have one order, so one worker, the first, makes it. To the others such a Redis is a server
//! that is reached by a link to the first, which has a listener for each. What cannot be told apart there (a group, whose
//! consistency belongs to sessions; a cluster that has different mirrors on different routes) the first worker serves alone.

use std::collections::BTreeSet;
use std::time::Duration;

use super::balance::Ring;
use super::compile::{Cluster, Listener, Mirror, Plan, Route};
use super::maglev::Maglev;
use super::select::RouteTable;
use super::spec::{Address, Consistency, Link, Port};

/// How much longer than the first worker another one waits, which waits for it.
const LONGER: Duration = Duration::from_secs(1);

/// Who gives the writes to a cluster their order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    /// Nobody: no route leads there.
    Unrouted,
    /// Nobody: its servers do.
    Servers,
    /// The first worker; it sends them to these mirrors, or has done so and no plan has any more.
    First(Vec<Mirror>),
    /// The same, for sessions of its own only.
    FirstAlone,
}

impl Plan {
    /// The plan of each worker, the first's in front.
    ///
    /// `ordered`: the clusters that plans before it gave an order by the first worker. They keep it when their mirrors go:
    /// else what is on its way, waits or is subscribed over a link would be lost.
    pub fn divide(mut self, ordered: &mut BTreeSet<String>) -> Vec<Self> {
        if self.workers == 1 {
            return vec![self];
        }
        self.limits.memory_bytes /= self.workers;
        let orders = self.orders(ordered);
        let mut plans = vec![];
        for _ in 1..self.workers {
            plans.push(self.of_others(&orders));
        }
        self.add_links(&orders);
        plans.insert(0, self);
        plans
    }

    fn orders(&self, ordered: &mut BTreeSet<String>) -> Vec<Order> {
        let mut orders = vec![Order::Unrouted; self.clusters.len()];
        let routes = self.listeners.iter().flat_map(|l| l.routes.routes());
        for route in routes {
            let Some(order) = orders.get_mut(route.cluster) else { continue };
            let wanted = match route.mirrors.as_slice() {
                [] => Order::Servers,
                mirrors => Order::First(mirrors.to_vec()),
            };
            if *order == Order::Unrouted {
                *order = wanted;
            } else if *order != wanted {
                *order = Order::FirstAlone;
            }
        }
        for (order, cluster) in orders.iter_mut().zip(&self.clusters).filter(|(_, c)| !c.redirects) {
            if matches!(order, Order::First(_)) {
                ordered.insert(cluster.name.clone());
            } else if *order == Order::Servers && ordered.contains(&cluster.name) {
                *order = Order::First(Vec::new());
            }
        }
        for &cluster in self.group.iter().flat_map(|g| g.peers.iter().chain([&g.local])) {
            if let Some(order) = orders.get_mut(cluster) {
                *order = Order::FirstAlone;
            }
        }
        orders
    }

    /// The plan of a worker that is not the first.
    fn of_others(&self, orders: &[Order]) -> Self {
        let shared = |l: &&Listener| {
            let alone = |r: &Route| orders.get(r.cluster) == Some(&Order::FirstAlone);
            l.port == Port::Routes && !l.routes.routes().iter().any(alone)
        };
        let mut listeners: Vec<Listener> = self.listeners.iter().filter(shared).cloned().collect();
        for listener in &mut listeners {
            listener.bind.retain(|address| matches!(address, Address::Tcp(_)));
            listener.routes.forget_mirrors();
        }
        let mut clusters = self.clusters.clone();
        for (cluster, order) in clusters.iter_mut().zip(orders) {
            if matches!(order, Order::First(_)) {
                cluster.op_timeout = cluster.op_timeout * 2 + LONGER;
                (cluster.username, cluster.password) = (None, None);
                for endpoint in &mut cluster.endpoints {
                    let listener = link_name(&cluster.name, &endpoint.id);
                    let link = Link { listener, redis: endpoint.address.take() };
                    endpoint.address = Some(Address::Link(Box::new(link)));
                }
            }
        }
        Self {
            generation: self.generation,
            limits: self.limits,
            listeners,
            clusters,
            host: self.host.clone(),
            state_dir: None,
            group: None,
            workers: self.workers,
            samples: self.samples.clone(),
        }
    }

    /// Where the others come in: one listener, with a cluster of one, for each server.
    fn add_links(&mut self, orders: &[Order]) {
        for (at, order) in orders.iter().enumerate() {
            let (Order::First(mirrors), Some(cluster)) = (order, self.clusters.get(at).cloned()) else {
                continue;
            };
            for endpoint in &cluster.endpoints {
                let ids = std::iter::once(endpoint.id.as_str());
                let route = Route {
                    prefix: Vec::new(),
                    remove_prefix: false,
                    cluster: self.clusters.len(),
                    mirrors: mirrors.clone(),
                    samples: 0, // drawn where the client is
                };
                self.clusters.push(Cluster {
                    ring: Ring::Maglev(Maglev::new(ids, cluster.ring.hash_tags())),
                    endpoints: vec![endpoint.clone()],
                    ..cluster.clone()
                });
                self.listeners.push(Listener {
                    name: link_name(&cluster.name, &endpoint.id),
                    bind: Vec::new(),
                    users: Vec::new(),
                    routes: RouteTable::catching_all(route),
                    port: Port::Routes,
                    consistency: Consistency::default(),
                    link: true,
                });
            }
        }
    }
}

/// A listener of the configuration may have the same name: [`Listener::link`] tells them apart.
fn link_name(cluster: &str, id: &str) -> String {
    format!("to {cluster}/{id}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(listeners: &Value) -> Vec<Plan> {
        plan_after(listeners, &mut BTreeSet::new())
    }

    fn plan_after(listeners: &Value, ordered: &mut BTreeSet<String>) -> Vec<Plan> {
        let cluster = |name: &str, ids: &[&str]| {
            let endpoints: Vec<Value> =
                ids.iter().map(|id| json!({"id": id, "address": "127.0.0.1:7000"})).collect();
            json!({
                "name": name, "endpoints": endpoints, "balance": "maglev", "hash_tags": false,
                "connect_timeout_ms": 250, "op_timeout_ms": 5000, "username": null, "password": "secret",
            })
        };
        let plan = json!({
            "generation": 1, "workers": 3,
            "limits": {
                "max_clients": 10, "max_request": 1 << 20, "max_output": 1 << 20, "log_bytes": 1 << 20,
                "memory_bytes": 90 << 20, "idle_timeout_ms": 0, "handshake_timeout_ms": 0,
            },
            "listeners": listeners,
            "clusters": [cluster("a", &["a:1", "a:2"]), cluster("b", &["b:1"]), cluster("c", &["c:1"])],
        });
        Plan::from_json(plan.to_string().as_bytes()).expect("a plan").divide(ordered)
    }

    fn listener(name: &str, routes: &[(&str, &str, &[&str])]) -> Value {
        let route = |(prefix, cluster, mirrors): &(&str, &str, &[&str])| {
            let mirrors: Vec<Value> =
                mirrors.iter().map(|m| json!({"cluster": m, "reads": "exclude"})).collect();
            json!({"prefix": prefix, "remove_prefix": false, "cluster": cluster, "mirrors": mirrors})
        };
        json!({
            "name": name, "bind": ["127.0.0.1:6380", "unix:/run/a"], "users": [], "case_insensitive": false,
            "routes": routes.iter().map(route).collect::<Vec<_>>(),
        })
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.listeners.iter().map(|l| l.name.as_str()).collect()
    }

    #[test]
    fn a_mirrored_cluster_is_reached_by_links() {
        let plans = plan(&json!([listener("l", &[("", "a", &["b"]), ("x:", "c", &[])])]));
        assert_eq!(plans.len(), 3);
        assert_eq!(names(&plans[0]), ["l", "to a/a:1", "to a/a:2"]);
        assert_eq!(plans[0].clusters.len(), 5, "each link has a cluster of one server");
        assert_eq!(plans[0].clusters[4].endpoints[0].id, "a:2");
        assert!(plans[0].limits.memory_bytes == 30 << 20 && plans[0].limits.max_clients == 10);
        for other in &plans[1..] {
            assert_eq!(names(other), ["l"]);
            assert_eq!(other.listeners[0].bind.len(), 1, "a unix socket is the first worker's");
            let address = other.clusters[0].endpoints[1].address.as_ref().expect("a link");
            assert!(address.is_link() && address.redis().is_some() && other.clusters[0].password.is_none());
            assert_eq!(other.clusters[0].op_timeout, Duration::from_secs(11));
            assert!(!other.clusters[2].endpoints[0].address.as_ref().expect("an address").is_link());
            assert!(other.listeners[0].routes.routes().iter().all(|r| r.mirrors.is_empty()));
        }
    }

    #[test]
    fn a_cluster_that_had_mirrors_keeps_its_links() {
        let mut ordered = BTreeSet::new();
        plan_after(&json!([listener("l", &[("", "c", &["b"])])]), &mut ordered);
        let plans = plan_after(&json!([listener("l", &[("", "c", &[]), ("x:", "a", &[])])]), &mut ordered);
        assert_eq!(names(&plans[0]), ["l", "to c/c:1"]);
        assert!(plans[0].listeners[1].routes.routes()[0].mirrors.is_empty());
        let is_link = |at: usize| plans[1].clusters[at].endpoints[0].address.as_ref().map(Address::is_link);
        assert_eq!((is_link(0), is_link(2)), (Some(false), Some(true)));
    }

    #[test]
    fn different_mirrors_of_one_cluster_are_the_firsts_alone() {
        let mixed = listener("mixed", &[("x:", "a", &["b"]), ("y:", "a", &[])]);
        let plans = plan(&json!([mixed, listener("plain", &[("", "c", &[])])]));
        assert_eq!(names(&plans[0]), ["mixed", "plain"]);
        assert_eq!(names(&plans[1]), ["plain"]);
    }
}
