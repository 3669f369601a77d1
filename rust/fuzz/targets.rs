//! What each fuzz target does with its input. Included by the targets, and by `rust/tests/corpus.rs`, which replays the
//! corpus with a stable compiler: a finding stays found.

#![allow(dead_code, reason = "each target uses its own")]

use redisha_core::command::lookup;
use redisha_core::flow::effect::{Effect, commit, prepare};
use redisha_core::resp::{Bounds, Reply, ReplyScanner, RequestScanner, Scanned};

const OPEN: Bounds = Bounds { request: 1 << 24, authenticated: true };

/// The first byte says where to cut, the rest is what a client sends. Whole and in two pieces it is the same.
pub fn request(input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let cut = bytes.len() * usize::from(cut) / 255;
    assert_eq!(requests(bytes, &[bytes.len()]), requests(bytes, &[cut, bytes.len()]));
}

/// The commands found, each as its arguments; an error ends them.
fn requests(bytes: &[u8], ends: &[usize]) -> Vec<Vec<Vec<u8>>> {
    let (mut scanner, mut from, mut found) = (RequestScanner::default(), 0, Vec::new());
    for &end in ends {
        loop {
            let buf = bytes.get(from..end).unwrap_or(&[]);
            let (len, request) = match scanner.scan(buf, OPEN) {
                Scanned::Frame(len) => (len, Some(scanner.request(buf.get(..len).unwrap_or(&[])))),
                Scanned::Inline(len) => (len, Some(scanner.inline())),
                Scanned::Nothing(len) => (len, None),
                Scanned::Incomplete(missing) => {
                    assert!(missing > 0);
                    break;
                }
                Scanned::Malformed(error) => {
                    found.push(vec![error.to_string().into_bytes()]);
                    return found;
                }
            };
            assert!(len > 0 && len <= buf.len());
            found.extend(request.map(|r| r.args_from(0).map(<[u8]>::to_vec).collect()));
            from += len;
        }
    }
    found
}

/// The first byte says where to cut, the rest is what a server sends.
pub fn reply(input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let cut = bytes.len() * usize::from(cut) / 255;
    assert_eq!(replies(bytes, &[bytes.len()]), replies(bytes, &[cut, bytes.len()]));
    let reply = Reply::new(bytes);
    let _ = (reply.is_error(), reply.is_nil(), reply.integer(), reply.text(), reply.elem_count());
    assert!(reply.elements().map(|e| e.bytes().len()).sum::<usize>() <= bytes.len());
}

/// Where replies end, and whether an error followed.
fn replies(bytes: &[u8], ends: &[usize]) -> (Vec<usize>, bool) {
    let (mut scanner, mut from, mut found) = (ReplyScanner::default(), 0, Vec::new());
    for &end in ends {
        while from < end {
            match scanner.scan(bytes.get(from..end).unwrap_or(&[])) {
                Ok(Some(n)) => {
                    from += n;
                    found.push(from);
                }
                Ok(None) => from = end,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

/// A command, and behind it the reply that it gets. The effect is one whole command, or nothing was written.
pub fn effect(input: &[u8]) {
    let mut scanner = RequestScanner::default();
    let Scanned::Frame(len) = scanner.scan(input, OPEN) else { return };
    let (frame, reply) = input.split_at(len);
    let request = scanner.request(frame);
    let Some(command) = lookup(request.arg(0)).and_then(|c| c.resolve(&request).ok()) else { return };
    let whole = ReplyScanner::default().scan(reply) == Ok(Some(reply.len()));
    if !whole || !command.arity_ok(request.len()) || !command.is_write() {
        return;
    }
    let mut sent = Vec::new();
    let prepared = prepare(command, &request, 1_700_000_000_000, &mut sent);
    assert_eq!(prepared.rewritten, !sent.is_empty());
    let mut rescanner = RequestScanner::default();
    let request = if prepared.rewritten {
        assert_eq!(rescanner.scan(&sent, OPEN), Scanned::Frame(sent.len()));
        rescanner.request(&sent)
    } else {
        request
    };
    let mut out = Vec::new();
    match commit(prepared.rule, command, &request, Reply::new(reply), &mut out) {
        Effect::Bytes => assert_eq!(RequestScanner::default().scan(&out, OPEN), Scanned::Frame(out.len())),
        _ => assert!(out.is_empty()),
    }
}
