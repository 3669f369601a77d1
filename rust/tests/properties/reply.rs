//! The reply scanner, and reading a reply in place.

use proptest::prelude::*;
use redisha_core::resp::{Reply, ReplyError, ReplyScanner};

use super::config;
use super::pieces::{cuts, ends};

/// One RESP2 or RESP3 value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A line: its type byte and text.
    Line(u8, String),
    /// A length and bytes: bulk, verbatim, blob error.
    Blob(u8, Vec<u8>),
    /// `$-1` or `*-1`.
    Nil(u8),
    /// An aggregate: its type byte and its elements (of a map, keys and values in turn).
    Many(u8, Vec<Self>),
    /// An attribute in front of a value.
    Attribute(Vec<Self>, Box<Self>),
}

impl Value {
    /// On the wire.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, kind: u8, text: &str| {
            out.push(kind);
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        };
        match self {
            Self::Line(kind, text) => head(out, *kind, text),
            Self::Blob(kind, bytes) => {
                head(out, *kind, &bytes.len().to_string());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Nil(kind) => head(out, *kind, "-1"),
            Self::Many(kind, elements) => {
                let count = if *kind == b'%' { elements.len() / 2 } else { elements.len() };
                head(out, *kind, &count.to_string());
                elements.iter().for_each(|e| e.encode(out));
            }
            Self::Attribute(pairs, value) => {
                head(out, b'|', &(pairs.len() / 2).to_string());
                pairs.iter().for_each(|e| e.encode(out));
                value.encode(out);
            }
        }
    }

    /// On the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn without_attributes(&self) -> &Self {
        match self {
            Self::Attribute(_, value) => value.without_attributes(),
            other => other,
        }
    }
}

/// Any reply a server may give.
pub fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (prop::sample::select(&b"+-"[..]), "[ -~]{0,12}").prop_map(|(kind, text)| Value::Line(kind, text)),
        any::<i64>().prop_map(|n| Value::Line(b':', n.to_string())),
        (-2..3i64).prop_map(|n| Value::Line(b':', n.to_string())),
        any::<f64>().prop_map(|n| Value::Line(b',', n.to_string())),
        "-?[1-9][0-9]{0,40}".prop_map(|n| Value::Line(b'(', n)),
        prop::sample::select(&["t", "f"][..]).prop_map(|b| Value::Line(b'#', b.to_owned())),
        Just(Value::Line(b'_', String::new())),
        prop::sample::select(&b"$*"[..]).prop_map(Value::Nil),
        (prop::sample::select(&b"$!"[..]), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, bytes)| Value::Blob(kind, bytes)),
        prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|bytes| Value::Blob(b'=', [&b"txt:"[..], &bytes].concat())),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..4)
            .prop_map(|pairs| pairs.into_iter().flat_map(|(k, v)| [k, v]).collect::<Vec<_>>());
        prop_oneof![
            (prop::sample::select(&b"*~>"[..]), prop::collection::vec(inner.clone(), 0..6))
                .prop_map(|(kind, elements)| Value::Many(kind, elements)),
            pairs.clone().prop_map(|elements| Value::Many(b'%', elements)),
            (pairs, inner).prop_map(|(pairs, value)| Value::Attribute(pairs, Box::new(value))),
        ]
    })
}

/// The ends of the replies in a stream that comes in pieces, up to the first error.
fn scan(stream: &[u8], pieces: &[usize]) -> (Vec<usize>, Option<ReplyError>) {
    let (mut scanner, mut found, mut from) = (ReplyScanner::default(), Vec::new(), 0);
    for &here in pieces {
        while from < here {
            match scanner.scan(&stream[from..here]) {
                Ok(Some(n)) => {
                    assert!(n > 0 && from + n <= here && !scanner.is_midway());
                    from += n;
                    found.push(from);
                }
                Ok(None) => {
                    assert!(scanner.is_midway());
                    from = here;
                }
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn replies_end_where_they_end_however_they_are_cut(values in prop::collection::vec(value(), 1..5), cuts in cuts()) {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for value in &values {
            value.encode(&mut stream);
            expected.push(stream.len());
        }
        prop_assert_eq!(scan(&stream, &ends(stream.len(), &cuts)), (expected, None));
    }

    #[test]
    fn a_reply_is_read_as_it_was_written(value in value()) {
        let bytes = value.bytes();
        let reply = Reply::new(&bytes);
        prop_assert_eq!(reply.bytes(), &bytes[..]);
        let inner = value.without_attributes();
        prop_assert_eq!(reply.is_error(), matches!(inner, Value::Line(b'-', _) | Value::Blob(b'!', _)));
        prop_assert_eq!(reply.is_nil(), matches!(inner, Value::Nil(_) | Value::Line(b'_', _)));
        match inner {
            Value::Line(b':', n) => prop_assert_eq!(reply.integer(), n.parse().ok()),
            Value::Line(b'+' | b',' | b'(', text) => prop_assert_eq!(reply.text(), Some(text.as_bytes())),
            Value::Blob(b'$', text) => prop_assert_eq!(reply.text(), Some(&text[..])),
            Value::Blob(b'=', text) => prop_assert_eq!(reply.text(), Some(&text[4..])),
            Value::Many(_, elements) => {
                prop_assert_eq!(reply.elem_count(), elements.len());
                let found: Vec<Vec<u8>> = reply.elements().map(|e| e.bytes().to_vec()).collect();
                prop_assert_eq!(found, elements.iter().map(Value::bytes).collect::<Vec<_>>());
            }
            _ => prop_assert_eq!((reply.elem_count(), reply.integer()), (0, None)),
        }
    }

    #[test]
    fn garbage_is_refused_however_it_is_cut(garbage in garbage(), cuts in cuts()) {
        prop_assert_eq!(scan(&garbage, &[garbage.len()]), scan(&garbage, &ends(garbage.len(), &cuts)));
        read_all(Reply::new(&garbage));
    }

    #[test]
    fn damaged_replies_are_refused_however_they_are_cut(
        value in value(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in cuts(),
    ) {
        let mut bytes = value.bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        prop_assert_eq!(scan(&bytes, &[bytes.len()]), scan(&bytes, &ends(bytes.len(), &cuts)));
        read_all(Reply::new(&bytes));
    }
}

/// Everything that can be asked of a reply. What is read lies within its bytes, so it ends.
fn read_all(reply: Reply<'_>) {
    let _ = (reply.is_error(), reply.is_nil(), reply.integer(), reply.text(), reply.elem_count());
    let mut left = reply.bytes().len();
    for element in reply.elements() {
        assert!(!element.bytes().is_empty());
        left = left.checked_sub(element.bytes().len()).expect("elements lie within their reply");
    }
}

fn garbage() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(prop::sample::select(&b"+-:$*%~>|=!_#,(0123456789-\r\n\r\n ab"[..]), 0..200),
    ]
}
