//! One member: its engine with its sockets, its council, and how it dies.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redisha_core::flow::{Engine, Event, Now, SessionId, UNSETTLED};
use redisha_core::stats::Registry;

use super::council::{Ballot, Council};
use super::maps::Shelf;
use super::plans::{NAMES, plan};
use super::tag;
use super::world::Options;

/// Held while the tickets of a dead engine are dropped: nobody settles them, and nobody complains.
static TICKETS: Mutex<()> = Mutex::new(());

/// While it is held, no engine dies in another thread.
pub fn no_engine_dies() -> MutexGuard<'static, ()> {
    TICKETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drop an engine as the death of its process would: nothing of it runs but the return of its maps.
pub fn bury_engine(engine: Engine) {
    let _alone = no_engine_dies();
    let before = UNSETTLED.load(Ordering::Relaxed);
    let died = catch_unwind(AssertUnwindSafe(move || {
        let _dead = engine;
        resume_unwind(Box::new(())); // tickets complain unless their thread panics
    }));
    assert!(died.is_err());
    UNSETTLED.store(before, Ordering::Relaxed);
}

/// The engine's socket of an upstream.
#[derive(Debug)]
pub struct UpstreamSocket {
    pub epoch: u32,
    pub link: Option<u64>,
    /// When the connect has its outcome, and whether it succeeds.
    pub connecting: Option<(u64, bool)>,
    pub blocked: bool,
    pub dead_after_us: u64,
    /// Since when nothing that was sent arrives.
    pub stuck_since: Option<u64>,
}

/// The engine's socket of a session.
#[derive(Debug)]
pub struct SessionSocket {
    pub id: SessionId,
    pub link: u64,
    pub readable: bool,
    /// What had arrived when the last event came.
    pub seen: u64,
    pub seen_end: bool,
    pub blocked: bool,
}

/// The member.
pub struct Member {
    pub index: usize,
    /// `None`: its sidecar is dead.
    pub engine: Option<Engine>,
    pub registry: Arc<Registry>,
    pub shelf: Shelf,
    pub council: Council,
    pub events: VecDeque<Event>,
    /// Members whose own writes the control plane looks at, and until when (microseconds).
    pub merges: Vec<(u64, String)>,
    pub sockets: BTreeMap<usize, UpstreamSocket>,
    pub sessions: BTreeMap<u32, SessionSocket>,
    pub busy: Vec<SessionId>,
    pub again: Vec<SessionId>,
    pub dirty_sessions: Vec<SessionId>,
    pub dirty_upstreams: Vec<usize>,
    /// It does nothing until then (microseconds), and notices nothing.
    pub frozen_until: u64,
    /// Its dead sidecar is started then.
    pub back_at: u64,
    /// Its clock of this boot, and its clock of the world, are ahead by so many microseconds.
    pub base_us: u64,
    pub skew_us: u64,
}

impl Member {
    pub fn new(options: &Options, index: usize, seed: u64, skew_us: u64) -> Self {
        let base_us = 1_000 + index as u64 * 7_777_000;
        let mut member = Self {
            index,
            engine: None,
            registry: Arc::default(),
            shelf: Shelf::default(),
            council: Council::new(NAMES[index], options.members, options.consistent, Ballot::default(), 0),
            events: VecDeque::new(),
            merges: Vec::new(),
            sockets: BTreeMap::new(),
            sessions: BTreeMap::new(),
            busy: Vec::new(),
            again: Vec::new(),
            dirty_sessions: Vec::new(),
            dirty_upstreams: Vec::new(),
            frozen_until: 0,
            back_at: 0,
            base_us,
            skew_us,
        };
        member.start(options, 0, seed);
        member
    }

    /// A new process.
    pub fn start(&mut self, options: &Options, now: u64, seed: u64) {
        self.registry = Arc::default();
        let plan = plan(options, self.index);
        self.engine = Some(Engine::new(plan, Arc::clone(&self.registry), self.time(now), seed));
        let ballot = self.council.ballot.clone();
        self.council =
            Council::new(NAMES[self.index], options.members, options.consistent, ballot, now / 1_000);
        self.events.clear();
        self.merges.clear();
    }

    /// Its clocks.
    pub fn time(&self, now: u64) -> Now {
        let us = now + self.base_us;
        Now { us, ms: us / 1_000, unix_ms: tag::EPOCH_MS + (now + self.skew_us) / 1_000 }
    }

    pub fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("its sidecar lives")
    }
}
