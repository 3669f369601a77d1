//! Which keys the commands in some bytes name: for the rare moments in which an effect's fate is in doubt.

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use smallvec::SmallVec;

use crate::command::{Flags, KeysResult, is_word, keys, lookup, other_db};
use crate::resp::{Bounds, Request, RequestScanner, Scanned};

use super::handshake::database;
use super::repair::{FUNCTIONS, Key};

/// Everything but the size of one command is known to be in order here.
pub const ANY: Bounds = Bounds { request: u32::MAX as usize, authenticated: true };

/// The keys of all commands in `bytes` (one command, or `MULTI … EXEC`), each in its database. `None`: not known, as
/// with commands that touch everything.
pub fn keys_of(mut bytes: &[u8], db: u16) -> Option<Vec<Key>> {
    let mut found = Vec::new();
    let mut scanner = RequestScanner::default();
    // A SELECT may be refused: what follows is in its database or stays where it was.
    let mut dbs: SmallVec<[u16; 4]> = SmallVec::from_slice(&[db]);
    while let Scanned::Frame(len) = scanner.scan(bytes, ANY) {
        let (frame, rest) = bytes.split_at(len);
        let request = scanner.request(frame);
        if is_word(request.arg(0), "SELECT") {
            dbs.extend(database(request.arg(1)).ok().filter(|db| !dbs.contains(db)));
        } else {
            for &db in &dbs {
                keys_of_one(&request, db, &mut found)?;
            }
        }
        bytes = rest;
    }
    Some(found)
}

fn keys_of_one(request: &Request<'_>, db: u16, found: &mut Vec<Key>) -> Option<()> {
    let command = lookup(request.arg(0))?;
    let command = command.resolve(request).ok()?;
    if matches!(command.name, "multi" | "exec") {
        return Some(());
    }
    let mut indices = SmallVec::new();
    if command.name.starts_with("function|") || command.name == "function" {
        found.push((FUNCTIONS, Box::default()));
        return Some(());
    }
    match keys(command, request, &mut indices) {
        // A message is not data.
        KeysResult::Known
            if !indices.is_empty() || !command.is_write() || command.flags.contains(Flags::PUBSUB) => {}
        _ => return None,
    }
    for &i in &indices {
        found.push((db, request.arg(i as usize).into()));
    }
    if let Some(other) = other_db(command, request).and_then(|n| u16::try_from(n).ok()) {
        found.extend(indices.iter().map(|&i| (other, request.arg(i as usize).into())));
    }
    Some(())
}

/// Whether `bytes` are one command that names one key.
pub fn name_one_key(bytes: &[u8]) -> bool {
    let mut scanner = RequestScanner::default();
    let Scanned::Frame(len) = scanner.scan(bytes, ANY) else { return false };
    let request = scanner.request(bytes);
    let mut indices = SmallVec::new();
    len == bytes.len()
        && lookup(request.arg(0)).is_some_and(|command| {
            keys(command, &request, &mut indices) == KeysResult::Known
                && indices.len() == 1
                && other_db(command, &request).is_none()
        })
}

/// The keys that the commands in `bytes` may have made of others that are `stale`: of each command that names one, or one
/// that such a command before it named, all keys. Commands whose keys are not known are left out.
pub fn keys_beside(mut bytes: &[u8], db: u16, stale: impl Fn(&Key) -> bool) -> Vec<Key> {
    let mut found = Vec::new();
    let mut made: HashSet<Key, FixedState> = HashSet::default();
    let mut scanner = RequestScanner::default();
    while let Scanned::Frame(len) = scanner.scan(bytes, ANY) {
        let (frame, rest) = bytes.split_at(len);
        bytes = rest;
        let Some(keys) = keys_of(frame, db) else { continue };
        if keys.iter().any(|key| stale(key) || made.contains(key)) {
            if !rest.is_empty() {
                made.extend(keys.iter().cloned());
            }
            found.extend(keys);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::encode;

    fn of(lines: &[&str]) -> Option<Vec<String>> {
        let mut bytes = Vec::new();
        for line in lines {
            encode::command(&mut bytes, &line.split(' ').collect::<Vec<_>>());
        }
        let keys = keys_of(&bytes, 3)?;
        Some(keys.into_iter().map(|(db, key)| format!("{db}/{}", key.escape_ascii())).collect())
    }

    fn beside(lines: &[&str], stale: &str) -> Vec<String> {
        let mut bytes = Vec::new();
        for line in lines {
            encode::command(&mut bytes, &line.split(' ').collect::<Vec<_>>());
        }
        let keys = keys_beside(&bytes, 0, |(_, name)| **name == *stale.as_bytes());
        keys.into_iter().map(|(_, key)| key.escape_ascii().to_string()).collect()
    }

    #[test]
    fn what_is_made_of_a_stale_key_is_stale() {
        assert_eq!(beside(&["INCR k"], "k"), ["k"]);
        assert_eq!(beside(&["BITOP OR d a b"], "b"), ["d", "a", "b"]);
        assert!(beside(&["INCR k"], "j").is_empty());
        let transaction = ["MULTI", "INCR n", "COPY k j", "NOSUCH k", "APPEND j x", "INCR m", "EXEC"];
        assert_eq!(beside(&transaction, "k"), ["k", "j", "j"]);
        assert!(beside(&["MULTI", "FLUSHALL", "EXEC"], "k").is_empty());
    }

    #[test]
    fn one_key() {
        for (line, expected) in [
            ("INCR k", true),
            ("DEL k", true),
            ("DEL k j", false),
            ("MOVE k 3", false),
            ("COPY k j", false),
            ("FLUSHALL", false),
            ("NOSUCH k", false),
            ("MULTI", false),
        ] {
            let mut bytes = Vec::new();
            encode::command(&mut bytes, &line.split(' ').collect::<Vec<_>>());
            assert_eq!(name_one_key(&bytes), expected, "{line}");
            encode::command(&mut bytes, &["EXEC"]);
            assert!(!name_one_key(&bytes), "{line}");
        }
    }

    #[test]
    fn keys_are_found_in_commands_and_transactions() {
        assert_eq!(of(&["SET a 1"]), Some(vec!["3/a".into()]));
        assert_eq!(
            of(&["MULTI", "SET a 1", "DEL b c", "EXEC"]),
            Some(vec!["3/a".into(), "3/b".into(), "3/c".into()])
        );
        assert_eq!(of(&["MOVE a 5"]), Some(vec!["3/a".into(), "5/a".into()]));
        assert_eq!(
            of(&["MULTI", "SET b 1", "MOVE a 5", "PUBLISH c m", "EXEC"]),
            Some(vec!["3/b".into(), "3/a".into(), "5/a".into()])
        );
        assert_eq!(
            of(&["MULTI", "SELECT 5", "SET a 1", "EXEC"]),
            Some(vec!["3/a".into(), "5/a".into()]),
            "the SELECT may be refused"
        );
        assert_eq!(of(&["FUNCTION FLUSH"]), Some(vec!["65535/".into()]));
        assert_eq!(of(&["FLUSHALL"]), None);
        assert_eq!(of(&["NOSUCH a"]), None);
    }
}
