//! Commands that were redirected, on their way to where they belong.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::command::lookup;
use crate::resp::{RequestScanner, Scanned, encode};

use super::call::{Call, TransactionItem};
use super::ingress::{Incoming, Step};
use super::keys::ANY;
use super::place::Place;
use super::private::Use;
use super::redirect::Redirect;
use super::session::{NO_PATH, Queued};
use super::ticket::{SessionId, Ticket};
use super::upstream::{Entered, Phase, Role};
use super::{Endpoint, Engine};
use crate::plan::Address;

/// How long an endpoint stays that only redirections lead to (milliseconds).
const VISIT_MS: u64 = 10_000;
/// Most endpoints of that kind; Envoy's bound.
const VISITS: usize = 100;

/// A command that waits to be sent to where it belongs.
#[derive(Debug)]
pub(super) struct Stray {
    pub ticket: Ticket,
    /// The command, or `MULTI … EXEC`.
    pub bytes: Vec<u8>,
    pub what: What,
    pub db: u16,
    pub started_us: u64,
    /// When it was sent away.
    pub since_us: u64,
    pub hops: u8,
    /// Who sent it away.
    pub from: usize,
    pub to: Redirect,
}

/// What it is.
#[derive(Debug)]
pub(super) enum What {
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
    /// It goes to where it was sent, now or when that can be reached.
    pub(super) fn stray(&mut self, stray: Stray) {
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
        let listener = self.listeners.get(self.sessions[slot].listener).map(|l| Arc::clone(&l.stats));
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
        let (id, address) = self.names_of(stray.from, &stray.to)?;
        let known = |retired| self.known(stray.from, &id, address.as_ref(), retired);
        if let Some(key) = known(false).or_else(|| known(true)) {
            return Some(key);
        }
        self.visit(stray.from, id, address?)
    }

    /// Whether a redirection leads to an endpoint that the plan has.
    pub(super) fn is_planned(&self, from: usize, to: &Redirect) -> bool {
        self.names_of(from, to)
            .is_some_and(|(id, address)| self.known(from, &id, address.as_ref(), false).is_some())
    }

    /// What the endpoint is called that a redirection leads to, and its address.
    fn names_of(&self, from: usize, to: &Redirect) -> Option<(String, Option<Address>)> {
        let host = match (&self.endpoints.get(from)?.address, to.host.is_empty()) {
            (Some(Address::Tcp(address)), true) => address.ip().to_string(),
            _ => to.host.clone(),
        };
        let ip = host.parse::<IpAddr>().ok();
        let address = ip.map(|ip| Address::Tcp(SocketAddr::new(ip, to.port)));
        let id = match ip {
            Some(IpAddr::V6(_)) => format!("[{host}]:{}", to.port),
            _ => format!("{host}:{}", to.port),
        };
        Some((id, address))
    }

    /// An endpoint of the same cluster as another one.
    fn known(&self, beside: usize, id: &str, address: Option<&Address>, retired: bool) -> Option<usize> {
        let cluster = &self.endpoints.get(beside)?.cluster;
        let is_it = |e: &Endpoint| {
            &e.cluster == cluster
                && e.retired == retired
                && (e.id == id || (address.is_some() && e.address.as_ref() == address))
        };
        self.endpoints.iter().find(|(_, e)| is_it(e)).map(|(key, _)| key)
    }

    /// An endpoint that the plan has not, beside one that it has.
    fn visit(&mut self, beside: usize, id: String, address: Address) -> Option<usize> {
        let of = self.endpoints.get(beside)?;
        if self.endpoints.iter().filter(|(_, e)| e.redirects && e.retired).count() >= VISITS {
            return None;
        }
        let visited = Endpoint {
            cluster: of.cluster.clone(),
            id,
            address: Some(address),
            credentials: of.credentials.clone(),
            connect_timeout_ms: of.connect_timeout_ms,
            op_timeout_us: of.op_timeout_us,
            serve: [None; super::SERVES],
            peer: false,
            spares: super::spare::Spares::default(),
            relief_ms: 0,
            sequencer: None,
            taps: Vec::new(),
            redirects: true,
            wanted_ms: self.now.ms + VISIT_MS,
            tell_moved_ms: 0,
            scattered: None,
            retired: true,
            retired_at: None,
            stats: Arc::default(),
        };
        let label = &visited.stats.label;
        label.set("cluster", visited.cluster.as_str());
        label.set("id", visited.id.as_str());
        label.set("address", visited.address.as_ref().map(ToString::to_string).unwrap_or_default().as_str());
        let key = self.endpoints.insert(visited);
        self.publish();
        Some(key)
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
