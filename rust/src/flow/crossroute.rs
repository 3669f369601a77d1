//! What a client is told whose command has no single place: which keys, and where they are.

use crate::command::{Command, keys};
use crate::resp::Request;

use super::keys::keys_of;
use super::place::{Elsewhere, Place};
use super::{Endpoint, Engine};

/// Most servers that an error names.
const NAMES: usize = 8;
/// Most bytes of a key that an error shows.
const SHOWN: usize = 64;

impl Engine {
    /// Why a command has no place, for its client.
    pub(super) fn why_not(&self, slot: usize, request: &Request<'_>, elsewhere: &Elsewhere) -> String {
        match elsewhere {
            Elsewhere::Nowhere(text) => text.clone(),
            Elsewhere::Apart([(_, one), (_, other)]) if self.are_of_one_slot_map(*one, *other) => {
                "CROSSSLOT Keys in request don't hash to the same slot".to_owned()
            }
            Elsewhere::Apart([(first, one), (second, other)]) => format!(
                "CROSSROUTE key '{}' is on {} and key '{}' on {}: send one command for each",
                shown(request.arg(*first as usize)),
                self.name_of(*one),
                shown(request.arg(*second as usize)),
                self.name_of(*other)
            ),
            Elsewhere::Everywhere => format!(
                "CROSSROUTE '{}' concerns every Redis behind this listener ({}): send it to each of them",
                String::from_utf8_lossy(request.arg(0)).to_lowercase(),
                self.names_behind(self.sessions[slot].listener)
            ),
        }
    }

    /// Whether two endpoints are of one Redis Cluster, whose own words are the right ones then.
    fn are_of_one_slot_map(&self, one: usize, other: usize) -> bool {
        let cluster = |key: usize| self.endpoints.get(key).map(|e| e.cluster.as_str());
        let by_slot =
            |name: &str| self.plan.clusters.iter().any(|c| c.name == name && c.ring.slots().is_some());
        cluster(one) == cluster(other) && cluster(one).is_some_and(by_slot)
    }

    /// The servers behind a listener, by name.
    pub(super) fn names_behind(&self, listener: usize) -> String {
        let targets =
            self.listeners.get(listener).into_iter().flat_map(|l| &l.routes).flat_map(|r| &r.by_endpoint);
        let mut names = Vec::new();
        for name in targets.filter_map(|t| self.endpoints.get(t.endpoint)).map(Endpoint::name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let more = names.len().saturating_sub(NAMES);
        names.truncate(NAMES);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        names.join(", ") + &rest
    }

    /// The name of an endpoint: its cluster and itself.
    pub(super) fn name_of(&self, endpoint: usize) -> String {
        self.endpoints.get(endpoint).map(Endpoint::name).unwrap_or_default()
    }

    /// Why a command cannot join a transaction whose keys are elsewhere, or have other mirrors.
    pub(super) fn why_not_joined(
        &self,
        slot: usize,
        command: Option<&'static Command>,
        request: &Request<'_>,
        place: &Place,
    ) -> String {
        let mut indices = smallvec::SmallVec::new();
        if let Some(command) = command {
            keys(command, request, &mut indices);
        }
        let named = |index: usize| format!("key '{}'", shown(request.arg(index)));
        let this = indices.first().map_or_else(|| "this command".to_owned(), |i| named(*i as usize));
        let queued = self.sessions[slot].extra.as_ref().and_then(|e| e.transaction.as_ref());
        let (path, keyed, bytes) = queued.map_or((None, None, &[][..]), |q| (q.path, q.keyed, &q.bytes));
        let before = keys_of(bytes, 0).and_then(|keys| Some(format!("key '{}'", shown(&keys.first()?.1))));
        let before = before.unwrap_or_else(|| "what is queued".to_owned());
        if let Some(other) = path.filter(|path| *path != place.endpoint) {
            return format!(
                "CROSSROUTE {before} is on {} and {this} on {}: one Redis executes a transaction",
                self.name_of(other),
                self.name_of(place.endpoint)
            );
        }
        let differing = place.keys.first().and_then(|one| {
            let other = place.keys.iter().find(|k| k.replicas != one.replicas)?;
            Some([one, other].map(|k| (named(k.index as usize), k.replicas)))
        });
        let [one, other] = differing.unwrap_or([(before, keyed.unwrap_or(0)), (this, place.writes)]);
        format!(
            "CROSSROUTE {} goes to {} and {} to {}: a transaction has the same mirrors as a whole",
            one.0,
            self.mirrors_of(place.endpoint, one.1),
            other.0,
            self.mirrors_of(place.endpoint, other.1)
        )
    }

    /// The replicas of an endpoint, by name.
    fn mirrors_of(&self, endpoint: usize, replicas: u32) -> String {
        let sequencer = self.endpoints.get(endpoint).and_then(|e| e.sequencer.as_ref());
        let chosen =
            sequencer.into_iter().flat_map(|s| s.replicas()).filter(|r| replicas & (1 << r.bit) != 0);
        let names: Vec<String> = chosen.map(|r| r.stats.label.get("mirror")).collect();
        if names.is_empty() { "no mirror".to_owned() } else { names.join(", ") }
    }
}

/// A key, as far as an error shows it.
fn shown(key: &[u8]) -> String {
    key.get(..SHOWN).unwrap_or(key).escape_ascii().to_string()
}
