//! The transaction of a client that watches keys, where writes have one order.
//!
//! The server knows what was done to a watched key only for the connection that watches it, so EXEC must go there: beside
//! the connection that carries all other writes. It is a barrier in their order: what was sent before is answered first, and
//! nothing is sent before EXEC is answered.

use super::Engine;
use super::call::Call;
use super::ingress::Step;
use super::session::Wait;
use super::ticket::SessionId;
use super::upstream::{Role, Upstream};

impl Engine {
    /// Have the shared connection of an endpoint stand still for a session's transaction.
    pub(super) fn bar(&mut self, slot: usize, endpoint: usize) -> Result<(), Step> {
        let id = self.sessions[slot].id;
        let serve = self.endpoints[endpoint].serve[0];
        let mine = |barred: Option<SessionId>| barred == Some(id);
        let held = serve.and_then(|key| self.upstreams.get(key)).is_some_and(|u| mine(u.barred));
        if !held {
            // Ready, and in nobody else's hands.
            self.enter(slot, endpoint, true)?;
        }
        let Some(key) = self.endpoints[endpoint].serve[0] else { return Err(Step::Stall(Wait::Quiet)) };
        let overdue = std::mem::take(&mut self.sessions[slot].overdue);
        let upstream = &mut self.upstreams[key];
        if !upstream.is_ready() || overdue {
            self.unbar(id);
            return Err(self.overdue(slot, endpoint));
        }
        upstream.barred = Some(id);
        if upstream.calls.is_empty() {
            return Ok(());
        }
        upstream.wait(id, false);
        // (What brought it into the session's database is among them, and must leave.)
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        Err(Step::Stall(Wait::Upstream))
    }

    /// This member leads no more: transactions that wait for their turn are not executed here.
    pub(super) fn lift_bars(&mut self) {
        let waiting = |id: &SessionId| {
            let private = |u: &Upstream| u.role == Role::Private { session: *id };
            let sent = |u: &Upstream| u.calls.iter().any(|c| matches!(c, Call::Transaction(_)));
            !self.upstreams.iter().any(|(_, u)| private(u) && sent(u))
        };
        let ids: Vec<_> = self.upstreams.iter().filter_map(|(_, u)| u.barred).filter(waiting).collect();
        for id in ids {
            self.unbar(id);
        }
    }

    /// A session's transaction is answered, or will not be sent.
    pub(super) fn unbar(&mut self, id: SessionId) {
        let shared = self.endpoints.iter().filter_map(|(_, e)| e.serve[0]);
        let mine = |key: &usize| self.upstreams.get(*key).is_some_and(|u| u.barred == Some(id));
        let Some(key) = shared.into_iter().find(mine) else { return };
        self.upstreams[key].barred = None;
        let endpoint = self.upstreams[key].endpoint;
        self.retry_blocked(); // before newcomers
        self.wake_waiters(key);
        self.touch_sequencer(endpoint);
    }

    /// A transaction on a session's own connection is answered. Another may follow there, behind one that was answered by
    /// time.
    pub(super) fn transaction_answered(&mut self, key: usize) {
        let Some(upstream) = self.upstreams.get(key) else { return };
        if let Role::Private { session } = upstream.role
            && !upstream.calls.iter().any(|c| matches!(c, Call::Transaction(_)))
        {
            self.unbar(session);
        }
    }

    /// The connection that carries a barrier's transaction broke: the server must not execute it any more when what follows
    /// is sent.
    pub(super) fn fence(&mut self, key: usize, id: SessionId) {
        let Some(upstream) = self.upstreams.get(key) else { return };
        let sent = upstream.calls.iter().any(|c| matches!(c, Call::Transaction(_)));
        let number = upstream.identity.as_ref().map_or(0, |i| i.client_id);
        let serve = self.endpoints.get(upstream.endpoint).and_then(|e| e.serve[0]);
        let Some(shared) = serve.and_then(|key| self.upstreams.get_mut(key)).filter(|u| u.barred == Some(id))
        else {
            return;
        };
        if sent && number != 0 {
            let run = shared.identity.as_ref().map(|i| i.run_id.clone()).unwrap_or_default();
            shared.fences.push((run, number));
        }
        if let Some(key) = serve.filter(|_| shared.is_ready()) {
            self.send_fences(key);
        }
    }

    /// End the connections that must not do anything any more.
    pub(super) fn send_fences(&mut self, key: usize) {
        let Some(upstream) = self.upstreams.get_mut(key).filter(|u| !u.fences.is_empty()) else { return };
        let run = upstream.identity.as_ref().map(|i| i.run_id.clone()).unwrap_or_default();
        for (of, number) in std::mem::take(&mut upstream.fences) {
            if of == run {
                upstream.say(&["CLIENT", "KILL", "ID", &number.to_string()], self.now.ms);
            }
        }
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
    }
}
