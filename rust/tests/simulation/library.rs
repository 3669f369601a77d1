//! The functions of the shadow Redis: libraries of code that nothing here runs. They are part of its data, and no
//! `FLUSHALL` removes them.

use std::collections::BTreeMap;

use super::redis::{Redis, text};
use super::value::Value;

const OK: Value = Value::Status("OK");

/// Code by the name of its library.
pub type Libraries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Whether a library is redisha's own.
pub fn is_marker(name: &[u8]) -> bool {
    name.starts_with(b"redisha_")
}

impl Redis {
    /// `FUNCTION …`
    pub(super) fn function(&mut self, args: &[Vec<u8>]) -> Value {
        let has = |word: &[u8]| args[2..].iter().any(|arg| arg.eq_ignore_ascii_case(word));
        match args.get(1).map(|sub| sub.to_ascii_uppercase()).as_deref() {
            Some(b"LOAD") => self.load_library(args.len() > 3, &args[args.len() - 1]),
            Some(b"DELETE") => match self.libraries.remove(&args[2]) {
                Some(_) => OK,
                None => Value::Error("ERR Library not found".into()),
            },
            Some(b"FLUSH") => {
                self.libraries.clear();
                OK
            }
            Some(b"LIST") => {
                let after = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"LIBRARYNAME"));
                let pattern = after.and_then(|at| args.get(at + 1)).map_or(&b"*"[..], Vec::as_slice);
                let found = self.libraries.iter().filter(|(name, _)| matches(pattern, name));
                Value::Array(found.map(|(name, code)| describe(name, code, has(b"WITHCODE"))).collect())
            }
            Some(b"DUMP") => {
                let mut payload = Vec::new();
                for code in self.libraries.values() {
                    payload.extend_from_slice(&(code.len() as u32).to_be_bytes());
                    payload.extend_from_slice(code);
                }
                Value::Bulk(payload)
            }
            Some(b"RESTORE") => self.restore_libraries(&args[2], has(b"REPLACE"), has(b"FLUSH")),
            _ => Value::Error("ERR unknown subcommand. Try FUNCTION HELP.".into()),
        }
    }

    fn load_library(&mut self, replace: bool, code: &[u8]) -> Value {
        let Some(name) = name_in(code) else {
            return Value::Error("ERR Missing library metadata".into());
        };
        if !replace && self.libraries.contains_key(&name) {
            return Value::Error(format!("ERR Library '{}' already exists", text(&name)));
        }
        self.libraries.insert(name.clone(), code.to_vec());
        Value::Bulk(name)
    }

    fn restore_libraries(&mut self, mut payload: &[u8], replace: bool, flush: bool) -> Value {
        let mut loaded = Libraries::new();
        while let Some((len, rest)) = payload.split_first_chunk::<4>() {
            let Some((code, rest)) = rest.split_at_checked(u32::from_be_bytes(*len) as usize) else { break };
            let Some(name) = name_in(code) else { break };
            loaded.insert(name, code.to_vec());
            payload = rest;
        }
        if !payload.is_empty() {
            return Value::Error("ERR DUMP payload version or checksum are wrong".into());
        }
        if flush {
            self.libraries.clear();
        }
        if let Some(name) = loaded.keys().find(|name| !replace && self.libraries.contains_key(*name)) {
            return Value::Error(format!("ERR Library {} already exists", text(name)));
        }
        self.libraries.extend(loaded);
        OK
    }
}

/// The name in `#!lua name=…`.
fn name_in(code: &[u8]) -> Option<Vec<u8>> {
    let line = code.split(|byte| *byte == b'\n').next()?;
    let name = line.strip_prefix(b"#!lua name=")?;
    let legal = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    legal.then(|| name.to_vec())
}

/// A pattern with at most one star, at its end.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    pattern.strip_suffix(b"*").map_or(pattern == name, |head| name.starts_with(head))
}

fn describe(name: &[u8], code: &[u8], with_code: bool) -> Value {
    let function = Value::Fields(vec![
        ("name", Value::Bulk(name.to_vec())),
        ("description", Value::Nil),
        ("flags", Value::Set(Vec::new())),
    ]);
    let mut fields = vec![
        ("library_name", Value::Bulk(name.to_vec())),
        ("engine", Value::Bulk(b"LUA".to_vec())),
        ("functions", Value::Array(vec![function])),
    ];
    if with_code {
        fields.push(("library_code", Value::Bulk(code.to_vec())));
    }
    Value::Fields(fields)
}
