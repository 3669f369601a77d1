//! One run: trouble, then quiet, then the accounts.

use std::sync::atomic::{AtomicBool, Ordering};

use redisha_core::flow::UNSETTLED;
use serde_json::Value as Json;

use super::client::Reading;
use super::data::alive;
use super::plans::{NAMES, Routes};
use super::redis::DATABASES;
use super::world::{Options, World};

/// Longest wait for an end that must come, in microseconds of simulated time.
const PATIENCE: u64 = 60_000_000;

/// What the engine may keep for the next burst (its spare buffers), in bytes.
const KEPT: u64 = 8 << 20;

/// A run has failed.
pub static FAILED: AtomicBool = AtomicBool::new(false);

/// What a run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub answered: u64,
    pub ran: u64,
    pub lost: u64,
    pub cuts: u64,
    pub copies: u64,
}

/// Live through `seed`.
pub fn live(world: &mut World) -> Outcome {
    for _ in 0..world.options.steps {
        step(world);
    }
    calm(world);
    let waits = |w: &World| w.clients.iter().filter(|c| !c.closed && !c.vanished).any(|c| c.waits_for() > 0);
    let drains = world.options.rude && world.rng.one_in(2);
    if drains {
        world.draining = true;
        world.engine.begin_drain();
        world.note("drain".into());
    } else {
        until(world, "clients to be answered", |w| !waits(w));
        for index in 0..world.clients.len() {
            if !world.clients[index].finished && !world.clients[index].vanished {
                world.close_half(index);
            }
        }
    }
    until(world, "all to be drained", |w| w.engine.is_drained());
    // Counters and memory are looked after once in a second.
    let end = world.now + 4_000_000;
    while world.now < end {
        let us = if world.is_busy() { 1_000 } else { 20_000 };
        world.pass(us);
    }
    account(world)
}

fn step(world: &mut World) {
    let options = world.options;
    let dt = match world.rng.below(40) {
        0 => 1 + world.rng.below(40_000),
        1..=9 => 1 + world.rng.below(3_000),
        _ => 1 + world.rng.below(500),
    };
    while world.clients.iter().filter(|c| c.session.is_some()).count() < options.clients {
        world.welcome();
    }
    for index in 0..world.clients.len() {
        let client = &world.clients[index];
        let may_ask =
            client.session.is_some() && !client.finished && !client.vanished && client.waits_for() < 1_200;
        if may_ask && world.rng.one_in(6) {
            world.ask(index);
        }
        let may_go = options.rude && !world.clients[index].finished && !world.clients[index].vanished;
        if may_go && world.clients[index].session.is_some() {
            match world.rng.below(1_500) {
                0 => world.vanish(index),
                1 => world.close_half(index),
                _ => {}
            }
        }
    }
    if options.chaos {
        trouble(world);
    }
    if options.reload && world.rng.one_in(60) {
        let routes =
            world.rng.pick(&[Routes::All(0), Routes::All(1), Routes::All(2), Routes::All(1), Routes::All(2)]);
        world.reload(routes);
    }
    world.bury();
    world.pass(dt);
}

fn trouble(world: &mut World) {
    let now = world.now;
    let soon = |w: &mut World, most: u64| now + w.rng.below(most);
    let which = world.rng.index(3);
    let op_timeout = world.options.bounds.op_timeout_ms * 1_000;
    match world.rng.below(world.options.calmness) {
        0..=5 => {
            let ids: Vec<u64> = world.links.keys().copied().collect();
            if !ids.is_empty() {
                let id = world.rng.pick(&ids);
                world.cut(id);
            }
        }
        6..=7 => {
            world.redises[which].paused_until = soon(world, op_timeout / 4);
            world.note(format!("{} pauses", NAMES[which]));
        }
        8 => {
            world.redises[which].paused_until = soon(world, op_timeout * 3);
            world.note(format!("{} pauses for long", NAMES[which]));
        }
        9 => {
            let down = world.rng.below(60_000);
            world.restart(which, down);
        }
        10 => {
            world.redises[which].full_until = soon(world, 50_000);
            world.note(format!("{} is full", NAMES[which]));
        }
        11 => world.refused_until[which] = soon(world, 100_000),
        12 => {
            let ids: Vec<u64> = world.links.keys().copied().collect();
            if !ids.is_empty() {
                let id = world.rng.pick(&ids);
                world.speak_out(id);
            }
        }
        _ => {}
    }
}

/// Trouble ends.
fn calm(world: &mut World) {
    world.note("calm".into());
    world.options.chaos = false;
    world.refused_until = [0; 3];
    for redis in &mut world.redises {
        redis.paused_until = 0;
        redis.down_until = 0;
        redis.loading_until = 0;
        redis.full_until = 0;
    }
    for index in 0..world.clients.len() {
        let client = &world.clients[index];
        if client.reading != Reading::AtOnce && !client.vanished {
            world.vanish(index);
        }
    }
}

fn until(world: &mut World, what: &str, done: impl Fn(&World) -> bool) {
    let deadline = world.now + PATIENCE;
    while !done(world) {
        if world.now > deadline {
            let stuck: Vec<String> = world
                .clients
                .iter()
                .filter(|c| c.waits_for() > 0 && !c.closed && !c.vanished)
                .map(|c| format!("c{} ({:?}) waits for {}", c.name, c.session, c.next_expected()))
                .collect();
            let all: Json = serde_json::from_slice(&world.registry.snapshot()).unwrap();
            let (replicas, endpoints) = (&all["replicas"], &all["endpoints"]);
            panic!("waited for {what}; {stuck:?}; {:?}; {replicas} {endpoints}", world.left());
        }
        let us = if world.is_busy() { 1_000 } else { 10_000 };
        world.pass(us);
    }
}

/// Everything must add up.
fn account(world: &mut World) -> Outcome {
    let statistics: Json = serde_json::from_slice(&world.registry.snapshot()).unwrap();
    let sum = |list: &str, name: &str| -> u64 {
        statistics[list].as_array().unwrap().iter().map(|one| one[name].as_u64().unwrap()).sum()
    };
    for client in &world.clients {
        world.never.extend(&client.never);
        world.answered += client.answered;
    }
    for number in &world.never {
        let ran = world.redises[0].ran.get(number);
        assert!(
            ran.is_none_or(
                |r| matches!(&r.reply, super::value::Value::Error(e) if e.starts_with("EXECABORT"))
            ),
            "t{number} was said not to be sent, and ran"
        );
    }
    let outcome = Outcome {
        answered: world.answered,
        ran: world.redises[0].ran.len() as u64,
        lost: sum("replicas", "lost_total"),
        cuts: world.cuts,
        copies: sum("replicas", "resync_keys_total"),
    };
    // A run that fails in another thread drops its tickets while it unwinds.
    let failed = FAILED.load(Ordering::Relaxed);
    assert!(failed || UNSETTLED.load(Ordering::Relaxed) == 0, "tickets were dropped unsettled");
    for name in ["downstream_cx_active", "downstream_rq_active"] {
        assert_eq!(sum("listeners", name), 0, "{name}");
    }
    assert_eq!(sum("endpoints", "upstream_rq_active"), 0, "upstream_rq_active");
    assert_eq!(sum("replicas", "repair_keys"), 0, "repair_keys");
    assert_eq!(sum("replicas", "lag"), 0, "lag");
    let memory = statistics["worker"]["memory_bytes"].as_u64().unwrap();
    assert!(memory <= KEPT, "{memory} bytes were not given back");
    assert_eq!((sum("logs", "entries"), sum("logs", "bytes")), (0, 0), "the log was not given back");
    let Options { mix, bounds, reload, .. } = world.options;
    let all_fits = bounds.log_bytes > 1 << 20 && (!mix.large || bounds.max_output > 1 << 20);
    if !mix.keys_unknown && !reload && all_fits {
        assert_eq!(outcome.lost, 0, "effects were lost: {}", statistics["replicas"]);
    }
    if outcome.lost == 0 && !world.options.reload {
        compare(world);
    }
    outcome
}

/// Each mirror holds what the primary holds of its keys, and heard each message once at most.
fn compare(world: &World) {
    let [primary, mirrors @ ..] = world.redises.as_slice() else { return };
    let now = primary_time(world);
    let wanted: Vec<(usize, fn(&[u8]) -> bool)> = match world.options.routes {
        Routes::All(n) => (0..n).map(|i| (i, (|_: &[u8]| true) as fn(&[u8]) -> bool)).collect(),
        Routes::Split => vec![(0, |key| key.starts_with(b"l")), (1, |key| !key.starts_with(b"l"))],
    };
    for (index, takes) in wanted {
        let mirror = &mirrors[index];
        for db in 0..DATABASES {
            let of = |redis: &super::redis::Redis| {
                let keys = redis.dbs.get(&db).cloned().unwrap_or_default();
                let mut lines: Vec<String> = Vec::new();
                for (key, item) in alive(&keys, now) {
                    if takes(key) {
                        let mut shown = format!("{:?}", item.data);
                        shown.truncate(300);
                        lines.push(format!(
                            "{} = {shown} {:?} {}",
                            key.escape_ascii(),
                            item.expires,
                            item.data.dump().len()
                        ));
                    }
                }
                lines
            };
            let (ours, theirs) = (of(primary), of(mirror));
            let missing: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).collect();
            let foreign: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).collect();
            assert!(
                missing.is_empty() && foreign.is_empty(),
                "{} differs in database {db}: lacks {missing:#?}, has {foreign:#?}",
                mirror.name
            );
        }
        let mut heard = std::collections::BTreeSet::new();
        assert!(
            mirror.published.iter().all(|m| heard.insert(m.clone())),
            "{} heard a message twice",
            mirror.name
        );
    }
}

fn primary_time(world: &World) -> u64 {
    super::tag::EPOCH_MS + world.now / 1_000
}

/// Options in which everything happens but the loss of effects.
pub fn usual(seed: u64) -> Options {
    use super::plans::Bounds;
    use super::script::Mix;
    let routes = match seed % 4 {
        0 => Routes::Split,
        1 => Routes::All(1),
        _ => Routes::All(2),
    };
    Options {
        routes,
        bounds: Bounds {
            log_bytes: 64 << 20,
            max_output: if seed.is_multiple_of(3) { 100_000 } else { 8 << 20 },
            connect_timeout_ms: 30,
            op_timeout_ms: 120,
            reads: seed.is_multiple_of(5),
        },
        mix: Mix { keys_unknown: false, large: seed.is_multiple_of(2), expiring: false },
        chaos: seed % 8 != 7,
        rude: seed % 16 != 15,
        reload: false,
        calmness: [700, 300, 1_500][(seed / 3 % 3) as usize],
        databases: DATABASES,
        steps: 700,
        clients: 5,
    }
}
