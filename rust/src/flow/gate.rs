//! Replies that wait until enough members have what they tell of.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::Engine;
use super::copy::copies_behind;
use super::effect::Rule;
use super::group::Post;
use super::replica::Lack;
use super::session::Peering;
use super::ticket::Ticket;
use super::upstream::Upstream;
use crate::plan::spec::{ReadLevel, WriteLevel};
use crate::resp::encode;

/// A follower that was told that it counts may read for a lease from then on; clocks differ by less than this, in per cent.
const CLOCKS_PERCENT: u64 = 105;

/// Who must have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// The member through which the command came, as a replica.
    pub caller: Option<u32>,
    /// How many others.
    pub level: WriteLevel,
}

/// A reply that waits.
#[derive(Debug)]
struct Held {
    /// Everything before this position of the log.
    position: u64,
    since_ms: u64,
    ticket: Ticket,
    reply: SmallVec<[u8; 32]>,
}

/// The replies that wait, in a line for each need.
#[derive(Debug, Default)]
pub(super) struct Gate {
    lines: Vec<(Need, VecDeque<Held>)>,
}

impl Gate {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|(_, line)| line.is_empty())
    }

    fn hold(&mut self, need: Need, held: Held) {
        match self.lines.iter_mut().find(|(of, _)| *of == need) {
            Some((_, line)) => line.push_back(held),
            None => self.lines.push((need, VecDeque::from([held]))),
        }
    }
}

impl Engine {
    /// What must be waited for before the reply to a command (or a transaction of several) may go out: `None`, nothing.
    #[inline]
    pub(super) fn need_of(&self, key: usize, ticket: Option<&Ticket>, rules: &[Rule]) -> Option<(Need, u64)> {
        if self.group.is_none() { None } else { self.need_in_group(key, ticket, rules) }
    }

    fn need_in_group(&self, key: usize, ticket: Option<&Ticket>, rules: &[Rule]) -> Option<(Need, u64)> {
        let group = self.group.as_ref()?;
        let upstream = self.upstreams.get(key)?;
        if upstream.endpoint != group.local {
            return None;
        }
        let session = self.sessions.get(ticket?.session().slot as usize)?;
        let caller = match session.peering {
            // What was sent before the first command that was turned away can still be answered: no less carefully.
            Peering::Call { peer } | Peering::Turned { peer } => Some(self.replica_of(peer)),
            Peering::Stream { .. } | Peering::Beat | Peering::Control | Peering::Stranger => return None,
            Peering::Client | Peering::Link => None,
        };
        let sequencer = self.endpoints.get(group.local)?.sequencer.as_ref()?;
        let writes = rules.iter().any(|r| *r != Rule::Never);
        let behind = rules.iter().any(|r| copies_behind(*r));
        if group.post != Post::Leader {
            // It was sent while this member led: it is not known whether it is in the history that goes on.
            let need = Need { caller: None, level: WriteLevel::All };
            return writes.then_some((need, u64::MAX));
        }
        let consistency = session.consistency;
        let level = match (writes, consistency.read) {
            (true, _) => consistency.write,
            // What it tells must be as safe as a write that was answered.
            (false, ReadLevel::Leader) => WriteLevel::Quorum,
            (false, ReadLevel::One) => WriteLevel::One,
        };
        let leased = group.spec.consistent && (writes || consistency.read == ReadLevel::Leader);
        if caller.is_none() && level == WriteLevel::One && !leased {
            return None;
        }
        let position = if behind { sequencer.log.end() } else { sequencer.log.decided() };
        Some((Need { caller: caller.flatten(), level }, position))
    }

    fn replica_of(&self, peer: usize) -> Option<u32> {
        let group = self.group.as_ref()?;
        let endpoint = group.peers.get(peer)?.endpoint;
        let sequencer = self.endpoints.get(group.local)?.sequencer.as_ref()?;
        sequencer.replicas().find(|r| r.target == endpoint).map(|r| r.bit)
    }

    /// Everything before this position may be told of.
    fn safe(&self, need: Need) -> u64 {
        let Some(group) = self.group.as_ref() else { return u64::MAX };
        let Some(sequencer) = self.endpoints.get(group.local).and_then(|e| e.sequencer.as_ref()) else {
            return u64::MAX;
        };
        if group.post != Post::Leader || self.now.ms >= self.lease_until() {
            return 0; // another may lead by now
        }
        let caller = need.caller.and_then(|bit| sequencer.replicas.get(bit as usize)?.as_ref());
        let caller = caller.map_or(u64::MAX, |replica| {
            let peer = group.peers.iter().find(|p| p.endpoint == replica.target);
            let reads = peer.is_some_and(|p| {
                p.granted_ms > 0 && self.now.ms < p.granted_ms + self.read_lease_ms() * CLOCKS_PERCENT / 100
            });
            match reads || self.keeps_up(group, replica.target).is_some() {
                false => u64::MAX, // one that does not answer reads itself need not have it
                true if replica.lack_now() == Lack::Keys => 0,
                true => replica.has_until(), // what was in flight when its connection broke counts as acknowledged
            }
        });
        if need.level == WriteLevel::One {
            return caller;
        }
        let others = || sequencer.replicas();
        let known = |member: &String| {
            let replica = |p: &super::group::Peer| sequencer.replicas().any(|r| r.target == p.endpoint);
            *member == group.spec.member || group.peer(member).is_some_and(replica)
        };
        if group.spec.consistent && !group.counted.iter().all(known) {
            return 0;
        }
        let mut acked: Vec<u64> = if group.spec.consistent && !group.counted.is_empty() {
            // Each that may be elected must have it.
            let counted = |r: &&super::replica::Replica| {
                let peer = group.peers.iter().find(|p| p.endpoint == r.target);
                peer.is_some_and(|p| group.counted.contains(&p.member))
            };
            let has =
                |r: &super::replica::Replica| if r.lack_now() == Lack::Keys { 0 } else { r.has_until() };
            others().filter(counted).map(has).collect()
        } else {
            others().filter_map(|r| self.keeps_up(group, r.target)).collect()
        };
        if acked.len() + 1 < group.spec.min_in_sync {
            return 0;
        }
        if group.lost && acked.is_empty() {
            return 0; // only this member's own Redis had it
        }
        acked.sort_unstable_by(|a, b| b.cmp(a));
        let members = acked.len() + 1;
        let needed = match need.level {
            WriteLevel::Quorum if !group.spec.consistent => members / 2, // with the leader: more than half
            _ => acked.len(),
        };
        let level = if needed == 0 { u64::MAX } else { acked.get(needed - 1).copied().unwrap_or(0) };
        level.min(caller)
    }

    /// Answer a command now, or when enough members have what it tells of.
    pub(super) fn answer_when_safe(
        &mut self,
        ticket: Ticket,
        needed: Option<(Need, u64)>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some((need, position)) = needed else { return self.settle(ticket, write) };
        let at_once = self.group.as_ref().is_none_or(|g| g.gate.is_empty()) && self.safe(need) >= position;
        if at_once {
            return self.settle(ticket, write);
        }
        let mut reply = std::mem::take(&mut self.scratch);
        reply.clear();
        write(&mut reply);
        let held = Held { position, since_ms: self.now.ms, ticket, reply: SmallVec::from_slice(&reply) };
        self.scratch = reply;
        if let Some(group) = self.group.as_mut() {
            group.gate.hold(need, held);
        }
    }

    /// Let those replies go that need wait no longer.
    pub(super) fn open_gate(&mut self) {
        let Some(group) = self.group.as_mut().filter(|g| !g.gate.is_empty()) else { return };
        let mut gate = std::mem::take(&mut group.gate);
        let patience = self.endpoints.get(group.local).map_or(5_000, |e| e.op_timeout_us / 1_000);
        for (need, line) in &mut gate.lines {
            let safe = self.safe(*need);
            while let Some(held) = line.pop_front_if(|held| held.position <= safe) {
                self.settle(held.ticket, |out| out.extend_from_slice(&held.reply));
            }
            while let Some(held) = line.pop_front_if(|held| held.since_ms + patience <= self.now.ms) {
                let text = "INDOUBT the leader has executed the command, and not enough members have acknowledged it in \
                            time; it may be lost should the leader be";
                self.settle(held.ticket, |out| encode::error(out, text));
            }
        }
        let Some(group) = self.group.as_mut() else { return };
        group.gate = gate;
        if group.post != Post::Leader {
            self.give_up_held("another member has taken the lead");
        }
    }

    /// The replies that wait will never be safe.
    pub(super) fn give_up_held(&mut self, why: &str) {
        let Some(group) = self.group.as_mut() else { return };
        let gate = std::mem::take(&mut group.gate);
        let text = format!(
            "INDOUBT {why} before enough members had acknowledged the command; it may have been applied"
        );
        let local = group.local;
        self.give_up_waits(local);
        for held in gate.lines.into_iter().flat_map(|(_, line)| line) {
            self.settle(held.ticket, |out| encode::error(out, &text));
        }
    }

    /// Whether too few members are in sync for a write of this level.
    pub(super) fn too_few_in_sync(&self, level: WriteLevel) -> Option<String> {
        let group = self.group.as_ref().filter(|g| level != WriteLevel::One && g.spec.min_in_sync > 1)?;
        let there = 1 + group.peers.iter().filter(|p| self.keeps_up(group, p.endpoint).is_some()).count();
        (there < group.spec.min_in_sync).then(|| {
            format!(
                "NOREPLICAS group {}: {there} of {} members that min_in_sync wants are in sync; nothing was written, try \
                 again",
                group.spec.name, group.spec.min_in_sync
            )
        })
    }
}

/// Whether a connection may be used for commands of clients.
pub(super) fn is_usable(upstream: Option<&Upstream>) -> bool {
    upstream.is_some_and(Upstream::is_ready)
}
