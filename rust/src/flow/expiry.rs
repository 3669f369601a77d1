//! Effects on keys whose life ends. `INCR k` just before `k` expires, applied to a replica just after, would make a key there
//! that never ends, and often no reply tells.
//!
//! ```text
//!   INCR k, and k may expire ─▶ PEXPIRETIME k, then INCR k, on the primary's connection
//!   T ◀─ its reply ─▶ the log keeps T with the entry of the INCR
//!   a replica acknowledges the entry later than T − 1 s ─▶ k is in doubt, and copied to that replica after T
//! ```
//!
//! The question comes *before* the command: what counts is the end of the life on which the command builds. Behind it, a
//! key that is gone says little (it may have been emptied), and a transaction may have given it another life. Its reply
//! is here before the command's, so before any replica is sent the effect. Where the connection breaks, the command
//! behind the question is in doubt or was not sent, and nothing more is to be done.

use smallvec::SmallVec;

use crate::command::{Command, Expiry, keys};
use crate::resp::{Reply, Request, RequestScanner, Scanned, encode};

use super::call::{Call, TransactionItem};
use super::effect::Rule;
use super::expiring::{Expiring, given, hash};
use super::keys::{ANY, keys_beside};
use super::log::{Log, State};
use super::repair::Key;
use super::replica::Replica;
use super::upstream::Upstream;
use super::{Engine, Now};

/// A replica that acknowledges an effect on a key less than this before the key's end may have applied it after. Clocks
/// differ, and the acknowledgement was on its way.
const MARGIN_MS: u64 = 1_000;
/// How long after its end a key is copied: it is gone then, also by a clock that is a little behind. (A copy that comes too
/// early is right as well, but another may be needed.)
const AFTER_MS: u64 = 50;
/// Most keys of one command that are asked for; the keys of one with more are copied instead.
const QUESTIONS: usize = 64;
/// The end of a life that is not known: any time.
const ANY_TIME: u64 = 0;

/// A key whose expiry is awaited, for the command that follows.
#[derive(Clone, Copy, Debug)]
pub struct ExpiryCall {
    /// Where the command's entry in the log will be.
    position: u64,
    /// The key.
    key: u64,
    /// The reply counts from here, milliseconds since 1970.
    since_ms: u64,
    /// What the command, a transaction, gives the key itself.
    given_ms: u64,
}

/// Whether a command has anything to do with expiry, by itself.
#[inline]
pub(super) fn minds_expiry(command: Option<&'static Command>, request: &Request<'_>) -> bool {
    command.is_none_or(|command| match command.expiry {
        Expiry::Apart | Expiry::Told => false,
        Expiry::Set => request.len() != 3,
        _ => true,
    })
}

impl Engine {
    /// A command that replicas will get is about to be queued. What it means for the expiry of its keys is noted, and where
    /// it builds on what may have an end, that is asked for. Gives the rule it is sent under.
    #[inline(never)] // off the way of those that do not mind
    pub(super) fn mind_expiry(
        &mut self,
        key: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
        rule: Rule,
    ) -> Rule {
        let upstream = &mut self.upstreams[key];
        let Some(sequencer) = self.endpoints[upstream.endpoint].sequencer.as_mut() else { return rule };
        let expiring = &mut sequencer.expiring;
        let Some(command) = command else {
            expiring.add_all();
            return rule;
        };
        let mut indices = SmallVec::new();
        keys(command, request, &mut indices);
        if !expiring.note(command, request, &indices, true) || !sends_effect(rule) {
            return rule;
        }
        if indices.len() > QUESTIONS {
            return Rule::Sync;
        }
        let position = sequencer.log.end();
        for &i in &indices {
            let name = request.arg(i as usize);
            if expiring.may(name) {
                ask(upstream, expiring, name, position, u64::MAX, self.now);
            }
        }
        rule
    }

    /// The same for a transaction. `true`: its keys are to be put in doubt, because it changes the database and what their
    /// lives are there cannot be asked.
    pub(super) fn mind_expiries(
        &mut self,
        key: usize,
        items: &mut [TransactionItem],
        bytes: &[u8],
        selects: bool,
    ) -> bool {
        let upstream = &mut self.upstreams[key];
        let Some(sequencer) = self.endpoints[upstream.endpoint].sequencer.as_mut() else { return false };
        let expiring = &mut sequencer.expiring;
        let mut scanner = RequestScanner::default();
        let mut questions: Vec<(u64, &[u8])> = Vec::new();
        let mut gives: Vec<(u64, u64)> = Vec::new();
        for item in items.iter_mut().filter(|item| item.rule != Rule::Never) {
            let frame = bytes.get(item.start..item.end).unwrap_or(&[]);
            let (Some(command), Scanned::Frame(_)) = (item.command, scanner.scan(frame, ANY)) else {
                expiring.add_all();
                continue;
            };
            if command.expiry == Expiry::Apart {
                continue;
            }
            let request = scanner.request(frame);
            let mut indices = SmallVec::new();
            keys(command, &request, &mut indices);
            // The reply to EXEC is compared only where it is short, in RESP2 and to the very same commands.
            let matters = expiring.note(command, &request, &indices, false);
            if matters && sends_effect(item.rule) {
                if indices.len() > QUESTIONS {
                    item.rule = Rule::Sync;
                    continue;
                }
                for span in indices.iter().filter_map(|&i| request.args.get(i as usize)) {
                    let name = frame.get(span.start as usize..span.end as usize).unwrap_or(&[]);
                    if expiring.may(name) {
                        questions.push((hash(name), name));
                    }
                }
            }
            if let (Some(at), Some(&first)) = (given(command, &request), indices.first()) {
                gives.push((hash(request.arg(first as usize)), at));
            }
        }
        if selects {
            return !questions.is_empty();
        }
        questions.sort_unstable();
        questions.dedup_by_key(|(key, _)| *key);
        gives.sort_unstable();
        let position = sequencer.log.end();
        for (key, name) in questions {
            let first = gives.partition_point(|(given, _)| *given < key);
            let given = gives.get(first).filter(|(given, _)| *given == key).map_or(u64::MAX, |(_, at)| *at);
            ask(upstream, expiring, name, position, given, self.now);
        }
        false
    }

    /// The end of a key's life is told.
    pub(super) fn expiry_told(&mut self, key: usize, call: &ExpiryCall, reply: Reply<'_>) {
        let endpoint = &mut self.endpoints[self.upstreams[key].endpoint];
        let Some(sequencer) = endpoint.sequencer.as_mut() else { return };
        let told = match reply.integer() {
            Some(-2 | -1) => u64::MAX, // there is no life, or it does not end
            Some(at) => u64::try_from(at).map_or(ANY_TIME, |at| call.since_ms.saturating_add(at)),
            None if is_refusal(reply.bytes()) => {
                sequencer.expiring.refused = true;
                let text =
                    "PEXPIRETIME is refused: writes on keys that expire soon may differ on a late mirror";
                endpoint.stats.label.set("reason", text);
                u64::MAX
            }
            None => ANY_TIME,
        };
        let at = told.min(call.given_ms);
        if at != u64::MAX {
            sequencer.log.set_end(call.position, call.key, at);
        }
    }
}

/// Whether replicas get commands by this rule, rather than whole keys.
fn sends_effect(rule: Rule) -> bool {
    !matches!(rule, Rule::Never | Rule::Sync | Rule::SyncChanged | Rule::Script)
}

/// Whether a server will not tell expiry times to us, ever: by its ACL, or because it does not know the command.
fn is_refusal(reply: &[u8]) -> bool {
    reply.starts_with(b"-NOPERM") || reply.starts_with(b"-ERR unknown command")
}

/// Ask for the end of a key's life, in the context that the connection is in.
fn ask(
    upstream: &mut Upstream,
    expiring: &mut Expiring,
    name: &[u8],
    position: u64,
    given_ms: u64,
    now: Now,
) {
    if expiring.refused {
        return;
    }
    let modern = upstream.identity.as_ref().is_none_or(super::handshake::Identity::has_pexpiretime);
    expiring.question.clear();
    let command = if modern { &b"PEXPIRETIME"[..] } else { b"PTTL" };
    encode::command(&mut expiring.question, &[command, name]);
    upstream.out.push(&expiring.question);
    let since_ms = if modern { 0 } else { now.unix_ms };
    upstream.expect(Call::Expiry(ExpiryCall { position, key: hash(name), since_ms, given_ms }), now.ms);
}

/// A replica has acknowledged an effect. The keys on which it was built and whose lives may have ended before the replica got
/// it are in doubt, and all that the effect made of them.
#[inline(never)]
pub(super) fn doubt_ended(replica: &mut Replica, log: &Log, position: u64, now: Now) {
    let Some(entry) = log.get(position).filter(|entry| entry.state == State::Committed) else { return };
    let is_late = |(_, at): &(u64, u64)| now.unix_ms + MARGIN_MS > *at;
    let mut late: SmallVec<[(u64, u64); 4]> = log.ends(position).filter(is_late).collect();
    let Some(last) = late.iter().map(|(_, at)| *at).max() else { return };
    let due_ms = now.ms + (last + AFTER_MS).saturating_sub(now.unix_ms);
    late.sort_unstable();
    let is_late = |key: &Key| late.binary_search_by_key(&hash(&key.1), |(key, _)| *key).is_ok();
    for key in keys_beside(log.bytes(entry), entry.db, is_late) {
        replica.doubt_later(key, position, due_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lasting_refusal_is_one() {
        assert!(is_refusal(b"-NOPERM this user has no permissions to run the 'pexpiretime' command\r\n"));
        assert!(is_refusal(b"-ERR unknown command 'PEXPIRETIME', with args beginning with: 'k' \r\n"));
        assert!(!is_refusal(b"-BUSY Redis is busy running a script\r\n"));
        assert!(!is_refusal(b":-1\r\n"));
    }
}
