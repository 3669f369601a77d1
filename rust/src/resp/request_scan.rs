//! Finding commands in a client's bytes. Resumable: a frame that is not complete is picked up where it stopped.

use super::{Request, Span, inline, limits};

/// What [`RequestScanner::scan`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Scanned {
    /// A command of this many bytes; [`RequestScanner::request`] shows it.
    Frame(usize),
    /// An inline command of this many bytes; [`RequestScanner::inline`] shows it as an array of bulk strings.
    Inline(usize),
    /// Bytes that ask for nothing (an empty line, `*0`), to be skipped.
    Nothing(usize),
    /// More bytes are needed, at least this many.
    Incomplete(usize),
    /// The client does not speak RESP; it gets the text and is closed.
    Malformed(ProtocolError),
}

/// Redis's own protocol errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// An inline request longer than [`limits::INLINE_MAX`].
    #[error("too big inline request")]
    BigInline,
    /// Quotes of an inline request that do not close.
    #[error("unbalanced quotes in request")]
    Quotes,
    /// A `*` line without an end.
    #[error("too big mbulk count string")]
    BigCount,
    /// A `$` line without an end.
    #[error("too big bulk count string")]
    BigBulkCount,
    /// The number of arguments is not a number, or too large.
    #[error("invalid multibulk length")]
    Count,
    /// Too many arguments before AUTH.
    #[error("unauthenticated multibulk length")]
    CountUnauthenticated,
    /// An argument's length is not a number, negative or too large.
    #[error("invalid bulk length")]
    Bulk,
    /// Too long an argument before AUTH.
    #[error("unauthenticated bulk length")]
    BulkUnauthenticated,
    /// Something else than a bulk string.
    #[error("expected '$', got '{}'", *.0 as char)]
    NotBulk(u8),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expect {
    #[default]
    Start,
    Head,
    Body(u32),
}

/// The state of one command being received. Offsets count from the command's first byte, which stays at `buf[0]` from
/// call to call.
#[derive(Debug, Default)]
pub struct RequestScanner {
    args: Vec<Span>,
    inline: Vec<u8>,
    at: usize,
    missing: u32,
    expect: Expect,
    /// Where the search for a line's end goes on.
    searched: usize,
}

/// What the scanner must know of the session.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most bytes of one command.
    pub request: usize,
    /// Whether the session may use the full limits.
    pub authenticated: bool,
}

impl RequestScanner {
    /// Look for one command at the start of `buf`.
    pub fn scan(&mut self, buf: &[u8], bounds: Bounds) -> Scanned {
        if self.expect == Expect::Start {
            self.args.clear();
            match buf.first() {
                None => return Scanned::Incomplete(1),
                Some(b'*') => {}
                Some(_) => return self.scan_inline(buf),
            }
            let count = match self.number(buf, 1, ProtocolError::BigCount) {
                Ok(Some(Number { value, end })) => {
                    self.at = end;
                    value
                }
                Ok(None) => return Scanned::Incomplete(1),
                Err(e) => return Scanned::Malformed(e),
            };
            match count {
                None => return Scanned::Malformed(ProtocolError::Count),
                Some(n) if n > limits::ARGS_MAX => return Scanned::Malformed(ProtocolError::Count),
                Some(n) if n > limits::ARGS_MAX_UNAUTHENTICATED && !bounds.authenticated => {
                    return Scanned::Malformed(ProtocolError::CountUnauthenticated);
                }
                Some(n) if n <= 0 => return Scanned::Nothing(std::mem::take(&mut self.at)),
                Some(n) => self.missing = n as u32,
            }
            self.expect = Expect::Head;
        }
        self.scan_args(buf, bounds)
    }

    fn scan_args(&mut self, buf: &[u8], bounds: Bounds) -> Scanned {
        loop {
            let len = match self.expect {
                Expect::Body(len) => len as usize,
                _ => {
                    match buf.get(self.at) {
                        None => return Scanned::Incomplete(1),
                        Some(b'$') => {}
                        // Redis looks at the byte only once it has the whole line.
                        Some(&other) => {
                            return match self.number(buf, self.at, ProtocolError::BigBulkCount) {
                                Ok(None) => Scanned::Incomplete(1),
                                Ok(Some(_)) => Scanned::Malformed(ProtocolError::NotBulk(other)),
                                Err(e) => Scanned::Malformed(e),
                            };
                        }
                    }
                    let Number { value, end } =
                        match self.number(buf, self.at + 1, ProtocolError::BigBulkCount) {
                            Ok(Some(number)) => number,
                            Ok(None) => return Scanned::Incomplete(1),
                            Err(e) => return Scanned::Malformed(e),
                        };
                    let len = match value {
                        Some(n) if n >= 0 && n as u64 <= bounds.request.saturating_sub(end) as u64 => n,
                        _ => return Scanned::Malformed(ProtocolError::Bulk),
                    };
                    if len > limits::BULK_MAX_UNAUTHENTICATED && !bounds.authenticated {
                        return Scanned::Malformed(ProtocolError::BulkUnauthenticated);
                    }
                    self.at = end;
                    self.expect = Expect::Body(len as u32);
                    len as usize
                }
            };
            let end = self.at + len;
            if buf.len() < end + 2 {
                // What follows an argument is at least "$0\r\n\r\n", or nothing.
                let rest = if self.missing > 1 { 6 } else { 0 };
                return Scanned::Incomplete(end + 2 - buf.len() + rest);
            }
            self.args.push(Span { start: self.at as u32, end: end as u32 });
            self.at = end + 2;
            self.missing -= 1;
            self.expect = Expect::Head;
            if self.missing == 0 {
                self.expect = Expect::Start;
                return Scanned::Frame(std::mem::take(&mut self.at));
            }
        }
    }

    /// The command that [`Scanned::Frame`] told of; `frame` are its bytes.
    #[inline]
    pub fn request<'a>(&'a self, frame: &'a [u8]) -> Request<'a> {
        Request { frame, args: &self.args }
    }

    /// The command that [`Scanned::Inline`] told of.
    pub fn inline(&self) -> Request<'_> {
        Request { frame: &self.inline, args: &self.args }
    }

    /// Spans kept for the next command.
    pub fn keep(&self) -> usize {
        self.args.capacity()
    }

    /// Whether a command has begun and is not complete.
    pub fn is_midway(&self) -> bool {
        self.expect != Expect::Start || self.searched != 0
    }

    fn scan_inline(&mut self, buf: &[u8]) -> Scanned {
        let Some(newline) =
            memchr::memchr(b'\n', buf.get(self.searched..).unwrap_or(&[])).map(|i| i + self.searched)
        else {
            self.searched = buf.len();
            if buf.len() > limits::INLINE_MAX {
                return Scanned::Malformed(ProtocolError::BigInline);
            }
            return Scanned::Incomplete(1);
        };
        self.searched = 0;
        let line = buf.get(..newline).unwrap_or(&[]);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match inline::split(line, &mut self.inline, &mut self.args) {
            Err(inline::Unbalanced) => Scanned::Malformed(ProtocolError::Quotes),
            Ok(0) => Scanned::Nothing(newline + 1),
            Ok(_) => Scanned::Inline(newline + 1),
        }
    }

    /// The number in the line that starts at `from`. Like Redis, only the `\r` is looked for; the byte after it is
    /// skipped whatever it is.
    #[inline]
    fn number(
        &mut self,
        buf: &[u8],
        from: usize,
        too_long: ProtocolError,
    ) -> Result<Option<Number>, ProtocolError> {
        // Nearly always one to four digits that are all here.
        let mut value = 0i64;
        for (i, &byte) in buf.get(from..).unwrap_or(&[]).iter().take(10).enumerate() {
            match byte {
                b'0'..=b'9' if i == 0 || value != 0 => value = value * 10 + i64::from(byte - b'0'),
                b'\r' if i > 0 && buf.len() > from + i + 1 => {
                    self.searched = 0;
                    return Ok(Some(Number { value: Some(value), end: from + i + 2 }));
                }
                _ => break,
            }
        }
        let start = from.max(self.searched);
        let found = memchr::memchr(b'\r', buf.get(start..).unwrap_or(&[])).map(|i| i + start);
        match found {
            Some(cr) if cr + 1 < buf.len() => {
                self.searched = 0;
                Ok(Some(Number { value: parse_integer(buf.get(from..cr).unwrap_or(&[])), end: cr + 2 }))
            }
            // Redis counts from the line's first byte.
            _ if buf.len() - (from - 1).min(buf.len()) > limits::INLINE_MAX => Err(too_long),
            _ => {
                self.searched = found.unwrap_or(buf.len());
                Ok(None)
            }
        }
    }
}

struct Number {
    value: Option<i64>,
    end: usize,
}

/// A decimal integer as Redis's `string2ll` takes it: no sign `+`, no leading zero, no space, within `i64`.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match digits {
        [b'0'] => return (!negative).then_some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value = 0i64;
    for &d in digits {
        if !d.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(d - b'0');
        value = value.checked_mul(10)?;
        value = if negative { value.checked_sub(digit)? } else { value.checked_add(digit)? };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Bounds = Bounds { request: 1 << 20, authenticated: true };

    fn one(bytes: &[u8]) -> Scanned {
        RequestScanner::default().scan(bytes, OPEN)
    }

    #[test]
    fn a_command_is_found_with_its_arguments() {
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n*1\r\n";
        let mut scanner = RequestScanner::default();
        assert_eq!(scanner.scan(bytes, OPEN), Scanned::Frame(31));
        let request = scanner.request(&bytes[..31]);
        assert_eq!([request.arg(0), request.arg(1), request.arg(2)], [&b"SET"[..], b"k", b"hello"]);
        assert_eq!(request.arg(3), b"");
    }

    #[test]
    fn every_split_gives_the_same_command() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$12\r\nabcdefghijkl\r\n";
        for cut in 0..bytes.len() {
            let mut scanner = RequestScanner::default();
            let first = scanner.scan(&bytes[..cut], OPEN);
            assert!(
                matches!(first, Scanned::Incomplete(n) if n >= 1 && n <= bytes.len() - cut),
                "{cut}: {first:?}"
            );
            assert_eq!(scanner.scan(bytes, OPEN), Scanned::Frame(bytes.len()), "{cut}");
            assert_eq!(scanner.request(bytes).arg(1), b"abcdefghijkl");
        }
    }

    #[test]
    fn malformed_bytes_get_redis_own_texts() {
        let text = |bytes: &[u8]| match one(bytes) {
            Scanned::Malformed(e) => e.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(text(b"*abc\r\n"), "invalid multibulk length");
        assert_eq!(text(b"*2147483648\r\n"), "invalid multibulk length");
        assert_eq!(text(b"*1\r\nx3\r\n"), "expected '$', got 'x'");
        assert_eq!(text(b"*1\r\n$-1\r\n"), "invalid bulk length");
        assert_eq!(text(b"*1\r\n$99999999999\r\n"), "invalid bulk length");
        assert_eq!(text(b"SET \"a\r\n"), "unbalanced quotes in request");
        assert_eq!(text(&vec![b'a'; limits::INLINE_MAX + 1]), "too big inline request");
        let mut count = vec![b'1'; limits::INLINE_MAX + 8];
        count[0] = b'*';
        assert_eq!(text(&count), "too big mbulk count string");
        let tight = Bounds { request: 1 << 20, authenticated: false };
        let scan = |b: &[u8]| RequestScanner::default().scan(b, tight);
        assert_eq!(scan(b"*11\r\n"), Scanned::Malformed(ProtocolError::CountUnauthenticated));
        assert_eq!(scan(b"*1\r\n$16385\r\n"), Scanned::Malformed(ProtocolError::BulkUnauthenticated));
    }

    #[test]
    fn nothing_is_asked_by_empty_commands() {
        assert_eq!(one(b"*0\r\n"), Scanned::Nothing(4));
        assert_eq!(one(b"*-5\r\n"), Scanned::Nothing(5));
        assert_eq!(one(b"\r\n"), Scanned::Nothing(2));
        assert_eq!(one(b"   \n"), Scanned::Nothing(4));
    }

    #[test]
    fn integers_are_as_strict_as_redis() {
        let good: [(&[u8], i64); 5] = [
            (b"0", 0),
            (b"-1", -1),
            (b"10", 10),
            (b"9223372036854775807", i64::MAX),
            (b"-9223372036854775808", i64::MIN),
        ];
        for (text, value) in good {
            assert_eq!(parse_integer(text), Some(value));
        }
        for bad in [&b""[..], b"-", b"+1", b"01", b"-0", b" 1", b"1 ", b"9223372036854775808", b"1a"] {
            assert_eq!(parse_integer(bad), None, "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
