//! Commands whose Redis was lost before it answered, or whose leader leads no more: the next leader executes them, so
//! that their clients see no error.
//!
//! What was sent to a Redis that is lost is never sent to that Redis again. Another member executes it: what the lost one
//! may have done with it is not part of the history that goes on, and is undone when it is filled.

use std::collections::VecDeque;

use super::Engine;
use super::call::{Call, NO_ENTRY};
use super::group::Post;
use super::ingress::{Incoming, Step};
use super::keys::ANY;
use super::session::{Peering, Queued};
use super::ticket::Ticket;
use crate::command::{Command, lookup};
use crate::resp::{Request, RequestScanner, Scanned, encode};

/// How long a member that says that it does not lead is not asked again (milliseconds).
const AGAIN_MS: u64 = 10;

/// A command that waits for a leader.
#[derive(Debug)]
pub(super) struct Resend {
    ticket: Ticket,
    /// The command, or `MULTI` and what follows it.
    bytes: Vec<u8>,
    /// Of a transaction: its commands, each with the end of its frame in `bytes`.
    items: Option<Vec<(Option<&'static Command>, usize)>>,
    selects: bool,
    db: u16,
    /// The term in which this member sent it to its own Redis, which may have executed it; 0: it was not sent, or changes
    /// nothing.
    sent: u64,
    since_ms: u64,
}

impl Engine {
    /// Whether a command that gets no answer from this connection can be given to another member.
    pub(super) fn is_rescued(&self, key: usize) -> bool {
        let Some(group) = self.group.as_ref() else { return false };
        self.upstreams.get(key).is_some_and(|u| {
            u.role == super::upstream::Role::Serve
                && (u.endpoint == group.local || self.endpoints.get(u.endpoint).is_some_and(|e| e.peer))
        })
    }

    /// Take from a connection that breaks what another member can still execute. `written`: bytes that have left.
    pub(super) fn rescue_calls(&mut self, key: usize, written: u64) {
        if !self.is_rescued(key) {
            return;
        }
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let mut calls = std::mem::take(&mut upstream.calls);
        if self.is_groups_own(self.upstreams[key].endpoint)
            && let Some(group) = self.group.as_mut()
        {
            group.lost_copies |= calls.iter().any(|c| matches!(c, Call::Sync(_)));
        }
        for call in &mut calls {
            let unsent = call.offset().is_some_and(|offset| offset >= written);
            self.rescue(key, call, unsent);
        }
        if let Some(upstream) = self.upstreams.get_mut(key) {
            upstream.calls = calls;
        }
    }

    /// The same for one call. Whether it was taken.
    pub(super) fn rescue(&mut self, key: usize, call: &mut Call, unsent: bool) -> bool {
        let Some(upstream) = self.upstreams.get(key) else { return false };
        let Some(group) = self.group.as_ref() else { return false };
        let own = upstream.endpoint == group.local;
        let Some(session) = call
            .ticket()
            .and_then(|t| self.sessions.get(t.session().slot as usize).filter(|s| s.id == t.session()))
        else {
            return false;
        };
        if matches!(session.peering, Peering::Stream { .. }) {
            return false; // whatever it carries comes again by a resync
        }
        let log = self.endpoints.get(group.local).and_then(|e| e.sequencer.as_ref()).map(|s| &s.log);
        let logged = |position: u64| {
            let log = log.filter(|_| own && position != NO_ENTRY)?;
            log.get(position).map(|entry| log.bytes(entry).to_vec())
        };
        let (bytes, items, selects, writes) = match call {
            Call::Client(call) => {
                let kept = || call.kept.map(|piece| upstream.out.kept(piece).to_vec());
                let known = super::call::command_of(call.command);
                let Some(bytes) = logged(call.entry).or_else(kept) else { return false };
                (bytes, None, false, known.is_none_or(Command::is_write))
            }
            Call::Transaction(call) => {
                let kept = || call.kept.map(|piece| upstream.out.kept(piece).to_vec());
                let Some(bytes) = logged(call.entry).or_else(kept) else { return false };
                let items = call.items.iter().map(|i| (i.command, i.end)).collect::<Vec<_>>();
                (bytes, Some(items), call.selects, true)
            }
            _ => return false,
        };
        // What a leader that is gone may have executed can be in the history that goes on.
        if !own && !unsent && writes {
            return false;
        }
        let db = match call {
            Call::Client(call) => call.db,
            Call::Transaction(call) => call.db,
            _ => 0,
        };
        let sent = if own && !unsent && writes { group.term.max(1) } else { 0 };
        let Some(ticket) = call.take_ticket() else { return false };
        let resend = Resend { ticket, bytes, items, selects, db, sent, since_ms: self.now.ms };
        if let Some(group) = self.group.as_mut() {
            group.resend.push_back(resend);
        }
        true
    }

    /// Nothing that waits for a reply on this connection was executed: its other end does not lead.
    pub(super) fn rescue_unexecuted(&mut self, key: usize) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let mut calls = std::mem::take(&mut upstream.calls);
        for call in &mut calls {
            self.rescue(key, call, true);
        }
        if let Some(upstream) = self.upstreams.get_mut(key) {
            upstream.calls = calls; // what was not taken finds its end with the connection
        }
        if let Some(group) = self.group.as_mut() {
            group.resend_at = self.now.ms + AGAIN_MS;
        }
    }

    /// Give what waits to the leader there is.
    pub(super) fn resend(&mut self) {
        let Some(group) = self.group.as_mut().filter(|g| !g.resend.is_empty()) else { return };
        let patience = self.endpoints.get(group.local).map_or(5_000, |e| e.op_timeout_us / 1_000);
        let mut waiting = std::mem::take(&mut group.resend);
        let (post, term, ready_at) = (group.post, group.term, group.resend_at);
        let usable = post == Post::Follower || group.leads();
        let mut later = VecDeque::new();
        while let Some(one) = waiting.pop_front() {
            if one.sent != 0 && post == Post::Leader && term >= one.sent && usable {
                self.resend_refused(
                    one,
                    "this member's Redis was lost and leads again; the command may have been applied",
                );
            } else if one.since_ms + patience <= self.now.ms {
                self.resend_refused(one, "no leader was found in time");
            } else if !usable || self.now.ms < ready_at {
                later.push_back(one);
            } else if let Some(one) = self.resend_one(one) {
                later.push_back(one);
                later.append(&mut waiting);
            }
        }
        let Some(group) = self.group.as_mut() else { return };
        later.append(&mut group.resend); // what was refused meanwhile is newer
        group.resend = later;
        if group.resend.is_empty() {
            group.waiters.clear();
            self.wake_everyone();
        }
    }

    pub(super) fn resend_refused(&mut self, one: Resend, why: &str) {
        let name = self.group.as_ref().map(|g| g.spec.name.clone()).unwrap_or_default();
        let text = if one.sent == 0 {
            format!("NOLEADER group {name}: {why}; nothing was written, try again")
        } else {
            format!("INDOUBT group {name}: {why}")
        };
        self.settle(one.ticket, |out| encode::error(out, &text));
    }

    /// Send one again, as if its session had just sent it. Gives it back if that cannot be done now.
    ///
    /// The session's path stays: a read behind a write that was sent again must go to the leader behind it.
    fn resend_one(&mut self, one: Resend) -> Option<Resend> {
        let id = one.ticket.session();
        let slot = id.slot as usize;
        if self.sessions.get(slot).is_none_or(|s| s.id != id) {
            self.settle(one.ticket, |_| {});
            return None; // its client is gone
        }
        let Resend { ticket, bytes, items, selects, db, sent, since_ms } = one;
        let before = std::mem::replace(&mut self.sessions[slot].db, db);
        let transaction = self.sessions[slot].extra.as_mut().and_then(|e| e.transaction.take());
        if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
            listener.stats.count.downstream_rq_active.dec(); // it is counted anew
        }
        self.reissue = Some(ticket);
        let step = match &items {
            None => {
                let mut scanner = RequestScanner::default();
                match scanner.scan(&bytes, ANY) {
                    Scanned::Frame(_) => {
                        let request: Request<'_> = scanner.request(&bytes);
                        let command = lookup(request.arg(0)).and_then(|c| c.resolve(&request).ok());
                        self.forward(slot, command, &Incoming { request, owner: None })
                    }
                    _ => self.refuse(slot, "ERR internal error: a command that was kept cannot be read"),
                }
            }
            Some(items) => {
                let from = super::transaction::MULTI.len();
                let last = items.last().map_or(from, |(_, end)| *end);
                let queued = Queued {
                    bytes: bytes.get(from..last).unwrap_or(&[]).to_vec(),
                    items: items.iter().map(|(command, end)| (*command, end - from)).collect(),
                    selects,
                    path: Some(0),
                    generation: self.plan.generation,
                    ..Queued::default()
                };
                self.sessions[slot].extra().transaction = Some(queued);
                let step = self.exec(slot);
                self.sessions[slot].extra().transaction = None;
                step
            }
        };
        let session = &mut self.sessions[slot];
        if !matches!(step, Step::Taken(_)) {
            session.db = before; // (of one with a SELECT in it, its reply tells)
        }
        if transaction.is_some() {
            session.extra().transaction = transaction;
        }
        let ticket = self.reissue.take()?; // it was not taken
        if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
            listener.stats.count.downstream_rq_active.add(1);
        }
        Some(Resend { ticket, bytes, items, selects, db, sent, since_ms })
    }
}
