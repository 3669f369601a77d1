//! Finding replies in a server's bytes. It keeps counts, not bytes: a reply of any size streams through, and a line or
//! a number may be cut anywhere.

use smallvec::SmallVec;

use super::limits;

/// The server does not speak RESP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A type byte that RESP does not have.
    #[error("unknown reply type {0:?}")]
    Kind(char),
    /// A length or count that is not a number.
    #[error("invalid length in a reply")]
    Length,
    /// Nested deeper than [`limits::DEPTH_MAX`].
    #[error("reply nested too deeply")]
    Depth,
}

#[derive(Clone, Copy, Debug, Default)]
enum Expect {
    #[default]
    Kind,
    /// Bytes up to and with the next `\n`.
    Line,
    /// The digits of a length.
    Number { kind: u8, value: u64, digits: u8, negative: bool },
    /// So many bytes, the closing `\r\n` among them.
    Body(u64),
}

/// The state of one reply being received.
#[derive(Debug, Default)]
pub struct ReplyScanner {
    expect: Expect,
    /// Elements still to come, of each aggregate that is open.
    open: SmallVec<[u64; 4]>,
}

impl ReplyScanner {
    /// Go on with `buf`, bytes not seen before. `Some(n)`: the reply ends after `n` bytes. `None`: all of `buf` belongs
    /// to a reply that goes on.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        let mut at = 0;
        loop {
            match self.expect {
                Expect::Kind => {
                    let Some(&kind) = buf.get(at) else { return Ok(None) };
                    at += 1;
                    self.expect = match kind {
                        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Expect::Line,
                        b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|' => {
                            Expect::Number { kind, value: 0, digits: 0, negative: false }
                        }
                        other => return Err(ReplyError::Kind(other as char)),
                    };
                }
                Expect::Line => {
                    let Some(i) = memchr::memchr(b'\n', buf.get(at..).unwrap_or(&[])) else {
                        return Ok(None);
                    };
                    at += i + 1;
                    if self.element_done() {
                        return Ok(Some(at));
                    }
                }
                Expect::Number { .. } => {
                    let Some(next) = self.number(buf, &mut at)? else { return Ok(None) };
                    self.expect = next;
                    if matches!(next, Expect::Kind) && self.element_done() {
                        return Ok(Some(at));
                    }
                }
                Expect::Body(left) => {
                    let here = (buf.len() - at) as u64;
                    if here < left {
                        self.expect = Expect::Body(left - here);
                        return Ok(None);
                    }
                    at += left as usize;
                    if self.element_done() {
                        return Ok(Some(at));
                    }
                }
            }
        }
    }

    /// Whether a reply has begun and is not complete.
    pub fn is_midway(&self) -> bool {
        !self.open.is_empty() || !matches!(self.expect, Expect::Kind)
    }

    /// Read digits; `Some` once the line has ended, with what comes next.
    fn number(&mut self, buf: &[u8], at: &mut usize) -> Result<Option<Expect>, ReplyError> {
        let Expect::Number { kind, mut value, mut digits, mut negative } = self.expect else {
            return Ok(Some(self.expect));
        };
        while let Some(&byte) = buf.get(*at) {
            *at += 1;
            match byte {
                b'0'..=b'9' if digits < 18 => {
                    value = value * 10 + u64::from(byte - b'0');
                    digits += 1;
                }
                b'-' if digits == 0 && !negative => negative = true,
                b'\r' if digits > 0 => {}
                b'\n' if digits > 0 => return self.begin(kind, value, negative).map(Some),
                _ => return Err(ReplyError::Length),
            }
        }
        self.expect = Expect::Number { kind, value, digits, negative };
        Ok(None)
    }

    /// A length is known: what does it open? `Expect::Kind` when an element is complete or an aggregate was opened;
    /// an opened aggregate has already been pushed.
    fn begin(&mut self, kind: u8, value: u64, negative: bool) -> Result<Expect, ReplyError> {
        let elements = match kind {
            b'$' | b'=' | b'!' => {
                return match (negative, value) {
                    (false, n) => Ok(Expect::Body(n + 2)),
                    (true, 1) => {
                        self.open.push(1);
                        Ok(Expect::Kind)
                    }
                    _ => Err(ReplyError::Length),
                };
            }
            b'%' => value.saturating_mul(2),
            // An attribute stands before the value it describes, and both count as one element.
            b'|' => value.saturating_mul(2).saturating_add(1),
            _ => value,
        };
        if elements > limits::ELEMENTS_MAX || (negative && value != 1) {
            return Err(ReplyError::Length);
        }
        if self.open.len() >= limits::DEPTH_MAX {
            return Err(ReplyError::Depth);
        }
        // One more than its elements: `element_done` now counts the aggregate's own head off.
        self.open.push(if negative { 1 } else { elements + 1 });
        Ok(Expect::Kind)
    }

    /// One element is complete; `true` when the whole reply is.
    fn element_done(&mut self) -> bool {
        self.expect = Expect::Kind;
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":12\r\n",
        b"$5\r\nhello\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"%0\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"(123456789012345678901234567890\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n$-1\r\n",
        b"~2\r\n:1\r\n:2\r\n",
        b"|1\r\n+k\r\n:1\r\n*2\r\n:1\r\n:2\r\n",
        b"*2\r\n|1\r\n+k\r\n:1\r\n:1\r\n:2\r\n",
        b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n",
    ];

    #[test]
    fn a_reply_ends_where_it_ends() {
        for reply in REPLIES {
            let mut bytes = reply.to_vec();
            bytes.extend_from_slice(b"+next\r\n");
            assert_eq!(
                ReplyScanner::default().scan(&bytes),
                Ok(Some(reply.len())),
                "{}",
                reply.escape_ascii()
            );
        }
    }

    #[test]
    fn every_split_gives_the_same_end() {
        for reply in REPLIES {
            for cut in 0..reply.len() {
                let mut scanner = ReplyScanner::default();
                assert_eq!(scanner.scan(&reply[..cut]), Ok(None), "{} at {cut}", reply.escape_ascii());
                assert_eq!(scanner.is_midway(), cut > 0);
                assert_eq!(scanner.scan(&reply[cut..]), Ok(Some(reply.len() - cut)));
                assert!(!scanner.is_midway());
            }
        }
    }

    #[test]
    fn garbage_and_bombs_are_refused() {
        let scan = |b: &[u8]| ReplyScanner::default().scan(b);
        assert_eq!(scan(b"HTTP/1.1 400\r\n"), Err(ReplyError::Kind('H')));
        assert_eq!(scan(b"$x\r\n"), Err(ReplyError::Length));
        assert_eq!(scan(b"$-2\r\n"), Err(ReplyError::Length));
        assert_eq!(scan(b"*9999999999999999999\r\n"), Err(ReplyError::Length));
        assert_eq!(scan(&b"*1\r\n".repeat(limits::DEPTH_MAX + 1)), Err(ReplyError::Depth));
    }
}
