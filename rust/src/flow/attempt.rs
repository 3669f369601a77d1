//! The forms of a blocking command that do not block, and what its client is told of their replies.

use super::keys::ANY;
use crate::command::{Command, group_of, lookup, without_block};
use crate::resp::{Reply, Request, RequestScanner, encode, parse_integer};

/// What Redis says of a key of another type.
pub const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
/// What it says to who waits for a stream that is gone (`serveClientsBlockedOnStreamKey`).
pub const NO_STREAM: &str = "UNBLOCKED the stream key no longer exists";
/// The same of the consumer group; whether the stream went with it is not known here.
pub const NO_GROUP: &str = "NOGROUP the consumer group this client was blocked on no longer exists";

/// How the reply to an attempt becomes the reply to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// It is the same.
    Same,
    /// `LPOP key`: the key before it.
    Behind,
    /// `ZPOPMIN key`: the key before what the array holds.
    Within,
    /// `LMPOP`, `ZMPOP`: the key, and what the innermost array holds.
    Innermost,
}

/// What is tried instead of a command that blocks.
#[derive(Debug, PartialEq)]
pub struct Attempt {
    /// The command that does not block.
    pub command: &'static Command,
    /// It, as it is sent.
    pub frame: Vec<u8>,
    /// How its reply is changed.
    pub form: Form,
    /// How long its client waits, milliseconds; 0: without end.
    pub timeout_ms: u64,
}

impl PartialEq for Command {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// What is tried instead of `request`, whose `command` may block, and writes. The error is Redis's own.
pub fn attempt_of(command: &Command, request: &Request<'_>) -> Result<Attempt, String> {
    let last = request.len().saturating_sub(1);
    let keys: Vec<&[u8]> = (1..last).map(|i| request.arg(i)).collect();
    let several = |name: &'static str, how: &'static [u8]| {
        let mut args = vec![name.as_bytes().to_vec(), keys.len().to_string().into_bytes()];
        args.extend(keys.iter().map(|k| k.to_vec()));
        args.push(how.to_vec());
        (name, args, Form::Innermost)
    };
    let single =
        |name: &'static str, form| (name, vec![name.as_bytes().to_vec(), request.arg(1).to_vec()], form);
    let rest = |from: usize, to: usize| (from..to).map(|i| request.arg(i).to_vec());
    let named = |name: &'static str, args: &mut dyn Iterator<Item = Vec<u8>>| {
        let all = std::iter::once(name.as_bytes().to_vec()).chain(args).collect();
        (name, all, Form::Same)
    };
    let ((name, args, form), timeout_ms) = match command.name {
        "blpop" if keys.len() == 1 => (single("lpop", Form::Behind), seconds(request.arg(last))?),
        "brpop" if keys.len() == 1 => (single("rpop", Form::Behind), seconds(request.arg(last))?),
        "bzpopmin" if keys.len() == 1 => (single("zpopmin", Form::Within), seconds(request.arg(last))?),
        "bzpopmax" if keys.len() == 1 => (single("zpopmax", Form::Within), seconds(request.arg(last))?),
        "blpop" => (several("lmpop", b"LEFT"), seconds(request.arg(last))?),
        "brpop" => (several("lmpop", b"RIGHT"), seconds(request.arg(last))?),
        "bzpopmin" => (several("zmpop", b"MIN"), seconds(request.arg(last))?),
        "bzpopmax" => (several("zmpop", b"MAX"), seconds(request.arg(last))?),
        "blmpop" => (named("lmpop", &mut rest(2, request.len())), seconds(request.arg(1))?),
        "bzmpop" => (named("zmpop", &mut rest(2, request.len())), seconds(request.arg(1))?),
        "blmove" => (named("lmove", &mut rest(1, 5)), seconds(request.arg(5))?),
        "brpoplpush" => (named("rpoplpush", &mut rest(1, 3)), seconds(request.arg(3))?),
        "xreadgroup" => {
            let (args, wait) = without_block(request);
            let timeout = milliseconds(wait.unwrap_or(b"0"))?;
            (named("xreadgroup", &mut args.iter().skip(1).map(|arg| arg.to_vec())), timeout)
        }
        name => return Err(format!("ERR '{name}' cannot block here")),
    };
    let command = lookup(name.as_bytes()).ok_or_else(|| format!("ERR '{name}' is not known"))?;
    let mut frame = Vec::new();
    encode::command(&mut frame, &args);
    Ok(Attempt { command, frame, form, timeout_ms })
}

/// Which of those who wait for a key a write concerns alike: who waits for another kind of value, or in another consumer group,
/// is served whether they are or not.
pub fn class_of(command: &Command, request: &Request<'_>) -> Box<[u8]> {
    match command.name {
        "xreadgroup" => group_of(request).unwrap_or_default().into(),
        name if name.starts_with("bz") => b"zset"[..].into(),
        _ => Box::default(),
    }
}

/// A timeout in seconds (`getTimeoutFromObjectOrReply`), as milliseconds.
fn seconds(text: &[u8]) -> Result<u64, String> {
    let number = std::str::from_utf8(text).ok().and_then(|t| t.parse::<f64>().ok()).filter(|n| !n.is_nan());
    match number.map(|n| n * 1_000.0) {
        None => Err("ERR timeout is not a float or out of range".to_owned()),
        Some(n) if n > i64::MAX as f64 => Err("ERR timeout is out of range".to_owned()),
        Some(n) if n < 0.0 => Err("ERR timeout is negative".to_owned()),
        Some(n) => Ok(n.ceil() as u64),
    }
}

/// The same in milliseconds.
fn milliseconds(text: &[u8]) -> Result<u64, String> {
    match parse_integer(text) {
        None => Err("ERR timeout is not an integer or out of range".to_owned()),
        Some(n) => u64::try_from(n).map_err(|_| "ERR timeout is negative".to_owned()),
    }
}

/// Whether what is tried puts what it takes into its second key.
pub fn moves(name: &[u8]) -> bool {
    name == b"lmove" || name == b"rpoplpush"
}

/// Whether what is tried names its keys behind their number.
pub fn names_several(name: &str) -> bool {
    name == "lmpop" || name == "zmpop"
}

/// Such a command, of one of its keys.
pub fn of_one_key(frame: &[u8], key: &[u8]) -> Vec<u8> {
    let mut scanner = RequestScanner::default();
    scanner.scan(frame, ANY);
    let request = scanner.request(frame);
    let keys = parse_integer(request.arg(1)).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let args: Vec<&[u8]> =
        [request.arg(0), b"1", key].into_iter().chain(request.args_from(2 + keys)).collect();
    let mut out = Vec::new();
    encode::command(&mut out, &args);
    out
}

/// The command that asks how long a list is.
pub fn length_of(key: &[u8]) -> Option<(&'static Command, Vec<u8>)> {
    let mut frame = Vec::new();
    encode::command(&mut frame, &[&b"LLEN"[..], key]);
    Some((lookup(b"LLEN")?, frame))
}

/// Whether the reply to an attempt says that there was nothing.
pub fn is_empty(reply: Reply<'_>) -> bool {
    reply.is_nil() || reply.bytes() == b"*0\r\n"
}

/// The reply to the command. `key`: the one that was tried, where there is only one.
pub fn reply_of(form: Form, key: &[u8], reply: Reply<'_>, out: &mut Vec<u8>) {
    if reply.is_error() || form == Form::Same {
        return out.extend_from_slice(reply.bytes());
    }
    let (name, values): (Vec<u8>, Vec<Reply<'_>>) = match form {
        Form::Same | Form::Behind => (Vec::new(), vec![reply]),
        Form::Within => (Vec::new(), reply.elements().collect()),
        Form::Innermost => {
            let mut both = reply.elements();
            let name = both.next().map(|k| k.bytes().to_vec()).unwrap_or_default();
            let popped = both.next().and_then(|all| all.elements().next());
            // A list's is the element itself, a sorted set's a pair.
            let values = popped
                .map(|p| if p.bytes().first() == Some(&b'*') { p.elements().collect() } else { vec![p] });
            (name, values.unwrap_or_default())
        }
    };
    encode::array(out, 1 + values.len());
    if name.is_empty() {
        encode::bulk(out, key);
    } else {
        out.extend_from_slice(&name);
    }
    for value in values {
        out.extend_from_slice(value.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(line: &str) -> Result<(String, Form, u64), String> {
        let mut frame = Vec::new();
        encode::command(&mut frame, &line.split(' ').collect::<Vec<_>>());
        let mut scanner = RequestScanner::default();
        scanner.scan(&frame, ANY);
        let request = scanner.request(&frame);
        let command = lookup(request.arg(0)).expect("known");
        let found = attempt_of(command, &request)?;
        let mut scanner = RequestScanner::default();
        scanner.scan(&found.frame, ANY);
        let sent = scanner.request(&found.frame);
        let words: Vec<_> =
            (0..sent.len()).map(|i| String::from_utf8_lossy(sent.arg(i)).into_owned()).collect();
        assert_eq!(found.command.name, words[0]);
        Ok((words.join(" "), found.form, found.timeout_ms))
    }

    #[test]
    fn what_is_tried() {
        for (line, expected, form, timeout) in [
            ("BLPOP k 0", "lpop k", Form::Behind, 0),
            ("BRPOP k 0.0011", "rpop k", Form::Behind, 2),
            ("BLPOP a b 1", "lmpop 2 a b LEFT", Form::Innermost, 1_000),
            ("BZPOPMAX k 1e1", "zpopmax k", Form::Within, 10_000),
            ("BZPOPMIN a b 0", "zmpop 2 a b MIN", Form::Innermost, 0),
            ("BLMPOP 2 1 k LEFT COUNT 3", "lmpop 1 k LEFT COUNT 3", Form::Same, 2_000),
            ("BLMOVE a b LEFT RIGHT 5", "lmove a b LEFT RIGHT", Form::Same, 5_000),
            ("BRPOPLPUSH a b 5", "rpoplpush a b", Form::Same, 5_000),
            (
                "XREADGROUP GROUP g c COUNT 2 BLOCK 7 NOACK STREAMS s >",
                "xreadgroup GROUP g c COUNT 2 NOACK STREAMS s >",
                Form::Same,
                7,
            ),
        ] {
            assert_eq!(attempt(line), Ok((expected.to_owned(), form, timeout)), "{line}");
        }
        for (line, text) in [
            ("BLPOP k x", "ERR timeout is not a float or out of range"),
            ("BLPOP k nan", "ERR timeout is not a float or out of range"),
            ("BLPOP k -1", "ERR timeout is negative"),
            ("BLPOP k 1e300", "ERR timeout is out of range"),
            ("XREADGROUP GROUP g c BLOCK 1.5 STREAMS s >", "ERR timeout is not an integer or out of range"),
            ("XREADGROUP GROUP g c BLOCK -1 STREAMS s >", "ERR timeout is negative"),
        ] {
            assert_eq!(attempt(line), Err(text.to_owned()), "{line}");
        }
    }

    #[test]
    fn one_key_of_several() {
        let mut frame = Vec::new();
        encode::command(&mut frame, &["lmpop", "2", "a", "b", "LEFT", "COUNT", "3"]);
        let mut one = Vec::new();
        encode::command(&mut one, &["lmpop", "1", "b", "LEFT", "COUNT", "3"]);
        assert_eq!(of_one_key(&frame, b"b"), one);
    }

    #[test]
    fn what_its_client_is_told() {
        for (form, reply, expected) in [
            (Form::Same, "*1\r\n:1\r\n", "*1\r\n:1\r\n"),
            (Form::Behind, "$1\r\nv\r\n", "*2\r\n$1\r\nk\r\n$1\r\nv\r\n"),
            (Form::Behind, "-WRONGTYPE x\r\n", "-WRONGTYPE x\r\n"),
            (Form::Within, "*2\r\n$1\r\nm\r\n,1.5\r\n", "*3\r\n$1\r\nk\r\n$1\r\nm\r\n,1.5\r\n"),
            (Form::Innermost, "*2\r\n$1\r\na\r\n*1\r\n$1\r\nv\r\n", "*2\r\n$1\r\na\r\n$1\r\nv\r\n"),
            (
                Form::Innermost,
                "*2\r\n$1\r\na\r\n*1\r\n*2\r\n$1\r\nm\r\n$1\r\n1\r\n",
                "*3\r\n$1\r\na\r\n$1\r\nm\r\n$1\r\n1\r\n",
            ),
        ] {
            let mut out = Vec::new();
            reply_of(form, b"k", Reply::new(reply.as_bytes()), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
        for nothing in ["$-1\r\n", "*-1\r\n", "_\r\n", "*0\r\n"] {
            assert!(is_empty(Reply::new(nothing.as_bytes())), "{nothing:?}");
        }
    }
}
