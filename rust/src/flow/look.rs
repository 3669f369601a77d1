//! Data of the member's own Redis that is not the group's: looked at again while it is there, so that emptying it by hand
//! is noticed without a new connection.

use super::Engine;
use super::call::Call;
use super::group::Post;
use super::handshake::{Identity, is_empty};
use super::resync::databases;
use crate::resp::{Reply, encode};

/// Time between two looks, milliseconds.
const LOOK_MS: u64 = 1_000;

impl Engine {
    /// Ask a Redis with foreign data whether it still has any, if that is due.
    pub(super) fn look_at_foreign(&mut self) {
        let now_ms = self.now.ms;
        let Some(group) = self.group.as_ref().filter(|g| g.post != Post::Leader && now_ms >= g.look_at)
        else {
            return;
        };
        let Some(serve) = self.endpoints.get(group.local).and_then(|e| e.serve[0]) else { return };
        let Some(upstream) = self.upstreams.get_mut(serve).filter(|u| u.is_ready()) else { return };
        let foreign = |i: &Identity| i.markers.is_empty() && !i.empty;
        if !upstream.identity.as_ref().is_some_and(foreign) {
            return;
        }
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &["INFO", "keyspace"]);
        upstream.out.push(&bytes);
        upstream.expect(Call::Keyspace, now_ms);
        Self::mark_upstream(upstream, serve, &mut self.dirty_upstreams);
        if let Some(group) = self.group.as_mut() {
            group.look_at = now_ms + LOOK_MS;
        }
    }

    /// The answer. What was emptied is the same as a Redis that came without data.
    pub(super) fn looked_at_foreign(&mut self, key: usize, reply: Reply<'_>) {
        let Some(text) = reply.text().filter(|_| !reply.is_error()) else { return };
        let found = databases(&String::from_utf8_lossy(text));
        let Some(identity) = self.upstreams.get_mut(key).and_then(|u| u.identity.as_mut()) else { return };
        if !identity.markers.is_empty() || !is_empty(&found, identity.place, &[]) {
            return;
        }
        identity.empty = true;
        let Some(name) = self.group.as_ref().map(|g| g.spec.name.clone()) else { return };
        self.tell("group", name, "its own Redis was emptied".to_owned());
        self.publish_group();
    }
}
