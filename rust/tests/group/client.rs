//! A simulated client: asks, and checks that each answer is one that its command may get.

use std::collections::VecDeque;

use redisha_core::flow::Ends;
use redisha_core::resp::{Reply, ReplyScanner, encode};

use super::pipe::Pipe;
use super::rng::Rng;
use super::script::{Heard, Kind, Level, Op, Outcome, draw};
use super::world::{From, Link, To, World, say};

/// What the next reply is to.
#[derive(Clone, Debug)]
enum Expect {
    Ok,
    /// The number of a database.
    Select(u16),
    Echo(String),
    /// One command: places in the history.
    Run(Vec<usize>),
    Queued,
    /// A transaction: those of each command.
    Exec(Vec<Vec<usize>>),
}

/// The client.
#[derive(Debug)]
pub struct Client {
    pub name: u32,
    pub member: usize,
    pub link: u64,
    /// It asks no more.
    pub finished: bool,
    /// It saw the end.
    pub closed: bool,
    /// Its connection may end at any time.
    pub excused: bool,
    expect: VecDeque<Expect>,
    db: u16,
    level: Level,
    leader_read: bool,
    /// A queued command was refused.
    spoilt: bool,
    buffer: Vec<u8>,
    scanner: ReplyScanner,
    scanned: usize,
}

impl Client {
    pub fn waits_for(&self) -> usize {
        self.expect.len()
    }

    pub fn next_expected(&self) -> String {
        format!("{:?}, then {} more", self.expect.front(), self.expect.len().saturating_sub(1))
    }
}

impl World {
    /// A client connects to some member.
    pub fn welcome(&mut self) {
        let index = self.rng.index(self.options.members);
        if !self.lives(index) {
            return;
        }
        let (up, down) = (Pipe::new(self.room, self.delay), Pipe::new(self.room, self.delay));
        let id = self.next_link;
        self.next_link += 1;
        let member = self.member(index);
        let Ok(session) = member.engine().session_open(0, Ends::default()) else { return };
        let socket = super::member::SessionSocket {
            id: session,
            link: id,
            readable: true,
            seen: 0,
            seen_end: false,
            blocked: false,
        };
        member.sessions.insert(session.slot, socket);
        member.busy.push(session);
        self.links.insert(
            id,
            Link {
                from: From::Client,
                to: To::Member(index),
                up,
                down,
                from_gone: false,
                to_gone: false,
                up_frozen: false,
                down_frozen: false,
            },
        );
        let name = self.next_client;
        self.next_client += 1;
        say!(self, "c{name} comes to {}", super::plans::NAMES[index]);
        self.clients.push(Client {
            name,
            member: index,
            link: id,
            finished: false,
            closed: false,
            excused: false,
            expect: VecDeque::new(),
            db: 0,
            level: Level::One,
            leader_read: false,
            spoilt: false,
            buffer: Vec::new(),
            scanner: ReplyScanner::default(),
            scanned: 0,
        });
        let mut out = Vec::new();
        let client = self.clients.last_mut().expect("it has just come");
        if self.options.mix.registers_only {
            (client.level, client.leader_read) = (Level::Quorum, true);
        } else if self.options.levels && self.rng.one_in(2) {
            client.level = self.rng.pick(&[Level::One, Level::Quorum, Level::All]);
            client.leader_read = self.rng.one_in(4);
        }
        if (client.level, client.leader_read) != (Level::One, false) {
            let write = match client.level {
                Level::One => "one",
                Level::Quorum => "quorum",
                Level::All => "all",
            };
            let read = if client.leader_read { "leader" } else { "one" };
            encode::command(&mut out, &["REDISHA", "CONSISTENCY", write, read]);
            client.expect.push_back(Expect::Ok);
            self.links.get_mut(&id).expect("it is new").up.send(self.now, &out, &mut self.rng);
        }
    }

    /// A client sends what it has to ask.
    pub fn ask(&mut self, at: usize) {
        let mut client = self.clients.swap_remove(at);
        let mut out = Vec::new();
        let burst = if self.options.mix.registers_only { 1 } else { self.rng.pick(&[1, 1, 1, 2, 5, 12]) };
        for _ in 0..burst {
            match self.rng.below(60) {
                0..=6 if self.options.plain => self.command(&mut client, &mut out),
                _ if self.options.mix.registers_only => self.command(&mut client, &mut out),
                0 if self.rng.one_in(3) => {
                    let db = self.rng.pick(&[0, 0, 1]);
                    encode::command(&mut out, &["SELECT", &db.to_string()]);
                    client.expect.push_back(Expect::Select(db));
                    break; // what follows is in that database, if it was accepted
                }
                1 => {
                    let text = format!("echo{}", self.rng.below(1_000_000));
                    encode::command(&mut out, &["ECHO", &text]);
                    client.expect.push_back(Expect::Echo(text));
                }
                2..=6 => self.transaction(&mut client, &mut out),
                _ => self.command(&mut client, &mut out),
            }
        }
        say!(self, "c{} asks {}", client.name, shown(&out));
        if let Some(link) = self.links.get_mut(&client.link) {
            link.up.send(self.now, &out, &mut self.rng);
        }
        self.clients.push(client);
        let last = self.clients.len() - 1;
        self.clients.swap(at, last);
    }

    fn one(&mut self, client: &Client, out: &mut Vec<u8>) -> Vec<usize> {
        let word = format!("w{}.", self.next_word);
        self.next_word += 1;
        let drawn = draw(&mut self.rng, &word, &self.options.mix);
        let args: Vec<&str> = drawn.args.iter().map(String::as_str).collect();
        encode::command(out, &args);
        drawn
            .does
            .into_iter()
            .map(|(kind, key, word)| {
                self.history.push(Op {
                    client: client.name,
                    member: client.member,
                    key: format!("{}/{key}", client.db),
                    kind,
                    word,
                    level: client.level,
                    leader_read: client.leader_read,
                    invoked: self.now,
                    answered: u64::MAX,
                    outcome: Outcome::Pending,
                });
                self.history.len() - 1
            })
            .collect()
    }

    fn command(&mut self, client: &mut Client, out: &mut Vec<u8>) {
        let ops = self.one(client, out);
        client.expect.push_back(Expect::Run(ops));
    }

    fn transaction(&mut self, client: &mut Client, out: &mut Vec<u8>) {
        encode::command(out, &["MULTI"]);
        client.expect.push_back(Expect::Ok);
        let mut all = Vec::new();
        for _ in 0..=self.rng.below(4) {
            all.push(self.one(client, out));
            client.expect.push_back(Expect::Queued);
        }
        encode::command(out, &["EXEC"]);
        client.expect.push_back(Expect::Exec(all));
    }

    pub(super) fn run_clients(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].closed {
                continue;
            }
            let id = self.clients[at].link;
            let Some(link) = self.links.get_mut(&id) else { continue };
            let bytes = link.down.receive(self.now, usize::MAX);
            let ended = link.down.at_end(self.now);
            if !bytes.is_empty() {
                say!(self, "c{} hears {}", self.clients[at].name, shown(&bytes));
                self.hear(at, &bytes);
            }
            if ended {
                self.see_end(at);
            }
        }
        self.clients.retain(|c| !c.closed);
    }

    /// A client is gone without a word.
    pub fn vanish(&mut self, at: usize) {
        let id = self.clients[at].link;
        say!(self, "c{} vanishes", self.clients[at].name);
        if let Some(link) = self.links.get_mut(&id) {
            if self.rng.one_in(2) {
                link.up.cut(self.now, &mut self.rng);
            } else {
                link.up.close(self.now, &mut self.rng);
            }
        }
        self.clients[at].excused = true;
        self.see_end(at);
    }

    fn see_end(&mut self, at: usize) {
        let (now, id) = (self.now, self.clients[at].link);
        if let Some(link) = self.links.get_mut(&id) {
            link.from_gone = true;
            link.down.reset(now);
            link.up.close(now, &mut self.rng);
            if link.to_gone {
                self.links.remove(&id);
            }
        }
        let client = &mut self.clients[at];
        client.closed = true;
        say!(self, "c{} sees the end", self.clients[at].name);
        let client = &self.clients[at];
        let fine = client.excused || (client.finished && client.expect.is_empty());
        let why = format!("c{} was closed while it waited for {}", client.name, client.next_expected());
        self.check(fine, why);
    }

    fn check(&mut self, fine: bool, why: String) {
        if !fine {
            self.note(format!("WRONG: {why}"));
            panic!("{why}");
        }
    }

    fn hear(&mut self, at: usize, bytes: &[u8]) {
        self.clients[at].buffer.extend_from_slice(bytes);
        loop {
            let client = &mut self.clients[at];
            let found = client.scanner.scan(&client.buffer[client.scanned..]).expect("RESP");
            let Some(n) = found else {
                client.scanned = client.buffer.len();
                return;
            };
            let rest = client.buffer.split_off(client.scanned + n);
            let frame = std::mem::replace(&mut client.buffer, rest);
            client.scanned = 0;
            let verdict = self.reply(at, &frame);
            self.check(verdict.is_ok(), verdict.err().unwrap_or_default());
        }
    }

    fn reply(&mut self, at: usize, frame: &[u8]) -> Result<(), String> {
        self.count("answers");
        let now = self.now;
        let client = &mut self.clients[at];
        let Some(expect) = client.expect.pop_front() else {
            return Err(format!("c{} was answered {} and had asked nothing", client.name, shown(frame)));
        };
        let name = client.name;
        let wrong = |why: &str| Err(format!("c{name}: {expect:?} was answered {}: {why}", shown(frame)));
        let fate = fate(frame);
        match &expect {
            Expect::Ok if frame == b"+OK\r\n" => {}
            Expect::Select(db) if frame == b"+OK\r\n" => client.db = *db,
            Expect::Select(_) if fate.is_some() => {}
            Expect::Echo(text) if Reply::new(frame).text() == Some(text.as_bytes()) => {}
            Expect::Queued if frame == b"+QUEUED\r\n" => {}
            Expect::Queued if fate == Some(Outcome::Never) => client.spoilt = true,
            Expect::Exec(all) if std::mem::take(&mut client.spoilt) => {
                if !frame.starts_with(b"-EXECABORT") {
                    return wrong("a command was refused before");
                }
                for op in all.iter().flatten() {
                    (self.history[*op].outcome, self.history[*op].answered) = (Outcome::Never, now);
                }
            }
            Expect::Run(ops) => {
                for op in ops {
                    let outcome = fate.clone().unwrap_or_else(|| Outcome::Reply(heard(frame)));
                    if !is_answer(self.history[*op].kind, &outcome) {
                        return wrong("no such command is answered so");
                    }
                    (self.history[*op].outcome, self.history[*op].answered) = (outcome, now);
                }
                self.count_fate(fate.as_ref());
            }
            // Its leader refused a command of it.
            Expect::Exec(all) if frame.starts_with(b"-EXECABORT ") => {
                for op in all.iter().flatten() {
                    (self.history[*op].outcome, self.history[*op].answered) = (Outcome::Never, now);
                }
                self.count_fate(Some(&Outcome::Never));
            }
            Expect::Exec(all) => {
                let reply = Reply::new(frame);
                if fate.is_none() && reply.elem_count() != all.len() {
                    return wrong("EXEC has another number of elements");
                }
                let elements: Vec<&[u8]> = reply.elements().map(Reply::bytes).collect();
                for (i, ops) in all.iter().enumerate() {
                    for op in ops {
                        let outcome = fate.clone().unwrap_or_else(|| Outcome::Reply(heard(elements[i])));
                        if !is_answer(self.history[*op].kind, &outcome) {
                            return wrong("no such transaction is answered so");
                        }
                        (self.history[*op].outcome, self.history[*op].answered) = (outcome, now);
                    }
                }
                self.count_fate(fate.as_ref());
            }
            _ => return wrong("this is no such answer"),
        }
        Ok(())
    }

    fn count_fate(&mut self, fate: Option<&Outcome>) {
        match fate {
            Some(Outcome::Never) => self.count("refused"),
            Some(_) => self.count("in doubt"),
            None => self.count("done"),
        }
    }
}

/// What an error of redisha's own says. `None`: the answer is Redis's.
fn fate(frame: &[u8]) -> Option<Outcome> {
    let is = |code: &str| frame.starts_with(format!("-{code} ").as_bytes());
    if is("INDOUBT") {
        return Some(Outcome::Doubt);
    }
    ["NOLEADER", "UNAVAILABLE", "TIMEOUT", "NOREPLICAS"].iter().any(|c| is(c)).then_some(Outcome::Never)
}

fn heard(frame: &[u8]) -> Heard {
    let reply = Reply::new(frame);
    if reply.is_error() {
        return Heard::Error(shown(frame));
    }
    if reply.is_nil() {
        return Heard::Nil;
    }
    if let Some(n) = reply.integer() {
        return Heard::Integer(n);
    }
    reply.text().map_or(Heard::Many, |text| Heard::Text(String::from_utf8_lossy(text).into_owned()))
}

fn is_answer(kind: Kind, outcome: &Outcome) -> bool {
    let Outcome::Reply(heard) = outcome else { return true };
    match (kind, heard) {
        (Kind::Set, Heard::Text(text)) => text == "OK",
        (Kind::Get | Kind::Pop | Kind::Draw, Heard::Nil) => true,
        (Kind::Get | Kind::Pop | Kind::Draw, Heard::Text(text)) => text.starts_with('w'),
        (Kind::Incr | Kind::Append | Kind::Push | Kind::Add, Heard::Integer(n)) => *n > 0,
        // RENAME of a key that is not there.
        (Kind::Other, Heard::Error(text)) => text.starts_with("-ERR no such key"),
        (Kind::Other, _) => true,
        _ => false,
    }
}

pub fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(400)].escape_ascii().to_string()
}

/// A client that may ask.
pub fn may_ask(client: &Client, rng: &mut Rng, once_in: u64) -> bool {
    let changes = client.expect.iter().any(|e| matches!(e, Expect::Select(_)));
    !client.finished && !client.closed && !changes && client.waits_for() < 60 && rng.one_in(once_in)
}
