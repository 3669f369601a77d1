//! The one ordered path of writes to one Redis: the log and who receives it.

use std::sync::Arc;

use crate::stats::LogStats;

use super::log::Log;
use super::replica::Replica;

/// Most replicas of one sequencer: a bit each.
pub const REPLICAS_MAX: usize = 32;

/// What [`Sequencer::trim`] found, a bit for each replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// They lost entries.
    pub losers: u32,
    /// They do not acknowledge what the full log cannot do without: their connections must go.
    pub holders: u32,
}

/// Order, log and replicas of one endpoint.
#[derive(Debug, Default)]
pub struct Sequencer {
    /// What was written.
    pub log: Log,
    /// Who gets it; a place is free when its replica was removed.
    pub replicas: Vec<Option<Replica>>,
    /// Copies in flight on the primary.
    pub copying: u32,
    /// It is on the list of sequencers whose replicas have something to send.
    pub dirty: bool,
    /// What is counted.
    pub stats: Arc<LogStats>,
}

impl Sequencer {
    /// The replicas there are.
    pub fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().flatten()
    }

    /// The replicas there are, to be changed.
    pub fn replicas_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.replicas.iter_mut().flatten()
    }

    /// Replica number `bit`.
    pub fn replica(&mut self, bit: u32) -> Option<&mut Replica> {
        self.replicas.get_mut(bit as usize)?.as_mut()
    }

    /// A place for one more replica.
    pub fn free_bit(&self) -> Option<u32> {
        let free = self.replicas.iter().position(Option::is_none).unwrap_or(self.replicas.len());
        (free < REPLICAS_MAX).then_some(free as u32)
    }

    /// Forget what every replica has, then what exceeds the bound: there only committed entries that a replica has not
    /// been sent yet are dropped, and counted as lost to it.
    pub fn trim(&mut self, limit: usize) -> Trimmed {
        let done = self.replicas.iter().flatten().map(|r| r.acked).min().unwrap_or(u64::MAX);
        self.log.trim(done);
        let mut trimmed = Trimmed::default();
        while self.log.held() > limit && self.log.first() < self.log.decided() {
            let position = self.log.first();
            let Some(entry) = self.log.get(position).copied() else { break };
            // Sent and not acknowledged: the socket may still need the bytes.
            let holders = self.replicas.iter().flatten().filter(|r| r.acked <= position && r.next > position);
            trimmed.holders = holders.fold(0, |bits, r| bits | 1 << r.bit);
            if trimmed.holders != 0 {
                break;
            }
            for replica in self.replicas.iter_mut().flatten().filter(|r| r.next <= position) {
                replica.next = position + 1;
                replica.acked = position + 1;
                if entry.state != super::log::State::Committed || entry.replicas & (1 << replica.bit) == 0 {
                    continue;
                }
                if entry.kind == super::log::Kind::Sync {
                    // A copy can be had again.
                    super::mirror::drop_copy(replica, &entry, self.log.bytes(&entry), position);
                    continue;
                }
                replica.stats.count.lost_total.inc();
                trimmed.losers |= 1 << replica.bit;
            }
            self.stats.overflow_total.inc();
            self.log.trim(position + 1);
        }
        trimmed
    }
}
