//! `INFO` as an application sees it: clients that wait here, in a line or for the end of a pause, are blocked clients, although
//! the Redis has not heard of them.

use crate::resp::Reply;

use super::Engine;
use super::session::Wait;

const FIELD: &[u8] = b"\r\nblocked_clients:";

impl Engine {
    /// The clients that are blocked here rather than at the Redis that is asked.
    pub(super) fn blocked_here(&self) -> usize {
        let waits = |slot: usize| {
            let Some(session) = self.sessions.get(slot) else { return false };
            let elsewhere = session.private_ref().and_then(|p| self.upstreams.get(p.upstream));
            session.wait == Wait::Pause
                || self.waits_in_line(session.id)
                || elsewhere.is_some_and(|u| self.endpoints[u.endpoint].peer && self.is_blocked(slot))
        };
        self.sessions.iter().filter(|(slot, _)| waits(*slot)).count()
    }
}

/// The reply to `INFO`, in which so many clients more are blocked.
pub(super) fn with_blocked(reply: Reply<'_>, more: usize, out: &mut Vec<u8>) {
    match reply.text().and_then(|text| changed(text, more)) {
        Some(text) => {
            let kind = reply.bytes().first().copied().unwrap_or(b'$'); // in RESP3 it is a verbatim string
            out.push(kind);
            let prefix: &[u8] = if kind == b'=' { b"txt:" } else { b"" };
            out.extend_from_slice(itoa::Buffer::new().format(prefix.len() + text.len()).as_bytes());
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(prefix);
            out.extend_from_slice(&text);
            out.extend_from_slice(b"\r\n");
        }
        None => out.extend_from_slice(reply.bytes()),
    }
}

fn changed(text: &[u8], more: usize) -> Option<Vec<u8>> {
    let from = memchr::memmem::find(text, FIELD).filter(|_| more > 0)? + FIELD.len();
    let (before, rest) = text.split_at_checked(from)?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, after) = rest.split_at_checked(digits)?;
    let number = std::str::from_utf8(number).ok()?.parse::<usize>().ok()?;
    Some([before, itoa::Buffer::new().format(number + more).as_bytes(), after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reply: &str, more: usize) -> String {
        let mut out = Vec::new();
        with_blocked(Reply::new(reply.as_bytes()), more, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn those_who_wait_here_are_added() {
        let text = "# Clients\r\nconnected_clients:3\r\nblocked_clients:8\r\nx:1\r\n";
        let more = "# Clients\r\nconnected_clients:3\r\nblocked_clients:10\r\nx:1\r\n";
        let bulk = |s: &str| format!("${}\r\n{s}\r\n", s.len());
        let verbatim = |s: &str| format!("={}\r\ntxt:{s}\r\n", s.len() + 4);
        assert_eq!(told(&bulk(text), 2), bulk(more));
        assert_eq!(told(&verbatim(text), 2), verbatim(more));
        assert_eq!(told(&bulk(text), 0), bulk(text));
    }

    #[test]
    fn what_is_not_there_is_not_added() {
        for reply in
            ["$9\r\n# Memory\r\n\r\n", "-NOPERM no\r\n", "$25\r\n# C\r\nblocked_clients:\r\n\r\n\r\n"]
        {
            assert_eq!(told(reply, 2), reply);
        }
    }
}
