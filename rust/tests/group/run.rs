//! One run: trouble, then quiet, then the accounts.

use super::account::{account, differences};
use super::client::may_ask;
use super::library::is_marker;
use super::life::Comeback;
use super::plans::{NAMES, TIMEOUT_MS};
use super::view::Snapshot;
use super::world::{From, To, World, say};

/// Longest wait for an end that must come, in microseconds of simulated time.
const PATIENCE: u64 = 40_000_000;

/// What a run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub runs: u64,
    pub asked: u64,
    pub counts: std::collections::BTreeMap<&'static str, u64>,
    /// Lulls after which a replica that was said to be in sync was found to be.
    pub proofs: u64,
    /// From the end of trouble until all were equal, in milliseconds: the longest.
    pub longest_ms: u64,
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.asked += other.asked;
        self.proofs += other.proofs;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
        for (what, n) in other.counts {
            *self.counts.entry(what).or_default() += n;
        }
    }
}

/// Live through `seed`.
pub fn live(world: &mut World) -> Outcome {
    let mut proofs = 0;
    until(world, "the first leader", |w| w.leader().is_some());
    let warm = world.rng.one_in(2);
    if warm {
        until(world, "all to be in sync", |w| in_sync(w).is_some());
    }
    for _ in 0..world.options.steps {
        step(world);
        let lulls = world.options.lulls;
        if lulls > 0 && world.rng.one_in(lulls) {
            proofs += lull(world);
        }
    }
    world.make_calm();
    let began = world.now;
    until(world, "clients to be answered", |w| w.clients.iter().all(|c| c.waits_for() == 0));
    until(world, "all to be in sync", |w| in_sync(w).is_some());
    let longest_ms = (world.now - began) / 1_000;
    rest(world, 1_500_000);
    until(world, "all to be in sync still", |w| in_sync(w).is_some());
    rest(world, 100_000);
    let leader = in_sync(world).expect("all to be in sync");
    account(world, leader);
    Outcome {
        runs: 1,
        asked: world.history.len() as u64,
        counts: std::mem::take(&mut world.counts),
        proofs,
        longest_ms,
    }
}

pub fn snapshots(world: &World) -> Vec<Option<Snapshot>> {
    world
        .members
        .iter()
        .map(|m| m.as_ref().filter(|m| m.engine.is_some()).and_then(|m| Snapshot::read(&m.registry.group())))
        .collect()
}

/// Who leads, if everybody agrees, has everything, and nothing waits.
fn in_sync(world: &World) -> Option<usize> {
    let all = snapshots(world);
    let leader = world.leader()?;
    let lead = all[leader].as_ref()?;
    let agreed = all.iter().all(|one| {
        one.as_ref().is_some_and(|s| {
            s.me.term == lead.me.term
                && s.me.leader == NAMES[leader]
                && s.me.data == "complete"
                && s.waiting == 0
        })
    });
    let equal = lead.peers.iter().all(|p| p.replica == "in_sync" && p.caught_up && p.counted);
    (agreed && equal && !lead.yielding && !lead.lost).then_some(leader)
}

/// Time goes by, and nobody asks anything.
fn rest(world: &mut World, us: u64) {
    let end = world.now + us;
    while world.now < end {
        let us = if world.is_busy() { 1_000 } else { 5_000 };
        world.pass(us);
    }
}

fn until(world: &mut World, what: &str, done: impl Fn(&World) -> bool) {
    let deadline = world.now + PATIENCE;
    let mut look = 0;
    loop {
        if world.now >= look {
            if done(world) {
                return;
            }
            look = world.now + 10_000;
        }
        if world.now > deadline {
            let stuck: Vec<String> = world
                .clients
                .iter()
                .filter(|c| c.waits_for() > 0)
                .map(|c| format!("c{} at {} waits for {}", c.name, NAMES[c.member], c.next_expected()))
                .collect();
            let groups: Vec<String> = world
                .members
                .iter()
                .flatten()
                .map(|m| {
                    let all: serde_json::Value = serde_json::from_slice(&redisha_core::stats::snapshot(
                        std::slice::from_ref(&m.registry),
                    ))
                    .unwrap();
                    format!("{}\n   {}\n   {}", m.registry.group(), all["replicas"], all["endpoints"])
                })
                .collect();
            panic!("waited for {what}; {stuck:?}\n{}", groups.join("\n"));
        }
        let us = if world.is_busy() { 1_000 } else { 5_000 };
        world.pass(us);
    }
}

/// Nobody asks anything for a while. What is said to be in sync then, is. Gives how many were.
fn lull(world: &mut World) -> u64 {
    let long = 100_000 + world.rng.below(1_500_000);
    say!(world, "a lull of {} ms", long / 1_000);
    rest(world, long);
    let now = world.now;
    let away = world.redises.iter().any(|r| r.paused_until > now || r.down_until > now)
        || world.blocked.iter().flatten().any(|until| *until > now)
        || world.members.iter().flatten().any(|m| m.frozen_until > now || m.engine.is_none());
    if away || world.is_busy() || world.clients.iter().any(|c| c.waits_for() > 0) {
        return 0;
    }
    let all = snapshots(world);
    if all.iter().flatten().filter(|s| s.me.leads).count() != 1 {
        return 0;
    }
    let Some(leader) = world.leader() else { return 0 };
    let Some(lead) = all[leader].as_ref().filter(|s| !s.lost && s.me.data == "complete") else { return 0 };
    let mut proofs = 0;
    for peer in lead.peers.iter().filter(|p| p.replica == "in_sync" && p.caught_up && p.counted) {
        let Some(other) = NAMES.iter().position(|n| *n == peer.status.member) else { continue };
        let found = differences(world, leader, other);
        assert!(
            found.is_empty(),
            "{} and {}, said to be in sync, differ in a lull: {found:#?}",
            NAMES[leader],
            NAMES[other]
        );
        proofs += 1;
    }
    proofs
}

fn step(world: &mut World) {
    let options = world.options;
    let dt = match world.rng.below(40) {
        0 => 1 + world.rng.below(30_000),
        1..=9 => 1 + world.rng.below(5_000),
        _ => 1 + world.rng.below(1_000),
    };
    while world.clients.len() < options.clients {
        let before = world.clients.len();
        world.welcome();
        if world.clients.len() == before {
            break;
        }
    }
    let once_in = if options.mix.registers_only { 4 } else { 8 };
    for at in 0..world.clients.len() {
        let waits = world.clients[at].waits_for();
        if options.mix.registers_only && waits > 0 {
            continue;
        }
        if may_ask(&world.clients[at], &mut world.rng, once_in) {
            world.ask(at);
        }
    }
    trouble(world);
    world.pass(dt);
}

fn happens(world: &mut World, once_in: u64) -> bool {
    once_in > 0 && world.rng.one_in(once_in)
}

fn trouble(world: &mut World) {
    let options = world.options;
    let n = options.members;
    let now = world.now;
    if happens(world, options.cuts) {
        let ids: Vec<u64> = world
            .links
            .iter()
            .filter(|(_, l)| {
                matches!((l.from, l.to), (From::Member(_), To::Member(_))) && !l.from_gone && !l.to_gone
            })
            .map(|(id, _)| *id)
            .collect();
        if !ids.is_empty() {
            let id = world.rng.pick(&ids);
            world.cut(id);
        }
    }
    if happens(world, options.own_cuts) {
        let ids: Vec<u64> = world
            .links
            .iter()
            .filter(|(_, l)| matches!(l.to, To::Redis(..)) && !l.from_gone && !l.to_gone)
            .map(|(id, _)| *id)
            .collect();
        if !ids.is_empty() {
            let id = world.rng.pick(&ids);
            world.cut(id);
        }
    }
    if happens(world, options.vanishing) && !world.clients.is_empty() {
        let at = world.rng.index(world.clients.len());
        world.vanish(at);
        world.clients.retain(|c| !c.closed);
    }
    if happens(world, options.calmness) {
        let index = world.rng.index(n);
        let long = world.rng.pick(&[20_000, 100_000, 2 * TIMEOUT_MS * 1_000]);
        world.redises[index].paused_until = now + world.rng.below(long);
        say!(world, "redis {} pauses", NAMES[index]);
    }
    if happens(world, options.redis_deaths) {
        let index = victim(world);
        let mut comeback = Comeback::Whole;
        if options.losses && others_have_all(world, index) {
            comeback = world.rng.pick(&[Comeback::Whole, Comeback::Older, Comeback::Empty]);
        }
        let most = world.rng.pick(&[1, 60_000, 600_000]);
        let down = world.rng.below(most);
        world.restart_redis(index, comeback, down);
    }
    if options.losses && world.rng.one_in(60) {
        let index = world.rng.index(n);
        let marked = world.redises[index]
            .libraries
            .iter()
            .any(|(name, code)| is_marker(name) && String::from_utf8_lossy(code).contains("data=complete"));
        if marked {
            world.redises[index].save();
        }
    }
    if happens(world, options.sidecar_deaths) {
        let index = victim(world);
        let most = world.rng.pick(&[1, TIMEOUT_MS * 1_000, 4 * TIMEOUT_MS * 1_000]);
        let down = world.rng.below(most);
        let lose = options.maps_lost && world.rng.one_in(3);
        world.kill_sidecar(index, down, lose);
    }
    if happens(world, options.whole_deaths) {
        let index = victim(world);
        if others_have_all(world, index) {
            let down = world.rng.below(4 * TIMEOUT_MS * 1_000);
            world.kill_sidecar(index, down, true);
            world.restart_redis(index, Comeback::Empty, down / 2);
        }
    }
    if happens(world, options.hand_overs)
        && let Some(leader) = world.leader()
    {
        world.count("hand-overs");
        say!(world, "{} is to hand over", NAMES[leader]);
        world.member(leader).council.wants_hand_over = true;
    }
    if happens(world, options.partitions) {
        world.part();
    }
    if happens(world, options.freezes) {
        let index = victim(world);
        let long = world.rng.below(4 * TIMEOUT_MS * 1_000);
        say!(world, "sidecar {} is stopped for {} ms", NAMES[index], long / 1_000);
        world.count("freezes");
        let until = now + long;
        world.member(index).frozen_until = until;
    }
}

/// The leader more often than others.
fn victim(world: &mut World) -> usize {
    let any = world.rng.index(world.options.members);
    if world.rng.one_in(2) { world.leader().unwrap_or(any) } else { any }
}

/// Whether all that this member's Redis has is on the others', too, and they are well.
fn others_have_all(world: &World, index: usize) -> bool {
    let now = world.now;
    let well = (0..world.options.members).filter(|i| *i != index).all(|i| {
        world.lives(i) && world.redises[i].down_until <= now && world.redises[i].paused_until <= now
    });
    let all = snapshots(world);
    let Some(leader) = world.leader() else { return false };
    let Some(lead) = &all[leader] else { return false };
    let many = lead.peers.iter().filter(|p| p.status.member != NAMES[index]);
    let recorded = world.members[leader]
        .as_ref()
        .is_some_and(|m| m.council.has_recorded(&NAMES[..world.options.members]));
    recorded
        && well
        && many.clone().all(|p| p.counted && p.replica == "in_sync" && p.status.data == "complete")
        && !lead.lost
        && all.iter().flatten().all(|s| s.me.term == lead.me.term && s.me.leader == NAMES[leader])
}
