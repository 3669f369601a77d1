//! Commands that block where writes have one order: the connection that all share never blocks.
//!
//! ```text
//! BLPOP k ─▶ LPOP k ─▶ nil: first come, first served, in a line for each key
//! RPUSH k v ─▶ RPUSH k v, and directly behind it LPOP k for the first in the line of k ─▶ its client
//! ```
//!
//! What wakes a waiter is the write of another client through this sequencer; what is written past it is noticed by one
//! `EXISTS` of all waited keys every now and then.

use std::collections::VecDeque;

use hashbrown::HashMap;
use slab::Slab;

use crate::command::{Command, lookup};
use crate::resp::{Reply, Request, RequestScanner, Scanned, encode};

use super::Engine;
use super::attempt::{self, Form};
use super::call::{Call, command_of};
use super::ingress::{Incoming, Step};
use super::keys::{ANY, keys_of};
use super::place::Place;
use super::session::Wait;
use super::ticket::{SessionId, Ticket};
use super::unblock::{UNBLOCKED, Unblock};
use super::upstream::{Entered, Role, Upstream};

/// Time between looks for what was written without its key being known here, milliseconds.
const LOOK_MS: u64 = 100;
/// The same while nothing is written here, and for streams, of which only an attempt can tell.
const SELDOM_MS: u64 = 1_000;
/// Most keys that are looked for with one command.
const LOOK_KEYS: usize = 512;
/// Most waiters that one write of one key wakes.
const WAKE_MAX: usize = 64;

/// A key of a sequenced endpoint.
type Waited = (usize, u16, Box<[u8]>);

/// Who waits for a key, of one class.
type Line = (Box<[u8]>, VecDeque<usize>);

/// A command that blocks.
#[derive(Debug)]
struct Waiter {
    /// Its client's.
    ticket: Option<Ticket>,
    id: SessionId,
    place: Place,
    db: u16,
    /// Without duplicates.
    keys: Vec<Box<[u8]>>,
    /// See [`attempt::class_of`].
    class: Box<[u8]>,
    command: &'static Command,
    frame: Vec<u8>,
    form: Form,
    /// When its client is told that nothing came, milliseconds.
    until_ms: u64,
    /// An attempt is on its way.
    trying: bool,
    /// Another is to follow.
    again: bool,
    /// None has been answered.
    fresh: bool,
    tries: Tries,
    /// How it ends if the attempt on its way is in vain.
    ends: Option<Unblock>,
}

/// What a waiter tries next. (In Redis a waiter is not concerned by a key of another type; what is tried fails on one.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tries {
    /// What it waits for.
    All,
    /// The same of one of its keys.
    Key(usize),
    /// Whether there is a list to take from, so that it is the target that has another type.
    Length,
    /// The same as at first; there was such a list.
    Surely,
}

/// All commands that block in sequencers.
#[derive(Debug, Default)]
pub struct Blocked {
    all: Slab<Waiter>,
    lines: HashMap<Waited, Vec<Line>, foldhash::fast::RandomState>,
    /// Keys that were written, and how many waiters may be served.
    written: VecDeque<(Waited, usize)>,
    /// They are being walked.
    serving: bool,
    /// When the next one's time is over, milliseconds.
    due_ms: u64,
    looked_ms: u64,
    /// How much had been written then.
    looked_at: u64,
    streams_ms: u64,
    /// Where looks were not answered yet, one for each.
    looking: Vec<(usize, u16)>,
}

impl Blocked {
    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// When the next one's time is over, milliseconds.
    pub fn next_end(&self) -> u64 {
        if self.is_empty() { u64::MAX } else { self.due_ms }
    }

    fn enqueue(&mut self, index: usize) {
        let Some(waiter) = self.all.get(index) else { return };
        for key in &waiter.keys {
            let lines = self.lines.entry((waiter.place.endpoint, waiter.db, key.clone())).or_default();
            match lines.iter_mut().find(|(class, _)| *class == waiter.class) {
                Some((_, line)) => line.push_back(index),
                None => lines.push((waiter.class.clone(), VecDeque::from([index]))),
            }
        }
    }

    fn dequeue(&mut self, index: usize) {
        let Some(waiter) = self.all.get(index) else { return };
        for key in &waiter.keys {
            let line = (waiter.place.endpoint, waiter.db, key.clone());
            if let Some(lines) = self.lines.get_mut(&line) {
                if let Some((_, line)) = lines.iter_mut().find(|(class, _)| *class == waiter.class) {
                    line.retain(|at| *at != index);
                }
                lines.retain(|(_, line)| !line.is_empty());
                if lines.is_empty() {
                    self.lines.remove(&line);
                }
            }
        }
    }

    /// Which of those in the lines of a key may be tried now: the first ones of each, in order.
    fn first(&mut self, key: &Waited, most: usize) -> Vec<usize> {
        let Self { all, lines, .. } = self;
        let mut found = Vec::new();
        for (_, line) in lines.get(key).into_iter().flatten() {
            for &index in line.iter().take(most.min(WAKE_MAX)) {
                let Some(waiter) = all.get_mut(index) else { continue };
                if waiter.trying {
                    waiter.again = true;
                    break; // those behind it come after it
                }
                found.push(index);
            }
        }
        found
    }
}

impl Waiter {
    fn tried(&self) -> (&'static Command, Vec<u8>) {
        let other = match self.tries {
            Tries::All | Tries::Surely => None,
            Tries::Length => self.keys.first().and_then(|key| attempt::length_of(key)),
            Tries::Key(at) => {
                self.keys.get(at).map(|key| (self.command, attempt::of_one_key(&self.frame, key)))
            }
        };
        other.unwrap_or_else(|| (self.command, self.frame.clone()))
    }
}

impl Engine {
    /// A command that may block and writes, on a sequenced endpoint.
    pub(super) fn block(
        &mut self,
        slot: usize,
        command: &Command,
        request: &Request<'_>,
        place: Place,
    ) -> Step {
        let wanted = match attempt::attempt_of(command, request) {
            Ok(wanted) => wanted,
            Err(text) => return self.refuse(slot, &text),
        };
        if let Err(step) = self.enter(slot, place.endpoint, false) {
            return step;
        }
        let ticket = self.accept(slot);
        let session = &self.sessions[slot];
        let mut scanner = RequestScanner::default();
        scanner.scan(&wanted.frame, ANY);
        let names = keys_of(&wanted.frame, session.db).unwrap_or_default();
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        // Where it moves to is no key that it waits for.
        let sources = if attempt::moves(wanted.command.name.as_bytes()) { 1 } else { names.len() };
        for (_, key) in names.into_iter().take(sources) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let (hung_up, id) = (session.hung_up, session.id);
        let waiter = Waiter {
            ticket: Some(ticket),
            id,
            place,
            db: session.db,
            keys,
            class: attempt::class_of(command, request),
            command: wanted.command,
            frame: wanted.frame,
            form: wanted.form,
            until_ms: if wanted.timeout_ms == 0 {
                u64::MAX
            } else {
                self.now.ms.saturating_add(wanted.timeout_ms).saturating_add(1) // now is up to a millisecond later
            },
            trying: false,
            again: false,
            fresh: true,
            tries: Tries::All,
            ends: None,
        };
        self.blocked.due_ms =
            if self.blocked.is_empty() { 0 } else { self.blocked.due_ms.min(waiter.until_ms) };
        let bytes = waiter.frame.capacity() + waiter.keys.iter().map(|k| k.len()).sum::<usize>();
        let index = self.blocked.all.insert(waiter);
        self.blocked.enqueue(index);
        self.sessions[slot].extra().waits = Some((index, bytes));
        Self::weigh_session(&mut self.sessions[slot], &mut self.heavy);
        self.attempt(index);
        if hung_up {
            self.hung.push(id);
        }
        Step::Taken(Wait::Quiet)
    }

    /// Try it, on the connection that all share.
    fn attempt(&mut self, index: usize) {
        let bits = self.group_replicas();
        let Some(waiter) = self.blocked.all.get_mut(index) else { return };
        let slot = waiter.id.slot as usize;
        let (endpoint, db) = (waiter.place.endpoint, waiter.db);
        let session = self.sessions.get(slot).filter(|s| s.id == waiter.id);
        let key = self.endpoints.get(endpoint).and_then(|e| e.serve[0]);
        // (Since they wait, the last mirror may have gone, and the sequencer with it.)
        let sequencer = self.endpoints.get(endpoint).and_then(|e| e.sequencer.as_ref());
        let mut closed = sequencer.is_some_and(|s| s.is_closed());
        let (Some(session), Some(key)) = (session, key) else {
            if session.is_none() {
                self.end_waiter(index, |_| {}); // nobody is to wait behind it
            }
            return;
        };
        if let Some(group) = self.group.as_ref().filter(|g| g.local == endpoint) {
            waiter.place.writes = bits;
            closed |= !group.leads();
        }
        let upstream = &mut self.upstreams[key];
        let may = !closed && upstream.is_ready() && !upstream.is_overfull();
        if !may || upstream.enter(db, Some(session.resp), self.now.ms) != Entered::Yes {
            waiter.again = true; // looked at again with the time
            Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
            return;
        }
        waiter.trying = true;
        waiter.again = false;
        let place = waiter.place.clone();
        let (command, frame) = waiter.tried();
        let ticket = Ticket::attempt_of(waiter.id, index);
        let mut scanner = RequestScanner::default();
        scanner.scan(&frame, ANY);
        let incoming = Incoming { request: scanner.request(&frame), owner: None };
        self.send(ticket, Some(command), &incoming, &place, key, false);
        self.wake_behind_attempt(index, endpoint, db, &frame);
    }

    /// What an attempt takes elements from does not gain any: it wakes only who waits where it puts them.
    fn wake_behind_attempt(&mut self, index: usize, endpoint: usize, db: u16, frame: &[u8]) {
        let Some(waiter) = self.blocked.all.get(index) else { return };
        let gains =
            keys_of(frame, db).unwrap_or_default().into_iter().filter(|(_, k)| !waiter.keys.contains(k));
        let gains: Vec<_> = gains.map(|(db, key)| ((endpoint, db, key), 1)).collect();
        if !gains.is_empty() {
            self.blocked.written.extend(gains);
            self.serve_blocked();
        }
    }

    /// The reply to an attempt.
    pub(super) fn attempt_answered(&mut self, index: usize, bytes: &[u8]) {
        let reply = Reply::new(bytes);
        let Some(waiter) = self.blocked.all.get_mut(index) else { return };
        waiter.trying = false;
        let fresh = std::mem::replace(&mut waiter.fresh, false);
        // A waiter is not concerned by a key of another type, nor by a Redis that is down for a while.
        let passing = |codes: &[&str]| {
            codes.iter().any(|code| bytes.get(1..).is_some_and(|b| b.starts_with(code.as_bytes())))
        };
        let name = waiter.command.name;
        let tried = std::mem::replace(&mut waiter.tries, Tries::All);
        if tried == Tries::Surely && passing(&["WRONGTYPE "]) {
            return self.end_waiter(index, |out| encode::error(out, attempt::WRONG_TYPE));
        }
        let of_another_type = !fresh && passing(&["WRONGTYPE "]);
        let next = match tried {
            Tries::All if of_another_type && attempt::moves(name.as_bytes()) => Some(Tries::Length),
            Tries::Length if reply.integer().is_some_and(|n| n > 0) => Some(Tries::Surely),
            Tries::All if of_another_type && attempt::names_several(name) && waiter.keys.len() > 1 => {
                Some(Tries::Key(0))
            }
            Tries::Key(at) if of_another_type || attempt::is_empty(reply) => {
                Some(Tries::Key(at + 1)).filter(|_| at + 1 < waiter.keys.len())
            }
            _ => None,
        };
        if let Some(next) = next.filter(|_| waiter.ends.is_none()) {
            waiter.tries = next;
            return self.attempt(index);
        }
        if !fresh && name == "xreadgroup" && passing(&["WRONGTYPE ", "NOGROUP "]) {
            let gone = if passing(&["NOGROUP "]) { attempt::NO_GROUP } else { attempt::NO_STREAM };
            return self.end_waiter(index, |out| encode::error(out, gone));
        }
        let in_vain = match reply.is_error() {
            true if passing(&["UNAVAILABLE ", "TIMEOUT "]) => true,
            true => !fresh && passing(&["WRONGTYPE ", "LOADING ", "BUSY "]),
            false => tried == Tries::Length || attempt::is_empty(reply),
        };
        if !in_vain {
            let key = waiter.keys.first().cloned().unwrap_or_default();
            let form = waiter.form;
            let lines: Vec<Waited> =
                waiter.keys.iter().map(|k| (waiter.place.endpoint, waiter.db, k.clone())).collect();
            self.end_waiter(index, |out| attempt::reply_of(form, &key, reply, out));
            // There may be more than one was served with.
            self.blocked.written.extend(lines.into_iter().map(|line| (line, 1)));
            return self.serve_blocked();
        }
        if let Some(how) = waiter.ends {
            return self.unblock_waiter(index, how);
        }
        if waiter.until_ms <= self.now.ms {
            return self.unblock_waiter(index, Unblock::Timeout);
        }
        if waiter.again {
            self.attempt(index);
        }
    }

    /// A waiter gets its answer.
    fn end_waiter(&mut self, index: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.blocked.dequeue(index);
        let Some(mut waiter) = self.blocked.all.try_remove(index) else { return };
        if let Some(session) = self.session(waiter.id) {
            session.extra().waits = None;
        }
        if let Some(ticket) = waiter.ticket.take() {
            self.settle(ticket, write);
        }
    }

    fn unblock_waiter(&mut self, index: usize, how: Unblock) {
        let Some(waiter) = self.blocked.all.get_mut(index) else { return };
        if waiter.trying {
            waiter.ends = Some(how);
            return;
        }
        let resp3 = self.sessions.get(waiter.id.slot as usize).is_some_and(|s| s.resp == 3);
        self.end_waiter(index, |out| match how {
            Unblock::Timeout | Unblock::Gone => encode::nil_array(out, resp3),
            Unblock::Error => encode::error(out, UNBLOCKED),
            Unblock::Moved => encode::error(
                out,
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            ),
        });
    }

    fn waiter_of(&self, id: SessionId) -> Option<usize> {
        let session = self.sessions.get(id.slot as usize).filter(|s| s.id == id)?;
        let (index, _) = session.extra.as_ref()?.waits?;
        self.blocked.all.get(index).is_some_and(|w| w.ends.is_none()).then_some(index)
    }

    /// Whether a session waits in a line.
    pub(super) fn waits_in_line(&self, id: SessionId) -> bool {
        self.waiter_of(id).is_some()
    }

    /// End what a session waits for. `false`: it does not wait.
    pub(super) fn leave_line(&mut self, id: SessionId, how: Unblock) -> bool {
        let Some(index) = self.waiter_of(id) else { return false };
        self.unblock_waiter(index, how);
        true
    }

    /// A client's command was queued that writes: those who wait for its keys are served directly behind it.
    #[cold]
    pub(super) fn wake_blocked(&mut self, endpoint: usize, db: u16, frame: &[u8], most: usize) {
        let Some(keys) = keys_of(frame, db) else { return };
        self.blocked.written.extend(keys.into_iter().map(|(db, key)| ((endpoint, db, key), most)));
        self.serve_blocked();
    }

    /// Try those who wait for what was written.
    fn serve_blocked(&mut self) {
        if std::mem::replace(&mut self.blocked.serving, true) {
            return; // what an attempt writes is served behind it, by who is at it
        }
        while let Some((key, most)) = self.blocked.written.pop_front() {
            for index in self.blocked.first(&key, most) {
                self.attempt(index);
            }
        }
        self.blocked.serving = false;
    }

    /// Try those who could not be tried when they should have been.
    pub(super) fn retry_blocked(&mut self) {
        let again = |w: &Waiter| w.again && !w.trying;
        let pending: Vec<usize> = self.blocked.all.iter().filter(|(_, w)| again(w)).map(|(i, _)| i).collect();
        for index in pending {
            self.attempt(index);
        }
    }

    /// What time changes for those who block.
    pub(super) fn tick_blocked(&mut self) {
        if self.blocked.is_empty() {
            return;
        }
        let now_ms = self.now.ms;
        self.retry_blocked();
        if self.blocked.due_ms <= now_ms {
            let due: Vec<usize> =
                self.blocked.all.iter().filter(|(_, w)| w.until_ms <= now_ms).map(|(i, _)| i).collect();
            for index in due {
                self.unblock_waiter(index, Unblock::Timeout);
            }
            let next =
                self.blocked.all.iter().filter(|(_, w)| w.ends.is_none()).map(|(_, w)| w.until_ms).min();
            self.blocked.due_ms = next.unwrap_or(u64::MAX);
        }
        let written: u64 =
            self.endpoints.iter().filter_map(|(_, e)| Some(e.sequencer.as_ref()?.log.committed())).sum();
        let pause_ms = if written == self.blocked.looked_at { SELDOM_MS } else { LOOK_MS };
        if now_ms >= self.blocked.looked_ms + pause_ms {
            self.blocked.looked_ms = now_ms;
            self.blocked.looked_at = written;
            self.look_for_waited();
        }
    }

    /// Ask whether there is any of the keys that are waited for.
    fn look_for_waited(&mut self) {
        let now_ms = self.now.ms;
        let mut by_place: HashMap<(usize, u16), Vec<Box<[u8]>>, foldhash::fast::RandomState> =
            HashMap::default();
        let mut streams = Vec::new();
        for (line, waiting) in &self.blocked.lines {
            let mut first = waiting.iter().filter_map(|(_, line)| self.blocked.all.get(*line.front()?));
            if first.any(|w| w.command.name == "xreadgroup") {
                streams.push(line.clone()); // it is there, whether there is anything new or not
            } else {
                by_place.entry((line.0, line.1)).or_default().push(line.2.clone());
            }
        }
        if now_ms >= self.blocked.streams_ms {
            self.blocked.streams_ms = now_ms + SELDOM_MS;
            streams.sort_unstable();
            self.blocked.written.extend(streams.into_iter().map(|line| (line, 1)));
            self.serve_blocked();
        }
        let mut places: Vec<_> = by_place.into_iter().collect();
        places.sort_unstable(); // a run of the simulation depends on its seed alone
        places.retain(|(place, _)| !self.blocked.looking.contains(place));
        for ((endpoint, db), mut keys) in places {
            keys.sort_unstable();
            for keys in keys.chunks(LOOK_KEYS) {
                let Some(key) = self.endpoints.get(endpoint).and_then(|e| e.serve[0]) else { continue };
                let upstream = &mut self.upstreams[key];
                if !upstream.is_ready()
                    || upstream.is_overfull()
                    || upstream.enter(db, None, self.now.ms) != Entered::Yes
                {
                    continue;
                }
                let mut bytes = Vec::new();
                encode::array(&mut bytes, 1 + keys.len());
                encode::bulk(&mut bytes, b"EXISTS");
                for name in keys {
                    encode::bulk(&mut bytes, name);
                }
                upstream.out.push(&bytes);
                upstream.expect(Call::Waited { endpoint, db }, self.now.ms);
                self.blocked.looking.push((endpoint, db));
                Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
            }
        }
    }

    /// Whether there are keys that are waited for.
    pub(super) fn waited_are_there(&mut self, endpoint: usize, db: u16, reply: Option<Reply<'_>>) {
        if let Some(at) = self.blocked.looking.iter().position(|place| *place == (endpoint, db)) {
            self.blocked.looking.swap_remove(at);
        }
        if reply.and_then(Reply::integer).is_none_or(|n| n == 0) {
            return;
        }
        let mut lines: Vec<Waited> =
            self.blocked.lines.keys().filter(|(e, d, _)| (*e, *d) == (endpoint, db)).cloned().collect();
        lines.sort_unstable();
        self.blocked.written.extend(lines.into_iter().map(|line| (line, 1)));
        self.serve_blocked();
    }

    /// This member leads no more: who waits here has to wait elsewhere.
    pub(super) fn move_blocked(&mut self) {
        let all: Vec<usize> = self.blocked.all.iter().map(|(index, _)| index).collect();
        for index in all {
            self.unblock_waiter(index, Unblock::Moved);
        }
    }

    /// Whether what a session blocks in, on a connection of its own, would go to another Redis by now.
    fn waits_elsewhere(&self, id: SessionId, endpoint: usize) -> bool {
        let slot = id.slot as usize;
        let Some(private) = self.sessions.get(slot).filter(|s| s.id == id).and_then(|s| s.private_ref())
        else {
            return false;
        };
        let mut scanner = RequestScanner::default();
        if self.is_in_group(slot) || !matches!(scanner.scan(&private.waits_for, ANY), Scanned::Frame(_)) {
            return false;
        }
        let request = scanner.request(&private.waits_for);
        let command = lookup(request.arg(0)).and_then(|c| c.resolve(&request).ok());
        self.locate(slot, command, &request).is_ok_and(|place| place.endpoint != endpoint)
    }

    /// There are other routes: who waits for a key that goes another way now has to ask again. So has who blocks on a
    /// connection of its own where writes have one order from now on: no mirror would hear of what it is given.
    pub(super) fn reroute_blocked(&mut self) {
        let takes = |u: &Upstream| match (u.role, u.calls.front()) {
            (Role::Private { session }, Some(Call::Client(call))) if call.blocks => {
                let taking = command_of(call.command).is_some_and(Command::is_write);
                let sequenced = self.endpoints.get(u.endpoint).is_some_and(|e| e.sequencer.is_some())
                    || self.is_superseded(u.endpoint);
                ((taking && sequenced) || self.waits_elsewhere(session, u.endpoint)).then_some(session)
            }
            _ => None,
        };
        let own: Vec<_> = self.upstreams.iter().filter_map(|(key, u)| Some((key, takes(u)?))).collect();
        for (key, session) in own {
            if !self.unblock(session.slot as usize, Unblock::Error) {
                self.break_upstream(key, "there are other routes now");
            }
        }
        let all: Vec<usize> = self.blocked.all.iter().map(|(index, _)| index).collect();
        for index in all {
            let Some(waiter) = self.blocked.all.get(index) else { continue };
            let slot = waiter.id.slot as usize;
            if self.group.as_ref().is_some_and(|g| g.local == waiter.place.endpoint)
                || self.sessions.get(slot).is_none_or(|s| s.id != waiter.id)
            {
                continue;
            }
            let mut scanner = RequestScanner::default();
            scanner.scan(&waiter.frame, ANY);
            let place = self.locate(slot, Some(waiter.command), &scanner.request(&waiter.frame)).ok();
            let plain = waiter.place.keys.iter().all(|k| k.strip == 0);
            match place.filter(|p| plain && p.endpoint == waiter.place.endpoint) {
                Some(place) => self.blocked.all[index].place = place,
                None => self.unblock_waiter(index, Unblock::Moved),
            }
        }
    }
}
