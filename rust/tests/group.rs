//! A seeded simulation of a whole group: two, three or five members, each with an engine and a shadow Redis of its own;
//! clients at every member; a model of the control plane that elects leaders.
//!
//! ```text
//! clients ══▶ engine a ◀══ CALL, STREAM, BEAT ══▶ engine b ◀══ clients        council: a model of redisha.failover for
//!                ║                                   ║                        each member; it sees the group's snapshot,
//!             Redis a                             Redis b                     and asks the others' through the engines
//! ```
//!
//! Trouble comes at random: Redis servers and sidecars die, links are cut and members parted, one-way and two-way, the
//! leadership is handed over. Then all is quiet and everything must add up, see `account.rs`.
//!
//! `PLAIN=1` leaves transactions and `SELECT` out. `SEEDS=n` runs more seeds from `FROM=n` on, `SEED=n` one, with its trace (`LINES=n`: its last lines), `ALL=1` goes on after seeds that
//! fail. A run depends on its seed alone.

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
    clippy::many_single_char_names,
    clippy::collapsible_if,
    clippy::match_same_arms,
    clippy::unused_self,
    clippy::items_after_statements,
    clippy::manual_is_multiple_of,
    reason = "a test that panics has found something"
)]
#![allow(dead_code, reason = "modules of the other simulation are used in part")]

#[path = "group/account.rs"]
mod account;
#[path = "group/client.rs"]
mod client;
#[path = "simulation/commands.rs"]
mod commands;
#[path = "group/council.rs"]
mod council;
#[path = "simulation/data.rs"]
mod data;
#[path = "group/insync.rs"]
mod insync;
#[path = "simulation/library.rs"]
mod library;
#[path = "simulation/life.rs"]
mod life;
#[path = "group/linear.rs"]
mod linear;
#[path = "simulation/maps.rs"]
mod maps;
#[path = "group/member.rs"]
mod member;
#[path = "simulation/pipe.rs"]
mod pipe;
#[path = "group/plans.rs"]
mod plans;
#[path = "simulation/redis.rs"]
mod redis;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "group/run.rs"]
mod run;
#[path = "simulation/scan.rs"]
mod scan;
#[path = "group/script.rs"]
mod script;
#[path = "group/shell.rs"]
mod shell;
#[path = "simulation/tag.rs"]
mod tag;
#[path = "simulation/value.rs"]
mod value;
#[path = "group/view.rs"]
mod view;
#[path = "group/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use run::{Outcome, live};
use script::Mix;
use world::{Options, World};

fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Live through the seeds; the first that fails is lived through again, with a trace.
fn explore(name: &str, count: u64, options: impl Fn(u64) -> Options) -> Outcome {
    let one = environment("SEED");
    let from = environment("FROM").unwrap_or(0);
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => from..from + environment("SEEDS").unwrap_or(count),
    };
    let mut total = Outcome::default();
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| live(&mut World::new(seed, options(seed), false))));
        match result {
            Ok(outcome) if one.is_none() => total += outcome,
            Err(why) if one.is_none() && environment("ALL").is_some() => {
                account::FAILED.store(true, Ordering::Relaxed);
                let why = match why.downcast_ref::<&str>() {
                    Some(text) => text,
                    None => why.downcast_ref::<String>().map_or("", String::as_str),
                };
                let line = why.lines().collect::<Vec<_>>().join(" ");
                eprintln!("SEED={seed} {name}: {}", line.get(..600).unwrap_or(&line));
            }
            _ => {
                account::FAILED.store(true, Ordering::Relaxed);
                let mut world = World::new(seed, options(seed), true);
                let again = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
                let trace = world.trace.take().unwrap_or_default();
                let shown = environment("LINES").unwrap_or(if one.is_some() { u64::MAX } else { 120 });
                let skipped = trace.len().saturating_sub(shown.min(1 << 40) as usize);
                for line in trace.iter().skip(skipped) {
                    eprintln!("{line}");
                }
                eprintln!("{:?}", options(seed));
                assert!(again.is_ok(), "SEED={seed} cargo test --release --test group {name}");
            }
        }
    }
    eprintln!("{name}: {total:?}");
    total
}

/// Options in which nothing goes wrong.
fn calm(members: usize, seed: u64) -> Options {
    Options {
        members,
        consistent: false,
        mix: Mix { expiring: seed % 3 == 1, moves: seed % 4 == 2, sets: true, registers_only: false },
        plain: environment("PLAIN").is_some(),
        levels: true,
        steps: 1_200,
        clients: 4,
        calmness: 0,
        cuts: 0,
        own_cuts: 0,
        vanishing: 0,
        redis_deaths: 0,
        losses: false,
        sidecar_deaths: 0,
        maps_lost: false,
        whole_deaths: 0,
        hand_overs: 0,
        partitions: 0,
        freezes: 0,
        skew_ms: if seed % 5 == 3 { 200 } else { 0 },
        lulls: 150,
        min_in_sync: 1,
    }
}

/// Links are cut, clients vanish, Redis servers restart with what they had, the leadership changes.
fn usual_life_of_two_options(seed: u64) -> Options {
    Options {
        cuts: 120,
        own_cuts: 200,
        vanishing: 100,
        redis_deaths: if seed % 2 == 0 { 400 } else { 0 },
        hand_overs: if seed % 3 == 0 { 300 } else { 0 },
        ..calm(2, seed)
    }
}

#[test]
fn usual_life_of_two() {
    explore("usual_life_of_two", 30, usual_life_of_two_options);
}

#[test]
fn usual_life_of_two_plainly() {
    explore("usual_life_of_two_plainly", 30, |seed| Options {
        plain: true,
        ..usual_life_of_two_options(seed)
    });
}

/// Redis servers restart with all, some or none of their data.
fn redis_servers_die_options(seed: u64) -> Options {
    Options {
        redis_deaths: [100, 250][(seed % 2) as usize],
        own_cuts: if seed % 4 == 3 { 150 } else { 0 },
        losses: seed % 3 != 0 && seed % 4 != 3,
        consistent: seed % 5 == 4,
        ..calm(if seed % 5 == 4 { 3 } else { 2 + (seed / 2 % 2) as usize }, seed)
    }
}

#[test]
fn redis_servers_die() {
    explore("redis_servers_die", 30, redis_servers_die_options);
}

#[test]
fn redis_servers_die_plainly() {
    explore("redis_servers_die_plainly", 30, |seed| Options {
        plain: true,
        ..redis_servers_die_options(seed)
    });
}

/// The leadership is handed over again and again.
fn hand_overs_options(seed: u64) -> Options {
    Options {
        hand_overs: [60, 150][(seed % 2) as usize],
        cuts: if seed % 3 == 2 { 200 } else { 0 },
        consistent: seed % 4 == 3,
        ..calm(if seed % 4 == 3 { 3 } else { 2 + (seed / 2 % 2) as usize }, seed)
    }
}

#[test]
fn hand_overs() {
    explore("hand_overs", 30, hand_overs_options);
}

#[test]
fn hand_overs_plainly() {
    explore("hand_overs_plainly", 30, |seed| Options { plain: true, ..hand_overs_options(seed) });
}

/// Sidecars are killed and started anew.
fn sidecars_die_options(seed: u64) -> Options {
    Options {
        sidecar_deaths: [150, 300][(seed % 2) as usize],
        maps_lost: seed % 3 == 1,
        redis_deaths: if seed % 4 == 2 { 300 } else { 0 },
        whole_deaths: if seed % 4 == 3 { 400 } else { 0 },
        freezes: if seed % 5 == 0 { 200 } else { 0 },
        ..calm(2 + (seed / 2 % 2) as usize, seed)
    }
}

#[test]
fn sidecars_die() {
    explore("sidecars_die", 30, sidecars_die_options);
}

#[test]
fn sidecars_die_plainly() {
    explore("sidecars_die_plainly", 30, |seed| Options { plain: true, ..sidecars_die_options(seed) });
}

/// Two members that cannot hear each other, and both take writes.
fn partitions_available_options(seed: u64) -> Options {
    Options { partitions: 150, freezes: if seed % 4 == 1 { 200 } else { 0 }, ..calm(2, seed) }
}

#[test]
fn partitions_available() {
    explore("partitions_available", 30, partitions_available_options);
}

#[test]
fn partitions_available_plainly() {
    explore("partitions_available_plainly", 30, |seed| Options {
        plain: true,
        ..partitions_available_options(seed)
    });
}

/// Three members, of which a majority leads; what a quorum acknowledged is never missing.
fn partitions_consistent_options(seed: u64) -> Options {
    Options {
        consistent: true,
        partitions: 120,
        cuts: if seed % 2 == 1 { 150 } else { 0 },
        sidecar_deaths: if seed % 3 == 2 { 300 } else { 0 },
        redis_deaths: if seed % 4 == 3 { 300 } else { 0 },
        losses: seed % 8 == 3,
        freezes: if seed % 5 == 1 { 200 } else { 0 },
        min_in_sync: 1 + (seed % 2) as usize,
        ..calm(3, seed)
    }
}

#[test]
fn partitions_consistent() {
    explore("partitions_consistent", 30, partitions_consistent_options);
}

#[test]
fn partitions_consistent_plainly() {
    explore("partitions_consistent_plainly", 30, |seed| Options {
        plain: true,
        ..partitions_consistent_options(seed)
    });
}

/// Five members, with a bit of everything.
fn five_members_options(seed: u64) -> Options {
    Options {
        consistent: seed % 2 == 0,
        partitions: if seed % 3 == 0 { 150 } else { 0 },
        cuts: 120,
        own_cuts: 250,
        redis_deaths: if seed % 3 == 1 { 250 } else { 0 },
        sidecar_deaths: if seed % 3 == 2 { 250 } else { 0 },
        hand_overs: 300,
        ..calm(5, seed)
    }
}

#[test]
fn five_members() {
    explore("five_members", 12, five_members_options);
}

#[test]
fn five_members_plainly() {
    explore("five_members_plainly", 12, |seed| Options { plain: true, ..five_members_options(seed) });
}

/// Reads by the leader and writes of a quorum: each key behaves like one register.
#[test]
fn registers_are_linearizable() {
    explore("registers_are_linearizable", 30, |seed| Options {
        consistent: true,
        mix: Mix { expiring: false, moves: false, sets: false, registers_only: true },
        partitions: if seed % 2 == 0 { 80 } else { 0 },
        cuts: if seed % 3 == 0 { 120 } else { 0 },
        freezes: if seed % 3 == 1 { 120 } else { 0 },
        redis_deaths: if seed % 4 == 1 { 250 } else { 0 },
        sidecar_deaths: if seed % 4 == 2 { 250 } else { 0 },
        hand_overs: if seed % 4 == 3 { 150 } else { 0 },
        clients: 6,
        lulls: 0,
        ..calm(3, seed)
    });
}
