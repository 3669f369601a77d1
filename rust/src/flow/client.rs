//! The CLIENT family: the proxy's sessions, shown and handled as Redis does with its connections.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::command::{Command, by_id, is_word, quoted};
use crate::resp::{Request, encode, parse_integer};

use super::Engine;
use super::call::UNKNOWN;
use super::ends::Ends;
use super::ingress::wrong_arity;
use super::local::Answered;
use super::pause::Extent;
use super::session::{Ending, Peering, Session};
use super::unblock::Unblock;

const SYNTAX: &str = "ERR syntax error";
const NOT_INTEGER: &str = "ERR value is not an integer or out of range";

/// What Redis 7.0 says, and what came later and is here, too.
const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CACHING (YES|NO)",
    "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
    "GETREDIR",
    "    Return the client ID we are redirecting to when tracking is enabled.",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections. Options are:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made from the specified address",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made to specified local address",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Kill connections by type.",
    "    * USER <username>",
    "      Kill connections authenticated by <username>.",
    "    * SKIPME (YES|NO)",
    "      Skip killing current connection (default: yes).",
    "LIST [options ...]",
    "    Return information about client connections. Options:",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Return clients of specified type.",
    "UNPAUSE",
    "    Stop the current client pause, resuming traffic.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Suspend all, or just write, clients for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "UNBLOCK <clientid> [TIMEOUT|ERROR]",
    "    Unblock the specified blocked client.",
    "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
    "         [OPTIN] [OPTOUT] [NOLOOP]",
    "    Control server assisted client side caching.",
    "TRACKINGINFO",
    "    Report tracking status for the current connection.",
    "NO-EVICT (ON|OFF)",
    "    Protect current client connection from eviction.",
    "HELP",
    "    Prints this help.",
];

/// `CLIENT LIST TYPE`, `CLIENT KILL TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Replica,
    Master,
    PubSub,
}

/// Which sessions `CLIENT KILL` means; all that is given must be so.
#[derive(Debug, Default)]
struct Filter<'a> {
    id: Option<i64>,
    kind: Option<Kind>,
    remote: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    /// Seconds at least.
    age: Option<u64>,
}

/// What a command finds that concerns all sessions; several workers have a part of it each.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// It was done; there is nothing to tell.
    #[default]
    Done,
    /// The sessions it is about, a line each.
    Lines(String),
    /// How many.
    Count(i64),
    /// Whether there was any.
    Found(bool),
}

impl Answer {
    /// What another worker found.
    pub(super) fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Lines(all), Self::Lines(more)) => all.push_str(&more),
            (Self::Count(all), Self::Count(more)) => *all += more,
            (Self::Found(found), Self::Found(too)) => *found |= too,
            _ => {} // one that ends has nothing to add
        }
    }

    /// As a reply.
    pub(super) fn write(self, out: &mut Vec<u8>, resp3: bool) {
        match self {
            Self::Lines(lines) => encode::verbatim(out, &lines, resp3),
            Self::Count(n) => encode::integer(out, n),
            Self::Found(true) | Self::Done => encode::status(out, "OK"),
            Self::Found(false) => encode::error(out, "ERR No such client"),
        }
    }
}

impl Engine {
    pub(super) fn client(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Answered {
        let sub = request.arg(1).to_ascii_lowercase();
        let n = request.len();
        // What is newer than the table.
        let arity = match newer_arity(request) {
            Some(arity) => arity,
            _ if command.is_none() => return Err(unknown(request)),
            _ => n,
        };
        if n != arity {
            return Err(wrong_arity(&format!("client|{}", String::from_utf8_lossy(&sub))).into());
        }
        let session = &mut self.sessions[slot];
        let resp3 = session.resp == 3;
        match sub.as_slice() {
            b"id" => encode::integer(out, session.number),
            b"getname" => match session.extra.as_deref().filter(|e| !e.name.is_empty()) {
                Some(extra) => encode::bulk(out, &extra.name),
                None => encode::nil(out, resp3),
            },
            b"setname" => {
                self.set_name(slot, request.arg(2))?;
                encode::status(out, "OK");
            }
            b"info" => encode::verbatim(out, &self.line(slot, Some((slot, request))), resp3),
            b"list" | b"kill" | b"pause" | b"unpause" | b"unblock" => {
                if let Some(answer) = self.client_everywhere(Some(slot), request) {
                    answer?.write(out, resp3);
                }
            }
            b"setinfo" => client_setinfo(session, request, out)?,
            b"reply" => client_reply(session, request, out)?,
            b"no-evict" | b"no-touch" => {
                let on = is_word(request.arg(2), "ON");
                if !on && !is_word(request.arg(2), "OFF") {
                    return Err(SYNTAX.into());
                }
                if sub == b"no-evict" {
                    session.spared = on;
                }
                encode::status(out, "OK");
            }
            b"tracking" => self.client_tracking(request, out)?,
            b"trackinginfo" => {
                encode::map(out, 3, resp3);
                encode::bulk(out, b"flags");
                encode::set(out, 1, resp3);
                encode::bulk(out, b"off");
                encode::bulk(out, b"redirect");
                encode::integer(out, -1);
                encode::bulk(out, b"prefixes");
                encode::array(out, 0);
            }
            b"caching" => {
                return Err("ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
                            OPTOUT mode enabled"
                    .into());
            }
            b"getredir" => encode::integer(out, -1),
            b"help" => {
                encode::array(out, HELP.len());
                for line in HELP {
                    encode::status(out, line);
                }
            }
            _ => return Err(unknown(request)),
        }
        Ok(())
    }

    /// A command about all sessions of this worker; `asker` is one of them, or another worker's. `None`: it is not one.
    pub(super) fn client_everywhere(
        &mut self,
        asker: Option<usize>,
        request: &Request<'_>,
    ) -> Option<Result<Answer, Cow<'static, str>>> {
        Some(match request.arg(1).to_ascii_lowercase().as_slice() {
            b"list" => self.client_list(asker, request).map(Answer::Lines),
            b"kill" => self.client_kill(asker, request),
            b"pause" => self.client_pause(request),
            b"unpause" => {
                self.unpause();
                Ok(Answer::Done)
            }
            b"unblock" => self.client_unblock(request),
            _ => return None,
        })
    }

    pub(super) fn set_name(&mut self, slot: usize, name: &[u8]) -> Answered {
        if !is_client_name(name) {
            return Err("ERR Client names cannot contain spaces, newlines or special characters.".into());
        }
        self.sessions[slot].extra().name = name.to_vec();
        Ok(())
    }

    /// The session with this number.
    pub(super) fn session_numbered(&self, number: i64) -> Option<usize> {
        self.sessions.iter().find(|(_, s)| s.number == number).map(|(slot, _)| slot)
    }

    /// The sessions that a session sees: clients see clients, members of the group those of their kind.
    fn seen_by(&self, asker: Option<usize>) -> impl Iterator<Item = (usize, &Session)> {
        let kind = |s: &Session| std::mem::discriminant(&s.peering);
        let mine = asker.and_then(|slot| self.sessions.get(slot)).map(kind);
        let mine = mine.unwrap_or(std::mem::discriminant(&Peering::Client)); // only clients ask other workers
        self.sessions.iter().filter(move |(_, s)| kind(s) == mine)
    }

    fn client_list(&self, asker: Option<usize>, request: &Request<'_>) -> Result<String, Cow<'static, str>> {
        let me = asker.map(|slot| (slot, request));
        let mut lines = String::new();
        if request.len() == 4 && is_word(request.arg(2), "TYPE") {
            let kind = kind_named(request.arg(3))?;
            for (other, session) in self.seen_by(asker) {
                if kind_of(session) == kind {
                    lines += &self.line(other, me);
                }
            }
        } else if request.len() > 3 && is_word(request.arg(2), "ID") {
            for arg in request.args_from(3) {
                let id = parse_integer(arg).ok_or("ERR Invalid client ID")?;
                if let Some((other, _)) = self.seen_by(asker).find(|(_, s)| s.number == id) {
                    lines += &self.line(other, me);
                }
            }
        } else if request.len() == 2 {
            for (other, _) in self.seen_by(asker) {
                lines += &self.line(other, me);
            }
        } else {
            return Err(SYNTAX.into());
        }
        Ok(lines)
    }

    /// `CLIENT KILL address`, `CLIENT KILL option value …`.
    fn client_kill(
        &mut self,
        asker: Option<usize>,
        request: &Request<'_>,
    ) -> Result<Answer, Cow<'static, str>> {
        let old = request.len() == 3;
        let (filter, spare_me) = if old {
            (Filter { remote: Some(request.arg(2)), ..Filter::default() }, false)
        } else {
            self.kill_filter(asker, request)?
        };
        let now_ms = self.now.ms;
        let found: Vec<usize> = self
            .seen_by(asker)
            .filter(|&(other, session)| {
                !(spare_me && Some(other) == asker)
                    && session.ending != Ending::Broken
                    && filter.is_met(session, now_ms)
            })
            .map(|(other, _)| other)
            .collect();
        let answer = if old { Answer::Found(!found.is_empty()) } else { Answer::Count(found.len() as i64) };
        for other in found {
            if Some(other) == asker {
                self.sessions[other].ending = Ending::Draining;
            } else {
                self.close_session(other);
            }
        }
        Ok(answer)
    }

    fn kill_filter<'a>(
        &self,
        asker: Option<usize>,
        request: &Request<'a>,
    ) -> Result<(Filter<'a>, bool), Cow<'static, str>> {
        let (mut filter, mut spare_me) = (Filter::default(), true);
        let mut args = request.args_from(2);
        while let Some(option) = args.next() {
            let value = args.next().ok_or(SYNTAX)?;
            if is_word(option, "ID") {
                let id = parse_integer(value).filter(|id| *id > 0);
                filter.id = Some(id.ok_or("ERR client-id should be greater than 0")?);
            } else if is_word(option, "TYPE") {
                filter.kind = Some(kind_named(value)?);
            } else if is_word(option, "ADDR") {
                filter.remote = Some(value);
            } else if is_word(option, "LADDR") {
                filter.local = Some(value);
            } else if is_word(option, "USER") {
                if asker.is_some_and(|slot| !self.has_user(slot, value)) {
                    return Err(format!("ERR No such user '{}'", quoted(value)).into());
                }
                filter.user = Some(value);
            } else if is_word(option, "MAXAGE") {
                let age = parse_integer(value).ok_or("ERR maxage is not an integer or out of range")?;
                let age = u64::try_from(age).ok().filter(|age| *age > 0);
                filter.age = Some(age.ok_or("ERR maxage should be greater than 0")?);
            } else if is_word(option, "SKIPME") && is_word(value, "YES") {
                spare_me = true;
            } else if is_word(option, "SKIPME") && is_word(value, "NO") {
                spare_me = false;
            } else {
                return Err(SYNTAX.into());
            }
        }
        Ok((filter, spare_me))
    }

    fn has_user(&self, slot: usize, name: &[u8]) -> bool {
        let listener = self.sessions.get(slot).and_then(|s| self.plan.listeners.get(s.listener));
        name == b"default"
            || listener.is_some_and(|l| {
                l.users.iter().any(|u| u.name.as_deref().is_some_and(|known| known.as_bytes() == name))
            })
    }

    /// OFF, whatever comes with it; ON is not done here: see [`super::tracking`].
    fn client_tracking(&self, request: &Request<'_>, out: &mut Vec<u8>) -> Answered {
        let mut args = request.args_from(3);
        while let Some(option) = args.next() {
            if is_word(option, "REDIRECT")
                && let Some(value) = args.next()
            {
                let id = parse_integer(value).ok_or(NOT_INTEGER)?;
                if self.session_numbered(id).is_none() {
                    return Err("ERR The client ID you want redirect to does not exist".into());
                }
            } else if is_word(option, "PREFIX") && args.next().is_some() {
            } else if !["BCAST", "OPTIN", "OPTOUT", "NOLOOP"].iter().any(|word| is_word(option, word)) {
                return Err(SYNTAX.into());
            }
        }
        if is_word(request.arg(2), "OFF") {
            encode::status(out, "OK");
            return Ok(());
        }
        if !is_word(request.arg(2), "ON") {
            return Err(SYNTAX.into());
        }
        Err("ERR CLIENT TRACKING inside MULTI is not possible through redisha".into())
    }

    /// `CLIENT PAUSE milliseconds [WRITE|ALL]`.
    fn client_pause(&mut self, request: &Request<'_>) -> Result<Answer, Cow<'static, str>> {
        let extent = match request.len() {
            3 => Extent::All,
            4 if is_word(request.arg(3), "ALL") => Extent::All,
            4 if is_word(request.arg(3), "WRITE") => Extent::Writes,
            4 => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
            _ => return Err(unknown_or_arity(request)),
        };
        let ms = parse_integer(request.arg(2)).ok_or("ERR timeout is not an integer or out of range")?;
        let ms = u64::try_from(ms).map_err(|_| "ERR timeout is negative")?;
        self.pause_sessions(extent, ms);
        Ok(Answer::Done)
    }

    /// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`.
    fn client_unblock(&mut self, request: &Request<'_>) -> Result<Answer, Cow<'static, str>> {
        let how = match request.len() {
            3 => Unblock::Timeout,
            4 if is_word(request.arg(3), "TIMEOUT") => Unblock::Timeout,
            4 if is_word(request.arg(3), "ERROR") => Unblock::Error,
            4 => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()),
            _ => return Err(unknown_or_arity(request)),
        };
        let id = parse_integer(request.arg(2)).ok_or(NOT_INTEGER)?;
        let found = self.session_numbered(id);
        let unblocked = found.is_some_and(|other| self.unblock(other, how));
        Ok(Answer::Count(i64::from(unblocked)))
    }

    /// A session as `CLIENT LIST` shows it: Redis 7.0's fields in their order, then those that came later.
    /// `asking` is executing this very command.
    fn line(&self, slot: usize, asking: Option<(usize, &Request<'_>)>) -> String {
        let Some(session) = self.sessions.get(slot) else { return String::new() };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let extra = session.extra.as_deref();
        let queued = extra.and_then(|e| e.transaction.as_ref());
        let command = asking.filter(|(me, _)| *me == slot).map(|(_, request)| request);
        let args = command.map_or(0, |request| request.args_from(0).map(<[u8]>::len).sum());
        let unparsed = session.input.len() + command.map_or(0, |request| request.frame.len());
        let user = extra.map(|e| text(&e.user)).filter(|user| !user.is_empty());
        let subscriptions = session.subscriptions();
        let mut line = format!(
            "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} ",
            session.number,
            session.ends.remote(),
            session.ends.local(),
            extra.map(|e| text(&e.name)).unwrap_or_default(),
            (self.now.ms.saturating_sub(session.since_ms)) / 1000,
            (self.now.ms.saturating_sub(session.active_ms)) / 1000,
            flags(session, self.is_blocked(slot)),
            session.db,
            subscriptions[0],
            subscriptions[1],
            subscriptions[2],
            queued.map_or(-1, |t| t.items.len() as i64),
        );
        let _ = writeln!(
            line,
            "qbuf={unparsed} qbuf-free={} argv-mem={args} multi-mem={} rbs={rbs} rbp={rbs} obl={} oll={} omem={} \
             tot-mem={} events={} cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={}",
            session.input.capacity() - session.input.len(),
            queued.map_or(0, |t| t.bytes.capacity() + t.own_bytes),
            session.unread(),
            extra.map_or(0, |e| e.parked.len()),
            extra.map_or(0, |e| e.parked_bytes),
            size_of::<Session>() + session.held(),
            if session.unread() > 0 { "rw" } else { "r" },
            if session.last == UNKNOWN { "NULL" } else { by_id(session.last).name },
            user.as_deref().unwrap_or("default"),
            session.resp,
            extra.map(|e| text(&e.library)).unwrap_or_default(),
            extra.map(|e| text(&e.library_version)).unwrap_or_default(),
            rbs = session.output.capacity(),
        );
        line
    }
}

impl Filter<'_> {
    fn is_met(&self, session: &Session, now_ms: u64) -> bool {
        let at = |wanted: Option<&[u8]>, end: super::ends::Shown<'_>| {
            wanted.is_none_or(|wanted| end.to_string().as_bytes() == wanted)
        };
        let user =
            session.extra.as_ref().map(|e| &e.user[..]).filter(|u| !u.is_empty()).unwrap_or(b"default");
        self.id.is_none_or(|id| session.number == id)
            && self.kind.is_none_or(|kind| kind_of(session) == kind)
            && self.user.is_none_or(|wanted| user == wanted)
            && self.age.is_none_or(|age| now_ms.saturating_sub(session.since_ms) / 1000 >= age)
            && at(self.remote, session.ends.remote())
            && at(self.local, session.ends.local())
    }
}

/// Replication does not pass through here.
fn kind_of(session: &Session) -> Kind {
    if session.is_subscriber() { Kind::PubSub } else { Kind::Normal }
}

fn kind_named(name: &[u8]) -> Result<Kind, String> {
    let kinds = [
        ("NORMAL", Kind::Normal),
        ("SLAVE", Kind::Replica),
        ("REPLICA", Kind::Replica),
        ("PUBSUB", Kind::PubSub),
        ("MASTER", Kind::Master),
    ];
    let found = kinds.iter().find(|(word, _)| is_word(name, word)).map(|(_, kind)| *kind);
    found.ok_or_else(|| format!("ERR Unknown client type '{}'", quoted(name)))
}

fn flags(session: &Session, blocked: bool) -> String {
    let letters = [
        (session.is_monitor(), 'O'),
        (session.is_tracking(), 't'),
        (session.is_subscriber(), 'P'),
        (blocked, 'b'),
        (session.in_transaction(), 'x'),
        (session.ending == Ending::Draining, 'c'),
        (session.ending == Ending::Broken, 'A'),
        (matches!(session.ends, Ends::Unix(_)), 'U'),
        (session.spared, 'e'),
    ];
    let shown: String = letters.iter().filter(|(is, _)| *is).map(|(_, letter)| letter).collect();
    if shown.is_empty() { "N".to_owned() } else { shown }
}

fn client_setinfo(session: &mut Session, request: &Request<'_>, out: &mut Vec<u8>) -> Answered {
    let (option, value) = (request.arg(2), request.arg(3));
    if !is_word(option, "LIB-NAME") && !is_word(option, "LIB-VER") {
        return Err(format!("ERR Unrecognized option '{}'", quoted(option)).into());
    }
    if !is_client_name(value) {
        return Err(
            format!("ERR {} cannot contain spaces, newlines or special characters.", quoted(option)).into()
        );
    }
    let extra = session.extra();
    *if is_word(option, "LIB-NAME") { &mut extra.library } else { &mut extra.library_version } =
        value.to_vec();
    encode::status(out, "OK");
    Ok(())
}

/// `CLIENT REPLY ON|OFF|SKIP`: the commands concerned are settled like any other, their replies not written.
fn client_reply(session: &mut Session, request: &Request<'_>, out: &mut Vec<u8>) -> Answered {
    let next = session.issued;
    let muted = &mut session.extra().muted;
    let is_off = muted.back().is_some_and(|&(_, to)| to == u64::MAX);
    if is_word(request.arg(2), "ON") {
        if let Some(last) = muted.back_mut() {
            last.1 = last.1.min(next);
        }
        encode::status(out, "OK");
    } else if is_word(request.arg(2), "OFF") {
        if !is_off {
            muted.push_back((next, u64::MAX));
        }
    } else if is_word(request.arg(2), "SKIP") {
        if !is_off {
            muted.push_back((next, next + 2));
        }
    } else {
        return Err(SYNTAX.into());
    }
    Ok(())
}

/// How many arguments a subcommand has that Redis 7.0, and so the table, does not know.
fn newer_arity(request: &Request<'_>) -> Option<usize> {
    let newer = [("SETINFO", 4), ("NO-TOUCH", 3)];
    newer.iter().find(|(word, _)| is_word(request.arg(1), word)).map(|(_, arity)| *arity)
}

/// Whether it is such a subcommand, complete.
pub(super) fn is_newer(request: &Request<'_>) -> bool {
    is_word(request.arg(0), "CLIENT") && newer_arity(request) == Some(request.len())
}

fn is_client_name(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}

fn unknown(request: &Request<'_>) -> Cow<'static, str> {
    format!("ERR unknown subcommand '{}'. Try CLIENT HELP.", quoted(request.arg(1))).into()
}

fn unknown_or_arity(request: &Request<'_>) -> Cow<'static, str> {
    format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try CLIENT HELP.",
        quoted(request.arg(1))
    )
    .into()
}
