//! `SYNC key`: a key's value and expiry, read in order with the writes and replicated as one command.

use crate::resp::{Reply, encode};

/// Writes the commands that read a key, one behind the other, and returns how many replies will come; the last is for
/// [`sync_effect`]. Without `PEXPIRETIME` (Redis before 7.0) the time to live and the server's own time are read.
pub fn sync_commands(version_has_pexpiretime: bool, key: &[u8], out: &mut Vec<u8>) -> usize {
    encode::command(out, &[b"MULTI"]);
    let replies = if version_has_pexpiretime {
        encode::command(out, &[b"PEXPIRETIME", key]);
        encode::command(out, &[b"DUMP", key]);
        4
    } else {
        encode::command(out, &[b"PTTL", key]);
        encode::command(out, &[b"DUMP", key]);
        encode::command(out, &[b"TIME"]);
        5
    };
    encode::command(out, &[b"EXEC"]);
    replies
}

/// Turns the reply of that `EXEC` into `RESTORE key ttl payload REPLACE ABSTTL`, or `DEL key` if there is none. `None`,
/// and nothing written, if the reply is not one of a read that succeeded.
///
/// `gentle`: what a replica has is left alone. There `RESTORE` comes without `REPLACE`, and nothing is written for a key
/// that is not there.
pub fn sync_effect(key: &[u8], gentle: bool, exec_reply: Reply<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut results = exec_reply.elements();
    let (expiry, dump, time) = (results.next()?.integer()?, results.next()?, results.next());
    if dump.is_nil() {
        if !gentle {
            encode::command(out, &[b"DEL", key]);
        }
        return Some(());
    }
    let payload = dump.text()?;
    let at = match (expiry, time) {
        (-1, _) => 0,
        // The key was gone for the first command and is there for the second: not one transaction.
        (..-1, _) => return None,
        (at, None) => at,
        (ttl, Some(time)) => ttl.checked_add(milliseconds(time)?)?,
    };
    let mut digits = itoa::Buffer::new();
    let at = digits.format(at).as_bytes();
    if gentle {
        encode::command(out, &[b"RESTORE", key, at, payload, b"ABSTTL"]);
    } else {
        encode::command(out, &[b"RESTORE", key, at, payload, b"REPLACE", b"ABSTTL"]);
    }
    Some(())
}

/// Turns the reply of `FUNCTION LIST WITHCODE` into the commands that make the same libraries elsewhere, and returns how
/// many replies they give. `marker`: a command that writes the replica's own marker, which is a library too. `gentle`:
/// libraries are added, none is replaced.
pub fn functions_effect(list: Reply<'_>, gentle: bool, marker: Option<&[u8]>, out: &mut Vec<u8>) -> u32 {
    let mut replies = 2;
    encode::command(out, &["MULTI"]);
    // Without a marker to put in its place, none is taken away.
    let flush = !gentle && marker.is_some();
    if flush {
        encode::command(out, &["FUNCTION", "FLUSH"]);
        replies += 1;
    }
    for library in list.elements() {
        let field = |name: &[u8]| {
            let mut fields = library.elements().skip_while(|f| f.text() != Some(name));
            fields.next();
            fields.next().and_then(Reply::text)
        };
        let ours = field(b"library_name").is_none_or(|name| name.starts_with(b"redisha_"));
        if let Some(code) = field(b"library_code").filter(|_| !ours) {
            if gentle {
                encode::command(out, &[&b"FUNCTION"[..], b"LOAD", code]);
            } else {
                encode::command(out, &[&b"FUNCTION"[..], b"LOAD", b"REPLACE", code]);
            }
            replies += 1;
        }
    }
    if let Some(marker) = marker.filter(|_| flush) {
        out.extend_from_slice(marker);
        replies += 1;
    }
    encode::command(out, &["EXEC"]);
    replies
}

/// The reply of `TIME`, seconds and microseconds, in milliseconds.
fn milliseconds(time: Reply<'_>) -> Option<i64> {
    let mut parts = time.elements().map(|part| part.text().and_then(crate::resp::parse_integer));
    let (seconds, microseconds) = (parts.next()??, parts.next()??);
    seconds.checked_mul(1000)?.checked_add(microseconds / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Owned;

    fn effect(reply: &str) -> Option<String> {
        let mut out = Vec::new();
        sync_effect(b"k", false, Reply::new(reply.as_bytes()), &mut out).map(|()| Owned::parse(&out).line())
    }

    #[test]
    fn effects() {
        let restore = |at: &str| Some(format!("RESTORE k {at} data REPLACE ABSTTL"));
        for (reply, expected) in [
            ("*2\r\n:-1\r\n$4\r\ndata\r\n", restore("0")),
            ("*2\r\n:1234567\r\n$4\r\ndata\r\n", restore("1234567")),
            ("*2\r\n:-2\r\n$-1\r\n", Some("DEL k".to_owned())),
            ("*2\r\n:1234567\r\n_\r\n", Some("DEL k".to_owned())),
            ("*3\r\n:5\r\n$4\r\ndata\r\n*2\r\n$4\r\n1000\r\n$4\r\n2999\r\n", restore("1000007")),
            ("*3\r\n:-1\r\n$4\r\ndata\r\n*2\r\n$4\r\n1000\r\n$1\r\n0\r\n", restore("0")),
            ("*3\r\n:-2\r\n$-1\r\n*2\r\n$4\r\n1000\r\n$1\r\n0\r\n", Some("DEL k".to_owned())),
            ("*3\r\n:5\r\n$4\r\ndata\r\n*2\r\n$1\r\nx\r\n$1\r\n0\r\n", None),
            ("*2\r\n:-2\r\n$4\r\ndata\r\n", None),
            ("*2\r\n-ERR\r\n$4\r\ndata\r\n", None),
            ("*2\r\n:-1\r\n-ERR\r\n", None),
            ("*-1\r\n", None),
            ("-EXECABORT\r\n", None),
        ] {
            assert_eq!(effect(reply), expected, "{reply:?}");
        }
    }

    #[test]
    fn commands_and_their_number_of_replies() {
        let mut out = Vec::new();
        assert_eq!(sync_commands(true, b"k", &mut out), 4);
        assert_eq!(out.split(|byte| *byte == b'*').count(), 1 + 4);
        out.clear();
        assert_eq!(sync_commands(false, b"k", &mut out), 5);
        assert!(out.ends_with(b"*1\r\n$4\r\nTIME\r\n*1\r\n$4\r\nEXEC\r\n"));
    }
}
