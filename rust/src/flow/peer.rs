//! The peer port: what other members say to this one, and where a command of a group goes.
//!
//! ```text
//! REDISHA PEER 1 BEAT|CALL|STREAM|CONTROL group member term nonce [secret [write read]]     the first words on a connection
//!   BEAT    REDISHA BEAT status ─▶ status        control planes: REDISHA ASK member number text, REDISHA ANSWER number text
//!   CALL    commands of a follower's clients, to the leader
//!   STREAM  the leader's effects, copies and questions, for this member's Redis; and
//!           REDISHA AT generation position       how far the data goes with what came before
//!           REDISHA GENERATION n member=n …      a generation begins; which of them each member's Redis has
//!           REDISHA MARKS member ─▶ what this member marked as not known to be there
//!   CONTROL reads of this member's Redis by a control plane, and what merging needs (`journal`)
//! ```

use super::Engine;
use super::beat::Status;
use super::gate::is_usable;
use super::group::Post;
use super::ingress::{Incoming, Step};
use super::marker::Marker;
use super::place::Place;
use super::session::{Ending, Peering, Wait};
use crate::command::{Command, Flags, is_word};
use crate::plan::spec::{Consistency, Port, ReadLevel, WriteLevel};
use crate::resp::{Request, encode};

/// The version of what members say to each other.
pub(super) const VERSION: &str = "1";

/// Most questions of other members that wait for an answer.
const ASKED_MAX: usize = 1_024;

/// What a connection to a peer port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Beats, and questions of the control plane.
    Beat,
    /// Commands of clients, with this consistency.
    Call(Consistency),
    /// Effects.
    Stream,
}

impl Engine {
    /// The first words on a connection to another member's peer port.
    pub(super) fn greeting(&self, purpose: Purpose) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(group) = self.group.as_ref() else { return out };
        let (term, nonce) = (group.term.to_string(), group.nonce.to_string());
        let word = match purpose {
            Purpose::Beat => "BEAT",
            Purpose::Call(_) => "CALL",
            Purpose::Stream => "STREAM",
        };
        let secret = group.spec.secret.as_deref().unwrap_or("");
        let mut args = vec![
            "REDISHA",
            "PEER",
            VERSION,
            word,
            &group.spec.name,
            &group.spec.member,
            &term,
            &nonce,
            secret,
        ];
        if let Purpose::Call(consistency) = purpose {
            args.push(write_word(consistency.write));
            args.push(read_word(consistency.read));
        }
        encode::command(&mut out, &args);
        out
    }

    /// A command of a session in a group that is not a command of Redis, or comes from another member. `None`: it goes
    /// the way of all commands.
    pub(super) fn group_command(
        &mut self,
        slot: usize,
        known: Option<&'static Command>,
        request: &Request<'_>,
    ) -> Option<Step> {
        let ours = known.is_none() && is_word(request.arg(0), "REDISHA");
        match self.sessions[slot].peering {
            Peering::Client if ours => Some(self.redisha(slot, request)),
            Peering::Client if known.is_none() && is_word(request.arg(0), "DYNO_CONFIG:CONN_CONSISTENCY") => {
                Some(self.dyno_consistency(slot, request))
            }
            Peering::Stranger if ours && is_word(request.arg(1), "PEER") => Some(self.greet(slot, request)),
            Peering::Stranger => {
                let text = "ERR this is the peer port of a redisha group, for its other members; clients connect to the \
                            address of its listener";
                self.sessions[slot].ending = Ending::Draining;
                Some(self.refuse(slot, text))
            }
            Peering::Beat => Some(self.beat_command(slot, request)),
            Peering::Client | Peering::Call { .. }
                if known.is_some_and(|c| c.name == "wait")
                    && request.len() == 3
                    && !self.sessions[slot].in_transaction() =>
            {
                if self.group.as_ref().is_some_and(|g| g.leads()) {
                    return Some(self.wait_for_members(slot, request));
                }
                // The leader answers it, on the connection that all share.
                Some(self.forward(slot, known, &Incoming { request: *request, owner: None }))
            }
            // (A link never comes in at a group's listener.)
            Peering::Client | Peering::Link | Peering::Call { .. } => None,
            Peering::Turned { .. } => Some(self.turn_away(slot)),
            Peering::Control => {
                let writes = known.is_none_or(|c| c.resolve(request).map_or(true, Command::is_write));
                self.control_command(slot, ours, request, writes)
            }
            Peering::Stream { .. } if ours => Some(self.stream_command(slot, request)),
            Peering::Stream { .. } => {
                self.note_markers(request);
                None
            }
        }
    }

    fn farewell(&mut self, slot: usize, text: &str) -> Step {
        let step = self.refuse(slot, text);
        self.sessions[slot].ending = Ending::Draining;
        step
    }

    fn greet(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let text = |i: usize| String::from_utf8_lossy(request.arg(i)).into_owned();
        let number = |i: usize| number(request.arg(i));
        let Some(group) = self.group.as_ref() else {
            return self.farewell(slot, "ERR this redisha is in no group any more");
        };
        let (name, me) = (group.spec.name.clone(), group.spec.member.clone());
        let secret = group.spec.secret.clone().unwrap_or_default();
        let nonce = group.nonce;
        if text(2) != VERSION {
            let text = format!(
                "ERR this member speaks version {VERSION} of the peers' protocol, not {}: run the same version of redisha \
                 on all members",
                text(2)
            );
            return self.farewell(slot, &text);
        }
        if text(4) != name {
            let text = format!("ERR this is a member of group {name}, not of {}", text(4));
            return self.farewell(slot, &text);
        }
        if !super::local::same_secret(secret.as_bytes(), request.arg(8)) {
            return self.farewell(slot, "WRONGPASS the secret of the group is another one on this member");
        }
        let (member, term, theirs) = (text(5), number(6), number(7));
        let control = request.arg(3) == b"CONTROL";
        if member == me && theirs != nonce && !control {
            let text = format!(
                "ERR this member is called {me}, too: give each member a name of its own (group.member)"
            );
            return self.farewell(slot, &text);
        }
        let peer = group.peers.iter().position(|p| p.member == member);
        if !control {
            self.met(&member); // before it is followed: a leader that was never heard would be taken for gone
        }
        let peering = match request.arg(3) {
            b"BEAT" => Peering::Beat,
            b"CONTROL" => Peering::Control,
            b"CALL" => Peering::Call { peer: peer.unwrap_or(usize::MAX) },
            b"STREAM" if member == me => {
                return self.farewell(slot, "ERR this is the very same member");
            }
            b"STREAM" => match self.admit_stream(&member, term) {
                Ok(()) => Peering::Stream { term },
                Err(text) => return self.farewell(slot, &text),
            },
            _ => return self.farewell(slot, "ERR a connection of peers is for BEAT, CALL or STREAM"),
        };
        let session = &mut self.sessions[slot];
        session.peering = peering;
        session.consistency = Consistency {
            write: write_level(request.arg(9)).unwrap_or_default(),
            read: read_level(request.arg(10)).unwrap_or_default(),
        };
        self.answer_now(slot, |out| encode::status(out, &format!("OK {me} {nonce}")))
    }

    /// Whether the leader of a term may fill this member's Redis.
    fn admit_stream(&mut self, member: &str, term: u64) -> Result<(), String> {
        let Some(group) = self.group.as_ref() else { return Err("ERR no group".to_owned()) };
        let newer = term > group.term || (term == group.term && group.leader.is_empty());
        if newer {
            self.follow(term, member);
        }
        let Some(group) = self.group.as_ref() else { return Err("ERR no group".to_owned()) };
        if term < group.term || group.leader != member {
            return Err(format!("NOTLEADER {} {}", group.term, group.leader));
        }
        self.end_streams(u64::MAX); // of the same leader, before this one
        Ok(())
    }

    fn beat_command(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let text = |i: usize| String::from_utf8_lossy(request.arg(i)).into_owned();
        let number = |i: usize| number(request.arg(i));
        if is_word(request.arg(1), "ASK") && request.len() == 5 {
            let (member, theirs, question) = (text(2), number(3), text(4));
            let Some(group) = self.group.as_mut() else { return self.refuse(slot, "ERR no group") };
            if group.asked.len() >= ASKED_MAX {
                group.asked.clear(); // nobody waits for those any more
            }
            group.asks += 1;
            let asks = group.asks;
            group.asked.insert(asks, (member, theirs));
            self.tell("ask", asks.to_string(), question);
            return self.answer_now(slot, |out| encode::status(out, "OK"));
        }
        if is_word(request.arg(1), "ANSWER") && request.len() == 4 {
            self.tell("answer", number(2).to_string(), text(3));
            return self.answer_now(slot, |out| encode::status(out, "OK"));
        }
        let status = serde_json::from_slice::<Status>(request.arg(2)).ok();
        let Some(status) = status.filter(|_| is_word(request.arg(1), "BEAT")) else {
            return self.refuse(slot, "ERR not a beat");
        };
        self.note_received();
        let mut mine = self.own_status();
        let now_ms = self.now.ms;
        let Some(group) = self.group.as_ref() else { return self.refuse(slot, "ERR no group") };
        if let Some(at) = group.peers.iter().position(|p| p.member == status.member) {
            let endpoint = group.peers[at].endpoint;
            mine.counts = self.is_in_sync(group, endpoint);
            if let Some(group) = self.group.as_mut() {
                group.peers[at].heard_ms = now_ms;
                if mine.counts {
                    group.peers[at].granted_ms = now_ms;
                }
            }
            self.heard(endpoint, status);
        }
        let text = serde_json::to_string(&mine).unwrap_or_default();
        self.answer_now(slot, |out| encode::bulk(out, text.as_bytes()))
    }

    fn stream_command(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let number = |i: usize| number(request.arg(i));
        match request.arg(1) {
            b"AT" => {
                let position = (number(2), number(3));
                let local = self.group.as_ref().map_or(usize::MAX, |g| g.local);
                let serve = self.endpoints.get(local).and_then(|e| self.upstreams.get(e.serve[0]?));
                let end = serve.map_or(u64::MAX, |u| u.out.queued());
                if let Some(group) = self.group.as_mut() {
                    group.passed.push_back((end, position));
                }
                self.note_received();
                self.answer_now(slot, |out| encode::status(out, "OK"))
            }
            b"GENERATION" => {
                self.begin_generation_of_leader(number(2), number(3), request);
                self.answer_now(slot, |out| encode::status(out, "OK"))
            }
            b"MARKS" => self.answer_marks(slot, request),
            _ => self.refuse(slot, "ERR a stream knows AT, GENERATION and MARKS"),
        }
    }

    /// What this member has marked as perhaps not known to another one.
    pub(super) fn answer_marks(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let member = String::from_utf8_lossy(request.arg(2)).into_owned();
        let scope = self.marks_for(&member);
        let led = self.group.as_ref().is_some_and(|g| g.led);
        self.answer_now(slot, |out| {
            encode::array(out, 4);
            encode::integer(out, i64::from(scope.all));
            encode::integer(out, i64::from(scope.functions));
            encode::bulk(out, scope.bits());
            encode::integer(out, i64::from(led));
        })
    }

    /// The leader's stream says that a generation begins: what each member's Redis has acknowledged need not be known any
    /// more.
    fn begin_generation_of_leader(&mut self, set: u64, generation: u64, request: &Request<'_>) {
        let Some(group) = self.group.as_ref() else { return };
        let names: Vec<(usize, String)> =
            group.peers.iter().map(|p| (p.endpoint, p.member.clone())).collect();
        let acked = |member: &str| {
            request.args_from(4).find_map(|arg| {
                let (name, n) = std::str::from_utf8(arg).ok()?.rsplit_once('=')?;
                (name == member).then(|| n.parse::<u64>().ok())?
            })
        };
        let Some(sequencer) = self.endpoints.get_mut(group.local).and_then(|e| e.sequencer.as_mut()) else {
            return;
        };
        sequencer.set = set;
        sequencer.generation = sequencer.generation.max(generation);
        for replica in sequencer.replicas_mut() {
            let member = names.iter().find(|(endpoint, _)| *endpoint == replica.target).map(|(_, name)| name);
            if replica.map.set() != set {
                replica.map.set_set(set);
                replica.map.mark_all();
                replica.map.mark_functions();
            }
            let before = replica.map.generation();
            let has = member.and_then(|m| acked(m)).unwrap_or(0);
            if before < generation {
                replica.map.advance(generation, has >= before);
            } else if before == generation && has >= generation {
                replica.map.forget_old(); // the leader gives way, and tells who lacks nothing
            }
        }
        self.note_received();
        self.publish_group(); // this member may be asked to take over next
    }

    /// What this member has marked as perhaps not known to that one.
    fn marks_for(&self, member: &str) -> super::dirty::Scope {
        let everything = super::dirty::Scope::everything;
        let Some(group) = self.group.as_ref() else { return everything() };
        let Some(endpoint) = group.peer(member).map(|p| p.endpoint) else { return everything() };
        let sequencer = self.endpoints.get(group.local).and_then(|e| e.sequencer.as_ref());
        let replica = sequencer.and_then(|s| s.replicas().find(|r| r.target == endpoint));
        replica.map_or_else(everything, |r| r.map.marked())
    }

    /// A marker that passes in the stream: what this member's Redis has changes with it.
    fn note_markers(&mut self, request: &Request<'_>) {
        let library = is_word(request.arg(0), "FUNCTION") && is_word(request.arg(1), "LOAD");
        let hash = is_word(request.arg(0), "HSET") && request.arg(1) == super::marker::KEY;
        if !library && !hash {
            return;
        }
        let found = Marker::all_in(request.frame);
        let serve = self.group.as_ref().and_then(|g| self.endpoints.get(g.local)?.serve[0]);
        let identity = serve.and_then(|key| self.upstreams.get_mut(key)?.identity.as_mut());
        let (Some(identity), Some(marker)) = (identity, found.first()) else { return };
        identity.markers.retain(|m| m.set != marker.set);
        identity.markers.push(*marker);
        let (set, generation, partial) = (marker.set, marker.generation, marker.partial);
        let local = self.group.as_ref().map_or(usize::MAX, |g| g.local);
        if let Some(sequencer) = self.endpoints.get_mut(local).and_then(|e| e.sequencer.as_mut()) {
            sequencer.set = set;
        }
        if let Some(group) = self.group.as_mut() {
            group.received = if partial { (generation, 0) } else { group.received.max((generation, 0)) };
            group.led &= partial; // from here on it has what its leader has
            if !partial {
                group.journal.clear();
            }
        }
    }

    /// Where a command of a group goes. The error is what becomes of it for now.
    pub(super) fn place_in_group(
        &mut self,
        slot: usize,
        command: Option<&'static Command>,
    ) -> Result<Place, Step> {
        let bits = self.group_replicas();
        let Some(group) = self.group.as_ref() else {
            return Err(self.refuse(slot, "UNAVAILABLE this listener is being closed"));
        };
        let local = group.local;
        let session = &self.sessions[slot];
        let at = |endpoint, writes, marks| Place { writes, marks, ..Place::at(endpoint) };
        match session.peering {
            Peering::Stream { .. } => return Ok(at(local, 0, bits)),
            Peering::Control => return Ok(at(local, 0, 0)),
            // What was taken before is executed wherever that is possible: something behind it may have been already.
            Peering::Turned { .. } if self.reissue.is_none() => return Err(self.turn_away(slot)),
            Peering::Call { peer } if group.post != Post::Leader && self.reissue.is_none() => {
                self.sessions[slot].peering = Peering::Turned { peer };
                return Err(self.turn_away(slot));
            }
            _ => {}
        }
        let again = self.reissue.is_some();
        if !again && !group.resend.is_empty() {
            return Err(self.wait_for_leader(slot)); // in the order in which they came
        }
        let changes_nothing =
            |c: &Command| !c.is_write() && !c.flags.contains(Flags::PUBSUB) && c.name != "wait";
        let reads = command.is_some_and(changes_nothing) && !session.in_transaction();
        let about_server = command.is_some_and(|c| super::place::is_about_the_server(c) && !c.is_write())
            && !session.in_transaction();
        let ready = is_usable(self.endpoints.get(local).and_then(|e| self.upstreams.get(e.serve[0]?)));
        // (What is read while keys are watched must not be older than the watch.)
        let near = reads && session.consistency.read == ReadLevel::One && !session.is_watching();
        // A leader that is not heard any more is as good as none, until it is, or another is.
        let silent =
            |p: &super::group::Peer| p.answered_ms.max(p.heard_ms) + group.spec.timeout_ms <= self.now.ms;
        let post = match group.post {
            Post::Follower if group.peer(&group.leader).is_some_and(silent) => Post::Nobody,
            post => post,
        };
        match post {
            Post::Leader if group.leads() || (ready && near && !group.lost) => {
                let level = session.consistency.write;
                if !reads && let Some(text) = self.too_few_in_sync(level) {
                    return Err(self.refuse_queueing(slot, &text));
                }
                Ok(at(local, bits, 0))
            }
            Post::Leader => Err(self.wait_for_leader(slot)),
            _ if about_server && ready => Ok(at(local, 0, 0)),
            Post::Follower => {
                let Some(leader) = group.leaders_endpoint() else { return Err(self.wait_for_leader(slot)) };
                let called = session.in_flight() > u64::from(again)
                    && self.upstreams.get(session.path).is_some_and(|u| u.endpoint == leader);
                let mine = near && ready && !called && self.now.ms < group.granted_until;
                Ok(at(if mine { local } else { leader }, 0, 0))
            }
            // Better an old answer than none, where it says that it is one member's.
            Post::Nobody if near && ready && group.whole && self.own_marker().is_some_and(|m| !m.partial) => {
                Ok(at(local, 0, 0))
            }
            Post::Nobody => Err(self.wait_for_leader(slot)),
        }
    }

    /// Say that this member does not lead.
    fn turn_away(&mut self, slot: usize) -> Step {
        let text =
            self.group.as_ref().map_or_else(String::new, |g| format!("NOTLEADER {} {}", g.term, g.leader));
        self.refuse(slot, &text)
    }

    /// The session waits until somebody leads, at most for `op_timeout`.
    fn wait_for_leader(&mut self, slot: usize) -> Step {
        let session = &mut self.sessions[slot];
        if std::mem::take(&mut session.overdue) {
            let group = self.group.as_ref();
            let name = group.map(|g| g.spec.name.clone()).unwrap_or_default();
            let text =
                format!("NOLEADER group {name}: no member leads at the moment; nothing was sent, try again");
            return self.refuse_queueing(slot, &text);
        }
        let id = session.id;
        if let Some(group) = self.group.as_mut().filter(|_| self.reissue.is_none()) {
            group.waiters.push(id);
        }
        Step::Stall(Wait::Upstream)
    }

    /// `REDISHA …` of a client.
    fn redisha(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let word = |i: usize, w: &str| is_word(request.arg(i), w);
        if word(1, "CONSISTENCY") && request.len() == 2 {
            let Consistency { write, read } = self.sessions[slot].consistency;
            return self.answer_now(slot, |out| {
                encode::array(out, 4);
                for text in ["write", write_word(write), "read", read_word(read)] {
                    encode::bulk(out, text.as_bytes());
                }
            });
        }
        if word(1, "CONSISTENCY") && (3..=4).contains(&request.len()) {
            let write = write_level(request.arg(2));
            let read = if request.len() == 4 {
                read_level(request.arg(3))
            } else {
                Some(self.sessions[slot].consistency.read)
            };
            let (Some(write), Some(read)) = (write, read) else {
                return self.refuse(slot, "ERR REDISHA CONSISTENCY one|quorum|all [one|leader]");
            };
            self.sessions[slot].consistency = Consistency { write, read };
            return self.answer_now(slot, |out| encode::status(out, "OK"));
        }
        if word(1, "INFO") && request.len() == 2 {
            let text = self.group_snapshot();
            return self.answer_now(slot, |out| encode::bulk(out, text.as_bytes()));
        }
        let lines = [
            "REDISHA <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "CONSISTENCY [one|quorum|all [one|leader]]",
            "    How many members must have this connection's writes, and who answers its reads.",
            "INFO",
            "    The group, as this member sees it (JSON).",
            "HELP",
            "    Print this help.",
        ];
        if !word(1, "HELP") {
            let text = format!(
                "ERR unknown subcommand '{}'. Try REDISHA HELP.",
                String::from_utf8_lossy(request.arg(1).get(..128).unwrap_or(request.arg(1)))
            );
            return self.refuse(slot, &text);
        }
        self.answer_now(slot, |out| {
            encode::array(out, lines.len());
            for line in lines {
                encode::status(out, line);
            }
        })
    }

    /// Dynomite's own command: the consistency of this connection (`dyn_redis.c`, `DYNO_CONFIG:CONN_CONSISTENCY`).
    fn dyno_consistency(&mut self, slot: usize, request: &Request<'_>) -> Step {
        let consistency = match request.arg(1).to_ascii_uppercase().as_slice() {
            b"DC_ONE" => Consistency::default(),
            b"DC_QUORUM" | b"DC_SAFE_QUORUM" => {
                Consistency { write: WriteLevel::Quorum, read: ReadLevel::Leader }
            }
            b"DC_EACH_SAFE_QUORUM" => Consistency { write: WriteLevel::All, read: ReadLevel::Leader },
            _ => {
                return self
                    .refuse(slot, "ERR DC_ONE, DC_QUORUM, DC_SAFE_QUORUM or DC_EACH_SAFE_QUORUM is wanted");
            }
        };
        self.sessions[slot].consistency = consistency;
        self.answer_now(slot, |out| encode::status(out, "OK"))
    }

    /// Whether a session is of a group.
    #[inline]
    pub(super) fn is_in_group(&self, slot: usize) -> bool {
        self.group.is_some() && self.sessions.get(slot).is_some_and(|s| s.port != Port::Routes)
    }
}

/// A number that another member says; all 64 bits are used. What is none is 0.
pub(super) fn number(word: &[u8]) -> u64 {
    std::str::from_utf8(word).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn write_word(level: WriteLevel) -> &'static str {
    match level {
        WriteLevel::One => "one",
        WriteLevel::Quorum => "quorum",
        WriteLevel::All => "all",
    }
}

fn read_word(level: ReadLevel) -> &'static str {
    match level {
        ReadLevel::One => "one",
        ReadLevel::Leader => "leader",
    }
}

fn write_level(word: &[u8]) -> Option<WriteLevel> {
    [WriteLevel::One, WriteLevel::Quorum, WriteLevel::All].into_iter().find(|l| is_word(word, write_word(*l)))
}

fn read_level(word: &[u8]) -> Option<ReadLevel> {
    [ReadLevel::One, ReadLevel::Leader].into_iter().find(|l| is_word(word, read_word(*l)))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_number_uses_all_bits() {
        assert_eq!(number(u64::MAX.to_string().as_bytes()), u64::MAX);
        assert_eq!((number(b"17"), number(b"-1"), number(b"")), (17, 0, 0));
    }
}
