//! The plans that the simulation runs under.

use std::sync::Arc;

use redisha_core::plan::Plan;
use serde_json::{Value, json};

/// Which keys go to which mirrors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// Everything to this many mirrors.
    All(usize),
    /// Keys that begin with `l` to the first mirror, the others to the second.
    Split,
}

/// Bounds and timeouts.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub log_bytes: usize,
    pub max_output: usize,
    pub connect_timeout_ms: u64,
    pub op_timeout_ms: u64,
    /// The first mirror gets reads too.
    pub reads: bool,
}

/// The name of a Redis's cluster, by its index; 0 is the primary.
pub const NAMES: [&str; 3] = ["p", "m1", "m2"];

/// A plan with one listener.
pub fn plan(routes: Routes, bounds: &Bounds, generation: u64) -> Arc<Plan> {
    let mirror = |i: usize| {
        let reads = if bounds.reads && i == 1 { "include" } else { "exclude" };
        json!({"cluster": NAMES[i], "reads": reads})
    };
    let route = |prefix: &str, mirrors: Vec<Value>| json!({"prefix": prefix, "remove_prefix": false, "cluster": "p", "mirrors": mirrors});
    let routes = match routes {
        Routes::All(n) => vec![route("", (1..=n).map(mirror).collect())],
        Routes::Split => vec![route("l", vec![mirror(1)]), route("", vec![mirror(2)])],
    };
    let clusters: Vec<Value> = NAMES
        .iter()
        .enumerate()
        .map(|(i, name)| {
            json!({
                "name": name, "balance": "maglev", "hash_tags": false, "username": null, "password": null,
                "endpoints": [{"id": format!("{name}:6379"), "address": format!("10.0.0.{i}:6379")}],
                "connect_timeout_ms": bounds.connect_timeout_ms, "op_timeout_ms": bounds.op_timeout_ms,
            })
        })
        .collect();
    let plan = json!({
        "generation": generation,
        "limits": {
            "max_clients": 1000, "max_request": 1 << 20, "max_output": bounds.max_output, "log_bytes": bounds.log_bytes, "memory_bytes": 256 << 20,
            "idle_timeout_ms": 0, "handshake_timeout_ms": 0,
        },
        "listeners": [{
            "name": "clients", "bind": ["127.0.0.1:6380"], "users": [], "case_insensitive": false, "routes": routes,
        }],
        "clusters": clusters,
    });
    Arc::new(Plan::from_json(plan.to_string().as_bytes()).expect("a plan"))
}
