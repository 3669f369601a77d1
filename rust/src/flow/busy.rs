//! A script that runs for long where all share a connection: what clients send meanwhile takes a second one, which all share as
//! well, so that the Redis answers them as it answers whoever asks it then, with `BUSY` in time. Only where writes have no order
//! to keep.

use crate::command::{Command, lookup};
use crate::resp::Request;

use super::Engine;
use super::call::{Call, command_of};
use super::ingress::{Incoming, Step};
use super::upstream::{Role, Upstream};

/// From here on a script runs for long, milliseconds.
const LONG_MS: u64 = 100;
/// Calls that are looked at.
const LOOK: usize = 64;
/// How long the second connection is kept after its last use, milliseconds.
const KEPT_MS: u64 = 30_000;
/// After it was lost there is none for so long, milliseconds.
const PAUSE_MS: u64 = 1_000;
/// Where those of an endpoint are among its connections, behind the usual ones for both versions of the protocol.
const RELIEF: usize = 2;

/// Whether a command runs a script or a function.
pub(super) fn is_script(command: &Command) -> bool {
    command.name.starts_with("eval") || command.name.starts_with("fcall")
}

impl Upstream {
    /// Whether it may be a script that is waited for: replies to what came with it are not sent before its end, either.
    pub(super) fn runs_script(&self) -> bool {
        self.calls.iter().take(LOOK).any(|call| match call {
            Call::Client(call) => command_of(call.command).is_some_and(is_script),
            Call::Transaction(call) => call.items.iter().any(|i| i.command.is_some_and(is_script)),
            _ => false,
        })
    }
}

impl Engine {
    /// Whether what is sent on this connection, one that all share, would wait for a script.
    #[inline]
    pub(super) fn is_held_up(&self, key: usize) -> bool {
        let stands = |u: &Upstream| u.waiting_since + LONG_MS < self.now.ms && !u.calls.is_empty();
        self.upstreams.get(key).is_some_and(stands) && self.is_held_up_by_script(key)
    }

    #[cold]
    fn is_held_up_by_script(&self, key: usize) -> bool {
        let Some(upstream) = self.upstreams.get(key) else { return false };
        upstream.runs_script()
            && upstream.role == Role::Serve
            && self
                .endpoints
                .get(upstream.endpoint)
                .is_some_and(|e| e.sequencer.is_none() && !e.peer && !e.is_link() && !e.redirects)
    }

    /// The connection that is taken in place of this one, the usual one for a version of the protocol, while that is held up.
    /// `None`: there is none, and who waits has to wait.
    #[cold]
    pub(super) fn relief(&mut self, endpoint: usize, serve: usize) -> Option<usize> {
        let at = RELIEF + serve;
        if let Some(key) = self.endpoints[endpoint].serve[at] {
            return Some(key);
        }
        if self.now.ms < self.endpoints[endpoint].relief_ms {
            return None;
        }
        let resp = if serve == 0 { 2 } else { 3 };
        let key = self.new_upstream(endpoint, Role::Relief, resp);
        self.upstreams[key].alive(self.now.ms);
        self.endpoints[endpoint].serve[at] = Some(key);
        Some(key)
    }

    /// It is gone, or could not be opened.
    pub(super) fn relief_lost(&mut self, key: usize) {
        let Some(endpoint) = self.upstreams.get(key).map(|u| u.endpoint) else { return };
        self.upstreams.remove(key);
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.serve.iter_mut().filter(|serve| **serve == Some(key)).for_each(|serve| *serve = None);
            endpoint.relief_ms = self.now.ms + PAUSE_MS;
        }
    }

    /// Close it when it is not needed any more.
    pub(super) fn tend_relief(&mut self, key: usize) {
        let upstream = &self.upstreams[key];
        if upstream.calls.is_empty()
            && upstream.waiters.is_empty()
            && upstream.waiting_since + KEPT_MS <= self.now.ms
        {
            self.remove_upstream(key);
        }
    }

    /// `PING` is answered by the Redis as long as a script holds it up. `None`: none does.
    pub(super) fn ping_if_busy(&mut self, slot: usize, request: &Request<'_>) -> Option<Step> {
        if !self.endpoints.iter().any(|(key, _)| self.is_busy(key)) {
            return None;
        }
        let ping = lookup(b"PING")?;
        let place = self.place_nearest(slot, ping, request).ok()?;
        if !self.is_busy(place.endpoint) {
            return None;
        }
        Some(self.forward(slot, Some(ping), &Incoming { request: *request, owner: None }))
    }

    fn is_busy(&self, endpoint: usize) -> bool {
        let serve = self.endpoints.get(endpoint).map(|e| e.serve);
        serve.iter().flatten().flatten().any(|key| self.is_held_up(*key))
    }
}
