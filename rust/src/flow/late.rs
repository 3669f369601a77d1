//! Commands that were answered by time and are still on their way. What their session writes next must not overtake what they
//! write: an old value would be the last.

use crate::command::Command;

use super::Engine;
use super::call::{Call, command_of};
use super::ingress::Step;
use super::session::Wait;
use super::ticket::SessionId;
use super::upstream::Upstream;

/// The newest one of a session on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    upstream: usize,
    /// The connection's try.
    epoch: u32,
    /// Its number among the calls there.
    number: u64,
}

impl Late {
    fn is_awaited(&self, upstream: Option<&Upstream>) -> bool {
        upstream.is_some_and(|u| u.epoch == self.epoch && u.settled <= self.number)
    }
}

impl Engine {
    /// The call at this place of the connection's line was answered by time.
    pub(super) fn note_late(&mut self, key: usize, at: usize, session: SessionId) {
        let Some(upstream) = self.upstreams.get(key) else { return };
        let writes = upstream.calls.get(at).is_some_and(|call| match call {
            Call::Client(call) => command_of(call.command).is_none_or(Command::is_write),
            Call::Transaction(call) => call.items.iter().any(|i| i.command.is_none_or(Command::is_write)),
            _ => false,
        });
        if !writes {
            return;
        }
        let late = Late { upstream: key, epoch: upstream.epoch, number: upstream.settled + at as u64 };
        let Some(session) = self.session(session) else { return };
        let all = &mut session.extra().late;
        all.retain(|other| other.upstream != key);
        all.push(late);
    }

    /// Have a session wait that would take connection `key` to an endpoint while a command of it is late on another one there.
    pub(super) fn wait_for_late(
        &mut self,
        slot: usize,
        endpoint: usize,
        key: usize,
        overdue: bool,
    ) -> Option<Step> {
        let session = self.sessions.get_mut(slot)?;
        let (id, last) = (session.id, session.last);
        let late = &mut session.extra.as_mut()?.late;
        let waits = |c: &Command| c.is_write() || matches!(c.name, "watch" | "exec");
        if late.is_empty() || command_of(last).is_some_and(|c| !waits(c)) {
            return None;
        }
        let upstreams = &self.upstreams;
        late.retain(|l| l.is_awaited(upstreams.get(l.upstream)));
        let there = |l: &&Late| {
            l.upstream != key && upstreams.get(l.upstream).is_some_and(|u| u.endpoint == endpoint)
        };
        let before = late.iter().find(there)?.upstream;
        if overdue {
            return Some(self.overdue(slot, endpoint));
        }
        self.upstreams.get_mut(before)?.wait(id, false);
        Some(Step::Stall(Wait::Upstream))
    }
}
