//! What awaits a reply on an upstream connection, in the order of the bytes that were queued to it.

use crate::command::{Command, Treatment};
use crate::flow::effect::{Kind, Rule};
use crate::flow::expiry::ExpiryCall;
use crate::flow::resync::Step;

use super::redirect::Redirect;
use super::store::Piece;
use super::ticket::Ticket;

/// A command that is not in the table.
pub const UNKNOWN: u16 = u16::MAX;
/// No entry of the log.
pub const NO_ENTRY: u64 = u64::MAX;

/// One awaited reply (or run of replies).
#[derive(Debug)]
pub enum Call {
    /// A client's command.
    Client(ClientCall),
    /// A client's `MULTI … EXEC`.
    Transaction(Box<TransactionCall>),
    /// A key being copied to replicas.
    Sync(Box<SyncCall>),
    /// When a key ends, for the command that follows.
    Expiry(ExpiryCall),
    /// A database being proven; for a client's own `SELECT` with its ticket.
    Select {
        /// The database.
        db: u16,
        /// Who asked for it, if a client did.
        ticket: Option<Ticket>,
        /// When it was queued, microseconds.
        started_us: u64,
        /// Where it begins in the connection's stream.
        offset: u64,
    },
    /// Context that was injected (`SELECT`, `HELLO`); its reply is swallowed.
    Context,
    /// A client's `SUBSCRIBE` and its like: what confirms it goes to the client as it comes.
    Subscribe {
        /// Whose.
        ticket: Option<Ticket>,
        /// Confirmations still to come.
        left: usize,
        /// Where it begins in the connection's stream.
        offset: u64,
    },
    /// A beat to another member.
    Beat {
        /// When it was sent, milliseconds.
        sent_ms: u64,
    },
    /// Something a follower is told in its stream; its reply tells nothing.
    Told,
    /// Whether there are keys that clients wait for.
    Waited {
        /// Where.
        endpoint: usize,
        /// Their database.
        db: u16,
    },
    /// Which databases the group's own Redis has keys in.
    Keyspace,
    /// A marker being written.
    Mark {
        /// Its generation.
        generation: u64,
        /// It says that everything is there.
        complete: bool,
    },
    /// A question of the resync of replica `bit`, or of what its Redis has.
    Look {
        /// The replica's number.
        bit: u32,
        /// Whose question it is: the resync's number, or the replica's own.
        id: u64,
        /// The question.
        step: Step,
    },
    /// Whether the primary has a key that a resync found on the mirror.
    Exists {
        /// The replica's number.
        bit: u32,
        /// The resync's number.
        id: u64,
        /// The question that it is part of.
        step: Step,
        /// Which of the page's keys.
        at: usize,
    },
    /// A command, or a transaction, of a sample.
    Sampled {
        /// Replies still to come.
        left: u32,
        /// One of them was an error.
        failed: bool,
    },
    /// An effect at a replica.
    Effect {
        /// Its position in the log.
        position: u64,
        /// Replies still to come.
        left: u32,
        /// One of them was an error.
        failed: bool,
    },
}

/// How a reply is changed for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convert {
    /// Not at all.
    Verbatim,
    /// Nil is written as in RESP2.
    NilTo2,
    /// Nil is written as in RESP3.
    NilTo3,
    /// Markers are taken out of a list of function libraries.
    HideInList,
    /// Out of their number.
    HideInStats,
    /// Out of a dump of them.
    HideInDump,
    /// Who waits here counts as blocked: see [`super::info`].
    CountBlocked,
}

impl Convert {
    /// What the reply to a command always needs.
    #[inline]
    pub fn of(command: &Command) -> Option<Self> {
        match command.name {
            "function|list" => Some(Self::HideInList),
            "function|stats" => Some(Self::HideInStats),
            "function|dump" => Some(Self::HideInDump),
            "info" => Some(Self::CountBlocked),
            _ => None,
        }
    }

    /// Whether it is about markers.
    pub fn hides(self) -> bool {
        matches!(self, Self::HideInList | Self::HideInStats | Self::HideInDump)
    }
}

/// A client's command in flight.
#[derive(Debug)]
pub struct ClientCall {
    /// `None` once it was answered without the reply (a timeout).
    pub ticket: Option<Ticket>,
    /// When it was read, microseconds of the worker's clock.
    pub started_us: u64,
    /// Where it begins in the connection's stream.
    pub offset: u64,
    /// Where it ends there.
    pub end: u64,
    /// Its entry in the log, or [`NO_ENTRY`].
    pub entry: u64,
    /// The command's id, or [`UNKNOWN`].
    pub command: u16,
    /// Its database.
    pub db: u16,
    /// Its bytes, where another member or node may have to execute it.
    pub kept: Option<Piece>,
    /// Redirections that it has followed.
    pub hops: u8,
    /// How its effect is found.
    pub rule: Rule,
    /// How its reply is changed.
    pub convert: Convert,
    /// It may take any time: it waits for what others do.
    pub blocks: bool,
}

/// A transaction in flight.
#[derive(Debug)]
pub struct TransactionCall {
    /// `None` once it was answered without the reply.
    pub ticket: Option<Ticket>,
    /// When its EXEC was read.
    pub started_us: u64,
    /// Where it begins in the connection's stream.
    pub offset: u64,
    /// Its entry in the log, or [`NO_ENTRY`].
    pub entry: u64,
    /// Its commands.
    pub items: Vec<TransactionItem>,
    /// Replies that have come: `MULTI`, one per command, `EXEC`.
    pub replies: usize,
    /// MULTI itself was refused.
    pub refused: bool,
    /// Why the first of its commands was that was not queued: the error, without its `-`.
    pub why: Option<Box<[u8]>>,
    /// The commands' bytes, for those that write.
    pub bytes: Vec<u8>,
    /// The database it begins in.
    pub db: u16,
    /// It has a SELECT.
    pub selects: bool,
    /// See [`ClientCall::kept`].
    pub kept: Option<Piece>,
    /// The first of its commands that was redirected: where to.
    pub moved: Option<Redirect>,
    /// See [`ClientCall::hops`].
    pub hops: u8,
}

/// One command of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct TransactionItem {
    /// `None`: not in the table.
    pub command: Option<&'static Command>,
    /// How its effect is found.
    pub rule: Rule,
    /// Its bytes in [`TransactionCall::bytes`].
    pub start: usize,
    /// One past its bytes.
    pub end: usize,
}

/// How a key is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// By its payload; what the replica has is replaced.
    Payload,
    /// By its payload; what the replica has already is left alone.
    Gentle,
    /// By the commands that make a key of this type: for a replica that refuses payloads.
    Commands(Kind),
}

/// A key being copied: `MULTI`, its expiry, `DUMP`, `EXEC`.
#[derive(Debug)]
pub struct SyncCall {
    /// Its database.
    pub db: u16,
    /// The key.
    pub key: Vec<u8>,
    /// How it is copied.
    pub form: Form,
    /// Its entry in the log.
    pub entry: u64,
    /// Replies still to come.
    pub left: u32,
}

impl Call {
    /// Whether the whole reply must be here before anything of it can be used.
    pub fn wants_whole_reply(&self) -> bool {
        match self {
            Self::Client(call) => {
                (call.entry != NO_ENTRY && call.rule.wants_whole_reply())
                    || call.convert == Convert::CountBlocked
                    || call.convert.hides()
            }
            Self::Transaction(call) => {
                call.entry != NO_ENTRY
                    || call.selects
                    || call.replies <= call.items.len()
                    || call.items.iter().any(|i| i.lists_functions() || i.is_own())
            }
            _ => true,
        }
    }

    /// The reply is too large to be held: its effect will be a copy of its keys.
    pub fn give_up_effect(&mut self) {
        if let Self::Client(call) = self {
            call.rule = Rule::SyncChanged;
        }
    }

    /// Whether a reply cannot be to this call, since not all of it was written.
    pub fn is_unsent(&self, written: u64) -> bool {
        match self {
            Self::Client(call) => call.end > written,
            other => other.offset().is_some_and(|offset| offset >= written),
        }
    }

    /// The ticket that the reply settles, if it still does.
    pub fn ticket(&self) -> Option<&Ticket> {
        match self {
            Self::Client(call) => call.ticket.as_ref(),
            Self::Transaction(call) => call.ticket.as_ref(),
            Self::Select { ticket, .. } | Self::Subscribe { ticket, .. } => ticket.as_ref(),
            _ => None,
        }
    }

    /// Take the ticket out, to answer without the reply.
    pub fn take_ticket(&mut self) -> Option<Ticket> {
        match self {
            Self::Client(call) => call.ticket.take(),
            Self::Transaction(call) => call.ticket.take(),
            Self::Select { ticket, .. } | Self::Subscribe { ticket, .. } => ticket.take(),
            _ => None,
        }
    }

    /// The bytes that were kept for it.
    pub fn kept(&self) -> Option<Piece> {
        match self {
            Self::Client(call) => call.kept,
            Self::Transaction(call) => call.kept,
            _ => None,
        }
    }

    /// Where a client's command begins in the connection's stream.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::Client(call) => Some(call.offset),
            Self::Transaction(call) => Some(call.offset),
            Self::Select { offset, .. } | Self::Subscribe { offset, .. } => Some(*offset),
            _ => None,
        }
    }

    /// When the client's command was read; calls of the proxy's own have no such time.
    pub fn started_us(&self) -> Option<u64> {
        match self {
            Self::Client(call) => Some(call.started_us),
            Self::Transaction(call) => Some(call.started_us),
            Self::Select { started_us, .. } => Some(*started_us),
            _ => None,
        }
    }
}

impl TransactionItem {
    /// Whether its reply names our markers.
    pub fn lists_functions(&self) -> bool {
        self.command.and_then(Convert::of).is_some_and(Convert::hides)
    }

    /// Whether the proxy executes it: what the server executed stood in for it.
    pub fn is_own(&self) -> bool {
        self.command.is_some_and(is_own)
    }

    /// Whether it changes the database of what follows.
    pub fn is_select(&self) -> bool {
        self.command.is_some_and(|c| c.name == "select")
    }
}

/// Whether the proxy executes a command when EXEC was answered. A server can do the others as well, and proves a SELECT.
pub fn is_own(command: &Command) -> bool {
    command.treatment == Treatment::Local && !matches!(command.name, "ping" | "echo" | "select" | "unwatch")
}

/// The command of a call, when it is in the table.
pub fn command_of(id: u16) -> Option<&'static Command> {
    (id != UNKNOWN).then(|| crate::command::by_id(id))
}
