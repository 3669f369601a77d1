//! Redis's patterns of key names (`stringmatchlen`), for names that the server itself does not know in full.

/// Whether `name` is what `pattern` describes.
///
/// A `*` is taken back to the last one only, so that no pattern costs more than the product of both lengths.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, n));
            continue;
        }
        let one = name.get(n).and_then(|c| one(pattern.get(p..).unwrap_or(&[]), *c));
        match (one, &mut star) {
            (Some(len), _) => {
                p += len;
                n += 1;
            }
            (None, _) if n == name.len() => return p >= pattern.len(),
            (None, Some((behind, from))) => {
                *from += 1;
                (p, n) = (*behind, *from);
            }
            (None, None) => return false,
        }
    }
}

/// How much of the pattern describes this one character. `None`: it does not.
fn one(pattern: &[u8], c: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => {
            let (found, len) = class(rest, c);
            found.then_some(len + 1)
        }
        [b'\\', literal, ..] => (*literal == c).then_some(2),
        [literal, ..] => (*literal == c).then_some(1),
    }
}

/// Whether a class has a character, and how long it is behind its bracket. One that is not closed ends with the pattern.
fn class(pattern: &[u8], c: u8) -> (bool, usize) {
    let not = pattern.first() == Some(&b'^');
    let mut at = usize::from(not);
    let mut found = false;
    loop {
        at += match pattern.get(at..).unwrap_or(&[]) {
            [] => break,
            [b'\\', literal, ..] => {
                found |= *literal == c;
                2
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [from, b'-', to, ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&c);
                3
            }
            [literal, ..] => {
                found |= *literal == c;
                1
            }
        };
    }
    (found != not, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_redis_has_them() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "abc", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("*ab", "aab", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hbllo", true),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[a-b]llo", "hcllo", false),
            ("[a-]", "-", false),
            ("[a-]", "^", true),
            ("[\\]]x", "]x", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("[abc", "b", true),
            ("[", "a", false),
            ("[^", "a", true),
            ("a**", "a", true),
            ("x:*[0-9]", "x:abc7", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        assert!(!matches(&b"*a".repeat(500), &b"a".repeat(400)));
        assert!(!matches(&[&b"*a".repeat(30)[..], b"b"].concat(), &b"a".repeat(5_000)));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(pattern in "[a-c*?\\[\\]^\\\\-]{0,12}", name in "[a-c\\]^-]{0,8}") {
            let _ = matches(pattern.as_bytes(), name.as_bytes());
        }

        #[test]
        fn a_name_describes_itself(name in "[a-z:0-9]{0,20}", cut in 0usize..20) {
            proptest::prop_assert!(matches(name.as_bytes(), name.as_bytes()));
            let cut = cut.min(name.len());
            let pattern = format!("{}*{}", &name[..cut], &name[cut..]);
            proptest::prop_assert!(matches(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
