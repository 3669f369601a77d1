//! From a server's bytes to its replies, and from a reply to whom it belongs.

use crate::resp::{Reply, encode};

use super::call::{Call, Convert, NO_ENTRY, TransactionCall, TransactionItem};
use super::functions::{libraries, without_markers};
use super::info::with_blocked;
use super::session::{Ending, Wait};
use super::ticket::Ticket;
use super::upstream::{Phase, Role, Stream};
use super::{Engine, SessionId};

/// Why a connection is closed that pushes.
pub(super) const PUSHED: &str = "it pushed a message on a shared connection";
/// What a server answers to EXEC if a command was not queued.
const ABORTED: &[u8] = b"-EXECABORT ";
/// A reply that is at least this long, and not complete, is passed on as it comes.
const STREAM_FROM: usize = 32 * 1024;

impl Engine {
    /// Bytes of an upstream, in the shell's own buffer.
    pub fn upstream_bytes(&mut self, key: usize, epoch: u32, bytes: &[u8]) {
        let mut rest = bytes;
        if let Some(endpoint) = self.upstreams.get(key).and_then(|u| self.endpoints.get(u.endpoint)) {
            endpoint.stats.count.upstream_cx_rx_bytes_total.add(bytes.len() as u64);
        }
        while !rest.is_empty() {
            let Some(upstream) = self.upstreams.get_mut(key).filter(|u| u.epoch == epoch) else { return };
            match upstream.scanner.scan(rest) {
                Err(error) => {
                    return self.protocol_error(key, &format!("it sent something that is not RESP: {error}"));
                }
                Ok(Some(n)) => {
                    let (head, tail) = rest.split_at(n);
                    rest = tail;
                    if upstream.stream != Stream::Whole {
                        self.stream(key, head, true);
                        self.wake_if_room(key);
                    } else if upstream.partial.is_empty() {
                        self.reply(key, head);
                    } else {
                        upstream.partial.extend_from_slice(head);
                        let whole = std::mem::take(&mut upstream.partial);
                        self.reply(key, &whole);
                    }
                }
                Ok(None) => {
                    if upstream.stream != Stream::Whole {
                        return self.stream(key, rest, false);
                    }
                    upstream.partial.extend_from_slice(rest);
                    if upstream.partial.len() >= STREAM_FROM {
                        self.begin_stream(key);
                    }
                    return;
                }
            }
        }
    }

    fn protocol_error(&mut self, key: usize, reason: &str) {
        if let Some(endpoint) = self.upstreams.get(key).and_then(|u| self.endpoints.get(u.endpoint)) {
            endpoint.stats.count.upstream_cx_protocol_error.inc();
        }
        self.break_upstream(key, reason);
    }

    /// A long reply: from here on its bytes go to their client as they come, if they can. One that must be seen whole
    /// to know its effect is held, up to a bound; past it the effect is not known, and its keys are copied instead.
    fn begin_stream(&mut self, key: usize) {
        let max = self.limits.max_output;
        let upstream = &mut self.upstreams[key];
        if upstream.is_private() && self.is_told_privately(key) {
            if self.upstreams[key].partial.len() > max {
                self.protocol_error(key, "a message to a subscriber is larger than max_output");
            }
            return;
        }
        let upstream = &mut self.upstreams[key];
        if upstream.partial.first() == Some(&b'>') {
            return self.protocol_error(key, PUSHED);
        }
        self.shed_part(key);
        let upstream = &mut self.upstreams[key];
        let held = match upstream.calls.front() {
            Some(Call::Sync(_)) => super::copy::PAYLOAD_MAX.min(max),
            _ => max,
        };
        let large = upstream.partial.len() > held;
        let Some(call) = upstream.calls.front_mut() else { return };
        if call.wants_whole_reply() {
            if !large {
                return;
            }
            call.give_up_effect();
            if let Call::Transaction(of) = call
                && of.items.iter().any(TransactionItem::is_own)
                && let Some(ticket) = of.ticket.take()
            {
                let text = "INDOUBT EXEC's reply is larger than max_output; what the proxy itself was to do was not done";
                self.settle(ticket, |out| encode::error(out, text));
            }
        }
        let call = self.upstreams[key].calls.front();
        let owner = call.and_then(Call::ticket).map(|t| (t.session(), t.number()));
        let client = owner.and_then(|(id, number)| {
            let session = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id)?;
            session.slow_down();
            Some((session.is_muted(number), session.may_stream(number), id))
        });
        self.upstreams[key].stream = match client {
            Some((false, true, id)) => Stream::To(id),
            Some((false, false, _)) => return, // it is not its turn yet
            Some((true, ..)) | None => Stream::Discard,
        };
        let begun = std::mem::take(&mut self.upstreams[key].partial);
        self.stream(key, &begun, false);
    }

    fn stream(&mut self, key: usize, bytes: &[u8], ends: bool) {
        if let Stream::To(id) = self.upstreams[key].stream {
            match self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id && s.ending != Ending::Broken)
            {
                Some(session) => {
                    session.output.extend_from_slice(bytes);
                    Self::mark_session(session, &mut self.dirty_sessions);
                    self.check_output(id);
                }
                None => self.upstreams[key].stream = Stream::Discard,
            }
        }
        if !ends {
            return;
        }
        // What is left to do is the same as for a reply that was seen whole, without its bytes.
        if let Stream::To(id) = std::mem::replace(&mut self.upstreams[key].stream, Stream::Whole) {
            self.tell_held(id);
        }
        match self.upstreams[key].calls.front_mut() {
            Some(Call::Effect { left, .. } | Call::Sampled { left, .. }) if *left > 1 => {
                *left -= 1;
                return;
            }
            Some(Call::Sync(call)) if call.left > 1 => {
                call.left -= 1;
                return;
            }
            Some(Call::Transaction(call)) if call.replies <= call.items.len() => {
                call.replies += 1;
                return;
            }
            _ => {}
        }
        match self.upstreams[key].settle(self.now.ms) {
            Some(Call::Client(mut call)) => {
                self.commit_client(key, &call, Reply::new(b"$0\r\n\r\n"), true);
                self.finish(key, call.started_us, call.ticket.as_ref());
                if let Some(ticket) = call.ticket.take() {
                    self.settle(ticket, |_| {});
                }
            }
            Some(Call::Transaction(mut call)) => {
                self.lose_entry(self.upstreams[key].endpoint, call.entry, true);
                self.transaction_answered(key);
                self.finish(key, call.started_us, call.ticket.as_ref());
                if let Some(ticket) = call.ticket.take() {
                    let id = ticket.session();
                    self.settle(ticket, |_| {});
                    if call.selects
                        && let Some(session) = self.session(id)
                    {
                        session.ending = Ending::Draining; // which database it is in now is not known
                    }
                }
            }
            Some(Call::Sync(call)) => {
                let reason = format!("it is larger than {} MB", super::copy::PAYLOAD_MAX >> 20);
                self.give_up_copy(key, &call, &reason);
            }
            // Whether it is the primary's is not known, so its keys are copied.
            Some(Call::Effect { position, failed, .. }) => self.acknowledged(key, position, failed, b""),
            Some(Call::Sampled { .. }) => {}
            _ => self.protocol_error(key, "it sent a long reply to what has a short one"),
        }
    }

    /// What a server says that is no reply to the command whose turn it is. Whether it was.
    #[inline]
    fn is_no_reply(&mut self, key: usize, reply: Reply<'_>) -> bool {
        let bytes = reply.bytes();
        let upstream = &mut self.upstreams[key];
        if let Role::Private { session } = upstream.role
            && upstream.is_ready()
            && self.told_privately(key, session, reply)
        {
            return true;
        }
        let upstream = &mut self.upstreams[key];
        // In the handshake too: taken for a reply, it would put every later one a place too early.
        if bytes.first() == Some(&b'>') {
            self.protocol_error(key, PUSHED);
            return true;
        }
        if matches!(upstream.phase, Phase::Handshake { .. }) {
            self.handshake_reply(key, reply);
            return true;
        }
        if upstream.out.waiting() > 0 && upstream.answers_unsent() {
            self.protocol_error(key, "it answered a command before it had all of it");
            return true;
        }
        if bytes.starts_with(b"-BUSY ") {
            upstream.forget_proofs();
        }
        if bytes.starts_with(b"-NOTLEADER ") && self.endpoints[upstream.endpoint].peer {
            match upstream.role {
                Role::Serve => self.leads_no_more(key),
                Role::Private { session } => self.refused_privately(key, session),
                _ => return false,
            }
            return true;
        }
        false
    }

    /// One complete reply.
    fn reply(&mut self, key: usize, bytes: &[u8]) {
        let reply = Reply::new(bytes);
        if self.is_no_reply(key, reply) {
            return;
        }
        let redirect = self.redirect_of(key, bytes);
        let upstream = &mut self.upstreams[key];
        match upstream.calls.front_mut() {
            None => return self.protocol_error(key, "it sent a reply that nobody asked for"),
            Some(Call::Client(_)) => match redirect {
                Some(to) => return self.redirect_command(key, to, bytes),
                None => self.command_answered(key, reply),
            },
            Some(Call::Transaction(call)) => {
                call.replies += 1;
                call.refused |= call.replies == 1 && reply.is_error();
                call.moved = call.moved.take().or(redirect);
                if call.replies < call.items.len() + 2 {
                    if call.why.is_none() && reply.is_error() {
                        call.why = bytes.get(1..).map(Into::into);
                    }
                    return;
                }
                if let Some(Call::Transaction(call)) = upstream.settle(self.now.ms) {
                    self.transaction_done(key, *call, reply);
                }
            }
            Some(Call::Sync(call)) => {
                call.left -= 1;
                if call.left > 0 {
                    return;
                }
                let Some(Call::Sync(call)) = upstream.settle(self.now.ms) else { return };
                self.commit_copy(key, *call, reply);
            }
            Some(
                Call::Mark { .. }
                | Call::Exists { .. }
                | Call::Look { .. }
                | Call::Keyspace
                | Call::Waited { .. },
            ) => {
                if let Some(call) = upstream.settle(self.now.ms) {
                    self.answered_us(key, &call, reply);
                }
            }
            Some(Call::Beat { .. } | Call::Told) => {
                if let Some(Call::Beat { sent_ms }) = upstream.settle(self.now.ms) {
                    self.beaten(key, sent_ms, reply);
                }
            }
            Some(Call::Expiry(_)) => {
                let Some(Call::Expiry(call)) = upstream.settle(self.now.ms) else { return };
                self.expiry_told(key, &call, reply);
            }
            Some(Call::Select { .. }) => {
                let Some(Call::Select { db, ticket, .. }) = upstream.settle(self.now.ms) else { return };
                self.selected(key, db, ticket, bytes);
            }
            Some(Call::Subscribe { .. }) => {
                if let Some(Call::Subscribe { ticket: Some(ticket), .. }) = upstream.settle(self.now.ms) {
                    self.settle(ticket, |out| out.extend_from_slice(bytes)); // it was refused
                }
            }
            Some(Call::Context) => {
                upstream.settle(self.now.ms);
                if reply.is_error() {
                    let text = String::from_utf8_lossy(bytes.get(1..).unwrap_or(&[])).trim_end().to_owned();
                    return self.protocol_error(
                        key,
                        &format!("it refused to change the connection's context: {text}"),
                    );
                }
            }
            Some(Call::Sampled { .. }) => self.sampled(key, reply),
            Some(Call::Effect { left, failed, .. }) => {
                *left -= 1;
                *failed |= holds_error(reply);
                if *left > 0 {
                    return;
                }
                let Some(Call::Effect { position, failed, .. }) = upstream.settle(self.now.ms) else {
                    return;
                };
                self.acknowledged(key, position, failed, bytes);
            }
        }
        self.wake_if_room(key);
    }

    /// There may be room for those who wait, or a barrier's turn.
    #[inline]
    fn wake_if_room(&mut self, key: usize) {
        let Some(upstream) = self.upstreams.get(key) else { return };
        if !upstream.waiters.is_empty() && upstream.is_ready() && upstream.has_room() {
            self.wake_waiters(key);
        }
    }

    /// EXEC has been answered.
    fn transaction_done(&mut self, key: usize, mut call: TransactionCall, reply: Reply<'_>) {
        if call.refused {
            return self.refused_transaction(key, call);
        }
        if reply.is_error()
            && let Some(redirect) = call.moved.take()
        {
            return self.redirect_transaction(key, call, redirect);
        }
        if call.entry != NO_ENTRY {
            self.commit_transaction(key, &call, reply);
        }
        if call.selects {
            self.follow_selects(&call, reply);
        }
        self.finish(key, call.started_us, call.ticket.as_ref());
        self.transaction_answered(key);
        self.note_answer(key);
        let rules: Vec<_> = call.items.iter().map(|i| i.rule).collect();
        let needed = self.need_of(key, call.ticket.as_ref(), &rules);
        let Some(ticket) = call.ticket.take() else { return };
        let lists = call.items.iter().any(TransactionItem::lists_functions);
        let executed = !reply.is_error() && !reply.is_nil();
        let own = self.run_own(&ticket, executed);
        let there = if lists { self.markers_at(key) } else { 0 };
        self.answer_when_safe(ticket, needed, |out| {
            if let Some(why) = call.why.as_deref().filter(|_| reply.bytes().starts_with(ABORTED)) {
                // Its client was told that it was queued: so here it hears why it was not.
                out.extend_from_slice(b"-EXECABORT Transaction discarded because of: ");
                return out.extend_from_slice(why);
            }
            if !(executed && (lists || !own.is_empty())) {
                return out.extend_from_slice(reply.bytes());
            }
            let mut own = own.iter();
            encode::array(out, reply.elem_count());
            for (item, element) in call.items.iter().zip(reply.elements()) {
                if item.is_own()
                    && let Some(reply) = own.next()
                {
                    out.extend_from_slice(reply);
                } else if let Some(convert) = item.command.and_then(Convert::of).filter(|c| c.hides()) {
                    without_markers(convert, element, there, out);
                } else {
                    out.extend_from_slice(element.bytes());
                }
            }
        });
    }

    /// The reply to a client's command.
    #[inline]
    fn command_answered(&mut self, key: usize, reply: Reply<'_>) {
        let bytes = reply.bytes();
        let Some(Call::Client(mut call)) = self.upstreams[key].settle(self.now.ms) else { return };
        if call.entry != NO_ENTRY {
            self.commit_client(key, &call, reply, false);
        }
        self.finish(key, call.started_us, call.ticket.as_ref());
        self.note_answer(key);
        let needed = self.need_of(key, call.ticket.as_ref(), &[call.rule]);
        if let Some(ticket) = call.ticket.take() {
            let convert = call.convert;
            let number = match convert {
                Convert::CountBlocked => self.blocked_here(),
                hide if hide.hides() => self.markers_at(key),
                _ => 0,
            };
            self.answer_when_safe(ticket, needed, |out| match (convert, bytes) {
                (Convert::NilTo2, b"_\r\n") => encode::nil(out, false),
                (Convert::NilTo3, b"$-1\r\n") => encode::nil(out, true),
                (Convert::CountBlocked, _) => with_blocked(reply, number, out),
                (hide, _) if hide.hides() => without_markers(hide, reply, number, out),
                _ => out.extend_from_slice(bytes),
            });
        }
    }

    /// How many function libraries of a server are markers.
    fn markers_at(&self, key: usize) -> usize {
        let serve = self.upstreams.get(key).and_then(|u| self.endpoints.get(u.endpoint)?.serve[0]);
        let identity = serve.and_then(|key| self.upstreams.get(key)?.identity.as_ref());
        identity.map_or(0, |i| libraries(&i.markers, i.place))
    }

    /// The leader has answered a client of this follower: unless it still counts as in sync, its own Redis may not have it.
    #[inline]
    fn note_answer(&mut self, key: usize) {
        let Some(group) = self.group.as_mut() else { return };
        if self.upstreams.get(key).is_some_and(|u| u.endpoint != group.local) {
            group.whole &= self.now.ms < group.granted_until;
        }
    }

    /// Another member says that it does not lead: neither this nor anything behind it on this connection was executed.
    fn leads_no_more(&mut self, key: usize) {
        self.rescue_unexecuted(key);
        self.break_upstream(key, "it does not lead");
    }

    /// The reply to a question or a marker of our own.
    fn answered_us(&mut self, key: usize, call: &Call, reply: Reply<'_>) {
        match *call {
            Call::Mark { generation, complete } => self.marked(key, generation, complete, reply.bytes()),
            Call::Exists { bit, id, step, at } => self.existed(key, bit, id, step, at, reply),
            Call::Look { bit, id, step } => self.looked(key, bit, id, step, reply),
            Call::Keyspace => self.looked_at_foreign(key, reply),
            Call::Waited { endpoint, db } => self.waited_are_there(endpoint, db, Some(reply)),
            _ => {}
        }
    }

    fn handshake_reply(&mut self, key: usize, reply: Reply<'_>) {
        match self.upstreams[key].handshake_reply(reply, self.now.ms) {
            Err(reason) => self.break_upstream(key, &reason),
            Ok(false) => Self::mark_upstream(&mut self.upstreams[key], key, &mut self.dirty_upstreams),
            Ok(true) => self.upstream_ready(key),
        }
    }

    /// A database was proven, or refused.
    fn selected(&mut self, key: usize, db: u16, ticket: Option<Ticket>, bytes: &[u8]) {
        let accepted = bytes == b"+OK\r\n";
        let upstream = &mut self.upstreams[key];
        upstream.selected(db, bytes, self.now.ms);
        let role = upstream.role;
        if let Some(ticket) = ticket {
            if accepted && let Some(session) = self.session(ticket.session()) {
                session.db = db;
            }
            self.settle(ticket, |out| out.extend_from_slice(bytes));
        }
        self.wake_waiters(key);
        match role {
            Role::Replica { primary, .. } if accepted => self.touch_sequencer(primary),
            Role::Tap { tap } => self.pour_waiting(tap),
            _ => {}
        }
    }

    /// Statistics of a client's command that has its reply.
    #[inline]
    pub(super) fn finish(&self, key: usize, started_us: u64, ticket: Option<&Ticket>) {
        let time = self.now.us.saturating_sub(started_us);
        let upstream = &self.upstreams[key];
        let endpoint = &self.endpoints[upstream.endpoint];
        endpoint.stats.count.upstream_rq_active.dec();
        if upstream.is_private() {
            return; // how long it blocked says nothing of the server
        }
        endpoint.stats.time.record(time);
        let session = ticket
            .filter(|t| t.is_whole())
            .and_then(|t| self.sessions.get(t.session().slot as usize).filter(|s| s.id == t.session()));
        if let Some(listener) = session.and_then(|s| self.listeners.get(s.listener)) {
            listener.stats.time.record(time);
        }
    }

    /// Answer a command.
    #[inline]
    pub(super) fn settle(&mut self, ticket: Ticket, write: impl FnOnce(&mut Vec<u8>)) {
        if !ticket.is_whole() {
            return self.part_answered(ticket, write);
        }
        let (id, number) = ticket.settle();
        let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id) else { return };
        if session.output.capacity() == 0
            && let Some(buffer) = self.buffers.take()
        {
            session.output = buffer;
        }
        session.answer(number, write);
        Self::mark_session(session, &mut self.dirty_sessions);
        if session.wait == Wait::Quiet && session.in_flight() == 0 {
            Self::wake(session, &mut self.runnable);
        }
        if session.paused && session.may_resume() {
            session.paused = false;
            Self::rouse(session, &mut self.runnable);
        }
        let large = session.unread() > STREAM_FROM;
        if let Some(listener) = self.listeners.get(session.listener) {
            listener.stats.count.downstream_rq_active.dec();
        }
        if large {
            self.check_output(id);
        }
    }

    /// A client that does not read its replies is closed; nobody else waits for it.
    pub(super) fn check_output(&mut self, id: SessionId) {
        let max = self.limits.max_output;
        let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id) else { return };
        Self::weigh_session(session, &mut self.heavy);
        if session.is_link() || session.ending == Ending::Broken || !session.overflows(max, self.now.ms) {
            return;
        }
        session.output = Vec::new();
        session.written = 0;
        let listener = session.listener;
        self.close_session(id.slot as usize);
        if let Some(listener) = self.listeners.get(listener) {
            listener.stats.count.downstream_cx_output_overflow.inc();
        }
    }
}

/// Whether a reply is an error, or (the reply to EXEC) holds one.
pub(super) fn holds_error(reply: Reply<'_>) -> bool {
    reply.is_error() || (reply.bytes().first() == Some(&b'*') && reply.elements().any(Reply::is_error))
}
