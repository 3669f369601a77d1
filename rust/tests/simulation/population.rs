//! What the servers have before anybody comes.

use super::data::{Data, Item};
use super::redis::{DATABASES, Redis};
use super::rng::Rng;
use super::tag;
use super::world::Options;

/// Keys of a kind that nobody ever names, in each mirror of its own.
const OWN: u32 = 12;
/// Keys of the primary that no client names.
const OLD: u32 = 24;

/// The name of a key of the population: of each kind of route.
pub fn name(i: u32) -> String {
    format!("{}{i}", if i.is_multiple_of(3) { "lk" } else { "k" })
}

/// Whether clients never name this key.
pub fn is_still(key: &[u8]) -> bool {
    [&b"own"[..], b"lown", b"old", b"lold"].iter().any(|head| key.starts_with(head))
}

/// Give each Redis what it has from the beginning.
pub fn settle(redises: &mut [Redis], options: &Options, rng: &mut Rng) {
    let [primary, mirrors @ ..] = redises else { return };
    for i in 0..options.population {
        put(primary, &name(i), i, "p", rng);
    }
    if !options.foreign {
        return;
    }
    for i in 0..OLD {
        let old = format!("{}{i}", if i.is_multiple_of(2) { "lold" } else { "old" });
        put(primary, &old, i, "p", rng);
        for mirror in mirrors.iter_mut() {
            match rng.below(3) {
                // The same, another one, none.
                0 => {
                    let item = primary.dbs[&database(i)][old.as_bytes()].clone();
                    mirror.dbs.entry(database(i)).or_default().insert(old.clone().into_bytes(), item);
                }
                1 => put(mirror, &old, i, "m", rng),
                _ => {}
            }
        }
    }
    for mirror in mirrors {
        for i in 0..OWN {
            put(mirror, &format!("{}{i}", if i.is_multiple_of(2) { "lown" } else { "own" }), i, "m", rng);
        }
        if options.population > 0 {
            for i in 0..options.population / 2 {
                put(mirror, &name(2 * i), 2 * i, "m", rng);
            }
        }
        if rng.one_in(2) {
            mirror.libraries.insert(b"theirs".to_vec(), b"#!lua name=theirs\nreturn 1".to_vec());
        }
        if mirror.is_modern && rng.one_in(2) {
            let name = "redisha_00000000000000ff";
            let code = format!(
                "#!lua name={name}\n-- redisha:1 set=00000000000000ff role=primary of=00000000000000fe gen=3 \
                 data=complete sole=yes\nredis.register_function('{name}', function() return 1 end)"
            );
            mirror.libraries.insert(name.into(), code.into_bytes());
        }
    }
}

fn database(i: u32) -> u16 {
    if i % 5 == 4 { (i % u32::from(DATABASES)) as u16 % 3 } else { 0 }
}

fn put(redis: &mut Redis, name: &str, i: u32, whose: &str, rng: &mut Rng) {
    let part = |n: u64| format!("{whose}{n}").into_bytes();
    let n = rng.below(1_000);
    let data = match i % 4 {
        0 => Data::Text(part(n)),
        1 => Data::List([part(n), part(1)].into()),
        2 => Data::Set([part(n), part(2)].into()),
        _ => Data::Hash([(part(n), part(3))].into()),
    };
    let expires = rng.one_in(4).then(|| tag::EPOCH_MS + 1_000_000_000 + n);
    redis.dbs.entry(database(i)).or_default().insert(name.as_bytes().to_vec(), Item { data, expires });
}
