//! Clients of one purpose, with a connection of their own or in a line: some push elements, some wait for them, some count
//! under WATCH. What became of each element and each count is added up at the end.

use std::collections::{BTreeMap, BTreeSet};

use redisha_core::resp::{Reply, ReplyScanner, encode};

use super::data::Data;
use super::redis::Redis;
use super::rng::Rng;

/// Databases in which they act.
const DBS: [u16; 2] = [0, 2];
const QUEUES: [&str; 2] = ["q0", "q1"];
/// Where what was moved goes.
const MOVED: &str = "q2";
const COUNTERS: [&str; 2] = ["w0", "w1"];

/// A counter, as its clients were told.
#[derive(Debug, Default)]
pub struct Count {
    pub done: u64,
    /// Increments that may have been done.
    doubted: u64,
}

/// What all actors together know.
#[derive(Debug, Default)]
pub struct Ledger {
    next: u64,
    /// Elements whose push was acknowledged, or may have been done.
    pushed: BTreeSet<u64>,
    maybe: BTreeSet<u64>,
    pub popped: BTreeSet<u64>,
    /// Pops whose reply was not heard.
    doubted: u64,
    pub counted: BTreeMap<(u16, &'static str), Count>,
    pub aborted: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Push(Vec<u64>),
    /// The keys, and whether it has no end.
    Pop(Vec<&'static str>, bool),
    /// Elements go from one list to another.
    Move(&'static str, bool),
    Watch,
    Get,
    Multi,
    Queued,
    Exec,
    /// The reply is not looked at.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pusher,
    Popper,
    Counter,
}

/// The client.
#[derive(Debug)]
pub struct Actor {
    kind: Kind,
    db: u16,
    selected: bool,
    awaits: Vec<Step>,
    /// What to do next; of a counter.
    next: Step,
    counter: &'static str,
    value: u64,
    scanner: ReplyScanner,
    buffer: Vec<u8>,
    scanned: usize,
}

impl Actor {
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            kind: rng.pick(&[Kind::Pusher, Kind::Popper, Kind::Popper, Kind::Counter]),
            db: rng.pick(&[0, 0, DBS[1]]),
            selected: false,
            awaits: Vec::new(),
            next: Step::Watch,
            counter: rng.pick(&COUNTERS),
            value: 0,
            scanner: ReplyScanner::default(),
            buffer: Vec::new(),
            scanned: 0,
        }
    }

    pub fn waits(&self) -> bool {
        !self.awaits.is_empty()
    }

    /// The keys that it waits for without end.
    pub fn waits_without_end(&self) -> Option<(u16, Vec<&'static str>)> {
        match self.awaits.first()? {
            Step::Pop(keys, true) => Some((self.db, keys.clone())),
            Step::Move(key, true) => Some((self.db, vec![key])),
            _ => None,
        }
    }

    fn say(&mut self, out: &mut Vec<u8>, line: &str, step: Step) {
        encode::command(out, &line.split(' ').collect::<Vec<_>>());
        self.awaits.push(step);
    }

    pub fn ask(&mut self, rng: &mut Rng, ledger: &mut Ledger) -> Vec<u8> {
        let mut out = Vec::new();
        if self.waits() {
            return out;
        }
        if !self.selected {
            self.selected = true;
            if rng.one_in(3) {
                self.say(&mut out, "HELLO 3", Step::Other);
            }
            if self.db != 0 {
                self.say(&mut out, &format!("SELECT {}", self.db), Step::Other);
                self.selected = false;
            }
            if self.waits() {
                return out;
            }
        }
        match self.kind {
            Kind::Pusher => {
                let elements: Vec<u64> = (0..=rng.below(2)).map(|_| ledger.number()).collect();
                let all: Vec<String> = elements.iter().map(u64::to_string).collect();
                let line =
                    format!("{} {} {}", rng.pick(&["LPUSH", "RPUSH"]), rng.pick(&QUEUES), all.join(" "));
                if rng.one_in(3) {
                    self.say(&mut out, &format!("SET last {}", ledger.number()), Step::Other);
                }
                if rng.one_in(4) {
                    self.say(&mut out, "MULTI", Step::Other);
                    self.say(&mut out, &line, Step::Queued);
                    self.say(&mut out, "EXEC", Step::Push(elements));
                } else {
                    self.say(&mut out, &line, Step::Push(elements));
                }
            }
            Kind::Popper => {
                let endless = rng.one_in(4);
                let timeout = if endless { "0".to_owned() } else { format!("0.{:03}", 1 + rng.below(400)) };
                let key = rng.pick(&QUEUES);
                match rng.below(6) {
                    0 => {
                        let line = format!("BLMOVE {key} {MOVED} LEFT RIGHT {timeout}");
                        self.say(&mut out, &line, Step::Move(key, endless));
                    }
                    1..=2 => {
                        let keys = vec![QUEUES[1], QUEUES[0], MOVED];
                        let line = format!("BRPOP {} {timeout}", keys.join(" "));
                        self.say(&mut out, &line, Step::Pop(keys, endless));
                    }
                    3 => {
                        let line = format!("BLMPOP {timeout} 2 q0 q2 LEFT COUNT 2");
                        self.say(&mut out, &line, Step::Pop(vec![QUEUES[0], MOVED], endless));
                    }
                    _ => self.say(&mut out, &format!("BLPOP {key} {timeout}"), Step::Pop(vec![key], endless)),
                }
            }
            Kind::Counter => self.count(&mut out, rng, ledger),
        }
        out
    }

    fn count(&mut self, out: &mut Vec<u8>, rng: &mut Rng, ledger: &mut Ledger) {
        let counter = self.counter;
        match self.next.clone() {
            Step::Watch => {
                match rng.below(12) {
                    0 => {
                        // Watched, and given up: nothing of it may matter.
                        self.say(out, &format!("WATCH {counter} q0"), Step::Other);
                        let last = rng.pick(&["UNWATCH", "RESET"]);
                        self.say(out, last, Step::Other);
                        self.selected &= last != "RESET";
                        return;
                    }
                    1 => {
                        self.say(out, &format!("WATCH {counter}"), Step::Other);
                        self.say(out, "MULTI", Step::Other);
                        self.say(out, "DISCARD", Step::Other);
                        return;
                    }
                    2..=4 => {
                        // Back to back, whatever becomes of it: only the order of writes counts.
                        for _ in 0..=rng.below(2) {
                            self.say(out, "WATCH other", Step::Other);
                            self.say(out, "MULTI", Step::Other);
                            self.say(out, &format!("SET last {}", ledger.number()), Step::Other);
                            self.say(out, "EXEC", Step::Other);
                        }
                        return;
                    }
                    _ => {}
                }
                self.say(out, &format!("WATCH {counter}"), Step::Watch);
                if rng.one_in(2) {
                    self.say(out, &format!("GET {counter}"), Step::Get);
                }
            }
            Step::Get => {
                if rng.one_in(3) {
                    // Another key, later: what was watched before still counts.
                    self.say(out, "WATCH other", Step::Other);
                }
                self.say(out, &format!("GET {counter}"), Step::Get);
            }
            _ => {
                if rng.one_in(4) {
                    self.say(out, "WATCH another", Step::Other);
                }
                self.say(out, "MULTI", Step::Other);
                let value = self.value + 1;
                self.say(out, &format!("SET {counter} {value}"), Step::Queued);
                if rng.one_in(3) {
                    self.say(out, "INCR w2", Step::Queued);
                }
                self.say(out, "EXEC", Step::Exec);
            }
        }
    }

    pub fn hear(&mut self, bytes: &[u8], ledger: &mut Ledger) -> Result<(), String> {
        self.buffer.extend_from_slice(bytes);
        loop {
            let scanned = self.scanner.scan(&self.buffer[self.scanned..]);
            match scanned {
                Err(error) => return Err(format!("an actor was sent no RESP: {error}")),
                Ok(None) => {
                    self.scanned = self.buffer.len();
                    return Ok(());
                }
                Ok(Some(n)) => {
                    let end = self.scanned + n;
                    let frame: Vec<u8> = self.buffer.drain(..end).collect();
                    self.scanned = 0;
                    self.reply(&frame, ledger)?;
                }
            }
        }
    }

    fn reply(&mut self, frame: &[u8], ledger: &mut Ledger) -> Result<(), String> {
        if frame.starts_with(b">") {
            return Ok(()); // on a connection of its own a server may say what nobody asked for
        }
        if self.awaits.is_empty() {
            return Err(format!("an actor had asked nothing: {}", frame.escape_ascii()));
        }
        let reply = Reply::new(frame);
        let (failed, doubted) = (reply.is_error(), frame.starts_with(b"-INDOUBT"));
        let step = self.awaits.remove(0);
        let wrong = || Err(format!("{:?} was answered {}", self, frame.escape_ascii()));
        match &step {
            Step::Push(elements) if doubted => ledger.maybe.extend(elements),
            Step::Push(elements) if !failed => ledger.pushed.extend(elements),
            Step::Pop(..) | Step::Move(..) if doubted => ledger.doubted += 2,
            Step::Pop(..) if !failed && !reply.is_nil() => {
                let mut all = reply.elements();
                let key = all.next().and_then(Reply::text).unwrap_or_default().to_vec();
                for one in all {
                    let inner: Vec<Reply<'_>> =
                        if one.bytes()[0] == b'*' { one.elements().collect() } else { vec![one] };
                    for element in inner {
                        let number = element.text().and_then(|t| std::str::from_utf8(t).ok()?.parse().ok());
                        let Some(number) = number else { return wrong() };
                        if !ledger.popped.insert(number) {
                            return Err(format!("element {number} was popped twice"));
                        }
                    }
                }
                if !matches!(&step, Step::Pop(keys, _) if keys.iter().any(|k| k.as_bytes() == key)) {
                    return wrong();
                }
            }
            Step::Other if !self.selected => self.selected = frame == b"+OK\r\n" && self.awaits.is_empty(),
            Step::Watch => self.next = if failed { Step::Watch } else { Step::Get },
            Step::Get if self.next != Step::Watch && !failed => {
                let text = reply.text().and_then(|t| std::str::from_utf8(t).ok());
                self.value = text.map_or(0, |t| t.parse().unwrap());
                self.next = Step::Multi;
            }
            Step::Exec => {
                self.next = Step::Watch;
                let count = ledger.counted.entry((self.db, self.counter)).or_default();
                match () {
                    () if doubted => count.doubted += 1,
                    () if failed => {}
                    () if reply.is_nil() => ledger.aborted += 1,
                    () => count.done += 1,
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// It hears no more.
    pub fn gone(&mut self, ledger: &mut Ledger) {
        for step in std::mem::take(&mut self.awaits) {
            match step {
                Step::Push(elements) => ledger.maybe.extend(elements),
                Step::Pop(..) | Step::Move(..) => ledger.doubted += 2,
                Step::Exec => ledger.counted.entry((self.db, self.counter)).or_default().doubted += 1,
                _ => {}
            }
        }
    }
}

impl Ledger {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// What the primary has is what is left.
    pub fn account(&self, primary: &Redis) {
        let mut left = BTreeSet::new();
        for db in DBS {
            for key in QUEUES.iter().chain([&MOVED]) {
                let item = primary.dbs.get(&db).and_then(|keys| keys.get(key.as_bytes()));
                let Some(Data::List(list)) = item.map(|i| &i.data) else { continue };
                for element in list {
                    let number: u64 = std::str::from_utf8(element).unwrap().parse().unwrap();
                    assert!(left.insert(number), "element {number} is there twice");
                    assert!(!self.popped.contains(&number), "element {number} was popped, and is there");
                }
            }
        }
        let known = |n: &u64| self.pushed.contains(n) || self.maybe.contains(n);
        assert!(self.popped.iter().chain(&left).all(known), "an element was refused, and is there");
        let lost =
            self.pushed.iter().filter(|n| !left.contains(n) && !self.popped.contains(n)).count() as u64;
        assert!(lost <= self.doubted, "{lost} elements are lost, {} pops are in doubt", self.doubted);
        for ((db, counter), count) in &self.counted {
            let item = primary.dbs.get(db).and_then(|keys| keys.get(counter.as_bytes()));
            let value: u64 = match item.map(|i| &i.data) {
                Some(Data::Text(text)) => std::str::from_utf8(text).unwrap().parse().unwrap(),
                _ => 0,
            };
            let right = count.done..=count.done + count.doubted;
            assert!(right.contains(&value), "{counter} in {db} is {value}, and must be in {right:?}");
        }
    }
}
