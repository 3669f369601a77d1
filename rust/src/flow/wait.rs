//! `WAIT`: until so many others have what was written.
//!
//! In a group these are the members in sync, on a mirrored route the mirrors, and elsewhere the replicas that the server
//! itself has: it is asked on a connection of the session's own, since the shared one must not stand still.

use crate::command::Command;
use crate::resp::{Request, encode, parse_integer};

use super::Engine;
use super::gate::is_usable;
use super::ingress::Step;
use super::place::Place;
use super::private::Use;
use super::replica::Replica;
use super::session::Wait;
use super::ticket::{SessionId, Ticket};
use super::unblock::{UNBLOCKED, Unblock};

/// A shard channel of nobody's. A message to it moves the server's replication offset, and is seen by no pattern.
const NOBODY: &str = "redisha:wait";

/// A `WAIT` that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    endpoint: usize,
    /// Everything before this position of its log.
    position: u64,
    members: u64,
    until_ms: u64,
    ticket: Ticket,
}

/// How many, and for how long (milliseconds; 0: without end). The error is Redis's own.
fn wanted(request: &Request<'_>) -> Result<(u64, u64), &'static str> {
    let number = |i: usize| parse_integer(request.arg(i));
    let members = number(1).ok_or("ERR value is not an integer or out of range")?;
    match number(2) {
        Some(n) if n >= 0 => Ok((members.max(0) as u64, n as u64)),
        Some(_) => Err("ERR timeout is negative"),
        None => Err("ERR timeout is not an integer or out of range"),
    }
}

impl Engine {
    /// `WAIT numreplicas timeout` (redis.io, WAIT) on a listener with routes.
    pub(super) fn wait_on_route(
        &mut self,
        slot: usize,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Step {
        let (members, timeout_ms) = match wanted(request) {
            Ok(wanted) => wanted,
            Err(text) => return self.refuse(slot, text),
        };
        let place = match self.place_nearest(slot, command, request) {
            Ok(place) => place,
            Err(step) => return step,
        };
        if self.endpoints[place.endpoint].sequencer.is_some() {
            if self.sessions[slot].in_flight() > 0 {
                return Step::Stall(Wait::Quiet); // what it wrote is in the log once it was answered
            }
            return self.wait_in_log(slot, place.endpoint, members, timeout_ms);
        }
        self.wait_at_server(slot, &place, command, request)
    }

    /// The same at the leader of a group. No longer than three quarters of `op_timeout`, so that the one who asked is still
    /// there.
    pub(super) fn wait_for_members(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let (members, timeout_ms) = match wanted(request) {
            Ok(wanted) => wanted,
            Err(text) => return self.refuse(slot, text),
        };
        let Some(local) = self.group.as_ref().map(|g| g.local) else {
            return self.refuse(slot, "ERR no group");
        };
        let longest = self.endpoints.get(local).map_or(5_000, |e| e.op_timeout_us / 1_000) * 3 / 4;
        let timeout_ms = if timeout_ms == 0 { longest } else { timeout_ms.min(longest) };
        self.wait_in_log(slot, local, members, timeout_ms)
    }

    fn wait_in_log(&mut self, slot: usize, endpoint: usize, members: u64, timeout_ms: u64) -> Step {
        let log = self.endpoints.get(endpoint).and_then(|e| e.sequencer.as_ref()).map(|s| &s.log);
        let position = log.map_or(0, super::log::Log::end);
        let until_ms = if timeout_ms == 0 { u64::MAX } else { self.now.ms.saturating_add(timeout_ms) };
        let ticket = self.accept(slot);
        self.waits.push(Waiting { endpoint, position, members, until_ms, ticket });
        self.touch_sequencer(endpoint); // looked at in this very turn
        Step::Done
    }

    /// End what a session waits for. `false`: it waits for nothing here.
    pub(super) fn end_wait(&mut self, id: SessionId, how: Unblock) -> bool {
        let waited = self.waits_for_others(id);
        for one in self.waits.extract_if(.., |one| one.ticket.session() == id).collect::<Vec<_>>() {
            let have = self.others_with(one.endpoint, one.position);
            self.settle(one.ticket, |out| match how {
                Unblock::Error => encode::error(out, UNBLOCKED),
                _ => encode::integer(out, have as i64),
            });
        }
        waited
    }

    /// Whether a session waits here.
    pub(super) fn waits_for_others(&self, id: SessionId) -> bool {
        self.waits.iter().any(|one| one.ticket.session() == id)
    }

    /// Answer those that have waited enough.
    pub(super) fn settle_waits(&mut self) {
        for one in std::mem::take(&mut self.waits) {
            let have = self.others_with(one.endpoint, one.position);
            let gone = self
                .sessions
                .get(one.ticket.session().slot as usize)
                .is_none_or(|s| s.id != one.ticket.session());
            if have >= one.members || self.now.ms >= one.until_ms || gone {
                self.settle(one.ticket, |out| encode::integer(out, have as i64));
            } else {
                self.waits.push(one);
            }
        }
    }

    /// This member leads no more, and knows of no other.
    pub(super) fn give_up_waits(&mut self, endpoint: usize) {
        for one in std::mem::take(&mut self.waits) {
            if one.endpoint == endpoint {
                self.settle(one.ticket, |out| encode::integer(out, 0));
            } else {
                self.waits.push(one);
            }
        }
    }

    /// How many of the other members, or of the mirrors, have everything before a position.
    fn others_with(&self, endpoint: usize, position: u64) -> u64 {
        let Some(sequencer) = self.endpoints.get(endpoint).and_then(|e| e.sequencer.as_ref()) else {
            return 0;
        };
        let group = self.group.as_ref().filter(|g| g.local == endpoint);
        let in_sync = |r: &Replica| match group {
            Some(group) => self.is_in_sync(group, r.target),
            None => r.open && is_usable(self.upstreams.get(r.upstream)),
        };
        sequencer.replicas().filter(|r| r.acked >= position && r.is_clean() && in_sync(r)).count() as u64
    }

    /// Ask the server, after its replication offset has moved past what the session wrote elsewhere.
    fn wait_at_server(
        &mut self,
        slot: usize,
        place: &Place,
        command: &'static Command,
        request: &Request<'_>,
    ) -> Step {
        let key = match self.enter_private(slot, place.endpoint, Use::Command) {
            Ok(key) => key,
            Err(step) => return step,
        };
        if !self.endpoints[place.endpoint].is_link() {
            self.upstreams[key].say(&["SPUBLISH", NOBODY, ""], self.now.ms);
        }
        self.send_privately(slot, key, Use::Command, command, request, request.frame)
    }
}
