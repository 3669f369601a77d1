//! A seeded simulation of the engine with everything around it: clients, a primary, mirrors, the network, time.
//!
//! ```text
//! clients ══pipes══▶ World::turn (the worker's loop) ─▶ Engine ─▶ ══pipes══▶ shadow Redis (primary, mirrors)
//!    │                                                                            │
//!    └──────────── each answer is compared with what the primary answered ◀───────┘
//! ```
//!
//! Trouble happens at random: bytes come in pieces and late, connections are cut with bytes on their way, servers pause,
//! restart, fill up, clients vanish or do not read. Then all is quiet, and everything must add up, see `run.rs`.
//!
//! `SEEDS=n` runs more seeds, `SEED=n` one, with its trace. A run depends on its seed alone.

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

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/commands.rs"]
mod commands;
#[path = "simulation/data.rs"]
mod data;
#[path = "simulation/pipe.rs"]
mod pipe;
#[path = "simulation/plans.rs"]
mod plans;
#[path = "simulation/redis.rs"]
mod redis;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/run.rs"]
mod run;
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
            Ok(outcome) if one.is_none() => {
                total.answered += outcome.answered;
                total.ran += outcome.ran;
                total.lost += outcome.lost;
                total.cuts += outcome.cuts;
                total.copies += outcome.copies;
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

/// The log holds next to nothing: mirrors that lag lose effects, and say so; nothing else suffers.
#[test]
fn a_tiny_log_loses_effects_and_says_so() {
    let total = explore("a_tiny_log_loses_effects_and_says_so", 60, |seed| {
        let mut options = usual(seed);
        options.bounds.log_bytes = 200_000;
        options
    });
    if environment("SEED").is_none() {
        assert!(total.lost > 0, "{total:?}");
    }
}

/// Commands whose keys nobody knows: what is in doubt of them is lost, and said to be.
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

/// A known gap (DESIGN section 6, "expiry races", is not built yet): `INCR k` just before k expires, applied to a mirror
/// just after, makes a key there that never expires.
#[test]
#[ignore = "a known gap: effects on keys about to expire are not followed by their expiry yet"]
fn an_effect_on_an_expiring_key() {
    explore("an_effect_on_an_expiring_key", 60, |seed| {
        let mut options = usual(seed);
        options.mix.expiring = true;
        options
    });
}
