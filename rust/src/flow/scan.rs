//! Looking through the keys of a primary and its mirror, for those that may differ.

use super::Engine;
use super::call::Call;
use super::marker::KEY;
use super::repair::FUNCTIONS;
use super::replica::{Judged, Need};
use super::resync::{Side, Step, databases};
use super::sequencer::{Proof, Sequencer};
use super::upstream::{Entered, Upstream};
use crate::resp::{Reply, encode, parse_integer};

/// Keys asked for at once: few enough that clients do not notice.
const PAGE: &str = "64";
/// While so many keys wait to be copied, no more are looked for: what is held does not grow with the data.
const AHEAD: usize = 2_048;
/// Pause after a refused question, milliseconds.
const REFUSED_MS: u64 = 1_000;
/// So long after everything was looked at, a resync ends although some keys are still in doubt.
const FINISH_MS: u64 = 10_000;
/// After so long, keys that could not be copied are tried again.
const RETRY_MS: u64 = 60_000;

impl Engine {
    /// Whatever a primary's replicas need next, beside their stream.
    pub(super) fn tend_replicas(&mut self, primary: usize) {
        let Some(count) = self.endpoints[primary].sequencer.as_ref().map(|s| s.replicas.len()) else {
            return;
        };
        let serve = self.endpoints[primary].serve[0];
        let ready = |key: Option<usize>, all: &slab::Slab<Upstream>| {
            key.and_then(|k| all.get(k)).is_some_and(|u| u.is_ready() && !u.is_overfull())
        };
        let grouped = self.is_groups_own(primary);
        for bit in 0..count as u32 {
            let Some(replica) = self.endpoints[primary].sequencer.as_mut().and_then(|s| s.replica(bit))
            else {
                continue;
            };
            let upstream = replica.upstream;
            if !ready(serve, &self.upstreams) || !ready(Some(upstream), &self.upstreams) {
                continue;
            }
            self.judge(primary, bit);
            self.look_on(primary, bit);
            self.finish_resync(primary, bit);
            let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
            // Not before the primary has it: else a mirror alone could seem to know more.
            let (marked, markless) = (sequencer.marked, sequencer.markless);
            let Some(replica) = sequencer.replica(bit) else { continue };
            // What is only on its way may be refused, or come too late for its key.
            let due = |(at, generation)| replica.acked >= at && (marked >= generation || markless);
            let completes = replica.mark.is_some_and(due) && (!grouped || replica.repair.is_empty());
            if !ready(Some(upstream), &self.upstreams) {
                continue;
            }
            if replica.unmarked {
                self.send_first_mark(primary, bit);
            } else if completes {
                self.send_mark(primary, bit, false);
            }
        }
    }

    /// Ask the next question of a resync.
    fn look_on(&mut self, primary: usize, bit: u32) {
        let now_ms = self.now.ms;
        let Some(serve) = self.endpoints[primary].serve[0] else { return };
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        if sequencer.proof != Proof::Proven {
            return;
        }
        let Sequencer { replicas, pace, .. } = &mut **sequencer;
        let Some(replica) = replicas.get_mut(bit as usize).and_then(Option::as_mut) else { return };
        if replica.paused || replica.judged != Judged::Yes || replica.repair.waiting() > AHEAD {
            return;
        }
        let mirror = replica.upstream;
        let Some(resync) = replica.resync.as_mut() else { return };
        if resync.asked || now_ms < resync.ask_at {
            return;
        }
        let step = resync.step;
        let key = match step {
            Step::Keyspace(Side::Primary) | Step::Scan(Side::Primary, ..) | Step::Check(..) => serve,
            Step::Keyspace(Side::Mirror) | Step::Scan(Side::Mirror, ..) => mirror,
            Step::Markers => {
                if self.ask_for_markers(mirror, bit)
                    && let Some(sequencer) = self.endpoints[primary].sequencer.as_mut()
                    && let Some(resync) = sequencer.replica(bit).and_then(|r| r.resync.as_mut())
                {
                    resync.asked = true;
                }
                return;
            }
            Step::Marks | Step::Over => return,
        };
        let upstream = &mut self.upstreams[key];
        let mut bytes = Vec::new();
        match step {
            Step::Scan(..) | Step::Check(..) if !pace.turns_page() => return,
            Step::Keyspace(_) => encode::command(&mut bytes, &["INFO", "keyspace"]),
            Step::Scan(_, db, _) | Step::Check(db, _) if upstream.enter(db, None, now_ms) != Entered::Yes => {
                let side = if matches!(step, Step::Check(..)) { Side::Mirror } else { side_of(step) };
                if upstream.is_refused(db) {
                    resync.next_database(side);
                }
                return Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
            }
            Step::Scan(_, _, cursor) => {
                encode::command(&mut bytes, &["SCAN", &cursor.to_string(), "COUNT", PAGE]);
            }
            Step::Check(..) => {
                for (at, name) in resync.page.iter().enumerate() {
                    encode::command(&mut bytes, &[&b"EXISTS"[..], name]);
                    upstream.expect(Call::Exists { bit, id: resync.id, step, at }, now_ms);
                }
            }
            Step::Markers | Step::Marks | Step::Over => {}
        }
        resync.asked = true;
        upstream.out.push(&bytes);
        if !matches!(step, Step::Check(..)) {
            upstream.expect(Call::Look { bit, id: resync.id, step }, now_ms);
        }
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
    }

    /// The answer to a question.
    pub(super) fn looked(&mut self, key: usize, bit: u32, id: u64, step: Step, reply: Reply<'_>) {
        let primary = self.upstreams[key].primary();
        if step == Step::Keyspace(Side::Mirror) && self.is_of_replica(primary, bit, id) {
            if let Some(identity) = self.upstreams[key].identity.as_mut() {
                let info = String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned();
                identity.empty = !reply.is_error()
                    && super::handshake::is_empty(&databases(&info), identity.place, &identity.markers);
            }
            return;
        }
        if step == Step::Marks {
            return self.marks_read(primary, bit, id, reply);
        }
        if step == Step::Markers {
            return self.markers_read(key, primary, bit, id, reply.bytes());
        }
        let now_ms = self.now.ms;
        let (plan, listeners) = (&self.plan, &self.listeners);
        let routed = |key: &[u8]| super::place::is_mirrored(plan, listeners, primary, bit, key);
        let others = self.keys_of_sisters(primary, bit, step, reply);
        let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        let Some(replica) = sequencer.replica(bit) else { return };
        // Another resync may have begun since.
        let Some(resync) = replica.resync.as_mut().filter(|r| r.id == id && r.step == step) else { return };
        if reply.is_error() {
            resync.asked = false;
            resync.ask_at = now_ms + REFUSED_MS;
            let text = String::from_utf8_lossy(reply.bytes().get(1..).unwrap_or(&[])).trim_end().to_owned();
            let side = if side_of(step) == Side::Primary { "the primary" } else { "the mirror" };
            replica
                .stats
                .label
                .set("reason", format!("{side} refuses to be looked through (SCAN, INFO): {text}"));
            return;
        }
        match step {
            Step::Keyspace(side) => {
                let info = String::from_utf8_lossy(reply.text().unwrap_or_default());
                resync.keyspace(side, &databases(&info));
            }
            Step::Scan(side, db, _) => {
                resync.page.clear();
                let mut parts = reply.elements();
                let cursor = parts.next().and_then(Reply::text).and_then(parse_integer);
                let Some(keys) = parts.next() else { return };
                let mut seen = 0;
                for name in keys.elements().filter_map(Reply::text) {
                    seen += 1;
                    if !resync.scope.has(db, name) || name == KEY || !routed(name) {
                        continue;
                    }
                    match side {
                        Side::Primary => {
                            replica.repair.find((db, name.into()), !resync.sole, resync.begins);
                        }
                        // Those that the primary has were found there, or written since.
                        Side::Mirror if !others.contains(&name) => resync.page.push(name.into()),
                        Side::Mirror => {}
                    }
                }
                // A cursor is unsigned.
                let cursor = cursor.map_or_else(|| cursor_of(reply), |n| n as u64);
                resync.count(seen);
                if resync.page.is_empty() {
                    resync.turn(side, db, cursor);
                } else {
                    resync.asked = false;
                    resync.step = Step::Check(db, cursor);
                }
            }
            _ => {}
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
    }

    /// Keys of a mirror's page that another primary of this sidecar may have written there.
    fn keys_of_sisters<'r>(&self, primary: usize, bit: u32, step: Step, reply: Reply<'r>) -> Vec<&'r [u8]> {
        let sequencer = self.endpoints.get(primary).and_then(|e| e.sequencer.as_ref());
        let Some(replica) = sequencer.and_then(|s| s.replicas().find(|r| r.bit == bit)) else {
            return Vec::new();
        };
        if !replica.sisters || !matches!(step, Step::Scan(Side::Mirror, ..)) {
            return Vec::new();
        }
        let sisters: Vec<(usize, u32)> = self
            .endpoints
            .iter()
            .filter(|(key, _)| *key != primary)
            .flat_map(|(key, e)| e.sequencer.iter().flat_map(|s| s.replicas()).map(move |r| (key, r)))
            .filter(|(_, r)| self.is_same(r.target, replica.target))
            .map(|(key, r)| (key, r.bit))
            .collect();
        let theirs = |name: &&[u8]| {
            let gets = |&(key, bit): &(usize, u32)| {
                super::place::is_mirrored(&self.plan, &self.listeners, key, bit, name)
            };
            sisters.iter().any(gets)
                || super::place::is_served(
                    &self.plan,
                    &self.listeners,
                    |e| self.is_same(e, replica.target),
                    name,
                )
        };
        let keys = reply.elements().nth(1);
        keys.iter().flat_map(|k| k.elements()).filter_map(Reply::text).filter(theirs).collect()
    }

    fn is_of_replica(&self, primary: usize, bit: u32, id: u64) -> bool {
        let sequencer = self.endpoints.get(primary).and_then(|e| e.sequencer.as_ref());
        sequencer.is_some_and(|s| s.replicas().any(|r| r.bit == bit && r.id == id))
    }

    /// Whether the primary has a key of the mirror's.
    pub(super) fn existed(&mut self, key: usize, bit: u32, id: u64, step: Step, at: usize, reply: Reply<'_>) {
        let primary = self.upstreams[key].endpoint;
        let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        let Some(replica) = sequencer.replica(bit) else { return };
        let asked = |r: &&mut super::resync::Resync| r.id == id && r.step == step && r.asked;
        let Some(resync) = replica.resync.as_mut().filter(asked) else { return };
        let Step::Check(db, cursor) = step else { return };
        let last = at + 1 >= resync.page.len();
        if reply.integer() != Some(1)
            && let Some(name) = resync.page.get(at)
        {
            replica.repair.find((db, name.clone()), false, resync.begins);
        }
        if last {
            resync.turn(Side::Mirror, db, cursor);
            Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
        }
    }

    /// A resync ends when everything was looked at and everything found was copied.
    fn finish_resync(&mut self, primary: usize, bit: u32) {
        let (now_ms, retired) = (self.now.ms, self.endpoints[primary].retired);
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        let end = sequencer.log.end();
        let Some(replica) = sequencer.replica(bit) else { return };
        let over = replica.resync.as_ref().is_some_and(|r| !r.is_looking());
        // Under load there may always be a key in doubt. Those that are left are marked, and copied as any other.
        let late = replica.resync.as_ref().is_some_and(|r| r.over_ms != 0 && now_ms >= r.over_ms + FINISH_MS);
        let copied = replica.repair.is_empty() || (late && replica.repair.waiting() < AHEAD);
        if let Some(resync) = replica.resync.as_mut().filter(|r| over && r.over_ms == 0) {
            resync.over_ms = now_ms;
            resync.ends = end;
        }
        // The last page may tell of a key that an effect on its way to the mirror has made anew.
        let arrived = replica.resync.as_ref().is_some_and(|r| replica.acked >= r.ends);
        if !over || !arrived || !copied || replica.judged != Judged::Yes || retired {
            return;
        }
        let Some(resync) = replica.resync.take() else { return };
        let copied = replica.stats.count.resync_keys_total.get() - resync.copied_before;
        let healed = format!(
            "{}: {copied} keys copied, {} looked at in {:.1} s",
            resync.name(),
            resync.done,
            (now_ms - resync.since_ms) as f64 / 1_000.0
        );
        replica.stats.count.resync_done.set(0);
        replica.stats.count.resync_total.set(0);
        replica.stats.label.set("healed", healed.as_str());
        if resync.sole {
            replica.claimed = false;
        } else {
            replica.unproven = true;
            replica.map.set_unproven(true);
        }
        replica.late = !replica.repair.is_empty();
        let name = replica.name();
        sequencer.remark |= replica.need == Need::Nothing;
        self.tell("healed", name, healed);
    }

    /// Keys that could not be copied get another chance.
    pub(super) fn retry_unrepaired(&mut self, primary: usize) {
        let now_ms = self.now.ms;
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        let end = sequencer.log.end();
        for replica in sequencer.replicas_mut() {
            if !replica.unrepaired.is_empty() && now_ms >= replica.retry_at {
                for key in std::mem::take(&mut replica.unrepaired) {
                    replica.doubt(key, end);
                }
                if std::mem::take(&mut replica.unrepaired_more) {
                    replica.lack(Need::Marked);
                }
            }
        }
    }
}

impl super::replica::Replica {
    /// A key cannot be copied; why.
    pub(super) fn give_up(&mut self, key: super::repair::Key, reason: &str, now_ms: u64) {
        self.repair.forget(&key);
        self.map.mark(super::dirty::bucket(key.0, &key.1));
        let name = if key.0 == FUNCTIONS {
            "the function libraries".to_owned()
        } else {
            format!("key {}/{}", key.0, key.1.get(..64).unwrap_or(&key.1).escape_ascii())
        };
        self.stats.label.set("reason", format!("{name} cannot be copied: {reason}"));
        self.mark = None;
        self.retry_at = now_ms + RETRY_MS;
        if self.unrepaired.contains(&key) {
            // A resync and a command may both have found it.
        } else if self.unrepaired.len() < 1_000 {
            self.unrepaired.push(key);
        } else {
            self.unrepaired_more = true;
        }
    }
}

/// Which side a question is put to.
fn side_of(step: Step) -> Side {
    match step {
        Step::Keyspace(side) | Step::Scan(side, ..) => side,
        Step::Markers | Step::Marks | Step::Over => Side::Mirror,
        Step::Check(..) => Side::Primary,
    }
}

/// A cursor above 2^63.
fn cursor_of(reply: Reply<'_>) -> u64 {
    let text = reply.elements().next().and_then(Reply::text).unwrap_or_default();
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).unwrap_or(0)
}
