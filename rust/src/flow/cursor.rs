//! The cursor of a `SCAN` over several servers: one number that says which server's turn it is, and that server's cursor.
//!
//! `own * servers + index`, so that it is as small as it can be: there are clients that keep cursors in a double. The
//! servers are scanned one after the other; 0 is the beginning of the first, and the end of the last.

/// The cursor that a client sent: whose turn it is, and that server's cursor. `None`: it is no cursor.
pub fn parse(text: &[u8], servers: usize) -> Option<(usize, u64)> {
    let digits = text.iter().all(u8::is_ascii_digit);
    let cursor: u64 = match std::str::from_utf8(text) {
        Ok("") => 0, // as Redis has it
        Ok(text) if digits => text.parse().ok()?,
        _ => return None,
    };
    let servers = servers as u64;
    Some(((cursor.checked_rem(servers)?) as usize, cursor / servers))
}

/// What follows after server `index` answered with its cursor `own`. `None`: that is too large a number.
pub fn next(index: usize, own: u64, servers: usize) -> Option<u64> {
    match own {
        0 if index + 1 >= servers => Some(0),
        0 => Some(index as u64 + 1),
        _ => own.checked_mul(servers as u64)?.checked_add(index as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_cursor() {
        for text in ["-1", "+1", " 1", "1 ", "x", "18446744073709551616", "1.0", "\u{0661}"] {
            assert_eq!(parse(text.as_bytes(), 3), None, "{text}");
        }
        assert_eq!(parse(b"0", 0), None);
        assert_eq!(parse(b"", 3), Some((0, 0)));
        assert_eq!(parse(b"18446744073709551615", 2), Some((1, u64::MAX / 2)));
    }

    #[test]
    fn one_server_has_its_own_cursors() {
        assert_eq!(parse(b"17", 1), Some((0, 17)));
        assert_eq!((next(0, 17, 1), next(0, 0, 1)), (Some(17), Some(0)));
    }

    proptest::proptest! {
        /// What one server says comes back to it, whatever it is, or is refused.
        #[test]
        fn there_and_back(servers in 1usize..64, index in 0usize..64, own in proptest::num::u64::ANY) {
            let (index, own) = (index % servers, own.max(1));
            match next(index, own, servers) {
                Some(cursor) => {
                    proptest::prop_assert_ne!(cursor, 0);
                    proptest::prop_assert_eq!(parse(cursor.to_string().as_bytes(), servers), Some((index, own)));
                }
                None => proptest::prop_assert!(u128::from(own) * servers as u128 + index as u128 > u128::from(u64::MAX)),
            }
        }

        /// Each server is scanned from its beginning to its end, once, in turn.
        #[test]
        fn a_scan_visits_each_once(pages in proptest::collection::vec(proptest::collection::vec(1u64..1 << 40, 0..5), 1..9)) {
            let (mut cursor, mut seen) = (0, Vec::new());
            loop {
                let (index, own) = parse(cursor.to_string().as_bytes(), pages.len()).expect("our own cursor");
                seen.push((index, own));
                let page = seen.iter().filter(|(i, _)| *i == index).count() - 1;
                let answer = pages[index].get(page).copied().unwrap_or(0);
                cursor = next(index, answer, pages.len()).expect("small");
                if cursor == 0 {
                    break;
                }
            }
            let all = pages.iter().enumerate().flat_map(|(index, own)| {
                std::iter::once((index, 0)).chain(own.iter().map(move |own| (index, *own)))
            });
            proptest::prop_assert_eq!(seen, all.collect::<Vec<_>>());
        }
    }
}
