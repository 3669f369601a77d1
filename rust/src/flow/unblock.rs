//! Sessions that block, on a connection of their own or in a line: which they are, and how that is ended before its time.

use crate::command::{Command, Flags, KeyShape, Treatment};

use super::Engine;
use super::call::Call;
use super::ticket::SessionId;
use super::upstream::Upstream;

/// What its client is told then (`unblockClientOnError`).
pub(super) const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// How a command that blocks is ended before its time (`CLIENT UNBLOCK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// As if its time were over.
    Timeout,
    /// With an error.
    Error,
    /// Another member leads now.
    Moved,
    /// Its client is gone.
    Gone,
}

/// Whether a command may block: `BLPOP`, `WAIT`, and `XREAD` and `XREADGROUP` if they say so.
pub fn blocks(command: &Command) -> bool {
    command.flags.contains(Flags::BLOCKING) || command.shape == KeyShape::Streams || command.name == "wait"
}

/// Whether a command may stand between MULTI and EXEC although it needs a connection of its own elsewhere: there it does
/// not block.
pub fn is_harmless_in_transaction(command: &Command) -> bool {
    (command.treatment == Treatment::Private || command.shape == KeyShape::Streams) && blocks(command)
}

impl Engine {
    /// The client of a session is gone, or will send no more. One that blocks is not waited with: what it would be given
    /// would be lost (Redis does the same).
    pub fn session_hung_up(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        session.hung_up = true;
        if self.is_blocked(id.slot as usize) {
            self.leave_line(id, Unblock::Gone);
            self.close_session(id.slot as usize);
        }
    }

    /// The same for those that blocked afterwards and were not answered at once.
    pub(super) fn close_hung(&mut self) {
        for id in std::mem::take(&mut self.hung) {
            self.session_hung_up(id);
        }
    }

    /// End what a session blocks for. `false`: it does not block.
    pub(super) fn unblock(&mut self, slot: usize, how: Unblock) -> bool {
        if !self.is_blocked(slot) {
            return false;
        }
        let id = self.sessions[slot].id;
        if self.leave_line(id, how) || self.end_wait(id, how) {
            return true;
        }
        let own = self.sessions[slot].private_ref().and_then(|p| self.upstreams.get(p.upstream));
        let Some((number, endpoint)) =
            own.and_then(|u| Some((u.identity.as_ref()?.client_id, u.endpoint))).filter(|(n, _)| *n != 0)
        else {
            return false;
        };
        let word = if how == Unblock::Error { "ERROR" } else { "TIMEOUT" };
        // Where its own connection waits for that reply, another has to say it.
        let serves = self.endpoints[endpoint].serve.iter().flatten().copied();
        let ready = |key: &usize| self.upstreams.get(*key).is_some_and(Upstream::is_ready);
        let Some(key) = serves.into_iter().find(ready) else { return false };
        let upstream = &mut self.upstreams[key];
        upstream.say(&["CLIENT", "UNBLOCK", &number.to_string(), word], self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        true
    }

    /// Whether the session waits for a command that blocks.
    pub(super) fn is_blocked(&self, slot: usize) -> bool {
        let Some(session) = self.sessions.get(slot) else { return false };
        if self.waits_in_line(session.id) || self.waits_for_others(session.id) {
            return true;
        }
        let own = session.private_ref().map(|p| p.upstream);
        let upstream = own.and_then(|key| self.upstreams.get(key));
        upstream.and_then(|u| u.calls.front()).is_some_and(|call| match call {
            Call::Client(call) => call.ticket.is_some() && call.blocks,
            _ => false,
        })
    }
}
