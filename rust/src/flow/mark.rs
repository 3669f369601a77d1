//! Mark before write: the buckets of a command's keys are dirty for each replica before the command can reach the primary.

use smallvec::SmallVec;

use super::Engine;
use super::dirty::bucket;
use super::marker;
use super::marker::Marker;
use super::place::Place;
use super::repair::{FUNCTIONS, Key};
use crate::command::{Command, Flags, KeysResult, keys, other_db};
use crate::resp::Request;

impl Engine {
    /// A command is about to be written.
    #[inline]
    pub(super) fn mark_request(
        &mut self,
        place: &Place,
        db: u16,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) {
        let one = command.and_then(|c| c.only_key().filter(|_| c.name != "move"));
        let Some(index) = one.filter(|index| *index < request.len()) else {
            return self.mark_others(place, db, command, request);
        };
        if let Some(group) = self.group.as_mut().filter(|g| g.journal.on && g.local == place.endpoint) {
            group.journal.note(db, request.arg(index), self.now.unix_ms);
        }
        let Some(sequencer) = self.endpoints[place.endpoint].sequencer.as_mut() else { return };
        let bucket = bucket(db, request.arg(index));
        for replica in sequencer.replicas.iter_mut().flatten() {
            if (place.writes | place.marks) & (1 << replica.bit) != 0 {
                replica.map.mark(bucket);
            }
        }
    }

    /// Several keys, or none that can be named.
    #[cold]
    fn mark_others(
        &mut self,
        place: &Place,
        db: u16,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) {
        let mut indices: SmallVec<[u32; 4]> = SmallVec::new();
        let known = command.is_some_and(|c| keys(c, request, &mut indices) == KeysResult::Known);
        let name = command.map_or("", |c| c.name);
        let head = name.split('|').next().unwrap_or_default();
        // A leader's marker for this Redis is not what another could lack.
        let is_marker = || place.marks != 0 && !Marker::all_in(request.frame).is_empty();
        if name == "function|load" && is_marker() {
            return;
        }
        if head == "function" {
            if let Some(sequencer) = self.endpoints[place.endpoint].sequencer.as_mut() {
                sequencer.remark |= name != "function|load"; // it may take the markers away
            }
            return self.mark_keys(
                place.endpoint,
                place.writes | place.marks,
                Some(&[(FUNCTIONS, Box::default())]),
            );
        }
        if head == "script" || command.is_some_and(|c| c.flags.contains(Flags::PUBSUB)) {
            return; // not data
        }
        if matches!(name, "flushall" | "flushdb" | "swapdb") {
            self.remark_hashes(place.endpoint); // where markers are keys
        }
        let names = (known && !indices.is_empty()).then(|| {
            let other = command.and_then(|c| other_db(c, request)).and_then(|n| u16::try_from(n).ok());
            let dbs = [Some(db), other].into_iter().flatten();
            let keys = |db| indices.iter().map(move |&i| (db, request.arg(i as usize).into()));
            dbs.flat_map(keys).collect::<Vec<Key>>()
        });
        self.mark_keys(place.endpoint, place.writes | place.marks, names.as_deref());
    }

    fn remark_hashes(&mut self, endpoint: usize) {
        let Some(serve) = self.endpoints[endpoint].serve[0] else { return };
        let Some(sequencer) = self.endpoints[endpoint].sequencer.as_mut() else { return };
        let is_hash = |key: usize| {
            let identity = self.upstreams.get(key).and_then(|u| u.identity.as_ref());
            identity.is_some_and(|i| matches!(i.place, marker::Place::Hash(_)))
        };
        sequencer.remark |= is_hash(serve) || sequencer.replicas().any(|r| is_hash(r.upstream));
    }

    /// Keys are about to be written. `None`: any.
    pub(super) fn mark_keys(&mut self, endpoint: usize, replicas: u32, keys: Option<&[Key]>) {
        if let Some(group) = self.group.as_mut().filter(|g| g.journal.on && g.local == endpoint) {
            match keys {
                None => group.journal.note_all(self.now.unix_ms),
                Some(keys) => {
                    for (db, name) in keys.iter().filter(|(db, _)| *db != FUNCTIONS) {
                        group.journal.note(*db, name, self.now.unix_ms);
                    }
                }
            }
        }
        let Some(sequencer) = self.endpoints[endpoint].sequencer.as_mut() else { return };
        for replica in sequencer.replicas_mut().filter(|r| replicas & (1 << r.bit) != 0) {
            match keys {
                None => replica.map.mark_all(),
                Some(keys) => keys.iter().for_each(|(db, name)| match *db {
                    FUNCTIONS => replica.map.mark_functions(),
                    db => replica.map.mark(bucket(db, name)),
                }),
            }
        }
    }
}
