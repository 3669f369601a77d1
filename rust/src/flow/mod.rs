//! The sans-io middle: bytes and time go in, bytes and intents come out. No socket, no clock, no thread, no Python.
//!
//! ```text
//!        session_bytes                                            outgoing(upstream)
//! client ────────────▶ ingress ─▶ local (HELLO, PING, CLIENT …)   ▲
//!                         │        transaction (MULTI … EXEC)     │
//!                         └──────▶ forward ─▶ Call + bytes ───────┘          ─▶ Redis
//!                                     │  on a mirrored endpoint: log entry, pending
//!                                     ▼
//! client ◀─ Session::answer ◀──── replies ◀──────────────────── upstream_bytes ◀─ Redis
//!                                     │  log entry committed with its effect
//!                                     ▼
//!                                  mirror ─▶ replicas (cursor into the log) ─▶ mirror's Redis
//! ```
//!
//! [`Engine`] owns all of it. The worker (its shell) calls `session_*` and `upstream_*` with what the sockets gave, `tick`
//! with the time, and then writes what [`Engine::take_dirty_sessions`] and [`Engine::take_dirty_upstreams`] name.

mod abroad;
mod apply;
mod attempt;
mod backoff;
mod barrier;
mod beat;
mod blocked;
mod buffers;
mod busy;
mod call;
mod client;
mod commit;
mod connection;
mod copy;
mod crossroute;
mod cursor;
mod dirty;
pub mod effect;
mod ends;
mod expiring;
mod expiry;
mod forward;
mod functions;
mod gate;
mod generation;
mod group;
mod handover;
mod handshake;
mod info;
mod ingress;
mod journal;
mod judge;
mod keys;
mod late;
mod local;
mod log;
mod look;
mod maps;
mod mark;
mod marker;
mod merge;
mod mirror;
mod orders;
mod outgoing;
mod own_redis;
mod pace;
mod part;
mod pattern;
mod pause;
mod peer;
mod place;
mod private;
mod proof;
mod redirect;
mod repair;
mod replica;
mod replicate;
mod replies;
mod resend;
mod resync;
mod sample;
mod scan;
mod seat;
mod sequencer;
mod session;
mod spare;
mod split;
mod store;
mod stray;
mod subscribe;
mod ticket;
mod tracking;
mod transaction;
mod turns;
mod unblock;
mod upkeep;
mod upstream;
mod wait;
mod watch;

use std::io::IoSlice;
use std::num::NonZeroU32;
use std::sync::Arc;

use slab::Slab;

use crate::plan::{Address, Limits, Plan};
use crate::resp::RequestScanner;
use crate::stats::{EndpointStats, ListenerStats, Registry};

use buffers::Buffers;
use handshake::Credentials;
use sequencer::Sequencer;
use session::Session;
use upstream::Upstream;

pub use client::Answer;
pub use dirty::{REGION_BYTES, Region, bucket};
pub use ends::Ends;
pub use orders::Action;
pub use outgoing::SLICES;
pub use seat::Seat;
pub use session::Ending;
pub use ticket::{SessionId, UNSETTLED};

/// Most connections of one endpoint for commands of clients.
const SERVES: usize = 6;
/// A session that holds as much is watched.
const HEAVY: usize = 256 * 1024;

/// The time, as the worker read it at the top of its turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Microseconds of a clock that only goes forward.
    pub us: u64,
    /// The same in milliseconds.
    pub ms: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// What the shell must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Intent {
    /// Open a socket for an upstream; answer with `upstream_connected` or `upstream_closed` and the same epoch.
    Connect {
        /// The upstream.
        upstream: usize,
        /// The try.
        epoch: u32,
        /// Where to.
        address: Address,
        /// How long the other side may leave bytes unacknowledged, in milliseconds.
        dead_after_ms: u64,
    },
    /// Close an upstream's socket, if it has one.
    CloseUpstream {
        /// The upstream.
        upstream: usize,
    },
    /// Close a session's socket.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// A session and a connection of its own become one: what comes on either goes to the other. Take their sockets and
    /// call `join`; `unjoin` when it is over.
    Join {
        /// The session.
        session: SessionId,
        /// The connection.
        upstream: usize,
        /// What the server is sent first.
        frame: Vec<u8>,
    },
    /// Find the memory of a replica's dirty map; answer with `map_opened` or `map_failed` before anything else is done.
    OpenMap {
        /// The primary.
        endpoint: usize,
        /// The replica's number.
        bit: u32,
        /// What the map is called.
        name: u64,
    },
    /// Ask the other workers; answer with `answered`, once for each.
    AskOthers {
        /// The question.
        number: u64,
        /// The command.
        frame: Vec<u8>,
    },
    /// Tell the control plane.
    Tell(Event),
}

/// Something that happened, for the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What; the words of `_core.pyi`.
    pub kind: &'static str,
    /// To what.
    pub subject: String,
    /// Why.
    pub detail: String,
}

/// A Redis, as the data plane keeps it from plan to plan.
#[derive(Debug)]
struct Endpoint {
    cluster: String,
    id: String,
    /// `None` while its name has not resolved.
    address: Option<Address>,
    credentials: Credentials,
    connect_timeout_ms: u64,
    op_timeout_us: u64,
    /// The connections for clients, for RESP2 and RESP3. A sequenced endpoint has the first only.
    ///
    /// To another member of the group there is one for each consistency.
    serve: [Option<usize>; SERVES],
    /// It is another member's peer port.
    peer: bool,
    spares: spare::Spares,
    /// When there may be a relief again, milliseconds: see [`busy`].
    relief_ms: u64,
    sequencer: Option<Box<Sequencer>>,
    /// Who gets samples of its commands: the sample's number in the plan, and a tap for each endpoint of its cluster.
    taps: Vec<(u32, Vec<usize>)>,
    /// A command that it answers with `MOVED` or `ASK` is sent where that says.
    redirects: bool,
    /// A redirection led here: until then it stays, though the plan may not have it (milliseconds).
    wanted_ms: u64,
    /// When the control plane is to be told again that it redirects (milliseconds).
    tell_moved_ms: u64,
    /// Its cluster's index in the plan, where keys have no home and there are other endpoints.
    scattered: Option<usize>,
    /// The plan no longer has it.
    retired: bool,
    /// Since when, milliseconds.
    retired_at: Option<u64>,
    stats: Arc<EndpointStats>,
}

impl Endpoint {
    fn name(&self) -> String {
        format!("{}/{}", self.cluster, self.id)
    }

    /// Whether it is reached by way of the first worker.
    fn is_link(&self) -> bool {
        self.address.as_ref().is_some_and(Address::is_link)
    }
}

/// Where the keys of one route go on one endpoint.
#[derive(Debug)]
struct Target {
    endpoint: usize,
    /// Replicas that get the route's writes.
    writes: u32,
    /// Those of them that get its reads too.
    reads: u32,
    /// The samples that its commands are drawn for.
    samples: u32,
    /// Mirror clusters with several endpoints: index of the cluster, and the bit of each of its endpoints.
    spread: Vec<(usize, Vec<u32>)>,
}

/// One route, resolved to endpoints: an entry per endpoint of its cluster.
#[derive(Debug)]
struct RouteTargets {
    cluster: usize,
    /// Keys are spread by hash slot.
    by_slot: bool,
    /// Keys have no home.
    scattered: bool,
    by_endpoint: Vec<Target>,
}

/// One listener of the plan.
#[derive(Debug)]
struct Listener {
    routes: Vec<RouteTargets>,
    stats: Arc<ListenerStats>,
}

/// The whole of the middle.
#[derive(Debug)]
pub struct Engine {
    now: Now,
    plan: Arc<Plan>,
    limits: Limits,
    listeners: Vec<Listener>,
    sessions: Slab<Session>,
    endpoints: Slab<Endpoint>,
    upstreams: Slab<Upstream>,
    taps: Slab<sample::Tap>,
    registry: Arc<Registry>,
    intents: Vec<Intent>,
    dirty_sessions: Vec<SessionId>,
    dirty_upstreams: Vec<usize>,
    dirty_sequencers: Vec<usize>,
    runnable: Vec<SessionId>,
    /// Sessions that hold much memory.
    heavy: Vec<SessionId>,
    /// Commands that wait for members or mirrors (`WAIT`).
    waits: Vec<wait::Waiting>,
    /// Commands that wait for other workers.
    asking: Vec<abroad::Asking>,
    /// Commands that block in sequencers.
    blocked: blocked::Blocked,
    /// Sessions that blocked after their clients had hung up.
    hung: Vec<SessionId>,
    /// Large output buffers, handed from session to session.
    buffers: Buffers,
    /// Scanner of commands that begin and end in one read.
    scanner: RequestScanner,
    /// Room for a rewritten command or an effect.
    scratch: Vec<u8>,
    /// Commands that were sent in parts, and wait for the replies to them.
    merges: Slab<merge::Merge>,
    /// A large command whose buffer is about to be handed over.
    adoption: Option<forward::Adoption>,
    /// The group that this sidecar is a member of.
    group: Option<Box<group::Group>>,
    /// Commands on their way to where a `MOVED` or `ASK` says.
    strays: stray::Strays,
    /// The ticket of a command that is being sent again.
    reissue: Option<ticket::Ticket>,
    generation: NonZeroU32,
    /// Which worker's it is.
    seat: Seat,
    epoch: u32,
    /// The last number given to a replica or a resync.
    numbers: u64,
    seed: u64,
    /// What random choices for commands are made from.
    luck: u64,
    /// Of each cluster of the plan: commands that its endpoints took in turn.
    turns: Vec<u64>,
    draining: bool,
    /// Clients whose connections are not the flow's any more.
    joined: usize,
    /// `CLIENT PAUSE`.
    pause: pause::Pause,
    upkept_ms: u64,
    upkeep_at: u64,
    sweep_at: u64,
}

impl Engine {
    /// An engine without a plan: no session can come before [`Engine::apply`]. `seed` spreads retries over processes.
    pub fn new(plan: Arc<Plan>, registry: Arc<Registry>, now: Now, seed: u64) -> Self {
        Self::seated(Seat::default(), plan, registry, now, seed)
    }

    /// The same for one of several workers.
    pub fn seated(seat: Seat, plan: Arc<Plan>, registry: Arc<Registry>, now: Now, seed: u64) -> Self {
        let mut engine = Self {
            now,
            limits: plan.limits,
            plan: Arc::clone(&plan),
            listeners: Vec::new(),
            sessions: Slab::new(),
            endpoints: Slab::new(),
            upstreams: Slab::new(),
            taps: Slab::new(),
            registry,
            intents: Vec::new(),
            dirty_sessions: Vec::new(),
            dirty_upstreams: Vec::new(),
            dirty_sequencers: Vec::new(),
            runnable: Vec::new(),
            heavy: Vec::new(),
            waits: Vec::new(),
            asking: Vec::new(),
            blocked: blocked::Blocked::default(),
            hung: Vec::new(),
            buffers: Buffers::default(),
            scanner: RequestScanner::default(),
            scratch: Vec::new(),
            merges: Slab::new(),
            adoption: None,
            group: None,
            strays: stray::Strays::default(),
            reissue: None,
            generation: NonZeroU32::MIN,
            seat,
            epoch: 0,
            numbers: 0,
            seed,
            luck: seed,
            turns: Vec::new(),
            draining: false,
            joined: 0,
            pause: pause::Pause::default(),
            upkept_ms: 0,
            upkeep_at: 0,
            sweep_at: 0,
        };
        engine.apply(plan);
        engine
    }

    /// The turn's time. Before anything else in a turn.
    #[inline]
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// Whether a session is another worker's link.
    pub fn is_link(&self, id: SessionId) -> bool {
        self.sessions.get(id.slot as usize).is_some_and(|s| s.id == id && s.is_link())
    }

    /// What the shell must do, oldest first.
    pub fn take_intents(&mut self) -> Vec<Intent> {
        std::mem::take(&mut self.intents)
    }

    /// Sessions that have output.
    pub fn take_dirty_sessions(&mut self, into: &mut Vec<SessionId>) {
        into.clear();
        std::mem::swap(&mut self.dirty_sessions, into);
    }

    /// Upstreams that have something to be written.
    pub fn take_dirty_upstreams(&mut self, into: &mut Vec<usize>) {
        into.clear();
        std::mem::swap(&mut self.dirty_upstreams, into);
    }

    /// Sessions that can go on, with input that is here or in their sockets.
    pub fn take_runnable(&mut self, into: &mut Vec<SessionId>) {
        into.clear();
        std::mem::swap(&mut self.runnable, into);
    }

    /// Whether a turn must follow without waiting for events.
    pub fn is_runnable(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// What an upstream has to be written; `slices` is filled from its front. Takes it off the list of dirty ones.
    pub fn upstream_output<'a>(&'a mut self, key: usize, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let Some(upstream) = self.upstreams.get_mut(key) else { return 0 };
        upstream.dirty = false;
        let upstream = &self.upstreams[key];
        let log =
            self.endpoints.get(upstream.primary()).and_then(|e| e.sequencer.as_ref()).map(|s| s.log.store());
        upstream.out.slices(log, slices)
    }

    /// `n` bytes of an upstream's output have left.
    pub fn upstream_wrote(&mut self, key: usize, n: usize) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        upstream.wrote(n, self.now.ms);
        let waiting = !upstream.waiters.is_empty() && upstream.is_ready() && upstream.has_room();
        if let Some(endpoint) = self.endpoints.get(upstream.endpoint) {
            endpoint.stats.count.upstream_cx_tx_bytes_total.add(n as u64);
        }
        if let upstream::Role::Replica { primary, .. } = upstream.role
            && upstream.out.waiting() == 0
        {
            self.touch_sequencer(primary);
        }
        if waiting {
            self.wake_waiters(key);
        }
    }

    /// Give everything up: each call in flight is answered, nothing is sent any more.
    pub fn abandon(&mut self) {
        self.leave_group();
        self.give_up_asking();
        let keys: Vec<usize> = self.upstreams.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.break_upstream(key, "redisha is stopping");
        }
        self.abandon_strays("redisha is stopping");
    }

    fn tell(&mut self, kind: &'static str, subject: String, detail: String) {
        self.intents.push(Intent::Tell(Event { kind, subject, detail }));
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id)
    }

    /// Put a session on the list of those to be written.
    #[inline]
    fn mark_session(session: &mut Session, list: &mut Vec<SessionId>) {
        if !session.dirty {
            session.dirty = true;
            list.push(session.id);
        }
    }

    /// Put a session on the list of those that hold much memory, if it does.
    #[inline]
    fn weigh_session(session: &mut Session, list: &mut Vec<SessionId>) {
        if !session.heavy && session.held() >= HEAVY {
            session.heavy = true;
            list.push(session.id);
        }
    }

    /// Put an upstream on the list of those to be written.
    #[inline]
    fn mark_upstream(upstream: &mut Upstream, key: usize, list: &mut Vec<usize>) {
        if !upstream.dirty {
            upstream.dirty = true;
            list.push(key);
        }
    }

    /// Put a session on the list of those that can go on.
    #[inline]
    fn wake(session: &mut Session, list: &mut Vec<SessionId>) {
        session.wait = session::Wait::Nothing;
        Self::rouse(session, list);
    }

    /// The same, should it wait for nothing.
    #[inline]
    fn rouse(session: &mut Session, list: &mut Vec<SessionId>) {
        if !session.runnable {
            session.runnable = true;
            list.push(session.id);
        }
    }

    /// Put a sequencer on the list of those whose replicas have something to send.
    #[inline]
    fn mark_sequencer(sequencer: &mut Sequencer, key: usize, list: &mut Vec<usize>) {
        if !sequencer.dirty {
            sequencer.dirty = true;
            list.push(key);
        }
    }

    /// All sessions that wait for an upstream may look again.
    fn wake_waiters(&mut self, key: usize) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        for id in std::mem::take(&mut upstream.waiters) {
            if let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id)
                && session.wait == session::Wait::Upstream
            {
                Self::wake(session, &mut self.runnable);
            }
        }
    }
}
