//! What a server says unasked on a session's own connection: messages, what confirms a subscription, MONITOR's lines,
//! invalidations. It goes to the session as it comes, but never into the middle of a reply.

use crate::command::Command;
use crate::resp::{Reply, Request, encode};

use super::Engine;
use super::call::{Call, command_of};
use super::ingress::Step;
use super::private::Private;
use super::session::{Ending, Session, Wait};
use super::ticket::SessionId;
use super::tracking::Becomes;
use super::upstream::Stream;

/// Whether a command starts or ends subscriptions.
pub fn is_subscription(command: &Command) -> bool {
    matches!(
        command.name,
        "subscribe" | "unsubscribe" | "psubscribe" | "punsubscribe" | "ssubscribe" | "sunsubscribe"
    )
}

impl Private {
    pub(super) fn subscriptions(&self) -> u32 {
        self.channels + self.patterns + self.shards
    }

    /// A subscription began or ended; `count` is what the server says there are now, of channels and patterns or of shard
    /// channels.
    pub(super) fn count(&mut self, kind: &[u8], count: u32) {
        match kind {
            b"subscribe" | b"unsubscribe" => self.channels = count.saturating_sub(self.patterns),
            b"psubscribe" | b"punsubscribe" => self.patterns = count.saturating_sub(self.channels),
            _ => self.shards = count,
        }
    }

    /// How many there are of those that a command without arguments ends.
    pub(super) fn ended_by(&self, name: &str) -> u32 {
        match name {
            "unsubscribe" => self.channels,
            "punsubscribe" => self.patterns,
            _ => self.shards,
        }
    }
}

impl Session {
    /// Whether it has subscriptions.
    #[inline]
    pub fn is_subscriber(&self) -> bool {
        self.private_ref().is_some_and(|p| p.subscriptions() > 0)
    }

    /// Its subscriptions to channels, patterns and shard channels.
    pub fn subscriptions(&self) -> [u32; 3] {
        self.private_ref().map_or([0; 3], |p| [p.channels, p.patterns, p.shards])
    }

    /// Whether it sees every command of the server.
    pub fn is_monitor(&self) -> bool {
        self.private_ref().is_some_and(|p| p.monitors)
    }

    /// Whether it is told what nobody asked for.
    pub fn is_listening(&self) -> bool {
        self.is_subscriber()
            || self.private_ref().is_some_and(|p| p.monitors || p.told || p.tracking.is_some())
    }
}

impl Engine {
    /// `UNSUBSCRIBE` and its like by who has no subscription.
    pub(super) fn unsubscribe_nothing(
        &mut self,
        slot: usize,
        command: &Command,
        request: &Request<'_>,
    ) -> Step {
        let session = &mut self.sessions[slot];
        let resp3 = session.resp == 3;
        let tell = |out: &mut Vec<u8>| {
            for i in 1..request.len().max(2) {
                encode::push(out, 3, resp3);
                encode::bulk(out, command.name.as_bytes());
                if request.len() > 1 {
                    encode::bulk(out, request.arg(i));
                } else {
                    encode::nil(out, resp3);
                }
                encode::integer(out, 0);
            }
        };
        if !session.is_muted(session.issued) {
            return self.answer_now(slot, tell);
        }
        // As in Redis, `CLIENT REPLY OFF` is for replies, and this is none.
        if session.in_flight() > 0 {
            return Step::Stall(Wait::Quiet);
        }
        tell(&mut session.output);
        self.answer_now(slot, |_| {})
    }

    /// Whether what a private connection says is not the reply to a command: then it is passed on.
    pub(super) fn told_privately(&mut self, key: usize, id: SessionId, reply: Reply<'_>) -> bool {
        let upstream = &self.upstreams[key];
        let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id) else {
            return false;
        };
        let said = match reply.bytes().first() {
            Some(b'>') => true,
            // (As long as `HELLO 2` of a subscriber is on its way, messages are pushes.)
            Some(b'*') => {
                upstream.resp() == 2 && matches!(upstream.calls.front(), Some(Call::Subscribe { .. }) | None)
            }
            Some(b'-') => {
                let refused = matches!(
                    upstream.calls.front(),
                    Some(Call::Client(call)) if command_of(call.command).is_some_and(|c| c.name == "monitor")
                );
                if let Some(private) = session.private().filter(|_| refused) {
                    private.monitors = false;
                }
                false
            }
            Some(b'+') => upstream.calls.is_empty() && session.private_ref().is_some_and(|p| p.monitors),
            _ => false,
        };
        if !said {
            if session.private_ref().is_some_and(|p| p.becomes != Becomes::Unchanged) {
                self.note_tracking(key, id.slot as usize, reply);
            }
            return false;
        }
        let busy = self.upstreams.get(session.path).is_some_and(|u| u.stream == Stream::To(id));
        let mut fields = reply.elements();
        let kind = fields.next().and_then(Reply::text).unwrap_or_default();
        let changes = kind.ends_with(b"subscribe");
        let count = if changes { fields.nth(1).and_then(Reply::integer).unwrap_or(0) } else { 0 };
        if session.ending != Ending::Broken {
            match session.extra.as_mut().and_then(|e| e.private.as_mut()).filter(|_| busy) {
                Some(private) => private.held.extend_from_slice(reply.bytes()),
                None => session.output.extend_from_slice(reply.bytes()),
            }
            Self::mark_session(session, &mut self.dirty_sessions);
        }
        if let Some(private) = session.private().filter(|_| changes) {
            private.count(kind, u32::try_from(count).unwrap_or(0));
        }
        let upstream = &mut self.upstreams[key];
        upstream.alive(self.now.ms);
        if changes && let Some(Call::Subscribe { left, .. }) = upstream.calls.front_mut() {
            *left -= 1;
            if *left == 0
                && let Some(Call::Subscribe { ticket: Some(ticket), .. }) = upstream.settle(self.now.ms)
            {
                self.settle(ticket, |_| {});
            }
        }
        self.check_output(id);
        true
    }

    /// Whether what is being received there, and is long, is a message rather than a reply.
    pub(super) fn is_told_privately(&self, key: usize) -> bool {
        let Some(upstream) = self.upstreams.get(key) else { return false };
        upstream.partial.first() == Some(&b'>')
            || matches!(upstream.calls.front(), Some(Call::Subscribe { .. }) | None)
    }

    /// The long reply to a session has ended: what it was to be told meanwhile follows.
    pub(super) fn tell_held(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        if let Some(held) = session.private().map(|p| std::mem::take(&mut p.held)) {
            session.output.extend_from_slice(&held);
        }
    }
}
