//! The plan of each member, as the control plane compiles it (`redisha/plan.py`).

use std::sync::Arc;

use redisha_core::plan::Plan;
use serde_json::{Value, json};

use super::world::Options;

/// Time between two beats (milliseconds), and the time after which a member is taken for gone.
pub const HEARTBEAT_MS: u64 = 50;
pub const TIMEOUT_MS: u64 = 250;
pub const OP_TIMEOUT_MS: u64 = 1_000;
pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The id of a member's peer port.
pub fn peer_id(member: usize) -> String {
    format!("{}:8101", NAMES[member])
}

/// A member's plan. Its listeners: clients, then the other members.
pub fn plan(options: &Options, me: usize) -> Arc<Plan> {
    let others: Vec<usize> = (0..options.members).filter(|i| *i != me).collect();
    let mirrors: Vec<Value> =
        others.iter().map(|i| json!({"cluster": format!("g~{}", peer_id(*i)), "reads": "exclude"})).collect();
    let route = json!({"prefix": "", "remove_prefix": false, "cluster": "g", "mirrors": mirrors});
    let cluster = |name: String, id: String, address: String| {
        json!({
            "name": name, "balance": "maglev", "hash_tags": false, "username": null, "password": null,
            "endpoints": [{"id": id, "address": address}],
            "connect_timeout_ms": 80, "op_timeout_ms": OP_TIMEOUT_MS,
        })
    };
    let mut clusters = vec![cluster("g".into(), format!("redis-{me}:6379"), format!("10.0.0.{me}:6379"))];
    clusters.extend(
        others.iter().map(|i| cluster(format!("g~{}", peer_id(*i)), peer_id(*i), format!("10.0.1.{i}:8101"))),
    );
    let listener = |name: &str, bind: &str, port: &str| {
        json!({
            "name": name, "bind": [bind], "users": [], "case_insensitive": false, "routes": [route], "port": port,
            "consistency": {"write": "one", "read": "one"},
        })
    };
    let plan = json!({
        "generation": 1,
        "host": format!("host-{me}"),
        "state_dir": null,
        "limits": {
            "max_clients": 1000, "max_request": 1 << 20, "max_output": 8 << 20, "log_bytes": 64 << 20,
            "memory_bytes": 256 << 20, "idle_timeout_ms": 0, "handshake_timeout_ms": 0,
            "resync_keys_per_s": 0, "resync_bytes_per_s": 0,
        },
        "listeners": [
            listener("clients", "127.0.0.1:6380", "group"),
            listener("g peers", "127.0.0.1:8101", "peers"),
        ],
        "clusters": clusters,
        "group": {
            "name": "g", "member": NAMES[me], "local": "g",
            "peers": others.iter().map(|i| format!("g~{}", peer_id(*i))).collect::<Vec<_>>(),
            "secret": null, "heartbeat_ms": HEARTBEAT_MS, "timeout_ms": TIMEOUT_MS,
            "min_in_sync": options.min_in_sync, "consistent": options.consistent,
        },
    });
    Arc::new(Plan::from_json(plan.to_string().as_bytes()).expect("a plan"))
}
