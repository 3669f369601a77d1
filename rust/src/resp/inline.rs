//! Inline commands: a line typed by hand, split as Redis splits it (`sdssplitargs`), written again as an array of bulk
//! strings so that everything after this point knows one form only.

use super::{Span, encode};

/// Quotes that do not close, or are not followed by a space.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unbalanced;

/// Split `line` into `frame` (a whole RESP command) and `args`; gives the number of arguments.
pub(super) fn split(line: &[u8], frame: &mut Vec<u8>, args: &mut Vec<Span>) -> Result<usize, Unbalanced> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest {
            if !is_space(*first) {
                break;
            }
            rest = tail;
        }
        if rest.is_empty() || rest[0] == 0 {
            break;
        }
        let (word, tail) = take_word(rest)?;
        words.push(word);
        rest = tail;
    }
    frame.clear();
    args.clear();
    encode::array(frame, words.len());
    for word in &words {
        encode::bulk(frame, word);
        let end = frame.len() - 2;
        args.push(Span { start: (end - word.len()) as u32, end: end as u32 });
    }
    Ok(words.len())
}

fn take_word(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Unbalanced> {
    let mut word = Vec::new();
    loop {
        match rest {
            [] | [0, ..] => return Ok((word, rest)),
            [c, ..] if is_space(*c) => return Ok((word, rest)),
            [b'"', tail @ ..] => return closed(take_double(tail, &mut word)?).map(|tail| (word, tail)),
            [b'\'', tail @ ..] => return closed(take_single(tail, &mut word)?).map(|tail| (word, tail)),
            [c, tail @ ..] => {
                word.push(*c);
                rest = tail;
            }
        }
    }
}

/// A closing quote must be followed by a space or by nothing.
fn closed(tail: &[u8]) -> Result<&[u8], Unbalanced> {
    match tail {
        [c, ..] if !is_space(*c) && *c != 0 => Err(Unbalanced),
        _ => Ok(tail),
    }
}

fn take_double<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        match rest {
            [] | [0, ..] => return Err(Unbalanced),
            [b'\\', b'x', h, l, tail @ ..] if h.is_ascii_hexdigit() && l.is_ascii_hexdigit() => {
                word.push(hex(*h) << 4 | hex(*l));
                rest = tail;
            }
            [b'\\', c, tail @ ..] => {
                word.push(match c {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [b'"', tail @ ..] => return Ok(tail),
            [c, tail @ ..] => {
                word.push(*c);
                rest = tail;
            }
        }
    }
}

fn take_single<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        match rest {
            [] | [0, ..] => return Err(Unbalanced),
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                rest = tail;
            }
            [b'\'', tail @ ..] => return Ok(tail),
            [c, tail @ ..] => {
                word.push(*c);
                rest = tail;
            }
        }
    }
}

fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn hex(c: u8) -> u8 {
    match c {
        b'0'..=b'9' => c - b'0',
        b'a'..=b'f' => c - b'a' + 10,
        _ => c - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
        let (mut frame, mut args) = (Vec::new(), Vec::new());
        split(line, &mut frame, &mut args)?;
        Ok(args.iter().map(|s| frame[s.start as usize..s.end as usize].to_vec()).collect())
    }

    #[test]
    fn lines_are_split_as_redis_does() {
        assert_eq!(
            words(b"SET  k \"a b\\x41\\n\" "),
            Ok(vec![b"SET".to_vec(), b"k".to_vec(), b"a bA\n".to_vec()])
        );
        assert_eq!(words(b"a 'it\\'s' ''"), Ok(vec![b"a".to_vec(), b"it's".to_vec(), b"".to_vec()]));
        assert_eq!(words(b"foo\"bar\""), Ok(vec![b"foobar".to_vec()]));
        for bad in [&b"\"a"[..], b"'a", b"\"a\"b", b"'a'b", b"\"a\\"] {
            assert_eq!(words(bad), Err(Unbalanced));
        }
    }
}
