//! WATCH: keys are watched on a connection of the session's own, and EXEC is sent there. When that connection is lost it is not
//! known what was done to them: they count as touched.

use crate::resp::encode;

use super::Engine;
use super::ingress::Step;
use super::private::Use;
use super::session::{NO_PATH, Session};

impl Session {
    /// Whether it watches keys.
    pub fn is_watching(&self) -> bool {
        self.private_ref().is_some_and(|p| p.watching)
    }
}

impl Engine {
    /// `UNWATCH`, and what implies it.
    pub(super) fn forget_watched(&mut self, slot: usize) {
        let Some(private) = self.sessions[slot].private().filter(|p| p.watching) else { return };
        private.watching = false;
        private.lost = false;
        let key = private.upstream;
        let Some(upstream) = self.upstreams.get_mut(key).filter(|u| u.is_ready()) else {
            return self.leave_private(slot);
        };
        upstream.say(&["UNWATCH"], self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
    }

    /// `UNWATCH`.
    pub(super) fn unwatch(&mut self, slot: usize) -> Step {
        self.forget_watched(slot);
        self.answer_now(slot, |out| encode::status(out, "OK"))
    }

    /// The connection that a transaction of a session takes which watches keys. `endpoint`: where its commands go, if they
    /// go anywhere. `Ok(None)`: what was watched is lost, and the transaction must not be executed.
    pub(super) fn enter_watched(
        &mut self,
        slot: usize,
        endpoint: Option<usize>,
    ) -> Result<Option<usize>, Step> {
        let own = self.sessions[slot].private_ref().filter(|p| !p.lost);
        let key = own.map_or(NO_PATH, |p| p.upstream);
        let Some(upstream) = self.upstreams.get(key).filter(|u| u.is_ready()) else { return Ok(None) };
        let endpoint = endpoint.unwrap_or(upstream.endpoint);
        if self.is_in_group(slot) && upstream.endpoint != endpoint {
            return Ok(None); // another member leads now
        }
        let overdue = self.sessions[slot].overdue;
        let key = self.enter_private(slot, endpoint, Use::Watch)?;
        if self.endpoints[endpoint].sequencer.is_some() {
            self.sessions[slot].overdue = overdue; // to wait for the barrier is no less to wait
            self.bar(slot, endpoint)?;
        }
        Ok(Some(key))
    }
}
