//! `MOVED` and `ASK`: the command goes where they say, and its client sees only the reply from there.
//!
//! ```text
//! GET k ─▶ A ─▶ -MOVED 7 B ─▶ GET k ─▶ B ─▶ reply            the control plane is told: the slot map is old
//!          A ─▶ -ASK 7 B   ─▶ ASKING, GET k ─▶ B ─▶ reply    the slot is on its way
//! ```
//!
//! What was answered in this way was not executed, so it may be sent again. Commands of one session that are redirected
//! keep their order, and until all of them are answered its next command waits (law 6).

use crate::resp::{RequestScanner, Scanned, encode};

use super::Engine;
use super::busy::is_script;
use super::call::{Call, ClientCall, TransactionCall, command_of};
use super::keys::ANY;
use super::session::Queued;
use super::stray::{Stray, What};
use super::upstream::Role;

/// Redirections that one command follows.
const HOPS: u8 = 5;
/// How often the control plane is told that an endpoint redirects (milliseconds).
const TELL_MS: u64 = 100;

/// What such a reply says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Only this once: the slot has not moved as a whole.
    pub ask: bool,
    /// Which slot.
    pub slot: u16,
    /// Empty: the host that says so.
    pub host: String,
    /// And its port.
    pub port: u16,
}

impl Redirect {
    /// The redirection in a reply, if it is one.
    pub fn parse(reply: &[u8]) -> Option<Self> {
        let (ask, rest) = match reply.strip_prefix(b"-MOVED ") {
            Some(rest) => (false, rest),
            None => (true, reply.strip_prefix(b"-ASK ")?),
        };
        let text = std::str::from_utf8(rest.strip_suffix(b"\r\n")?).ok()?;
        let (slot, place) = text.split_once(' ')?;
        let (host, port) = place.rsplit_once(':')?;
        Some(Self { ask, slot: slot.parse().ok()?, host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl Engine {
    /// Whether the bytes of a client's command are kept until its reply.
    #[inline]
    pub(super) fn is_kept(&self, key: usize) -> bool {
        self.follows(key) || self.is_rescued(key)
    }

    #[inline]
    fn follows(&self, key: usize) -> bool {
        self.upstreams.get(key).is_some_and(|u| {
            u.role == Role::Serve && self.endpoints.get(u.endpoint).is_some_and(|e| e.redirects)
        })
    }

    /// The redirection that a reply is, if it is one and is followed. The control plane hears of a slot that has moved.
    #[inline]
    pub(super) fn redirect_of(&mut self, key: usize, reply: &[u8]) -> Option<Redirect> {
        if reply.first() != Some(&b'-') {
            return None;
        }
        let redirect = Redirect::parse(reply)?;
        let of = self.upstreams.get(key)?.endpoint;
        let now_ms = self.now.ms;
        let endpoint = self.endpoints.get_mut(of).filter(|e| e.redirects)?;
        if !redirect.ask && now_ms >= endpoint.tell_moved_ms {
            endpoint.tell_moved_ms = now_ms + TELL_MS;
            let cluster = endpoint.cluster.clone();
            let detail = format!("slot {} is at {}:{}", redirect.slot, redirect.host, redirect.port);
            self.tell("redirected", cluster, detail);
        }
        Some(redirect)
    }

    /// A client's command was sent away.
    pub(super) fn redirect_command(&mut self, key: usize, to: Redirect, reply: &[u8]) {
        let upstream = &mut self.upstreams[key];
        let from = upstream.endpoint;
        let kept = upstream.calls.front().and_then(Call::kept).map(|piece| upstream.out.kept(piece).to_vec());
        let Some(Call::Client(mut call)) = upstream.settle(self.now.ms) else { return };
        self.endpoints[from].stats.count.upstream_rq_active.dec();
        let private = self.upstreams[key].is_private();
        if private {
            self.remove_upstream(key);
        }
        let Some(ticket) = call.ticket.take() else { return };
        let ClientCall { db, started_us, hops, command, .. } = call;
        if private && command_of(command).is_some_and(|c| c.name == "watch") {
            // Keys watched before are watched no more: EXEC will say so.
            let text = format!(
                "TRYAGAIN slot {} is at {}:{} now, and what is watched is watched in one place; send WATCH again",
                to.slot, to.host, to.port
            );
            return self.settle(ticket, |out| encode::error(out, &text));
        }
        let what = if private { What::Private } else { What::Command };
        let since_us = self.now.us;
        // A script may say anything, and would be told our password where it likes.
        let trusted = !command_of(command).is_some_and(is_script) || self.is_planned(from, &to);
        match kept.filter(|_| hops < HOPS && trusted) {
            Some(bytes) => {
                self.stray(Stray { ticket, bytes, what, db, started_us, since_us, hops, from, to });
            }
            None => {
                self.endpoints[from].stats.count.upstream_internal_redirect_failed_total.inc();
                self.settle(ticket, |out| out.extend_from_slice(reply));
            }
        }
    }

    /// A transaction was sent away as a whole: nothing of it was executed.
    pub(super) fn redirect_transaction(&mut self, key: usize, mut call: TransactionCall, to: Redirect) {
        let from = self.upstreams[key].endpoint;
        self.endpoints[from].stats.count.upstream_rq_active.dec();
        let role = self.upstreams[key].role;
        if let Role::Private { session } = role {
            self.unbar(session);
        }
        let Some(ticket) = call.ticket.take() else { return };
        if matches!(role, Role::Private { .. }) {
            // What was watched may have changed on its way.
            let resp3 = self.session(ticket.session()).is_some_and(|s| s.resp == 3);
            return self.settle(ticket, |out| encode::nil_array(out, resp3));
        }
        let TransactionCall { bytes, items, db, started_us, hops, .. } = call;
        if to.ask || hops >= HOPS {
            let text = format!(
                "TRYAGAIN slot {} is on its way to {}:{}, and a transaction can follow when it has arrived; nothing was \
                 executed, send it again",
                to.slot, to.host, to.port
            );
            return self.settle(ticket, |out| encode::error(out, &text));
        }
        let (what, since_us) = (What::Transaction(items), self.now.us);
        self.stray(Stray { ticket, bytes, what, db, started_us, since_us, hops, from, to });
    }
    /// A transaction that was placed by another plan goes where it belongs by now, if redirections are followed there: a
    /// slot map changes too often to spoil what is open.
    pub(super) fn follow_plan(&mut self, slot: usize) {
        let generation = self.plan.generation;
        let open =
            self.sessions[slot].transaction().filter(|q| q.generation != generation && q.path.is_some());
        let Some(queued) = open.map(std::mem::take) else { return };
        let endpoint = self.replaced(slot, &queued);
        if let Some(open) = self.sessions[slot].transaction() {
            *open = queued;
            if endpoint.is_some() {
                (open.path, open.generation) = (endpoint, generation);
            }
        }
    }

    /// The endpoint of all keys of a transaction; `None`: there is no such endpoint, or it follows no redirections.
    fn replaced(&self, slot: usize, queued: &Queued) -> Option<usize> {
        let mut scanner = RequestScanner::default();
        let mut start = 0;
        let mut found = None;
        for &(command, end) in &queued.items {
            let frame = queued.bytes.get(start..end)?;
            start = end;
            let Scanned::Frame(_) = scanner.scan(frame, ANY) else { return None };
            let place = self.locate_for(slot, command, &scanner.request(frame), false).ok()?;
            if !self.endpoints.get(place.endpoint)?.redirects || place.keys.iter().any(|k| k.strip > 0) {
                return None;
            }
            if !place.keys.is_empty() && *found.get_or_insert(place.endpoint) != place.endpoint {
                return None;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reply_says() {
        let redirect = |text: &str| Redirect::parse(text.as_bytes());
        let found = |ask, slot, host: &str, port| Some(Redirect { ask, slot, host: host.into(), port });
        assert_eq!(redirect("-MOVED 3999 127.0.0.1:6381\r\n"), found(false, 3999, "127.0.0.1", 6381));
        assert_eq!(redirect("-ASK 0 redis-1:1\r\n"), found(true, 0, "redis-1", 1));
        assert_eq!(redirect("-MOVED 1 ::1:7000\r\n"), found(false, 1, "::1", 7000));
        assert_eq!(redirect("-MOVED 1 :7000\r\n"), found(false, 1, "", 7000));
        for other in [
            "-MOVED 1\r\n",
            "-MOVED x a:1\r\n",
            "-MOVED 1 a:b\r\n",
            "-ERR MOVED 1 a:1\r\n",
            "-ASK 1 a:1 b\r\n",
        ] {
            assert_eq!(redirect(other), None, "{other}");
        }
    }
}
