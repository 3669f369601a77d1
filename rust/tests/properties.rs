//! What holds for every input, tried with random ones. `PROPTEST_CASES=n` tries more; a failure prints the smallest
//! input that shows it.

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
