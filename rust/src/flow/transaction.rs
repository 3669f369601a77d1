//! MULTI, EXEC, DISCARD. Commands are queued in the session, checked as Redis checks them, and leave as one contiguous
//! `MULTI … EXEC`: a transaction never reaches a shared connection incomplete.

use crate::command::{
    Command, Flags, KeysResult, is_word, keys, lookup, needs_private, quoted, takes_a_server_away,
};
use crate::resp::{Request, RequestScanner, Scanned, encode, parse_integer};

use super::Engine;
use super::call::{Call, NO_ENTRY, TransactionCall, TransactionItem, is_own};
use super::copy::copies_behind;
use super::effect::{self, Rule};
use super::ingress::Step;
use super::keys::ANY;
use super::log::{Entry, Kind, State, UNCHECKED};
use super::private::Use;
use super::repair::FUNCTIONS;
use super::session::{Queued, Wait};
use super::store::Piece;
use super::ticket::Ticket;
use super::unblock::is_harmless_in_transaction;

/// `MULTI` on the wire.
pub(super) const MULTI: &[u8] = b"*1\r\n$5\r\nmulti\r\n";
/// `EXEC` on the wire.
pub(super) const EXEC: &[u8] = b"*1\r\n$4\r\nexec\r\n";
/// What a server executes in place of a command of the proxy's own.
const STANDS_IN: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const TOO_LARGE: &str = "ERR the transaction is larger than max_request";

impl Engine {
    /// MULTI, EXEC or DISCARD.
    pub(super) fn transaction_command(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Step {
        let name = command.map_or("", |c| c.name);
        let open = self.sessions[slot].in_transaction();
        match (name, open) {
            ("multi", true) => self.refuse(slot, "ERR MULTI calls can not be nested"),
            ("multi", false) => {
                let generation = self.plan.generation;
                self.sessions[slot].extra().transaction = Some(Queued { generation, ..Queued::default() });
                self.answer_now(slot, |out| encode::status(out, "OK"))
            }
            ("discard", true) => {
                self.end_transaction(slot);
                self.answer_now(slot, |out| encode::status(out, "OK"))
            }
            ("exec", true) => self.exec(slot),
            _ => self.refuse(slot, &format!("ERR {} without MULTI", request_name(request))),
        }
    }

    /// A command between MULTI and EXEC.
    pub(super) fn queue(
        &mut self,
        slot: usize,
        known: Option<&'static Command>,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Step {
        if let Some(known) = known.filter(|k| is_own(k))
            && (command.is_some() || super::client::is_newer(request))
        {
            return self.queue_own(slot, known, request);
        }
        if let Some(command) = command {
            let name = command.name;
            if name == "watch" {
                return self.refuse(slot, "ERR WATCH inside MULTI is not allowed"); // and the transaction goes on
            }
            let harmless = is_harmless_in_transaction(command);
            if command.flags.contains(Flags::NO_MULTI) {
                return self.refuse_queueing(slot, "ERR Command not allowed inside a transaction");
            }
            match command.treatment {
                _ if needs_private(command, request) && !harmless => return self.unsupported(slot, name),
                _ => {}
            }
        }
        if command.is_none()
            && let Some(text) = self.unknown_to_server(slot, request)
        {
            return self.refuse_queueing(slot, &text);
        }
        self.queue_placed(slot, command, request)
    }

    /// A command that the proxy executes itself when EXEC was answered. Until then a PING stands in for it, so that each
    /// command of the transaction has its reply.
    fn queue_own(&mut self, slot: usize, known: &'static Command, request: &Request<'_>) -> Step {
        let changes_protocol = known.name == "hello"
            && matches!(parse_integer(request.arg(1)), Some(v @ 2..=3) if v != i64::from(self.sessions[slot].resp));
        if changes_protocol {
            let text =
                "ERR HELLO inside MULTI cannot change the protocol through redisha: send it before MULTI";
            return self.refuse_queueing(slot, text);
        }
        let silences = ["OFF", "SKIP"].iter().any(|word| is_word(request.arg(2), word));
        if known.name == "client" && is_word(request.arg(1), "REPLY") && silences {
            let text = "ERR CLIENT REPLY OFF and SKIP inside MULTI would break EXEC's reply: send them outside of it";
            return self.refuse_queueing(slot, text);
        }
        let max = self.limits.max_request;
        let Some(queued) = self.sessions[slot].transaction() else { return Step::Done };
        if queued.bytes.len() + queued.own_bytes + request.frame.len() > max {
            return self.refuse_queueing(slot, TOO_LARGE);
        }
        let before = queued.items.len();
        let mut scanner = RequestScanner::default();
        scanner.scan(STANDS_IN, ANY);
        let step = self.queue_placed(slot, Some(known), &scanner.request(STANDS_IN));
        if let Some(queued) = self.sessions[slot].transaction()
            && queued.items.len() > before
        {
            queued.own.push(request.frame.into());
            queued.own_bytes += request.frame.len();
        }
        step
    }

    fn queue_placed(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Step {
        let grouped = self.is_in_group(slot);
        let placed = if grouped {
            self.place_in_group(slot, command)
        } else {
            self.place(slot, command, request).map_err(|text| self.no_route(slot, &text))
        };
        let place = match placed {
            Ok(place) => place,
            Err(step) => return step,
        };
        if place.writes != 0 && command.is_some_and(|c| takes_a_server_away(c, request)) {
            return self.refuse_queueing(slot, "ERR this command is refused where writes are mirrored");
        }
        let keyed = command.is_none_or(|c| {
            let mut indices = smallvec::SmallVec::new();
            keys(c, request, &mut indices) == KeysResult::Unknown || !indices.is_empty()
        });
        if let Some(serve) = self.endpoints[place.endpoint].serve[0]
            && let Some(text) = self.too_large_for_server(serve, request)
        {
            return self.refuse_queueing(slot, &text);
        }
        let frame = place.stripped(request);
        let (max, generation) = (self.limits.max_request, self.plan.generation);
        let Some(queued) = self.sessions[slot].transaction() else { return Step::Done };
        if queued.bytes.len() + queued.own_bytes + request.frame.len() > max {
            return self.refuse_queueing(slot, TOO_LARGE);
        }
        // A command without keys joins whatever endpoint the keys decide.
        // (In a group it is sent as a whole to whoever leads by then.)
        if keyed && !grouped && queued.path.is_some_and(|endpoint| endpoint != place.endpoint) {
            let text = self.why_not_joined(slot, command, request, &place);
            return self.refuse_queueing(slot, &text);
        }
        let begins = queued.path.is_none();
        if begins {
            queued.generation = generation;
        }
        if keyed || begins {
            queued.path = Some(place.endpoint);
        }
        if place.mixed || (keyed && !grouped && queued.keyed.is_some_and(|w| w != place.writes)) {
            let text = self.why_not_joined(slot, command, request, &place);
            return self.refuse_queueing(slot, &text);
        }
        if !keyed && command.is_some_and(|c| c.is_write() && !c.flags.contains(Flags::PUBSUB)) {
            queued.unkeyed |= place.writes;
            queued.samples = Some(queued.samples.unwrap_or(place.samples) & place.samples);
        }
        if keyed {
            queued.writes |= place.writes;
            queued.keyed = Some(place.writes);
            queued.samples = Some(queued.samples.unwrap_or(place.samples) & place.samples);
        }
        queued.selects |= command.is_some_and(|c| c.name == "select");
        queued.bytes.extend_from_slice(frame.as_deref().unwrap_or(request.frame));
        queued.items.push((command, queued.bytes.len()));
        Self::weigh_session(&mut self.sessions[slot], &mut self.heavy);
        if begins {
            self.took_turn(place.endpoint);
        }
        self.answer_now(slot, |out| encode::status(out, "QUEUED"))
    }

    /// Redis's text for a command that the server cannot know; `None` when it may know more than the table (another
    /// version, a module), so that only it can tell.
    pub(super) fn unknown_to_server(&self, slot: usize, request: &Request<'_>) -> Option<String> {
        let (version, commands) = self.server(slot)?;
        if !super::handshake::has_commands_of_table(&version, commands) {
            return None;
        }
        let text = |bytes: &[u8], max: usize| {
            String::from_utf8_lossy(bytes.get(..max).unwrap_or(bytes)).into_owned()
        };
        if crate::command::lookup(request.arg(0)).is_some() {
            let container = text(request.arg(0), 128).to_uppercase();
            return Some(format!(
                "ERR unknown subcommand '{}'. Try {container} HELP.",
                quoted(request.arg(1))
            ));
        }
        let mut args = String::new();
        for arg in request.args_from(1) {
            if args.len() >= 128 {
                break;
            }
            let shown = text(arg, 128 - args.len());
            args.extend(["'", &shown, "' "]);
        }
        Some(format!("ERR unknown command '{}', with args beginning with: {args}", text(request.arg(0), 128)))
    }

    pub(super) fn exec(&mut self, slot: usize) -> Step {
        let generation = self.plan.generation;
        self.follow_plan(slot);
        let Some(queued) = self.sessions[slot].transaction() else { return Step::Done };
        if queued.generation != generation && queued.path.is_some() {
            self.end_transaction(slot);
            return self.refuse(
                slot,
                "EXECABORT Transaction discarded because the configuration was reloaded; send it again",
            );
        }
        if queued.failed {
            self.end_transaction(slot);
            return self.refuse(slot, "EXECABORT Transaction discarded because of previous errors.");
        }
        if queued.unkeyed != 0 && queued.keyed.is_some_and(|writes| writes != queued.unkeyed) {
            self.end_transaction(slot);
            return self.refuse(
                slot,
                "EXECABORT Transaction discarded: CROSSROUTE its commands concern different mirrors",
            );
        }
        queued.writes |= queued.unkeyed;
        let mut endpoint = queued.path;
        let watching = self.sessions[slot].is_watching();
        if endpoint.is_none() && !watching {
            self.sessions[slot].extra().transaction = None;
            return self.answer_now(slot, |out| encode::array(out, 0));
        }
        if self.is_in_group(slot) {
            // Who leads may have changed since it was queued.
            match self.place_in_group(slot, None) {
                Ok(place) => {
                    endpoint = Some(place.endpoint);
                    if let Some(queued) = self.sessions[slot].transaction() {
                        (queued.writes, queued.marks) = (place.writes, place.marks);
                    }
                }
                Err(step) => {
                    if step == Step::Done {
                        self.end_transaction(slot);
                    } else {
                        self.unbar(self.sessions[slot].id); // a leader that yields has its last word to say there
                    }
                    return step;
                }
            }
        }
        if watching {
            return self.exec_watched(slot, endpoint);
        }
        let Some(endpoint) = endpoint else { return Step::Done };
        let tracked = self.sessions[slot].is_tracking() && self.endpoints[endpoint].sequencer.is_none();
        let entered = if tracked && !self.endpoints[endpoint].peer {
            self.enter_private(slot, endpoint, Use::Tracked)
        } else {
            self.enter(slot, endpoint, false)
        };
        let key = match entered {
            Ok(key) => key,
            Err(step) => {
                if step == Step::Done {
                    self.sessions[slot].extra().transaction = None; // it was answered: nothing was sent
                }
                return step;
            }
        };
        self.send_queued(slot, endpoint, key)
    }

    /// Send what is queued, on this connection.
    fn send_queued(&mut self, slot: usize, endpoint: usize, key: usize) -> Step {
        let session = &mut self.sessions[slot];
        let number = session.issued;
        let Some(mut queued) = session.extra().transaction.take() else { return Step::Done };
        let own = std::mem::take(&mut queued.own);
        let changes = queued.selects || !own.is_empty();
        session.extra().own = (!own.is_empty()).then_some((number, own));
        self.send_transaction(slot, endpoint, key, &queued);
        // What the session is afterwards is known with the reply.
        if changes { Step::Taken(Wait::Quiet) } else { Step::Done }
    }

    /// EXEC has been answered: do what the proxy itself does of it. Gives those replies, none if nothing was executed.
    pub(super) fn run_own(&mut self, ticket: &Ticket, executed: bool) -> Vec<Vec<u8>> {
        let slot = ticket.session().slot as usize;
        let Some(extra) = self.session(ticket.session()).and_then(|s| s.extra.as_deref_mut()) else {
            return Vec::new();
        };
        let Some((_, frames)) = extra.own.take_if(|(number, _)| *number == ticket.number()) else {
            return Vec::new();
        };
        let mut scanner = RequestScanner::default();
        let mut run = |frame: &[u8]| {
            let mut reply = Vec::new();
            if let Scanned::Frame(_) = scanner.scan(frame, ANY) {
                let request = scanner.request(frame);
                let known = lookup(request.arg(0));
                let command = known.and_then(|k| k.resolve(&request).ok());
                self.own_command(slot, known, command, &request, &mut reply);
            }
            reply
        };
        if executed { frames.iter().map(|frame| run(frame)).collect() } else { Vec::new() }
    }

    /// EXEC where keys are being watched: on the connection that watches them, and only if it still does.
    fn exec_watched(&mut self, slot: usize, endpoint: Option<usize>) -> Step {
        let step = match self.enter_watched(slot, endpoint) {
            Ok(Some(key)) => {
                let step = self.send_queued(slot, self.upstreams[key].endpoint, key);
                if let Some(private) = self.sessions[slot].private() {
                    private.watching = false;
                }
                return step;
            }
            Ok(None) => {
                let resp3 = self.sessions[slot].resp == 3;
                self.answer_now(slot, |out| encode::nil_array(out, resp3))
            }
            Err(step) => step,
        };
        if step == Step::Done {
            self.end_transaction(slot);
        }
        step
    }

    /// The transaction is over without having been executed, and nothing is watched any more.
    pub(super) fn end_transaction(&mut self, slot: usize) {
        self.sessions[slot].extra().transaction = None;
        self.forget_watched(slot);
        self.unbar(self.sessions[slot].id);
    }

    /// The bytes of a transaction but for its EXEC, and its commands in them.
    fn prepare_transaction(&self, queued: &Queued) -> (Vec<u8>, Vec<TransactionItem>) {
        let mirrored = queued.writes != 0;
        let mut bytes = MULTI.to_vec();
        let mut items = Vec::with_capacity(queued.items.len());
        let mut scanner = RequestScanner::default();
        let mut scratch = Vec::new();
        let mut start = 0;
        for &(command, end) in &queued.items {
            let frame = queued.bytes.get(start..end).unwrap_or(&[]);
            start = end;
            let mut rule =
                if mirrored && command.is_none_or(Command::is_write) { Rule::Same } else { Rule::Never };
            let mut rewritten = false;
            if let (Some(command), Rule::Same, Scanned::Frame(_)) = (command, rule, scanner.scan(frame, ANY))
            {
                scratch.clear();
                let prepared =
                    effect::prepare(command, &scanner.request(frame), self.now.unix_ms, &mut scratch);
                (rule, rewritten) = (prepared.rule, prepared.rewritten);
            }
            let from = bytes.len();
            bytes.extend_from_slice(if rewritten { &scratch } else { frame });
            items.push(TransactionItem { command, rule, start: from, end: bytes.len() });
        }
        (bytes, items)
    }

    pub(super) fn send_transaction(&mut self, slot: usize, endpoint: usize, key: usize, queued: &Queued) {
        self.count_request(slot);
        let (mut bytes, mut items) = self.prepare_transaction(queued);
        let any = items.iter().any(|i| i.rule != Rule::Never);
        bytes.extend_from_slice(EXEC);
        let db = self.sessions[slot].db;
        if any {
            self.mark_keys(endpoint, queued.writes, super::keys::keys_of(&bytes, db).as_deref());
        }
        if queued.marks != 0 {
            self.mark_keys(endpoint, queued.marks, super::keys::keys_of(&bytes, db).as_deref());
        }
        let ticket = self.issue(slot);
        if queued.samples.is_some_and(|samples| samples != 0) && !self.upstreams[key].is_private() {
            self.sample_transaction(&ticket, endpoint, queued, &items, &bytes);
        }
        let kept = self.is_rescued(key);
        let unsure = any && self.mind_expiries(key, &mut items, &bytes, queued.selects);
        let session = &mut self.sessions[slot];
        session.path = key;
        let upstream = &mut self.upstreams[key];
        let mut call = Box::new(TransactionCall {
            ticket: Some(ticket),
            started_us: self.now.us,
            offset: upstream.out.queued(),
            entry: NO_ENTRY,
            items,
            replies: 0,
            refused: false,
            why: None,
            bytes: Vec::new(),
            db,
            selects: queued.selects,
            kept: None,
            moved: None,
            hops: 0,
        });
        let endpoint_state = &mut self.endpoints[endpoint];
        match endpoint_state.sequencer.as_mut() {
            Some(sequencer) if any => {
                let entry = Entry {
                    piece: Piece::EMPTY,
                    replicas: queued.writes,
                    db,
                    replies: queued.items.len() as u32 + 2,
                    state: State::Pending,
                    kind: Kind::Write,
                    digest: UNCHECKED,
                    selects: queued.selects,
                    at_ms: self.now.ms,
                };
                call.entry = sequencer.log.append(&bytes, entry);
                if let Some(entry) = sequencer.log.get(call.entry) {
                    upstream.out.push_log(entry.piece);
                }
            }
            _ if kept => call.kept = Some(upstream.out.push_kept(&bytes)),
            _ => upstream.out.push(&bytes),
        }
        // Where one key has to be copied, all are: an effect beside it (RENAME, MOVE) may carry what is stale elsewhere.
        let copies = !queued.selects && call.items.iter().any(|i| copies_behind(i.rule));
        let own = upstream.is_private();
        let copies = call.items.iter().filter(|i| copies && i.rule != Rule::Never).flat_map(|i| {
            let frame = bytes.get(i.start..i.end).unwrap_or(&[]);
            super::keys::keys_of(frame, db).unwrap_or_default()
        });
        // (What is executed on another connection is copied when it has been.)
        let (copies, mut elsewhere): (Vec<_>, Vec<_>) = copies.partition(|(n, _)| *n == db && !own);
        // Beside SWAPDB and its like it cannot be told where those keys are afterwards.
        let moved = !copies.is_empty() && super::keys::keys_of(&bytes, db).is_none();
        if unsure {
            elsewhere.extend(super::keys::keys_of(&bytes, db).unwrap_or_default());
        }
        let sent = if any && !self.blocked.is_empty() { bytes.clone() } else { Vec::new() };
        if call.entry != NO_ENTRY || queued.selects || endpoint_state.redirects {
            call.bytes = bytes;
        }
        if queued.selects {
            upstream.forget_db();
        }
        upstream.expect(Call::Transaction(call), self.now.ms);
        endpoint_state.stats.count.upstream_rq_total.inc();
        endpoint_state.stats.count.upstream_rq_active.add(1);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        let copies = copies.iter().map(|(_, name)| (&**name, queued.writes)).collect();
        self.copy_keys(endpoint, db, copies);
        for (db, name) in &elsewhere {
            self.doubt_now(endpoint, *db, name, queued.writes);
        }
        if elsewhere.iter().any(|(db, _)| *db == FUNCTIONS) {
            self.mark_anew(endpoint);
        }
        if moved {
            self.doubt(endpoint, queued.writes, 0, None);
        }
        if any && !self.blocked.is_empty() {
            self.wake_blocked(endpoint, db, &sent, queued.items.len());
        }
    }
}

fn request_name(request: &Request<'_>) -> String {
    String::from_utf8_lossy(request.arg(0)).to_uppercase()
}
