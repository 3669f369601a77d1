//! Mirrors that get a part of the commands: a sample of what clients do, and no copy.
//!
//! They get commands as clients send them, when they are sent, and as far as they take them: what does not fit, or comes
//! while they are away, is dropped and counted. Nothing waits for them, and nothing of theirs is ever made good: they have
//! no place in the log, no dirty map and no marker. Whether a command is of the sample is drawn once for all of it, also
//! for a transaction, and for a command that is sent in parts.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::command::{Command, Flags, Treatment, keys};
use crate::plan::spec::MILLION;
use crate::plan::{Plan, Ring, Route, mix};
use crate::resp::{Reply, Request};
use crate::stats::ReplicaStats;

use super::Engine;
use super::call::{Call, TransactionItem};
use super::effect::{self, Rule};
use super::place::Place;
use super::session::Queued;
use super::ticket::Ticket;
use super::upstream::{Entered, Role};

/// Most bytes that wait for the connection, and for a database to be proven, each.
const UNSENT_MAX: usize = 1 << 20;

/// The way from a primary to one endpoint that gets samples of its commands.
#[derive(Debug)]
pub(super) struct Tap {
    primary: usize,
    target: usize,
    upstream: usize,
    /// What waits until its database is proven, and how many bytes that is.
    waiting: VecDeque<Sampled>,
    held: usize,
    stats: Arc<ReplicaStats>,
}

/// What is sent: one command, or a transaction with all its commands.
#[derive(Debug)]
struct Sampled {
    db: u16,
    bytes: Vec<u8>,
    replies: u32,
    selects: bool,
}

impl Engine {
    /// The taps of a primary for the samples that a route gives away. `wanted` collects those in use.
    pub(super) fn place_taps(
        &mut self,
        primary: usize,
        route: &Route,
        plan: &Plan,
        by_cluster: &[Vec<usize>],
        wanted: &mut Vec<usize>,
    ) -> u32 {
        // One that gets nothing is not even connected to.
        let samples =
            (0..).zip(&plan.samples).filter(|(bit, s)| route.samples & (1 << bit) != 0 && s.fraction > 0);
        let mut found = 0;
        for (bit, sample) in samples {
            let targets = by_cluster.get(sample.cluster).map_or(&[][..], Vec::as_slice);
            let taps: Vec<usize> = targets.iter().map(|target| self.place_tap(primary, *target)).collect();
            wanted.extend(&taps);
            found |= 1 << bit;
            let known = &mut self.endpoints[primary].taps;
            if known.iter().all(|(b, _)| *b != bit) {
                known.push((bit, taps));
            }
        }
        found
    }

    fn place_tap(&mut self, primary: usize, target: usize) -> usize {
        let same = |t: &Tap| t.primary == primary && t.target == target;
        if let Some((tap, _)) = self.taps.iter().find(|(_, t)| same(t)) {
            return tap;
        }
        let stats = Arc::new(ReplicaStats::default());
        stats.label.set("primary", self.endpoints[primary].name());
        stats.label.set("mirror", self.endpoints[target].name());
        stats.label.set("state", "sampled");
        let tap = self.taps.vacant_key();
        let upstream = self.new_upstream(target, Role::Tap { tap }, 2);
        self.taps.insert(Tap { primary, target, upstream, waiting: VecDeque::new(), held: 0, stats })
    }

    /// Remove the taps that no route wants any more.
    pub(super) fn remove_taps(&mut self, wanted: &[usize]) {
        let gone: Vec<usize> =
            self.taps.iter().map(|(tap, _)| tap).filter(|tap| !wanted.contains(tap)).collect();
        for tap in gone {
            let upstream = self.taps[tap].upstream;
            self.remove_upstream(upstream);
            self.taps.remove(tap);
        }
    }

    /// What is counted of each.
    pub(super) fn tap_stats(&self) -> impl Iterator<Item = Arc<ReplicaStats>> {
        self.taps.iter().map(|(_, tap)| Arc::clone(&tap.stats))
    }

    /// Give a command that is about to be sent to those mirrors of its place that it is drawn for.
    #[cold]
    pub(super) fn sample(
        &mut self,
        ticket: &Ticket,
        command: Option<&'static Command>,
        request: &Request<'_>,
        place: &Place,
    ) {
        if ticket.attempt().is_some() || command.is_some_and(|c| c.treatment == Treatment::Refused) {
            return; // (What blocks is tried again and again.)
        }
        let writes = command.is_none_or(Command::is_write);
        if !writes && !command.is_some_and(|c| c.flags.contains(Flags::READONLY)) {
            return;
        }
        let drawn = self.drawn(ticket, place.samples, writes);
        if drawn == 0 || (writes && !self.is_mirrorable(command, request)) {
            return;
        }
        let mut indices = SmallVec::new();
        if let Some(command) = command {
            keys(command, request, &mut indices);
        }
        let key = indices.first().map(|i| request.arg(*i as usize));
        let db = self.sessions[ticket.session().slot as usize].db;
        let sampled = || Sampled { db, bytes: request.frame.to_vec(), replies: 1, selects: false };
        self.give(place.endpoint, drawn, self.number_of(ticket), key, sampled);
    }

    /// The same for a transaction: it is given as a whole.
    #[cold]
    pub(super) fn sample_transaction(
        &mut self,
        ticket: &Ticket,
        endpoint: usize,
        queued: &Queued,
        items: &[TransactionItem],
        bytes: &[u8],
    ) {
        let is_read = |c: &Command| c.flags.contains(Flags::READONLY) && !c.is_write();
        // Beside what changes data, only what any server may execute: CONFIG and its like are the primary's own matter.
        let harmless = |c: &Command| is_read(c) || c.is_write() || c.name == "select" || c.name == "ping";
        let refused = |c: &Command| c.treatment == Treatment::Refused || c.flags.contains(Flags::ADMIN);
        if items.iter().filter_map(|i| i.command).any(|c| refused(c) || !harmless(c)) {
            return;
        }
        let writes = items.iter().any(|i| i.command.is_none_or(Command::is_write));
        let drawn = self.drawn(ticket, queued.samples.unwrap_or(0), writes);
        if drawn == 0 {
            return;
        }
        let db = self.sessions[ticket.session().slot as usize].db;
        let key = super::keys::keys_of(bytes, db).and_then(|keys| Some(keys.first()?.1.to_vec()));
        let replies = items.len() as u32 + 2;
        let sampled = || Sampled { db, bytes: bytes.to_vec(), replies, selects: queued.selects };
        self.give(endpoint, drawn, self.number_of(ticket), key.as_deref(), sampled);
    }

    /// The command that a ticket is for, or for a part of.
    fn number_of(&self, ticket: &Ticket) -> u64 {
        let whole = ticket.part().and_then(|part| self.merges.get(part.merge)?.ticket.as_ref());
        whole.unwrap_or(ticket).number()
    }

    /// Which of these samples a command is of. The same for each of its parts.
    fn drawn(&self, ticket: &Ticket, samples: u32, writes: bool) -> u32 {
        let draw = self.draw(ticket.session(), self.number_of(ticket));
        let bits = (0..).zip(&self.plan.samples).filter(|(bit, _)| samples & (1 << bit) != 0);
        bits.filter(|(bit, sample)| {
            let below =
                mix(draw ^ mix(1 + u64::from(*bit))) % u64::from(MILLION) < u64::from(sample.fraction);
            (writes || sample.reads) && below
        })
        .fold(0, |found, (bit, _): (u32, _)| found | 1 << bit)
    }

    /// Whether what a command does is of the data, and not of its server alone.
    fn is_mirrorable(&mut self, command: Option<&'static Command>, request: &Request<'_>) -> bool {
        let Some(command) = command else { return true };
        self.scratch.clear();
        effect::prepare(command, request, self.now.unix_ms, &mut self.scratch).rule != Rule::Never
    }

    /// Of a sampled cluster the endpoint of the first key gets it; without a key all of them.
    fn give(
        &mut self,
        primary: usize,
        drawn: u32,
        number: u64,
        key: Option<&[u8]>,
        sampled: impl Fn() -> Sampled,
    ) {
        let plan = Arc::clone(&self.plan);
        let taps: Vec<(u32, Vec<usize>)> = self.endpoints[primary].taps.clone();
        for (bit, taps) in taps.iter().filter(|(bit, _)| drawn & (1 << bit) != 0) {
            let ring =
                plan.samples.get(*bit as usize).and_then(|s| plan.clusters.get(s.cluster)).map(|c| &c.ring);
            let at = match (ring, key) {
                (Some(Ring::Scatter(_)), Some(_)) => Some(mix(number) as usize % taps.len().max(1)),
                (Some(ring), Some(key)) => ring.pick(key),
                _ => None,
            };
            for (_, tap) in taps.iter().enumerate().filter(|(i, _)| at.is_none_or(|at| at == *i)) {
                self.pour(*tap, sampled());
            }
        }
    }

    fn pour(&mut self, tap: usize, sampled: Sampled) {
        let Some(Tap { primary, upstream: key, waiting, held, stats, .. }) = self.taps.get_mut(tap) else {
            return;
        };
        let serve = self.endpoints.get(*primary).and_then(|e| e.serve[0]);
        let run_id = |key: usize| self.upstreams.get(key)?.identity.as_ref().map(|i| i.run_id.as_str());
        if let Some(id) = serve.and_then(run_id)
            && run_id(*key) == Some(id)
            && !id.is_empty()
        {
            stats.label.set("reason", "it is the primary's own Redis: it gets nothing");
            return stats.count.lost_total.inc();
        }
        let Some(upstream) = self.upstreams.get_mut(*key).filter(|u| u.is_ready()) else {
            return stats.count.lost_total.inc();
        };
        if !waiting.is_empty() || upstream.is_full() || upstream.out.waiting() > UNSENT_MAX {
            let room = !waiting.is_empty() && *held + sampled.bytes.len() <= UNSENT_MAX;
            if !room {
                return stats.count.lost_total.inc();
            }
            *held += sampled.bytes.len();
            return waiting.push_back(sampled);
        }
        match upstream.enter(sampled.db, None, self.now.ms) {
            Entered::Yes => {
                upstream.out.push(&sampled.bytes);
                if sampled.selects {
                    upstream.forget_db();
                }
                upstream.expect(Call::Sampled { left: sampled.replies, failed: false }, self.now.ms);
                stats.count.sent_total.inc();
            }
            Entered::Wait => {
                *held += sampled.bytes.len();
                waiting.push_back(sampled);
            }
            Entered::Refused | Entered::Busy => {
                stats.label.set("reason", upstream.refusal(sampled.db));
                stats.count.lost_total.inc();
            }
        }
        Self::mark_upstream(upstream, *key, &mut self.dirty_upstreams);
    }

    /// A database was proven on a tap's connection, or refused: what waited for that goes on.
    pub(super) fn pour_waiting(&mut self, tap: usize) {
        let Some(tap_state) = self.taps.get_mut(tap) else { return };
        tap_state.held = 0;
        for sampled in std::mem::take(&mut tap_state.waiting) {
            self.pour(tap, sampled);
        }
    }

    /// A reply has come on a tap's connection. Nothing is done about it.
    pub(super) fn sampled(&mut self, key: usize, reply: Reply<'_>) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        let Role::Tap { tap } = upstream.role else { return };
        let Some(Call::Sampled { left, failed }) = upstream.calls.front_mut() else { return };
        *left -= 1;
        *failed |= super::replies::holds_error(reply);
        if *left > 0 {
            return;
        }
        let failed = *failed;
        upstream.settle(self.now.ms);
        if let Some(tap) = self.taps.get(tap) {
            tap.stats.count.acked_total.inc();
            tap.stats.count.error_total.add(u64::from(failed));
        }
    }

    /// A tap's connection stands.
    pub(super) fn tap_ready(&self, tap: usize) {
        if let Some(tap) = self.taps.get(tap) {
            tap.stats.label.set("reason", "");
        }
    }

    /// A tap's connection is gone, and with it all that was on its way.
    pub(super) fn tap_lost(&mut self, tap: usize, calls: &VecDeque<Call>, reason: &str) {
        let Some(tap) = self.taps.get_mut(tap) else { return };
        let lost = calls.iter().filter(|c| matches!(c, Call::Sampled { .. })).count() + tap.waiting.len();
        tap.stats.count.lost_total.add(lost as u64);
        tap.stats.label.set("reason", format!("down: {reason}"));
        tap.waiting.clear();
        tap.held = 0;
    }
}
