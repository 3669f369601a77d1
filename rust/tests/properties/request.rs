//! The request scanner.

use proptest::prelude::*;
use redisha_core::resp::{Bounds, ProtocolError, RequestScanner, Scanned, encode};

use super::config;
use super::pieces::{cuts, ends};
use super::words::{arguments, bytes};

const OPEN: Bounds = Bounds { request: 1 << 30, authenticated: true };

/// One thing found in a stream of commands.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Command(Vec<Vec<u8>>),
    Malformed(ProtocolError),
}

/// Scan a stream that comes in pieces, as a session does it: the bytes of a command stay together, its first byte at the
/// front. Checks on the way that the scanner always goes on, and never asks for bytes past the command's end where that
/// end is known to be `known_ends`.
fn scan(stream: &[u8], pieces: &[usize], known_ends: Option<&[usize]>) -> Vec<Found> {
    let (mut scanner, mut found, mut from) = (RequestScanner::default(), Vec::new(), 0);
    for &here in pieces {
        loop {
            let buf = &stream[from..here];
            let (len, args) = match scanner.scan(buf, OPEN) {
                Scanned::Frame(len) => (len, args(&scanner.request(&buf[..len]))),
                Scanned::Inline(len) => (len, args(&scanner.inline())),
                Scanned::Nothing(len) => (len, Vec::new()),
                Scanned::Incomplete(missing) => {
                    assert!(missing > 0);
                    if let Some(end) = known_ends.and_then(|ends| ends.iter().find(|&&end| end > from)) {
                        assert!(
                            here + missing <= *end,
                            "{missing} bytes asked for where {} are left",
                            end - here
                        );
                    }
                    assert!(buf.is_empty() || scanner.is_midway());
                    break;
                }
                Scanned::Malformed(error) => {
                    found.push(Found::Malformed(error));
                    return found;
                }
            };
            assert!(0 < len && len <= buf.len());
            assert!(!scanner.is_midway());
            if !args.is_empty() {
                found.push(Found::Command(args));
            }
            from += len;
        }
    }
    found
}

fn args(request: &redisha_core::resp::Request<'_>) -> Vec<Vec<u8>> {
    assert!(!request.is_empty());
    request.args_from(0).map(<[u8]>::to_vec).collect()
}

fn encoded(commands: &[Vec<Vec<u8>>]) -> (Vec<u8>, Vec<usize>) {
    let (mut stream, mut ends) = (Vec::new(), Vec::new());
    for command in commands {
        encode::command(&mut stream, command);
        ends.push(stream.len());
    }
    (stream, ends)
}

/// An argument as a careful client types it: in double quotes, everything unusual escaped.
fn typed(arg: &[u8]) -> String {
    let mut out = String::from("\"");
    for &b in arg {
        match b {
            b'"' | b'\\' => out.extend(['\\', b as char]),
            b' '..=b'~' => out.push(b as char),
            _ => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out + "\""
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn what_is_encoded_is_found_however_it_is_cut(
        commands in prop::collection::vec(arguments(), 1..6), cuts in cuts(),
    ) {
        let (stream, command_ends) = encoded(&commands);
        let found = scan(&stream, &ends(stream.len(), &cuts), Some(&command_ends));
        prop_assert_eq!(found, commands.into_iter().map(Found::Command).collect::<Vec<_>>());
    }

    #[test]
    fn a_typed_line_is_the_same_command(command in prop::collection::vec(bytes(), 1..6), cuts in cuts(), crlf: bool) {
        if command.iter().map(Vec::len).sum::<usize>() > 10_000 {
            return Ok(()); // too long a line
        }
        let mut line = command.iter().map(|arg| typed(arg)).collect::<Vec<_>>().join(" ");
        line.push_str(if crlf { "\r\n" } else { "\n" });
        let found = scan(line.as_bytes(), &ends(line.len(), &cuts), None);
        prop_assert_eq!(found, vec![Found::Command(command.clone())]);
        // And so are its bytes, which is what leaves for Redis.
        let mut scanner = RequestScanner::default();
        prop_assert_eq!(scanner.scan(line.as_bytes(), OPEN), Scanned::Inline(line.len()));
        prop_assert_eq!(scanner.inline().frame, &encoded(&[command]).0[..]);
    }

    #[test]
    fn garbage_is_refused_or_skipped_however_it_is_cut(garbage in garbage(), cuts in cuts()) {
        let whole = scan(&garbage, &[garbage.len()], None);
        let pieces = scan(&garbage, &ends(garbage.len(), &cuts), None);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn damaged_commands_are_refused_or_something_else_however_they_are_cut(
        commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..5), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in cuts(),
    ) {
        let mut stream = encoded(&commands).0;
        for (at, byte) in damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        prop_assert_eq!(scan(&stream, &[stream.len()], None), scan(&stream, &ends(stream.len(), &cuts), None));
    }

    #[test]
    fn before_authentication_little_is_taken(command in arguments()) {
        let stream = encoded(std::slice::from_ref(&command)).0;
        let scanned = RequestScanner::default().scan(&stream, Bounds { authenticated: false, ..OPEN });
        let large = command.len() > 10 || command.iter().any(|arg| arg.len() > 16_384);
        prop_assert_eq!(matches!(scanned, Scanned::Malformed(_)), large);
    }

    #[test]
    fn no_command_is_larger_than_the_bound(command in arguments(), bound in 0..100_000usize) {
        let stream = encoded(std::slice::from_ref(&command)).0;
        let mut scanner = RequestScanner::default();
        if let Scanned::Frame(len) = scanner.scan(&stream, Bounds { request: bound, authenticated: true }) {
            // The last line break is not counted.
            prop_assert!(len <= bound + 2);
        }
    }
}

/// Bytes that are no protocol, of the protocol's alphabet or of any.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(prop::sample::select(&b"*$-0123456789\r\n\n\"'\\x ab\0"[..]), 0..200),
        (prop::collection::vec(
            prop::sample::select(
                &[
                    "*2\r\n",
                    "*1\r\n",
                    "$3\r\n",
                    "SET\r\n",
                    "$0\r\n",
                    "\r\n",
                    "*-1\r\n",
                    "*0\r\n",
                    "$-1\r\n",
                    "PING\r\n",
                    "*2147483648\r\n",
                    "$99999999999\r\n",
                    "*",
                    "$",
                    "\r"
                ][..]
            ),
            0..20
        ))
        .prop_map(|parts| parts.concat().into_bytes()),
    ]
}
