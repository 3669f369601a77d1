//! The replies to the parts of one command, and the one reply that they make.

use crate::resp::{Reply, encode};

use super::ticket::Ticket;
use super::{cursor, pattern};

/// How replies become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// The elements, each at its place (`MGET`).
    Elements,
    /// `OK` (`MSET`, `FLUSHALL`).
    Status,
    /// The same from all (`SCRIPT LOAD`).
    First,
    /// The sum (`DEL`, `EXISTS`, `DBSIZE`).
    Sum,
    /// One behind the other (`KEYS`).
    Names,
    /// One of those that are not nil (`RANDOMKEY`).
    Any {
        /// Which is left to chance.
        draw: u64,
    },
    /// The one reply of the server whose turn it is (`SCAN`).
    Page {
        /// Which server.
        index: usize,
        /// Of how many.
        servers: usize,
    },
}

/// What clients call the keys of a server, where that is not what it calls them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// What was cut off.
    pub prefix: Vec<u8>,
    /// Only names like this are wanted.
    pub pattern: Option<Vec<u8>>,
}

/// One part.
#[derive(Debug)]
pub struct Part {
    /// The key of its endpoint.
    pub endpoint: usize,
    /// Where its elements go ([`Join::Elements`]).
    pub places: Vec<u32>,
    /// How names in its reply are changed.
    pub naming: Option<Naming>,
    /// Its reply, once it is here.
    pub reply: Option<Vec<u8>>,
}

/// A command in parts.
#[derive(Debug)]
pub struct Merge {
    /// Whom the one reply is for, until it is given.
    pub ticket: Option<Ticket>,
    /// When the command was read, microseconds.
    pub started_us: u64,
    /// Its name.
    pub command: &'static str,
    /// It changes data.
    pub writes: bool,
    /// How its replies become one.
    pub join: Join,
    /// The parts, in the order in which they were sent.
    pub parts: Vec<Part>,
    /// Bytes of replies that are here.
    pub held: usize,
    /// More came than may be held.
    pub overflowed: bool,
}

impl Merge {
    /// The reply to a part. Whether it was the last.
    pub fn answered(&mut self, index: usize, reply: Vec<u8>, max: usize) -> bool {
        self.held += reply.len();
        if let Some(part) = self.parts.get_mut(index) {
            part.reply = Some(reply);
        }
        if self.held > max {
            self.overflow();
        }
        self.parts.iter().all(|p| p.reply.is_some())
    }

    /// More comes than may be held: what is here is given up, what comes will be.
    pub fn overflow(&mut self) {
        self.overflowed = true;
        self.held = 0;
        self.parts.iter_mut().filter_map(|p| p.reply.as_mut()).for_each(|reply| *reply = Vec::new());
    }

    /// The first endpoint whose reply is an error.
    pub fn failed(&self) -> Option<usize> {
        self.replies().find(|(_, r)| r.is_error()).map(|(part, _)| part.endpoint)
    }

    /// The one reply. `failed` is the name of [`Merge::failed`].
    pub fn write(&self, max: usize, failed: &str, out: &mut Vec<u8>) {
        if self.overflowed {
            let text = format!(
                "ERR the replies of {} Redis servers to '{}' are larger than max_output ({max} bytes), and they cannot be \
                 merged unless they are held: ask for less at once",
                self.parts.len(),
                self.command
            );
            return encode::error(out, &text);
        }
        let begin = out.len();
        if self.fail(failed, out) || self.join(out).is_some() {
            return;
        }
        out.truncate(begin);
        let code = if self.writes { "INDOUBT" } else { "ERR" };
        let text = format!("{code} the replies of the Redis servers to '{}' cannot be merged", self.command);
        encode::error(out, &text);
    }

    /// The error, if a part has one.
    ///
    /// A write that some servers have executed, or may have, is in doubt as a whole. Where none has, each says why.
    fn fail(&self, failed: &str, out: &mut Vec<u8>) -> bool {
        let Some((_, error)) = self.replies().find(|(_, r)| r.is_error()) else { return false };
        let refused = |r: Reply<'_>| r.is_error() && !r.bytes().starts_with(b"-INDOUBT ");
        if !self.writes || self.parts.len() == 1 || self.replies().all(|(_, r)| refused(r)) {
            out.extend_from_slice(error.bytes());
            return true;
        }
        let text = format!(
            "INDOUBT '{}' went to {} Redis servers, each with keys of its own, and may have been applied in part: {} answered: {}",
            self.command,
            self.parts.len(),
            failed,
            error_text(error)
        );
        encode::error(out, &text);
        true
    }

    fn replies(&self) -> impl Iterator<Item = (&Part, Reply<'_>)> {
        self.parts.iter().map(|p| (p, Reply::new(p.reply.as_deref().unwrap_or(&[]))))
    }

    /// What the replies make together. `None`: they are not what was asked for.
    fn join(&self, out: &mut Vec<u8>) -> Option<()> {
        match self.join {
            Join::Elements => self.elements(out),
            Join::Status => {
                let all = self.replies().all(|(_, r)| r.bytes() == b"+OK\r\n");
                all.then(|| encode::status(out, "OK"))
            }
            Join::First => {
                out.extend_from_slice(self.replies().next()?.1.bytes());
                Some(())
            }
            Join::Sum => {
                let sum = self.replies().try_fold(0i64, |sum, (_, r)| sum.checked_add(r.integer()?))?;
                encode::integer(out, sum);
                Some(())
            }
            Join::Names => {
                let (mut count, mut names) = (0, Vec::new());
                for (part, reply) in self.replies() {
                    count += names_of(reply, part.naming.as_ref(), &mut names)?;
                }
                encode::array(out, count);
                out.extend_from_slice(&names);
                Some(())
            }
            Join::Any { draw } => {
                let count = self.replies().filter(|(_, r)| !r.is_nil()).count() as u64;
                let chosen = draw.checked_rem(count).unwrap_or(0) as usize;
                match self.replies().filter(|(_, r)| !r.is_nil()).nth(chosen) {
                    Some((Part { naming: Some(naming), .. }, reply)) => {
                        encode::bulk(out, &[&naming.prefix, reply.text()?].concat());
                    }
                    Some((_, reply)) => out.extend_from_slice(reply.bytes()),
                    None => out.extend_from_slice(self.replies().next()?.1.bytes()),
                }
                Some(())
            }
            Join::Page { index, servers } => {
                let (part, reply) = self.replies().next()?;
                let mut elements = reply.elements();
                let (own, keys) = (elements.next()?, elements.next()?);
                let own = std::str::from_utf8(own.text()?).ok()?.parse().ok()?;
                let Some(next) = cursor::next(index, own, servers) else {
                    let text = format!("ERR the cursor {own} of one of {servers} Redis servers is too large");
                    encode::error(out, &text);
                    return Some(());
                };
                let mut names = Vec::new();
                let count = names_of(keys, part.naming.as_ref(), &mut names)?;
                encode::array(out, 2);
                encode::bulk(out, itoa::Buffer::new().format(next).as_bytes());
                encode::array(out, count);
                out.extend_from_slice(&names);
                Some(())
            }
        }
    }

    fn elements(&self, out: &mut Vec<u8>) -> Option<()> {
        let count = self.parts.iter().map(|p| p.places.len()).sum();
        let mut all: Vec<&[u8]> = vec![&[]; count];
        for (part, reply) in self.parts.iter().zip(self.replies().map(|(_, r)| r)) {
            if reply.elem_count() != part.places.len() {
                return None;
            }
            for (place, element) in part.places.iter().zip(reply.elements()) {
                *all.get_mut(*place as usize)? = element.bytes();
            }
        }
        encode::array(out, count);
        for element in all {
            out.extend_from_slice(element);
        }
        Some(())
    }
}

/// The names of a list, as clients know them. Gives their number.
fn names_of(list: Reply<'_>, naming: Option<&Naming>, out: &mut Vec<u8>) -> Option<usize> {
    if list.bytes().first() != Some(&b'*') {
        return None;
    }
    let Some(naming) = naming else {
        list.elements().for_each(|name| out.extend_from_slice(name.bytes()));
        return Some(list.elem_count());
    };
    let mut count = 0;
    let mut full = naming.prefix.clone();
    for name in list.elements() {
        full.truncate(naming.prefix.len());
        full.extend_from_slice(name.text()?);
        if naming.pattern.as_ref().is_none_or(|p| pattern::matches(p, &full)) {
            encode::bulk(out, &full);
            count += 1;
        }
    }
    Some(count)
}

/// The words of an error, without what frames them.
fn error_text(error: Reply<'_>) -> String {
    let text = String::from_utf8_lossy(error.bytes());
    let line = if text.starts_with('!') { text.lines().nth(1) } else { text.get(1..) };
    line.unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::ticket::SessionId;
    use super::*;

    fn merged(join: Join, writes: bool, parts: &[(&[u32], &str)]) -> String {
        merged_within(join, writes, parts, 1 << 20)
    }

    fn merged_within(join: Join, writes: bool, parts: &[(&[u32], &str)], max: usize) -> String {
        let naming = |_: usize| None;
        merged_as(join, writes, parts, max, naming)
    }

    fn merged_as(
        join: Join,
        writes: bool,
        parts: &[(&[u32], &str)],
        max: usize,
        naming: impl Fn(usize) -> Option<Naming>,
    ) -> String {
        let session = SessionId { slot: 0, generation: NonZeroU32::MIN };
        let part = |(i, (places, _)): (usize, &(&[u32], &str))| Part {
            endpoint: i,
            places: places.to_vec(),
            naming: naming(i),
            reply: None,
        };
        let mut merge = Merge {
            ticket: Some(Ticket::issue(session, 0)),
            started_us: 0,
            command: "mset",
            writes,
            join,
            parts: parts.iter().enumerate().map(part).collect(),
            held: 0,
            overflowed: false,
        };
        // The last one may answer first.
        for (i, (_, reply)) in parts.iter().enumerate().rev() {
            assert_eq!(merge.answered(i, reply.as_bytes().to_vec(), max), i == 0);
        }
        let mut out = Vec::new();
        let failed = merge.failed().map(|endpoint| format!("cluster/{endpoint}")).unwrap_or_default();
        merge.write(max, &failed, &mut out);
        merge.ticket.take().expect("not settled").settle();
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn elements_go_to_their_places() {
        let parts: &[(&[u32], &str)] =
            &[(&[0, 3], "*2\r\n$1\r\na\r\n$-1\r\n"), (&[1, 2], "*2\r\n$0\r\n\r\n$1\r\nb\r\n")];
        assert_eq!(merged(Join::Elements, false, parts), "*4\r\n$1\r\na\r\n$0\r\n\r\n$1\r\nb\r\n$-1\r\n");
        let short: &[(&[u32], &str)] = &[(&[0], "*1\r\n_\r\n"), (&[1, 2], "*1\r\n$1\r\nb\r\n")];
        assert!(merged(Join::Elements, false, short).starts_with("-ERR the replies"));
    }

    #[test]
    fn sums_and_statuses() {
        assert_eq!(merged(Join::Sum, true, &[(&[], ":2\r\n"), (&[], ":0\r\n"), (&[], ":5\r\n")]), ":7\r\n");
        assert_eq!(merged(Join::Status, true, &[(&[], "+OK\r\n"), (&[], "+OK\r\n")]), "+OK\r\n");
        for odd in ["", "+OK\r\n", "*1\r\n:1\r\n", ":9223372036854775807\r\n"] {
            let text = merged(Join::Sum, true, &[(&[], odd), (&[], ":1\r\n")]);
            assert!(text.starts_with("-INDOUBT "), "{odd:?} {text}");
        }
    }

    #[test]
    fn errors_say_what_may_have_happened() {
        let (ok, oom) = ("+OK\r\n", "-OOM no room\r\n");
        let (down, doubt) = ("-UNAVAILABLE it is down\r\n", "-INDOUBT it broke\r\n");
        for (replies, expected) in [
            ([down, oom], down),
            ([oom, down], oom),
            (
                [ok, down],
                "-INDOUBT 'mset' went to 2 Redis servers, each with keys of its own, and may have been applied in part: cluster/1 answered: UNAVAILABLE it is down\r\n",
            ),
            (
                [down, doubt],
                "-INDOUBT 'mset' went to 2 Redis servers, each with keys of its own, and may have been applied in part: cluster/0 answered: UNAVAILABLE it is down\r\n",
            ),
            (
                ["!6\r\nOOM no\r\n", ok],
                "-INDOUBT 'mset' went to 2 Redis servers, each with keys of its own, and may have been applied in part: cluster/0 answered: OOM no\r\n",
            ),
        ] {
            assert_eq!(merged(Join::Status, true, &replies.map(|r| (&[][..], r))), expected);
        }
        // Nothing is in doubt of what only reads.
        assert_eq!(merged(Join::Sum, false, &[(&[], ":1\r\n"), (&[], down)]), down);
    }

    #[test]
    fn what_is_too_large_is_not_held() {
        let parts: &[(&[u32], &str)] = &[(&[0], "*1\r\n$4\r\naaaa\r\n"), (&[1], "*1\r\n$4\r\nbbbb\r\n")];
        assert!(merged_within(Join::Elements, false, parts, 28).starts_with("*2\r\n"));
        let text = merged_within(Join::Elements, false, parts, 20);
        assert!(text.starts_with("-ERR the replies of 2 Redis servers to 'mset' are larger"), "{text}");
    }

    #[test]
    fn names() {
        let naming = |i| (i == 1).then(|| Naming { prefix: b"x:".to_vec(), pattern: Some(b"*b".to_vec()) });
        let parts: &[(&[u32], &str)] = &[(&[], "*1\r\n$1\r\na\r\n"), (&[], "*2\r\n$1\r\nb\r\n$1\r\nc\r\n")];
        assert_eq!(merged_as(Join::Names, false, parts, 99, naming), "*2\r\n$1\r\na\r\n$3\r\nx:b\r\n");
        let page: &[(&[u32], &str)] = &[(&[], "*2\r\n$2\r\n17\r\n*1\r\n$1\r\nb\r\n")];
        let prefixed = |_| Some(Naming { prefix: b"x:".to_vec(), pattern: None });
        let join = Join::Page { index: 1, servers: 3 };
        assert_eq!(merged_as(join, false, page, 99, prefixed), "*2\r\n$2\r\n52\r\n*1\r\n$3\r\nx:b\r\n");
        let large: &[(&[u32], &str)] = &[(&[], "*2\r\n$20\r\n18446744073709551615\r\n*0\r\n")];
        assert!(merged(join, false, large).starts_with("-ERR the cursor 18446744073709551615"));
    }

    #[test]
    fn one_of_those_that_have_a_key() {
        for draw in 0..9 {
            let parts: &[(&[u32], &str)] = &[(&[], "$-1\r\n"), (&[], "$1\r\na\r\n"), (&[], "$1\r\nb\r\n")];
            let expected = if draw % 2 == 0 { "$1\r\na\r\n" } else { "$1\r\nb\r\n" };
            assert_eq!(merged(Join::Any { draw }, false, parts), expected);
            assert_eq!(merged(Join::Any { draw }, false, &[(&[], "_\r\n"), (&[], "_\r\n")]), "_\r\n");
        }
    }
}
