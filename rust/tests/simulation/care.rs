//! What is done for the engine from outside: the control plane fills a primary from its mirror, an operator gives orders,
//! redisha is stopped in order.

use redisha_core::flow::Action;

use super::library::is_marker;
use super::plans::NAMES;
use super::redis::Redis;
use super::world::World;

/// A primary that waits to be filled.
#[derive(Debug)]
pub struct Refill {
    /// Its name, as the engine has it.
    primary: String,
    mirror: usize,
    /// When the copying ends.
    at: u64,
    /// The processes of both.
    runs: [u64; 2],
}

impl World {
    /// The engine wants `P -> M`: P is to get what M has.
    pub(super) fn refill(&mut self, subject: &str) {
        let Some((primary, mirror)) = subject.split_once(" -> ") else { return };
        let mirror = NAMES.iter().position(|name| mirror.starts_with(name)).unwrap();
        let at = self.now + self.rng.below(400_000);
        let runs = [0, mirror].map(|index: usize| self.redises[index].runs());
        self.refills.retain(|refill| refill.primary != primary); // one that runs already begins anew
        self.refills.push(Refill { primary: primary.to_owned(), mirror, at, runs });
    }

    /// The control plane's copying comes to its end.
    pub(super) fn run_refills(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.refills).into_iter().partition(|refill| refill.at <= now);
        self.refills = later;
        let due: Vec<Refill> = due;
        for Refill { primary, mirror, runs, .. } in due {
            let is_up = |redis: &Redis| {
                [redis.down_until, redis.loading_until, redis.paused_until].iter().all(|t| *t <= now)
            };
            let fails = self.rng.one_in(8);
            let (ours, theirs) = self.redises.split_at_mut(mirror);
            let (ours, theirs) = (&mut ours[0], &theirs[0]);
            let ok = is_up(ours) && is_up(theirs) && [ours.runs(), theirs.runs()] == runs && !fails;
            if is_up(ours) {
                fill(ours, theirs, !ok);
            }
            self.note(format!("{primary} is filled from {}: {ok}", NAMES[mirror]));
            self.engine.refilled(&primary, ok);
        }
    }

    /// An operator does something.
    pub fn give_orders(&mut self) {
        let action =
            self.rng.pick(&[Action::Start, Action::Start, Action::Full, Action::Pause, Action::Resume]);
        // A claim is for mirrors that are nobody else's.
        let action = if self.options.foreign && action == Action::Full { Action::Start } else { action };
        let cluster = self.rng.pick(&NAMES);
        self.note(format!("the operator says {action:?} of {cluster}"));
        self.engine.resync(cluster, action);
    }

    /// `redisha` is stopped and started again; perhaps with its machine.
    pub fn stop_engine(&mut self) {
        self.note("the sidecar is stopped in order".into());
        self.engine.abandon();
        self.engine.close_maps();
        self.write_sessions();
        self.replace_engine(false);
        if self.rng.one_in(2) {
            self.note("its machine starts anew".into());
            self.shelf.boot = [self.rng.next() as u8; 16];
        }
    }
}

/// Copy everything from a mirror, and delete what it does not have; or no more than a part of that.
fn fill(primary: &mut Redis, mirror: &Redis, in_part: bool) {
    const MARKERS: &[u8] = b"redisha:markers";
    let mut rng = primary.rng.fork();
    let mut is_left = |key: &[u8]| key == MARKERS || (in_part && rng.one_in(2));
    for db in 0..primary.databases {
        let theirs = mirror.dbs.get(&db).cloned().unwrap_or_default();
        let ours = primary.dbs.entry(db).or_default();
        ours.retain(|key, _| theirs.contains_key(key) || is_left(key));
        ours.extend(theirs.into_iter().filter(|(key, _)| !is_left(key)));
    }
    primary.libraries.retain(|name, _| is_marker(name) || mirror.libraries.contains_key(name));
    let theirs = mirror.libraries.iter().filter(|(name, _)| !is_marker(name) && !is_left(name));
    primary.libraries.extend(theirs.map(|(name, code)| (name.clone(), code.clone())));
}
