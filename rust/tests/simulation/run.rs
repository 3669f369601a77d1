//! One run: trouble, then quiet, then the accounts.

use std::sync::atomic::{AtomicBool, Ordering};

use redisha_core::flow::{Action, UNSETTLED};
use serde_json::Value as Json;

use super::actor::Actor;
use super::client::Reading;
use super::compare::{differences, is_left_alone, libraries_differ};
use super::data::{Keys, alive};
use super::death::no_engine_dies;
use super::library::{Libraries, is_marker};
use super::life::Comeback;
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
    /// Effects that were not delivered as such, and healed by copies.
    pub lost: u64,
    pub cuts: u64,
    pub copies: u64,
    pub deaths: u64,
    /// Events of these kinds.
    pub overflows: u64,
    pub healed: u64,
    /// Lulls after which a mirror that was said to be in sync was found to be.
    pub proofs: u64,
    /// Elements given to those who waited, counters counted under WATCH, and EXECs that were not executed.
    pub popped: u64,
    pub counted: u64,
    pub aborted: u64,
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.ran += other.ran;
        self.lost += other.lost;
        self.cuts += other.cuts;
        self.copies += other.copies;
        self.deaths += other.deaths;
        self.overflows += other.overflows;
        self.healed += other.healed;
        self.proofs += other.proofs;
        self.popped += other.popped;
        self.counted += other.counted;
        self.aborted += other.aborted;
    }
}

/// Live through `seed`.
pub fn live(world: &mut World) -> Outcome {
    let mut proofs = 0;
    for _ in 0..world.options.steps {
        step(world);
        let lulls = world.options.lulls;
        if lulls > 0 && world.rng.one_in(lulls) {
            proofs += lull(world);
        }
    }
    calm(world);
    nobody_waits_beside_elements(world);
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
    if world.options.orders > 0 {
        world.engine.resync(NAMES[0], Action::Resume);
    }
    // Also a client's FUNCTION FLUSH may have taken a marker away just before the primary ended.
    if world.options.losses > 0 || world.options.comebacks > 0 {
        rest(world, 15_000_000);
        world.note("the operator takes the primary as it is".into());
        world.engine.resync(NAMES[0], Action::Accept);
    }
    until(world, "all to be drained", |w| w.engine.is_drained());
    until(world, "the mirrors to be equal", is_calm_and_settled);
    if world.options.foreign && world.rng.one_in(2) {
        claim(world);
    }
    // Counters and memory are looked after once in a second.
    rest(world, 4_000_000);
    let mut outcome = account(world);
    outcome.proofs += proofs;
    outcome
}

/// The replicas' statistics.
fn replicas(world: &World) -> Vec<Json> {
    let all: Json =
        serde_json::from_slice(&redisha_core::stats::snapshot(std::slice::from_ref(&world.registry)))
            .unwrap();
    all["replicas"].as_array().unwrap().clone()
}

fn is_calm_and_settled(world: &World) -> bool {
    replicas(world).iter().all(|replica| is_settled(world, replica))
}

/// The operator says that mirrors are nobody else's. That does not take another redisha's primary away from it.
fn claim(world: &mut World) {
    for (mirror, name) in NAMES.iter().enumerate().skip(1) {
        if !world.redises[mirror].libraries.contains_key(&b"redisha_00000000000000ff"[..]) {
            world.claimed[mirror] = true;
        }
        world.note(format!("{name} is claimed"));
        world.engine.resync(name, Action::Full);
    }
    rest(world, 1_000_000);
    until(world, "claimed mirrors to be equal", is_calm_and_settled);
}

/// Whether a replica is in the state in which it may stay.
fn is_settled(world: &World, replica: &Json) -> bool {
    let Options { foreign, databases, mix, bounds, .. } = world.options;
    let foreign = foreign && !world.claimed[mirror_of(replica)];
    match replica["state"].as_str().unwrap() {
        "in_sync" => !foreign,
        "unproven" => foreign,
        // What it cannot have: databases, or what is larger than what may be held.
        "diverged" => databases < DATABASES || (mix.large && bounds.max_output < 1 << 20),
        _ => false,
    }
}

/// The number of a replica's mirror.
fn mirror_of(replica: &Json) -> usize {
    let name = replica["mirror"].as_str().unwrap();
    NAMES.iter().position(|n| name.starts_with(n)).unwrap()
}

/// Time goes by, and nobody asks anything.
fn rest(world: &mut World, us: u64) {
    let end = world.now + us;
    while world.now < end {
        let us = if world.is_busy() { 1_000 } else { 20_000 };
        world.pass(us);
    }
}

/// Nobody asks anything for a while. What is said to be in sync then, is. Gives how many mirrors were.
fn lull(world: &mut World) -> u64 {
    let mut long = 600_000 + world.rng.below(5_000_000);
    if world.rng.one_in(12) {
        long = 75_000_000; // generations end by themselves
    }
    world.note(format!("a lull of {} ms", long / 1_000));
    rest(world, long);
    let now = world.now;
    let away = world.redises.iter().any(|r| r.paused_until > now || r.down_until > now);
    if world.is_busy() || away || world.options.reload {
        return 0;
    }
    let (mut equal, mut all) = (0, 0);
    for replica in replicas(world) {
        all += 1;
        if replica["state"] == "in_sync" && replica["lag"] == 0 {
            expect_equal(world, mirror_of(&replica), "in a lull, said to be in sync");
            equal += 1;
        }
    }
    let exclusive = matches!(world.routes, Routes::All(1..));
    let nobody_waits = world.clients.iter().all(|client| client.waits_for() == 0);
    if world.options.losses > 0 && exclusive && equal == all && nobody_waits && world.rng.one_in(2) {
        lose_nothing(world);
    }
    equal
}

/// A primary that comes back with less than its mirrors have is filled from one: nothing is missing.
fn lose_nothing(world: &mut World) {
    let before = world.redises[0].data();
    let marked = |libraries: &Libraries| -> Libraries {
        libraries.clone().into_iter().filter(|(name, _)| is_marker(name)).collect()
    };
    let comeback = world.rng.pick(&[Comeback::Empty, Comeback::Older]);
    let down = world.rng.below(60_000);
    world.restart(0, comeback, down);
    let (marks, primary) = (marked(&world.redises[0].libraries), &world.redises[0]);
    // Data without a marker may be another's: an operator is asked. What an append-only file lacks since the last marker
    // is not missed.
    let is_strange = marks.is_empty() && primary.dbs.values().any(|keys| !keys.is_empty());
    let is_noticed = !is_strange && (marks != marked(&before.libraries) || !world.options.aof);
    rest(world, 1_000_000);
    if is_strange {
        rest(world, 2_000_000);
        world.note("the operator takes the primary as it is".into());
        world.engine.resync(NAMES[0], Action::Accept);
    }
    until(world, "the primary to be filled", is_calm_and_settled);
    if !is_noticed {
        return;
    }
    let now_ms = primary_time(world);
    let after = &world.redises[0];
    for db in 0..DATABASES {
        let empty = Keys::new();
        let of = |keys| alive(keys, now_ms);
        let (had, has) =
            (of(before.dbs.get(&db).unwrap_or(&empty)), of(after.dbs.get(&db).unwrap_or(&empty)));
        let missing: Vec<_> = had.iter().filter(|(key, item)| has.get(*key) != Some(item)).collect();
        let foreign: Vec<_> = has.iter().filter(|(key, _)| !had.contains_key(*key)).collect();
        let equal = missing.is_empty() && foreign.is_empty();
        assert!(
            equal,
            "the primary was filled with something else in database {db}: {missing:?} {foreign:?}"
        );
    }
    let own = |name: &&Vec<u8>| !is_marker(name);
    let (had, has) = (before.libraries.keys().filter(own), after.libraries.keys().filter(own));
    assert!(had.eq(has), "the primary was filled with other libraries");
    for replica in replicas(world) {
        expect_equal(world, mirror_of(&replica), "after the primary was filled");
    }
}

fn primary_time(world: &World) -> u64 {
    super::tag::EPOCH_MS + world.now / 1_000
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
            let calm = if world.clients[index].actor.is_some() { 150 } else { 1_500 };
            match world.rng.below(calm) {
                0 => world.vanish(index),
                1 => world.close_half(index),
                _ => {}
            }
        }
    }
    if options.chaos {
        trouble(world);
    }
    if options.comebacks > 0 && world.rng.one_in(options.comebacks) {
        let mirror = 1 + world.rng.index(2);
        let comeback = world.rng.pick(&[Comeback::Whole, Comeback::Empty, Comeback::Older, Comeback::Older]);
        let down = world.rng.pick(&[1, 60_000, 600_000]);
        let down = world.rng.below(down);
        world.restart(mirror, comeback, down);
    }
    if options.comebacks > 0 && world.rng.one_in(60) {
        let index = 1 + world.rng.index(2);
        world.redises[index].save();
    }
    if options.deaths > 0 && world.rng.one_in(options.deaths) {
        match world.rng.below(4) {
            0 => world.stop_engine(),
            _ => world.dying = Some(world.rng.below(30) as u32),
        }
    }
    if options.orders > 0 && world.rng.one_in(options.orders) {
        world.give_orders();
    }
    if options.losses > 0 && world.rng.one_in(options.losses) {
        let comeback = world.rng.pick(&[Comeback::Empty, Comeback::Older]);
        let down = world.rng.below(60_000);
        world.restart(0, comeback, down);
    }
    if options.losses > 0 && world.rng.one_in(60) {
        world.redises[0].save();
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
            world.restart(which, Comeback::Whole, down);
        }
        10 => {
            world.redises[which].full_until = soon(world, 50_000);
            world.note(format!("{} is full", NAMES[which]));
        }
        11 if world.options.comebacks > 0 && world.rng.one_in(2) => {
            world.redises[which].read_only_until = soon(world, 100_000);
            world.note(format!("{} is read-only", NAMES[which]));
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
    world.dying = None;
    world.refused_until = [0; 3];
    for redis in &mut world.redises {
        redis.paused_until = 0;
        redis.down_until = 0;
        redis.loading_until = 0;
        redis.full_until = 0;
        redis.read_only_until = 0;
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
            let all: Json =
                serde_json::from_slice(&redisha_core::stats::snapshot(std::slice::from_ref(&world.registry)))
                    .unwrap();
            let (replicas, endpoints) = (&all["replicas"], &all["endpoints"]);
            panic!("waited for {what}; {stuck:?}; {:?}; {replicas} {endpoints}", world.left());
        }
        let us = if world.is_busy() { 1_000 } else { 10_000 };
        world.pass(us);
    }
}

/// Who waits without end for a key that has elements is served; then they go away.
fn nobody_waits_beside_elements(world: &mut World) {
    if world.options.actors == 0 {
        return;
    }
    rest(world, 2_000_000);
    let before = world.redises[0].tries;
    rest(world, 2_000_000);
    let tries = world.redises[0].tries - before;
    assert!(tries < 20, "nothing happens, and those who wait have tried {tries} times");
    for index in 0..world.clients.len() {
        let client = &world.clients[index];
        let Some((db, keys)) = client.actor.as_ref().and_then(Actor::waits_without_end) else { continue };
        if client.vanished || client.closed {
            continue;
        }
        let here =
            |key: &&&str| world.redises[0].dbs.get(&db).is_some_and(|k| k.contains_key(key.as_bytes()));
        let found: Vec<_> = keys.iter().filter(here).collect();
        assert!(found.is_empty(), "c{} waits for {found:?}, which is there", client.name);
        world.vanish(index);
    }
}

/// Everything must add up.
fn account(world: &mut World) -> Outcome {
    let statistics: Json =
        serde_json::from_slice(&redisha_core::stats::snapshot(std::slice::from_ref(&world.registry)))
            .unwrap();
    let sum = |list: &str, name: &str| -> u64 {
        statistics[list].as_array().unwrap().iter().map(|one| one[name].as_u64().unwrap()).sum()
    };
    for client in &world.clients {
        world.never.extend(&client.never);
        world.answered += client.answered;
    }
    world.ledger.account(&world.redises[0]);
    for number in &world.never {
        let ran = world.redises[0].ran.get(number);
        assert!(
            ran.is_none_or(
                |r| matches!(&r.reply, super::value::Value::Error(e) if e.starts_with("EXECABORT"))
            ),
            "t{number} was said not to be sent, and ran"
        );
    }
    let told = |kind: &str| world.told.get(kind).copied().unwrap_or(0);
    let outcome = Outcome {
        answered: world.answered,
        ran: world.redises[0].ran.len() as u64,
        lost: sum("replicas", "lost_total"),
        cuts: world.cuts,
        copies: sum("replicas", "resync_keys_total"),
        deaths: world.crashes,
        overflows: told("overflow"),
        healed: told("healed"),
        proofs: 0,
        popped: world.ledger.popped.len() as u64,
        counted: world.ledger.counted.values().map(|c| c.done).sum(),
        aborted: world.ledger.aborted,
    };
    // A run that fails in another thread drops its tickets while it unwinds.
    let _alone = no_engine_dies();
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
    let Options { mix, bounds, reload, deaths, comebacks, .. } = world.options;
    let all_fits = bounds.log_bytes > 1 << 20 && (!mix.large || bounds.max_output > 1 << 20);
    if !mix.keys_unknown && !reload && all_fits && deaths + comebacks == 0 {
        assert_eq!(outcome.lost, 0, "effects were dropped: {}", statistics["replicas"]);
    }
    for replica in replicas(world) {
        let mirror = mirror_of(&replica);
        assert!(is_settled(world, &replica), "{replica}");
        if world.options.foreign && !world.claimed[mirror] {
            is_left_alone(world, mirror).unwrap_or_else(|why| panic!("{}: {why}", NAMES[mirror]));
        } else {
            expect_equal(world, mirror, "at the end");
        }
        let mut heard = std::collections::BTreeSet::new();
        let published = &world.redises[mirror].published;
        assert!(published.iter().all(|m| heard.insert(m)), "{} heard a message twice", NAMES[mirror]);
    }
    outcome
}

/// Each mirror holds what the primary holds of its keys, but for what cannot be copied to it.
fn expect_equal(world: &World, mirror: usize, when: &str) {
    let Options { databases, mix, bounds, .. } = world.options;
    let most = if mix.large && bounds.max_output < 1 << 20 { 30_000 } else { usize::MAX };
    let found = differences(world, mirror, |db, _, size| db < databases && size < most);
    assert!(found.is_empty(), "{}, {when}, differs from the primary: {found:#?}", NAMES[mirror]);
    if let Some(libraries) = libraries_differ(world, mirror) {
        panic!("{}, {when}, has other {libraries}", NAMES[mirror]);
    }
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
        mix: Mix {
            keys_unknown: false,
            large: seed.is_multiple_of(2),
            expiring: false,
            moves: false,
            functions: false,
            population: 0,
        },
        chaos: seed % 8 != 7,
        rude: seed % 16 != 15,
        reload: false,
        calmness: [700, 300, 1_500][(seed / 3 % 3) as usize],
        databases: DATABASES,
        comebacks: 0,
        deaths: 0,
        orders: 0,
        losses: 0,
        lulls: 0,
        population: 0,
        foreign: false,
        modern: [true; 3],
        no_dump: false,
        aof: true,
        actors: 0,
        steps: 700,
        clients: 5,
    }
}
