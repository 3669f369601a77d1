//! Everything must add up: what clients were answered, and what the Redis servers have in the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use redisha_core::flow::UNSETTLED;

use super::data::{Data, Item, Keys};
use super::linear;
use super::member::no_engine_dies;
use super::plans::NAMES;
use super::redis::DATABASES;
use super::script::{Heard, Kind, Level, Op, Outcome};
use super::tag;
use super::world::World;

/// A run has failed.
pub static FAILED: AtomicBool = AtomicBool::new(false);

/// Longest that clocks differ beside what they are made to (milliseconds).
const SOON_MS: u64 = 1_500;

/// Whether a write that was answered may not be missing.
fn is_safe(world: &World, op: &Op) -> bool {
    let options = &world.options;
    if op.answered <= world.lost_alone {
        return false;
    }
    let lossless = world.was_lossless && !world.is_double_fault(op.answered);
    lossless || (options.consistent && op.level >= Level::Quorum)
}

fn done(op: &Op) -> bool {
    matches!(op.outcome, Outcome::Reply(_))
}

fn unknown(op: &Op) -> bool {
    matches!(op.outcome, Outcome::Doubt | Outcome::Pending)
}

/// What two members' Redis servers have that is not the same.
pub fn differences(world: &World, one: usize, other: usize) -> Vec<String> {
    let unix = tag::EPOCH_MS + world.now / 1_000;
    let skew = world.options.skew_ms;
    let lives = |item: &&Item| item.expires.is_none_or(|at| at > unix + skew);
    let ends = |item: Option<&Item>| {
        item.and_then(|i| i.expires).is_some_and(|at| at + SOON_MS > unix && at < unix + skew + SOON_MS)
    };
    let empty = Keys::new();
    let mut found = Vec::new();
    for db in 0..DATABASES {
        let ours = world.redises[one].dbs.get(&db).unwrap_or(&empty);
        let theirs = world.redises[other].dbs.get(&db).unwrap_or(&empty);
        let keys: BTreeSet<&Vec<u8>> = ours.keys().chain(theirs.keys()).collect();
        for key in keys {
            let (a, b) = (ours.get(key), theirs.get(key));
            if ends(a) || ends(b) {
                continue;
            }
            if a.filter(lives) != b.filter(lives) {
                found.push(format!("{db}/{} is {} and {}", key.escape_ascii(), show(a), show(b)));
            }
        }
    }
    found
}

fn show(item: Option<&Item>) -> String {
    let Some(item) = item else { return "missing".to_owned() };
    let mut shown = item.data.dump().escape_ascii().to_string();
    if shown.len() > 400 {
        shown = format!("…{}", &shown[shown.len() - 400..]);
    }
    item.expires.map_or(shown.clone(), |at| format!("{shown} until {at}"))
}

/// At the end: `leader` leads, all members are in sync and nothing is asked any more.
pub fn account(world: &World, leader: usize) {
    for other in (0..world.options.members).filter(|i| *i != leader) {
        let found = differences(world, leader, other);
        assert!(found.is_empty(), "{} and {} differ at the end: {found:#?}", NAMES[leader], NAMES[other]);
    }
    {
        // A run that fails in another thread drops its tickets while it unwinds.
        let _alone = no_engine_dies();
        let failed = FAILED.load(Ordering::Relaxed);
        assert!(failed || UNSETTLED.load(Ordering::Relaxed) == 0, "tickets were dropped unsettled");
    }
    for (index, member) in world.members.iter().enumerate() {
        let member = member.as_ref().expect("nobody has its turn");
        let all: serde_json::Value =
            serde_json::from_slice(&redisha_core::stats::snapshot(std::slice::from_ref(&member.registry)))
                .unwrap();
        for endpoint in all["endpoints"].as_array().unwrap() {
            assert_eq!(endpoint["upstream_rq_active"], 0, "{}: upstream_rq_active {endpoint}", NAMES[index]);
        }
        for listener in all["listeners"].as_array().unwrap() {
            let active = &listener["downstream_rq_active"];
            assert_eq!(*active, 0, "{}: downstream_rq_active {listener}", NAMES[index]);
        }
        for replica in all["replicas"].as_array().unwrap().iter().filter(|_| index == leader) {
            assert_eq!((&replica["lag"], &replica["repair_keys"]), (&0.into(), &0.into()), "{replica}");
        }
    }
    check_history(world, leader);
}

fn check_history(world: &World, leader: usize) {
    let history = &world.history;
    let mut by_key: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in history {
        by_key.entry(&op.key).or_default().push(op);
    }
    for (key, ops) in &by_key {
        let (db, name) = key.split_once('/').unwrap();
        let item = world.redises[leader].dbs.get(&db.parse().unwrap()).and_then(|k| k.get(name.as_bytes()));
        let data = item.map(|i| &i.data);
        match name.as_bytes()[0] {
            b'r' => registers(world, key, ops, data),
            b'c' => counters(world, key, ops, data),
            b'a' => texts(world, key, ops, data),
            b'q' | b's' => queues(world, key, ops, data),
            _ => {}
        }
    }
    own_writes(world);
}

/// What is read was written, and is not older than what must be known.
fn registers(world: &World, key: &str, ops: &[&Op], data: Option<&Data>) {
    let options = &world.options;
    let writes: HashMap<&str, &&Op> =
        ops.iter().filter(|o| o.kind == Kind::Set).map(|o| (o.word.as_str(), o)).collect();
    for read in ops.iter().filter(|o| o.kind == Kind::Get) {
        let Outcome::Reply(Heard::Text(text)) = &read.outcome else { continue };
        let Some(write) = writes.get(text.as_str()) else {
            panic!("{key}: c{} read {text}, which nobody wrote", read.client);
        };
        assert!(write.outcome != Outcome::Never, "{key}: {text} was refused, and read: {write:?} {read:?}");
        assert!(write.invoked <= read.answered, "{key}: {text} was read before it was written");
    }
    let last = match data {
        None => None,
        Some(Data::Text(text)) => Some(std::str::from_utf8(text).unwrap()),
        Some(other) => panic!("{key} is {other:?}"),
    };
    let last = last.map(|text| {
        let write = writes.get(text).unwrap_or_else(|| panic!("{key} is {text}, which nobody wrote"));
        assert!(write.outcome != Outcome::Never, "{key}: {text} was refused, and is there: {write:?}");
        **write
    });
    for write in ops.iter().filter(|o| o.kind == Kind::Set && done(o) && is_safe(world, o)) {
        let Some(last) = last else {
            panic!("{key} is missing; it was written: {write:?}");
        };
        let older = last.answered < write.invoked && done(last);
        assert!(!older, "{key} is {} in the end: {last:?}, but later was written {write:?}", last.word);
    }
    if options.mix.registers_only {
        if let Err(why) = linear::check(ops) {
            panic!("{key}: {why}");
        }
    }
}

fn counters(world: &World, key: &str, ops: &[&Op], data: Option<&Data>) {
    let value: i64 = match data {
        None => 0,
        Some(Data::Text(text)) => std::str::from_utf8(text).unwrap().parse().unwrap(),
        Some(other) => panic!("{key} is {other:?}"),
    };
    let most = ops.iter().filter(|o| done(o) || unknown(o)).count() as i64;
    assert!(value <= most, "{key} is {value}; it was incremented {most} times at most");
    let safe: Vec<&&Op> = ops.iter().filter(|o| done(o) && is_safe(world, o)).collect();
    assert!(value >= safe.len() as i64, "{key} is {value}; {} increments were answered", safe.len());
    let mut seen: HashMap<i64, &Op> = HashMap::new();
    for op in safe {
        let Outcome::Reply(Heard::Integer(n)) = op.outcome else { continue };
        if let Some(other) = seen.insert(n, op) {
            panic!("{key}: {n} was handed out twice: {other:?} {op:?}");
        }
        assert!(n <= value, "{key}: {n} was handed out, and it is {value}");
    }
}

/// Each part once, and where its command was told that it is.
fn texts(world: &World, key: &str, ops: &[&Op], data: Option<&Data>) {
    let text = match data {
        None => "",
        Some(Data::Text(text)) => std::str::from_utf8(text).unwrap(),
        Some(other) => panic!("{key} is {other:?}"),
    };
    let mut ends: HashMap<String, i64> = HashMap::new();
    let mut at = 0;
    for part in text.split_inclusive('.') {
        at += part.len() as i64;
        let again = ends.insert(part.to_owned(), at);
        assert!(again.is_none(), "{key}: {part} was appended twice: {text}");
    }
    for op in ops {
        match (&op.outcome, ends.get(&op.word)) {
            (Outcome::Never, Some(_)) => panic!("{key}: {op:?} was refused, and is there"),
            (Outcome::Reply(_), None) if is_safe(world, op) => {
                panic!("{key}: {op:?} is missing: {text}");
            }
            (Outcome::Reply(Heard::Integer(n)), Some(end)) if is_safe(world, op) => {
                assert_eq!(n, end, "{key}: {op:?} is elsewhere: {text}");
            }
            _ => {}
        }
    }
}

fn queues(world: &World, key: &str, ops: &[&Op], data: Option<&Data>) {
    let there: Vec<String> = match data {
        None => Vec::new(),
        Some(Data::List(list)) => list.iter().map(|w| String::from_utf8(w.clone()).unwrap()).collect(),
        Some(Data::Set(set)) => set.iter().map(|w| String::from_utf8(w.clone()).unwrap()).collect(),
        Some(other) => panic!("{key} is {other:?}"),
    };
    let mut present = BTreeSet::new();
    for word in &there {
        assert!(present.insert(word.as_str()), "{key}: {word} is there twice");
    }
    let takes = |o: &&&Op| matches!(o.kind, Kind::Pop | Kind::Draw);
    let mut taken: HashMap<&str, &Op> = HashMap::new();
    for op in ops.iter().filter(takes).filter(|o| is_safe(world, o)) {
        let Outcome::Reply(Heard::Text(word)) = &op.outcome else { continue };
        if let Some(other) = taken.insert(word, op) {
            panic!("{key}: {word} was taken twice: {other:?} {op:?}");
        }
        assert!(!present.contains(word.as_str()), "{key}: {word} was taken, and is there: {op:?}");
    }
    let lossy = ops.iter().filter(takes).filter(|o| done(o) && !is_safe(world, o)).count();
    let doubtful = ops.iter().filter(takes).filter(|o| unknown(o)).count() + lossy;
    let mut missing = Vec::new();
    for op in ops.iter().filter(|o| matches!(o.kind, Kind::Push | Kind::Add)) {
        let here = present.contains(op.word.as_str());
        if op.outcome == Outcome::Never {
            assert!(
                !here && !taken.contains_key(op.word.as_str()),
                "{key}: {op:?} was refused, and is there"
            );
        }
        if done(op) && is_safe(world, op) && !here && !taken.contains_key(op.word.as_str()) {
            missing.push(op);
        }
    }
    assert!(
        missing.len() <= doubtful,
        "{key}: {} are missing, {doubtful} may be taken: {missing:?}",
        missing.len()
    );
}

/// Who has written a key reads that or something later on the same connection.
fn own_writes(world: &World) {
    let words: HashMap<(&str, &str), &Op> = world
        .history
        .iter()
        .filter(|o| o.kind == Kind::Set)
        .map(|o| ((o.key.as_str(), o.word.as_str()), o))
        .collect();
    let mut last: HashMap<(u32, &str), &Op> = HashMap::new();
    for op in &world.history {
        let at = (op.client, op.key.as_str());
        match (&op.kind, &op.outcome) {
            (Kind::Set, Outcome::Reply(_)) if is_safe(world, op) => {
                last.insert(at, op);
            }
            (Kind::Get, Outcome::Reply(heard)) => {
                let Some(own) = last.get(&at) else { continue };
                let stale = match heard {
                    Heard::Text(word) => {
                        let write = words[&(op.key.as_str(), word.as_str())];
                        write.word != own.word && done(write) && write.answered < own.invoked
                    }
                    _ => true,
                };
                assert!(!stale, "c{} wrote {own:?} and read {op:?}", op.client);
            }
            _ => {}
        }
    }
}
