//! The fuzz corpus, replayed with a stable compiler, and mutations of it: `MUTATIONS=n` per file (`make fuzz` asks for
//! many where libFuzzer is not there).

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::trivially_copy_pass_by_ref,
    clippy::needless_for_each,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    clippy::assigning_clones,
    reason = "a test that panics has found something"
)]

#[path = "simulation/rng.rs"]
#[expect(dead_code, reason = "the simulation uses more of it")]
mod rng;
#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

use rng::Rng;

/// Each file of a target's corpus, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rust/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("a corpus")
        .map(|entry| entry.expect("a file").path())
        .map(|path| (path.to_string_lossy().into_owned(), fs::read(&path).expect("a file")))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Change a few bytes: set, insert, remove, repeat, or take some of another input.
fn mutate(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    const TELLING: &[u8] = b"*$%~>|!=_#,(+-:0123456789\r\n\0\xff";
    for _ in 0..=rng.below(4) {
        let at = rng.index(input.len() + 1);
        let until = at + rng.index((input.len() - at).min(9) + 1);
        match rng.below(6) {
            0 if at < input.len() => input[at] = rng.next() as u8,
            1 if at < input.len() => input[at] = rng.pick(TELLING),
            2 => input.insert(at, rng.pick(TELLING)),
            3 => drop(input.drain(at..until)),
            4 => {
                let part = input[at..until].to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let from = rng.index(other.len() + 1);
                input.splice(at..until, other[from..].iter().copied().take(20));
            }
        }
    }
}

fn replay(target: &str, run: fn(&[u8])) {
    let mutations = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let files = corpus(target);
    let mut rng = Rng::new(files.len() as u64);
    for (name, input) in &files {
        run(input);
        for _ in 0..mutations {
            let mut mutant = input.clone();
            mutate(&mut mutant, &files[rng.index(files.len())].1, &mut rng);
            assert!(
                std::panic::catch_unwind(|| run(&mutant)).is_ok(),
                "a mutant of {name} fails: {}",
                mutant.escape_ascii()
            );
        }
    }
}

#[test]
fn requests() {
    replay("request", targets::request);
}

#[test]
fn replies() {
    replay("reply", targets::reply);
}

#[test]
fn effects() {
    replay("effect", targets::effect);
}
