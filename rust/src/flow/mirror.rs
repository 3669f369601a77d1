//! The log's way to the replicas, and the healing of keys whose fate is in doubt.
//!
//! A replica has a cursor. What lies before it was sent; what was sent and not acknowledged when the connection broke
//! is in doubt and never sent again: those keys are copied from the primary, in order with its writes, and the log goes
//! on behind them. While a key is in doubt, an effect that names it and others (RENAME, COPY, `*STORE`) may spread what
//! is stale, so it puts all its keys in doubt.

use super::Engine;
use super::call::Call;
use crate::command::lookup;
use crate::resp::{RequestScanner, Scanned};

use super::expiry::doubt_ended;
use super::handshake::database;
use super::keys::{ANY, keys_beside, keys_of, name_one_key};
use super::log::{Entry, Kind, State, UNCHECKED, digest};
use super::repair::{FUNCTIONS, Key};
use super::replica::{Need, Replica, WINDOW};
use super::sequencer::Sequencer;
use super::upstream::{Entered, Upstream};

/// Most unsent bytes on a replica's connection.
const UNSENT_MAX: usize = 1 << 20;
/// A replica that acknowledges nothing for so long, while the log is full of what it was sent, is cut off. (One that
/// still does goes on: were it cut off too, its copies would fill the log again, and it would never get further.)
const HOLD_MS: u64 = 1_000;
/// A message older than this is not delivered to a mirror's subscribers.
const PUBLISH_MS: u64 = 1_000;

impl Engine {
    /// Send replicas what is committed, and ask for the copies they need. At the end of a turn.
    pub fn pump(&mut self) {
        for key in std::mem::take(&mut self.dirty_sequencers) {
            self.pump_sequencer(key);
        }
        if self.group.is_some() {
            self.seal();
            self.resend();
            self.open_gate();
        }
        if !self.waits.is_empty() {
            self.settle_waits();
        }
    }

    /// A sequencer's replicas may have something to send.
    pub(super) fn touch_sequencer(&mut self, primary: usize) {
        if let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut()) {
            Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
        }
    }

    fn pump_sequencer(&mut self, primary: usize) {
        let Some(mut sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.take()) else {
            return;
        };
        sequencer.dirty = false;
        let grouped = self.is_groups_own(primary);
        let news = grouped && sequencer.replicas().any(|r| r.open && r.told.0 != sequencer.generation);
        let words = if news { self.generation_words(&sequencer) } else { Vec::new() };
        let Sequencer { log, replicas, generation, .. } = &mut *sequencer;
        for replica in replicas.iter_mut().flatten() {
            let Some(upstream) = self.upstreams.get_mut(replica.upstream) else { continue };
            if !upstream.is_ready() || !replica.open {
                continue;
            }
            // Before the first effect of a generation: what the member marks from here on is of that one.
            if grouped && replica.told.0 != *generation {
                replica.told.0 = *generation;
                upstream.out.push(&words);
                upstream.expect(Call::Told, self.now.ms);
            }
            while replica.next < log.decided()
                && replica.in_flight < WINDOW
                && upstream.out.waiting() < UNSENT_MAX
                && let Some(entry) = log.get(replica.next)
            {
                if !is_wanted(entry, replica, self.now.ms) {
                    replica.next += 1;
                    continue;
                }
                match upstream.enter(entry.db, None, self.now.ms) {
                    Entered::Yes => {}
                    Entered::Wait | Entered::Busy => break,
                    Entered::Refused => {
                        replica.stats.label.set("reason", upstream.refusal(entry.db));
                        if matches!(entry.kind, Kind::Write | Kind::Sync) {
                            replica.stats.count.lost_total.inc();
                            // It has no such database: asking again at once would not end.
                            let refusal = upstream.refusal(entry.db);
                            match keys_of(log.bytes(entry), entry.db) {
                                None => replica.doubt_all(), // FLUSHALL is about the others, too
                                Some(keys) => {
                                    for key in keys {
                                        if key.0 == entry.db {
                                            replica.give_up(key, &refusal, self.now.ms);
                                        } else {
                                            replica.doubt(key, replica.next);
                                        }
                                    }
                                }
                            }
                        }
                        replica.next += 1;
                        continue;
                    }
                }
                upstream.out.push_log(entry.piece);
                if entry.selects {
                    upstream.forget_db();
                }
                let call = Call::Effect { position: replica.next, left: entry.replies, failed: false };
                upstream.expect(call, self.now.ms);
                replica.in_flight += 1;
                replica.stats.count.sent_total.inc();
                replica.next += 1;
            }
            if replica.repair.is_empty() && replica.unrepaired.is_empty() {
                replica.missed = None;
            }
            let told = replica.told.1;
            let position = match replica.missed {
                None => (*generation, replica.next),
                Some(missed) => told.min((*generation, missed)), // it was told before the miss was known
            };
            if grouped && told != position {
                replica.told.1 = position;
                tell_position(upstream, position, self.now.ms);
            }
            if replica.in_flight == 0 {
                replica.acked = replica.next;
            }
            if upstream.out.waiting() > 0 {
                Self::mark_upstream(upstream, replica.upstream, &mut self.dirty_upstreams);
            }
        }
        let trimmed = sequencer.trim(self.log_limit());
        if let Some(endpoint) = self.endpoints.get_mut(primary) {
            endpoint.sequencer = Some(sequencer);
        }
        for bit in (0..32).filter(|bit| trimmed.losers & (1 << bit) != 0) {
            self.tell_lost(primary, bit);
        }
        for bit in (0..32).filter(|bit| trimmed.holders & (1 << bit) != 0) {
            let sequencer = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut());
            if let Some(upstream) = sequencer.and_then(|s| s.replica(bit)).map(|r| r.upstream)
                && self.upstreams.get(upstream).is_some_and(|u| u.waiting_since + HOLD_MS <= self.now.ms)
            {
                self.break_upstream(upstream, "the log is full and it does not acknowledge");
            }
        }
        self.tend_replicas(primary);
        self.ask_for_copies(primary);
    }

    fn tell_lost(&mut self, primary: usize, bit: u32) {
        let Some(replica) = self.endpoints[primary].sequencer.as_mut().and_then(|s| s.replica(bit)) else {
            return;
        };
        if replica.told_lost {
            return;
        }
        replica.told_lost = true;
        let subject = replica.name();
        let text = "the log is full: effects are dropped for this mirror; what they changed will be copied";
        self.tell("overflow", subject, text.to_owned());
    }

    /// Keys may differ on replicas as of `position`. `None`: it is not known which.
    pub(super) fn doubt(&mut self, primary: usize, replicas: u32, position: u64, keys: Option<&[Key]>) {
        let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        for replica in sequencer.replicas.iter_mut().flatten().filter(|r| replicas & (1 << r.bit) != 0) {
            match keys {
                None => {
                    replica.stats.count.lost_total.inc();
                    replica.doubt_all();
                }
                Some(keys) => keys.iter().for_each(|key| replica.doubt(key.clone(), position)),
            }
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
    }

    /// A replica has answered an effect.
    pub(super) fn acknowledged(&mut self, key: usize, position: u64, failed: bool, reply: &[u8]) {
        let super::upstream::Role::Replica { primary, bit } = self.upstreams[key].role else { return };
        let next = match self.upstreams[key].calls.iter().find(|c| matches!(c, Call::Effect { .. })) {
            Some(Call::Effect { position, .. }) => Some(*position),
            _ => None,
        };
        let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        let identity = self.upstreams[key].identity.as_ref();
        let hash = identity.is_some_and(|i| matches!(i.place, super::marker::Place::Hash(_)));
        let Sequencer { log, replicas, remark, .. } = &mut **sequencer;
        let Some(replica) = replicas.get_mut(bit as usize).and_then(Option::as_mut) else { return };
        replica.in_flight -= 1;
        replica.acked = next.unwrap_or(replica.next);
        replica.stats.count.acked_total.inc();
        let entry = log.get(position).copied();
        let differs = entry
            .is_some_and(|e| e.kind == Kind::Write && e.digest != UNCHECKED && e.digest != digest(reply, 2));
        replica.stats.count.differ_total.add(u64::from(differs && !failed));
        if let Some(entry) = entry
            && (failed || differs || matches!(entry.kind, Kind::Sync | Kind::Functions))
        {
            let left_alone =
                settle_copy(replica, &entry, log.bytes(&entry), position, failed, reply, self.now.ms);
            if [&b"-READONLY"[..], b"-MASTERDOWN", b"-LOADING"].iter().any(|e| reply.starts_with(e)) {
                replica.suspect(self.now.ms);
            }
            if failed && !left_alone {
                let text = String::from_utf8_lossy(reply.get(1..160.min(reply.len())).unwrap_or(&[]))
                    .trim_end()
                    .to_owned();
                replica.stats.label.set("reason", format!("it refused an effect: {text}"));
            }
        }
        if log.has_ends() {
            doubt_ended(replica, log, position, self.now);
        }
        // Now, and not when it was sent: an effect before it may have been refused since.
        let target = replica.target;
        let keyless = |e: Entry| e.kind == Kind::Write && keys_of(log.bytes(&e), e.db).is_none();
        let flushed = (replica.sisters || hash) && entry.is_some_and(keyless);
        *remark |= flushed && hash; // its marker went with the keys
        let flushed = flushed && replica.sisters;
        if let Some(entry) = entry
            && (!replica.repair.is_empty() || replica.resync.is_some())
        {
            spread_doubt(replica, &entry, log.bytes(&entry), position);
        }
        Self::mark_sequencer(sequencer, primary, &mut self.dirty_sequencers);
        if flushed {
            // What another primary of this sidecar had written there is gone as well.
            let same: Vec<usize> =
                self.endpoints.iter().map(|(key, _)| key).filter(|key| self.is_same(*key, target)).collect();
            for (_, other) in self.endpoints.iter_mut().filter(|(key, _)| *key != primary) {
                let replicas = other.sequencer.iter_mut().flat_map(|s| s.replicas_mut());
                replicas.filter(|r| same.contains(&r.target)).for_each(Replica::doubt_all);
            }
        }
    }
}

/// A follower learns how far its data goes with what came before.
fn tell_position(upstream: &mut Upstream, (generation, position): (u64, u64), now_ms: u64) {
    let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
    upstream.say(&["REDISHA", "AT", a.format(generation), b.format(position)], now_ms);
}

/// After the reply to a copy, or a reply to any effect that is an error or not the primary's. Whether the error says that
/// a key is there already which was only to be added.
fn settle_copy(
    replica: &mut Replica,
    entry: &Entry,
    bytes: &[u8],
    position: u64,
    failed: bool,
    reply: &[u8],
    now_ms: u64,
) -> bool {
    if entry.kind == Kind::Read || entry.kind == Kind::Publish {
        replica.stats.count.error_total.add(u64::from(failed));
        return false;
    }
    let keys = match entry.kind {
        Kind::Functions => Some(vec![(FUNCTIONS, Box::default())]),
        _ => keys_of(bytes, entry.db),
    };
    let keys = keys.map(|mut keys| {
        if entry.kind == Kind::Sync {
            keys.truncate(1); // a copy by commands names it again and again
        }
        keys
    });
    // There is no way to add a key by commands only if it is not there.
    if entry.kind == Kind::Sync
        && failed
        && refuses_payloads(reply)
        && let Some(key) =
            keys.as_ref().and_then(|keys| keys.first()).filter(|key| replica.repair.is_gentle(key))
    {
        replica.give_up(
            key.clone(),
            "the mirror refuses payloads (RESTORE), and is not this sidecar's alone",
            now_ms,
        );
        return true;
    }
    let is_copy = matches!(entry.kind, Kind::Sync | Kind::Functions);
    if is_copy
        && failed
        && let Some(key) = keys.as_ref().and_then(|keys| keys.first())
        && match entry.kind {
            // A copy that takes no library away may find one of that name there.
            Kind::Functions => !bytes.windows(5).any(|word| word == b"FLUSH"),
            _ => replica.repair.is_gentle(key) && reply.starts_with(b"-BUSYKEY"),
        }
    {
        replica.repair.copied(key, position);
        replica.stats.count.unproven_keys.inc();
        return true;
    }
    replica.stats.count.error_total.add(u64::from(failed));
    let Some(keys) = keys else {
        if failed {
            replica.stats.count.lost_total.inc();
            replica.doubt_all();
        }
        return false;
    };
    for key in keys {
        match (is_copy, failed) {
            (true, false) => replica.repair.copied(&key, position),
            (true, true) if refuses_payloads(reply) && !replica.logical && key.0 != FUNCTIONS => {
                replica.logical = true;
                replica.again(key, position);
            }
            (true, true) => {
                replica.miss_from(position);
                replica.miss(key, position, Some(now_ms));
            }
            _ => {
                replica.miss_from(position);
                replica.doubt(key, position);
            }
        }
    }
    false
}

/// Whether the reply to RESTORE says that no payload of this primary's will do.
fn refuses_payloads(reply: &[u8]) -> bool {
    [&b"-ERR DUMP payload version"[..], b"-ERR unknown command", b"-NOPERM", b"-ERR Bad data format"]
        .iter()
        .any(|text| reply.starts_with(text))
}

/// Whether a replica must be sent an entry.
fn is_wanted(entry: &Entry, replica: &Replica, now_ms: u64) -> bool {
    let late = now_ms.saturating_sub(entry.at_ms) > PUBLISH_MS;
    entry.state == State::Committed
        && entry.replicas & (1 << replica.bit) != 0
        && !(late && matches!(entry.kind, Kind::Read | Kind::Publish))
}

/// A command of several keys, one of which is in doubt, puts them all in doubt.
fn spread_doubt(replica: &mut Replica, entry: &Entry, bytes: &[u8], position: u64) {
    if entry.kind != Kind::Write || (name_one_key(bytes) && replica.resync.is_none()) {
        return;
    }
    let Some(keys) = keys_of(bytes, entry.db) else {
        return spread_everywhere(replica, entry, bytes, position);
    };
    spread_keys(replica, keys, bytes, entry.db, entry.selects, position);
}

/// The same for a part of an effect that names these keys.
fn spread_keys(replica: &mut Replica, keys: Vec<Key>, bytes: &[u8], db: u16, selects: bool, position: u64) {
    // What a resync still looks for is as good as found. So is what it must not take for found where it is not: a key
    // that comes and goes may be missed by both scans.
    let looking = replica.resync.as_ref().filter(|r| r.sole && r.may_meet(position));
    let in_scope = keys.iter().any(|(db, name)| looking.is_some_and(|r| r.scope.has(*db, name)));
    let single = keys.len() == 1;
    if in_scope && (!single || !overwrites(bytes)) {
        for key in keys {
            replica.doubt(key, position);
        }
    } else if !single && keys.iter().any(|k| replica.repair.contains(k)) {
        // With a SELECT in it, which database a command was in is not known.
        let beside = |replica: &Replica| keys_beside(bytes, db, |k| replica.repair.contains(k));
        for key in if selects { keys } else { beside(replica) } {
            replica.spread(key, position);
        }
    }
}

/// Whether an effect of one key leaves nothing of what the key was.
fn overwrites(bytes: &[u8]) -> bool {
    let mut scanner = RequestScanner::default();
    let Scanned::Frame(len) = scanner.scan(bytes, ANY) else { return false };
    let request = scanner.request(&bytes[..len]);
    match lookup(request.arg(0)).map_or("", |c| c.name) {
        "set" => {
            request.len() == 3 || (request.len() == 5 && crate::command::is_word(request.arg(3), "PXAT"))
        }
        "del" | "unlink" | "restore" => true,
        _ => false,
    }
}

/// An effect that names no keys, while some are in doubt: what is stale may be somewhere else afterwards.
fn spread_everywhere(replica: &mut Replica, entry: &Entry, bytes: &[u8], position: u64) {
    let mut scanner = RequestScanner::default();
    let mut rest = bytes;
    while let Scanned::Frame(len) = scanner.scan(rest, ANY) {
        let (frame, tail) = rest.split_at(len);
        let request = scanner.request(frame);
        match (lookup(request.arg(0)), database(request.arg(1)), database(request.arg(2))) {
            (Some(command), Ok(a), Ok(b)) if command.name == "swapdb" => {
                replica.swap(a, b, position);
                if replica.resync.as_ref().is_some_and(super::resync::Resync::is_looking) {
                    replica.lack(Need::Full); // what was looked through is elsewhere now
                }
            }
            (Some(command), ..) if has_no_keys(command.name) => {}
            (Some(command), ..) if !command.is_write() => {}
            _ => match keys_of(frame, entry.db) {
                Some(keys) if !entry.selects => {
                    spread_keys(replica, keys, frame, entry.db, false, position);
                }
                _ => replica.doubt_all(),
            },
        }
        rest = tail;
    }
}

/// Writes that name no keys and bring nothing stale anywhere.
fn has_no_keys(name: &str) -> bool {
    matches!(name, "flushall" | "flushdb" | "script" | "function" | "publish" | "spublish" | "multi" | "exec")
}

/// An entry is not sent to a replica that should have it. Gives whether it lost something by that: a late read or message
/// is worth nothing, and a copy can be had again.
pub(super) fn drop_effect(replica: &mut Replica, entry: &Entry, bytes: &[u8], position: u64) -> bool {
    debug_assert_eq!(entry.state, State::Committed);
    if entry.replicas & (1 << replica.bit) == 0 {
        return false;
    }
    match entry.kind {
        Kind::Read | Kind::Publish => false,
        Kind::Sync => {
            for key in keys_of(bytes, entry.db).unwrap_or_default() {
                replica.miss(key, position, None);
            }
            false
        }
        Kind::Functions => {
            replica.miss((FUNCTIONS, Box::default()), position, None);
            false
        }
        Kind::Write => {
            replica.stats.count.lost_total.inc();
            replica.lack(Need::Dirty);
            true
        }
    }
}
