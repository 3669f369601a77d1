//! The death of the sidecar, and the one that takes its place.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redisha_core::flow::{Engine, UNSETTLED};
use redisha_core::stats::Registry;

use super::library::is_marker;
use super::plans::plan;
use super::world::World;

/// Held while the tickets of a dead engine are dropped: nobody settles them, and nobody complains.
static TICKETS: Mutex<()> = Mutex::new(());

/// While it is held, no engine dies in another thread.
pub fn no_engine_dies() -> MutexGuard<'static, ()> {
    TICKETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drop an engine as the death of its process would: nothing of it runs but the return of its maps.
fn bury_engine(engine: Engine) {
    let _alone = no_engine_dies();
    let before = UNSETTLED.load(Ordering::Relaxed);
    let died = catch_unwind(AssertUnwindSafe(move || {
        let _dead = engine;
        resume_unwind(Box::new(())); // tickets complain unless their thread panics
    }));
    assert!(died.is_err());
    UNSETTLED.store(before, Ordering::Relaxed);
}

/// What the next engine finds of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    AsTheyWere,
    Nothing,
    Damaged,
    /// Of another boot of the machine.
    OtherBoot,
    /// Some cannot be opened.
    Unusable,
}

impl World {
    /// `kill -9` of the sidecar, and a new one.
    pub fn crash_engine(&mut self) {
        let mut left = match self.rng.below(12) {
            0 => Left::Nothing,
            1 => Left::Damaged,
            2 => Left::OtherBoot,
            3 => Left::Unusable,
            _ => Left::AsTheyWere,
        };
        // What the maps and the primary's marker know between them is not lost with both at once.
        let primary = &self.redises[0];
        if primary.is_modern && !primary.libraries.keys().any(|name| is_marker(name)) {
            left = Left::AsTheyWere;
        }
        self.note(format!("the sidecar dies, its maps: {left:?}"));
        self.crashes += 1;
        // Whoever comes next can end the connections that the maps name, and only those.
        self.replace_engine(left != Left::AsTheyWere || self.shelf.blind);
        self.shelf.blind = left == Left::Unusable;
        match left {
            Left::Nothing => self.shelf.lose(),
            Left::Damaged => self.shelf.damage(&mut self.rng),
            Left::OtherBoot => self.shelf.reboot(&mut self.rng),
            Left::AsTheyWere | Left::Unusable => {}
        }
    }

    /// Another process takes the engine's place. `silent`: nothing that it or one before it wrote
    /// arrives any more.
    pub(super) fn replace_engine(&mut self, silent: bool) {
        let now = self.now;
        self.dying = None;
        self.cuts += 1;
        self.refills.clear();
        if silent {
            self.links.values_mut().for_each(|link| link.up.reset(now));
        }
        for socket in std::mem::take(&mut self.sockets).into_values() {
            let Some(link) = socket.link.and_then(|id| self.links.get_mut(&id)) else { continue };
            // What it had written may still arrive, long after its successor has come.
            if self.rng.one_in(2) {
                link.up.close(now, &mut self.rng);
            } else {
                link.up.cut(now, &mut self.rng);
            }
            link.down.reset(now);
        }
        for socket in std::mem::take(&mut self.sessions).into_values() {
            let client = &mut self.clients[socket.client];
            client.proxy_died();
            client.up.reset(now);
            if self.rng.one_in(2) {
                client.down.close(now, &mut self.rng);
            } else {
                client.down.cut(now, &mut self.rng);
            }
        }
        for list in [&mut self.busy, &mut self.again, &mut self.dirty_sessions] {
            list.clear();
        }
        self.dirty_upstreams.clear();
        self.registry = Arc::new(Registry::default());
        let plan = plan(self.routes, &self.options.bounds, self.generation);
        let seed = self.rng.next();
        let engine = Engine::new(plan, Arc::clone(&self.registry), self.time(), seed);
        bury_engine(std::mem::replace(&mut self.engine, engine));
    }

    /// Whether the sidecar dies here, in the middle of its turn.
    pub(super) fn dies(&mut self) -> bool {
        match &mut self.dying {
            Some(0) => true,
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        }
    }
}
