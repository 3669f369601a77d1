//! `CLIENT PAUSE`: for a while this sidecar's clients wait with their writes, or with everything.
//!
//! A session waits at the command that is not let through, unread and on no list that is walked; it costs nothing until
//! the time is over or `CLIENT UNPAUSE` comes.

use crate::command::Command;

use super::Engine;
use super::session::{Peering, Wait};
use super::ticket::SessionId;

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// Commands that write, or may.
    #[default]
    Writes,
    /// All but the CLIENT family, which can end it.
    All,
}

/// The pause, if there is one.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// When it ends, milliseconds of the worker's clock; 0: there is none.
    until: u64,
    extent: Extent,
    waiting: Vec<SessionId>,
}

impl Pause {
    /// When to look again, if ever.
    pub(super) fn ends_at(&self) -> u64 {
        if self.until == 0 { u64::MAX } else { self.until }
    }
}

impl Engine {
    /// Begin a pause, or extend the one there is: the later end and the larger extent hold, as in Redis.
    pub(super) fn pause_sessions(&mut self, extent: Extent, ms: u64) {
        let until = self.now.ms.saturating_add(ms);
        if until <= self.now.ms {
            return;
        }
        let pause = &mut self.pause;
        pause.extent = if pause.until == 0 { extent } else { pause.extent.max(extent) };
        pause.until = pause.until.max(until);
    }

    /// End the pause: who waits for its end goes on.
    pub(super) fn unpause(&mut self) {
        self.pause.until = 0;
        for id in std::mem::take(&mut self.pause.waiting) {
            if let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id)
                && session.wait == Wait::Pause
            {
                Self::wake(session, &mut self.runnable);
            }
        }
    }

    /// Whether a command has to wait for the end of the pause; its session is then noted.
    #[inline]
    pub(super) fn must_pause(
        &mut self,
        slot: usize,
        known: Option<&'static Command>,
        command: Option<&'static Command>,
    ) -> bool {
        self.pause.until != 0 && self.is_held(slot, known, command)
    }

    fn is_held(
        &mut self,
        slot: usize,
        known: Option<&'static Command>,
        command: Option<&'static Command>,
    ) -> bool {
        let session = &self.sessions[slot];
        let exempt = known.is_some_and(|k| k.name == "client") || session.peering != Peering::Client;
        let queued = session.extra.as_ref().and_then(|e| e.transaction.as_ref());
        let held = match (self.pause.extent, command) {
            _ if exempt || self.now.ms >= self.pause.until || !session.authenticated => false,
            (Extent::All, _) => true,
            (Extent::Writes, Some(exec)) if exec.name == "exec" => {
                queued.is_some_and(|t| t.items.iter().any(|(command, _)| may_write(*command)))
            }
            (Extent::Writes, command) => may_write(command),
        };
        if held {
            self.pause.waiting.push(session.id);
        }
        held
    }
}

/// A command that is not in the table may write, and Redis replicates a PFCOUNT that changes its key's cache.
fn may_write(command: Option<&'static Command>) -> bool {
    command.is_none_or(|c| c.is_write() || matches!(c.name, "publish" | "spublish" | "pfcount"))
}
