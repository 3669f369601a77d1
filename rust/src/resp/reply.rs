//! Reading one reply in place.

use memchr::memchr;

use super::parse_integer;

/// The bytes of one complete RESP2 or RESP3 reply. A scanner has found it complete; on anything else the methods
/// answer `None`, `false` or nothing, and never panic.
///
/// Attributes (RESP3's `|`) in front of the reply belong to its bytes and are skipped by everything else.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    bytes: &'a [u8],
}

impl<'a> Reply<'a> {
    /// A reply over the bytes of one frame. The first line is enough for all but [`Reply::text`] of a bulk string and
    /// [`Reply::elements`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The whole frame.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it is an error.
    #[inline]
    pub fn is_error(self) -> bool {
        matches!(self.head(), Some((b'-' | b'!', ..)))
    }

    /// Whether it is nil: `$-1`, `*-1` or `_`.
    #[inline]
    pub fn is_nil(self) -> bool {
        matches!(self.head(), Some((b'_', ..) | (b'$' | b'*', b"-1", _)))
    }

    /// The value of an integer reply.
    #[inline]
    pub fn integer(self) -> Option<i64> {
        self.head().filter(|(kind, ..)| *kind == b':').and_then(|(_, line, _)| parse_integer(line))
    }

    /// The content of a status, a bulk or verbatim string (without its format), a double or a big number.
    pub fn text(self) -> Option<&'a [u8]> {
        let (kind, line, rest) = self.head()?;
        match kind {
            b'+' | b',' | b'(' => Some(line),
            b'$' => rest.get(..length(line)?),
            b'=' => rest.get(..length(line)?)?.get(4..),
            _ => None,
        }
    }

    /// How many elements an array, set or push has; two for each pair of a map; 0 for others and for a nil array.
    pub fn elem_count(self) -> usize {
        match self.head() {
            Some((b'*' | b'~' | b'>', line, _)) => length(line).unwrap_or(0),
            Some((b'%', line, _)) => length(line).and_then(|pairs| pairs.checked_mul(2)).unwrap_or(0),
            _ => 0,
        }
    }

    /// The elements of an array, set or push, or the keys and values of a map in turn; nothing for others.
    pub fn elements(self) -> impl Iterator<Item = Self> + use<'a> {
        let (mut left, mut rest) = (self.elem_count(), self.head().map_or(&[][..], |(.., rest)| rest));
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let (bytes, behind) = rest.split_at_checked(frame_length(rest)?)?;
            rest = behind;
            Some(Self { bytes })
        })
    }

    /// The type byte, the rest of the first line, and what is behind that line; attributes skipped.
    #[inline]
    fn head(self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let mut bytes = self.bytes;
        while let [b'|', ..] = bytes {
            bytes = bytes.get(attribute_length(bytes)?..)?;
        }
        split_line(bytes)
    }
}

#[inline]
fn split_line(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let end = memchr(b'\n', bytes)?;
    let line = bytes.get(1..end)?.strip_suffix(b"\r")?;
    Some((*bytes.first()?, line, bytes.get(end + 1..)?))
}

fn length(line: &[u8]) -> Option<usize> {
    parse_integer(line).and_then(|n| usize::try_from(n).ok())
}

/// The length of the complete frame at the front of `bytes`, attributes included. Iterates, so that no nesting
/// exhausts the stack.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let (mut rest, mut frames) = (bytes, 1usize);
    while frames > 0 {
        frames -= 1;
        let (kind, line, behind) = split_line(rest)?;
        rest = behind;
        match kind {
            b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => {}
            b'$' | b'!' | b'=' | b'*' if line == b"-1" => {}
            b'$' | b'!' | b'=' => rest = rest.get(length(line)?.checked_add(2)?..)?,
            b'*' | b'~' | b'>' => frames = frames.checked_add(length(line)?)?,
            b'%' => frames = frames.checked_add(length(line)?.checked_mul(2)?)?,
            // The pairs, and the value they describe.
            b'|' => frames = frames.checked_add(length(line)?.checked_mul(2)?.checked_add(1)?)?,
            _ => return None,
        }
    }
    Some(bytes.len() - rest.len())
}

/// The length of the attribute at the front of `bytes`, without the value behind it.
fn attribute_length(bytes: &[u8]) -> Option<usize> {
    let (_, line, mut rest) = split_line(bytes)?;
    for _ in 0..length(line)?.checked_mul(2)? {
        rest = rest.get(frame_length(rest)?..)?;
    }
    Some(bytes.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply<'_> {
        Reply::new(text.as_bytes())
    }

    #[test]
    fn types() {
        for (text, error, nil, integer, content) in [
            ("+OK\r\n", false, false, None, Some("OK")),
            ("+\r\n", false, false, None, Some("")),
            ("-ERR no\r\n", true, false, None, None),
            ("!6\r\nERR no\r\n", true, false, None, None),
            (":-12\r\n", false, false, Some(-12), None),
            ("$3\r\na\nb\r\n", false, false, None, Some("a\nb")),
            ("$0\r\n\r\n", false, false, None, Some("")),
            ("$-1\r\n", false, true, None, None),
            ("*-1\r\n", false, true, None, None),
            ("_\r\n", false, true, None, None),
            ("*0\r\n", false, false, None, None),
            (",1.5\r\n", false, false, None, Some("1.5")),
            ("(123\r\n", false, false, None, Some("123")),
            ("#t\r\n", false, false, None, None),
            ("=7\r\ntxt:abc\r\n", false, false, None, Some("abc")),
            ("|1\r\n+a\r\n*1\r\n:1\r\n:7\r\n", false, false, Some(7), None),
        ] {
            let reply = reply(text);
            assert_eq!(reply.is_error(), error, "{text:?}");
            assert_eq!(reply.is_nil(), nil, "{text:?}");
            assert_eq!(reply.integer(), integer, "{text:?}");
            assert_eq!(reply.text(), content.map(str::as_bytes), "{text:?}");
            assert_eq!(reply.bytes(), text.as_bytes());
        }
    }

    #[test]
    fn elements_of_aggregates() {
        for (text, expected) in [
            ("*2\r\n:1\r\n$1\r\na\r\n", vec![":1\r\n", "$1\r\na\r\n"]),
            ("~1\r\n_\r\n", vec!["_\r\n"]),
            (">1\r\n#t\r\n", vec!["#t\r\n"]),
            ("%1\r\n+k\r\n*2\r\n*0\r\n*-1\r\n", vec!["+k\r\n", "*2\r\n*0\r\n*-1\r\n"]),
            ("*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n:2\r\n", vec!["|1\r\n+a\r\n+b\r\n:1\r\n", ":2\r\n"]),
            ("*-1\r\n", vec![]),
            (":1\r\n", vec![]),
        ] {
            let found: Vec<&[u8]> = reply(text).elements().map(Reply::bytes).collect();
            assert_eq!(found, expected.iter().map(|e| e.as_bytes()).collect::<Vec<_>>(), "{text:?}");
            assert_eq!(reply(text).elem_count(), expected.len(), "{text:?}");
        }
    }

    #[test]
    fn the_first_line_tells_what_needs_no_more() {
        assert!(!reply("$1000000\r\n").is_nil() && !reply("*3\r\n").is_error());
        assert_eq!(reply("*3\r\n").elem_count(), 3);
        assert_eq!(reply("*3\r\n").elements().count(), 0);
        assert_eq!(reply("$10\r\n").text(), None);
    }

    #[test]
    fn garbage_is_answered_with_nothing() {
        for text in [
            "",
            "\r\n",
            "\n",
            "*",
            "*1",
            "*1\r\n",
            "*x\r\n",
            "$5\r\nab",
            "$-2\r\n",
            "*99999999999999999999\r\n",
            "%9223372036854775807\r\n",
            "|9223372036854775807\r\n:1\r\n",
            "$9223372036854775807\r\n",
            "?1\r\n",
            "|1\r\n",
            "*1\r\n$9223372036854775807\r\n",
            "=2\r\nab\r\n",
        ] {
            let reply = reply(text);
            let _ = (reply.is_error(), reply.is_nil(), reply.elem_count());
            assert_eq!(
                (reply.integer(), reply.text(), reply.elements().count()),
                (None, None, 0),
                "{text:?}"
            );
        }
    }

    #[test]
    fn deep_nesting_is_walked_without_recursion() {
        let deep = "*1\r\n".repeat(200_000) + ":1\r\n";
        assert_eq!(frame_length(deep.as_bytes()), Some(deep.len()));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[*$%|~=_:+\\-0-9a\r\n]{0,40}") {
            let reply = reply(&text);
            let _ = (reply.is_error(), reply.is_nil(), reply.integer(), reply.text(), reply.elements().count());
        }
    }
}
