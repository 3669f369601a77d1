//! A leader gives way: it takes no more commands, and sees to it that nobody needs to look at anybody's data afterwards.
//!
//! When the last command is in the log, a generation begins. A member whose Redis has its marker lacks nothing of what
//! this leader did: the successor is told who has it, and the old leader's own Redis is among them.

use super::Engine;
use super::call::Call;
use super::group::Post;
use super::replica::Replica;
use super::sequencer::{Proof, Sequencer};
use super::upstream::Upstream;

/// How far a leader that gives way has sealed what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Seal {
    /// Commands are on their way, or it does not give way.
    #[default]
    No,
    /// The markers of this generation are on their way.
    Begun(u64),
    /// The others have been told who has them.
    Told,
}

impl Engine {
    /// Take no more commands: they wait, what is in the log goes on to the others. Or take them again.
    pub fn yield_lead(&mut self, on: bool) {
        let Some(group) = self.group.as_mut() else { return };
        let yielding = on && group.post == Post::Leader;
        if yielding == group.yielding {
            return;
        }
        group.yielding = yielding;
        group.seal = Seal::No;
        let local = group.local;
        let sequencer = self.endpoints.get_mut(local).and_then(|e| e.sequencer.as_mut());
        sequencer.into_iter().flat_map(|s| s.replicas_mut()).for_each(|r| r.sealed = false);
        self.touch_sequencer(local);
        if !on {
            self.wake_group();
        }
        self.publish_group(); // who has everything is not to be read from a time when commands were taken
    }

    /// Take the next step towards a seal. At the end of a turn.
    pub(super) fn seal(&mut self) {
        let Some(group) = self.group.as_ref() else { return };
        let (local, seal) = (group.local, group.seal);
        if !group.yielding || !self.can_seal() {
            return;
        }
        let Some(sequencer) = self.endpoints[local].sequencer.as_mut() else { return };
        let generation = sequencer.generation;
        let next = match seal {
            Seal::No if sequencer.log.decided() == sequencer.log.end() && !sequencer.marking => {
                let before = sequencer.generation;
                sequencer.remark = true;
                self.advance_generation(local);
                let begun = self.endpoints[local].sequencer.as_ref().map_or(0, |s| s.generation);
                if begun > before { Seal::Begun(begun) } else { Seal::No }
            }
            Seal::Begun(generation) if is_marked(sequencer, generation) => {
                for replica in sequencer.replicas_mut() {
                    replica.told.0 = 0;
                    if replica.is_clean() && replica.marked >= generation.max(replica.map.generation()) {
                        replica.map.forget_old(); // the next leader asks what is marked here
                    }
                }
                Seal::Told
            }
            Seal::Told => {
                let knows = |u: &Upstream| u.is_ready() && u.calls.iter().all(|c| !matches!(c, Call::Told));
                let end = sequencer.log.end();
                let has_all = |r: &&mut Replica| r.told.0 == generation && r.is_clean() && r.acked >= end;
                for replica in sequencer.replicas_mut().filter(has_all) {
                    replica.sealed |= self.upstreams.get(replica.upstream).is_some_and(knows);
                }
                return;
            }
            _ => return,
        };
        if let Some(group) = self.group.as_mut() {
            group.seal = next;
        }
        self.touch_sequencer(local);
    }

    /// Whether there can be one: the own Redis is there, and takes markers.
    fn can_seal(&self) -> bool {
        let Some(group) = self.group.as_ref().filter(|g| g.post == Post::Leader && !g.lost) else {
            return false;
        };
        let proven = |s: &Sequencer| s.proof == Proof::Proven && !s.markless;
        self.primary_identity(group.local).is_some_and(|(e, _)| e.sequencer.as_deref().is_some_and(proven))
    }

    /// Whether this replica's member knows what a successor should; `true` where that cannot be.
    pub(super) fn is_sealed(&self, replica: &Replica) -> bool {
        replica.sealed || !self.can_seal()
    }
}

/// Whether all that could lead have the marker.
fn is_marked(sequencer: &Sequencer, generation: u64) -> bool {
    let has = |r: &Replica| !r.open || !r.is_clean() || r.markless || r.marked >= generation;
    sequencer.marked >= generation && sequencer.replicas().all(has)
}
