//! Whether a mirror has what the primary has.

use std::collections::BTreeSet;

use super::data::{Item, Keys, alive};
use super::library::is_marker;
use super::plans::Routes;
use super::population::is_still;
use super::redis::{DATABASES, Redis};
use super::tag;
use super::world::World;

/// Redisha's own key, where there are no functions.
const MARKERS: &[u8] = b"redisha:markers";

/// Whether a mirror gets a key, by the plan.
pub fn takes(routes: Routes, mirror: usize, key: &[u8]) -> bool {
    match routes {
        Routes::All(n) => mirror <= n,
        Routes::Split => key.starts_with(b"l") == (mirror == 1),
    }
}

/// What mirror number `mirror` (1, 2) has that the primary has not, and the other way round, of the keys that it gets.
/// `wanted` is asked of database, key and the size of the primary's value.
pub fn differences(world: &World, mirror: usize, wanted: impl Fn(u16, &[u8], usize) -> bool) -> Vec<String> {
    let now = tag::EPOCH_MS + world.now / 1_000;
    let (primary, copy) = (&world.redises[0], &world.redises[mirror]);
    let empty = Keys::new();
    let mut found = Vec::new();
    for db in 0..DATABASES {
        let ours = alive(primary.dbs.get(&db).unwrap_or(&empty), now);
        let theirs = alive(copy.dbs.get(&db).unwrap_or(&empty), now);
        let keys: BTreeSet<&[u8]> = ours.keys().chain(theirs.keys()).copied().collect();
        for key in keys {
            let (mine, its) = (ours.get(key).copied(), theirs.get(key).copied());
            if mine == its || key == MARKERS || !takes(world.routes, mirror, key) {
                continue;
            }
            if wanted(db, key, mine.map_or(0, |item| item.data.dump().len())) {
                found.push(format!("{db}/{} is {}, and there {}", key.escape_ascii(), show(mine), show(its)));
            }
        }
    }
    found
}

/// The libraries of both, but for redisha's own.
pub fn libraries_differ(world: &World, mirror: usize) -> Option<String> {
    let of = |redis: &Redis| -> Vec<String> {
        let mine = redis.libraries.iter().filter(|(name, _)| !is_marker(name));
        mine.map(|(_, code)| code.escape_ascii().to_string()).collect()
    };
    let (ours, theirs) = (of(&world.redises[0]), of(&world.redises[mirror]));
    let functions = world.redises[0].is_modern && world.redises[mirror].is_modern;
    (functions && ours != theirs).then(|| format!("libraries {ours:?} and {theirs:?}"))
}

fn show(item: Option<&Item>) -> String {
    let Some(item) = item else { return "missing".to_owned() };
    let mut shown = item.data.dump().escape_ascii().to_string();
    shown.truncate(60);
    item.expires.map_or(shown.clone(), |at| format!("{shown} until {at}"))
}

/// A mirror that others write to as well: what it had is as it was, but for keys that clients name; and it got what it
/// had not.
pub fn is_left_alone(world: &World, mirror: usize) -> Result<(), String> {
    let now = tag::EPOCH_MS + world.now / 1_000;
    let at = |index: usize, db: u16, key: &[u8]| -> Option<Item> {
        let item = world.redises[index].dbs.get(&db)?.get(key)?;
        item.expires.is_none_or(|at| at > now).then(|| item.clone())
    };
    for (db, keys) in &world.at_start[mirror].dbs {
        for (key, item) in keys.iter().filter(|(key, _)| is_still(key)) {
            if at(mirror, *db, key).as_ref() != Some(item) {
                let now = at(mirror, *db, key);
                return Err(format!("{db}/{} was {item:?} and is {now:?}", key.escape_ascii()));
            }
        }
    }
    for (name, code) in &world.at_start[mirror].libraries {
        if world.redises[mirror].libraries.get(name) != Some(code) {
            return Err(format!("the library {} was touched", name.escape_ascii()));
        }
    }
    let had = |db: u16, key: &[u8]| world.at_start[mirror].dbs.get(&db).is_some_and(|k| k.contains_key(key));
    let lacks = differences(world, mirror, |db, key, _| is_still(key) && !had(db, key));
    if lacks.is_empty() { Ok(()) } else { Err(format!("what it lacked was not added: {lacks:#?}")) }
}
