//! What holds for every input, tried with random ones. `PROPTEST_CASES=n` tries more; a failure prints the smallest
//! input that shows it.

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

#[path = "properties/effect.rs"]
mod effect;
#[path = "properties/pieces.rs"]
mod pieces;
#[path = "properties/reply.rs"]
mod reply;
#[path = "properties/request.rs"]
mod request;
#[path = "properties/words.rs"]
mod words;

use proptest::prelude::ProptestConfig;

/// `cases` runs of a property, or what the environment asks for. Nothing is written next to the sources: what was found
/// once becomes a test with a name.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}
