//! The simulated world: members, their Redis servers, clients, the lines between them, and time.

use std::collections::{BTreeMap, VecDeque};

use redisha_core::flow::Action;

use super::client::Client;
use super::life::Comeback;
use super::member::{Member, bury_engine};
use super::pipe::Pipe;
use super::plans::{NAMES, TIMEOUT_MS};
use super::redis::Redis;
use super::rng::Rng;
use super::script::{Mix, Op};

/// Lines of the trace that are kept.
const TRACE: usize = 400_000;

/// The end of a connection that is cut is seen within this time (microseconds).
pub const LATE: u64 = 450_000;

/// How one run is set up. A number `n` of what goes wrong: once in so many steps; 0: never.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub members: usize,
    pub consistent: bool,
    pub min_in_sync: usize,
    pub mix: Mix,
    /// No transactions, one database.
    pub plain: bool,
    /// Clients ask for consistency of their own.
    pub levels: bool,
    pub steps: u32,
    pub clients: usize,
    /// Connections, and servers that pause, once in so many steps; 0: never.
    pub calmness: u64,
    /// Links between members.
    pub cuts: u64,
    /// Links of a member to its own Redis, which lives.
    pub own_cuts: u64,
    pub vanishing: u64,
    pub redis_deaths: u64,
    /// A Redis that died may come back with less than it had.
    pub losses: bool,
    pub sidecar_deaths: u64,
    /// A sidecar that died may find no dirty maps.
    pub maps_lost: bool,
    /// A sidecar and its Redis, with all its data, at once.
    pub whole_deaths: u64,
    pub hand_overs: u64,
    pub partitions: u64,
    /// A sidecar is stopped for a while, and goes on.
    pub freezes: u64,
    /// Clocks of the world differ by so much.
    pub skew_ms: u64,
    pub lulls: u64,
}

impl Options {
    /// Whether no write that was answered may be missing at the end, whatever its level.
    pub fn is_lossless(&self) -> bool {
        self.partitions + self.sidecar_deaths + self.whole_deaths + self.freezes == 0
    }
}

/// Who opened a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Member(usize),
}

/// Who accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Redis(usize, u64),
    Member(usize),
}

/// A connection. Each side forgets it on its own.
#[derive(Debug)]
pub struct Link {
    pub from: From,
    pub to: To,
    pub up: Pipe,
    pub down: Pipe,
    pub from_gone: bool,
    pub to_gone: bool,
    /// Nothing gets through.
    pub up_frozen: bool,
    pub down_frozen: bool,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    /// One of them is away while it has its turn.
    pub members: Vec<Option<Box<Member>>>,
    pub redises: Vec<Redis>,
    pub links: BTreeMap<u64, Link>,
    pub clients: Vec<Client>,
    /// What clients have asked for, in order.
    pub history: Vec<Op>,
    pub options: Options,
    pub trace: Option<VecDeque<String>>,
    /// `blocked[a][b]`: nothing gets from a to b, and until when.
    pub blocked: [[u64; 5]; 5],
    pub next_link: u64,
    pub next_client: u32,
    pub next_word: u32,
    pub read: usize,
    pub room: usize,
    pub delay: u64,
    /// Who led which term, where two may not.
    pub leaders: BTreeMap<u64, usize>,
    pub counts: BTreeMap<&'static str, u64>,
    /// See [`Options::is_lossless`], before trouble ended.
    pub was_lossless: bool,
    /// Connections that were cut and Redis servers that died: when, and the member of the Redis that died.
    pub faults: Vec<(u64, Option<usize>)>,
    /// The newest death of a Redis that lost data: when, and whose.
    pub lossy: Option<(u64, usize)>,
    /// When the Redis of the only member in sync had lost data.
    pub lost_alone: u64,
}

/// Say what happens, if somebody listens.
macro_rules! say {
    ($world:expr, $($text:tt)*) => {
        if $world.trace.is_some() {
            let line = format!($($text)*);
            $world.note(line);
        }
    };
}
pub(super) use say;

impl World {
    pub fn new(seed: u64, options: Options, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        const REDISES: [&str; 5] = ["ra", "rb", "rc", "rd", "re"];
        let mut redises: Vec<Redis> =
            (0..options.members).map(|i| Redis::new(REDISES[i], rng.fork())).collect();
        for redis in &mut redises {
            redis.remembers_nothing = true;
            redis.journal = traced.then(Vec::new);
        }
        let members = (0..options.members)
            .map(|i| {
                let skew = if options.skew_ms > 0 { rng.below(options.skew_ms * 1_000) } else { 0 };
                Some(Box::new(Member::new(&options, i, rng.next(), skew)))
            })
            .collect();
        Self {
            now: 0,
            members,
            redises,
            links: BTreeMap::new(),
            clients: Vec::new(),
            history: Vec::new(),
            options,
            trace: traced.then(VecDeque::new),
            blocked: [[0; 5]; 5],
            next_link: 1,
            next_client: 1,
            next_word: 1,
            read: rng.pick(&[700, 4_096, 65_536]),
            room: rng.pick(&[9_000, 70_000, 300_000]),
            delay: rng.pick(&[50, 400, 3_000]),
            leaders: BTreeMap::new(),
            counts: BTreeMap::new(),
            was_lossless: false,
            faults: Vec::new(),
            lossy: None,
            lost_alone: 0,
            rng,
        }
    }

    pub fn note(&mut self, line: String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            if trace.len() >= TRACE {
                trace.pop_front();
            }
            trace.push_back(format!("{:>9.3} ms  {line}", now as f64 / 1_000.0));
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn member(&mut self, index: usize) -> &mut Member {
        self.members[index].as_mut().expect("it has not its turn")
    }

    pub fn lives(&self, index: usize) -> bool {
        self.members[index].as_ref().is_some_and(|m| m.engine.is_some())
    }

    /// Time passes.
    pub fn pass(&mut self, us: u64) {
        self.now += us;
        self.heal();
        self.run_servers();
        let mut order: Vec<usize> = (0..self.options.members).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.rng.index(i + 1));
        }
        for index in order {
            self.run_member(index);
        }
        self.run_clients();
    }

    /// The clock of a Redis's machine.
    pub fn redis_time(&self, index: usize) -> u64 {
        self.now + self.members[index].as_ref().map_or(0, |m| m.skew_us)
    }

    fn run_servers(&mut self) {
        let now = self.now;
        let ids: Vec<u64> =
            self.links.iter().filter(|(_, l)| matches!(l.to, To::Redis(..))).map(|(id, _)| *id).collect();
        let mut ids = ids;
        for i in (1..ids.len()).rev() {
            ids.swap(i, self.rng.index(i + 1));
        }
        let mut notes = Vec::new();
        for id in ids {
            let Some(link) = self.links.get_mut(&id) else { continue };
            let To::Redis(index, connection) = link.to else { continue };
            let clock = now + self.members[index].as_ref().map_or(0, |m| m.skew_us);
            let redis = &mut self.redises[index];
            if redis.is_open(connection) && redis.paused_until <= now {
                let most = if self.rng.one_in(4) { 1 + self.rng.index(200) } else { usize::MAX };
                let bytes = link.up.receive(now, most);
                let out = redis.receive(connection, &bytes, clock);
                link.down.send(now, &out, &mut self.rng);
                notes.extend(redis.journal.iter_mut().flat_map(std::mem::take));
                if link.up.at_end(now) {
                    redis.hang_up(connection);
                }
            }
            if !redis.is_open(connection) && !link.to_gone {
                link.down.close(now, &mut self.rng);
                link.up.reset(now);
                link.to_gone = true;
            }
            if link.to_gone && link.from_gone {
                self.links.remove(&id);
            }
        }
        notes.into_iter().for_each(|line| self.note(line));
    }

    // --- trouble ---

    /// Links thaw and freeze as members can hear each other.
    fn heal(&mut self) {
        let now = self.now;
        let mut thawed = Vec::new();
        for (id, link) in &mut self.links {
            let (From::Member(a), To::Member(b)) = (link.from, link.to) else { continue };
            let (up, down) = (self.blocked[a][b] > now, self.blocked[b][a] > now);
            if link.up_frozen && !up {
                thawed.push((*id, b));
            }
            (link.up_frozen, link.down_frozen) = (up, down);
        }
        for (id, b) in thawed {
            let Some(member) = self.members[b].as_mut() else { continue };
            for socket in member.sessions.values_mut().filter(|s| s.link == id) {
                (socket.seen, socket.seen_end) = (0, false);
            }
        }
    }

    /// Whether a Redis died within so short a time of another fault that neither side could know of both, and this was
    /// answered about then: what was on its way to the other member may be lost with the Redis, whatever becomes of it.
    pub fn is_double_fault(&self, answered: u64) -> bool {
        self.faults.iter().any(|(at, died)| {
            died.is_some()
                && at.abs_diff(answered) < 2 * LATE
                && self.faults.iter().any(|(other, who)| who != died && at.abs_diff(*other) < LATE)
        })
    }

    /// Cut a connection; each side notices on its own.
    pub fn cut(&mut self, id: u64) {
        self.count("cuts");
        self.faults.push((self.now, None));
        let Some(link) = self.links.get_mut(&id) else { return };
        let line = format!("link {id} {:?} {:?} is cut", link.from, link.to);
        link.up.cut(self.now, &mut self.rng);
        if self.rng.one_in(2) {
            link.down.reset(self.now);
        } else {
            link.down.cut(self.now, &mut self.rng);
        }
        self.note(line);
    }

    /// Some of the members do not hear some of the others.
    pub fn part(&mut self) {
        self.count("partitions");
        let n = self.options.members;
        let long = self.rng.pick(&[TIMEOUT_MS / 2, 2 * TIMEOUT_MS, 6 * TIMEOUT_MS]) * 1_000;
        let until = self.now + 10_000 + self.rng.below(long);
        let side: Vec<bool> = match self.rng.below(3) {
            0 => (0..n).map(|_| self.rng.one_in(2)).collect(),
            _ => {
                let one = self.rng.index(n);
                (0..n).map(|i| i == one).collect()
            }
        };
        let one_pair = n > 2 && self.rng.one_in(3);
        let pair = (self.rng.index(n), self.rng.index(n));
        let one_way = self.rng.one_in(4);
        for a in 0..n {
            for b in 0..n {
                let apart = if one_pair { (a, b) == pair || (b, a) == pair } else { side[a] != side[b] };
                let this_way = !one_way || if one_pair { (a, b) == pair } else { side[a] };
                if a != b && apart && this_way {
                    self.blocked[a][b] = until;
                    let (from, to) = (NAMES[a], NAMES[b]);
                    say!(self, "nothing gets from {from} to {to} until {} ms", until / 1_000);
                }
            }
        }
    }

    /// A Redis ends and comes back.
    pub fn restart_redis(&mut self, index: usize, comeback: Comeback, down_us: u64) {
        self.count("redis deaths");
        self.faults.push((self.now, Some(index)));
        if !matches!(comeback, Comeback::Whole) {
            self.lossy = Some((self.now, index));
        }
        say!(self, "redis {} ends ({comeback:?}), down for {} ms", NAMES[index], down_us / 1_000);
        self.redises[index].restart(comeback);
        self.redises[index].down_until = self.now + down_us;
        self.redises[index].loading_until = self.redis_time(index) + down_us + self.rng.below(20_000);
    }

    /// `kill -9` of a sidecar.
    pub fn kill_sidecar(&mut self, index: usize, down_us: u64, lose_maps: bool) {
        if !self.lives(index) {
            return;
        }
        self.count("sidecar deaths");
        say!(self, "sidecar {} dies, maps lost: {lose_maps}", NAMES[index]);
        let now = self.now;
        let mut member = self.members[index].take().expect("it has not its turn");
        for socket in std::mem::take(&mut member.sockets).into_values() {
            let Some(link) = socket.link.and_then(|id| self.links.get_mut(&id)) else { continue };
            link.from_gone = true;
            // What it had written may still arrive, long after its successor has come. Whoever comes next can end the
            // connections that the maps name, and only those.
            if lose_maps && matches!(link.to, To::Redis(..)) {
                link.up.reset(now);
            } else if self.rng.one_in(2) {
                link.up.close(now, &mut self.rng);
            } else {
                link.up.cut(now, &mut self.rng);
            }
            link.down.reset(now);
        }
        for socket in std::mem::take(&mut member.sessions).into_values() {
            let Some(link) = self.links.get_mut(&socket.link) else { continue };
            link.to_gone = true;
            link.up.reset(now);
            if self.rng.one_in(2) {
                link.down.close(now, &mut self.rng);
            } else {
                link.down.cut(now, &mut self.rng);
            }
        }
        for list in [&mut member.busy, &mut member.again, &mut member.dirty_sessions] {
            list.clear();
        }
        member.dirty_upstreams.clear();
        if let Some(engine) = member.engine.take() {
            bury_engine(engine);
        }
        if lose_maps {
            member.shelf.lose();
        }
        member.back_at = now + down_us;
        member.frozen_until = 0;
        for client in &mut self.clients {
            client.excused |= client.member == index;
        }
        self.members[index] = Some(member);
    }

    /// All trouble is over.
    pub fn make_calm(&mut self) {
        self.note("calm".into());
        self.was_lossless = self.options.is_lossless();
        self.blocked = [[0; 5]; 5];
        for redis in &mut self.redises {
            redis.paused_until = 0;
            redis.down_until = 0;
            redis.loading_until = 0;
        }
        let now = self.now;
        for member in self.members.iter_mut().flatten() {
            member.frozen_until = 0;
            member.back_at = member.back_at.min(now);
        }
        for o in [
            &mut self.options.cuts,
            &mut self.options.own_cuts,
            &mut self.options.calmness,
            &mut self.options.partitions,
        ] {
            *o = 0;
        }
    }

    /// The member that leads the newest term, by what the engines say.
    pub fn leader(&self) -> Option<usize> {
        let mut best = None;
        for (index, member) in self.members.iter().enumerate() {
            let Some(member) = member.as_ref().filter(|m| m.engine.is_some()) else { continue };
            let Some(snapshot) = super::view::Snapshot::read(&member.registry.group()) else { continue };
            if snapshot.me.leads && best.is_none_or(|(term, _)| snapshot.me.term > term) {
                best = Some((snapshot.me.term, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// Whether anything is on its way.
    pub fn is_busy(&self) -> bool {
        self.links.values().any(|l| l.up.is_busy() || l.down.is_busy())
    }

    pub fn resync_all(&mut self) {
        for member in self.members.iter_mut().flatten() {
            if let Some(engine) = member.engine.as_mut() {
                engine.resync("g", Action::Start);
            }
        }
    }
}
