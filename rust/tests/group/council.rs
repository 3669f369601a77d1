//! A model of the control plane's decisions: `redisha.failover`, `redisha.group.vote`, `.election`, `.insync` and
//! `.handover`, without an arbiter. It asks the councils of the other members through the engines.

use std::collections::{BTreeMap, VecDeque};

use redisha_core::flow::Event;
use serde_json::{Value, json};

use super::insync::{InSync, Recorded};
use super::plans::{HEARTBEAT_MS, TIMEOUT_MS};
use super::rng::Rng;
use super::view::{Peer, Snapshot, Status};

/// What the engine is to do.
#[derive(Clone, Debug)]
pub enum Order {
    Lead(u64),
    Follow(u64, String),
    Yield(bool),
    Count(Vec<String>),
    Ask(String, u64, String),
    Answer(u64, String),
}

/// What a member must not forget.
#[derive(Clone, Debug, Default)]
pub struct Ballot {
    pub term: u64,
    pub voted_for: String,
    /// It can be sure of the votes that it gave.
    pub trusted: bool,
    /// It was written at least once.
    pub kept: bool,
    pub founded: bool,
    pub recorded: Option<Recorded>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Pre,
    Vote,
    /// The members in sync are recorded again, as of the new term.
    Record,
}

#[derive(Debug)]
struct Election {
    term: u64,
    yields: bool,
    stage: Stage,
    votes: usize,
    needed: usize,
    asked: usize,
    deadline: u64,
    /// What is to be recorded before it leads.
    members: Vec<String>,
    /// The ask of a leader that hands over.
    reply_to: Option<u64>,
    data: String,
}

#[derive(Debug)]
struct Recording {
    recorded: Recorded,
    /// Members that were not in the record before: they must have it themselves.
    new: Vec<String>,
    holders: Vec<String>,
    kept: usize,
    /// Answers that are wanted, and those that can still come.
    enough: usize,
    asked: usize,
    deadline: u64,
}

#[derive(Debug)]
enum Stretch {
    /// Until somebody is in sync.
    Patience,
    /// No more commands, until somebody has everything.
    Yielding,
    /// It was asked to take over, by this question.
    Asked(u64),
    /// Its leadership must be seen.
    Seen,
}

/// A hand-over that is under way.
#[derive(Debug)]
struct HandOver {
    term: u64,
    stretch: Stretch,
    until: u64,
    patience: u64,
    /// The council wants it itself, and decides nothing else meanwhile.
    own: bool,
}

#[derive(Debug)]
enum Question {
    Vote(u64, Stage, String),
    Record(Recorded, String),
    TakeOver,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Wait(&'static str),
    Lead(u64),
    Stand(u64),
    Follow(u64, String),
    StepDown,
    HandOver,
    Record(Vec<String>),
}

/// The council of one member.
#[derive(Debug)]
pub struct Council {
    pub name: String,
    members: usize,
    consistent: bool,
    pub ballot: Ballot,
    started: u64,
    pub look_at: u64,
    /// The time of this look.
    now: u64,
    /// Its term and leader, and since when they are so.
    settled: (u64, String, u64),
    vacant_since: u64,
    leading_since: Option<u64>,
    overtaken_since: Option<u64>,
    stood_at: Option<u64>,
    seen_term: u64,
    insync: InSync,
    election: Option<Election>,
    recording: Option<Recording>,
    handover: Option<HandOver>,
    handed_at: Option<u64>,
    /// Members that said that they do not vote, and when.
    mute: BTreeMap<String, u64>,
    /// An operator wants the leadership elsewhere.
    pub wants_hand_over: bool,
    questions: BTreeMap<u64, Question>,
    next_question: u64,
    orders: Vec<Order>,
    begun: bool,
    /// What it did, for the trace.
    pub notes: Vec<String>,
}

impl Council {
    pub fn new(name: &str, members: usize, consistent: bool, ballot: Ballot, now: u64) -> Self {
        Self {
            name: name.to_owned(),
            members,
            consistent,
            ballot,
            started: now,
            look_at: now,
            now,
            settled: (0, String::new(), now),
            vacant_since: now,
            leading_since: None,
            overtaken_since: None,
            stood_at: None,
            seen_term: 0,
            insync: InSync::default(),
            election: None,
            recording: None,
            handover: None,
            handed_at: None,
            mute: BTreeMap::new(),
            wants_hand_over: false,
            questions: BTreeMap::new(),
            next_question: 1,
            orders: Vec::new(),
            begun: false,
            notes: Vec::new(),
        }
    }

    /// Whether all of these may be elected.
    pub fn has_recorded(&self, names: &[&str]) -> bool {
        let confirmed = self.insync.confirmed.as_ref();
        !self.consistent || confirmed.is_some_and(|c| names.iter().all(|n| c.iter().any(|m| m == n)))
    }

    fn majority(&self) -> usize {
        self.members / 2 + 1
    }

    /// Look at the group, answer others, and do what is decided. `now`: milliseconds.
    pub fn wake(
        &mut self,
        now: u64,
        view: &Snapshot,
        events: &mut VecDeque<Event>,
        rng: &mut Rng,
    ) -> Vec<Order> {
        self.note_time(now, view);
        if !std::mem::replace(&mut self.begun, true) {
            return vec![Order::Follow(self.ballot.term, String::new())];
        }
        while let Some(event) = events.pop_front() {
            let number: u64 = event.subject.parse().unwrap_or(0);
            match event.kind {
                "ask" => self.asked(now, view, number, &event.detail),
                "answer" => self.answered(now, view, number, &event.detail),
                _ => {}
            }
            if !self.orders.is_empty() {
                // What was ordered is not in the snapshot yet.
                return std::mem::take(&mut self.orders);
            }
        }
        self.go_on(now, view, rng);
        let busy = self.election.is_some()
            || self.recording.is_some()
            || self.handover.as_ref().is_some_and(|h| h.own);
        if self.orders.is_empty() && !busy {
            self.remember(view);
            let decision = self.decide(now, view);
            self.act(now, view, decision);
        }
        std::mem::take(&mut self.orders)
    }

    fn note_time(&mut self, now: u64, view: &Snapshot) {
        self.now = now;
        if (self.settled.0, &self.settled.1) != (view.me.term, &view.me.leader) {
            self.settled = (view.me.term, view.me.leader.clone(), now);
        }
        if view.me.leads {
            self.leading_since.get_or_insert(now);
        } else {
            self.leading_since = None;
        }
        if view.me.leads || self.leader(view).is_some() {
            self.vacant_since = now;
        }
        let overtaken = view.me.leads && self.alive(view).any(|p| p.status.term > view.me.term);
        match (overtaken, self.overtaken_since) {
            (false, _) => self.overtaken_since = None,
            (true, None) => self.overtaken_since = Some(now),
            _ => {}
        }
    }

    /// What it keeps of what it sees: see `redisha.group.vote.remembered`.
    fn remember(&mut self, view: &Snapshot) {
        let me = &view.me;
        let mut ballot = self.ballot.clone();
        if !ballot.kept && self.may_vote(view) {
            ballot.trusted = true;
        }
        if !me.leader.is_empty() && (me.term > ballot.term || !ballot.founded) {
            if ballot.term < me.term {
                ballot.voted_for.clear();
            }
            ballot.term = ballot.term.max(me.term);
            ballot.founded = true;
        }
        let follows = !me.leads && !me.leader.is_empty();
        ballot.trusted |= follows && me.in_sync && me.data == "complete" && self.leader(view).is_some();
        let changed = (ballot.trusted, ballot.founded, ballot.term)
            != (self.ballot.trusted, self.ballot.founded, self.ballot.term);
        ballot.kept |= changed;
        self.ballot = ballot;
    }

    /// Whether it is sure of which votes it has given.
    fn may_vote(&self, view: &Snapshot) -> bool {
        self.ballot.trusted || (!self.ballot.kept && self.brand_new(view))
    }

    /// Whether a leader may still count on an answer from before it was started.
    fn too_young(&self, now: u64) -> bool {
        self.consistent && self.ballot.founded && now < self.started + TIMEOUT_MS
    }

    fn mute<'a>(&'a self, peer: &Peer) -> Option<&'a u64> {
        self.mute.get(&peer.status.member).filter(|at| self.now < **at + 3 * TIMEOUT_MS)
    }

    fn alive<'a>(&self, view: &'a Snapshot) -> impl Iterator<Item = &'a Peer> + use<'a> {
        view.peers.iter().filter(|p| p.silent_ms < TIMEOUT_MS)
    }

    fn leader<'a>(&self, view: &'a Snapshot) -> Option<&'a Peer> {
        let me = &view.me;
        let found = self.alive(view).find(|p| {
            !p.status.member.is_empty() && p.status.member == me.leader && p.status.term <= me.term
        })?;
        let settled = self.now - self.settled.2 >= TIMEOUT_MS / 2;
        let says_so = found.status.term == me.term && found.status.leads;
        (says_so || !settled).then_some(found)
    }

    fn known_term(&self, view: &Snapshot) -> u64 {
        let told = std::iter::once(&view.me).chain(view.peers.iter().map(|p| &p.status));
        let newest = told.map(|s| s.term.max(s.position.0 >> 32)).max().unwrap_or(0);
        let recorded = self.ballot.recorded.as_ref().map_or(0, |r| r.term);
        newest.max(recorded).max(self.ballot.term).max(self.seen_term)
    }

    fn rank(&self, view: &Snapshot) -> u64 {
        view.peers.iter().filter(|p| !p.status.member.is_empty() && p.status.member < self.name).count()
            as u64
    }

    fn above(&self, view: &Snapshot) -> u64 {
        self.known_term(view) + 1 + self.rank(view)
    }

    fn recorded(&self, view: &Snapshot) -> Option<Vec<String>> {
        if view.me.leads {
            self.insync.confirmed.clone()
        } else {
            self.ballot.recorded.as_ref().map(|r| r.members.clone())
        }
    }

    fn electable(&self, view: &Snapshot, member: &str) -> bool {
        !self.consistent || self.recorded(view).is_none_or(|r| r.iter().any(|m| m == member))
    }

    // --- decisions: redisha.failover ---

    fn decide(&self, now: u64, view: &Snapshot) -> Decision {
        let me = &view.me;
        let newer = self
            .alive(view)
            .map(|p| (p.status.term, p.status.leader.clone()))
            .filter(|(term, leader)| *term > me.term && !leader.is_empty() && *leader != self.name)
            .max();
        if let Some((term, leader)) = newer {
            return Decision::Follow(term, leader);
        }
        let rival = self
            .alive(view)
            .map(|p| &p.status)
            .filter(|s| s.leads && s.term == me.term && !s.member.is_empty())
            .max_by_key(|s| (s.position, s.member.clone()));
        if me.leads {
            return self.as_leader(now, view, rival);
        }
        if let Some(rival) = rival
            && self.leader(view).is_none()
        {
            return Decision::Follow(rival.term, rival.member.clone());
        }
        if self.conflict(view) {
            return Decision::Wait("conflict");
        }
        if self.leader(view).is_some() {
            return Decision::Wait("following");
        }
        self.as_candidate(now, view)
    }

    fn conflict(&self, view: &Snapshot) -> bool {
        let told: Vec<&Status> = std::iter::once(&view.me)
            .chain(self.alive(view).map(|p| &p.status))
            .filter(|s| !s.member.is_empty())
            .collect();
        let holds = |s: &&&Status| s.data == "foreign" || (s.data == "complete" && !s.set.is_empty());
        let holders: Vec<&Status> = told.iter().filter(holds).copied().collect();
        let of_set = |s: &Status, set: &str| s.data == "complete" && s.set == set;
        let leader = self.leader(view).map(|p| &p.status).filter(|s| s.data == "complete");
        let many = |s: &Status| {
            holders.iter().filter(|o| of_set(o, &s.set)).count() * 2 > self.members && s.data == "complete"
        };
        if let Some(agreed) = leader.or_else(|| holders.iter().copied().find(|s| many(s))) {
            return holders.iter().any(|s| s.member == self.name) && !of_set(&view.me, &agreed.set);
        }
        holders.iter().skip(1).any(|o| !of_set(holders[0], &o.set) || !of_set(o, &holders[0].set))
    }

    fn as_leader(&self, now: u64, view: &Snapshot, rival: Option<&Status>) -> Decision {
        let me = &view.me;
        if let Some(rival) = rival {
            if self.consistent {
                return Decision::StepDown;
            }
            let rank = |s: &Status| (s.data == "complete", s.position, s.member.clone());
            if rank(me) < rank(rival) {
                return Decision::Follow(rival.term, rival.member.clone());
            }
            return if me.data == "complete" { Decision::Lead(self.above(view)) } else { Decision::StepDown };
        }
        if !view.yielding && (me.data == "unknown" || view.lost) {
            if !self.heirs(view, true).is_empty() {
                return Decision::HandOver;
            }
            if me.data == "unknown" {
                return Decision::Wait("no Redis");
            }
            // What is on its way to them would be lost with the leadership.
            if !self.heirs(view, false).is_empty() {
                return Decision::Wait("a successor is about to have everything");
            }
            return Decision::StepDown;
        }
        if me.data == "partial" {
            return Decision::StepDown;
        }
        if self.leading_since.is_some_and(|at| now >= at + 2 * TIMEOUT_MS) {
            if me.data != "complete" {
                return Decision::StepDown;
            }
            let same = |s: &Status| s.data == "complete" && s.set == me.set;
            if self.alive(view).any(|p| same(&p.status) && p.status.position > me.position) {
                return Decision::StepDown;
            }
        }
        if !view.yielding && self.overtaken_since.is_some_and(|at| now >= at + TIMEOUT_MS) {
            if self.near(now, view).count() + usize::from(self.may_vote(view)) >= self.majority() {
                if self.stood_at.is_some_and(|at| now < at + TIMEOUT_MS) {
                    return Decision::Wait("an election was only just held");
                }
                return Decision::Stand(self.known_term(view) + 1);
            }
            return if self.consistent {
                Decision::Wait("no majority can vote")
            } else {
                Decision::Lead(self.above(view))
            };
        }
        if !self.consistent {
            return Decision::Wait("leading");
        }
        if 1 + self.alive(view).count() < self.majority() {
            return Decision::StepDown;
        }
        if me.data != "complete" {
            return Decision::Wait("marker not written yet");
        }
        let mut wanted: Vec<String> = self
            .alive(view)
            .filter(|p| self.agrees(view, p))
            .map(|p| p.status.member.clone())
            .chain([self.name.clone()])
            .collect();
        wanted.sort();
        if self.insync.confirmed.as_ref() == Some(&wanted) {
            Decision::Wait("leading")
        } else {
            Decision::Record(wanted)
        }
    }

    fn agrees(&self, view: &Snapshot, peer: &Peer) -> bool {
        let s = &peer.status;
        s.leader == self.name && s.term == view.me.term && peer.counted && s.data == "complete"
    }

    fn heirs(&self, view: &Snapshot, caught_up: bool) -> Vec<String> {
        let fit = |p: &&Peer| {
            p.up && (p.caught_up || !caught_up)
                && self.agrees(view, p)
                && self.electable(view, &p.status.member)
        };
        let mut found: Vec<String> = self.alive(view).filter(fit).map(|p| p.status.member.clone()).collect();
        found.sort();
        found
    }

    fn brand_new(&self, view: &Snapshot) -> bool {
        let me = &view.me;
        if !(me.data == "empty" || me.data == "foreign") || !me.leader.is_empty() || self.ballot.founded {
            return false;
        }
        if self.ballot.recorded.is_some() {
            return false;
        }
        let speaks = |s: &Status| {
            !s.leader.is_empty()
                || s.data == "complete"
                || s.data == "partial"
                || (s.data == "unknown" && s.term > 0)
        };
        if view.peers.iter().any(|p| speaks(&p.status)) {
            return false;
        }
        let unasked = view.peers.iter().any(|p| p.status.member.is_empty() || p.status.data == "unknown");
        !unasked || !self.consistent
    }

    fn unfit(&self, now: u64, view: &Snapshot) -> Option<&'static str> {
        match view.me.data.as_str() {
            "unknown" => Some("no Redis"),
            "partial" => Some("partial"),
            "foreign" => Some("foreign"),
            "empty" => {
                let has_data = |p: &Peer| p.status.data != "empty" && p.status.data != "unknown";
                if view.peers.iter().any(has_data) {
                    return Some("another has data");
                }
                let fresh = self.brand_new(view);
                let all_empty = self.alive(view).count() == view.peers.len()
                    && view.peers.iter().all(|p| p.status.data == "empty");
                if (fresh && now >= self.started + 3 * TIMEOUT_MS)
                    || (all_empty && (fresh || !self.consistent))
                {
                    None
                } else {
                    Some("empty, and another may have the group's data")
                }
            }
            _ if !self.electable(view, &self.name) => Some("not recorded as in sync"),
            _ => None,
        }
    }

    fn near<'a>(&self, now: u64, view: &'a Snapshot) -> impl Iterator<Item = &'a Peer> + use<'a> {
        let vacant = now - self.vacant_since;
        let limit = if vacant >= 2 * TIMEOUT_MS { TIMEOUT_MS } else { TIMEOUT_MS / 2 };
        let mute: Vec<String> =
            view.peers.iter().filter(|p| self.mute(p).is_some()).map(|p| p.status.member.clone()).collect();
        self.alive(view).filter(move |p| p.silent_ms < limit && !mute.contains(&p.status.member))
    }

    fn as_candidate(&self, now: u64, view: &Snapshot) -> Decision {
        if let Some(why) = self.unfit(now, view) {
            return Decision::Wait(why);
        }
        let unknown = |p: &Peer| p.status.member.is_empty() || p.status.data == "unknown";
        if self.too_young(now) {
            return Decision::Wait("a leader may still count on an answer from before");
        }
        if now < self.started + 3 * TIMEOUT_MS && view.peers.iter().any(unknown) {
            return Decision::Wait("starting");
        }
        let votes = self.near(now, view).count() + usize::from(self.may_vote(view));
        if votes < self.majority() {
            if self.consistent {
                return Decision::Wait("no majority can vote");
            }
            let gone = TIMEOUT_MS + self.rank(view) * TIMEOUT_MS / 4;
            let near: Vec<&str> = self.near(now, view).map(|p| p.id.as_str()).collect();
            let mute = |p: &Peer| p.silent_ms < TIMEOUT_MS && self.mute(p).is_some();
            if view.peers.iter().any(|p| !near.contains(&p.id.as_str()) && p.silent_ms < gone && !mute(p)) {
                return Decision::Wait("not silent for long enough");
            }
        }
        let me = &view.me;
        let fit = || {
            self.alive(view)
                .map(|p| &p.status)
                .filter(|s| s.data == me.data && s.set == me.set && self.electable(view, &s.member))
        };
        let newer = fit().filter(|s| s.position > me.position).count() as u64;
        let equal = fit().filter(|s| s.position == me.position && s.member < me.member).count() as u64;
        let patience = (newer + equal) * TIMEOUT_MS / 4 + if newer > 0 { 2 * TIMEOUT_MS } else { 0 };
        if now - self.vacant_since < patience {
            return Decision::Wait("others stand first");
        }
        if votes < self.majority() {
            return Decision::Lead(self.above(view));
        }
        if self.stood_at.is_some_and(|at| now < at + TIMEOUT_MS / 2 + patience) {
            return Decision::Wait("an election was only just held");
        }
        Decision::Stand(self.known_term(view) + 1)
    }

    // --- doing it ---

    fn act(&mut self, now: u64, view: &Snapshot, decision: Decision) {
        if !matches!(decision, Decision::Wait(_)) {
            self.notes.push(format!("{} decides {decision:?}", self.name));
        }
        match decision {
            Decision::Wait(_) => {}
            Decision::Lead(term) => {
                self.ballot.term = term;
                self.ballot.voted_for = self.name.clone();
                (self.ballot.founded, self.ballot.kept) = (true, true);
                self.stood_at = Some(now);
                self.insync.start(term);
                self.orders.push(Order::Lead(term));
            }
            Decision::Stand(term) => self.stand(now, view, term, false, None),
            Decision::Follow(term, leader) => self.orders.push(Order::Follow(term, leader)),
            Decision::StepDown => self.orders.push(Order::Follow(view.me.term, String::new())),
            Decision::HandOver if self.handover.is_some() => {}
            Decision::HandOver if self.handed_at.is_some_and(|at| now < at + TIMEOUT_MS) => {}
            Decision::HandOver => {
                self.handed_at = Some(now);
                self.begin_hand_over(now, view, true);
            }
            Decision::Record(wanted) => self.record(now, view, &wanted),
        }
    }

    fn begin_hand_over(&mut self, now: u64, view: &Snapshot, own: bool) {
        if self.alive(view).next().is_none() {
            return;
        }
        let patience = if own { TIMEOUT_MS } else { 20 * TIMEOUT_MS };
        let stretch = Stretch::Patience;
        self.handover = Some(HandOver { term: view.me.term, stretch, until: now + patience, patience, own });
    }

    fn record(&mut self, now: u64, view: &Snapshot, wanted: &[String]) {
        let (count, members) = self.insync.record(wanted, view, now, HEARTBEAT_MS);
        self.orders.extend(count.map(Order::Count));
        if let Some((members, new)) = members {
            self.write(now, view, members, new);
        }
    }

    /// Have a record written: see `InSync._write`.
    fn write(&mut self, now: u64, view: &Snapshot, members: Vec<String>, new: Vec<String>) {
        if self.ballot.term > self.insync.term {
            return; // it has voted for another
        }
        let (count, recorded) = self.insync.attempt(&members);
        self.orders.extend(count.map(Order::Count));
        self.ballot.recorded = Some(recorded.clone());
        self.ballot.kept = true;
        let message = json!({"kind": "record", "leader": self.name, "term": recorded.term,
            "serial": recorded.serial, "members": recorded.members});
        let peers: Vec<(String, String)> =
            view.peers.iter().filter(|p| p.up).map(|p| (p.id.clone(), p.status.member.clone())).collect();
        let needed = self.majority() - usize::from(self.ballot.trusted);
        self.recording = Some(Recording {
            recorded: recorded.clone(),
            kept: 0,
            enough: if new.is_empty() { needed } else { peers.len() },
            new,
            holders: Vec::new(),
            asked: peers.len(),
            deadline: now + TIMEOUT_MS / 2,
        });
        for (peer, member) in peers {
            self.ask(&peer, Question::Record(recorded.clone(), member), &message);
        }
        self.end_recording(now);
    }

    fn end_recording(&mut self, now: u64) {
        let Some(recording) = &self.recording else { return };
        if recording.kept < recording.enough && recording.asked > 0 && now < recording.deadline {
            return;
        }
        let newest = self.ballot.recorded.as_ref() == Some(&recording.recorded)
            && self.ballot.term <= self.insync.term;
        let needed = self.majority() - usize::from(self.ballot.trusted);
        let held = recording.new.iter().all(|m| recording.holders.contains(m));
        if newest && recording.kept >= needed && held {
            let recorded = recording.recorded.clone();
            self.notes.push(format!("{} has {recorded:?} recorded", self.name));
            self.orders.extend(self.insync.is_recorded(&recorded).map(Order::Count));
        }
        self.recording = None;
    }

    fn ask(&mut self, peer: &str, question: Question, message: &Value) {
        let number = self.next_question;
        self.next_question += 1;
        self.questions.insert(number, question);
        self.orders.push(Order::Ask(peer.to_owned(), number, message.to_string()));
    }

    /// What is under way goes on with time.
    fn go_on(&mut self, now: u64, view: &Snapshot, _rng: &mut Rng) {
        if self.election.as_ref().is_some_and(|e| now >= e.deadline) {
            self.end_election("time is over");
        }
        self.end_recording(now);
        if self.election.as_ref().is_some_and(|e| e.stage == Stage::Record) && self.recording.is_none() {
            self.end_of_record(view);
        }
        self.hand_over(now, view);
    }

    /// See `redisha.group.handover`.
    fn hand_over(&mut self, now: u64, view: &Snapshot) {
        let me = &view.me;
        if std::mem::take(&mut self.wants_hand_over) && me.leads && self.handover.is_none() {
            self.begin_hand_over(now, view, false);
        }
        let Some(mut handover) = self.handover.take() else { return };
        match handover.stretch {
            Stretch::Patience | Stretch::Yielding if !me.leads => {
                return self.orders.push(Order::Yield(false)); // another leads by now, or nobody
            }
            Stretch::Patience => {
                if !self.heirs(view, false).is_empty() {
                    self.orders.push(Order::Yield(true));
                    handover.stretch = Stretch::Yielding;
                    handover.until = now + TIMEOUT_MS;
                } else if now >= handover.until {
                    return;
                }
            }
            Stretch::Yielding => {
                let heirs = self.heirs(view, true);
                if let Some(heir) = heirs.first().filter(|_| view.yielding) {
                    let peer = view.peers.iter().find(|p| p.status.member == *heir).map(|p| p.id.clone());
                    handover.term = me.term;
                    let message = json!({"kind": "take over", "term": me.term, "leader": self.name});
                    self.notes.push(format!("{} asks {heir} to take over", self.name));
                    handover.stretch = Stretch::Asked(self.next_question);
                    handover.until = now + TIMEOUT_MS;
                    self.ask(&peer.unwrap_or_default(), Question::TakeOver, &message);
                } else if now >= handover.until {
                    return self.orders.push(Order::Yield(false));
                }
            }
            Stretch::Asked(_) => {
                if now >= handover.until {
                    // The other may have been elected, or be about to be: this member must not go on.
                    self.orders.push(Order::Follow(handover.term, String::new()));
                    handover.stretch = Stretch::Seen;
                    handover.until = now + handover.patience;
                }
            }
            Stretch::Seen => {
                if now >= handover.until || (!me.leads && !me.leader.is_empty()) {
                    return;
                }
            }
        }
        self.handover = Some(handover);
    }

    fn taken_over(&mut self, now: u64, number: u64, message: &Value) {
        let asked = |h: &&mut HandOver| matches!(h.stretch, Stretch::Asked(n) if n == number);
        let Some(handover) = self.handover.as_mut().filter(asked) else { return };
        let term = handover.term;
        handover.stretch = Stretch::Seen;
        handover.until = now + handover.patience;
        if message["done"] == true {
            let taken = message["term"].as_u64().unwrap_or(0);
            let heir = message["member"].as_str().unwrap_or_default().to_owned();
            self.orders.push(Order::Follow(taken, heir));
        } else if message["done"] == false {
            self.handover = None;
            self.orders.push(Order::Yield(false));
        } else {
            self.orders.push(Order::Follow(term, String::new()));
        }
    }

    // --- elections ---

    fn request(&self, view: &Snapshot, term: u64, stage: Stage, yields: bool) -> Value {
        let me = &view.me;
        json!({
            "kind": "vote", "term": term, "member": self.name, "data": me.data, "set": me.set,
            "position": [me.position.0, me.position.1], "pre": stage == Stage::Pre, "yields": yields,
            "recorded": self.ballot.recorded.as_ref().map(|r| json!([r.term, r.serial, r.members])),
        })
    }

    fn stand(&mut self, now: u64, view: &Snapshot, term: u64, yields: bool, reply_to: Option<u64>) {
        self.stood_at = Some(now);
        let stage = if yields { Stage::Vote } else { Stage::Pre };
        self.election = Some(Election {
            term,
            yields,
            stage,
            votes: 0,
            needed: self.majority(),
            asked: 0,
            deadline: now + TIMEOUT_MS / 2,
            members: Vec::new(),
            reply_to,
            data: view.me.data.clone(),
        });
        if yields {
            return self.ask_in_earnest(now, view);
        }
        let request = self.request(view, term, stage, yields);
        let granted = self.ballot_for(now, view, &request, false);
        if let Err(why) = &granted
            && self.may_vote(view)
        {
            return self.end_election(&format!("it would not vote for itself: {why}"));
        }
        self.ask_for_votes(view, &request, usize::from(granted.is_ok()));
    }

    /// The own vote is noted, the old term left, and the others asked for theirs.
    fn ask_in_earnest(&mut self, now: u64, view: &Snapshot) {
        let Some((term, yields)) = self.election.as_ref().map(|e| (e.term, e.yields)) else { return };
        let request = self.request(view, term, Stage::Vote, yields);
        if let Err(why) = self.ballot_for(now, view, &request, true) {
            if self.may_vote(view) {
                return self.end_election(&format!("it would not vote for itself: {why}"));
            }
            // Its own vote does not count, and never was given twice.
            (self.ballot.term, self.ballot.kept) = (term, true);
            self.ballot.voted_for = self.name.clone();
        }
        if let Some(election) = &mut self.election {
            election.stage = Stage::Vote;
            election.votes = 0;
            election.data = view.me.data.clone();
            election.deadline = now + TIMEOUT_MS / 2;
        }
        self.orders.push(Order::Follow(term, String::new()));
        self.ask_for_votes(view, &request, usize::from(self.ballot.trusted));
    }

    fn ask_for_votes(&mut self, view: &Snapshot, request: &Value, own: usize) {
        let Some((term, stage)) = self.election.as_ref().map(|e| (e.term, e.stage)) else { return };
        let reachable = view.peers.iter().filter(|p| p.up || p.silent_ms < TIMEOUT_MS);
        let peers: Vec<(String, String)> =
            reachable.map(|p| (p.id.clone(), p.status.member.clone())).collect();
        for (peer, member) in &peers {
            self.ask(peer, Question::Vote(term, stage, member.clone()), request);
        }
        if let Some(election) = &mut self.election {
            election.asked = peers.len();
            election.needed = self.members / 2 + 1 - own;
        }
        self.count_votes(self.now, view);
    }

    fn count_votes(&mut self, now: u64, view: &Snapshot) {
        let Some(election) = &self.election else { return };
        if election.votes < election.needed {
            if election.asked == 0 {
                self.end_election("votes are missing");
            }
            return;
        }
        if election.stage == Stage::Pre {
            if self.leader(view).is_some() && !view.me.leads {
                return self.end_election("another leads by now");
            }
            return self.ask_in_earnest(now, view);
        }
        let term = election.term;
        self.insync.start(term);
        let recorded = self.ballot.recorded.as_ref().map(|r| r.members.clone());
        let members = recorded.unwrap_or_else(|| vec![self.name.clone()]);
        if let Some(election) = &mut self.election {
            election.stage = Stage::Record;
            election.deadline = u64::MAX;
            election.members.clone_from(&members);
        }
        if self.consistent && members.contains(&self.name) {
            self.write(now, view, members, Vec::new());
        }
    }

    /// What the members in sync were recorded for: to lead.
    fn end_of_record(&mut self, view: &Snapshot) {
        let Some(election) = &self.election else { return };
        let (term, data) = (election.term, election.data.clone());
        if self.consistent && self.insync.confirmed.as_ref() != Some(&election.members) {
            return self.end_election("the in-sync members could not be recorded");
        }
        if (self.ballot.term, self.ballot.voted_for.as_str()) != (term, self.name.as_str())
            || view.me.term > term
        {
            return self.end_election("another term began meanwhile");
        }
        if view.me.data != data {
            return self.end_election("this member's Redis was lost meanwhile");
        }
        let reply_to = election.reply_to;
        self.election = None;
        self.notes.push(format!("{} is elected for term {term}", self.name));
        (self.ballot.founded, self.ballot.trusted, self.ballot.kept) = (true, true, true);
        self.orders.push(Order::Lead(term));
        self.answer_taker(reply_to, true);
    }

    fn end_election(&mut self, why: &str) {
        let Some(election) = self.election.take() else { return };
        self.notes.push(format!("{} is not elected for term {}: {why}", self.name, election.term));
        self.answer_taker(election.reply_to, false);
    }

    fn answer_taker(&mut self, reply_to: Option<u64>, done: bool) {
        if let Some(number) = reply_to {
            let answer = json!({"done": done, "term": self.ballot.term, "member": self.name});
            self.orders.push(Order::Answer(number, answer.to_string()));
        }
    }

    /// Whether to vote for a candidate; `keep`: the vote is noted. See `redisha.group.vote`.
    fn ballot_for(&mut self, now: u64, view: &Snapshot, request: &Value, keep: bool) -> Result<(), String> {
        let me = &view.me;
        let term = request["term"].as_u64().unwrap_or(0);
        let candidate = request["member"].as_str().unwrap_or_default();
        let yields = request["yields"] == true;
        let recorded = read_recorded(&request["recorded"]).max(self.ballot.recorded.clone());
        if !self.may_vote(view) {
            return Err("it may have forgotten a vote".into());
        }
        if term <= self.ballot.term {
            return Err(format!("it has voted in term {}, or knows its leader", self.ballot.term));
        }
        if term < me.term || (term == me.term && (!me.leader.is_empty() || me.leads)) {
            return Err(format!("it is in term {}", me.term));
        }
        let itself = candidate == self.name;
        if !(itself && me.leads) {
            if me.leads && !(yields && view.yielding) {
                return Err("it leads".into());
            }
            if !yields {
                if self.leader(view).is_some_and(|p| p.status.member != candidate) {
                    return Err(format!("it hears the leader {}", me.leader));
                }
                if self.too_young(now) {
                    return Err("it was started less than an election timeout ago".into());
                }
            }
        }
        let known = recorded.as_ref().filter(|_| self.consistent).map(|r| &r.members);
        let data = request["data"].as_str().unwrap_or_default();
        if data == "unknown" || data == "partial" {
            return Err("the candidate's data is not complete".into());
        }
        if known.is_some_and(|members| members.iter().all(|m| m != candidate)) {
            return Err("the candidate is not among the members in sync".into());
        }
        if !itself {
            if data != "complete" {
                if me.data != "empty" {
                    return Err("the candidate has none of the group's data, and this member may".into());
                }
            } else if (me.data == "complete" || me.data == "unknown") && !me.set.is_empty() {
                // One that cannot be asked now still has what it had.
                if me.set != request["set"].as_str().unwrap_or_default() {
                    return Err("the candidate has other data".into());
                }
                let position = (
                    request["position"][0].as_u64().unwrap_or(0),
                    request["position"][1].as_u64().unwrap_or(0),
                );
                let counts = known.is_none_or(|members| members.contains(&self.name));
                if position < me.position && counts {
                    return Err(format!("the candidate has older data {position:?} < {:?}", me.position));
                }
            }
        }
        if keep {
            self.ballot.term = term;
            self.ballot.voted_for = candidate.to_owned();
            self.ballot.recorded = recorded;
            (self.ballot.trusted, self.ballot.kept) = (true, true);
        }
        Ok(())
    }

    // --- questions and answers ---

    fn asked(&mut self, now: u64, view: &Snapshot, number: u64, message: &str) {
        let message: Value = serde_json::from_str(message).unwrap_or_default();
        match message["kind"].as_str() {
            Some("vote") => {
                let pre = message["pre"] == true;
                let result = self.ballot_for(now, view, &message, !pre);
                let term = message["term"].as_u64().unwrap_or(0);
                self.notes.push(format!(
                    "{} is asked by {} for its vote ({}) in term {term}: {result:?}",
                    self.name,
                    message["member"],
                    if pre { "pre" } else { "real" }
                ));
                if result.is_ok() && !pre {
                    self.stood_at = Some(now);
                    // It leaves the old term before its answer leaves.
                    self.orders.push(Order::Follow(term, String::new()));
                }
                let answer = json!({"granted": result.is_ok(), "term": self.known_term(view),
                    "trusted": self.may_vote(view),
                    "recorded": self.ballot.recorded.as_ref().map(|r| json!([r.term, r.serial, r.members]))});
                self.orders.push(Order::Answer(number, answer.to_string()));
            }
            Some("record") => {
                let recorded = Recorded {
                    term: message["term"].as_u64().unwrap_or(0),
                    serial: message["serial"].as_u64().unwrap_or(0),
                    members: names(&message["members"]),
                };
                let leader = message["leader"].as_str().unwrap_or_default();
                let kept = self.ballot.trusted
                    && recorded.term >= self.ballot.term.max(view.me.term)
                    && !(recorded.term == view.me.term
                        && !view.me.leader.is_empty()
                        && view.me.leader != leader)
                    && self.ballot.recorded.as_ref().is_none_or(|r| recorded >= *r);
                if kept {
                    if recorded.term > self.ballot.term {
                        self.ballot.term = recorded.term;
                        self.ballot.voted_for.clear();
                    }
                    (self.ballot.founded, self.ballot.kept) = (true, true);
                    self.ballot.recorded = Some(recorded);
                }
                self.orders.push(Order::Answer(number, json!({"kept": kept}).to_string()));
            }
            Some("take over") => {
                let me = &view.me;
                let term = message["term"].as_u64().unwrap_or(0);
                let leader = message["leader"].as_str().unwrap_or_default();
                let follows = me.term == term && me.leader == leader && !me.leads;
                if !follows || self.election.is_some() || self.unfit(now, view).is_some() {
                    return self.answer_taker(Some(number), false);
                }
                let next = self.known_term(view) + 1;
                self.stand(now, view, next, true, Some(number));
            }
            _ => self.orders.push(Order::Answer(number, String::new())),
        }
    }

    fn answered(&mut self, now: u64, view: &Snapshot, number: u64, message: &str) {
        let Some(question) = self.questions.remove(&number) else { return };
        let message: Value = serde_json::from_str(message).unwrap_or_default();
        match question {
            Question::Vote(term, stage, member) => {
                self.seen_term = self.seen_term.max(message["term"].as_u64().unwrap_or(0));
                if message["trusted"] == false {
                    self.mute.insert(member, now);
                } else if message["trusted"] == true {
                    self.mute.remove(&member);
                }
                let recorded = read_recorded(&message["recorded"]);
                // One that leaves this member out may never have come into force: it is not spread.
                if recorded > self.ballot.recorded
                    && recorded.as_ref().is_some_and(|r| r.members.contains(&self.name))
                {
                    self.ballot.recorded = recorded;
                }
                let Some(election) = self.election.as_mut().filter(|e| e.term == term && e.stage == stage)
                else {
                    return;
                };
                election.asked -= 1;
                election.votes += usize::from(message["granted"] == true);
                self.count_votes(now, view);
            }
            Question::Record(recorded, member) => {
                let kept = message["kept"] == true;
                let newest = self.ballot.recorded.as_ref() == Some(&recorded);
                let Some(recording) = self.recording.as_mut().filter(|r| r.recorded == recorded) else {
                    return;
                };
                recording.asked -= 1;
                recording.kept += usize::from(kept);
                if kept && newest {
                    recording.holders.push(member);
                }
                self.end_recording(now);
            }
            Question::TakeOver => self.taken_over(now, number, &message),
        }
    }
}

fn names(of: &Value) -> Vec<String> {
    of.as_array().into_iter().flatten().filter_map(|m| Some(m.as_str()?.to_owned())).collect()
}

fn read_recorded(of: &Value) -> Option<Recorded> {
    Some(Recorded { term: of[0].as_u64()?, serial: of[1].as_u64()?, members: names(&of[2]) })
}
