//! From a client's bytes to its commands: accepting sessions, finding frames, checking what state allows.

use std::num::NonZeroU32;

use crate::command::{Command, Treatment, lookup};
use crate::resp::{Bounds, Request, RequestScanner, Scanned, encode};

use super::call::UNKNOWN;
use super::ends::Ends;
use super::session::{Ending, Peering, Session, Wait};
use super::store::ADOPT;
use super::ticket::{SessionId, Ticket};
use super::{Engine, Intent};
use crate::plan::spec::Port;

/// Most commands of one session in one turn.
const TURN_COMMANDS: usize = 128;
/// The same of a link, which has those of many clients.
const LINK_COMMANDS: usize = 32 * TURN_COMMANDS;
/// Most spans that the shared scanner keeps between commands.
const SCANNER_KEEP: usize = 4096;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It was taken.
    Done,
    /// It was taken, and the bytes it lay in with it (a large frame).
    Adopted,
    /// It was taken, and the next one waits for this.
    Taken(Wait),
    /// It was not taken: the session waits for this, then tries it again.
    Stall(Wait),
}

/// A command's bytes, and the buffer they fill if it may be taken over.
pub(super) struct Incoming<'a, 'b> {
    pub request: Request<'a>,
    pub owner: Option<&'b std::cell::Cell<bool>>,
}

impl Engine {
    /// A client has connected. `None`: there are too many; the bytes are for it, then it is to be closed.
    pub fn session_open(&mut self, listener: usize, ends: Ends) -> Result<SessionId, &'static [u8]> {
        let Some(stats) = self.listeners.get(listener).map(|l| &l.stats.count) else {
            return Err(b"-ERR this listener is being closed\r\n");
        };
        let link = self.plan.listeners.get(listener).is_some_and(|l| l.link);
        if !link && !self.seat.comes(self.sessions.len() + self.joined, self.limits.max_clients as usize) {
            stats.downstream_cx_max_clients.inc();
            return Err(b"-ERR max number of clients reached\r\n");
        }
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.add(1);
        self.generation = NonZeroU32::MIN.saturating_add(self.generation.get() & 0x3fff_ffff);
        let entry = self.sessions.vacant_entry();
        let id = SessionId { slot: entry.key() as u32, generation: self.generation };
        let open = self.plan.listeners.get(listener).is_none_or(|l| l.users.is_empty());
        let session = entry.insert(Session::new(id, listener, open, ends, self.now.ms));
        session.number = self.seat.number(id);
        if link {
            session.become_link();
        } else if let Some(listener) = self.plan.listeners.get(listener) {
            session.port = listener.port;
            session.consistency = listener.consistency;
            if listener.port == Port::Peers {
                session.peering = Peering::Stranger;
            }
        }
        Ok(id)
    }

    /// Whether the session's socket is to be read.
    pub fn wants_read(&self, id: SessionId) -> bool {
        self.sessions.get(id.slot as usize).is_some_and(|s| {
            s.id == id
                && s.ending == Ending::Open
                && !s.half_closed
                && s.wait == Wait::Nothing
                && !s.paused
                && (s.input.len() == s.consumed || s.extra.as_ref().is_some_and(|e| e.scanner.is_some()))
        })
    }

    /// Bytes of a session, in the shell's own buffer.
    pub fn session_bytes(&mut self, id: SessionId, bytes: &[u8]) {
        let now_ms = self.now.ms;
        let Some(session) = self.session(id) else { return };
        session.active_ms = now_ms;
        let listener = session.listener;
        let fresh = session.input.is_empty();
        if !fresh {
            session.input.extend_from_slice(bytes);
        }
        if let Some(listener) = self.listeners.get(listener) {
            listener.stats.count.downstream_cx_rx_bytes_total.add(bytes.len() as u64);
        }
        if !fresh {
            return self.session_run(id);
        }
        let taken = self.take_commands(id, bytes, None);
        if taken < bytes.len()
            && let Some(session) = self.session(id)
            && session.ending == Ending::Open
        {
            // The rest of a large command will be read behind these bytes, without moving them again.
            let missing = session.missing();
            let rest = &bytes[taken..];
            session.input =
                Vec::with_capacity(if missing > ADOPT { rest.len() + missing } else { rest.len() });
            session.input.extend_from_slice(rest);
            session.consumed = 0;
            self.weigh(id);
        }
    }

    /// A large command is being received: the bytes still missing, to be read straight behind those that are here.
    pub fn session_buffer(&mut self, id: SessionId) -> Option<(&mut Vec<u8>, usize)> {
        let session = self.session(id)?;
        let missing = session.missing();
        if missing < ADOPT / 2 || session.consumed != 0 {
            return None;
        }
        Some((&mut session.input, missing))
    }

    /// `n` bytes were read into the session's own buffer.
    pub fn session_filled(&mut self, id: SessionId, n: usize) {
        let now_ms = self.now.ms;
        let Some(session) = self.session(id) else { return };
        session.active_ms = now_ms;
        let listener = session.listener;
        if let Some(listener) = self.listeners.get(listener) {
            listener.stats.count.downstream_cx_rx_bytes_total.add(n as u64);
        }
        self.session_run(id);
    }

    /// A session from the list of those that can go on.
    pub fn session_resume(&mut self, id: SessionId) {
        if let Some(session) = self.session(id) {
            session.runnable = false;
            self.session_run(id);
        }
    }

    /// Go on with the bytes that are here.
    pub fn session_run(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        if session.ending != Ending::Open || session.wait != Wait::Nothing || session.input.is_empty() {
            return;
        }
        let input = std::mem::take(&mut session.input);
        let consumed = session.consumed;
        let adopted = std::cell::Cell::new(false);
        // Only a command that fills its buffer can take it over.
        let owner = (consumed == 0 && input.len() >= ADOPT).then_some(&adopted);
        let mut input = Some(input);
        let taken = match &input {
            Some(bytes) => self.take_commands(id, bytes.get(consumed..).unwrap_or(&[]), owner),
            None => 0,
        };
        if adopted.get() {
            self.adopt_input(input.take().unwrap_or_default());
        }
        let Some(session) = self.session(id) else { return };
        let Some(mut input) = input else { return };
        if session.ending != Ending::Open {
            return;
        }
        session.consumed = consumed + taken;
        if session.consumed >= input.len() || (session.half_closed && session.missing() > 0) {
            session.consumed = 0;
            if session.half_closed {
                self.touch_session(id); // it may be finished now
            }
            return; // the buffer is dropped: an idle session owns none
        }
        if session.consumed > input.len() / 2 && session.missing() > 0 {
            input.drain(..session.consumed);
            session.consumed = 0;
        }
        input.reserve_exact(session.missing().saturating_sub(input.capacity() - input.len()));
        session.input = input;
        self.weigh(id);
    }

    fn touch_session(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id) {
            Self::mark_session(session, &mut self.dirty_sessions);
        }
    }

    fn weigh(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id) {
            Self::weigh_session(session, &mut self.heavy);
        }
    }

    /// The client will send no more.
    pub fn session_end_of_input(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id) else { return };
        session.end_input();
        Self::mark_session(session, &mut self.dirty_sessions);
    }

    /// The session's socket is gone.
    pub fn session_closed(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id.slot as usize).filter(|s| s.id == id) else { return };
        // Answers that wait for their turn were counted off already.
        let parked = session.extra.as_ref().map_or(0, |e| e.parked.len() as u64);
        let in_flight = session.in_flight() - parked;
        if let Some(listener) = self.listeners.get(session.listener) {
            let count = &listener.stats.count;
            count.downstream_cx_destroy.inc();
            count.downstream_cx_active.dec();
            count.downstream_rq_active.set(count.downstream_rq_active.get().saturating_sub(in_flight));
        }
        let stream = matches!(session.peering, Peering::Stream { .. });
        if !session.is_link() {
            self.seat.goes();
        }
        self.leave_line(id, super::unblock::Unblock::Gone);
        self.leave_private(id.slot as usize); // (what it had sent there is fenced while the barrier stands)
        self.unbar(id);
        self.sessions.remove(id.slot as usize);
        if stream && let Some(group) = self.group.as_mut() {
            group.granted_until = 0; // what the leader does now is not known here
        }
    }

    /// Take commands from `bytes`; gives how many bytes were consumed.
    fn take_commands(&mut self, id: SessionId, bytes: &[u8], owner: Option<&std::cell::Cell<bool>>) -> usize {
        let slot = id.slot as usize;
        let Some(session) = self.sessions.get_mut(slot) else { return 0 };
        let mut scanner = match session.extra.as_mut().and_then(|e| e.scanner.take()) {
            Some(midway) => midway,
            None => std::mem::take(&mut self.scanner),
        };
        let bounds = Bounds { request: self.limits.max_request, authenticated: session.authenticated };
        let taken = self.take_commands_with(slot, bytes, &mut scanner, bounds, owner);
        if let Some(session) = self.sessions.get_mut(slot)
            && scanner.is_midway()
        {
            session.extra().scanner = Some(scanner);
        } else if scanner.keep() <= SCANNER_KEEP {
            self.scanner = scanner;
        }
        taken
    }

    fn take_commands_with(
        &mut self,
        slot: usize,
        bytes: &[u8],
        scanner: &mut RequestScanner,
        mut bounds: Bounds,
        owner: Option<&std::cell::Cell<bool>>,
    ) -> usize {
        let mut at = 0;
        let most = if self.sessions[slot].is_link() { LINK_COMMANDS } else { TURN_COMMANDS };
        for _ in 0..most {
            let rest = bytes.get(at..).unwrap_or(&[]);
            if rest.is_empty() {
                return at;
            }
            let session = &mut self.sessions[slot];
            if session.is_paused() {
                self.pause(slot);
                return at;
            }
            bounds.authenticated = session.authenticated;
            let (step, len) = match scanner.scan(rest, bounds) {
                Scanned::Frame(len) => {
                    let request = scanner.request(rest.get(..len).unwrap_or(&[]));
                    let owner = owner.filter(|_| len == bytes.len());
                    (self.command(slot, &Incoming { request, owner }), len)
                }
                Scanned::Inline(len) => {
                    (self.command(slot, &Incoming { request: scanner.inline(), owner: None }), len)
                }
                Scanned::Nothing(len) => (Step::Done, len),
                Scanned::Incomplete(missing) => {
                    self.sessions[slot].extra().missing = missing;
                    return at;
                }
                Scanned::Malformed(error) => {
                    self.malformed(slot, &error.to_string());
                    return bytes.len();
                }
            };
            match step {
                Step::Done | Step::Adopted => {
                    self.sessions[slot].waiting_since = 0;
                    at += len;
                }
                Step::Taken(wait) => {
                    self.sessions[slot].waiting_since = 0;
                    self.sessions[slot].wait = wait;
                    return at + len;
                }
                Step::Stall(wait) => {
                    let session = &mut self.sessions[slot];
                    match wait {
                        Wait::Upstream if session.waiting_since == 0 => session.waiting_since = self.now.ms,
                        Wait::Upstream => {}
                        _ => session.waiting_since = 0,
                    }
                    session.wait = wait;
                    return at;
                }
            }
            if self.sessions[slot].ending != Ending::Open {
                return bytes.len();
            }
        }
        if at < bytes.len() {
            Self::wake(&mut self.sessions[slot], &mut self.runnable);
        }
        at
    }

    /// The session stops at a bound until replies come or the client reads them.
    fn pause(&mut self, slot: usize) {
        let session = &mut self.sessions[slot];
        session.paused = true;
        if let Some(listener) = self.listeners.get(session.listener) {
            listener.stats.count.downstream_cx_paused.inc();
        }
    }

    /// A browser was tricked into speaking to a Redis, or somebody takes us for a web server: the connection ends
    /// without an answer, as Redis does it (`securityWarningCommand`).
    fn hang_up(&mut self, slot: usize) {
        if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
            listener.stats.count.downstream_cx_protocol_error.inc();
        }
        self.close_session(slot);
    }

    /// The client does not speak RESP: Redis's own text, then the end. What it asked before is still answered.
    fn malformed(&mut self, slot: usize, text: &str) {
        let session = &mut self.sessions[slot];
        if let Some(listener) = self.listeners.get(session.listener) {
            listener.stats.count.downstream_cx_protocol_error.inc();
            listener.stats.count.downstream_rq_active.add(1);
        }
        session.ending = Ending::Draining;
        let ticket = self.issue(slot);
        self.settle(ticket, |out| encode::error(out, &format!("ERR Protocol error: {text}")));
    }

    /// One command of a session.
    fn command(&mut self, slot: usize, incoming: &Incoming<'_, '_>) -> Step {
        let request = &incoming.request;
        let known = lookup(request.arg(0));
        if known.is_none() && is_http(request.arg(0)) {
            self.hang_up(slot);
            return Step::Done;
        }
        let resolved = known.map(|c| c.resolve(request));
        let command = resolved.and_then(Result::ok);
        let id = command.or(known).map_or(UNKNOWN, |c| c.id);
        self.sessions[slot].last = id;
        let step = self.dispatch(slot, known, command, incoming);
        if !matches!(step, Step::Stall(_))
            && let Some(session) = self.sessions.get_mut(slot)
        {
            session.active_ms = self.now.ms;
            if session.is_link() {
                return step; // counted where its client is
            }
            if let Some(count) = self.registry.commands.get(usize::from(id)).or(self.registry.commands.last())
            {
                count.inc();
            }
        }
        step
    }

    fn dispatch(
        &mut self,
        slot: usize,
        known: Option<&'static Command>,
        command: Option<&'static Command>,
        incoming: &Incoming<'_, '_>,
    ) -> Step {
        let request = &incoming.request;
        if self.must_pause(slot, known, command, request) {
            return Step::Stall(Wait::Pause);
        }
        if self.is_in_group(slot)
            && (self.sessions[slot].authenticated || self.sessions[slot].peering != Peering::Client)
            && let Some(step) = self.group_command(slot, known, request)
        {
            return step;
        }
        let session = &self.sessions[slot];
        if !session.authenticated && !is_allowed_before_auth(known) {
            return self.refuse_before_login(slot, command, request);
        }
        if let Some(command) = command
            && !command.arity_ok(request.len())
        {
            if command.name == "exec" {
                // As Redis has it: a malformed EXEC ends the transaction, if there is one.
                self.end_transaction(slot);
                return self.refuse(slot, &aborted(&wrong_arity("exec")));
            }
            return self.refuse_queueing(slot, &wrong_arity(command.name));
        }
        if session.resp == 2
            && session.is_subscriber()
            && let Some(command) = command
            && !is_allowed_to_subscribers(command)
        {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
                 context",
                command.name
            );
            return self.refuse(slot, if command.name == "exec" { aborted(&text) } else { text }.as_str());
        }
        match command.or(known).map(|c| c.treatment) {
            Some(Treatment::Transaction) => self.transaction_command(slot, known, request),
            Some(Treatment::Local) if !session.in_transaction() || is_outside_transactions(known) => {
                self.local(slot, known, command, incoming)
            }
            _ if session.in_transaction() => self.queue(slot, known, command, request),
            _ => self.forward(slot, command, incoming),
        }
    }

    /// As Redis does, who has not logged in is told first that there is no such command, or no such use of it.
    fn refuse_before_login(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Step {
        let text = match command {
            Some(command) if !command.arity_ok(request.len()) => Some(wrong_arity(command.name)),
            Some(_) => None,
            None if super::client::is_newer(request) => None,
            None => self.unknown_to_server(slot, request),
        };
        let text = text.as_deref().unwrap_or("NOAUTH Authentication required.");
        if command.is_some_and(|c| c.name == "exec") {
            return self.refuse(slot, &aborted(text));
        }
        self.refuse(slot, text)
    }

    /// Answer a command with an error of the proxy's own.
    pub(super) fn refuse(&mut self, slot: usize, text: &str) -> Step {
        if let Some(listener) = self.listeners.get(self.sessions[slot].listener) {
            listener.stats.count.downstream_rq_error.inc();
        }
        self.answer_now(slot, |out| encode::error(out, text))
    }

    /// The same for a command that cannot be queued: the transaction is spoilt.
    pub(super) fn refuse_queueing(&mut self, slot: usize, text: &str) -> Step {
        if let Some(queued) = self.sessions[slot].transaction() {
            queued.failed = true;
        }
        self.refuse(slot, text)
    }

    /// Answer a command at once (in its turn).
    pub(super) fn answer_now(&mut self, slot: usize, write: impl FnOnce(&mut Vec<u8>)) -> Step {
        let ticket = self.issue(slot);
        self.count_request(slot);
        self.settle(ticket, write);
        Step::Done
    }

    /// Accept a command of a session, or one that it sent before.
    #[inline]
    pub(super) fn issue(&mut self, slot: usize) -> Ticket {
        self.reissue.take().unwrap_or_else(|| self.sessions[slot].issue())
    }

    /// A command was accepted.
    #[inline]
    pub(super) fn count_request(&self, slot: usize) {
        if let Some(listener) = self.sessions.get(slot).and_then(|s| self.listeners.get(s.listener)) {
            listener.stats.count.downstream_rq_total.inc();
            listener.stats.count.downstream_rq_active.add(1);
        }
    }

    /// `n` bytes of a session's output have left.
    pub fn session_wrote(&mut self, id: SessionId, n: usize) {
        let now_ms = self.now.ms;
        let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id) else { return };
        if let Some(buffer) = session.wrote(n, now_ms) {
            self.buffers.put(buffer);
        }
        let listener = session.listener;
        session.active_ms = self.now.ms;
        if session.paused && session.may_resume() {
            session.paused = false;
            Self::rouse(session, &mut self.runnable);
        }
        if let Some(listener) = self.listeners.get(listener) {
            listener.stats.count.downstream_cx_tx_bytes_total.add(n as u64);
        }
    }

    /// What a session has to be written; takes it off the list of dirty ones.
    pub fn session_output(&mut self, id: SessionId) -> &[u8] {
        match self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id) {
            Some(session) => {
                session.dirty = false;
                &session.output[session.written..]
            }
            None => &[],
        }
    }

    /// Whether a session is done and is to be closed, now that its output was written as far as the socket took it.
    pub fn session_is_finished(&self, id: SessionId) -> bool {
        self.sessions.get(id.slot as usize).filter(|s| s.id == id).is_some_and(Session::is_finished)
    }

    /// Close a session for its own good or ours.
    pub(super) fn close_session(&mut self, slot: usize) {
        let session = &mut self.sessions[slot];
        session.ending = Ending::Broken;
        self.intents.push(Intent::CloseSession { session: session.id });
    }
}

/// Redis's text for a wrong number of arguments.
pub(super) fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// Redis's text for an EXEC that is refused itself.
fn aborted(text: &str) -> String {
    format!("EXECABORT Transaction discarded because of: {}", text.strip_prefix("ERR ").unwrap_or(text))
}

fn is_allowed_before_auth(command: Option<&'static Command>) -> bool {
    command.is_some_and(|c| matches!(c.name, "auth" | "hello" | "quit" | "reset"))
}

/// What a client may send in RESP2 while it is subscribed (`processCommand`).
fn is_allowed_to_subscribers(command: &Command) -> bool {
    matches!(command.name, "ping" | "quit" | "reset") || super::subscribe::is_subscription(command)
}

/// The words of HTTP on which Redis hangs up.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Session commands that are not queued between MULTI and EXEC.
fn is_outside_transactions(command: Option<&'static Command>) -> bool {
    command.is_some_and(|c| matches!(c.name, "quit" | "reset"))
}
