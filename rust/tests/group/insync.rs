//! A model of `redisha.group.insync`: who is recorded as having all that a quorum acknowledged, and who is waited for.

use std::collections::{BTreeMap, BTreeSet};

use super::view::Snapshot;

/// Of whom a leader may be elected. The greater one is the newer one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recorded {
    pub term: u64,
    pub serial: u64,
    pub members: Vec<String>,
}

/// The record of one leader.
#[derive(Debug, Default)]
pub struct InSync {
    pub term: u64,
    serial: u64,
    attempted: BTreeSet<String>,
    /// Since when each was counted (milliseconds), and what it must have.
    joining: BTreeMap<String, (u64, Option<(u64, u64)>)>,
    counted: Option<Vec<String>>,
    pub confirmed: Option<Vec<String>>,
}

impl InSync {
    /// A leadership begins, with nothing recorded.
    pub fn start(&mut self, term: u64) {
        *self = Self { term, ..Self::default() };
    }

    fn count(&mut self) -> Option<Vec<String>> {
        let mut all: BTreeSet<String> = self.attempted.clone();
        all.extend(self.confirmed.iter().flatten().cloned());
        all.extend(self.joining.keys().cloned());
        let all: Vec<String> = all.into_iter().collect();
        if self.counted.as_ref() == Some(&all) {
            return None;
        }
        self.counted = Some(all.clone());
        Some(all)
    }

    /// Go on towards a record of these members. Gives whom to count, and whom to have recorded; those that are new.
    pub fn record(
        &mut self,
        wanted: &[String],
        view: &Snapshot,
        now_ms: u64,
        heartbeat_ms: u64,
    ) -> (Option<Vec<String>>, Option<(Vec<String>, Vec<String>)>) {
        let mut base: BTreeSet<String> = self.attempted.clone();
        base.extend(self.confirmed.iter().flatten().cloned());
        let before = std::mem::take(&mut self.joining);
        for name in wanted.iter().filter(|n| !base.contains(*n)) {
            self.joining.insert(name.clone(), before.get(name).copied().unwrap_or((now_ms, None)));
        }
        let count = self.count();
        let mut members = Vec::new();
        for name in wanted {
            if base.contains(name) {
                members.push(name.clone());
                continue;
            }
            let Some((since, mark)) = self.joining.get_mut(name) else { continue };
            match *mark {
                None if now_ms >= *since + heartbeat_ms => *mark = Some(view.me.position),
                None => {}
                Some(mark) => {
                    let peer = view.peers.iter().find(|p| p.status.member == *name);
                    if peer.is_some_and(|p| p.caught_up || p.status.position >= mark) {
                        members.push(name.clone());
                    }
                }
            }
        }
        if self.confirmed.as_ref() == Some(&members) {
            return (count, None);
        }
        let before = self.confirmed.as_deref().unwrap_or_default();
        let new = members.iter().filter(|m| !before.contains(m)).cloned().collect();
        (count, Some((members, new)))
    }

    /// The record of these members that is tried now, and whom to count.
    pub fn attempt(&mut self, members: &[String]) -> (Option<Vec<String>>, Recorded) {
        self.serial += 1;
        self.attempted.extend(members.iter().cloned());
        let recorded = Recorded { term: self.term, serial: self.serial, members: members.to_vec() };
        (self.count(), recorded)
    }

    /// A majority has this record.
    pub fn is_recorded(&mut self, recorded: &Recorded) -> Option<Vec<String>> {
        self.confirmed = Some(recorded.members.clone());
        self.attempted.clear();
        self.joining.retain(|name, _| !recorded.members.contains(name));
        self.count()
    }
}
