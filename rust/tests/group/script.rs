//! What simulated clients ask, and what is remembered of it. Keys are of one kind each, so that what their commands are
//! answered can be checked.

use super::rng::Rng;

/// What kinds of commands are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Values that expire soon.
    pub expiring: bool,
    /// Keys are renamed and copied.
    pub moves: bool,
    /// Sets that are drawn from.
    pub sets: bool,
    /// `SET` and `GET` of few keys, the writes with `quorum`, the reads by the leader.
    pub registers_only: bool,
}

/// How many members must have a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    One,
    Quorum,
    All,
}

/// What a command does to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a register.
    Set,
    Get,
    /// Of a counter.
    Incr,
    /// Of a text that only grows.
    Append,
    /// Of a queue.
    Push,
    Pop,
    /// Of a set.
    Add,
    Draw,
    /// Whatever; only that members are equal is checked.
    Other,
}

/// What a command was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Nil,
    Integer(i64),
    Text(String),
    Many,
    Error(String),
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not answered.
    Pending,
    Reply(Heard),
    /// It may have run.
    Doubt,
    /// It did not, says redisha.
    Never,
}

/// A command on a key, or its part of a command on several.
#[derive(Clone, Debug)]
pub struct Op {
    pub client: u32,
    pub member: usize,
    /// `db/key`.
    pub key: String,
    pub kind: Kind,
    /// What it writes: no other command does.
    pub word: String,
    pub level: Level,
    pub leader_read: bool,
    /// Microseconds; the second is `u64::MAX` while there is no answer.
    pub invoked: u64,
    pub answered: u64,
    pub outcome: Outcome,
}

/// One command: its words, and what it does to which key.
pub struct Drawn {
    pub args: Vec<String>,
    pub does: Vec<(Kind, String, String)>,
}

/// Draw one command; `word` is only its.
pub fn draw(rng: &mut Rng, word: &str, mix: &Mix) -> Drawn {
    let w = word.to_owned();
    let one = |line: String, kind: Kind, key: &str| Drawn {
        args: line.split(' ').map(str::to_owned).collect(),
        does: vec![(kind, key.to_owned(), w.clone())],
    };
    if mix.registers_only {
        let r = rng.pick(&["r0", "r1", "r2"]);
        return if rng.one_in(2) {
            one(format!("SET {r} {w}"), Kind::Set, r)
        } else {
            one(format!("GET {r}"), Kind::Get, r)
        };
    }
    let r = rng.pick(&["r0", "r1", "r2", "r3"]);
    let r2 = rng.pick(&["r4", "r5"]);
    let (c, a, q) = (rng.pick(&["c0", "c1"]), rng.pick(&["a0", "a1", "a2"]), rng.pick(&["q0", "q1"]));
    let (x, y) = (rng.pick(&["x0", "x1", "x2", "x3"]), rng.pick(&["x0", "x1", "x2", "x3"]));
    let far = 100_000 + rng.below(1_000);
    let v = rng.pick(&["v0", "v1"]);
    let soon = 20 + rng.below(300);
    match rng.below(48) {
        0..=7 => one(format!("SET {r} {w}"), Kind::Set, r),
        8..=14 => one(format!("GET {r}"), Kind::Get, r),
        15 => one(format!("GET {r2}"), Kind::Get, r2),
        16..=17 => {
            let mut drawn = one(format!("MSET {r} {w} {r2} {w}"), Kind::Set, r);
            drawn.does.push((Kind::Set, r2.to_owned(), w.clone()));
            drawn
        }
        18..=21 => one(format!("INCR {c}"), Kind::Incr, c),
        22..=25 => one(format!("APPEND {a} {w}"), Kind::Append, a),
        26..=28 => one(format!("LPUSH {q} {w}"), Kind::Push, q),
        29..=31 => one(format!("RPOP {q}"), Kind::Pop, q),
        32..=33 if mix.sets => one(format!("SADD s0 {w}"), Kind::Add, "s0"),
        34 if mix.sets => one("SPOP s0".to_owned(), Kind::Draw, "s0"),
        35 => one(format!("SET {x} {w} NX"), Kind::Other, x),
        36 => one(format!("DEL {x} {y}"), Kind::Other, x),
        37 => one(format!("SET {x} {w} EX {far}"), Kind::Other, x),
        38 => one(format!("EXPIRE {x} {far}"), Kind::Other, x),
        39 => one(format!("PERSIST {x}"), Kind::Other, x),
        40 => one(format!("HSET h0 f{} {w}", rng.below(4)), Kind::Other, "h0"),
        41 => one(format!("HDEL h0 f{}", rng.below(4)), Kind::Other, "h0"),
        42 if mix.moves && x != y => one(format!("RENAME {x} {y}"), Kind::Other, x),
        43 if mix.moves && x != y => one(format!("COPY {x} {y} REPLACE"), Kind::Other, x),
        44 if mix.expiring => one(format!("SET {v} {} PX {soon}", rng.below(9)), Kind::Other, v),
        45 if mix.expiring => one(format!("INCR {v}"), Kind::Other, v),
        46 if mix.expiring => one(format!("PEXPIRE {v} {soon}"), Kind::Other, v),
        _ => one(format!("INCRBYFLOAT d0 {}.5", rng.below(9)), Kind::Other, "d0"),
    }
}
