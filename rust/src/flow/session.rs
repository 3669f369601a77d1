//! One client: what it has sent and not been given yet, and the state that Redis would keep for its connection.
//!
//! An idle session owns no buffer. Replies leave in the order of their commands: the one whose turn it is goes straight
//! to the output, another waits in `parked`.

use std::collections::VecDeque;

use crate::command::Command;
use crate::resp::{Request, RequestScanner, Scanned};

use super::call::UNKNOWN;
use super::ends::Ends;
use super::keys::ANY;
use super::late::Late;
use super::private::Private;
use super::ticket::{SessionId, Ticket};
use crate::plan::spec::{Consistency, Port};

/// Past this much unread output no more commands are read from the client.
const OUTPUT_PAUSE: usize = 1 << 20;
/// How long a client may read nothing while more than `max_output` waits for it.
const OVERFLOW_MS: u64 = 250;
/// Largest output buffer that a session keeps for its next replies.
const OUTPUT_KEEP: usize = 64 * 1024;
/// Most commands of one session in flight: at first, at most, and at least. It grows with every short reply and is
/// halved by a long one, so that one client's large replies do not fill the line that all share.
const WINDOW: (u32, u32, u32) = (64, 1024, 4);
/// The same of a link, which has the commands of many clients.
const LINK_WINDOW: u32 = 16 * 1024;
/// No upstream.
pub const NO_PATH: usize = usize::MAX;

/// Why a session does not go on with its next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It does.
    Nothing,
    /// Everything in flight must be answered first (another path, or a command that changes the session).
    Quiet,
    /// The upstream must become ready or have room; it is on its list of waiters.
    Upstream,
    /// `CLIENT PAUSE` must end; it is on the list of those who wait for that.
    Pause,
}

/// How the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It does not.
    Open,
    /// No more commands are taken (QUIT, protocol error, drain): once all is answered and written it is closed.
    Draining,
    /// It must be closed now; what was not written is lost.
    Broken,
}

/// Who the other side is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peering {
    /// A client.
    #[default]
    Client,
    /// Another worker of this process: commands of its clients.
    Link,
    /// Somebody at the peer port who has not said who they are.
    Stranger,
    /// Another member: beats.
    Beat,
    /// The same: commands of its clients.
    Call {
        /// Which of the peers; none of them while this member has not spoken to it.
        peer: usize,
    },
    /// The same, told that this member does not lead: so is everything behind it, that nothing is executed out of order.
    Turned {
        /// Whose, as in [`Peering::Call`].
        peer: usize,
    },
    /// The control plane of a member.
    Control,
    /// The leader of this term: its effects.
    Stream {
        /// The term.
        term: u64,
    },
}

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub struct Queued {
    /// Their frames, back to back.
    pub bytes: Vec<u8>,
    /// Each command and where its frame ends.
    pub items: Vec<(Option<&'static Command>, usize)>,
    /// A command was refused while queueing: EXEC will be refused.
    pub failed: bool,
    /// The endpoint that the keys so far live on.
    pub path: Option<usize>,
    /// The replicas that get what it writes to keys, and what it writes without naming keys (`FLUSHALL`).
    pub writes: u32,
    /// The latter.
    pub unkeyed: u32,
    /// The replicas of the last command that had keys.
    pub keyed: Option<u32>,
    /// The replicas that may lack what it writes, although it does not go to them from here.
    pub marks: u32,
    /// The samples that each of its commands with keys may be of.
    pub samples: Option<u32>,
    /// It has a SELECT.
    pub selects: bool,
    /// The frames of those that the proxy executes itself; what is in `bytes` only stands in for them.
    pub own: Vec<Box<[u8]>>,
    /// Bytes in `own`.
    pub own_bytes: usize,
    /// The plan that its commands were placed by.
    pub generation: u64,
}

impl Queued {
    /// Whether this is so of any of its commands.
    pub fn any(&self, is: impl Fn(Option<&'static Command>, &Request<'_>) -> bool) -> bool {
        let mut scanner = RequestScanner::default();
        let mut start = 0;
        self.items.iter().any(|&(command, end)| {
            let frame = self.bytes.get(start..end).unwrap_or(&[]);
            start = end;
            matches!(scanner.scan(frame, ANY), Scanned::Frame(_)) && is(command, &scanner.request(frame))
        })
    }
}

/// What few sessions have.
#[derive(Debug, Default)]
pub struct Extra {
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// Who has logged in; empty: the default user.
    pub user: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: Vec<u8>,
    /// Commands whose replies are not sent (`CLIENT REPLY`): [from, to).
    pub muted: VecDeque<(u64, u64)>,
    /// Its commands that were answered by time and are still on their way.
    pub late: Vec<Late>,
    /// The transaction being queued.
    pub transaction: Option<Queued>,
    /// Its own connection.
    pub private: Option<Private>,
    /// The waiter that it blocks as, in a line, and the bytes of that.
    pub waits: Option<(usize, usize)>,
    /// What the proxy itself does when the EXEC of this number is answered: the frames of those commands.
    pub own: Option<(u64, Vec<Box<[u8]>>)>,
    /// Replies that are ahead of their turn.
    pub parked: VecDeque<(u64, Vec<u8>)>,
    /// Their bytes.
    pub parked_bytes: usize,
    /// The scanner of a command that is not complete.
    pub scanner: Option<RequestScanner>,
    /// Bytes missing to the command that `scanner` is midway in, at least.
    pub missing: usize,
}

/// The client.
#[derive(Debug)]
pub struct Session {
    /// Who it is.
    pub id: SessionId,
    /// Its number, as `CLIENT ID` tells it.
    pub number: i64,
    /// Index of its listener.
    pub listener: usize,
    /// Who comes in at its listener.
    pub port: Port,
    /// Who it is.
    pub peering: Peering,
    /// In a group: what it gets.
    pub consistency: Consistency,
    /// The RESP version it speaks.
    pub resp: u8,
    /// Its database.
    pub db: u16,
    /// Whether it may send commands.
    pub authenticated: bool,
    /// `CLIENT NO-EVICT ON`.
    pub spared: bool,
    /// Its last command, or [`UNKNOWN`].
    pub last: u16,
    /// Where it comes from.
    pub ends: Ends,
    /// How it ends.
    pub ending: Ending,
    /// Why it does not go on.
    pub wait: Wait,
    /// It is on the list of sessions to write.
    pub dirty: bool,
    /// It is on the list of sessions to go on with.
    pub runnable: bool,
    /// The client will send no more; what it has sent is still answered.
    pub half_closed: bool,
    /// The same, although not all that it has sent has been read.
    pub hung_up: bool,
    /// Since when it waits for an upstream (milliseconds).
    pub waiting_since: u64,
    /// It has waited for too long: the next look at its command ends in an error rather than in more waiting.
    pub overdue: bool,
    /// A link whose last command has waited for too long: those behind it, of other clients, need not wait as long each.
    pub stuck: bool,
    /// Since when it leaves too much unread and reads nothing (milliseconds); 0: it does not.
    over_since: u64,
    /// It is on the list of sessions that hold much memory.
    pub heavy: bool,
    /// It stopped at a bound, until replies come or the client reads.
    pub paused: bool,
    /// Bytes received and not consumed; the next command begins at `consumed`.
    pub input: Vec<u8>,
    /// Where in `input` the next command begins.
    pub consumed: usize,
    /// Bytes to be written, from `written` on.
    pub output: Vec<u8>,
    /// How much of `output` has left.
    pub written: usize,
    /// Commands accepted.
    pub issued: u64,
    /// Commands answered.
    pub settled: u64,
    /// Commands it may have in flight.
    window: u32,
    /// The upstream that has its commands in flight.
    pub path: usize,
    /// Milliseconds of its last command (or of its coming).
    pub active_ms: u64,
    /// Milliseconds of its coming.
    pub since_ms: u64,
    /// The rest.
    pub extra: Option<Box<Extra>>,
}

impl Session {
    /// A client that has just come.
    pub fn new(id: SessionId, listener: usize, authenticated: bool, ends: Ends, now_ms: u64) -> Self {
        Self {
            id,
            number: i64::from(id.generation.get()),
            listener,
            port: Port::Routes,
            peering: Peering::Client,
            consistency: Consistency::default(),
            resp: 2,
            db: 0,
            authenticated,
            spared: false,
            last: UNKNOWN,
            ends,
            ending: Ending::Open,
            wait: Wait::Nothing,
            dirty: false,
            runnable: false,
            paused: false,
            half_closed: false,
            hung_up: false,
            waiting_since: 0,
            overdue: false,
            stuck: false,
            over_since: 0,
            heavy: false,
            input: Vec::new(),
            consumed: 0,
            output: Vec::new(),
            written: 0,
            issued: 0,
            settled: 0,
            window: WINDOW.0,
            path: NO_PATH,
            active_ms: now_ms,
            since_ms: now_ms,
            extra: None,
        }
    }

    /// It carries the commands of another worker's clients, whose bounds hold there.
    pub fn become_link(&mut self) {
        self.peering = Peering::Link;
        self.window = LINK_WINDOW;
    }

    /// Whether it is another worker.
    #[inline]
    pub fn is_link(&self) -> bool {
        self.peering == Peering::Link
    }

    /// Accept a command.
    #[inline]
    pub fn issue(&mut self) -> Ticket {
        let ticket = Ticket::issue(self.id, self.issued);
        self.issued += 1;
        ticket
    }

    /// Commands not answered yet.
    #[inline]
    pub fn in_flight(&self) -> u64 {
        self.issued - self.settled
    }

    /// Whether the next command must wait for replies, or for the client to read them.
    #[inline]
    pub fn is_paused(&self) -> bool {
        self.in_flight() >= u64::from(self.window) || self.unread() > OUTPUT_PAUSE
    }

    /// Bytes it holds: input, output, a transaction being queued.
    pub fn held(&self) -> usize {
        let queued = self
            .extra
            .as_ref()
            .and_then(|e| e.transaction.as_ref())
            .map_or(0, |t| t.bytes.capacity() + t.own_bytes);
        let aside = |e: &Extra| {
            let told = e.private.as_ref().map_or(0, |p| p.held.capacity() + p.waits_for.len());
            e.parked_bytes + told + e.waits.map_or(0, |(_, bytes)| bytes)
        };
        let parked = self.extra.as_deref().map_or(0, aside);
        self.input.capacity() + self.output.capacity() + queued + parked
    }

    /// Whether a paused session may go on: well below the bounds, so that it does not stop again at once.
    pub fn may_resume(&self) -> bool {
        self.in_flight() <= u64::from(self.window / 2) && self.unread() <= OUTPUT_PAUSE / 2
    }

    /// Whether the client leaves unread more than `max` and has read nothing for a while: who reads, however slowly, is only
    /// slow, and the memory budget bounds what that costs.
    pub fn overflows(&mut self, max: usize, now_ms: u64) -> bool {
        let parked = self.extra.as_deref().map_or(0, |e| e.parked_bytes); // it could not read those
        if self.unread() - parked <= max {
            self.over_since = 0;
            return false;
        }
        if self.over_since == 0 {
            self.over_since = now_ms;
        }
        now_ms - self.over_since >= OVERFLOW_MS
    }

    /// Bytes the client has not read, those ahead of their turn and messages behind a long reply among them.
    #[inline]
    pub fn unread(&self) -> usize {
        let aside = |e: &Extra| e.parked_bytes + e.private.as_ref().map_or(0, |p| p.held.len());
        self.output.len() - self.written + self.extra.as_deref().map_or(0, aside)
    }

    /// Give the answer to command `number`; `write` appends it.
    #[inline]
    pub fn answer(&mut self, number: u64, write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(number >= self.settled && number < self.issued, "answered twice, or never asked");
        if number != self.settled {
            let mut reply = Vec::new();
            write(&mut reply);
            return self.park(number, reply);
        }
        if !self.is_muted(number) {
            write(&mut self.output);
        }
        self.settled += 1;
        self.window = self.window.max(WINDOW.1.min(self.window + 1));
        if self.extra.is_some() {
            self.unpark();
        }
    }

    /// A long reply has begun to arrive.
    pub fn slow_down(&mut self) {
        if !self.is_link() {
            self.window = WINDOW.2.max(self.window / 2);
        }
    }

    fn park(&mut self, number: u64, reply: Vec<u8>) {
        let extra = self.extra();
        extra.parked_bytes += reply.len();
        let at = extra.parked.partition_point(|(n, _)| *n < number);
        extra.parked.insert(at, (number, reply));
    }

    /// Send the parked replies whose turn has come.
    fn unpark(&mut self) {
        let broken = self.ending == Ending::Broken;
        let Some(extra) = self.extra.as_mut() else { return };
        while let Some((_, reply)) = extra.parked.pop_front_if(|(n, _)| *n == self.settled) {
            extra.parked_bytes -= reply.len();
            if !broken && !extra.muted.iter().any(|&(from, to)| from <= self.settled && self.settled < to) {
                self.output.extend_from_slice(&reply);
            }
            self.settled += 1;
        }
        while extra.muted.front().is_some_and(|&(_, to)| to <= self.settled) {
            extra.muted.pop_front();
        }
    }

    /// Whether the reply to a command is not sent.
    pub fn is_muted(&self, number: u64) -> bool {
        // What was not written of a session that is being closed is gone: a later reply would pass for an earlier one.
        self.ending == Ending::Broken
            || self
                .extra
                .as_ref()
                .is_some_and(|e| e.muted.iter().any(|&(from, to)| from <= number && number < to))
    }

    /// Whether a reply may go out as it comes: it is its turn, and it is wanted.
    pub fn may_stream(&self, number: u64) -> bool {
        number == self.settled && !self.is_muted(number)
    }

    /// The rest of the state, made when first needed.
    pub fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// The transaction being queued.
    pub fn transaction(&mut self) -> Option<&mut Queued> {
        self.extra.as_mut()?.transaction.as_mut()
    }

    /// Whether MULTI was sent and neither EXEC nor DISCARD yet.
    #[inline]
    pub fn in_transaction(&self) -> bool {
        self.extra.as_ref().is_some_and(|e| e.transaction.is_some())
    }

    /// `n` bytes of output have left. Gives the output's buffer when it is empty and larger than a session keeps.
    pub fn wrote(&mut self, n: usize, now_ms: u64) -> Option<Vec<u8>> {
        self.written += n;
        self.over_since = if self.over_since == 0 { 0 } else { now_ms };
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            if self.output.capacity() > OUTPUT_KEEP {
                return Some(std::mem::take(&mut self.output));
            }
        } else if self.written > OUTPUT_PAUSE {
            self.output.drain(..self.written);
            self.written = 0;
        }
        None
    }

    /// Bytes missing to the command that is being received; 0 between commands.
    pub fn missing(&self) -> usize {
        self.extra.as_ref().filter(|e| e.scanner.is_some()).map_or(0, |e| e.missing)
    }

    /// No more bytes will come: what is complete is still answered, what is not never will be.
    pub fn end_input(&mut self) {
        self.half_closed = true;
        if self.wait == Wait::Nothing && !self.paused && !self.runnable {
            self.input = Vec::new();
            self.consumed = 0;
        }
    }

    /// Whether the session's work is done and it may be closed.
    pub fn is_finished(&self) -> bool {
        match self.ending {
            Ending::Open => {
                self.half_closed && self.input.is_empty() && self.in_flight() == 0 && self.unread() == 0
            }
            Ending::Draining => self.in_flight() == 0 && self.unread() == 0,
            Ending::Broken => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn messages_behind_a_long_reply_count() {
        let id = SessionId { slot: 0, generation: NonZeroU32::MIN };
        let mut session = Session::new(id, 0, true, Ends::default(), 0);
        session.extra().private = Some(Private::new(0, false, 0));
        let held = session.held();
        session.private().expect("its own").held.resize(OUTPUT_PAUSE + 1, 0);
        assert_eq!(session.unread(), OUTPUT_PAUSE + 1);
        assert!(session.is_paused() && session.held() > held + OUTPUT_PAUSE);
    }
}
