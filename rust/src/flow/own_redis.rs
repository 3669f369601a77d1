//! This member's own Redis comes, goes, or hangs.

use super::Engine;
use super::gate::is_usable;
use super::group::Post;
use super::marker::Part;
use super::replica::{Lack, Need, Replica};
use super::sequencer::{Proof, Sequencer};
use super::upstream::{Role, Upstream};

impl Engine {
    /// This member's own Redis is there (again).
    pub(super) fn own_redis_ready(&mut self, key: usize) {
        let Some((_, identity)) = self.primary_identity(key) else { return };
        let marker = self.own_marker();
        let Some(group) = self.group.as_mut() else { return };
        let Some(sequencer) = self.endpoints.get_mut(key).and_then(|e| e.sequencer.as_mut()) else { return };
        let restarted = sequencer.run_id != identity.run_id;
        let first = sequencer.run_id.is_empty();
        if first {
            // What the process before this one did last.
            group.led |= marker.is_some_and(|m| m.part == Part::Primary);
        }
        sequencer.run_id.clone_from(&identity.run_id);
        if group.post == Post::Leader {
            // A snapshot may be as old as the generation; a follower has got what came after it, perhaps but for some keys.
            let went_on = |r: &Replica| r.open && is_usable(self.upstreams.get(r.upstream));
            let may_be_old = restarted && !identity.aof && sequencer.replicas().any(went_on);
            let marked = marker.is_some_and(|m| !m.partial && m.generation >= sequencer.marked);
            let whole = marked && !may_be_old;
            if restarted && (group.lost || !whole) {
                group.reborn = Some(marker.map_or(0, |m| m.generation));
            }
            if !restarted || group.lost {
                // The very same, or it is not used before it has been decided who leads.
            } else if whole {
                // No other has more: it would lead by now.
                self.proven(key, Need::Marked);
            } else {
                let term = group.term;
                return self.follow(term + 1, "");
            }
        } else {
            sequencer.proof = Proof::Following;
            if restarted {
                group.received = (marker.map_or(0, |m| m.generation), 0);
                group.granted_until = 0;
                group.whole &= first; // (clients of the process before this one are not known to it)
            }
        }
        self.publish_group();
    }

    /// What its leader has told of its position is so once its own Redis has answered what came before.
    pub(super) fn note_received(&mut self) {
        let Some(group) = self.group.as_mut().filter(|g| !g.passed.is_empty()) else { return };
        let serve = self.endpoints.get(group.local).and_then(|e| self.upstreams.get(e.serve[0]?));
        let Some(upstream) = serve.filter(|u| u.is_ready()) else { return };
        let answered = upstream.calls.iter().find_map(super::call::Call::offset).unwrap_or(u64::MAX);
        while let Some((_, position)) = group.passed.pop_front_if(|(end, _)| *end <= answered) {
            // (It may have been told more before its Redis refused an effect.)
            if position.0 >= group.received.0 {
                group.received = position;
            }
        }
    }

    /// This member's own Redis is gone.
    pub(super) fn own_redis_lost(&mut self) {
        let Some(group) = self.group.as_mut() else { return };
        group.granted_until = 0;
        group.passed.clear(); // what was in flight may never have arrived
        if group.post == Post::Leader {
            let sequencer = self.endpoints.get(group.local).and_then(|e| e.sequencer.as_ref());
            // Once it is, only a new term ends it.
            let consistent = group.spec.consistent;
            group.lost |= sequencer.is_some_and(|s| has_heir(s, &self.upstreams, consistent));
            // What its Redis has by now is not what others are to have.
            if group.lost
                && let Some(sequencer) =
                    self.endpoints.get_mut(group.local).and_then(|e| e.sequencer.as_mut())
            {
                sequencer.proof = Proof::Following;
            }
            if group.lost && group.lost_copies {
                self.give_up_held("this member's Redis was lost");
            }
        }
        self.end_streams(u64::MAX);
        self.upkeep_at = 0;
        let name = self.group.as_ref().map(|g| g.spec.name.clone()).unwrap_or_default();
        self.tell("group", name, "its own Redis is gone".to_owned());
        self.publish_group();
    }

    /// Whether the leader's own Redis has answered nothing for so long that its clients would soon be told so, while
    /// another member could answer them. (A slow command alone is not waited for less long than without a group.)
    pub(super) fn own_redis_hangs(&self, key: usize) -> bool {
        let Some((group, upstream)) = self.group.as_ref().zip(self.upstreams.get(key)) else { return false };
        if upstream.role != Role::Serve || upstream.endpoint != group.local || upstream.calls.is_empty() {
            return false;
        }
        let Some(endpoint) = self.endpoints.get(group.local) else { return false };
        let patience_ms = (endpoint.op_timeout_us / 1_000 * 4 / 5).max(group.spec.timeout_ms);
        self.now.ms.saturating_sub(upstream.waiting_since) >= patience_ms
            && group.post == Post::Leader
            && endpoint
                .sequencer
                .as_ref()
                .is_some_and(|s| has_heir(s, &self.upstreams, group.spec.consistent))
    }
}

/// Whether a follower could lead now that this leader's Redis is lost. Where that loses nothing that was acknowledged to
/// be safe, one that lacks the copies of some keys is better than none: they are merged when that Redis is back.
pub(super) fn could_lead(replica: &Replica, upstreams: &slab::Slab<Upstream>, consistent: bool) -> bool {
    let has_all = if consistent { replica.is_clean() } else { replica.lack_now() != Lack::Keys };
    replica.open && has_all && is_usable(upstreams.get(replica.upstream))
}

fn has_heir(sequencer: &Sequencer, upstreams: &slab::Slab<Upstream>, consistent: bool) -> bool {
    sequencer.replicas().any(|r| could_lead(r, upstreams, consistent))
}
