//! What simulated clients ask: random commands, each with its number.

use super::rng::Rng;
use super::tag;

/// What kinds of commands are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// `FLUSHALL`, `SWAPDB`, commands that no table has: what they do is lost when their fate is in doubt.
    pub keys_unknown: bool,
    /// Values of tens of kilobytes.
    pub large: bool,
    /// Effects that build on values which expire soon.
    pub expiring: bool,
    /// Many keys are renamed, copied, and moved between databases.
    pub moves: bool,
    /// Function libraries.
    pub functions: bool,
    /// Keys of the population that are named too.
    pub population: u32,
}

/// One command.
#[derive(Debug)]
pub struct Command {
    pub args: Vec<Vec<u8>>,
    /// Its reply may be long enough to be streamed.
    pub large: bool,
}

/// Keys that expire soon. What builds on them is drawn in `an_effect_on_an_expiring_key` only.
const SHORT_LIVED: &[&str] = &["v0", "v1"];
const TEXTS: &[&str] = &["s0", "s1", "s2", "n0", "n1"];
const LISTS: &[&str] = &["l0", "l1", "l2"];
const SETS: &[&str] = &["e0", "e1"];
const HASHES: &[&str] = &["h0", "h1"];
const ANY: &[&str] = &["s0", "s1", "s2", "n0", "l0", "l1", "l2", "e0", "e1", "h0", "h1", "big"];

/// A `~` is a space within a word.
fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|w| w.replace('~', " ").into_bytes()).collect()
}

fn any_key(rng: &mut Rng, mix: &Mix) -> String {
    if mix.population > 0 && rng.one_in(3) {
        return super::population::name(rng.below(u64::from(mix.population)) as u32);
    }
    rng.pick(ANY).to_owned()
}

/// Draw one command for `number`.
pub fn draw(rng: &mut Rng, number: u32, mix: &Mix) -> Command {
    let value = tag::value(number, rng.index(20));
    let text = String::from_utf8_lossy(&value).into_owned();
    let far = tag::far(number);
    let mut large = false;
    let s = rng.pick(TEXTS);
    let (any, other) = (any_key(rng, mix), any_key(rng, mix));
    let (list, set, hash, short) = (rng.pick(LISTS), rng.pick(SETS), rng.pick(HASHES), rng.pick(SHORT_LIVED));
    let field = rng.pick(&["f0", "f1", "f2"]);
    let by = rng.below(10);
    let soon = 1 + rng.below(60);
    let db = rng.below(4);
    let mut line = match rng.below(58) {
        0..=3 => format!("SET {s} {text}"),
        4 => format!(
            "SET {s} {text} {}",
            rng.pick(&["NX", "XX", "GET", "KEEPTTL", "XX GET", "NX GET", "XX KEEPTTL"])
        ),
        5 => format!("SET {s} {text} PX {far}"),
        6 => format!("SET {s} {text} EX {} {}", far / 1_000, rng.pick(&["NX", "XX", "GET", "XX GET"])),
        7 => format!("SETEX {s} {} {text}", far / 1_000),
        8..=10 => format!("SET {short} {text} PX {soon}"),
        11 => format!("SET {short} {text} NX PX {soon}"),
        12 => format!("{} {short}", rng.pick(&["GET", "DEL", "GETDEL"])),
        13..=14 => format!("GET {any}"),
        15 => format!("GETRANGE {any} 0 -1"),
        16 => format!("MGET {any} {other} {s}"),
        17..=18 => format!("APPEND {s} {text}"),
        19..=21 => format!("INCRBY {} {by}", rng.pick(&["n0", "n1", "c0"])),
        22 => "INCR c0".to_owned(),
        23 => format!("INCRBYFLOAT {} {by}.5", rng.pick(&["n0", "d0"])),
        24 => format!("DEL {any} {other}"),
        25..=27 => format!("{} {list} {text}", rng.pick(&["LPUSH", "RPUSH"])),
        28..=29 => format!("{} {list}", rng.pick(&["LPOP", "RPOP"])),
        30 => format!("LPOP {list} {}", rng.below(3)),
        31 => format!("RPOPLPUSH {list} {}", rng.pick(LISTS)),
        32 => format!("LRANGE {list} 0 -1"),
        33..=35 => format!("SADD {set} {text} m{by}"),
        36 => format!("SPOP {set}"),
        37 => format!("SPOP {set} {}", rng.below(4)),
        38 => format!("SREM {set} m{by}"),
        39 => format!("SMEMBERS {set}"),
        40..=41 => format!("HSET {hash} {field} {text}"),
        42 => format!("HINCRBYFLOAT {hash} n 0.{by}"),
        43 => format!("{} {hash}", rng.pick(&["HGETALL", "EXISTS"])),
        44 => format!("HDEL {hash} {field}"),
        45 => format!("{} {any} {other}", rng.pick(&["RENAME", "RENAMENX"])),
        46 => format!("COPY {any} {other}"),
        47 => format!("COPY {any} {other} DB {db} {}", rng.pick(&["REPLACE", "replace"])),
        48 => format!("MOVE {any} {}", rng.below(9)),
        49 => format!("EXPIRE {any} {} {}", far / 1_000, rng.pick(&["NX", "XX", "GT", "LT"])),
        50 => format!("PEXPIRE {any} {far}"),
        51 => format!("EXPIRE {any} {}", rng.pick(&["0", "-1"])),
        52 => format!("{} {any}", rng.pick(&["PERSIST", "GETDEL", "PEXPIRETIME"])),
        53 => format!("GETEX {s} {}", [format!("PX {far}"), "PERSIST".to_owned()][rng.index(2)]),
        54 => format!("RESTORE {any} {far} T{text} {}", rng.pick(&["REPLACE", "REPLACE FREQ 1"])),
        55 => format!("PUBLISH channel {text}"),
        56 => format!("EVAL draw 2 {any} {other}"),
        _ => format!("MSET {s} {text} {} {text}", rng.pick(TEXTS)),
    };
    if mix.large && rng.one_in(14) {
        line = rng
            .pick(&["GET big", "GET big", "GETDEL big", "SET", "APPEND", "SET x GET", "LPUSH", "LPOP lbig"])
            .to_owned();
        large = line != "SET" && line != "APPEND" && line != "LPUSH";
    }
    if mix.moves && rng.one_in(4) {
        let to = rng.below(4);
        line = match rng.below(12) {
            0..=1 => format!("RENAME {any} {other}"),
            2 => format!("RENAMENX {any} {other}"),
            3..=4 => format!("COPY {any} {other} REPLACE"),
            5..=6 => format!("COPY {any} {other} DB {db} REPLACE"),
            7..=8 => format!("MOVE {any} {db}"),
            9 => format!("RPOPLPUSH {list} {}", rng.pick(LISTS)),
            10 if rng.one_in(12) => rng.pick(&["FLUSHDB SYNC", "FLUSHDB ASYNC", "FLUSHALL SYNC"]).to_owned(),
            _ => format!("SWAPDB {db} {to}"),
        };
    }
    if mix.functions && rng.one_in(40) {
        let n = rng.below(3);
        line = rng.pick(&["LOAD", "LOAD", "DELETE", "LIST", "LIST WITHCODE", "FLUSH"]).to_owned();
        line = match line.as_str() {
            "LOAD" => format!("FUNCTION LOAD REPLACE #!lua~name=lib{n}\nreturn~{number}"),
            "DELETE" => format!("FUNCTION DELETE lib{n}"),
            "FLUSH" if !rng.one_in(3) => "FUNCTION LIST LIBRARYNAME lib*".to_owned(),
            other => format!("FUNCTION {other}"),
        };
    }
    if mix.expiring && rng.one_in(3) {
        line = match rng.below(12) {
            0..=5 => format!("{} {by}", rng.pick(&["INCRBY v0", "APPEND v1", "LPUSH v0", "INCRBYFLOAT v0"])),
            6 => format!("SET {short} {by} {}", rng.pick(&["KEEPTTL", "XX KEEPTTL"])),
            7 => format!("{} {short}", rng.pick(&["PERSIST", "GETEX", "INCR"])),
            8 => format!("PEXPIRE {short} {far}"),
            9 => format!("{} {short} {}", rng.pick(&["RENAME", "COPY"]), rng.pick(SHORT_LIVED)),
            10 => format!("COPY {short} {s} REPLACE"),
            _ => format!("EVAL draw 1 {short}"),
        };
    }
    if mix.keys_unknown && rng.one_in(60) {
        line = rng
            .pick(&["FLUSHALL ASYNC", "FLUSHDB SYNC", "SWAPDB 0 1", "SWAPDB 1 2", "NOSUCH key"])
            .to_owned();
    }
    let huge = tag::value(number, rng.pick(&[10_000, 33_000, 60_000, 120_000]));
    let args = match line.as_str() {
        "SET" => vec![b"SET".to_vec(), b"big".to_vec(), huge],
        "SET x GET" => vec![b"SET".to_vec(), b"big".to_vec(), huge, b"GET".to_vec()],
        "APPEND" => vec![b"APPEND".to_vec(), b"big".to_vec(), huge],
        "LPUSH" => vec![b"LPUSH".to_vec(), b"lbig".to_vec(), huge],
        _ => words(line.trim_end()),
    };
    Command { args, large: large || mix.large }
}
