//! One line in, one line out: how the tables of these tests are run.

use super::{Effect, Rule, commit, prepare};
use crate::command::testing::Owned;
use crate::command::{Command, lookup};
use crate::resp::{Reply, Request};

/// The time now in these tests.
pub(super) const NOW: u64 = 1_000_000_000_000;

fn command(req: &Request<'_>, line: &str) -> &'static Command {
    lookup(req.arg(0)).and_then(|command| command.resolve(req).ok()).expect(line)
}

/// What is sent instead of a command (empty: itself), and its rule.
pub(super) fn prepared(line: &str) -> (String, Rule) {
    let owned = Owned::new(line);
    let (req, mut out) = (owned.request(), Vec::new());
    let prepared = prepare(command(&req, line), &req, NOW, &mut out);
    assert_eq!(prepared.rewritten, !out.is_empty(), "{line}");
    (if prepared.rewritten { Owned::parse(&out).line() } else { String::new() }, prepared.rule)
}

/// The effect of a command with that reply: `nothing`, `sync`, `=` for the command itself, else what is replicated.
pub(super) fn committed(line: &str, reply: &str) -> String {
    let owned = Owned::new(line);
    let (req, mut out) = (owned.request(), Vec::new());
    let command = command(&req, line);
    let prepared = prepare(command, &req, NOW, &mut out);
    let sent = if prepared.rewritten { Owned::parse(&out) } else { owned };
    out.clear();
    match commit(prepared.rule, command, &sent.request(), Reply::new(reply.as_bytes()), &mut out) {
        Effect::Nothing => "nothing".to_owned(),
        Effect::Sync => "sync".to_owned(),
        Effect::Same if prepared.rewritten => sent.line(),
        Effect::Same => "=".to_owned(),
        Effect::Bytes => Owned::parse(&out).line(),
    }
}
