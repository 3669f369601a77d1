//! Which keys the commands in some bytes name: for the rare moments in which an effect's fate is in doubt.

use smallvec::SmallVec;

use crate::command::{Flags, KeysResult, is_word, keys, lookup, other_db};
use crate::resp::{Bounds, Request, RequestScanner, Scanned};

use super::handshake::database;
use super::replica::{FUNCTIONS, Key};

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
