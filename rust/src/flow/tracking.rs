//! Client-side caching (redis.io, Client-side caching): `CLIENT TRACKING` and what a session that tracks does otherwise.
//!
//! The server remembers what was read on a connection, so whoever tracks reads on a connection of its own; the
//! invalidations come there and go to the client as they come. Where writes have one order, writes take the shared
//! connection, and the client is told of its own ones, too (`NOLOOP` cannot be kept there).

use crate::command::{Command, Flags, is_word};
use crate::resp::{Reply, Request, encode, parse_integer};

use super::Engine;
use super::call::{Call, command_of};
use super::ingress::Step;
use super::place::Place;
use super::private::Use;
use super::session::{Session, Wait};

/// What a session is told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracking {
    /// The session that is told instead: its number; 0: none.
    redirect: i64,
    /// How it tracks, as `CLIENT TRACKINGINFO` says it.
    flags: Vec<&'static str>,
    prefixes: Vec<Vec<u8>>,
}

/// What tracking becomes if the server agrees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Becomes {
    /// What it is.
    #[default]
    Unchanged,
    /// Off.
    Off,
    /// On.
    On(Tracking),
}

impl Session {
    /// Whether the server remembers what it reads.
    #[inline]
    pub fn is_tracking(&self) -> bool {
        self.extra.as_ref().and_then(|e| e.private.as_ref()).is_some_and(|p| p.tracking.is_some())
    }
}

/// What a session asks for.
fn tracking_of(request: &Request<'_>) -> Tracking {
    let mut tracking = Tracking { flags: vec!["on"], ..Tracking::default() };
    // In the order in which `CLIENT TRACKINGINFO` has them.
    for (word, flag) in [("BCAST", "bcast"), ("OPTIN", "optin"), ("OPTOUT", "optout"), ("NOLOOP", "noloop")] {
        tracking.flags.extend((3..request.len()).any(|i| is_word(request.arg(i), word)).then_some(flag));
    }
    let named = (3..request.len()).filter(|&i| is_word(request.arg(i), "PREFIX"));
    tracking.prefixes = named.map(|i| request.arg(i + 1).to_vec()).collect();
    tracking
}

impl Engine {
    /// A subcommand of `CLIENT` about tracking, where a server has to hear of it. `None`: it has not.
    pub(super) fn tracking_command(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Option<Step> {
        let command = command?;
        let private = self.sessions[slot].extra.as_ref().and_then(|e| e.private.as_ref());
        let tracking = private.and_then(|p| p.tracking.clone());
        let on = command.name == "client|tracking" && is_word(request.arg(2), "ON");
        match (command.name, tracking) {
            ("client|tracking", None) if on => Some(self.track(slot, command, request)),
            ("client|tracking", Some(_)) => Some(self.track(slot, command, request)),
            ("client|caching", Some(_)) | ("client|trackinginfo", Some(Tracking { redirect: 0, .. })) => {
                Some(self.tell_tracker(slot, command, request, request.frame, Becomes::Unchanged))
            }
            ("client|trackinginfo", Some(tracking)) => Some(self.tracking_info(slot, &tracking)),
            ("client|getredir", Some(Tracking { redirect, .. })) => {
                Some(self.answer_now(slot, |out| encode::integer(out, redirect)))
            }
            _ => None,
        }
    }

    /// `CLIENT TRACKINGINFO` where another session is told: the server knows it by another number.
    fn tracking_info(&mut self, slot: usize, tracking: &Tracking) -> Step {
        let resp3 = self.sessions[slot].resp == 3;
        let gone = self.session_numbered(tracking.redirect).is_none();
        let flags = tracking.flags.iter().copied().chain(gone.then_some("broken_redirect"));
        self.answer_now(slot, |out| {
            encode::map(out, 3, resp3);
            encode::bulk(out, b"flags");
            encode::set(out, flags.clone().count(), resp3);
            for flag in flags {
                encode::bulk(out, flag.as_bytes());
            }
            encode::bulk(out, b"redirect");
            encode::integer(out, tracking.redirect);
            encode::bulk(out, b"prefixes");
            encode::set(out, tracking.prefixes.len(), resp3);
            for prefix in &tracking.prefixes {
                encode::bulk(out, prefix);
            }
        })
    }

    /// `CLIENT TRACKING ON|OFF …`: the session that is to be told has another number at the server.
    fn track(&mut self, slot: usize, command: &'static Command, request: &Request<'_>) -> Step {
        let mut args: Vec<Vec<u8>> = request.args_from(0).map(<[u8]>::to_vec).collect();
        let mut tracking = tracking_of(request);
        let at = (3..request.len()).find(|&i| is_word(request.arg(i), "REDIRECT"));
        if let Some(id) = at.and_then(|i| parse_integer(request.arg(i + 1))) {
            match self.number_at_server(slot, command, request, id) {
                Ok(number) => {
                    tracking.redirect = id;
                    if let Some(arg) = at.and_then(|i| args.get_mut(i + 1)) {
                        *arg = number.to_string().into_bytes();
                    }
                }
                Err(step) => return step,
            }
        }
        let mut frame = Vec::new();
        encode::command(&mut frame, &args);
        let on = is_word(request.arg(2), "ON");
        let becomes = if on { Becomes::On(tracking) } else { Becomes::Off };
        self.tell_tracker(slot, command, request, &frame, becomes)
    }

    /// The server's number of another session, which gets a connection of its own for it.
    fn number_at_server(
        &mut self,
        slot: usize,
        command: &'static Command,
        request: &Request<'_>,
        id: i64,
    ) -> Result<i64, Step> {
        let Some(target) = self.session_numbered(id) else {
            if self.seat.is_elsewhere(id) {
                let text = "ERR if there is a connection with this ID, another worker of redisha serves it, and it cannot be \
                            told of what is read here; with 'workers: 1' it can";
                return Err(self.refuse(slot, text));
            }
            return Err(self.refuse(slot, "ERR The client ID you want redirect to does not exist"));
        };
        let place = self.place_nearest(slot, command, request)?;
        let key = self.open_private(target, place.endpoint, Use::Tracked);
        if self.upstreams.get(key).is_none_or(|u| u.endpoint != place.endpoint) {
            let text = "CROSSROUTE the connection to redirect to listens at another server";
            return Err(self.refuse(slot, text));
        }
        if let Some(private) = self.sessions[target].private() {
            private.told = true;
        }
        let waiter = self.sessions[slot].id;
        let overdue = std::mem::take(&mut self.sessions[slot].overdue);
        let upstream = &mut self.upstreams[key];
        let number = upstream.identity.as_ref().map_or(0, |i| i.client_id);
        match upstream.is_ready() {
            true if number != 0 => Ok(number),
            false if upstream.patient && !overdue => {
                upstream.wait(waiter, false);
                Err(Step::Stall(Wait::Upstream))
            }
            _ => {
                Err(self
                    .refuse(slot, "UNAVAILABLE the other connection cannot be told at the moment; try again"))
            }
        }
    }

    /// Say it on the session's own connection; `becomes`: what holds once the server agrees.
    fn tell_tracker(
        &mut self,
        slot: usize,
        command: &'static Command,
        request: &Request<'_>,
        frame: &[u8],
        becomes: Becomes,
    ) -> Step {
        let place = match self.place_nearest(slot, command, request) {
            Ok(place) => place,
            Err(step) => return step,
        };
        let key = match self.enter_private(slot, place.endpoint, Use::Command) {
            Ok(key) => key,
            Err(step) => return step,
        };
        if let Some(private) = self.sessions[slot].private() {
            private.becomes = becomes;
        }
        self.send_privately(slot, key, Use::Command, command, request, frame)
    }

    /// A session that tracks sends a command: what reads goes on its own connection, and where writes need no order
    /// everything. `None`: it takes the shared one.
    pub(super) fn forward_tracked(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
        place: &Place,
    ) -> Option<Step> {
        let command = command?;
        let reads = command.flags.contains(Flags::READONLY) && !command.is_write();
        let peer = self.endpoints[place.endpoint].peer;
        if reads && peer {
            let text = "UNAVAILABLE this member does not know at the moment whether it has what its leader has, and only what \
                        its own Redis answers can be tracked; try again";
            return Some(self.refuse(slot, text));
        }
        if !reads && (peer || self.endpoints[place.endpoint].sequencer.is_some()) {
            return None;
        }
        let key = match self.enter_private(slot, place.endpoint, Use::Tracked) {
            Ok(key) => key,
            Err(step) => return Some(step),
        };
        let frame = place.stripped(request);
        let frame = frame.as_deref().unwrap_or(request.frame);
        Some(self.send_privately(slot, key, Use::Tracked, command, request, frame))
    }

    /// The reply to `CLIENT TRACKING` has come.
    pub(super) fn note_tracking(&mut self, key: usize, slot: usize, reply: Reply<'_>) {
        let asked = matches!(
            self.upstreams.get(key).and_then(|u| u.calls.front()),
            Some(Call::Client(call)) if command_of(call.command).is_some_and(|c| c.name == "client|tracking")
        );
        let Some(private) = self.sessions.get_mut(slot).and_then(Session::private).filter(|_| asked) else {
            return;
        };
        match std::mem::take(&mut private.becomes) {
            Becomes::On(tracking) if reply.bytes() == b"+OK\r\n" => private.tracking = Some(tracking),
            Becomes::Off => private.tracking = None,
            _ => {}
        }
    }
}
