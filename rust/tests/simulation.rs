//! A seeded simulation of the engine with everything around it: clients, a primary, mirrors, the network, time.
//!
//! ```text
//! clients ══pipes══▶ World::turn (the worker's loop) ─▶ Engine ─▶ ══pipes══▶ shadow Redis (primary, mirrors)
//!    │                                                                            │
//!    └──────────── each answer is compared with what the primary answered ◀───────┘
//! ```
//!
//! Trouble happens at random: bytes come in pieces and late, connections are cut with bytes on their way, servers pause,
//! restart with all, some or none of their data, fill up, clients vanish or do not read, the sidecar itself is killed. Then
//! all is quiet, and everything must add up, see `run.rs`: above all, each mirror has what the primary has. Whenever it is
//! quiet in between, a mirror that is said to be in sync must be.
//!
//! `SEEDS=n` runs more seeds, `SEED=n` one, with its trace, `ALL=1` goes on after seeds that fail. A run depends on its
//! seed alone.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::trivially_copy_pass_by_ref,
    clippy::needless_for_each,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    clippy::assigning_clones,
    reason = "a test that panics has found something"
)]

#[path = "simulation/actor.rs"]
mod actor;
#[path = "simulation/care.rs"]
mod care;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/commands.rs"]
mod commands;
#[path = "simulation/compare.rs"]
mod compare;
#[path = "simulation/data.rs"]
mod data;
#[path = "simulation/death.rs"]
mod death;
#[path = "simulation/library.rs"]
mod library;
#[path = "simulation/life.rs"]
mod life;
#[path = "simulation/maps.rs"]
mod maps;
#[path = "simulation/pipe.rs"]
mod pipe;
#[path = "simulation/plans.rs"]
mod plans;
#[path = "simulation/population.rs"]
mod population;
#[path = "simulation/redis.rs"]
mod redis;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/scan.rs"]
mod scan;
#[path = "simulation/script.rs"]
mod script;
#[path = "simulation/shell.rs"]
mod shell;
#[path = "simulation/tag.rs"]
mod tag;
#[path = "simulation/value.rs"]
mod value;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use run::{Outcome, live, usual};
use world::{Options, World};

/// Events shown when a seed fails; all of them with `SEED`.
const LAST_EVENTS: usize = 120;

fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Live through the seeds; the first that fails is lived through again, with a trace.
fn explore(name: &str, count: u64, options: impl Fn(u64) -> Options) -> Outcome {
    let one = environment("SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..environment("SEEDS").unwrap_or(count),
    };
    let mut total = Outcome::default();
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| live(&mut World::new(seed, options(seed), false))));
        match result {
            Ok(outcome) if one.is_none() => total += outcome,
            Err(why) if one.is_none() && environment("ALL").is_some() => {
                run::FAILED.store(true, std::sync::atomic::Ordering::Relaxed);
                let why = why.downcast_ref::<String>().map_or("", String::as_str);
                eprintln!("SEED={seed} {name}: {}", why.lines().collect::<Vec<_>>().join(" "));
            }
            _ => {
                run::FAILED.store(true, std::sync::atomic::Ordering::Relaxed);
                let mut world = World::new(seed, options(seed), true);
                let again = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
                let trace = world.trace.take().unwrap_or_default();
                let skipped = if one.is_some() { 0 } else { trace.len().saturating_sub(LAST_EVENTS) };
                for line in trace.iter().skip(skipped) {
                    eprintln!("{line}");
                }
                eprintln!("{:?}", options(seed));
                assert!(again.is_ok(), "SEED={seed} cargo test --test simulation {name}");
            }
        }
    }
    eprintln!("{name}: {total:?}");
    total
}

#[test]
fn everything_adds_up() {
    let total = explore("everything_adds_up", 300, usual);
    if environment("SEED").is_none() {
        assert!(total.answered > 0 && total.ran > 0 && total.cuts > 0 && total.copies > 0, "{total:?}");
    }
}

/// The log holds next to nothing: mirrors that lag do not get all effects, and are healed by copies.
#[test]
fn a_tiny_log_drops_effects_and_is_healed() {
    let total = explore("a_tiny_log_drops_effects_and_is_healed", 60, |seed| {
        let mut options = usual(seed);
        options.bounds.log_bytes = 200_000;
        options
    });
    if environment("SEED").is_none() {
        assert!(total.lost > 0 && total.overflows > 0 && total.healed > 0, "{total:?}");
    }
}

/// Commands whose keys nobody knows: what is in doubt of them is healed by a comparison of everything.
#[test]
fn unknown_keys() {
    explore("unknown_keys", 60, |seed| {
        let mut options = usual(seed);
        options.mix.keys_unknown = true;
        options.bounds.max_output = 8 << 20;
        options.databases = if seed % 5 == 1 { 3 } else { redis::DATABASES };
        options
    });
}

/// Data, moments without load, mirrors that come back with all, some or none of what they had.
fn comebacks(seed: u64) -> Options {
    let mut options = usual(seed);
    options.chaos = true;
    options.comebacks = [60, 150, 400][(seed / 2 % 3) as usize];
    options.lulls = [40, 120, 350][(seed / 5 % 3) as usize];
    options.population = [0, 40, 300][(seed % 3) as usize];
    options.mix.population = if seed.is_multiple_of(4) { 0 } else { options.population };
    options.mix.expiring = seed % 6 == 5;
    options.bounds.max_output = 8 << 20;
    options.bounds.log_bytes = if seed % 5 == 1 { 200_000 } else { 64 << 20 };
    options.steps = 500;
    options
}

/// Mirrors restart with all their data, with older data or with none, again and again, under load.
#[test]
fn mirrors_come_back() {
    let total = explore("mirrors_come_back", 100, |seed| {
        let mut options = comebacks(seed);
        options.mix.functions = seed % 4 == 2;
        options.mix.keys_unknown = seed % 7 == 3;
        options.orders = if seed % 5 == 3 { 60 } else { 0 };
        options.modern = [seed % 9 != 4, seed % 6 != 1, true];
        options.no_dump = seed % 11 == 5;
        options
    });
    if environment("SEED").is_none() {
        assert!(total.healed > 0 && total.proofs > 0, "{total:?}");
    }
}

/// The sidecar is killed and started anew, alone and together with mirrors.
#[test]
fn the_sidecar_dies() {
    let total = explore("the_sidecar_dies", 100, |seed| {
        let mut options = comebacks(seed);
        options.deaths = [50, 150][(seed % 2) as usize];
        options.comebacks = [0, 100, 300][(seed / 2 % 3) as usize];
        options.mix.functions = seed % 8 == 2;
        options
    });
    if environment("SEED").is_none() {
        assert!(total.deaths > 0 && total.proofs > 0, "{total:?}");
    }
}

/// The primary restarts with older data or with none, under load: it is filled from its mirror, or the operator takes it
/// as it is.
#[test]
fn the_primary_loses_data() {
    explore("the_primary_loses_data", 40, |seed| {
        let mut options = comebacks(seed);
        options.losses = [60, 150][(seed % 2) as usize];
        options.aof = seed % 5 < 2;
        options.comebacks = if seed % 3 == 1 { 300 } else { 0 };
        options.deaths = if seed % 5 == 2 { 200 } else { 0 };
        options
    });
}

/// Keys are renamed, copied and moved, databases swapped and emptied, while mirrors are repaired.
#[test]
fn keys_move_while_repaired() {
    explore("keys_move_while_repaired", 50, |seed| {
        let mut options = comebacks(seed);
        options.mix.moves = true;
        options.deaths = if seed % 5 == 2 { 200 } else { 0 };
        options.population = [40, 300][(seed % 2) as usize];
        options.mix.population = options.population;
        options
    });
}

/// Mirrors that others write to: nothing of theirs is changed or taken away, what they lack is added, and nobody says that
/// they are equal.
#[test]
fn foreign_data_is_left_alone() {
    explore("foreign_data_is_left_alone", 40, |seed| {
        let mut options = comebacks(seed);
        options.foreign = true;
        options.population = [0, 30][(seed % 2) as usize];
        options.mix.population = options.population;
        options.comebacks = 0;
        options.deaths = if seed % 5 == 2 { 200 } else { 0 };
        options
    });
}

/// Plans come and go while commands are in flight.
#[test]
fn plans_change() {
    explore("plans_change", 60, |seed| {
        let mut options = usual(seed);
        options.routes = plans::Routes::All(2);
        options.reload = true;
        options
    });
}

/// Clients wait for elements and count under WATCH, beside all the others: no element is handed out twice or lost, and no
/// increment is.
fn own(seed: u64) -> Options {
    let mut options = usual(seed);
    options.actors = [3, 6, 9][(seed % 3) as usize];
    options.clients += options.actors;
    options.bounds.op_timeout_ms = [120, 30][(seed % 5 / 4) as usize];
    options
}

#[test]
fn connections_of_their_own() {
    let total = explore("connections_of_their_own", 100, own);
    if environment("SEED").is_none() {
        assert!(total.popped > 0 && total.counted > 0 && total.aborted > 0, "{total:?}");
    }
}

/// The same while mirrors come back and plans change.
#[test]
fn connections_of_their_own_and_other_plans() {
    explore("connections_of_their_own_and_other_plans", 60, |seed| {
        let mut options = own(seed);
        options.comebacks = [0, 150][(seed % 2) as usize];
        if seed % 3 == 1 {
            options.routes = plans::Routes::All(2);
            options.reload = true;
        }
        options
    });
}

/// Keys end while effects that build on them are on their way: `INCR k` just before k expires, applied to a mirror just
/// after, would make a key there that never expires.
#[test]
fn an_effect_on_an_expiring_key() {
    explore("an_effect_on_an_expiring_key", 60, |seed| {
        let mut options = usual(seed);
        options.mix.expiring = true;
        // Mirrors are late for longer than keys live, without losing their connections.
        options.bounds.op_timeout_ms = 600;
        options.calmness = 200;
        options
    });
}
