//! What all workers counted, added up, as JSON.
//!
//! Each worker has counters of its own, of which it is the only writer. Counters and gauges add up, latencies are merged, and
//! what is the state of something (a label, a log) is the first worker's, which alone has what has an order.

use std::sync::{Arc, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use super::counter::Counter;
use super::latency::{Latency, summary};
use super::registry::{EndpointStats, Label, ListenerStats, Lists, Registry};
use crate::command::{COMMANDS, by_id};

/// Everything that the registries of all workers have, the first worker's in front.
pub fn snapshot(registries: &[Arc<Registry>]) -> Vec<u8> {
    let lists: Vec<MutexGuard<'_, Lists>> =
        registries.iter().map(|r| r.lists.lock().unwrap_or_else(PoisonError::into_inner)).collect();
    let Some(first) = lists.first() else { return Vec::new() };
    let listeners = by_name(lists.iter().flat_map(|l| &l.listeners), |l| l.label.get("name"));
    let listeners: Vec<Value> = listeners.iter().map(|parts| listener(parts)).collect();
    let endpoints = lists.iter().flat_map(|l| &l.endpoints);
    let endpoints = by_name(endpoints, |e| (e.label.get("cluster"), e.label.get("id")));
    let endpoints: Vec<Value> = endpoints.iter().map(|parts| endpoint(parts)).collect();
    // (Each worker has samples of its own for a mirror that gets a fraction.)
    let replicas = by_name(lists.iter().flat_map(|l| &l.replicas), |r| {
        (r.label.get("primary"), r.label.get("mirror"), r.label.get("state") == "sampled")
    });
    let replicas: Vec<Value> = replicas
        .iter()
        .map(|parts| {
            let mut map = sums(parts.iter().map(|r| r.count.each()));
            parts[0].label.write(&mut map);
            Value::Object(map)
        })
        .collect();
    let logs: Vec<Value> = first
        .logs
        .iter()
        .map(|(primary, log)| {
            let mut map = object(log.each());
            map.insert("primary".to_owned(), Value::from(primary.as_str()));
            Value::Object(map)
        })
        .collect();
    let all = json!({
        "worker": worker(registries), "listeners": listeners, "commands": commands(registries), "endpoints": endpoints,
        "replicas": replicas, "logs": logs,
    });
    serde_json::to_vec(&all).unwrap_or_default()
}

/// What the workers do. The plan in force is the one that all have; the time is the first one's.
fn worker(registries: &[Arc<Registry>]) -> Map<String, Value> {
    let mut map = sums(registries.iter().map(|r| r.worker.each()));
    let generation = registries.iter().map(|r| r.worker.plan_generation.get()).min().unwrap_or(0);
    map.insert("plan_generation".to_owned(), Value::from(generation));
    let now_ms = registries.first().map_or(0, |r| r.worker.now_ms.get());
    map.insert("now_ms".to_owned(), Value::from(now_ms));
    let unsettled = crate::flow::UNSETTLED.load(std::sync::atomic::Ordering::Relaxed);
    map.insert("tickets_unsettled".to_owned(), Value::from(unsettled));
    map
}

fn commands(registries: &[Arc<Registry>]) -> Vec<Value> {
    let total = |id: usize| registries.iter().filter_map(|r| r.commands.get(id)).map(Counter::get).sum();
    (0..=COMMANDS)
        .map(|id| (id, total(id)))
        .filter(|(_, n): &(usize, u64)| *n > 0)
        .map(|(id, n)| {
            let name = if id < COMMANDS { by_id(id as u16).name } else { "unknown" };
            json!({"name": name, "total": n})
        })
        .collect()
}

fn listener(parts: &[&Arc<ListenerStats>]) -> Value {
    let times = parts.iter().map(|l| &l.time);
    shown(sums(parts.iter().map(|l| l.count.each())), &parts[0].label, "downstream_rq_time_us", times)
}

fn endpoint(parts: &[&Arc<EndpointStats>]) -> Value {
    let times = parts.iter().map(|e| &e.time);
    shown(sums(parts.iter().map(|e| e.count.each())), &parts[0].label, "upstream_rq_time_us", times)
}

fn shown<'a>(
    mut map: Map<String, Value>,
    label: &Label,
    time: &str,
    times: impl Iterator<Item = &'a Latency>,
) -> Value {
    label.write(&mut map);
    map.insert(time.to_owned(), Value::Object(object(summary(times))));
    Value::Object(map)
}

/// What is of the same name together, in the order in which the names come first. No group is empty.
fn by_name<'a, T, N: PartialEq>(all: impl Iterator<Item = &'a T>, name: impl Fn(&T) -> N) -> Vec<Vec<&'a T>> {
    let mut groups: Vec<(N, Vec<&T>)> = Vec::new();
    for one in all {
        let called = name(one);
        match groups.iter_mut().find(|(n, _)| *n == called) {
            Some((_, group)) => group.push(one),
            None => groups.push((called, vec![one])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// The sum of each counter.
fn sums(parts: impl Iterator<Item = impl Iterator<Item = (&'static str, u64)>>) -> Map<String, Value> {
    let mut total: Vec<(&'static str, u64)> = Vec::new();
    for part in parts {
        for (at, (name, n)) in part.enumerate() {
            match total.get_mut(at) {
                Some((_, sum)) => *sum = sum.wrapping_add(n),
                None => total.push((name, n)),
            }
        }
    }
    object(total)
}

fn object(pairs: impl IntoIterator<Item = (&'static str, u64)>) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(name: &str, commands: u64, us: u64) -> Arc<ListenerStats> {
        let stats = ListenerStats::default();
        stats.label.set("name", name);
        stats.count.downstream_rq_total.add(commands);
        stats.time.record(us);
        Arc::new(stats)
    }

    fn serving(cluster: &str, state: &str, active: u64) -> Arc<EndpointStats> {
        let stats = EndpointStats::default();
        stats.label.set("cluster", cluster);
        stats.label.set("id", "redis:6379");
        stats.label.set("state", state);
        stats.count.upstream_cx_active.set(active);
        Arc::new(stats)
    }

    fn taken(registries: &[Arc<Registry>]) -> Value {
        serde_json::from_slice(&snapshot(registries)).expect("JSON")
    }

    #[test]
    fn counters_and_times_add_up_and_states_are_the_firsts() {
        let workers: Vec<Arc<Registry>> = (0..3).map(|_| Arc::default()).collect();
        workers[0].publish(
            vec![listening("a", 5, 10), listening("b", 1, 10)],
            vec![serving("x", "ready", 2), serving("y", "down", 0)],
            vec![Arc::default()],
            vec![("x/redis:6379".to_owned(), Arc::default())],
        );
        workers[1].publish(vec![listening("b", 7, 90)], vec![serving("y", "ready", 1)], vec![], vec![]);
        workers[2].publish(vec![listening("a", 3, 30)], vec![serving("y", "ready", 1)], vec![], vec![]);
        for (i, worker) in workers.iter().enumerate() {
            worker.worker.turns.set(100);
            worker.worker.plan_generation.set(9 - i as u64);
            worker.commands[0].add(2);
        }
        let all = taken(&workers);
        assert_eq!(all["listeners"][0]["name"], "a");
        assert_eq!(all["listeners"][0]["downstream_rq_total"], 8);
        assert_eq!(all["listeners"][1]["downstream_rq_total"], 8);
        let time = &all["listeners"][0]["downstream_rq_time_us"];
        assert_eq!((&time["count"], &time["sum"], &time["p50"]), (&json!(2), &json!(40), &json!(10)));
        assert_eq!(all["endpoints"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            (&all["endpoints"][1]["state"], &all["endpoints"][1]["upstream_cx_active"]),
            (&json!("down"), &json!(2))
        );
        assert_eq!(
            (all["replicas"].as_array().map(Vec::len), all["logs"].as_array().map(Vec::len)),
            (Some(1), Some(1))
        );
        assert_eq!((&all["worker"]["turns"], &all["worker"]["plan_generation"]), (&json!(300), &json!(7)));
        assert_eq!(all["commands"][0]["total"], 6);
    }
}
