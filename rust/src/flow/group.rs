//! A group: one order of writes over several members. Which member leads is decided elsewhere; here leaderships are kept
//! apart.
//!
//! ```text
//! client ─▶ follower ── CALL ──▶ leader ─▶ its Redis ─▶ log ── STREAM ──▶ each follower ─▶ its Redis
//!              │                   │ the reply waits (`gate`) until the follower that called has the write, and as
//!              └─ reads: its own   └ many others as the client asked for
//! ```
//!
//! A follower is to its leader what a mirror is to its primary: the replica's connection leads to the follower's *peer
//! port* rather than to its Redis. What passes there is marked in the follower's own dirty maps, so that whoever leads
//! next knows what each of the others may lack. A leadership is a term and a member; the newer one wins, and what comes
//! from an older one is refused.

use std::collections::{HashMap, VecDeque};

use super::Engine;
use super::beat::Status;
use super::gate::Gate;
use super::handover::Seal;
use super::journal::Journal;
use super::marker::{Marker, Part};
use super::proof::new_set;
use super::repair::Repair;
use super::replica::{Judged, Lack, Need};
use super::resend::Resend;
use super::sequencer::Proof;
use super::session::Peering;
use super::ticket::SessionId;
use super::upstream::{Phase, Role};
use crate::plan::{GroupSpec, Plan};

/// The generation with which a term begins: the terms are above the generations of each.
pub(super) const TERM_SHIFT: u32 = 32;

/// What this member does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Post {
    /// It gives the writes their order.
    Leader,
    /// Another does.
    Follower,
    /// Nobody is known to.
    #[default]
    Nobody,
}

/// Another member.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its peer port, as an endpoint.
    pub endpoint: usize,
    /// The connection for beats.
    pub beat: usize,
    /// What it is called; empty until it was spoken to.
    pub member: String,
    /// When the newest beat was sent that it answered, milliseconds; 0: none was.
    pub answered_ms: u64,
    /// The same of an answer that named this member as the leader of its term.
    pub followed_ms: u64,
    /// When it last sent a beat itself.
    pub heard_ms: u64,
    /// When it was last told that it counts as in sync.
    pub granted_ms: u64,
    /// What it says of itself.
    pub status: Status,
    /// How far its clock was ahead of this member's when it said that, milliseconds, with the time on the way.
    pub skew_ms: i64,
}

/// The group, as this member knows it.
#[derive(Debug)]
pub(super) struct Group {
    pub spec: GroupSpec,
    /// This member's own Redis.
    pub local: usize,
    pub peers: Vec<Peer>,
    /// A number of this process.
    pub nonce: u64,
    pub term: u64,
    /// The leader of that term; empty: not known.
    pub leader: String,
    pub post: Post,
    /// It leads, and takes no more commands: another is about to lead.
    pub yielding: bool,
    /// How far that has come.
    pub seal: Seal,
    /// The other members, as endpoints, that had everything when it gave way.
    pub sealed: Vec<usize>,
    /// It led when its Redis was lost, and another has everything: that Redis is not used until it has been decided who
    /// leads.
    pub lost: bool,
    /// Copies were on their way when it was: what they would have brought, others lack.
    pub lost_copies: bool,
    /// It was started anew since, and has the marker of this generation.
    pub reborn: Option<u64>,
    /// Sessions that wait for a leader.
    pub waiters: Vec<SessionId>,
    /// Commands that were not answered, for the next leader.
    pub resend: VecDeque<Resend>,
    /// Not before then, milliseconds.
    pub resend_at: u64,
    /// Replies that wait for acknowledgements.
    pub gate: Gate,
    /// Members that must have a write of `quorum`, where that is recorded; with this one.
    pub counted: Vec<String>,
    /// How far the data goes: generation and position in the log of its leader.
    pub received: (u64, u64),
    /// How far it will go once this member's own Redis has answered what comes before these bytes of its connection.
    pub passed: VecDeque<(u64, (u64, u64))>,
    /// Until when this follower's own Redis may answer reads, milliseconds.
    pub granted_until: u64,
    /// Its clients know nothing that its own Redis has not: what the leader answered them, it had.
    pub whole: bool,
    /// The generation that this member's data had when its leadership began: what another has beyond it, of the term
    /// before, is not of this history.
    pub base: u64,
    /// When the arbiter last renewed this leadership.
    pub arbiter_ms: u64,
    /// Questions of other members to the control plane: whose, and their number.
    pub asked: HashMap<u64, (String, u64)>,
    pub asks: u64,
    pub beat_at: u64,
    /// When data of the own Redis that is not the group's is looked at again, milliseconds.
    pub look_at: u64,
    /// What it wrote while some member was not in sync.
    pub journal: Journal,
    /// It has led, and has not been filled by another leader since.
    pub led: bool,
    /// It has followed somebody since it was started: what it wrote before it leads, others have.
    pub followed: bool,
}

impl Group {
    /// The other member of this name.
    pub fn peer(&self, member: &str) -> Option<&Peer> {
        self.peers.iter().find(|p| p.member == member && !member.is_empty() && member != self.spec.member)
    }

    /// The endpoint of the leader's peer port.
    pub fn leaders_endpoint(&self) -> Option<usize> {
        self.peer(&self.leader).map(|p| p.endpoint)
    }

    /// Whether it leads and takes commands.
    #[inline]
    pub fn leads(&self) -> bool {
        self.post == Post::Leader && !self.yielding && !self.lost
    }
}

impl Engine {
    /// The plan's group, over the endpoints that have just been placed.
    pub(super) fn place_group(&mut self, plan: &Plan, by_cluster: &[Vec<usize>]) {
        let Some(wanted) = &plan.group else {
            return self.leave_group();
        };
        let endpoint = |cluster: usize| by_cluster.get(cluster).and_then(|c| c.first()).copied();
        let Some(local) = endpoint(wanted.local) else { return };
        let mut group = match self.group.take() {
            Some(group) if group.spec.name == wanted.spec.name && group.local == local => group,
            _ => Box::new(Group {
                spec: wanted.spec.clone(),
                local,
                peers: Vec::new(),
                nonce: self.seed | 1,
                term: 0,
                leader: String::new(),
                post: Post::Nobody,
                yielding: false,
                seal: Seal::No,
                sealed: Vec::new(),
                lost: false,
                lost_copies: false,
                reborn: None,
                waiters: Vec::new(),
                resend: VecDeque::new(),
                resend_at: 0,
                gate: Gate::default(),
                counted: Vec::new(),
                received: (0, 0),
                passed: VecDeque::new(),
                granted_until: 0,
                whole: true,
                base: 0,
                arbiter_ms: 0,
                asked: HashMap::new(),
                asks: 0,
                beat_at: 0,
                look_at: 0,
                journal: Journal::default(),
                led: false,
                followed: false,
            }),
        };
        group.spec = wanted.spec.clone();
        let endpoints: Vec<usize> = wanted.peers.iter().filter_map(|&c| endpoint(c)).collect();
        let (kept, gone) = std::mem::take(&mut group.peers)
            .into_iter()
            .partition(|p: &Peer| endpoints.contains(&p.endpoint));
        group.peers = kept;
        for peer in gone {
            self.remove_upstream(peer.beat);
        }
        for endpoint in endpoints {
            self.endpoints[endpoint].peer = true;
            if group.peers.iter().all(|p| p.endpoint != endpoint) {
                let beat = self.new_upstream(endpoint, Role::Beat, 2);
                // A beat is due as often, whether the last one could be sent or not.
                self.upstreams[beat].retry_within(wanted.spec.heartbeat_ms);
                group.peers.push(Peer {
                    endpoint,
                    beat,
                    member: String::new(),
                    answered_ms: 0,
                    followed_ms: 0,
                    heard_ms: 0,
                    granted_ms: 0,
                    status: Status::default(),
                    skew_ms: 0,
                });
            }
        }
        self.group = Some(group);
    }

    /// The configuration has no group any more.
    pub(super) fn leave_group(&mut self) {
        self.give_up_held("this redisha has left its group");
        let Some(mut group) = self.group.take() else { return };
        for one in std::mem::take(&mut group.resend) {
            self.resend_refused(one, "this redisha has left its group");
        }
        for peer in &group.peers {
            self.remove_upstream(peer.beat);
        }
        self.wake_everyone();
    }

    /// Whether an endpoint is this member's own Redis.
    #[inline]
    pub(super) fn is_groups_own(&self, endpoint: usize) -> bool {
        self.group.as_ref().is_some_and(|g| g.local == endpoint)
    }

    /// The replicas of the group's log, a bit each.
    pub(super) fn group_replicas(&self) -> u32 {
        let sequencer = self.group.as_ref().and_then(|g| self.endpoints.get(g.local)?.sequencer.as_ref());
        sequencer.map_or(0, |s| s.replicas().fold(0, |bits, r| bits | 1 << r.bit))
    }

    /// The marker of the group's data in this member's own Redis.
    pub(super) fn own_marker(&self) -> Option<Marker> {
        let group = self.group.as_ref()?;
        let endpoint = self.endpoints.get(group.local)?;
        let identity = self.upstreams.get(endpoint.serve[0]?)?.identity.as_ref()?;
        let set = endpoint.sequencer.as_ref().map_or(0, |s| s.set);
        let of = |m: &&Marker| m.set == set;
        let newest = || identity.markers.iter().max_by_key(|m| m.generation);
        identity.markers.iter().find(of).or_else(newest).copied()
    }

    /// This member leads the term.
    pub fn lead(&mut self, term: u64) {
        let marker = self.own_marker();
        let (seed, unix_ms) = (self.seed, self.now.unix_ms);
        let Some(group) = self.group.as_mut() else { return };
        let again = group.post == Post::Leader;
        if term < group.term || (term == group.term && again) {
            return;
        }
        let (local, name) = (group.local, group.spec.name.clone());
        group.term = term;
        group.leader.clone_from(&group.spec.member);
        group.post = Post::Leader;
        group.yielding = false;
        group.seal = Seal::No;
        group.sealed.clear();
        group.lost = false;
        group.lost_copies = false;
        group.reborn = None;
        group.granted_until = 0;
        group.led = true;
        group.whole = true;
        let alone = !again && !group.followed && marker.is_some();
        group.base = marker.map_or(0, |m| m.generation);
        let base = group.base;
        group.arbiter_ms = 0; // its vote was asked for before; when, is told next
        self.end_streams(u64::MAX);
        self.drop_followers("a new term begins");
        let identity = self.primary_identity(local).map(|(_, identity)| identity);
        let Some(sequencer) = self.endpoints.get_mut(local).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        sequencer.set = match marker {
            Some(marker) => marker.set,
            None if sequencer.set != 0 => sequencer.set,
            None => new_set(seed, unix_ms, &name),
        };
        let set = sequencer.set;
        let generation = sequencer.generation.max(base).max(term << TERM_SHIFT);
        sequencer.generation = generation;
        sequencer.marked = 0;
        sequencer.expiring.forget();
        if let Some(identity) = identity {
            sequencer.run_id = identity.run_id;
        }
        let end = sequencer.log.end();
        for replica in sequencer.replicas_mut() {
            if replica.map.set() != set {
                replica.map.set_set(set);
                replica.map.set_primary_marked(0);
                replica.map.mark_all();
                replica.map.mark_functions();
            }
            if replica.map.generation() < generation {
                replica.map.advance(generation, false); // what was marked so far is kept
            }
            replica.next = end;
            replica.acked = end;
            replica.in_flight = 0;
            replica.repair = Repair::default();
            replica.unrepaired.clear();
            replica.unrepaired_more = false;
            replica.run_id = None;
            replica.judged = Judged::No;
            replica.judge_at = 0;
            replica.open = false;
            replica.resync = None;
            replica.need = Need::Nothing;
            replica.marked = 0;
            replica.mark = None;
            replica.marks = None;
            replica.told = (0, (0, 0));
            replica.missed = None;
            replica.sealed = false;
            replica.merged = false;
            replica.merging = false;
        }
        let replicas: Vec<usize> = sequencer.replicas().map(|r| r.upstream).collect();
        self.connect_now(&replicas);
        self.proven(local, Need::Nothing);
        self.look_at_journal();
        if let Some(group) = self.group.as_mut().filter(|_| alone) {
            group.journal.note_all(unix_ms); // what this member wrote before it was started is not known any more
        }
        self.tell_post("leads");
    }

    /// Another member leads the term; an empty name: nobody is known to.
    pub fn follow(&mut self, term: u64, leader: &str) {
        let Some(group) = self.group.as_mut() else { return };
        if term < group.term || (term == group.term && group.leader == leader && group.post != Post::Leader) {
            return;
        }
        let led = group.post == Post::Leader;
        if led {
            self.look_at_journal(); // what is not acknowledged by now may never be
        }
        let Some(group) = self.group.as_mut() else { return };
        group.journal.on = false;
        let local = group.local;
        if led {
            self.move_blocked();
            self.lift_bars();
        }
        let Some(group) = self.group.as_mut() else { return };
        if led {
            // How far its data goes by its own count: what it has beyond its followers is looked at when it is filled.
            let sequencer = self.endpoints.get(local).and_then(|e| e.sequencer.as_ref());
            // What its clients were told, its Redis may not have any more.
            group.whole &= !group.lost && group.reborn.is_none();
            group.received = match std::mem::take(&mut group.reborn) {
                Some(generation) => (generation, 0), // its Redis was started anew: only its marker tells
                None => sequencer.map_or((0, 0), |s| (s.generation, s.log.decided())),
            };
            let next = group.peer(leader).map(|p| p.endpoint);
            let has_all = sequencer.is_some_and(|s| {
                // Keys in doubt are those of commands without a reply: the next leader executes these.
                let whole = |r: &&super::replica::Replica| match r.lack_now() {
                    _ if r.missed.is_some() || (group.lost && r.lacked_then != Lack::Nothing) => false,
                    Lack::Nothing => r.acked >= s.log.decided(),
                    Lack::Changes(_) => r.acked >= s.log.decided() && group.lost && !group.lost_copies,
                    Lack::Keys => false,
                };
                s.replicas().filter(|r| Some(r.target) == next).any(|r| whole(&r))
            });
            group.led &= !has_all;
            let sealed = |s: &super::sequencer::Sequencer| {
                s.replicas().filter(|r| r.sealed).map(|r| r.target).collect()
            };
            // (One that was sealed and took commands again has more.)
            group.sealed = sequencer.filter(|_| group.yielding).map(|s| sealed(s)).unwrap_or_default();
        }
        // (Its connection ended with the term, perhaps before it was known who leads next.)
        group.led &= !group.peer(leader).is_some_and(|p| group.sealed.contains(&p.endpoint));
        group.term = term;
        leader.clone_into(&mut group.leader);
        group.post = if leader.is_empty() { Post::Nobody } else { Post::Follower };
        group.followed |= !leader.is_empty();
        group.yielding = false;
        group.lost = false;
        group.granted_until = 0;
        self.end_streams(term);
        if let Some(sequencer) = self.endpoints.get_mut(local).and_then(|e| e.sequencer.as_mut()) {
            sequencer.proof = Proof::Following;
            sequencer.remark = false;
        }
        self.drop_followers("another member leads");
        if led {
            self.give_up_held("another member has taken the lead");
        }
        let links: Vec<usize> = self
            .group
            .as_ref()
            .and_then(|g| g.leaders_endpoint())
            .and_then(|e| self.endpoints.get(e))
            .into_iter()
            .flat_map(|e| e.serve.iter().flatten().copied())
            .collect();
        self.connect_now(&links);
        self.tell_post(if leader.is_empty() { "waits" } else { "follows" });
    }

    /// What they have is found out anew.
    fn drop_followers(&mut self, why: &str) {
        let local = self.group.as_ref().map_or(usize::MAX, |g| g.local);
        let mut dropped = Vec::new();
        let sequencer = self.endpoints.get_mut(local).and_then(|e| e.sequencer.as_mut());
        for replica in sequencer.into_iter().flat_map(|s| s.replicas_mut()) {
            replica.resync = None;
            replica.open = false;
            replica.judged = Judged::No;
            dropped.push(replica.upstream);
        }
        for upstream in dropped {
            if self.upstreams.get(upstream).is_some_and(|u| !matches!(u.phase, Phase::Down { .. })) {
                self.break_upstream(upstream, why);
            }
        }
    }

    /// The members whose acknowledgement a quorum needs.
    pub fn count_members(&mut self, members: Vec<String>) {
        if let Some(group) = self.group.as_mut() {
            group.counted = members;
            let local = group.local;
            self.touch_sequencer(local);
        }
    }

    /// The arbiter has renewed this leadership: it was asked `age_ms` ago.
    pub fn arbiter_beat(&mut self, age_ms: u64) {
        let sent = self.now.ms.saturating_sub(age_ms);
        if let Some(group) = self.group.as_mut() {
            group.arbiter_ms = group.arbiter_ms.max(sent);
        }
    }

    fn tell_post(&mut self, verb: &str) {
        self.upkeep_at = 0;
        let Some(group) = self.group.as_ref() else { return };
        let text = format!("{verb}: term {}, leader {}", group.term, group.leader);
        let name = group.spec.name.clone();
        self.tell("group", name, text);
        self.wake_group();
        self.publish_group();
    }

    /// Everybody may look again.
    pub(super) fn wake_group(&mut self) {
        if let Some(group) = self.group.as_mut() {
            group.waiters.clear();
            group.resend_at = 0;
        }
        self.wake_everyone();
    }

    /// Another member has greeted this one: it lives, so this one's connections to it need not wait for their next try.
    pub(super) fn met(&mut self, member: &str) {
        let now_ms = self.now.ms;
        let Some(group) = self.group.as_mut() else { return };
        let me = group.spec.member.clone();
        let Some(peer) = group.peers.iter_mut().find(|p| p.member == member && member != me) else { return };
        peer.heard_ms = now_ms;
        let endpoint = peer.endpoint;
        let links: Vec<usize> =
            self.upstreams.iter().filter(|(_, u)| u.endpoint == endpoint).map(|(key, _)| key).collect();
        self.connect_now(&links);
    }

    fn connect_now(&mut self, upstreams: &[usize]) {
        for key in upstreams {
            if let Some(upstream) = self.upstreams.get_mut(*key) {
                upstream.retry_now();
            }
        }
        self.upkeep_at = 0;
    }

    /// Close the streams of leaderships before this term.
    pub(super) fn end_streams(&mut self, term: u64) {
        let old = |p: &Peering| matches!(p, Peering::Stream { term: of, .. } if *of < term);
        let slots: Vec<usize> =
            self.sessions.iter().filter(|(_, s)| old(&s.peering)).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.close_session(slot);
        }
    }

    /// Whose marker a member's Redis has, as if it had always been a follower.
    pub(super) fn as_follower(&self, primary: usize, markers: &mut [Marker]) {
        if !self.is_groups_own(primary) {
            return;
        }
        let set = self.endpoints.get(primary).and_then(|e| e.sequencer.as_ref()).map_or(0, |s| s.set);
        for marker in markers.iter_mut().filter(|m| m.set == set) {
            marker.part = Part::Mirror;
            marker.sole = true;
        }
    }

    /// The generation up to which a member's data is of this history; `None`: it cannot be told.
    pub(super) fn common_generation(&self, generation: u64) -> Option<u64> {
        let group = self.group.as_ref()?;
        let (term, base) = (generation >> TERM_SHIFT, group.base >> TERM_SHIFT);
        if term >= group.term {
            return Some(generation);
        }
        (term == base).then(|| generation.min(group.base))
    }

    /// Sessions that wait for a leader, and have waited long enough.
    pub(super) fn expire_group_waiters(&mut self) {
        let Some(group) = self.group.as_mut() else { return };
        let patience = self.endpoints.get(group.local).map_or(5_000, |e| e.op_timeout_us / 1_000);
        let now_ms = self.now.ms;
        let (sessions, runnable) = (&mut self.sessions, &mut self.runnable);
        group.waiters.retain(|id| {
            let Some(session) = sessions.get_mut(id.slot as usize).filter(|s| s.id == *id) else {
                return false;
            };
            if session.wait != super::session::Wait::Upstream {
                return false;
            }
            if session.waiting_since + patience > now_ms {
                return true;
            }
            session.overdue = true;
            Self::wake(session, runnable);
            false
        });
    }

    /// Which statistics a group has.
    pub(super) fn publish_group(&self) {
        let text = self.group_snapshot();
        self.registry.set_group(text);
    }

    /// The name of the group's log's statistics.
    pub(super) fn is_standby(&self, key: usize) -> bool {
        self.group.as_ref().is_some_and(|g| g.local == key && g.post != Post::Leader)
    }
}
