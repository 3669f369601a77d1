//! `MOVED` and `ASK`: the command goes where they say, and its client sees only the reply from there.
//!
//! ```text
//! GET k ─▶ A ─▶ -MOVED 7 B ─▶ GET k ─▶ B ─▶ reply            the control plane is told: the slot map is old
//!          A ─▶ -ASK 7 B   ─▶ ASKING, GET k ─▶ B ─▶ reply    the slot is on its way
//! ```
//!
//! What was answered in this way was not executed, so it may be sent again. Commands of one session that are redirected
//! keep their order, and until all of them are answered its next command waits (law 6).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::command::lookup;
use crate::resp::{RequestScanner, Scanned, encode};

use super::call::{Call, ClientCall, TransactionCall, TransactionItem, command_of};
use super::ingress::{Incoming, Step};
use super::keys::ANY;
use super::place::{Elsewhere, Place};
use super::private::Use;
use super::session::{NO_PATH, Queued};
use super::ticket::{SessionId, Ticket};
use super::upstream::{Entered, Phase, Role};
use super::{Endpoint, Engine};
use crate::plan::Address;

/// Redirections that one command follows.
const HOPS: u8 = 5;
/// How often the control plane is told that an endpoint redirects (milliseconds).
const TELL_MS: u64 = 100;
/// How long an endpoint stays that only redirections lead to (milliseconds).
const VISIT_MS: u64 = 10_000;
/// Most endpoints of that kind; Envoy's bound.
const VISITS: usize = 100;

/// What such a reply says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Only this once: the slot has not moved as a whole.
    ask: bool,
    slot: u16,
    /// Empty: the host that says so.
    host: String,
    port: u16,
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

/// A command that waits to be sent to where it belongs.
#[derive(Debug)]
struct Stray {
    ticket: Ticket,
    /// The command, or `MULTI … EXEC`.
    bytes: Vec<u8>,
    what: What,
    db: u16,
    started_us: u64,
    /// When it was sent away.
    since_us: u64,
    hops: u8,
    /// Who sent it away.
    from: usize,
    to: Redirect,
}

/// What it is.
#[derive(Debug)]
enum What {
    Command,
    Transaction(Vec<TransactionItem>),
    /// A command that has a connection of its own, since it may block.
    Private,
}

/// All of them, in the order in which they were sent away.
#[derive(Debug, Default)]
pub(super) struct Strays(VecDeque<Stray>);

impl Strays {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What became of an attempt to send one.
enum Sent {
    Yes,
    /// It was answered instead.
    Refused,
    /// Not now.
    Later(Stray),
    /// It cannot be; why.
    Never(Stray, String),
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
        let Some(Call::Client(mut call)) = upstream.settled(self.now.ms) else { return };
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
        match kept.filter(|_| hops < HOPS) {
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

    fn stray(&mut self, stray: Stray) {
        if let Some(session) = self.session(stray.ticket.session()) {
            session.path = NO_PATH; // what comes next waits for all that is in flight
        }
        if let Some(from) = self.endpoints.get_mut(stray.from) {
            from.wanted_ms = self.now.ms + VISIT_MS + from.op_timeout_us / 1_000; // it is referred to meanwhile
        }
        let alone = self.strays.is_empty();
        self.strays.0.push_back(stray);
        if alone {
            self.send_strays();
        }
        self.upkeep_at = self.upkeep_at.min(self.now.ms + 1);
    }

    /// Send on what waits for it, each session's in order.
    pub(super) fn send_strays(&mut self) {
        let mut waiting = std::mem::take(&mut self.strays.0);
        let mut later: VecDeque<Stray> = VecDeque::new();
        let mut stopped: Vec<SessionId> = Vec::new();
        while let Some(stray) = waiting.pop_front() {
            let id = stray.ticket.session();
            if self.session(id).is_none() {
                self.settle(stray.ticket, |_| {});
                continue;
            }
            if stopped.contains(&id) {
                later.push_back(stray);
                continue;
            }
            match self.send_stray(stray) {
                Sent::Yes | Sent::Refused => {}
                Sent::Later(stray) => {
                    stopped.push(id);
                    later.push_back(stray);
                }
                Sent::Never(stray, why) => self.lose_stray(stray, &why),
            }
        }
        later.append(&mut self.strays.0);
        self.strays.0 = later;
    }

    /// None of them is sent any more.
    pub(super) fn abandon_strays(&mut self, why: &str) {
        for stray in std::mem::take(&mut self.strays.0) {
            self.lose_stray(stray, why);
        }
    }

    fn lose_stray(&mut self, stray: Stray, why: &str) {
        let from = self.endpoints.get(stray.from);
        if let Some(from) = from {
            from.stats.count.upstream_internal_redirect_failed_total.inc();
        }
        let cluster = from.map(|e| e.cluster.clone()).unwrap_or_default();
        let text = format!(
            "UNAVAILABLE cluster {cluster}: slot {} is at {}:{}, which cannot be used: {why}; nothing was done, try again",
            stray.to.slot, stray.to.host, stray.to.port
        );
        self.settle(stray.ticket, |out| encode::error(out, &text));
    }

    fn send_stray(&mut self, stray: Stray) -> Sent {
        let slot = stray.ticket.session().slot as usize;
        let Some(endpoint) = self.destination(&stray) else {
            let patience_us = self.endpoints.get(stray.from).map_or(0, |e| e.op_timeout_us);
            if stray.since_us + patience_us <= self.now.us {
                return Sent::Never(stray, "it is not known under this name".to_owned());
            }
            return Sent::Later(stray);
        };
        self.endpoints[endpoint].wanted_ms = self.now.ms + VISIT_MS;
        if matches!(stray.what, What::Private) {
            return self.send_privately_again(slot, stray, endpoint);
        }
        let (resp, db) = (self.sessions[slot].resp, stray.db);
        let serve = usize::from(resp == 3);
        let key = match self.endpoints[endpoint].serve[serve] {
            Some(key) => key,
            None => {
                let key = self.new_upstream(endpoint, Role::Serve, resp);
                self.endpoints[endpoint].serve[serve] = Some(key);
                key
            }
        };
        let overdue = stray.since_us + self.endpoints[endpoint].op_timeout_us <= self.now.us;
        let now_ms = self.now.ms;
        let upstream = &mut self.upstreams[key];
        if !upstream.is_ready() {
            if upstream.is_worth_waiting() && !overdue {
                return Sent::Later(stray);
            }
            let doing = if matches!(upstream.phase, Phase::Down { .. }) { "it is down" } else { "not ready" };
            return Sent::Never(stray, format!("{doing}: {}", upstream.reason));
        }
        if upstream.is_full() {
            return if overdue {
                Sent::Never(stray, "it has not answered for op_timeout".to_owned())
            } else {
                Sent::Later(stray)
            };
        }
        match upstream.enter(db, Some(resp), now_ms) {
            Entered::Yes => {}
            Entered::Wait if !overdue => {
                Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
                return Sent::Later(stray);
            }
            Entered::Wait | Entered::Refused | Entered::Busy => {
                let why = upstream.refusal(db);
                return Sent::Never(stray, why);
            }
        }
        if stray.to.ask {
            self.say_asking(key);
        }
        self.emit_stray(slot, stray, endpoint, key);
        Sent::Yes
    }

    /// What comes next on this connection is for a slot that is arriving there.
    fn say_asking(&mut self, key: usize) {
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &["ASKING"]);
        self.upstreams[key].out.push(&bytes);
        self.upstreams[key].expect(Call::Context, self.now.ms);
    }

    /// The same for a command that has a connection of its own.
    fn send_privately_again(&mut self, slot: usize, mut stray: Stray, endpoint: usize) -> Sent {
        let bytes = std::mem::take(&mut stray.bytes);
        let mut scanner = RequestScanner::default();
        let scanned = scanner.scan(&bytes, ANY);
        let request = scanner.request(&bytes);
        let command = lookup(request.arg(0)).and_then(|c| c.resolve(&request).ok());
        let (Scanned::Frame(_), Some(command)) = (scanned, command) else {
            return Sent::Never(stray, "a kept command cannot be read".to_owned());
        };
        let Stray { ticket, what, db, started_us, since_us, hops, from, to, .. } = stray;
        let overdue = since_us + self.endpoints[endpoint].op_timeout_us <= self.now.us;
        self.sessions[slot].overdue |= overdue;
        let listener =
            self.listeners.get(self.sessions[slot].listener).map(|l| std::sync::Arc::clone(&l.stats));
        if let Some(stats) = &listener {
            stats.count.downstream_rq_active.dec(); // it is counted anew
        }
        self.reissue = Some(ticket);
        let step = match self.enter_private(slot, endpoint, Use::Command) {
            Ok(key) => {
                if to.ask {
                    self.say_asking(key);
                }
                let step = self.send_privately(slot, key, Use::Command, command, &request, &bytes);
                if let Some(Call::Client(call)) = self.upstreams[key].calls.back_mut() {
                    call.hops = hops + 1;
                }
                self.count_followed(from);
                step
            }
            Err(step) => step,
        };
        match (self.reissue.take(), step) {
            (Some(ticket), Step::Stall(_)) => {
                if let Some(stats) = &listener {
                    stats.count.downstream_rq_active.add(1);
                }
                Sent::Later(Stray { ticket, bytes, what, db, started_us, since_us, hops, from, to })
            }
            (Some(ticket), _) => {
                self.settle(ticket, |out| encode::error(out, "ERR internal error: a command was not taken"));
                Sent::Refused
            }
            (None, _) => Sent::Refused,
        }
    }

    fn count_followed(&self, from: usize) {
        if let Some(from) = self.endpoints.get(from) {
            from.stats.count.upstream_internal_redirect_succeeded_total.inc();
        }
    }

    /// Queue it on a connection that is ready for it.
    fn emit_stray(&mut self, slot: usize, stray: Stray, endpoint: usize, key: usize) {
        let Stray { ticket, bytes, what, db, started_us, hops, from, .. } = stray;
        self.count_followed(from);
        let before = std::mem::replace(&mut self.sessions[slot].db, db);
        if let What::Transaction(items) = what {
            if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
                listener.stats.count.downstream_rq_active.dec(); // it is counted anew
            }
            self.reissue = Some(ticket);
            let queued = queued_of(&bytes, &items, endpoint, self.plan.generation);
            self.send_transaction(slot, endpoint, key, &queued);
        } else {
            let mut scanner = RequestScanner::default();
            if let Scanned::Frame(_) = scanner.scan(&bytes, ANY) {
                let request = scanner.request(&bytes);
                let command = lookup(request.arg(0)).and_then(|c| c.resolve(&request).ok());
                let incoming = Incoming { request, owner: None };
                self.send(ticket, command, &incoming, &Place::at(endpoint), key, false);
            } else {
                self.settle(ticket, |out| {
                    encode::error(out, "ERR internal error: a kept command cannot be read");
                });
            }
        }
        let session = &mut self.sessions[slot];
        session.db = before;
        session.path = NO_PATH;
        match self.upstreams[key].calls.back_mut() {
            Some(Call::Client(call)) => (call.started_us, call.hops) = (started_us, hops + 1),
            Some(Call::Transaction(call)) => (call.started_us, call.hops) = (started_us, hops + 1),
            _ => {}
        }
    }

    /// The endpoint that a command was sent to; one that the plan has not is made, and stays while it is used.
    fn destination(&mut self, stray: &Stray) -> Option<usize> {
        let of = self.endpoints.get(stray.from)?;
        let cluster = &of.cluster;
        let host = match (&of.address, stray.to.host.is_empty()) {
            (Some(Address::Tcp(address)), true) => address.ip().to_string(),
            _ => stray.to.host.clone(),
        };
        let ip = host.parse::<IpAddr>().ok();
        let address = ip.map(|ip| Address::Tcp(SocketAddr::new(ip, stray.to.port)));
        let id = match ip {
            Some(IpAddr::V6(_)) => format!("[{host}]:{}", stray.to.port),
            _ => format!("{host}:{}", stray.to.port),
        };
        let is_it = |e: &Endpoint| {
            &e.cluster == cluster && (e.id == id || (address.is_some() && e.address == address))
        };
        let known =
            |retired| self.endpoints.iter().find(|(_, e)| is_it(e) && e.retired == retired).map(|(k, _)| k);
        if let Some(key) = known(false).or_else(|| known(true)) {
            return Some(key);
        }
        let address = address?;
        if self.endpoints.iter().filter(|(_, e)| e.redirects && e.retired).count() >= VISITS {
            return None;
        }
        let visited = Endpoint {
            id: id.clone(),
            address: Some(address.clone()),
            cluster: cluster.clone(),
            credentials: of.credentials.clone(),
            connect_timeout_ms: of.connect_timeout_ms,
            op_timeout_us: of.op_timeout_us,
            serve: [None; super::SERVES],
            peer: false,
            sequencer: None,
            redirects: true,
            wanted_ms: self.now.ms + VISIT_MS,
            tell_moved_ms: 0,
            retired: true,
            retired_at: None,
            stats: std::sync::Arc::default(),
        };
        let label = &visited.stats.label;
        label.set("cluster", visited.cluster.as_str());
        label.set("id", id.as_str());
        label.set("address", address.to_string().as_str());
        let key = self.endpoints.insert(visited);
        self.publish();
        Some(key)
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
            let place = match self.locate_for(slot, command, &scanner.request(frame), false) {
                Ok(place) => place,
                Err(Elsewhere::Nowhere(_) | Elsewhere::Apart(_) | Elsewhere::Everywhere) => return None,
            };
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

/// The transaction in these bytes.
fn queued_of(bytes: &[u8], items: &[TransactionItem], endpoint: usize, generation: u64) -> Queued {
    let from = super::transaction::MULTI.len();
    let last = items.last().map_or(from, |i| i.end);
    Queued {
        bytes: bytes.get(from..last).unwrap_or(&[]).to_vec(),
        items: items.iter().map(|i| (i.command, i.end - from)).collect(),
        path: Some(endpoint),
        generation,
        ..Queued::default()
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
