//! The one ordered path of writes to one Redis: the log and who receives it.

use std::sync::Arc;

use crate::stats::LogStats;

use super::expiring::Expiring;
use super::log::Log;
use super::pace::Pace;
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

/// What is known of a primary's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Its Redis has not been asked yet, or a mirror must be asked first. Clients wait.
    #[default]
    Unknown,
    /// It is what replicas are to have.
    Proven,
    /// It has lost data that a mirror has: it is to be filled from there before clients may use it.
    Held {
        /// Since when, milliseconds.
        since_ms: u64,
        /// The replica it is being filled from.
        from: Option<u32>,
    },
    /// It may have lost data, and no mirror can tell. It serves clients, and is never copied from.
    Doubtful,
    /// Another member of the group leads: what it has comes from there.
    Following,
}

/// Order, log and replicas of one endpoint.
#[derive(Debug, Default)]
pub struct Sequencer {
    /// What was written.
    pub log: Log,
    /// Who gets it; a place is free when its replica was removed.
    pub replicas: Vec<Option<Replica>>,
    /// Which keys may have an expiry.
    pub expiring: Expiring,
    /// Copies in flight on the primary.
    pub copying: u32,
    /// How many may be.
    pub pace: Pace,
    /// The identity of the primary's data; 0: not known yet.
    pub set: u64,
    /// The generation that writes are marked in now.
    pub generation: u64,
    /// What is known of the primary's data.
    pub proof: Proof,
    /// `run_id` of the Redis of which it is known.
    pub run_id: String,
    /// The generation whose marker the primary has acknowledged.
    pub marked: u64,
    /// The primary refuses markers.
    pub markless: bool,
    /// A marker is on its way to the primary.
    pub marking: bool,
    /// The file of a map cannot be used: the process after this one must not believe what an earlier one left there.
    pub forgetful: bool,
    /// A generation must begin as soon as it can.
    pub remark: bool,
    /// When one may begin anyway, milliseconds.
    pub advance_at: u64,
    /// It is on the list of sequencers whose replicas have something to send.
    pub dirty: bool,
    /// What is counted.
    pub stats: Arc<LogStats>,
}

impl Sequencer {
    /// Whether clients must wait until it is known what the primary has.
    #[inline]
    pub fn is_closed(&self) -> bool {
        matches!(self.proof, Proof::Unknown | Proof::Held { .. })
            || (self.forgetful && self.proof == Proof::Proven)
    }

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

    /// Copies for a replica wait for room in the log: those that are not there do without their part of it, and are healed
    /// by their marks when they are back.
    pub fn give_way(&mut self, bit: u32) {
        if self.replica(bit).is_none_or(|r| r.repair.waiting() == 0) {
            return;
        }
        for replica in self.replicas_mut().filter(|r| r.bit != bit && (!r.open || r.state == "down")) {
            if replica.need == super::replica::Need::Nothing {
                replica.lack(super::replica::Need::Dirty);
            }
        }
    }

    /// Forget what every replica has, then what exceeds the bound: there only committed entries that a replica has not
    /// been sent yet are dropped, and counted as lost to it.
    pub fn trim(&mut self, limit: usize) -> Trimmed {
        // One that is not there and lacks something already is healed by other means: the log is for those that it can heal.
        for replica in self.replicas.iter_mut().flatten() {
            let away = !replica.open || replica.state == "down" || replica.refused;
            if away && replica.need > super::replica::Need::Nothing && replica.in_flight == 0 {
                replica.skip(&self.log);
            }
        }
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
