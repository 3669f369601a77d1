//! Reading a command's options as Redis does.

use std::borrow::Cow;

use crate::resp::Request;

/// Whether an argument is an option's word, as Redis compares it: in any case, and only up to a zero byte.
#[inline]
pub fn is_word(arg: &[u8], word: &str) -> bool {
    let (head, rest) = arg.split_at_checked(word.len()).unwrap_or((&[], b"!"));
    rest.first().is_none_or(|next| *next == 0) && head.eq_ignore_ascii_case(word.as_bytes())
}

/// An argument as Redis quotes it in an error: up to a zero byte, and 128 bytes of it.
pub fn quoted(arg: &[u8]) -> Cow<'_, str> {
    let arg = arg.get(..128).unwrap_or(arg);
    String::from_utf8_lossy(arg.split(|b| *b == 0).next().unwrap_or_default())
}

/// Where an option's word stands, walking options from argument `from` on. `words` names each option that may come
/// and how many arguments it takes, so that a value which looks like an option is not taken for one; anything else
/// counts as an option without arguments. The last occurrence wins, as it does in Redis.
pub fn option_at(req: &Request<'_>, from: usize, words: &[(&str, usize)], wanted: &str) -> Option<usize> {
    let (mut at, mut found) = (from, None);
    while at < req.len() {
        let arg = req.arg(at);
        if is_word(arg, wanted) {
            found = Some(at);
        }
        at += 1 + words.iter().find(|(word, _)| is_word(arg, word)).map_or(0, |(_, takes)| *takes);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::Owned;
    use super::*;

    #[test]
    fn words_end_at_a_zero_byte() {
        for (arg, word, expected) in [
            (&b"nx"[..], "NX", true),
            (b"NX\0more", "NX", true),
            (b"NXX", "NX", false),
            (b"N", "NX", false),
            (b"", "NX", false),
        ] {
            assert_eq!(is_word(arg, word), expected, "{arg:?}");
        }
    }

    #[test]
    fn a_value_is_not_an_option() {
        let words = [("BY", 1), ("STORE", 1), ("LIMIT", 2)];
        for (line, expected) in [
            ("SORT k", None),
            ("SORT k BY store STORE d", Some(4)),
            ("SORT k store d STORE e", Some(4)),
            ("SORT k STORE STORE", Some(2)),
            ("SORT k LIMIT STORE STORE", None),
            ("SORT k ALPHA STORE d", Some(3)),
        ] {
            let owned = Owned::new(line);
            assert_eq!(option_at(&owned.request(), 2, &words, "STORE"), expected, "{line}");
        }
    }
}
