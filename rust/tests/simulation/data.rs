//! The data of a shadow Redis: four types of values, expiry, and an opaque form for `DUMP`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Text(Vec<u8>),
    List(VecDeque<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
}

/// A value with its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub data: Data,
    /// Milliseconds since 1970.
    pub expires: Option<u64>,
}

/// All keys of one database.
pub type Keys = BTreeMap<Vec<u8>, Item>;

impl Data {
    /// Whether Redis would remove the key.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::List(list) => list.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Hash(hash) => hash.is_empty(),
        }
    }

    /// For `DUMP`: a type byte, then length and bytes of each part. A text lies behind its type as it is.
    pub fn dump(&self) -> Vec<u8> {
        let (kind, parts): (u8, Vec<&Vec<u8>>) = match self {
            Self::Text(text) => return [b"T", text.as_slice()].concat(),
            Self::List(list) => (b'L', list.iter().collect()),
            Self::Set(set) => (b'S', set.iter().collect()),
            Self::Hash(hash) => (b'H', hash.iter().flat_map(|(k, v)| [k, v]).collect()),
        };
        let mut out = vec![kind];
        for part in parts {
            out.extend_from_slice(&(part.len() as u32).to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }

    /// For `RESTORE`.
    pub fn load(bytes: &[u8]) -> Option<Self> {
        let (&kind, mut rest) = bytes.split_first()?;
        if kind == b'T' {
            return Some(Self::Text(rest.to_vec()));
        }
        let mut parts = Vec::new();
        while let Some((len, behind)) = rest.split_first_chunk::<4>() {
            let (part, behind) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            parts.push(part.to_vec());
            rest = behind;
        }
        Some(match kind {
            b'L' => Self::List(parts.into()),
            b'S' => Self::Set(parts.into_iter().collect()),
            b'H' => Self::Hash(parts.chunks_exact(2).map(|p| (p[0].clone(), p[1].clone())).collect()),
            _ => return None,
        })
    }
}

/// What is there at a time: expired keys are not.
pub fn alive(keys: &Keys, now_ms: u64) -> BTreeMap<&[u8], &Item> {
    let is_alive = |item: &Item| item.expires.is_none_or(|at| at > now_ms);
    keys.iter().filter(|(_, item)| is_alive(item)).map(|(k, item)| (k.as_slice(), item)).collect()
}
