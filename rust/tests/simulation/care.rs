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
}

impl World {
    /// The engine wants `P -> M`: P is to get what M has.
    pub(super) fn refill(&mut self, subject: &str) {
        let Some((primary, mirror)) = subject.split_once(" -> ") else { return };
        let mirror = NAMES.iter().position(|name| mirror.starts_with(name)).unwrap();
        let at = self.now + self.rng.below(400_000);
        self.refills.push(Refill { primary: primary.to_owned(), mirror, at });
    }

    /// The control plane's copying comes to its end.
    pub(super) fn run_refills(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.refills).into_iter().partition(|refill| refill.at <= now);
        self.refills = later;
        let due: Vec<Refill> = due;
        for Refill { primary, mirror, .. } in due {
            let is_up = |redis: &Redis| {
                [redis.down_until, redis.loading_until, redis.paused_until].iter().all(|t| *t <= now)
            };
            let ok = is_up(&self.redises[0]) && is_up(&self.redises[mirror]) && !self.rng.one_in(8);
            self.note(format!("{primary} is filled from {}: {ok}", NAMES[mirror]));
            if ok {
                let (ours, theirs) = self.redises.split_at_mut(mirror);
                fill(&mut ours[0], &theirs[0]);
            }
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

/// Copy everything from a mirror, and delete what it does not have.
fn fill(primary: &mut Redis, mirror: &Redis) {
    const MARKERS: &[u8] = b"redisha:markers";
    let highest = primary.databases - 1;
    let markers = primary.dbs.get(&highest).and_then(|keys| keys.get(MARKERS)).cloned();
    primary.dbs = mirror.dbs.clone();
    for keys in primary.dbs.values_mut() {
        keys.remove(MARKERS);
    }
    if let Some(item) = markers {
        primary.dbs.entry(highest).or_default().insert(MARKERS.to_vec(), item);
    }
    primary.libraries.retain(|name, _| is_marker(name));
    let theirs = mirror.libraries.iter().filter(|(name, _)| !is_marker(name));
    primary.libraries.extend(theirs.map(|(name, code)| (name.clone(), code.clone())));
}
