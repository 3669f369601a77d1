//! Markers are written, and generations of dirty maps begin.

use super::Engine;
use super::call::Call;
use super::handover::Seal;
use super::marker::{Marker, Part, Place};
use super::replica::{Judged, Replica};
use super::resync::Step;
use super::sequencer::{Proof, Sequencer};
use super::upstream::{Entered, Role, Upstream};
use crate::resp::encode;

/// Time between two generations (milliseconds).
const GENERATION_MS: u64 = 10_000;
/// Fewer dirty buckets than this may wait longer.
const FEW: u64 = 1_024;
const GENERATION_FEW_MS: u64 = 60_000;
/// When a mirror that refused its first marker for a passing reason gets another (milliseconds).
const JUDGE_AGAIN_MS: u64 = 1_000;

impl Engine {
    /// The command that writes the marker which a replica has now.
    pub(super) fn marker_of(&self, replica: &Replica, set: u64, primary: usize) -> Option<Vec<u8>> {
        let identity = self.upstreams.get(replica.upstream)?.identity.as_ref()?;
        let marker = Marker {
            set,
            part: Part::Mirror,
            of: self.owner(primary).of,
            generation: if replica.marked > 0 { replica.marked } else { replica.since },
            partial: replica.marked == 0,
            sole: replica.sole,
        };
        let mut bytes = Vec::new();
        marker.write(identity.place, &mut bytes);
        // Where others have libraries and markers, none is taken away.
        let alone = identity.markers.iter().all(|m| m.set == set);
        (alone && identity.place == Place::Library && !replica.markless).then_some(bytes)
    }

    /// Write the marker that comes before a resync, and take those away that it replaces.
    pub(super) fn send_first_mark(&mut self, primary: usize, bit: u32) {
        let now_ms = self.now.ms;
        if !self.send_mark(primary, bit, true) {
            return; // its database is being proven
        }
        let Some((_, replica)) = self.replica_at(primary, bit) else { return };
        replica.unmarked = false;
        let (obsolete, key) = (std::mem::take(&mut replica.obsolete), replica.upstream);
        let upstream = &mut self.upstreams[key];
        let place = upstream.identity.as_ref().map_or(Place::Library, |i| i.place);
        for marker in &obsolete {
            let mut bytes = Vec::new();
            marker.remove(place, &mut bytes);
            upstream.out.push(&bytes);
            upstream.expect(Call::Look { bit, id: 0, step: Step::Over }, now_ms);
        }
    }

    /// Write a replica's marker, now, in order with its stream; `false`: not yet.
    pub(super) fn send_mark(&mut self, primary: usize, bit: u32, partial: bool) -> bool {
        let now_ms = self.now.ms;
        let of = self.owner(primary).of;
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return false };
        let set = sequencer.set;
        let Some(replica) = sequencer.replica(bit) else { return false };
        let generation = match replica.mark {
            Some((_, generation)) if !partial => generation,
            _ => replica.since,
        };
        let marker = Marker { set, part: Part::Mirror, of, generation, partial, sole: replica.sole };
        let key = replica.upstream;
        let upstream = &mut self.upstreams[key];
        let Some(sequencer) = self.endpoints[primary].sequencer.as_mut() else { return false };
        let Some(replica) = sequencer.replica(bit) else { return false };
        let written = write_marker(upstream, &marker, now_ms);
        if written && !partial {
            replica.mark = None;
        }
        Self::mark_upstream(upstream, key, &mut self.dirty_upstreams);
        written
    }

    /// What a follower is told before the first effect of a generation: what each member has acknowledged.
    pub(super) fn generation_words(&self, sequencer: &Sequencer) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(group) = self.group.as_ref() else { return out };
        let mut args = ["REDISHA", "GENERATION"].map(str::to_owned).to_vec();
        args.extend([sequencer.set.to_string(), sequencer.generation.to_string()]);
        args.push(format!("{}={}", group.spec.member, sequencer.marked));
        for replica in sequencer.replicas() {
            if let Some(peer) =
                group.peers.iter().find(|p| p.endpoint == replica.target && !p.member.is_empty())
            {
                args.push(format!("{}={}", peer.member, replica.marked));
            }
        }
        encode::command(&mut out, &args);
        out
    }

    /// The primary is about to be filled: until that is done its marker says so.
    ///
    /// `false`: not yet.
    pub(super) fn mark_partial(&mut self, key: usize) -> bool {
        let (now_ms, of) = (self.now.ms, self.owner(key).of);
        let Some(serve) = self.endpoints[key].serve[0] else { return false };
        let Some(sequencer) = self.endpoints[key].sequencer.as_ref() else { return false };
        let marker =
            Marker { set: sequencer.set, part: Part::Primary, of, generation: 0, partial: true, sole: true };
        let written = write_marker(&mut self.upstreams[serve], &marker, now_ms);
        Self::mark_upstream(&mut self.upstreams[serve], serve, &mut self.dirty_upstreams);
        written
    }

    /// A marker was written, or refused.
    pub(super) fn marked(&mut self, key: usize, generation: u64, complete: bool, reply: &[u8]) {
        let failed = reply.first() == Some(&b'-');
        let lasting = [&b"-ERR"[..], b"-NOPERM"].iter().any(|code| reply.starts_with(code));
        let passing = failed && !lasting;
        let now_ms = self.now.ms;
        let upstream = &mut self.upstreams[key];
        let (role, sequencer_of) = (upstream.role, upstream.primary());
        let Some(sequencer) = self.endpoints.get_mut(sequencer_of).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        let text =
            String::from_utf8_lossy(reply.get(1..160.min(reply.len())).unwrap_or(&[])).trim_end().to_owned();
        match role {
            Role::Beat | Role::Private { .. } | Role::Spare | Role::Relief | Role::Tap { .. } => {}
            Role::Serve => {
                sequencer.marking = false;
                sequencer.markless = failed && !passing;
                sequencer.remark |= sequencer.forgetful && passing;
                let opens = !passing && std::mem::take(&mut sequencer.forgetful);
                if !failed
                    && complete
                    && let Some(identity) = self.upstreams[key].identity.as_mut()
                {
                    let set = sequencer.set;
                    identity.markers.retain(|m| m.set != set);
                    identity.markers.push(Marker {
                        set,
                        part: Part::Primary,
                        of: 0,
                        generation,
                        partial: false,
                        sole: true,
                    });
                }
                if !failed && complete {
                    sequencer.marked = generation;
                    for replica in sequencer.replicas_mut() {
                        replica.map.set_primary_marked(generation);
                    }
                }
                if opens {
                    self.wake_waiters(key);
                }
            }
            Role::Replica { bit, .. } => {
                if let Some(replica) = sequencer.replica(bit) {
                    if passing && !complete && !replica.open {
                        // It could not be told later that it is this sidecar's alone.
                        replica.judged = Judged::No;
                        replica.resync = None;
                        replica.judge_at = now_ms + JUDGE_AGAIN_MS;
                        replica.stats.label.set("reason", format!("it refuses its marker for now: {text}"));
                        return;
                    }
                    replica.open |= !complete;
                    if failed && !passing {
                        replica.markless = true;
                        replica.stats.label.set("reason", format!("it refused its marker: {text}"));
                    } else if !failed && complete {
                        replica.marked = generation;
                        if replica.is_known()
                            && replica.map.had_all()
                            && replica.map.generation() == generation
                        {
                            replica.map.forget_old(); // what was before the resync tells nothing
                        }
                    }
                }
            }
        }
        self.touch_sequencer(sequencer_of);
    }

    /// The primary's marker may have been taken away: the next one follows directly.
    pub(super) fn mark_anew(&mut self, key: usize) {
        if let Some(sequencer) = self.endpoints[key].sequencer.as_mut() {
            sequencer.remark = true;
        }
        self.advance_generation(key);
    }

    /// Begin a generation where it is time to.
    pub(super) fn advance_generation(&mut self, key: usize) {
        let now_ms = self.now.ms;
        let Some((endpoint, _)) = self.primary_identity(key) else { return };
        if self.group.as_ref().is_some_and(|g| g.local == key && g.yielding && g.seal != Seal::No) {
            return; // the successor was told of the last one
        }
        let serve = endpoint.serve[0];
        let of = self.owner(key).of;
        let Some(sequencer) = self.endpoints[key].sequencer.as_mut() else { return };
        let each_second = now_ms >= self.sweep_at;
        // A marker on its way may be taken away by a command behind it.
        let due = sequencer.remark || (!sequencer.marking && each_second && is_time(sequencer, now_ms));
        if sequencer.proof != Proof::Proven || !due {
            return;
        }
        let Some(serve) = serve else { return };
        let upstream = &mut self.upstreams[serve];
        if upstream.barred.is_some() {
            return;
        }
        let generation = sequencer.generation + 1;
        let marker =
            Marker { set: sequencer.set, part: Part::Primary, of, generation, partial: false, sole: true };
        let written = write_marker(upstream, &marker, now_ms);
        Self::mark_upstream(upstream, serve, &mut self.dirty_upstreams);
        if !written {
            return; // its database is being proven
        }
        let grouped = self.group.as_ref().is_some_and(|g| g.local == key);
        let before = sequencer.generation;
        sequencer.generation = generation;
        sequencer.marking = true;
        sequencer.remark = false;
        sequencer.advance_at = now_ms + GENERATION_MS;
        let end = sequencer.log.end();
        for replica in sequencer.replicas_mut() {
            // (What a member still lacks only its leader knows, and another may lead next.)
            let known = if grouped { replica.is_clean() } else { replica.is_known() };
            replica.map.advance(generation, replica.marked == before);
            replica.mark_again();
            replica.mark = known.then_some((end, generation));
        }
        // Somebody else may have begun to write to a mirror.
        let connected: Vec<(usize, u32)> = sequencer
            .replicas()
            .filter(|r| r.judged == Judged::Yes && r.resync.is_none())
            .map(|r| (r.upstream, r.bit))
            .collect();
        for (upstream, bit) in connected {
            if self.upstreams.get(upstream).is_some_and(Upstream::is_ready) {
                self.ask_for_markers(upstream, bit);
            }
        }
        self.touch_sequencer(key);
    }
}

/// Queue a marker; `false` while its database is not proven yet.
fn write_marker(upstream: &mut Upstream, marker: &Marker, now_ms: u64) -> bool {
    if !upstream.is_ready() {
        return false;
    }
    let place = upstream.identity.as_ref().map_or(Place::Library, |i| i.place);
    if let Place::Hash(db) = place
        && upstream.enter(db, None, now_ms) != Entered::Yes
    {
        return false;
    }
    let mut bytes = Vec::new();
    marker.write(place, &mut bytes);
    upstream.out.push(&bytes);
    upstream.expect(Call::Mark { generation: marker.generation, complete: !marker.partial }, now_ms);
    true
}

fn is_time(sequencer: &Sequencer, now_ms: u64) -> bool {
    if now_ms < sequencer.advance_at {
        return false;
    }
    let marks = |r: &Replica| r.map.fresh() + if r.map.had_all() { FEW } else { 0 };
    let dirty = sequencer.replicas().filter(|r| r.is_known()).map(marks).max().unwrap_or(0);
    let old = now_ms >= sequencer.advance_at + GENERATION_FEW_MS - GENERATION_MS;
    dirty >= FEW || (dirty > 0 && old)
}
