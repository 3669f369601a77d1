//! What the proxy answers itself: the handshake and the state that Redis keeps for a connection.

use crate::command::{Command, is_word};
use crate::resp::{Request, encode, parse_integer};

use super::Engine;
use super::handshake::{Identity, database};
use super::ingress::{Incoming, Step, wrong_arity};
use super::session::{Ending, Session, Wait};

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
        match known.map_or("", |c| c.name) {
            "ping" => self.ping(slot, request),
            "echo" => self.answer_now(slot, |out| encode::bulk(out, request.arg(1))),
            "hello" => self.hello(slot, request),
            "auth" => self.auth(slot, request),
            "select" => self.select(slot, request),
            "client" => self.client(slot, command, request),
            "quit" => {
                let step = self.answer_now(slot, |out| encode::status(out, "OK"));
                self.sessions[slot].ending = Ending::Draining;
                step
            }
            "reset" => self.reset(slot),
            "unwatch" => self.unwatch(slot),
            "asking" | "readonly" | "readwrite" => {
                self.refuse(slot, "ERR This instance has cluster support disabled")
            }
            name => self.unsupported(slot, name),
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
            extra.transaction = None;
            if let Some(last) = extra.muted.back_mut() {
                last.1 = last.1.min(session.issued);
            }
        }
        self.answer_now(slot, |out| encode::status(out, "RESET"))
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]` (redis.io, HELLO).
    fn hello(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let mut version = self.sessions[slot].resp;
        let mut login = None;
        let mut name = None;
        if request.len() > 1 {
            version = match parse_integer(request.arg(1)) {
                None => return self.refuse(slot, "ERR Protocol version is not an integer or out of range"),
                Some(2) => 2,
                Some(3) => 3,
                Some(_) => return self.refuse(slot, "NOPROTO unsupported protocol version"),
            };
        }
        let mut i = 2;
        while i < request.len() {
            let left = request.len() - i - 1;
            if is_word(request.arg(i), "AUTH") && left >= 2 {
                login = Some((request.arg(i + 1), request.arg(i + 2)));
                i += 3;
            } else if is_word(request.arg(i), "SETNAME") && left >= 1 {
                name = Some(request.arg(i + 1));
                i += 2;
            } else {
                let text =
                    format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(request.arg(i)));
                return self.refuse(slot, &text);
            }
        }
        if let Some((user, password)) = login {
            if let Err(text) = self.check_login(slot, Some(user), password) {
                return self.refuse(slot, text);
            }
            self.sessions[slot].authenticated = true;
        }
        if !self.sessions[slot].authenticated {
            return self.refuse(
                slot,
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                 <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
                 the same time",
            );
        }
        if let Some(name) = name {
            if !is_client_name(name) {
                return self.refuse(slot, CLIENT_NAME);
            }
            self.sessions[slot].extra().name = name.to_vec();
        }
        let server = self.server_version(slot);
        let session = &mut self.sessions[slot];
        session.resp = version;
        let id = session.id.generation.get();
        self.speak_privately(slot);
        self.answer_now(slot, |out| {
            let resp3 = version == 3;
            encode::map(out, 7, resp3);
            let mut text = |name: &str, value: &str| {
                encode::bulk(out, name.as_bytes());
                encode::bulk(out, value.as_bytes());
            };
            text("server", "redis");
            text("version", &server);
            for (name, value) in [("proto", i64::from(version)), ("id", i64::from(id))] {
                encode::bulk(out, name.as_bytes());
                encode::integer(out, value);
            }
            for (name, value) in [("mode", "standalone"), ("role", "master")] {
                encode::bulk(out, name.as_bytes());
                encode::bulk(out, value.as_bytes());
            }
            encode::bulk(out, b"modules");
            encode::array(out, 0);
        })
    }

    /// The version of a Redis behind the session's listener; the minimum that is supported while none is known.
    fn server_version(&self, slot: usize) -> String {
        self.identity(slot).map_or_else(|| "6.2.0".to_owned(), |i| i.version.clone())
    }

    /// A Redis behind the session's listener, if one is known.
    pub(super) fn identity(&self, slot: usize) -> Option<&Identity> {
        let listener = self.sessions.get(slot).and_then(|s| self.listeners.get(s.listener));
        let targets = listener.into_iter().flat_map(|l| &l.routes).flat_map(|r| &r.by_endpoint);
        let mut identities = targets
            .filter_map(|t| self.endpoints.get(t.endpoint)?.serve[0])
            .filter_map(|key| self.upstreams.get(key)?.identity.as_ref());
        identities.find(|i| !i.version.is_empty())
    }

    fn auth(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let login = match request.len() {
            2 => self.check_login(slot, None, request.arg(1)),
            3 => self.check_login(slot, Some(request.arg(1)), request.arg(2)),
            _ => Err("ERR syntax error"),
        };
        match login {
            Ok(()) => {
                self.sessions[slot].authenticated = true;
                self.answer_now(slot, |out| encode::status(out, "OK"))
            }
            Err(text) => self.refuse(slot, text),
        }
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
        let endpoint = self
            .listeners
            .get(session.listener)
            .and_then(|l| Some(l.routes.last()?.by_endpoint.first()?.endpoint));
        let Some(endpoint) = endpoint else {
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

    fn proving_upstream(&self, slot: usize) -> Option<usize> {
        let session = self.sessions.get(slot)?;
        let endpoint = self.listeners.get(session.listener)?.routes.last()?.by_endpoint.first()?.endpoint;
        self.endpoints.get(endpoint)?.serve[0].filter(|&u| self.upstreams.contains(u))
    }

    fn client(&mut self, slot: usize, command: Option<&'static Command>, request: &Request<'_>) -> Step {
        let sub = request.arg(1).to_ascii_uppercase();
        let n = request.len();
        let id = i64::from(self.sessions[slot].id.generation.get());
        match (sub.as_slice(), n) {
            (b"ID", 2) => self.answer_now(slot, |out| encode::integer(out, id)),
            (b"SETNAME", 3) if !is_client_name(request.arg(2)) => self.refuse(slot, CLIENT_NAME),
            (b"SETNAME", 3) => {
                self.sessions[slot].extra().name = request.arg(2).to_vec();
                self.answer_now(slot, |out| encode::status(out, "OK"))
            }
            (b"GETNAME", 2) => {
                let session = &self.sessions[slot];
                let resp3 = session.resp == 3;
                let name = session.extra.as_ref().map(|e| e.name.clone()).unwrap_or_default();
                self.answer_now(slot, |out| {
                    if name.is_empty() { encode::nil(out, resp3) } else { encode::bulk(out, &name) }
                })
            }
            (b"SETINFO", 4) => self.client_setinfo(slot, request),
            (b"INFO", 2) => {
                let line = self.client_line(&self.sessions[slot]);
                self.answer_now(slot, |out| encode::bulk(out, line.as_bytes()))
            }
            (b"LIST", 2) => {
                let lines: String = self.sessions.iter().map(|(_, s)| self.client_line(s)).collect();
                self.answer_now(slot, |out| encode::bulk(out, lines.as_bytes()))
            }
            (b"REPLY", 3) => self.client_reply(slot, request),
            (b"NO-EVICT" | b"NO-TOUCH", 3)
                if is_word(request.arg(2), "ON") || is_word(request.arg(2), "OFF") =>
            {
                self.answer_now(slot, |out| encode::status(out, "OK"))
            }
            (b"NO-EVICT" | b"NO-TOUCH", 3) => self.refuse(slot, "ERR syntax error"),
            (b"TRACKING", 3) if is_word(request.arg(2), "OFF") => {
                self.answer_now(slot, |out| encode::status(out, "OK"))
            }
            (b"GETREDIR", 2) => self.answer_now(slot, |out| encode::integer(out, -1)),
            (b"KILL", 4) if is_word(request.arg(2), "ID") => self.client_kill(slot, request.arg(3)),
            _ => match command {
                Some(command) => self.unsupported(slot, command.name),
                None => {
                    let text = format!(
                        "ERR unknown subcommand '{}'. Try CLIENT HELP.",
                        String::from_utf8_lossy(request.arg(1).get(..128).unwrap_or(request.arg(1)))
                    );
                    self.refuse(slot, &text)
                }
            },
        }
    }

    fn client_setinfo(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let value = request.arg(3);
        if !is_client_name(value) {
            let what = String::from_utf8_lossy(request.arg(2)).to_lowercase();
            return self
                .refuse(slot, &format!("ERR {what} cannot contain spaces, newlines or special characters."));
        }
        let extra = self.sessions[slot].extra();
        if is_word(request.arg(2), "LIB-NAME") {
            extra.library = value.to_vec();
        } else if is_word(request.arg(2), "LIB-VER") {
            extra.library_version = value.to_vec();
        } else {
            let text = format!("ERR Unrecognized option '{}'", String::from_utf8_lossy(request.arg(2)));
            return self.refuse(slot, &text);
        }
        self.answer_now(slot, |out| encode::status(out, "OK"))
    }

    /// `CLIENT REPLY ON|OFF|SKIP`: the commands concerned are settled like any other, their replies not written.
    fn client_reply(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let session = &mut self.sessions[slot];
        let next = session.issued;
        let muted = &mut session.extra().muted;
        let is_off = muted.back().is_some_and(|&(_, to)| to == u64::MAX);
        if is_word(request.arg(2), "ON") {
            if let Some(last) = muted.back_mut() {
                last.1 = last.1.min(next);
            }
            self.answer_now(slot, |out| encode::status(out, "OK"))
        } else if is_word(request.arg(2), "OFF") {
            if !is_off {
                muted.push_back((next, u64::MAX));
            }
            self.answer_now(slot, |_| {})
        } else if is_word(request.arg(2), "SKIP") {
            if !is_off {
                muted.push_back((next, next + 2));
            }
            self.answer_now(slot, |_| {})
        } else {
            self.refuse(slot, "ERR syntax error")
        }
    }

    fn client_kill(&mut self, slot: usize, id: &[u8]) -> Step {
        let Some(wanted) = parse_integer(id).filter(|&n| n > 0) else {
            return self.refuse(slot, "ERR client-id should be greater than 0");
        };
        let found =
            self.sessions.iter().find(|(_, s)| i64::from(s.id.generation.get()) == wanted).map(|(k, _)| k);
        // A member ends its own predecessor; the number may be one of another process.
        let kind = |slot: usize| self.sessions.get(slot).map(|s| std::mem::discriminant(&s.peering));
        let found = found.filter(|other| kind(*other) == kind(slot));
        let step = self.answer_now(slot, |out| encode::integer(out, i64::from(found.is_some())));
        match found {
            Some(me) if me == slot => self.sessions[slot].ending = Ending::Draining,
            Some(other) => self.close_session(other),
            None => {}
        }
        step
    }

    /// A session as `CLIENT LIST` shows it: the fields that the proxy knows.
    fn client_line(&self, session: &Session) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let extra = session.extra.as_deref();
        let queued = extra.and_then(|e| e.transaction.as_ref()).map_or(-1, |t| t.items.len() as i64);
        format!(
            "id={} name={} age={} idle={} flags={} db={} sub=0 psub=0 ssub=0 multi={queued} qbuf={} obl={} user=default \
             redir=-1 resp={} lib-name={} lib-ver={}\n",
            session.id.generation,
            extra.map(|e| text(&e.name)).unwrap_or_default(),
            (self.now.ms.saturating_sub(session.since_ms)) / 1000,
            (self.now.ms.saturating_sub(session.active_ms)) / 1000,
            if queued >= 0 { "x" } else { "N" },
            session.db,
            session.input.len(),
            session.unread(),
            session.resp,
            extra.map(|e| text(&e.library)).unwrap_or_default(),
            extra.map(|e| text(&e.library_version)).unwrap_or_default(),
        )
    }
}

const CLIENT_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

fn is_client_name(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}

/// Compare without telling by the time where the difference is.
pub(super) fn same_secret(known: &[u8], given: &[u8]) -> bool {
    let mut differs = u8::from(known.len() != given.len());
    for (i, &byte) in given.iter().enumerate() {
        differs |= byte ^ known.get(i % known.len().max(1)).copied().unwrap_or(0);
    }
    differs == 0
}
