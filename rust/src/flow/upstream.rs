//! One connection to a Redis and everything that is in flight on it.
//!
//! An upstream outlives its sockets: it is down, connecting, shaking hands or ready, and each try has its own *epoch*,
//! so that the end of an old socket is never taken for the end of the new one.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::resp::{Reply, ReplyScanner, encode};

use super::backoff::Backoff;
use super::call::Call;
use super::handshake::{Asked, Credentials, Handshake, Identity, Predecessor, Progress};
use super::outgoing::Outgoing;
use super::ticket::SessionId;

/// A database number that no session has: the connection's context is not known.
pub const NO_DB: u16 = u16::MAX;
/// A connection that lasted as long was not the cause of its own end.
const STOOD_MS: u64 = 1_000;
/// The same of one to another member, whose silence is soon taken for its death.
const MEMBER_STOOD_MS: u64 = 100;
/// How long a refused database is not asked for again: while the server is busy, and otherwise (milliseconds).
const BUSY_MS: u64 = 50;
const REFUSED_MS: u64 = 1_000;
/// The epoch while there is no socket.
pub const NO_EPOCH: u32 = 0;
/// Past this many unsent bytes or calls in flight, sessions wait.
const WAITING_MAX: usize = 1 << 20;
const CALLS_MAX: usize = 16 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Commands of clients (and, on a sequenced endpoint, everything the sequencer needs).
    Serve,
    /// Effects for a replica: the sequencer's endpoint and the replica's bit.
    Replica {
        /// Key of the endpoint that has the sequencer.
        primary: usize,
        /// The replica's number in it.
        bit: u32,
    },
    /// Commands that are a sample of others: see [`super::sample`].
    Tap {
        /// Which.
        tap: usize,
    },
    /// Beats, and questions of the control plane, to another member of the group.
    Beat,
    /// What a shared connection must not carry, of one client: see [`super::private`].
    Private {
        /// Whose.
        session: SessionId,
    },
    /// It will be a session's own: see [`super::spare`].
    Spare,
    /// It is shared as well, while a script holds up the other one: see [`super::busy`].
    Relief,
}

/// Where the connection is in its life.
#[derive(Debug)]
pub enum Phase {
    /// No socket; the next try is at this time.
    Down {
        /// Milliseconds of the worker's clock.
        retry_at: u64,
    },
    /// The socket is being connected.
    Connecting {
        /// When the try is given up.
        deadline: u64,
    },
    /// The first words are being exchanged.
    Handshake {
        /// When the try is given up.
        deadline: u64,
        /// What is awaited.
        handshake: Box<Handshake>,
    },
    /// Commands flow.
    Ready,
}

/// What a long reply that has begun is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Nothing: replies are taken whole.
    Whole,
    /// Its bytes go to this session as they come.
    To(SessionId),
    /// Its client is gone: its bytes are thrown away.
    Discard,
}

/// Whether a command may follow now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The context is right (what was needed has been injected).
    Yes,
    /// The database must be proven first; a `SELECT` is on its way.
    Wait,
    /// The server refused this database; [`Upstream::refusal`] has its words.
    Refused,
    /// The server refuses any database at the moment; the same.
    Busy,
}

/// The connection.
#[derive(Debug)]
pub struct Upstream {
    /// Key of its endpoint.
    pub endpoint: usize,
    /// What it is for.
    pub role: Role,
    /// Where it is in its life.
    pub phase: Phase,
    /// The try that the current socket belongs to.
    pub epoch: u32,
    /// Why it is down, in words.
    pub reason: String,
    /// Sessions may wait for the current try, rather than fail at once.
    pub patient: bool,
    /// Bytes to be written.
    pub out: Outgoing,
    /// Replies awaited.
    pub calls: VecDeque<Call>,
    /// How many calls in front were answered by a timeout already.
    pub expired: usize,
    /// How many calls have had all their replies.
    pub settled: u64,
    /// Where the current reply stops being complete.
    pub scanner: ReplyScanner,
    /// The beginning of a reply that is not complete.
    pub partial: Vec<u8>,
    /// What a long reply is doing.
    pub stream: Stream,
    /// Sessions that wait for this connection.
    pub waiters: Vec<SessionId>,
    /// Who is at the other end; kept from the last connection while down.
    pub identity: Option<Identity>,
    /// The connection before this one.
    pub predecessor: Predecessor,
    /// The first words to another member; empty: it is a Redis.
    pub greeting: Vec<u8>,
    /// It leads to another worker, who is asked nothing about the Redis.
    pub link: bool,
    /// The flow has put it on the list of connections to write.
    pub dirty: bool,
    /// When there was last a sign of life while calls wait (milliseconds).
    pub waiting_since: u64,
    /// This session's transaction is executed on a connection of its own; here nothing is sent meanwhile.
    pub barred: Option<SessionId>,
    /// Connections that are to be ended before anything else is sent: the server's `run_id` and the number there.
    pub fences: Vec<(String, i64)>,
    /// The socket did not take all that it was given.
    blocked: bool,
    /// Since when it is ready (milliseconds).
    ready_since: u64,
    /// Kept for the length of one connection.
    context: Context,
    credentials: Credentials,
    backoff: Backoff,
    /// The RESP version it speaks after the handshake.
    resp: u8,
}

/// A `SELECT` that the server refused: not asked again for a while.
#[derive(Debug)]
struct Refusal {
    db: u16,
    text: String,
    until_ms: u64,
    /// It is the server's state (busy, loading), not the database.
    passing: bool,
}

#[derive(Debug, Default)]
struct Context {
    db: u16,
    resp: u8,
    proven: SmallVec<[u16; 4]>,
    refused: Vec<Refusal>,
    asked: SmallVec<[u16; 2]>,
}

impl Upstream {
    /// A connection that is to be opened at once.
    pub fn new(endpoint: usize, role: Role, resp: u8, credentials: Credentials, seed: u64) -> Self {
        Self {
            endpoint,
            role,
            phase: Phase::Down { retry_at: 0 },
            epoch: NO_EPOCH,
            reason: "not connected yet".to_owned(),
            patient: true,
            out: Outgoing::default(),
            calls: VecDeque::new(),
            expired: 0,
            settled: 0,
            scanner: ReplyScanner::default(),
            partial: Vec::new(),
            stream: Stream::Whole,
            waiters: Vec::new(),
            identity: None,
            predecessor: Predecessor::default(),
            greeting: Vec::new(),
            link: false,
            dirty: false,
            waiting_since: 0,
            barred: None,
            fences: Vec::new(),
            blocked: false,
            ready_since: 0,
            context: Context::default(),
            credentials,
            backoff: Backoff::new(seed),
            resp,
        }
    }

    /// The endpoint whose log its effects are in.
    pub fn primary(&self) -> usize {
        match self.role {
            Role::Serve
            | Role::Beat
            | Role::Private { .. }
            | Role::Spare
            | Role::Relief
            | Role::Tap { .. } => self.endpoint,
            Role::Replica { primary, .. } => primary,
        }
    }

    /// Whether it is one client's own, or will be.
    #[inline]
    pub fn is_private(&self) -> bool {
        matches!(self.role, Role::Private { .. } | Role::Spare)
    }

    /// Whether it stands beside the one that all share: nothing of the server is to be learnt on it, which may be busy.
    pub fn is_beside(&self) -> bool {
        self.is_private() || self.role == Role::Relief
    }

    /// Whether commands may be sent.
    #[inline]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether a session should wait for the try in course rather than fail.
    pub fn is_worth_waiting(&self) -> bool {
        self.patient
    }

    /// Whether so much is in flight that sessions must wait.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.out.waiting() > WAITING_MAX || self.calls.len() > CALLS_MAX || self.barred.is_some()
    }

    /// Whether even what the proxy itself asks must wait. Clients fill a connection up to their own bound in each turn.
    pub fn is_overfull(&self) -> bool {
        self.out.waiting() > 4 * WAITING_MAX || self.calls.len() > 2 * CALLS_MAX || self.barred.is_some()
    }

    /// Whether waiting sessions may go on.
    pub fn has_room(&self) -> bool {
        self.out.waiting() <= WAITING_MAX / 2
            && self.calls.len() <= CALLS_MAX / 2
            && (self.barred.is_none() || self.calls.is_empty())
    }

    /// A try begins; `epoch` differs from that of every other try.
    pub fn connecting(&mut self, deadline: u64, epoch: u32, credentials: Credentials) {
        self.epoch = epoch;
        self.credentials = credentials;
        self.phase = Phase::Connecting { deadline };
    }

    /// The socket stands: queue the first words.
    pub fn connected(&mut self) {
        let Phase::Connecting { deadline } = self.phase else { return };
        let mut bytes = Vec::new();
        let predecessor = self.predecessor;
        let handshake = if self.greeting.is_empty() {
            let asked = if self.is_beside() || self.link { Asked::Connection } else { Asked::Server };
            Handshake::begin(&self.credentials, self.resp == 3, asked, predecessor, &mut bytes)
        } else {
            bytes.extend_from_slice(&self.greeting);
            let asked = match self.role {
                Role::Beat => Asked::Nothing,
                Role::Serve | Role::Private { .. } | Role::Spare | Role::Relief => Asked::Connection,
                Role::Replica { .. } | Role::Tap { .. } => Asked::Server,
            };
            Handshake::with_member(asked, predecessor, &mut bytes)
        };
        let handshake = Box::new(handshake);
        self.out.push(&bytes);
        self.phase = Phase::Handshake { deadline, handshake };
    }

    /// A reply of the handshake. `Ok(true)`: the connection has become ready.
    pub fn handshake_reply(&mut self, reply: Reply<'_>, now_ms: u64) -> Result<bool, String> {
        let Phase::Handshake { handshake, .. } = &mut self.phase else { return Ok(false) };
        let mut bytes = Vec::new();
        match handshake.reply(reply, &mut bytes) {
            Progress::More => Ok(false),
            Progress::Send => {
                self.out.push(&bytes);
                Ok(false)
            }
            Progress::Refused(reason) => Err(reason),
            Progress::Done => {
                let identity = std::mem::take(&mut handshake.identity);
                self.predecessor = Predecessor::of(&identity);
                self.identity = Some(identity);
                self.phase = Phase::Ready;
                self.context =
                    Context { resp: self.resp, proven: SmallVec::from_slice(&[0]), ..Context::default() };
                self.ready_since = now_ms;
                self.reason.clear();
                self.patient = true;
                Ok(true)
            }
        }
    }

    /// The socket is gone or given up: back to down. Gives what was in flight.
    ///
    /// A connection that stood for a while is tried again at once, and sessions wait for that try; later tries are
    /// paused and nobody waits for them. To a member that has answered the pauses do not grow: it lives, and silence
    /// would be taken for its death.
    pub fn broken(&mut self, reason: String, now_ms: u64) -> VecDeque<Call> {
        let member = !self.greeting.is_empty();
        let enough = if member { MEMBER_STOOD_MS } else { STOOD_MS };
        let stood = self.is_ready() && now_ms.saturating_sub(self.ready_since) >= enough;
        if stood || (member && self.is_ready()) {
            self.backoff.reset();
        }
        self.patient = stood;
        self.blocked = false;
        self.phase = Phase::Down { retry_at: now_ms + if stood { 0 } else { self.backoff.pause() } };
        self.reason = reason;
        self.epoch = NO_EPOCH;
        self.out.clear();
        self.scanner = ReplyScanner::default();
        self.partial = Vec::new();
        self.stream = Stream::Whole;
        self.expired = 0;
        std::mem::take(&mut self.calls)
    }

    /// Remember that a reply is awaited.
    #[inline]
    pub fn expect(&mut self, call: Call, now_ms: u64) {
        if self.calls.is_empty() {
            self.waiting_since = now_ms;
        }
        self.calls.push_back(call);
    }

    /// Queue words of the proxy's own, whose reply tells nothing.
    pub fn say(&mut self, words: &[&str], now_ms: u64) {
        let mut bytes = Vec::with_capacity(64);
        encode::command(&mut bytes, words);
        self.out.push(&bytes);
        self.expect(Call::Told, now_ms);
    }

    /// The first call has all its replies.
    #[inline]
    pub fn settle(&mut self, now_ms: u64) -> Option<Call> {
        self.expired = self.expired.saturating_sub(1);
        self.settled += 1;
        self.alive(now_ms);
        let call = self.calls.pop_front();
        if let Some(piece) = call.as_ref().and_then(Call::kept) {
            self.out.release(piece);
        }
        call
    }

    /// A session waits for this connection. A command that is sent `again` is tried again anyway.
    pub fn wait(&mut self, id: SessionId, again: bool) {
        if !again {
            self.waiters.push(id);
        }
    }

    /// Try again at once, and let sessions wait for it.
    pub fn retry_now(&mut self) {
        if matches!(self.phase, Phase::Down { .. }) {
            self.phase = Phase::Down { retry_at: 0 };
            self.patient = true;
            self.backoff.reset();
        }
    }

    /// No pause between two tries is longer than this.
    pub fn retry_within(&mut self, ms: u64) {
        self.backoff.limit(ms);
    }

    /// Whether the call whose turn it is has bytes that were not written yet.
    pub fn answers_unsent(&self) -> bool {
        let written = self.out.written();
        self.calls.front().is_some_and(|call| call.is_unsent(written))
    }

    /// The socket took bytes. A sign of life if it was full before.
    pub fn wrote(&mut self, n: usize, now_ms: u64) {
        self.out.advance(n);
        if self.blocked {
            self.alive(now_ms);
        }
        self.blocked = self.out.waiting() > 0;
    }

    /// A sign of life.
    #[inline]
    pub fn alive(&mut self, now_ms: u64) {
        self.waiting_since = now_ms;
    }

    /// Bring the connection into a command's context; `resp` is `None` when the reply is the same in both versions.
    #[inline]
    pub fn enter(&mut self, db: u16, resp: Option<u8>, now_ms: u64) -> Entered {
        if self.context.db == db && resp.is_none_or(|v| v == self.context.resp) {
            return Entered::Yes;
        }
        self.change_context(db, resp, now_ms)
    }

    fn change_context(&mut self, db: u16, resp: Option<u8>, now_ms: u64) -> Entered {
        let mut bytes = Vec::new();
        if self.context.db != db {
            if !self.context.proven.contains(&db) {
                if let Some(refusal) = self.context.refused.iter().find(|r| r.db == db && now_ms < r.until_ms)
                {
                    return if refusal.passing { Entered::Busy } else { Entered::Refused };
                }
                if !self.context.asked.contains(&db) {
                    self.context.asked.push(db);
                    self.select(db, None, now_ms, 0);
                }
                return Entered::Wait;
            }
            encode::command(&mut bytes, &[&b"SELECT"[..], itoa::Buffer::new().format(db).as_bytes()]);
            self.expect(Call::Context, now_ms);
            self.context.db = db;
        }
        if let Some(version) = resp
            && version != self.context.resp
        {
            encode::command(&mut bytes, &[&b"HELLO"[..], itoa::Buffer::new().format(version).as_bytes()]);
            self.expect(Call::Context, now_ms);
            self.context.resp = version;
        }
        self.out.push(&bytes);
        Entered::Yes
    }

    /// What was queued may have changed the database.
    pub fn forget_db(&mut self) {
        self.context.db = NO_DB;
    }

    /// Whether a database needs no proof.
    pub fn is_in(&self, db: u16) -> bool {
        self.context.db == db || self.is_proven(db)
    }

    /// The RESP version that replies have which are asked for now.
    #[inline]
    pub fn resp(&self) -> u8 {
        self.context.resp
    }

    /// Whether a database was proven on this connection.
    pub fn is_proven(&self, db: u16) -> bool {
        self.context.proven.contains(&db)
    }

    /// Whether the server refused a database.
    pub fn is_refused(&self, db: u16) -> bool {
        self.context.refused.iter().any(|r| r.db == db && !r.passing)
    }

    /// Queue a `SELECT` whose reply will prove the database. Until then the context is unknown: should it fail, nothing
    /// that follows may land in the database before.
    pub fn select(&mut self, db: u16, ticket: Option<super::ticket::Ticket>, now_ms: u64, now_us: u64) {
        let mut bytes = Vec::new();
        let offset = self.out.queued();
        encode::command(&mut bytes, &[&b"SELECT"[..], itoa::Buffer::new().format(db).as_bytes()]);
        self.out.push(&bytes);
        self.expect(Call::Select { db, ticket, started_us: now_us, offset }, now_ms);
        self.context.db = NO_DB;
    }

    /// The reply to a `SELECT`.
    pub fn selected(&mut self, db: u16, reply: &[u8], now_ms: u64) {
        self.context.asked.retain(|n| *n != db);
        self.context.refused.retain(|r| r.db != db);
        if reply == b"+OK\r\n" {
            self.context.proven.push(db);
            return;
        }
        let text = String::from_utf8_lossy(reply.get(1..).unwrap_or(&[])).trim_end().to_owned();
        let passing = ["BUSY ", "LOADING ", "MASTERDOWN "].iter().any(|code| text.starts_with(code));
        let until_ms = now_ms + if passing { BUSY_MS } else { REFUSED_MS };
        self.context.refused.push(Refusal { db, text, until_ms, passing });
    }

    /// The server's words when it refused a database.
    pub fn refusal(&self, db: u16) -> String {
        let found = self.context.refused.iter().find(|r| r.db == db);
        found.map_or_else(|| "ERR DB index is out of range".to_owned(), |r| r.text.clone())
    }

    /// The server is busy with a script: what was proven may be refused now, so it must be proven again. (The database that
    /// the connection is in stays what it is. Should it be on its way into it, its refusal breaks the connection.)
    pub fn forget_proofs(&mut self) {
        let db = self.context.db;
        self.context.proven.retain(|n| *n == db);
    }
}
