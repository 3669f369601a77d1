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
            // Sent and not acknowledged: the socket may still need the bytes. What such a replica was not sent yet waits
            // behind them, so it is dropped as well: its acknowledgements then free the front.
            let holds = |r: &Replica| r.acked <= position && r.next > position;
            for replica in self.replicas.iter_mut().flatten() {
                let end = if holds(replica) { self.log.decided() } else { position + 1 };
                if holds(replica) {
                    trimmed.holders |= 1 << replica.bit;
                }
                while replica.next < end {
                    let at = replica.next;
                    replica.next += 1;
                    if let Some(entry) = self.log.get(at)
                        && entry.state == super::log::State::Committed
                        && super::mirror::drop_effect(replica, entry, self.log.bytes(entry), at)
                    {
                        trimmed.losers |= 1 << replica.bit;
                    }
                }
                replica.acked = if replica.in_flight == 0 { replica.next } else { replica.acked };
            }
            if trimmed.holders != 0 {
                break;
            }
            self.stats.overflow_total.inc();
            self.log.trim(position + 1);
        }
        trimmed
    }
}
