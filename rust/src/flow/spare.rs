//! Connections that stand ready to become a session's own: who subscribes or blocks need not wait for one, and what it sends is
//! not overtaken by what others send after it. There are some as long as such are asked for.

use super::Engine;
use super::ticket::SessionId;
use super::upstream::{Role, Upstream};

/// How many stand ready at an endpoint.
const SPARES: usize = 4;
/// How long they are kept after one was asked for last, milliseconds.
const KEPT_MS: u64 = 30_000;
/// After one was lost there is none for so long, milliseconds.
const PAUSE_MS: u64 = 1_000;

/// Those of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Spares {
    keys: Vec<usize>,
    /// The version of the protocol that was asked for last.
    resp: u8,
    /// When the last was asked for, milliseconds; 0: none ever was.
    asked_ms: u64,
    /// When there may be some again, milliseconds.
    pause_ms: u64,
}

impl Engine {
    /// A connection that is ready, from now on this session's.
    pub(super) fn take_spare(&mut self, endpoint: usize, session: SessionId, resp: u8) -> Option<usize> {
        let spares = &mut self.endpoints.get_mut(endpoint)?.spares;
        spares.asked_ms = self.now.ms;
        spares.resp = resp;
        self.upkeep_at = 0; // another takes its place
        let fits = |u: &Upstream| u.is_ready() && u.resp() == resp;
        let at = spares.keys.iter().position(|key| self.upstreams.get(*key).is_some_and(fits))?;
        let key = spares.keys.swap_remove(at);
        self.upstreams.get_mut(key)?.role = Role::Private { session };
        Some(key)
    }

    /// One is gone.
    pub(super) fn spare_lost(&mut self, key: usize) {
        let Some(endpoint) = self.upstreams.get(key).map(|u| u.endpoint) else { return };
        self.upstreams.remove(key);
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            endpoint.spares.keys.retain(|spare| *spare != key);
            endpoint.spares.pause_ms = self.now.ms + PAUSE_MS;
        }
    }

    /// As many as are wanted.
    pub(super) fn tend_spares(&mut self) {
        let now_ms = self.now.ms;
        let mut gone = Vec::new();
        let mut wanted = Vec::new();
        for (at, endpoint) in &mut self.endpoints {
            let spares = &mut endpoint.spares;
            if spares.asked_ms == 0 {
                continue;
            }
            if endpoint.retired || spares.asked_ms + KEPT_MS <= now_ms {
                gone.append(&mut spares.keys);
                spares.asked_ms = 0;
                continue;
            }
            let serves = endpoint.serve[0].and_then(|key| self.upstreams.get(key));
            let upstreams = &self.upstreams;
            let fits =
                |key: &usize| upstreams.get(*key).is_some_and(|u| !u.is_ready() || u.resp() == spares.resp);
            gone.extend(spares.keys.extract_if(.., |key| !fits(key)));
            if !endpoint.peer && spares.pause_ms <= now_ms && serves.is_some_and(Upstream::is_ready) {
                wanted.push((at, spares.resp, SPARES.saturating_sub(spares.keys.len())));
            }
        }
        for (endpoint, resp, count) in wanted {
            for _ in 0..count {
                let key = self.new_upstream(endpoint, Role::Spare, resp);
                self.endpoints[endpoint].spares.keys.push(key);
            }
        }
        for key in gone {
            self.remove_upstream(key);
        }
    }
}
