//! Clients that replicate (`SYNC`, `PSYNC` and the `REPLCONF` before them: a replica, `redis-cli --rdb`, tools that move data).
//! What they are sent is not RESP, so their connection and one to the Redis become one, outside of the flow. Only where this
//! sidecar does not decide what the Redis holds.

use crate::command::{Command, is_word};
use crate::resp::Request;

use super::ingress::Step;
use super::private::Use;
use super::session::{NO_PATH, Wait};
use super::ticket::SessionId;
use super::{Engine, Intent};

/// Whether a command belongs to the replication of a Redis.
pub(super) fn is_replication(command: &Command) -> bool {
    matches!(command.name, "sync" | "psync" | "replconf")
}

impl Engine {
    /// `SYNC`, `PSYNC` or `REPLCONF`.
    pub(super) fn replicate(
        &mut self,
        slot: usize,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Step {
        let place = match self.place_nearest(slot, command, request) {
            Ok(place) => place,
            Err(step) => return step,
        };
        let endpoint = &self.endpoints[place.endpoint];
        let ordered = endpoint.sequencer.is_some() || endpoint.is_link();
        if self.is_in_group(slot) || place.writes != 0 || ordered {
            return self.refuse_privately(slot, command);
        }
        if command.name == "replconf" {
            if (1..request.len())
                .step_by(2)
                .any(|i| is_word(request.arg(i), "ACK") || is_word(request.arg(i), "GETACK"))
            {
                return Step::Done; // it has no reply, and says nothing unless a SYNC was before
            }
            return match self.enter_private(slot, place.endpoint, Use::Command) {
                Ok(key) => self.send_privately(slot, key, Use::Command, command, request, request.frame),
                Err(step) => step,
            };
        }
        if self.sessions[slot].in_flight() > u64::from(self.reissue.is_some()) {
            return Step::Stall(Wait::Quiet);
        }
        let open = self.sessions[slot].private_ref().map(|p| p.upstream).filter(|key| *key != NO_PATH);
        if self.sessions[slot].is_listening()
            || open.is_some_and(|key| {
                self.upstreams.get(key).is_some_and(|u| !u.calls.is_empty() && u.is_ready())
            })
        {
            self.leave_private(slot); // it carries what must not come between
        }
        let key = match self.enter_private(slot, place.endpoint, Use::Replicate) {
            Ok(key) => key,
            Err(step) => return step,
        };
        if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
            listener.stats.count.downstream_rq_total.inc();
        }
        self.endpoints[place.endpoint].stats.count.upstream_rq_total.inc();
        let session = self.sessions[slot].id;
        self.joined += 1;
        self.intents.push(Intent::Join { session, upstream: key, frame: request.frame.to_vec() });
        Step::Taken(Wait::Quiet)
    }

    /// The session and the connection are the flow's no more. What the client and the server have not been sent yet.
    pub fn join(&mut self, session: SessionId, upstream: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
        if let Some(session) = self.session(session) {
            to_client.extend_from_slice(session.output.get(session.written..).unwrap_or(&[]));
            to_server.extend_from_slice(session.input.get(session.consumed..).unwrap_or(&[]));
        }
        self.remove_upstream(upstream);
        self.session_closed(session);
        self.seat.stays();
        (to_client, to_server)
    }

    /// One of them is gone.
    pub fn unjoin(&mut self) {
        self.joined -= 1;
        self.seat.goes();
    }
}
