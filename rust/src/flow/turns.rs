//! Clusters whose keys have no home: each command goes to the endpoint whose turn it is.
//!
//! A session's commands may be in flight on several of them. Their replies leave in its order all the same: one that
//! comes early is parked. What belongs together stays together: a transaction, and all that a session does while it has
//! a connection of its own (WATCH, subscriptions, tracking, commands that block).

use crate::command::{Command, Flags};
use crate::plan::{Scatter, mix};

use super::session::Session;
use super::ticket::SessionId;
use super::upstream::{Role, Upstream};
use super::{Engine, RouteTargets, Target};

impl Engine {
    /// Where a session's next command goes among the endpoints of a scattered cluster. Until it is taken, and as long as
    /// the same of them are up, the answer stays the same.
    pub(super) fn turn_of<'a>(
        &self,
        slot: usize,
        command: Option<&'static Command>,
        scatter: &Scatter,
        targets: &'a RouteTargets,
    ) -> Option<&'a Target> {
        if command.is_some_and(|c| c.flags.contains(Flags::PUBSUB)) {
            return targets.by_endpoint.first(); // who publishes and who subscribes meet at the same one
        }
        let session = &self.sessions[slot];
        let stays =
            self.stays_at(session).and_then(|at| targets.by_endpoint.iter().find(|t| t.endpoint == at));
        if stays.is_some() {
            return stays;
        }
        let endpoint = |i: usize| targets.by_endpoint.get(i).map_or(usize::MAX, |t| t.endpoint);
        let turn = self.turns.get(targets.cluster).copied().unwrap_or_default();
        let at = scatter.pick(
            turn,
            self.draw(session.id, session.issued),
            |i| self.is_up(endpoint(i)),
            |i| self.calls_at(endpoint(i)),
        )?;
        targets.by_endpoint.get(at)
    }

    /// The endpoint that a session is bound to: by the transaction it queues, or by a connection of its own.
    fn stays_at(&self, session: &Session) -> Option<usize> {
        let extra = session.extra.as_deref()?;
        let queued = extra.transaction.as_ref().and_then(|t| t.path);
        let own = || Some(self.upstreams.get(extra.private.as_ref()?.upstream)?.endpoint);
        queued.or_else(own)
    }

    /// A command was taken by an endpoint: the next one is another's.
    #[inline]
    pub(super) fn took_turn(&mut self, endpoint: usize) {
        if let Some(cluster) = self.endpoints.get(endpoint).and_then(|e| e.scattered)
            && let Some(turn) = self.turns.get_mut(cluster)
        {
            *turn = turn.wrapping_add(1);
        }
    }

    /// Whether a command may leave on one connection while others of its session are in flight on another.
    #[cold]
    pub(super) fn may_spread(&self, path: usize, key: usize) -> bool {
        let shared = |u: &&Upstream| u.role == Role::Serve;
        let cluster = |key: usize| {
            let upstream = self.upstreams.get(key).filter(shared)?;
            self.endpoints.get(upstream.endpoint)?.scattered
        };
        cluster(path).is_some_and(|of| cluster(key) == Some(of))
    }

    /// The random number of a session's command: always the same one.
    pub(super) fn draw(&self, session: SessionId, number: u64) -> u64 {
        draw(self.luck, session, number)
    }

    /// Commands in flight on the connections of an endpoint that all share.
    fn calls_at(&self, endpoint: usize) -> usize {
        let serve = self.endpoints.get(endpoint).into_iter().flat_map(|e| e.serve.iter().flatten());
        serve.filter_map(|key| self.upstreams.get(*key)).map(|u| u.calls.len()).sum()
    }
}

fn draw(luck: u64, session: SessionId, number: u64) -> u64 {
    mix(luck ^ mix((u64::from(session.generation.get()) << 32) ^ number))
}

/// Commands without keys that any server of a scattered cluster may answer.
pub(super) fn is_for_any(command: &Command) -> bool {
    let name = command.name;
    ["eval", "fcall", "client|"].iter().any(|head| name.starts_with(head))
        || matches!(name, "script|exists" | "function|list" | "function|dump" | "function|stats")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn draws_are_even_and_stay() {
        let session = |n| SessionId { slot: 0, generation: NonZeroU32::MIN.saturating_add(n) };
        let drawn = |luck| -> Vec<u64> {
            (0..100).flat_map(|s| (0..100).map(move |n| draw(luck, session(s), n) % 10)).collect()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        for luck in 0..20 {
            for part in 0..10 {
                let count = drawn(luck).iter().filter(|d| **d == part).count();
                // (Six standard deviations are 180.)
                assert!((820..=1_180).contains(&count), "{count} of 10000 are {part}");
            }
        }
    }
}
