//! Beats: what members tell each other of themselves, and what one says of all of them to its control plane.
//!
//! A beat that was answered proves that the other side lived after it was sent. A follower's own reads are good for a
//! while after it sent a beat to which its leader answered that it counts as in sync; the leader's lease lasts for a
//! while after it sent the beats that a majority answered. Each side only ever compares its own clock with itself.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Engine;
use super::call::Call;
use super::group::{Group, Post, TERM_SHIFT};
use super::own_redis::could_lead;
use super::replica::{Lack, Replica};
use super::upstream::Upstream;
use crate::resp::{Reply, encode};

/// A lease is this much shorter than the time after which a member is taken for gone, in per cent.
const LEASE_PERCENT: u64 = 80;
/// A time that never was.
pub(super) const NEVER_MS: u64 = 1 << 40;

/// What a member says of itself.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Status {
    pub member: String,
    pub term: u64,
    pub leader: String,
    pub role: String,
    pub data: String,
    pub set: String,
    pub generation: u64,
    pub sequence: u64,
    pub in_sync: bool,
    pub journal: u64,
    /// It has led, and has not been filled by another leader since.
    pub led: bool,
    /// Milliseconds since 1970, by its clock.
    pub unix_ms: u64,
    /// In an answer: whether the one that asked counts as in sync.
    pub counts: bool,
    /// A number of its process.
    pub nonce: u64,
    /// Microseconds of its clock: what it says later has more.
    pub at_us: u64,
}

impl Engine {
    /// What this member says of itself.
    pub(super) fn own_status(&self) -> Status {
        let Some(group) = self.group.as_ref() else { return Status::default() };
        let ready = self.primary_identity(group.local);
        let marker = self.own_marker();
        let leads = group.post == Post::Leader && !group.lost;
        let data = match (&ready, marker) {
            (None, _) => "unknown",
            _ if leads => "complete",
            (_, Some(marker)) if marker.partial => "partial",
            (_, Some(_)) => "complete",
            (Some((_, identity)), None) if identity.empty => "empty",
            _ => "foreign",
        };
        let sequencer = self.endpoints.get(group.local).and_then(|e| e.sequencer.as_ref());
        let own = marker.map_or(0, |m| m.generation);
        let (generation, sequence) = match sequencer {
            Some(s) if leads => (s.generation.max(own), s.log.decided()),
            _ if group.received.0 < own => (own, 0),
            _ => group.received,
        };
        Status {
            member: group.spec.member.clone(),
            term: group.term,
            leader: group.leader.clone(),
            role: match group.post {
                Post::Leader => "leader",
                Post::Follower => "follower",
                Post::Nobody => "none",
            }
            .to_owned(),
            data: data.to_owned(),
            set: match (marker, sequencer) {
                (Some(marker), _) => format!("{:016x}", marker.set),
                (None, Some(s)) if leads => format!("{:016x}", s.set),
                _ => String::new(),
            },
            generation,
            sequence,
            in_sync: ready.is_some() && if leads { true } else { self.now.ms < group.granted_until },
            journal: group.journal.len() as u64,
            led: group.led,
            unix_ms: self.now.unix_ms,
            counts: false,
            nonce: group.nonce,
            at_us: self.now.us,
        }
    }

    /// Beats that are due, and what time alone changes in a group.
    pub(super) fn tick_group(&mut self) {
        self.note_received();
        let Some(group) = self.group.as_mut() else { return };
        if self.now.ms < group.beat_at {
            self.expire_group_waiters();
            return self.publish_group();
        }
        group.beat_at = self.now.ms + group.spec.heartbeat_ms.max(1);
        let beats: Vec<usize> = group.peers.iter().map(|p| p.beat).collect();
        let status = self.own_status();
        let text = serde_json::to_string(&status).unwrap_or_default();
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &["REDISHA", "BEAT", &text]);
        for key in beats {
            let Some(upstream) = self.upstreams.get_mut(key).filter(|u| u.is_ready()) else { continue };
            if upstream.calls.iter().filter(|c| matches!(c, Call::Beat { .. })).count() >= 4 {
                continue; // it does not answer; what waits would all come at once
            }
            upstream.out.push(&bytes);
            upstream.expect(Call::Beat { sent_ms: self.now.ms }, self.now.ms);
            Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        }
        self.look_at_journal();
        self.look_at_foreign();
        self.expire_group_waiters();
        self.publish_group();
    }

    /// The answer to a beat.
    pub(super) fn beaten(&mut self, key: usize, sent_ms: u64, reply: Reply<'_>) {
        let Some(status) = reply.text().and_then(|text| serde_json::from_slice::<Status>(text).ok()) else {
            return;
        };
        let endpoint = self.upstreams.get(key).map_or(usize::MAX, |u| u.endpoint);
        let read_lease = self.read_lease_ms();
        let Some(group) = self.group.as_mut() else { return };
        if status.counts
            && status.leader == group.leader
            && status.member == group.leader
            && status.term == group.term
        {
            group.granted_until = group.granted_until.max(sent_ms + read_lease);
            group.whole = true;
        } else if status.member == group.leader {
            group.granted_until = 0;
        }
        let Some(peer) = group.peers.iter_mut().find(|p| p.endpoint == endpoint) else { return };
        let back = peer.answered_ms.max(peer.heard_ms) + group.spec.timeout_ms <= self.now.ms;
        peer.answered_ms = peer.answered_ms.max(sent_ms);
        if status.term == group.term && status.leader == group.spec.member {
            peer.followed_ms = peer.followed_ms.max(sent_ms);
        }
        self.heard(endpoint, status);
        if back {
            self.wake_group(); // it may be the leader that they wait for
        }
    }

    /// What a member says of itself has come, in a beat or in the answer to one.
    pub(super) fn heard(&mut self, endpoint: usize, status: Status) {
        let Some(group) = self.group.as_mut() else { return };
        let Some(peer) = group.peers.iter_mut().find(|p| p.endpoint == endpoint) else { return };
        if peer.status.nonce == status.nonce && peer.status.at_us > status.at_us {
            return; // it came on another connection, and is older
        }
        let news = (peer.status.term, &peer.status.role, &peer.status.data)
            != (status.term, &status.role, &status.data);
        peer.member.clone_from(&status.member);
        let (member, term, leads) = (status.member.clone(), status.term, status.role == "leader");
        peer.skew_ms = (status.unix_ms as i64).saturating_sub(self.now.unix_ms as i64);
        peer.status = status;
        if member == group.spec.member {
            return;
        }
        // A leadership that was decided elsewhere.
        if leads
            && (term > group.term
                || (term == group.term && group.post == Post::Nobody && group.leader.is_empty()))
        {
            self.follow(term, &member);
        } else if news {
            let name = group.spec.name.clone();
            self.tell("group", name, format!("{member}: news"));
        }
    }

    /// How long a follower's own reads are good after the sending of a beat, milliseconds.
    pub(super) fn read_lease_ms(&self) -> u64 {
        self.group.as_ref().map_or(0, |g| g.spec.timeout_ms)
    }

    /// Until when this leadership holds; only where no two may ever lead at once.
    pub(super) fn lease_until(&self) -> u64 {
        let Some(group) = self.group.as_ref() else { return u64::MAX };
        if !group.spec.consistent {
            return u64::MAX;
        }
        let others = || group.peers.iter().filter(|p| p.member != group.spec.member);
        let mut answered: Vec<u64> = others().map(|p| p.followed_ms).collect();
        let mut members = answered.len() + 1;
        if members == 2 {
            answered.push(group.arbiter_ms);
            members = 3;
        }
        answered.sort_unstable_by(|a, b| b.cmp(a));
        let needed = members / 2; // beside this one
        let at = if needed == 0 { return u64::MAX } else { answered.get(needed - 1).copied().unwrap_or(0) };
        if at == 0 { 0 } else { at + group.spec.timeout_ms * LEASE_PERCENT / 100 }
    }

    /// Ask another member's control plane; the answer is the event `answer`.
    ///
    /// It does not wait in the line of the beats: a control plane may take its time.
    pub fn ask_member(&mut self, peer: &str, number: u64, message: &str) {
        let endpoint = self.endpoints.iter().find(|(_, e)| e.peer && e.id == peer).map(|(key, _)| key);
        let me = self.group.as_ref().map(|g| g.spec.member.clone()).unwrap_or_default();
        let beat = endpoint
            .and_then(|e| self.group.as_ref()?.peers.iter().find(|p| p.endpoint == e))
            .map(|p| p.beat);
        if !self.say(beat, &["REDISHA", "ASK", &me, &number.to_string(), message]) {
            self.tell("answer", number.to_string(), String::new());
        }
    }

    /// The answer of this member's control plane to another's question.
    pub fn answer_member(&mut self, number: u64, message: &str) {
        let Some(group) = self.group.as_mut() else { return };
        let Some((member, theirs)) = group.asked.remove(&number) else { return };
        let beat = group.peer(&member).map(|p| p.beat);
        self.say(beat, &["REDISHA", "ANSWER", &theirs.to_string(), message]);
    }

    /// Say something to another member, if it is there.
    fn say(&mut self, beat: Option<usize>, words: &[&str]) -> bool {
        let Some(key) = beat else { return false };
        let Some(upstream) = self.upstreams.get_mut(key).filter(|u| u.is_ready()) else { return false };
        upstream.say(words, self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        true
    }

    /// All that is known of the group, for the control plane: JSON, see `redisha.group.status`.
    pub(super) fn group_snapshot(&self) -> String {
        let Some(group) = self.group.as_ref() else { return String::new() };
        let sequencer = self.endpoints.get(group.local).and_then(|e| e.sequencer.as_ref());
        // Who lacks something is an heir only where nobody has everything.
        let desperate = group.lost && !group.peers.iter().any(|p| self.is_in_sync(group, p.endpoint));
        let peers: Vec<Value> = group
            .peers
            .iter()
            .map(|peer| {
                let endpoint = self.endpoints.get(peer.endpoint);
                let beat = self.upstreams.get(peer.beat);
                let seen = peer.answered_ms.max(peer.heard_ms);
                let replica = sequencer
                    .and_then(|s| s.replicas().find(|r| r.target == peer.endpoint))
                    .filter(|_| group.post == Post::Leader);
                let (end, oldest) = sequencer.zip(replica).map_or((0, 0), |(s, r)| {
                    (s.log.decided(), s.log.get(r.acked).map_or(0, |e| self.now.ms.saturating_sub(e.at_ms)))
                });
                json!({
                    "id": endpoint.map_or("", |e| e.id.as_str()),
                    "up": beat.is_some_and(Upstream::is_ready),
                    "silent_ms": if seen == 0 { NEVER_MS } else { self.now.ms - seen.min(self.now.ms) },
                    "reason": beat.map_or("", |u| u.reason.as_str()),
                    "status": peer.status,
                    "caught_up": sequencer.zip(replica).is_some_and(|(s, r)| {
                        r.is_known() && r.acked >= s.log.end() && r.lack_now() != Lack::Keys
                    }),
                    "sealed": replica.is_some_and(|r| self.is_sealed(r)),
                    "counted": self.is_in_sync(group, peer.endpoint)
                        || (desperate && replica.is_some_and(|r| could_lead(r, &self.upstreams, group.spec.consistent))),
                    "replica": replica.map_or("", |r| r.state),
                    "lag": replica.map_or(0, |r| end.saturating_sub(r.acked)),
                    "lag_bytes": replica.map_or(0, |r| r.stats.count.lag_bytes.get()),
                    "lag_ms": oldest,
                    "skew_ms": peer.skew_ms,
                })
            })
            .collect();
        json!({
            "name": group.spec.name,
            "me": self.own_status(),
            "peers": peers,
            "yielding": group.yielding,
            "lost": group.lost,
            "terms_of_data": group.base >> TERM_SHIFT,
            "waiting": group.resend.len(),
        })
        .to_string()
    }

    /// Whether the member at this endpoint has everything, as far as its leader knows.
    pub(super) fn is_in_sync(&self, group: &Group, endpoint: usize) -> bool {
        self.follower(group, endpoint).is_some_and(Replica::is_clean)
    }

    /// Up to which position of the log the member at this endpoint has everything; `None` if it lacks more than what is on
    /// its way to it, copies of a few keys among that.
    pub(super) fn keeps_up(&self, group: &Group, endpoint: usize) -> Option<u64> {
        let replica = self.follower(group, endpoint)?;
        let until = (replica.lack_now() != Lack::Keys).then(|| replica.has_until())?;
        (replica.is_clean() || until > 0).then_some(until)
    }

    /// The member at this endpoint, if it answers this leader.
    fn follower(&self, group: &Group, endpoint: usize) -> Option<&Replica> {
        if group.post != Post::Leader {
            return None;
        }
        let sequencer = self.endpoints.get(group.local)?.sequencer.as_ref()?;
        let replica = sequencer.replicas().find(|r| r.target == endpoint)?;
        // One that has acknowledged nothing for so long may be gone.
        let answers = |u: &Upstream| {
            u.is_ready() && (u.calls.is_empty() || u.waiting_since + group.spec.timeout_ms > self.now.ms)
        };
        (replica.open && self.upstreams.get(replica.upstream).is_some_and(answers)).then_some(replica)
    }
}
