//! What the proxy answers itself: the handshake and the state that Redis keeps for a connection.

use std::borrow::Cow;

use crate::command::{Command, is_word, quoted};
use crate::resp::{Request, encode, parse_integer};

use super::Engine;
use super::handshake::database;
use super::ingress::{Incoming, Step, wrong_arity};
use super::session::{Ending, Session, Wait};

/// A reply was written, or this error is the reply.
pub(super) type Answered = Result<(), Cow<'static, str>>;

impl Engine {
    /// A command of the session's own state.
    pub(super) fn local(
        &mut self,
        slot: usize,
        known: Option<&'static Command>,
        command: Option<&'static Command>,
        incoming: &Incoming<'_, '_>,
    ) -> Step {
        let request = &incoming.request;
        if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
            listener.stats.count.downstream_rq_local.inc();
        }
        if let Some(command) = command.filter(|c| c.name == "wait") {
            return self.wait_on_route(slot, command, request);
        }
        if let Some(step) = self.ask_abroad(slot, command, request) {
            return step;
        }
        match known.map_or("", |c| c.name) {
            "ping" => self.ping(slot, request),
            "echo" => self.answer_now(slot, |out| encode::bulk(out, request.arg(1))),
            "select" => self.select(slot, request),
            "quit" => {
                let step = self.answer_now(slot, |out| encode::status(out, "OK"));
                self.sessions[slot].ending = Ending::Draining;
                step
            }
            "reset" => self.reset(slot),
            "unwatch" => self.unwatch(slot),
            _ => {
                if let Some(step) = self.tracking_command(slot, command, request) {
                    return step;
                }
                let mut reply = Vec::new();
                self.own_command(slot, known, command, request, &mut reply);
                if reply.first() == Some(&b'-')
                    && let Some(listener) = self.listeners.get(self.sessions[slot].listener)
                {
                    listener.stats.count.downstream_rq_error.inc();
                }
                self.answer_now(slot, |out| out.extend_from_slice(&reply))
            }
        }
    }

    /// A command that no server has to hear of. Its reply goes to `out`, so that it can be one of EXEC's as well.
    pub(super) fn own_command(
        &mut self,
        slot: usize,
        known: Option<&'static Command>,
        command: Option<&'static Command>,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) {
        let done = match known.map_or("", |c| c.name) {
            "hello" => self.hello(slot, request, out),
            "auth" => self.auth(slot, request, out),
            "client" => self.client(slot, command, request, out),
            "wait" => Err("ERR WAIT inside MULTI is not possible through redisha".into()),
            _ => Err("ERR This instance has cluster support disabled".into()), // ASKING, READONLY, READWRITE
        };
        if let Err(text) = done {
            encode::error(out, &text);
        }
    }

    fn ping(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let session = &self.sessions[slot];
        if session.resp == 2 && session.is_subscriber() && request.len() <= 2 {
            return self.answer_now(slot, |out| {
                encode::array(out, 2);
                encode::bulk(out, b"pong");
                encode::bulk(out, request.arg(1));
            });
        }
        if let Some(step) = self.ping_if_busy(slot, request) {
            return step;
        }
        match request.len() {
            1 => self.answer_now(slot, |out| encode::status(out, "PONG")),
            2 => self.answer_now(slot, |out| encode::bulk(out, request.arg(1))),
            _ => self.refuse(slot, &wrong_arity("ping")),
        }
    }

    fn reset(&mut self, slot: usize) -> Step {
        let open = self.plan.listeners.get(self.sessions[slot].listener).is_none_or(|l| l.users.is_empty());
        if self.sessions[slot].in_flight() > 0 && self.sessions[slot].has_private() {
            return Step::Stall(Wait::Quiet);
        }
        self.leave_private(slot);
        let consistency = self.plan.listeners.get(self.sessions[slot].listener).map(|l| l.consistency);
        let session = &mut self.sessions[slot];
        session.consistency = consistency.unwrap_or_default();
        session.resp = 2;
        session.db = 0;
        session.authenticated = open;
        if let Some(extra) = &mut session.extra {
            extra.name.clear();
            extra.user.clear();
            extra.transaction = None;
            if let Some(off) = extra.muted.back_mut().filter(|(_, to)| *to == u64::MAX) {
                off.1 = session.issued; // but a SKIP before it is for the reply to RESET
            }
        }
        self.answer_now(slot, |out| encode::status(out, "RESET"))
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]` (redis.io, HELLO).
    fn hello(&mut self, slot: usize, request: &Request<'_>, out: &mut Vec<u8>) -> Answered {
        let mut version = self.sessions[slot].resp;
        if request.len() > 1 {
            version = match parse_integer(request.arg(1)) {
                None => return Err("ERR Protocol version is not an integer or out of range".into()),
                Some(2) => 2,
                Some(3) => 3,
                Some(_) => return Err("NOPROTO unsupported protocol version".into()),
            };
        }
        // As in Redis 7.0, what comes before an option that is refused has been done.
        let mut i = 2;
        while i < request.len() {
            let left = request.len() - i - 1;
            if is_word(request.arg(i), "AUTH") && left >= 2 {
                self.log_in(slot, Some(request.arg(i + 1)), request.arg(i + 2))?;
                i += 3;
            } else if is_word(request.arg(i), "SETNAME") && left >= 1 {
                self.set_name(slot, request.arg(i + 1))?;
                i += 2;
            } else {
                return Err(format!("ERR Syntax error in HELLO option '{}'", quoted(request.arg(i))).into());
            }
        }
        if !self.sessions[slot].authenticated {
            return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> \
                        <pass> option can be used to authenticate the client and select the RESP protocol version at the \
                        same time"
                .into());
        }
        let server = self.server_version(slot);
        let session = &mut self.sessions[slot];
        session.resp = version;
        let id = session.number;
        self.speak_privately(slot);
        encode::map(out, 7, version == 3);
        let mut text = |name: &str, value: &str| {
            encode::bulk(out, name.as_bytes());
            encode::bulk(out, value.as_bytes());
        };
        text("server", "redis");
        text("version", &server);
        for (name, value) in [("proto", i64::from(version)), ("id", id)] {
            encode::bulk(out, name.as_bytes());
            encode::integer(out, value);
        }
        for (name, value) in [("mode", "standalone"), ("role", "master")] {
            encode::bulk(out, name.as_bytes());
            encode::bulk(out, value.as_bytes());
        }
        encode::bulk(out, b"modules");
        encode::array(out, 0);
        Ok(())
    }

    /// The version of a Redis behind the session's listener; the minimum that is supported while none is known.
    fn server_version(&self, slot: usize) -> String {
        self.server(slot).map_or_else(|| "6.2.0".to_owned(), |(version, _)| version)
    }

    /// The version of a Redis behind the session's listener and how many commands it has, if one is known.
    pub(super) fn server(&self, slot: usize) -> Option<(String, i64)> {
        let listener = self.sessions.get(slot).and_then(|s| self.listeners.get(s.listener));
        let targets = listener.into_iter().flat_map(|l| &l.routes).flat_map(|r| &r.by_endpoint);
        let mut servers = targets.filter_map(|t| {
            let endpoint = self.endpoints.get(t.endpoint)?;
            if endpoint.is_link() {
                return self.seat.server(&endpoint.cluster, &endpoint.id);
            }
            let identity = self.upstreams.get(endpoint.serve[0]?)?.identity.as_ref()?;
            Some((identity.version.clone(), identity.commands))
        });
        servers.find(|(version, _)| !version.is_empty())
    }

    fn auth(&mut self, slot: usize, request: &Request<'_>, out: &mut Vec<u8>) -> Answered {
        match request.len() {
            2 => self.log_in(slot, None, request.arg(1))?,
            3 => self.log_in(slot, Some(request.arg(1)), request.arg(2))?,
            _ => return Err("ERR syntax error".into()),
        }
        encode::status(out, "OK");
        Ok(())
    }

    fn log_in(&mut self, slot: usize, user: Option<&[u8]>, password: &[u8]) -> Answered {
        self.check_login(slot, user, password)?;
        let session = &mut self.sessions[slot];
        session.authenticated = true;
        let user = user.filter(|name| *name != b"default").unwrap_or_default();
        if !user.is_empty() || session.extra.is_some() {
            session.extra().user = user.to_vec();
        }
        Ok(())
    }

    fn check_login(&self, slot: usize, user: Option<&[u8]>, password: &[u8]) -> Result<(), &'static str> {
        const WRONG: &str = "WRONGPASS invalid username-password pair or user is disabled.";
        let users = self
            .sessions
            .get(slot)
            .and_then(|s| self.plan.listeners.get(s.listener))
            .map_or(&[][..], |l| &l.users);
        if users.is_empty() {
            return match user {
                None => Err(
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                     configuration is correct?",
                ),
                Some(b"default") => Ok(()),
                Some(_) => Err(WRONG),
            };
        }
        let wanted = user.unwrap_or(b"default");
        let mut found = false;
        for known in users {
            let name = known.name.as_deref().unwrap_or("default");
            // Every candidate is compared in full, whatever came before: time tells nothing.
            found |= name.as_bytes() == wanted && same_secret(known.password.as_bytes(), password);
        }
        if found { Ok(()) } else { Err(WRONG) }
    }

    /// SELECT: proven at the server before the session believes it.
    fn select(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let db = match database(request.arg(1)) {
            Ok(db) => db,
            Err(text) => return self.refuse(slot, text),
        };
        let session = &self.sessions[slot];
        let proven = |s: &Session| {
            db == s.db || self.proving_upstream(slot).is_some_and(|u| self.upstreams[u].is_proven(db))
        };
        if proven(session) {
            self.sessions[slot].db = db;
            return self.answer_now(slot, |out| encode::status(out, "OK"));
        }
        if session.in_flight() > 0 {
            return Step::Stall(Wait::Quiet);
        }
        let Some(endpoint) = self.proving_endpoint(slot) else {
            return self.refuse(slot, "UNAVAILABLE no Redis behind this listener is known yet; try again");
        };
        // All members have the same databases, so any of them can tell; and one that does not lead any more, too.
        let ready =
            super::gate::is_usable(self.proving_upstream(slot).and_then(|key| self.upstreams.get(key)));
        let called = self.sessions[slot].peering != super::session::Peering::Client;
        let endpoint = if self.is_in_group(slot) && !ready && !called {
            match self.place_in_group(slot, None) {
                Ok(place) => place.endpoint,
                Err(step) => return step,
            }
        } else {
            endpoint
        };
        let before = std::mem::replace(&mut self.sessions[slot].db, 0);
        let entered = self.enter(slot, endpoint, true);
        let session = &mut self.sessions[slot];
        session.db = before;
        let key = match entered {
            Ok(key) => key,
            Err(step) => return step,
        };
        session.path = key;
        let ticket = self.issue(slot);
        self.count_request(slot);
        let upstream = &mut self.upstreams[key];
        upstream.select(db, Some(ticket), self.now.ms, self.now.us);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        Step::Taken(Wait::Quiet) // what follows must know the outcome
    }

    /// The endpoint that tells which databases there are.
    fn proving_endpoint(&self, slot: usize) -> Option<usize> {
        let route = self.listeners.get(self.sessions.get(slot)?.listener)?.routes.last()?;
        let up = route.by_endpoint.iter().find(|t| route.scattered && self.is_up(t.endpoint));
        Some(up.or(route.by_endpoint.first())?.endpoint)
    }

    fn proving_upstream(&self, slot: usize) -> Option<usize> {
        let endpoint = self.proving_endpoint(slot)?;
        self.endpoints.get(endpoint)?.serve[0].filter(|&u| self.upstreams.contains(u))
    }
}

/// Compare without telling by the time where the difference is.
pub(super) fn same_secret(known: &[u8], given: &[u8]) -> bool {
    let mut differs = u8::from(known.len() != given.len());
    for (i, &byte) in given.iter().enumerate() {
        differs |= byte ^ known.get(i % known.len().max(1)).copied().unwrap_or(0);
    }
    differs == 0
}
