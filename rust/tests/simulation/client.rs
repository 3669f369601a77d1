//! A simulated client: asks, and checks that each answer is one that its command may get.

use std::collections::VecDeque;

use redisha_core::flow::SessionId;
use redisha_core::resp::{Reply, ReplyScanner, encode};

use super::actor::Actor;
use super::pipe::Pipe;
use super::redis::{DATABASES, Redis};
use super::rng::Rng;
use super::script::{self, Mix};
use super::tag;

/// What the next reply must be.
#[derive(Debug)]
enum Expect {
    /// These bytes.
    Exactly(Vec<u8>),
    /// The proxy's own HELLO, in this version from now on.
    Hello(u8),
    /// A database, proven or refused.
    Select(u16),
    /// An integer, whatever it is.
    Integer,
    /// What the primary answered to this command, or an error that is honest about it.
    Ran { number: u32, large: bool },
    /// `QUEUED`.
    Queued,
    /// What the primary answered to these commands, run as one.
    /// `owns`: which elements are the proxy's, the client's id; a PING stood in for them.
    Exec { numbers: Vec<u32>, selects: Vec<(usize, u16)>, owns: Vec<usize>, large: bool },
    /// The commands since MULTI are forgotten.
    Discarded(Vec<u32>),
}

impl Expect {
    /// The `SELECT`s in a transaction: which element of EXEC's reply is theirs, and the database.
    fn selected(&self) -> &[(usize, u16)] {
        match self {
            Self::Exec { selects, .. } => selects,
            _ => &[],
        }
    }

    fn owns(&self) -> &[usize] {
        match self {
            Self::Exec { owns, .. } => owns,
            _ => &[],
        }
    }

    /// The reply to EXEC without the proxy's own elements, which must be what they must be.
    fn without_owns(&self, reply: &[u8]) -> Vec<u8> {
        let Self::Exec { owns, .. } = self else { return reply.to_vec() };
        if owns.is_empty() || reply.first() != Some(&b'*') {
            return reply.to_vec();
        }
        let kept = |(at, element): (usize, Reply<'_>)| {
            let own = owns.contains(&at);
            let right = element.bytes().starts_with(b":") || element.bytes() == b"+PONG\r\n";
            if own && right { Vec::new() } else { element.bytes().to_vec() }
        };
        Reply::new(reply).elements().enumerate().flat_map(kept).collect()
    }

    fn selects(&self) -> bool {
        !self.selected().is_empty()
    }
}

/// How a client treats its replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    AtOnce,
    Slowly,
    Never,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    pub name: u32,
    pub session: Option<SessionId>,
    pub up: Pipe,
    pub down: Pipe,
    pub reading: Reading,
    /// It sends no more: QUIT, or the end of its input.
    pub finished: bool,
    /// The proxy was right to end it, whatever it still waits for.
    ended_by_proxy: bool,
    /// It is gone without a word.
    pub vanished: bool,
    /// It saw the end.
    pub closed: bool,
    expect: VecDeque<Expect>,
    /// A queued command was refused: EXEC will be.
    spoilt: bool,
    resp: u8,
    db: u16,
    buffer: Vec<u8>,
    scanner: ReplyScanner,
    scanned: usize,
    /// Commands of which nothing was sent, says the proxy.
    pub never: Vec<u32>,
    pub answered: u64,
    /// It is one of these instead.
    pub actor: Option<Actor>,
}

impl Client {
    pub fn new(name: u32, session: SessionId, up: Pipe, down: Pipe, reading: Reading) -> Self {
        Self {
            name,
            session: Some(session),
            up,
            down,
            reading,
            finished: false,
            ended_by_proxy: false,
            vanished: false,
            closed: false,
            expect: VecDeque::new(),
            spoilt: false,
            resp: 2,
            db: 0,
            buffer: Vec::new(),
            scanner: ReplyScanner::default(),
            scanned: 0,
            never: Vec::new(),
            answered: 0,
            actor: None,
        }
    }

    /// Replies that it waits for.
    pub fn waits_for(&self) -> usize {
        self.actor.as_ref().map_or(self.expect.len(), |a| usize::from(a.waits()))
    }

    /// What it waits for, in words.
    pub fn next_expected(&self) -> String {
        if let Some(actor) = &self.actor {
            return format!("{actor:?}");
        }
        format!("{:?}, then {} more", self.expect.front(), self.expect.len().saturating_sub(1))
    }

    /// Draw what is asked next: some commands, back to back.
    pub fn ask(&mut self, rng: &mut Rng, numbers: &mut u32, mix: &Mix) -> Vec<u8> {
        let mut out = Vec::new();
        let burst = if rng.one_in(60) { 100 + rng.below(300) } else { rng.pick(&[1, 1, 2, 5, 12]) };
        for _ in 0..burst {
            match rng.below(40) {
                0 => self.say(&mut out, &["SELECT", &rng.pick(&[0, 0, 1, 2, 3, 9]).to_string()]),
                1 => self.say(&mut out, &["HELLO", rng.pick(&["2", "3", "3"])]),
                2 => self.say(&mut out, &["PING"]),
                3 => self.say(&mut out, &["ECHO", "word"]),
                4 => self.say(&mut out, &["CLIENT", "ID"]),
                5 => out.extend_from_slice(b"\r\n*0\r\n"),
                6..=8 => self.transaction(&mut out, rng, numbers, mix),
                9 => self.inline(&mut out, rng, numbers),
                10 => Self::unheard(&mut out, rng, numbers, mix),
                _ => {
                    let (number, large) = Self::command(&mut out, rng, numbers, mix);
                    self.expect.push_back(Expect::Ran { number, large });
                }
            }
        }
        match rng.below(300) {
            0 => {
                encode::command(&mut out, &["QUIT"]);
                self.expect.push_back(Expect::Exactly(b"+OK\r\n".to_vec()));
                self.finished = true;
            }
            1 if self.reading == Reading::AtOnce => {
                out.extend_from_slice(b"*1\r\n!4\r\n");
                let text = b"-ERR Protocol error: expected '$', got '!'\r\n";
                self.expect.push_back(Expect::Exactly(text.to_vec()));
                self.finished = true;
            }
            _ => {}
        }
        out
    }

    fn command(out: &mut Vec<u8>, rng: &mut Rng, numbers: &mut u32, mix: &Mix) -> (u32, bool) {
        *numbers += 1;
        let command = script::draw(rng, *numbers, mix);
        out.extend_from_slice(&tag::frame(&command.args, *numbers));
        (*numbers, command.large)
    }

    fn say(&mut self, out: &mut Vec<u8>, args: &[&str]) {
        encode::command(out, args);
        self.expect.push_back(match args[0] {
            "PING" => Expect::Exactly(b"+PONG\r\n".to_vec()),
            "ECHO" => Expect::Exactly(b"$4\r\nword\r\n".to_vec()),
            "HELLO" => Expect::Hello(args[1].as_bytes()[0] - b'0'),
            "SELECT" => Expect::Select(args[1].parse().unwrap()),
            _ => Expect::Integer,
        });
    }

    fn inline(&mut self, out: &mut Vec<u8>, rng: &mut Rng, numbers: &mut u32) {
        *numbers += 1;
        out.extend_from_slice(b"set  's0' ");
        out.extend_from_slice(&tag::value(*numbers, rng.index(9)));
        out.extend_from_slice(b"\r\n");
        self.expect.push_back(Expect::Ran { number: *numbers, large: false });
    }

    fn unheard(out: &mut Vec<u8>, rng: &mut Rng, numbers: &mut u32, mix: &Mix) {
        encode::command(out, &["CLIENT", "REPLY", "SKIP"]);
        Self::command(out, rng, numbers, mix);
    }

    fn transaction(&mut self, out: &mut Vec<u8>, rng: &mut Rng, numbers: &mut u32, mix: &Mix) {
        encode::command(out, &["MULTI"]);
        self.expect.push_back(Expect::Exactly(b"+OK\r\n".to_vec()));
        let (mut queued, mut selects, mut owns) = (Vec::new(), Vec::new(), Vec::new());
        let mut any_large = false;
        for _ in 0..=rng.below(5) {
            if !queued.is_empty() && rng.one_in(20) {
                let db = rng.pick(&[0, 1, 2, 9]);
                encode::command(out, &["SELECT", &db.to_string()]);
                selects.push((queued.len() + selects.len() + owns.len(), db));
                self.expect.push_back(Expect::Queued);
            }
            if !queued.is_empty() && *numbers % 23 == 5 {
                encode::command(out, &["CLIENT", "ID"]);
                owns.push(queued.len() + selects.len() + owns.len());
                self.expect.push_back(Expect::Queued);
            }
            let (number, large) = Self::command(out, rng, numbers, mix);
            any_large |= large;
            queued.push(number);
            self.expect.push_back(Expect::Queued);
        }
        if rng.one_in(8) {
            encode::command(out, &["DISCARD"]);
            self.expect.push_back(Expect::Discarded(queued));
        } else {
            encode::command(out, &["EXEC"]);
            self.expect.push_back(Expect::Exec { numbers: queued, selects, owns, large: any_large });
        }
    }

    /// Replies arrive. `Err`: one that is not legal.
    pub fn hear(&mut self, bytes: &[u8], primary: &Redis) -> Result<(), String> {
        self.buffer.extend_from_slice(bytes);
        loop {
            let fresh = &self.buffer[self.scanned..];
            match self.scanner.scan(fresh).map_err(|e| format!("c{} was sent no RESP: {e}", self.name))? {
                None => {
                    self.scanned = self.buffer.len();
                    return Ok(());
                }
                Some(n) => {
                    let rest = self.buffer.split_off(self.scanned + n);
                    let frame = std::mem::replace(&mut self.buffer, rest);
                    self.scanned = 0;
                    self.reply(&frame, primary)?;
                }
            }
        }
    }

    fn reply(&mut self, frame: &[u8], primary: &Redis) -> Result<(), String> {
        self.answered += 1;
        let shown = frame[..frame.len().min(120)].escape_ascii().to_string();
        let Some(expect) = self.expect.pop_front() else {
            return Err(format!("c{} was answered {shown} and had asked nothing", self.name));
        };
        let wrong = |why: String| Err(format!("c{}: {expect:?} was answered {shown}: {why}", self.name));
        let fate = Fate::of(frame);
        match &expect {
            Expect::Exactly(bytes) if frame == bytes.as_slice() => {}
            Expect::Hello(version) if frame.starts_with(if *version == 3 { b"%7" } else { b"*14" }) => {
                self.resp = *version;
            }
            Expect::Select(db) => match fate {
                Fate::Reply if frame == b"+OK\r\n" && *db < DATABASES => self.db = *db,
                Fate::Reply if frame.starts_with(b"-ERR DB index") && *db >= DATABASES => {}
                Fate::NotSent | Fate::InDoubt => {}
                _ => return wrong("no SELECT is answered so".into()),
            },
            Expect::Integer if frame.starts_with(b":") => {}
            Expect::Queued if frame == b"+QUEUED\r\n" => {}
            Expect::Queued if fate == Fate::Refused => self.spoilt = true,
            Expect::Discarded(numbers) if frame == b"+OK\r\n" => {
                self.never.extend(numbers);
                self.spoilt = false;
            }
            Expect::Exec { numbers, .. } if std::mem::take(&mut self.spoilt) => {
                self.never.extend(numbers);
                if !frame.starts_with(b"-EXECABORT") {
                    return wrong("a command was refused before".into());
                }
            }
            Expect::Ran { .. } | Expect::Exec { .. } => {
                let numbers = match &expect {
                    Expect::Exec { numbers, .. } => numbers.clone(),
                    Expect::Ran { number, .. } => vec![*number],
                    _ => Vec::new(),
                };
                match fate {
                    Fate::NotSent | Fate::Refused => self.never.extend(numbers),
                    // The proxy stays where it was, or ends it because nobody knows where that is.
                    Fate::InDoubt if expect.selects() => self.ended_by_proxy = true,
                    Fate::InDoubt => {}
                    Fate::Reply => match primary.ran.get(&numbers[0]) {
                        None => return wrong("the primary never ran it".into()),
                        Some(ran) if ran.db != self.db => {
                            return wrong(format!("it ran in database {} and not {}", ran.db, self.db));
                        }
                        Some(ran)
                            if expect.without_owns(&ran.reply.bytes(self.resp))
                                != expect.without_owns(without_why(frame)) =>
                        {
                            let said = ran.reply.bytes(self.resp);
                            return wrong(format!(
                                "the primary said {}",
                                said[..said.len().min(120)].escape_ascii()
                            ));
                        }
                        Some(_) => {
                            let elements: Vec<_> = Reply::new(frame).elements().map(Reply::bytes).collect();
                            if expect
                                .owns()
                                .iter()
                                .any(|at| elements.get(*at).is_some_and(|e| !e.starts_with(b":")))
                            {
                                return wrong("what stands in for the proxy's own must not be seen".into());
                            }
                            for (at, db) in expect.selected() {
                                if elements.get(*at) == Some(&&b"+OK\r\n"[..]) {
                                    self.db = *db;
                                }
                            }
                            // Too long to be held: it was passed on as it came, and its SELECT not seen.
                            self.ended_by_proxy |= expect.selects() && frame.len() > 100_000;
                        }
                    },
                }
            }
            _ => return wrong("this is no such answer".into()),
        }
        Ok(())
    }

    /// The proxy was killed: whatever is still on its way, no answer is owed any more.
    pub fn proxy_died(&mut self) {
        self.session = None;
        self.ended_by_proxy = true;
    }

    /// The connection ended. `Err`: it should not have. `cuts`: connections to servers were lost; `small`: the bound on
    /// what waits for a client is small.
    pub fn end(&mut self, cuts: bool, small: bool) -> Result<(), String> {
        self.closed = true;
        let large =
            |e: &Expect| matches!(e, Expect::Ran { large: true, .. } | Expect::Exec { large: true, .. });
        let gone = (self.finished && self.expect.is_empty()) || self.ended_by_proxy;
        if gone || self.reading != Reading::AtOnce {
            return Ok(());
        }
        // A reply that was half out when its Redis went away can only end with the connection.
        if (cuts || small) && self.expect.iter().any(large) {
            return Ok(());
        }
        // Many errors are a long answer too.
        if small && self.expect.len() > 200 {
            return Ok(());
        }
        Err(format!("c{} was closed while it waited for {}", self.name, self.next_expected()))
    }
}

/// What the server said to an EXEC that tells why a command was not queued, which the server does not tell here.
fn without_why(frame: &[u8]) -> &[u8] {
    if frame.starts_with(b"-EXECABORT Transaction discarded because of: ") {
        return b"-EXECABORT Transaction discarded because of previous errors.\r\n";
    }
    frame
}

/// What an answer says of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is the primary's.
    Reply,
    /// Nothing was sent.
    NotSent,
    /// It may have run.
    InDoubt,
    /// The proxy does not do this.
    Refused,
}

impl Fate {
    fn of(frame: &[u8]) -> Self {
        match frame {
            [b'-', rest @ ..] if rest.starts_with(b"UNAVAILABLE ") || rest.starts_with(b"TIMEOUT ") => {
                Self::NotSent
            }
            [b'-', rest @ ..] if rest.starts_with(b"INDOUBT ") => Self::InDoubt,
            [b'-', rest @ ..] if rest.starts_with(b"CROSSROUTE ") => Self::Refused,
            [b'-', rest @ ..] if rest.starts_with(b"EXECABORT Transaction discarded because the conf") => {
                Self::Refused
            }
            _ => Self::Reply,
        }
    }
}
