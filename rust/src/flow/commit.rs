//! The moment at which a write's reply says what it changed: its entry in the log is decided.

use crate::resp::{Reply, RequestScanner, encode};

use super::Engine;
use super::call::{ClientCall, NO_ENTRY, TransactionCall, command_of};
use super::copy::copies_behind;
use super::effect::{self, Effect, Rule};
use super::handshake::database;
use super::keys::{ANY, keys_of};
use super::log::{State, UNCHECKED, digest};
use super::transaction::{EXEC, MULTI};

impl Engine {
    /// Decide the entry of a client's command.
    #[inline]
    pub(super) fn commit_client(&mut self, key: usize, call: &ClientCall, reply: Reply<'_>, streamed: bool) {
        if call.entry == NO_ENTRY {
            return;
        }
        let (primary, resp) = (self.upstreams[key].endpoint, self.upstreams[key].resp());
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        // Of a streamed reply only its length class is known.
        let seen = if streamed { UNCHECKED } else { digest(reply.bytes(), resp) };
        let mut doubts = None;
        if call.rule == Rule::Same {
            let state = if reply.is_error() { State::Nothing } else { State::Committed };
            sequencer.log.decide(call.entry, state, None);
            sequencer.log.expect(call.entry, seen);
        } else if let (Some(entry), Some(command)) =
            (sequencer.log.get(call.entry).copied(), command_of(call.command))
        {
            self.scratch.clear();
            let mut scanner = RequestScanner::default();
            let sent = sequencer.log.bytes(&entry);
            scanner.scan(sent, ANY);
            match effect::commit(call.rule, command, &scanner.request(sent), reply, &mut self.scratch) {
                Effect::Nothing => sequencer.log.decide(call.entry, State::Nothing, None),
                Effect::Same => {
                    sequencer.log.decide(call.entry, State::Committed, None);
                    sequencer.log.expect(call.entry, seen);
                }
                Effect::Bytes => {
                    sequencer.log.decide(call.entry, State::Committed, Some((&self.scratch, 1)));
                    sequencer
                        .log
                        .expect(call.entry, call.rule.expected(reply).map_or(UNCHECKED, |r| digest(r, 2)));
                }
                Effect::Sync => {
                    doubts = Some((keys_of(sent, entry.db), entry.replicas));
                    sequencer.log.decide(call.entry, State::Nothing, None);
                }
            }
        } else {
            sequencer.log.decide(call.entry, State::Committed, None);
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
        if let Some((keys, replicas)) = doubts {
            self.doubt(primary, replicas, call.entry, keys.as_deref());
        }
    }

    /// Decide the entry of a transaction: each element of EXEC's reply gives its effect, wrapped again.
    pub(super) fn commit_transaction(&mut self, key: usize, call: &TransactionCall, reply: Reply<'_>) {
        let (primary, resp) = (self.upstreams[key].endpoint, self.upstreams[key].resp());
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        let Some(entry) = sequencer.log.get(call.entry).copied() else { return };
        if reply.is_error() || reply.is_nil() {
            sequencer.log.decide(call.entry, State::Nothing, None);
            return Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
        }
        let mut effects = MULTI.to_vec();
        let (mut count, mut replies) = (0, 2);
        let mut db = call.db;
        let mut doubts = Some(Vec::new());
        let mut unchanged = true;
        for (item, element) in call.items.iter().zip(reply.elements()) {
            let frame = call.bytes.get(item.start..item.end).unwrap_or(&[]);
            let mut scanner = RequestScanner::default();
            scanner.scan(frame, ANY);
            if item.is_select() && !element.is_error() {
                db = database(scanner.request(frame).arg(1)).unwrap_or(db);
                effects.extend_from_slice(frame);
                replies += 1;
                continue;
            }
            let copied_behind = copies_behind(item.rule) && !call.selects;
            let effect = match item.command {
                _ if item.rule == Rule::Never || copied_behind => Effect::Nothing,
                Some(command) => {
                    effect::commit(item.rule, command, &scanner.request(frame), element, &mut effects)
                }
                None if element.is_error() => Effect::Nothing,
                None => Effect::Same,
            };
            unchanged &= effect == Effect::Same;
            match effect {
                Effect::Nothing | Effect::Bytes => {}
                Effect::Same => effects.extend_from_slice(frame),
                Effect::Sync => {
                    let keys = keys_of(frame, db);
                    doubts = doubts.zip(keys).map(|(mut all, keys)| {
                        all.extend(keys);
                        all
                    });
                }
            }
            count += u32::from(matches!(effect, Effect::Same | Effect::Bytes));
        }
        replies += count;
        effects.extend_from_slice(EXEC);
        match (count, unchanged) {
            (0, _) => sequencer.log.decide(call.entry, State::Nothing, None),
            (_, true) => {
                sequencer.log.decide(call.entry, State::Committed, None);
                sequencer.log.expect(call.entry, digest(reply.bytes(), resp));
            }
            _ => sequencer.log.decide(call.entry, State::Committed, Some((&effects, replies))),
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
        if doubts.as_ref().is_some_and(|keys| !keys.is_empty()) && keys_of(&call.bytes, call.db).is_none() {
            doubts = None; // beside SWAPDB and its like it cannot be told where those keys are now
        }
        if doubts.as_ref().is_none_or(|keys| !keys.is_empty()) {
            self.doubt(primary, entry.replicas, call.entry, doubts.as_deref());
        }
    }

    /// A transaction with a SELECT leaves its session in the last database that was accepted.
    pub(super) fn follow_selects(&mut self, call: &TransactionCall, reply: Reply<'_>) {
        let Some(session) = call.ticket.as_ref().and_then(|t| self.session(t.session())) else { return };
        for (item, _) in
            call.items.iter().zip(reply.elements()).filter(|(i, e)| i.is_select() && !e.is_error())
        {
            let frame = call.bytes.get(item.start..item.end).unwrap_or(&[]);
            let mut scanner = RequestScanner::default();
            scanner.scan(frame, ANY);
            session.db = database(scanner.request(frame).arg(1)).unwrap_or(session.db);
        }
    }

    /// MULTI was refused (by an ACL), so its commands ran one by one, and which of them did is not known.
    pub(super) fn refused_transaction(&mut self, key: usize, mut call: TransactionCall) {
        self.lose_entry(self.upstreams[key].endpoint, call.entry, true);
        self.finish(key, call.started_us, call.ticket.as_ref());
        self.transaction_answered(key);
        if let Some(ticket) = call.ticket.take() {
            let text = "INDOUBT the server refused MULTI; the commands may have been executed one by one";
            self.settle(ticket, |out| encode::error(out, text));
        }
    }
}
