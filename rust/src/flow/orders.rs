//! What operators and scrubs ask for.

use super::Engine;
use super::proof::new_set;
use super::replica::Need;
use super::sequencer::Proof;

impl Engine {
    /// What the operator wants of the replicas of a cluster.
    pub fn resync(&mut self, cluster: &str, action: Action) {
        self.upkeep_at = 0; // what it changes is shown at once
        for key in 0..self.endpoints.capacity() {
            let Some(endpoint) = self.endpoints.get(key) else { continue };
            let of_primary = endpoint.cluster == cluster;
            let Some(sequencer) = endpoint.sequencer.as_ref() else { continue };
            if action == Action::Accept && of_primary && sequencer.proof != Proof::Proven {
                let set = new_set(self.seed, self.now.unix_ms, cluster);
                if let Some(sequencer) = self.endpoints[key].sequencer.as_mut().filter(|s| s.set == 0) {
                    sequencer.set = set;
                }
                self.proven(key, Need::Full);
                continue;
            }
            let targets: Vec<u32> = sequencer
                .replicas()
                .filter(|r| of_primary || self.endpoints.get(r.target).is_some_and(|e| e.cluster == cluster))
                .map(|r| r.bit)
                .collect();
            let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { continue };
            for replica in sequencer.replicas_mut().filter(|r| targets.contains(&r.bit)) {
                match action {
                    Action::Pause => replica.paused = true,
                    Action::Resume => replica.paused = false,
                    Action::Start => {
                        replica.paused = false;
                        replica.lack(Need::Marked);
                    }
                    Action::Full => {
                        replica.paused = false;
                        replica.claimed = true;
                        replica.resync = None;
                        replica.lack(Need::Full);
                    }
                    Action::Accept => {}
                }
            }
            self.touch_sequencer(key);
        }
    }

    /// Keys were found to differ: have them copied.
    pub fn doubt_keys(&mut self, primary: &str, mirror: &str, keys: &[(u16, Vec<u8>)]) {
        let Some(key) = self.endpoints.iter().find(|(_, e)| e.name() == primary).map(|(key, _)| key) else {
            return;
        };
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        let end = sequencer.log.end();
        for replica in sequencer.replicas_mut().filter(|r| r.stats.label.get("mirror") == mirror && r.sole) {
            for (db, name) in keys {
                replica.doubt((*db, name.as_slice().into()), end);
            }
        }
        self.touch_sequencer(key);
    }
}

/// What an operator can ask of a resync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look at what may differ.
    Start,
    /// Look at everything; the mirror is this sidecar's alone.
    Full,
    /// Stop.
    Pause,
    /// Go on.
    Resume,
    /// A primary's data counts as it is.
    Accept,
}

impl std::str::FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "start" => Self::Start,
            "full" => Self::Full,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            "accept" => Self::Accept,
            other => return Err(format!("not start, full, pause, resume or accept: {other}")),
        })
    }
}
