//! Replies as values, so that one can be compared in whichever protocol its client speaks.

use redisha_core::resp::encode;

use super::library::is_marker;

/// A reply of the shadow Redis.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Status(&'static str),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    NilArray,
    Array(Vec<Self>),
    Set(Vec<Vec<u8>>),
    Map(Vec<(Vec<u8>, Vec<u8>)>),
    /// A map of words to anything, as `FUNCTION LIST` gives it.
    Fields(Vec<(&'static str, Self)>),
}

impl Value {
    /// As Redis writes it to a connection that speaks this version.
    pub fn encode(&self, resp: u8, out: &mut Vec<u8>) {
        let resp3 = resp == 3;
        match self {
            Self::Status(text) => encode::status(out, text),
            Self::Error(text) => encode::error(out, text),
            Self::Integer(n) => encode::integer(out, *n),
            Self::Bulk(bytes) => encode::bulk(out, bytes),
            Self::Nil => encode::nil(out, resp3),
            Self::NilArray => out.extend_from_slice(if resp3 { b"_\r\n" } else { b"*-1\r\n" }),
            Self::Array(elements) => {
                encode::array(out, elements.len());
                elements.iter().for_each(|e| e.encode(resp, out));
            }
            Self::Set(members) => {
                if resp3 {
                    out.extend_from_slice(format!("~{}\r\n", members.len()).as_bytes());
                } else {
                    encode::array(out, members.len());
                }
                members.iter().for_each(|m| encode::bulk(out, m));
            }
            Self::Map(pairs) => {
                encode::map(out, pairs.len(), resp3);
                for (k, v) in pairs {
                    encode::bulk(out, k);
                    encode::bulk(out, v);
                }
            }
            Self::Fields(fields) => {
                encode::map(out, fields.len(), resp3);
                for (name, value) in fields {
                    encode::bulk(out, name.as_bytes());
                    value.encode(resp, out);
                }
            }
        }
    }

    /// What a client may see of it: redisha's own libraries are hidden.
    pub fn without_markers(self) -> Self {
        let Self::Array(elements) = self else { return self };
        let shown = elements.into_iter().filter(|e| !e.is_marker()).map(Self::without_markers);
        Self::Array(shown.collect())
    }

    fn is_marker(&self) -> bool {
        let Self::Fields(fields) = self else { return false };
        let name = fields.iter().find(|(field, _)| *field == "library_name").map(|(_, name)| name);
        matches!(name, Some(Self::Bulk(name)) if is_marker(name))
    }

    /// The same, by itself.
    pub fn bytes(&self, resp: u8) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(resp, &mut out);
        out
    }
}
