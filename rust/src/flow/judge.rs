//! What a mirror's Redis has, and what it lacks: found out when it is there again, before anything is sent to it.

use super::Engine;
use super::call::{Call, command_of};
use super::dirty::Scope;
use super::handshake::{Identity, Predecessor};
use super::marker::{Marker, Part, Place, name_hash};
use super::repair::FUNCTIONS;
use super::replica::{Judged, Need, Replica};
use super::resync::{Decision, Resync, Side, Step, View, Way, decide};
use super::sequencer::{Proof, Sequencer};
use super::upstream::{Entered, Role, Upstream};
use crate::command::Command;
use crate::resp::{Reply, encode};

impl Engine {
    /// A mirror's connection stands.
    pub(super) fn replica_ready(&mut self, primary: usize, bit: u32, identity: &Identity) {
        let Some(sequencer) = self.endpoints.get_mut(primary).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        let set = sequencer.set;
        let Some(replica) = sequencer.replica(bit) else { return };
        let upstream = replica.upstream;
        let Predecessor { run, number } = Predecessor::of(identity);
        replica.map.set_connection(1, run, number);
        if identity.run_id.is_empty() {
            let text = "its user may not ask INFO: what it has can never be known; give it +info";
            return self.break_upstream(upstream, text);
        }
        let grouped = self.group.as_ref().is_some_and(|g| g.local == primary);
        let continues = replica.run_id.as_ref() == Some(&identity.run_id);
        let restarted = replica.run_id.is_some() && !continues;
        replica.stats.count.restarts_total.add(u64::from(restarted));
        replica.run_id = Some(identity.run_id.clone());
        replica.markless = false;
        replica.logical &= continues;
        if !continues || (replica.need != Need::Nothing && replica.resync.is_none()) {
            replica.judged = Judged::No;
        } else if replica.open {
            let complete = |m: &Marker| {
                m.set == set
                    && (m.part == Part::Mirror || grouped)
                    && !m.partial
                    && m.generation >= replica.marked
            };
            let has_mine = identity.markers.iter().any(complete);
            if replica.marked > 0 && !has_mine && identity.place == Place::Library {
                replica.suspect(self.now.ms);
            } else {
                replica.stats.label.set("resync", "log");
            }
        } else {
            replica.judged = Judged::No; // its first marker may be lost
            replica.resync = None;
        }
        if !continues {
            replica.marks = None;
            replica.open = false;
            replica.resync = None;
            replica.marked = 0;
            replica.mark = None;
        } else if replica.mark.is_none() {
            sequencer.remark = true; // one may have been lost with the connection
        }
        self.refuse_same_server(primary, bit);
        if self.endpoints[primary].sequencer.as_ref().is_some_and(|s| s.proof == Proof::Unknown) {
            self.prove_primary(primary);
        }
        self.touch_sequencer(primary);
    }

    /// A mirror that is its own primary would get every write twice.
    pub(super) fn refuse_same_server(&mut self, primary: usize, bit: u32) {
        let Some((_, ours)) = self.primary_identity(primary) else { return };
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        let key = replica.upstream;
        let Some(theirs) = self.upstreams.get(key).filter(|u| u.is_ready()).and_then(|u| u.identity.as_ref())
        else {
            return;
        };
        let same = !ours.run_id.is_empty() && theirs.run_id == ours.run_id;
        let run_id = ours.run_id;
        let Some((name, replica)) = self.replica_at(primary, bit) else { return };
        replica.refused = same;
        if same {
            let (subject, mirror) = (replica.name(), replica.stats.label.get("mirror"));
            let text = format!(
                "{mirror} and {name} are the same Redis (run_id {run_id}): nothing is mirrored to it"
            );
            self.break_upstream(key, &text);
            self.tell("same_server", subject, text);
        }
    }

    /// Find out what a replica's Redis lacks, if that is not known. Its connection and its primary's are ready.
    pub(super) fn judge(&mut self, primary: usize, bit: u32) {
        let now_ms = self.now.ms;
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        let proven = sequencer.proof == Proof::Proven;
        let Some(replica) = sequencer.replica(bit) else { return };
        if !proven || replica.paused || now_ms < replica.judge_at {
            return;
        }
        match replica.judged {
            Judged::Asked => {}
            // First the resync in course.
            Judged::Yes if replica.need == Need::Nothing || replica.resync.is_some() => {}
            // What the handshake told may be old by now.
            Judged::No | Judged::Yes => {
                if self.has_unordered_writes(primary) {
                    return;
                }
                let Some((_, replica)) = self.replica_at(primary, bit) else { return };
                let upstream = replica.upstream;
                if self.ask_for_markers(upstream, bit)
                    && let Some((_, replica)) = self.replica_at(primary, bit)
                {
                    replica.judged = Judged::Asked;
                }
            }
        }
    }

    /// A primary that had no mirror before may have writes on its way that no log has.
    fn has_unordered_writes(&mut self, primary: usize) -> bool {
        let own = |u: &Upstream| {
            let writes = |call: &Call| matches!(call, Call::Client(c) if !c.blocks && command_of(c.command).is_none_or(Command::is_write));
            u.endpoint == primary && matches!(u.role, Role::Private { .. }) && u.calls.iter().any(writes)
        };
        if self.upstreams.iter().any(|(_, u)| own(u)) || self.seat.others_write(self.plan.generation) {
            return true;
        }
        // Where it broke, its next connection ends the one before: what that had sent may still run.
        let owes = |u: &Upstream| !u.is_ready() && u.predecessor.number != 0;
        let others: Vec<usize> = self.endpoints[primary].serve.iter().skip(1).flatten().copied().collect();
        if others.iter().any(|key| self.upstreams.get(*key).is_some_and(|u| !u.calls.is_empty() || owes(u))) {
            return true;
        }
        for key in others {
            self.remove_upstream(key);
        }
        self.endpoints[primary].serve[1..].fill(None);
        false
    }

    /// Read a mirror's markers again; `false`: not yet.
    pub(super) fn ask_for_markers(&mut self, key: usize, bit: u32) -> bool {
        let Role::Replica { primary, .. } = self.upstreams[key].role else { return false };
        let Some(id) = self.replica_at(primary, bit).map(|(_, replica)| replica.id) else { return false };
        let judged = self.replica_at(primary, bit).is_some_and(|(_, r)| r.judged == Judged::Yes);
        let member =
            self.group.as_ref().filter(|g| g.local == primary && !judged).map(|g| g.spec.member.clone());
        let upstream = &mut self.upstreams[key];
        let place = upstream.identity.as_ref().map_or(Place::Library, |i| i.place);
        if let Place::Hash(db) = place
            && upstream.enter(db, None, self.now.ms) != Entered::Yes
        {
            Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
            return false; // the database is being proven
        }
        let mut bytes = Vec::new();
        if let Some(member) = member {
            encode::command(&mut bytes, &["REDISHA", "MARKS", &member]);
            upstream.expect(Call::Look { bit, id, step: Step::Marks }, self.now.ms);
        }
        encode::command(&mut bytes, &["INFO", "keyspace"]);
        upstream.expect(Call::Look { bit, id, step: Step::Keyspace(Side::Mirror) }, self.now.ms);
        Marker::read(place, &mut bytes);
        upstream.out.push(&bytes);
        upstream.expect(Call::Look { bit, id, step: Step::Markers }, self.now.ms);
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        true
    }

    /// The rules say what follows.
    pub(super) fn sentence(&mut self, primary: usize, bit: u32, set: u64, identity: &Identity) {
        let now_ms = self.now.ms;
        let owner = self.owner(primary);
        let grouped = self.is_groups_own(primary);
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        let others = identity.markers.iter().filter(|m| m.set != set);
        let foreign: Vec<Marker> = others.filter(|m| m.is_foreign(&owner)).copied().collect();
        // Another sidecar's primary is never taken from it.
        replica.claimed &= foreign.iter().all(|m| m.part == Part::Mirror);
        if replica.claimed {
            replica.map.set_shared(false);
        } else if !foreign.is_empty() {
            replica.map.set_shared(true);
        }
        let process = name_hash(&[&identity.run_id]);
        let known = replica.map.set() == set && replica.map.run(1) == process;
        let view = View {
            owner: &owner,
            same_process: known.then(|| replica.map.is_sole()),
            markers: &identity.markers,
            empty: identity.empty,
            shared: replica.map.is_shared(),
            claimed: replica.claimed,
            full: replica.need == Need::Full,
        };
        let Decision { mut way, sole } = decide(&view);
        if self.wait_for_merge(primary, bit) {
            return;
        }
        if self.is_groups_own(primary) {
            if !sole {
                return self.refuse_stranger(primary, bit);
            }
            // What it has beyond the leadership before this one is not of this history.
            way = match way {
                Way::Since(generation) => self.common_generation(generation).map_or(Way::Full, Way::Since),
                Way::Full => Way::Full,
            };
        }
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        let newer =
            |m: &&Marker| m.set == set && m.part == Part::Mirror && m.generation > replica.map.generation();
        let newest = identity.markers.iter().filter(newer).map(|m| m.generation).max();
        let told = replica.claimed || replica.need >= Need::Marked;
        if let Some(newest) = newest.filter(|_| !grouped) {
            if !told {
                // It knows more than the primary and its map: which of them lost something is not for a resync to say.
                replica.judged = Judged::No;
                replica.judge_at = now_ms + 1_000;
                let text =
                    "its marker is newer than the primary's: the primary, or state_dir, is an old copy";
                replica.stats.label.set("reason", text);
                return self.doubt_primary(primary);
            }
            // The primary counts as it is: what comes now is newer than all there was.
            self.raise_generation(primary, newest);
        }
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        let scope = match way {
            Way::Since(generation) => {
                let marked = if replica.need == Need::Marked { replica.map.base() } else { generation };
                replica.map.since(generation.min(marked))
            }
            Way::Full => Some(Scope::everything()),
        };
        let mut scope = scope.unwrap_or_else(Scope::everything);
        if grouped {
            // Also should this resync not come to its end: from now on they are this member's marks.
            let theirs = replica.marks.replace(Scope::default()).unwrap_or_else(Scope::everything);
            replica.map.mark_scope(&theirs);
            scope.add(&theirs);
        }
        replica.since = match way {
            Way::Since(generation) if !scope.all => generation.min(replica.map.generation()),
            _ => 0,
        };
        replica.judged = Judged::Yes;
        replica.need = Need::Nothing;
        replica.sole = sole;
        if sole && scope.all {
            replica.map.set_unproven(false);
        }
        replica.unproven = replica.map.is_unproven();
        replica.stats.label.set("sole", if sole { "yes" } else { "no" });
        if scope.all {
            replica.map.mark_all(); // should this process end before it is done
            replica.map.mark_functions();
        }
        replica.map.set_run(1, 0);
        replica.map.set_sole(sole);
        replica.map.set_run(1, process);
        // A Redis that may be emptied gets its marker before its first effect: whatever arrives, that has.
        replica.open |= scope.is_empty() || !sole || replica.markless;
        if scope.is_empty() {
            let complete = |m: &&Marker| m.set == set && m.part == Part::Mirror && !m.partial;
            replica.marked = identity.markers.iter().find(complete).map_or(0, |m| m.generation);
            replica.stats.label.set("resync", "log");
            if let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() {
                sequencer.remark = true;
            }
            return;
        }
        let obsolete = |m: &&Marker| sole && m.set != set && !owner.sets.contains(&m.set);
        replica.obsolete = identity.markers.iter().filter(obsolete).copied().collect();
        self.begin_resync(primary, bit, scope, identity.place);
    }

    /// A member whose Redis has data of its own, of which nobody knows whether it may go.
    fn refuse_stranger(&mut self, primary: usize, bit: u32) {
        let again = self.now.ms + 1_000;
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        replica.judged = Judged::No;
        replica.judge_at = again;
        let text = "its Redis has data that is not this group's: it is not overwritten. Empty it, or run there: redisha init \
                    --from MEMBER";
        replica.stats.label.set("reason", text);
    }

    /// What another member has marked as perhaps not known to this one.
    pub(super) fn marks_read(&mut self, primary: usize, bit: u32, id: u64, reply: Reply<'_>) {
        let Some((_, replica)) = self.replica_at(primary, bit).filter(|(_, r)| r.id == id) else { return };
        let mut parts = reply.elements();
        let mut flag = || parts.next().and_then(Reply::integer) != Some(0);
        let (all, functions) = (flag(), flag());
        let bits = parts.next().and_then(Reply::text).unwrap_or_default();
        replica.led = parts.next().and_then(Reply::integer) != Some(0);
        replica.marks =
            Some(if reply.is_error() { Scope::everything() } else { Scope::read(all, functions, bits) });
    }

    /// Look for what differs within `scope`.
    fn begin_resync(&mut self, primary: usize, bit: u32, scope: Scope, place: Place) {
        let now_ms = self.now.ms;
        self.numbers += 1;
        let number = self.numbers;
        let has_functions = self.primary_identity(primary).is_some_and(|(_, i)| i.place == Place::Library);
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        let Sequencer { log, replicas, .. } = &mut **sequencer;
        let Some(replica) = replicas.get_mut(bit as usize).and_then(Option::as_mut) else { return };
        let (sole, end) = (replica.sole, log.end());
        if sole {
            replica.skip(log); // what these effects changed the resync brings, as it is by then
        }
        let copied = replica.stats.count.resync_keys_total.get();
        if scope.functions && has_functions && place == Place::Library {
            replica.repair.find((FUNCTIONS, Box::default()), !sole, end);
        }
        let mut resync = Resync::new(number, scope, sole, now_ms, copied);
        resync.begins = end;
        let count = &replica.stats.count;
        count.resync_runs_total.inc();
        count.resync_full_total.add(u64::from(resync.full));
        count.unproven_keys.set(0);
        replica.stats.label.set("resync", resync.name());
        replica.resync = Some(resync);
        replica.mark = None;
        replica.marked = 0;
        // Before the first key is copied, and the first effect sent: should it end here, the marker says so.
        replica.unmarked = sole && !replica.markless;
    }

    /// The answer to a question about markers.
    pub(super) fn markers_read(&mut self, key: usize, primary: usize, bit: u32, id: u64, reply: &[u8]) {
        let now_ms = self.now.ms;
        let Some(identity) = self.upstreams[key].identity.as_mut() else { return };
        if reply.first() != Some(&b'-') {
            identity.markers = Marker::all_in(reply);
        }
        let mut identity = identity.clone();
        self.as_follower(primary, &mut identity.markers);
        let owner = self.owner(primary);
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return };
        let set = sequencer.set;
        let Some(replica) = sequencer.replica(bit).filter(|r| r.id == id) else { return };
        if replica.judged == Judged::Asked && reply.first() == Some(&b'-') {
            replica.judged = Judged::No;
            replica.judge_at = now_ms + 1_000;
            return;
        }
        if replica.judged == Judged::Asked {
            return self.sentence(primary, bit, set, &identity);
        }
        let foreign = identity.markers.iter().any(|m| m.is_foreign(&owner));
        let mine = identity.markers.iter().find(|m| m.set == set && m.part == Part::Mirror);
        let has_mine = mine.is_some_and(|m| !m.partial && m.generation >= replica.marked);
        let looked = replica.resync.as_ref().is_some_and(|r| r.sole && r.step == Step::Markers);
        let lost = (replica.marked > 0 && !has_mine) || (looked && !replica.markless && mine.is_none());
        // Hashes come and go with FLUSHALL; a library goes only with the data.
        if lost && identity.place == Place::Library && reply.first() != Some(&b'-') {
            return replica.suspect(now_ms);
        }
        if foreign && !replica.claimed {
            replica.map.set_shared(true);
            replica.sole = false;
        }
        let sole = replica.sole;
        if let Some(resync) = replica.resync.as_mut().filter(|r| r.step == Step::Markers) {
            resync.proceed(sole);
            replica.stats.label.set("resync", resync.name());
        }
    }

    /// A replica's questions and marks that were in flight are lost with its connection.
    pub(super) fn forget_questions(replica: &mut Replica) {
        if let Some(resync) = &mut replica.resync {
            resync.asked = false;
        }
        if replica.judged == Judged::Asked {
            replica.judged = Judged::No;
        }
    }
}
