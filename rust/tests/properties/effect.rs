//! Keys and effects of every command in the table, with arguments and replies that make sense and that do not.

use proptest::prelude::*;
use redisha_core::command::{
    COMMANDS, Command, KeysResult, by_id, first_key, keys, lookup, needs_private, other_db,
};
use redisha_core::flow::effect::{Effect, Rule, commit, prepare, sync_commands, sync_effect};
use redisha_core::resp::{Bounds, Reply, Request, RequestScanner, Scanned, encode};
use smallvec::SmallVec;

use super::config;
use super::reply::value;
use super::words::argument;

const OPEN: Bounds = Bounds { request: 1 << 30, authenticated: true };
/// A time of day for `prepare`.
const NOW: u64 = 1_700_000_000_000;

/// A command of the table, mostly with as many arguments as it needs.
fn command() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let args = prop::collection::vec(argument(), 0..10);
    (0..COMMANDS as u16, args, 0..3usize, any::<bool>()).prop_map(|(id, mut args, more, exact)| {
        let command = by_id(id);
        let mut words: Vec<Vec<u8>> = command.name.split('|').map(|w| w.as_bytes().to_vec()).collect();
        if exact {
            let needed = usize::from(command.arity.unsigned_abs()).saturating_sub(words.len());
            let wanted = needed + if command.arity < 0 { more } else { 0 };
            args.resize(wanted, b"a".to_vec());
        }
        words.extend(args);
        words
    })
}

/// A request that owns its bytes and its scanner.
struct Sent {
    frame: Vec<u8>,
    scanner: RequestScanner,
}

impl Sent {
    /// The one command that `frame` is; anything else fails.
    fn new(frame: Vec<u8>) -> Self {
        let mut scanner = RequestScanner::default();
        assert_eq!(scanner.scan(&frame, OPEN), Scanned::Frame(frame.len()), "{}", frame.escape_ascii());
        Self { frame, scanner }
    }

    fn of(words: &[Vec<u8>]) -> Self {
        let mut frame = Vec::new();
        encode::command(&mut frame, words);
        Self::new(frame)
    }

    fn request(&self) -> Request<'_> {
        self.scanner.request(&self.frame)
    }

    fn command(&self) -> Option<&'static Command> {
        lookup(self.request().arg(0))?.resolve(&self.request()).ok()
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        let mut indices = SmallVec::new();
        let request = self.request();
        keys(self.command().expect("in the table"), &request, &mut indices);
        indices.iter().map(|&i| request.arg(i as usize).to_vec()).collect()
    }
}

/// What every effect must be: one command of the table, with as many arguments as it needs, naming no key that the
/// client's command did not name, and meaning the same whenever it runs.
fn check_effect(effect: &Sent, cause: &Sent) {
    let shown = || format!("{} of {}", effect.frame.escape_ascii(), cause.frame.escape_ascii());
    let command = effect.command().unwrap_or_else(|| panic!("unknown: {}", shown()));
    assert!(command.arity_ok(effect.request().len()), "{}", shown());
    assert!(command.is_write(), "{}", shown());
    let named = cause.keys();
    assert!(effect.keys().iter().all(|key| named.contains(key)), "{}", shown());
    // `RESTORE … FREQ` lacks a value, so Redis refuses it, and what is appended (`ABSTTL`) would be taken for one.
    let last = cause.request().arg(cause.request().len() - 1).to_ascii_uppercase();
    if matches!(last.as_slice(), b"FREQ" | b"IDLETIME") {
        return;
    }
    let mut out = Vec::new();
    let again = prepare(command, &effect.request(), NOW + 5_000, &mut out);
    assert!(!again.rewritten && out.is_empty(), "it depends on the time: {}", shown());
}

proptest! {
    #![proptest_config(config(6_000))]

    #[test]
    fn keys_lie_within_the_request(words in command()) {
        let sent = Sent::of(&words);
        let request = sent.request();
        let mut found = SmallVec::new();
        for command in lookup(request.arg(0)).into_iter().chain(sent.command()) {
            let result = keys(command, &request, &mut found);
            prop_assert!(found.iter().all(|&i| 0 < i && (i as usize) < request.len()));
            // Where a malformed request has no keys, it may still seem to have a first one; Redis refuses it.
            if result == KeysResult::Known && !found.is_empty() {
                prop_assert_eq!(first_key(command, &request), found.first().copied());
            }
            let _ = (needs_private(command, &request), other_db(command, &request), command.simple_reply(request.len()));
        }
    }

    #[test]
    fn effects_are_commands_that_mean_the_same_anywhere(words in command(), value in value(), prefix: bool) {
        let cause = Sent::of(&words);
        // A client's command of a wrong number of arguments gets no further than the session.
        let Some(command) = cause.command().filter(|c| c.arity_ok(words.len()) && c.is_write()) else { return Ok(()) };
        let mut out = Vec::new();
        let prepared = prepare(command, &cause.request(), NOW, &mut out);
        prop_assert_eq!(prepared.rewritten, !out.is_empty());
        let sent = if prepared.rewritten { Sent::new(out) } else { Sent::of(&words) };
        prop_assert_eq!(sent.keys(), cause.keys(), "rewriting changes no key");
        let reply = value.bytes();
        // Effects of a transaction are appended one behind the other.
        let before = if prefix { b"*1\r\n$5\r\nMULTI\r\n".to_vec() } else { Vec::new() };
        let mut out = before.clone();
        let effect = commit(prepared.rule, command, &sent.request(), Reply::new(&reply), &mut out);
        prop_assert!(out.starts_with(&before));
        let written = out.split_off(before.len());
        match effect {
            Effect::Bytes => check_effect(&Sent::new(written), &cause),
            _ => prop_assert!(written.is_empty(), "{effect:?} wrote"),
        }
        if effect == Effect::Same {
            check_effect(&sent, &cause);
        }
        if Reply::new(&reply).is_error() && prepared.rule != Rule::Script {
            prop_assert_eq!(effect, Effect::Nothing, "what failed changed nothing");
        }
        // A long reply is streamed past, and only its first line is looked at.
        if !prepared.rule.wants_whole_reply() && reply.first() == Some(&b'$') && !Reply::new(&reply).is_nil() {
            let mut out = Vec::new();
            let streamed = commit(prepared.rule, command, &sent.request(), Reply::new(b"$0\r\n\r\n"), &mut out);
            prop_assert_eq!(streamed, effect);
        }
    }

    #[test]
    fn a_copy_is_one_command_or_none(key in prop::collection::vec(any::<u8>(), 0..9), value in value(), modern: bool) {
        let mut out = Vec::new();
        let replies = sync_commands(modern, &key, &mut out);
        let (mut scanner, mut rest, mut commands) = (RequestScanner::default(), &out[..], 0);
        while let Scanned::Frame(len) = scanner.scan(rest, OPEN) {
            rest = &rest[len..];
            commands += 1;
        }
        prop_assert_eq!((commands, rest.len()), (replies, 0));
        let mut effect = Vec::new();
        let reply = value.bytes();
        match sync_effect(&key, false, Reply::new(&reply), &mut effect) {
            Some(()) => prop_assert_eq!(Sent::new(effect).keys(), vec![key]),
            None => prop_assert!(effect.is_empty()),
        }
    }
}
