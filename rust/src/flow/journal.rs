//! What a leader writes while some member cannot follow, and how two histories become one.
//!
//! Where availability goes before consistency, both sides of a partition may have had a leader. When they see each other
//! again the newer leadership stays, and the control plane of its leader looks at what the other one wrote alone: of two
//! writes of one key the later one wins, the other is kept in a file. For that each leader notes when it wrote which key,
//! from the moment on that some member is not in sync.

use hashbrown::HashMap;

use super::Engine;
use super::group::{Group, Post};
use super::ingress::Step;
use super::keys::keys_of;
use super::log::{Kind, State};
use super::marker::name_hash;
use super::peer::number;
use super::repair::Key;
use super::session::Peering;
use crate::command::is_word;
use crate::resp::{Request, RequestScanner, encode};

/// Keys that are noted one by one; past it, all keys count as written.
const KEYS_MAX: usize = 1_000_000;
/// Bytes of their names.
const BYTES_MAX: usize = 64 << 20;

/// When which key was written, milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Writes are noted.
    pub on: bool,
    keys: HashMap<Key, u64, foldhash::fast::RandomState>,
    bytes: usize,
    /// Any key may have been written then; 0: none.
    all: u64,
}

impl Journal {
    /// A key is about to be written.
    pub fn note(&mut self, db: u16, name: &[u8], at: u64) {
        if self.keys.len() >= KEYS_MAX || self.bytes >= BYTES_MAX {
            return self.note_all(at);
        }
        if self.keys.insert((db, name.into()), at).is_none() {
            self.bytes += name.len() + size_of::<Key>();
        }
    }

    /// Keys that cannot be named are about to be written.
    pub fn note_all(&mut self, at: u64) {
        self.all = self.all.max(at);
    }

    /// When a key was written.
    pub fn at(&self, key: &Key) -> Option<u64> {
        self.keys.get(key).copied().max((self.all > 0).then_some(self.all))
    }

    /// Keys noted.
    pub fn len(&self) -> usize {
        self.keys.len() + usize::from(self.all > 0)
    }

    /// Everybody has everything.
    pub fn clear(&mut self) {
        *self = Self { on: self.on, ..Self::default() };
    }
}

impl Engine {
    /// Whether writes must be noted from now on.
    pub(super) fn look_at_journal(&mut self) {
        let Some(group) = self.group.as_ref().filter(|g| !g.spec.consistent && g.post == Post::Leader) else {
            return;
        };
        let all_here =
            group.peers.iter().all(|p| p.member == group.spec.member || self.is_in_sync(group, p.endpoint));
        if !all_here && !group.journal.on {
            self.note_unacknowledged();
        }
        let Some(group) = self.group.as_mut() else { return };
        group.journal.on = !all_here;
        if all_here {
            group.journal.clear();
        }
    }

    /// A connection to a member broke: what was on its way there is not known as such any more after this.
    pub(super) fn note_what_is_lost(&mut self, primary: usize) {
        let leads = |g: &Group| g.local == primary && !g.spec.consistent && g.post == Post::Leader;
        if self.group.as_ref().is_some_and(|g| leads(g) && !g.journal.on) {
            self.note_unacknowledged();
        }
    }

    /// Note what is on its way to somebody who may never get it.
    fn note_unacknowledged(&mut self) {
        let Some(local) = self.group.as_ref().map(|g| g.local) else { return };
        let mut unacknowledged = Vec::new();
        if let Some(sequencer) = self.endpoints.get(local).and_then(|e| e.sequencer.as_ref()) {
            let from = sequencer.replicas().map(|r| r.acked).min().unwrap_or(u64::MAX);
            for position in from..sequencer.log.end() {
                let Some(entry) = sequencer
                    .log
                    .get(position)
                    .filter(|e| e.kind == Kind::Write && e.state != State::Nothing)
                else {
                    continue;
                };
                let age = self.now.ms.saturating_sub(entry.at_ms);
                unacknowledged.push((keys_of(sequencer.log.bytes(entry), entry.db), self.now.unix_ms - age));
            }
        }
        let Some(group) = self.group.as_mut() else { return };
        for (keys, at) in unacknowledged {
            match keys {
                Some(keys) => keys.iter().for_each(|(db, name)| group.journal.note(*db, name, at)),
                None => group.journal.note_all(at),
            }
        }
    }

    /// A follower's Redis may hold writes of its own leadership that this leader has never seen: they are looked at before
    /// anything of it is overwritten. Whether that is to be waited for.
    pub(super) fn wait_for_merge(&mut self, primary: usize, bit: u32) -> bool {
        let Some(group) = self.group.as_ref().filter(|g| g.local == primary && !g.spec.consistent) else {
            return false;
        };
        let name = group.spec.name.clone();
        let sequencer = self.endpoints.get(primary).and_then(|e| e.sequencer.as_ref());
        let Some(replica) = sequencer.and_then(|s| s.replicas.get(bit as usize)?.as_ref()) else {
            return false;
        };
        if !replica.led || replica.merged {
            return false;
        }
        let again = self.now.ms + 200;
        let peer = self.endpoints.get(replica.target).map(|e| e.id.clone()).unwrap_or_default();
        let asked = replica.merging;
        let Some((_, replica)) = self.replica_at(primary, bit) else { return false };
        replica.judged = super::replica::Judged::No;
        replica.judge_at = again;
        replica.merging = true;
        replica.stats.label.set("reason", "what it wrote while it led is being merged");
        if !asked {
            self.tell("merge", peer, name);
        }
        true
    }

    /// What a follower wrote alone has been looked at (or could not be: then it is asked for again).
    pub fn merged(&mut self, peer: &str, ok: bool) {
        let Some(local) = self.group.as_ref().map(|g| g.local) else { return };
        let target = self.endpoints.iter().find(|(_, e)| e.peer && e.id == peer).map(|(key, _)| key);
        let sequencer = self.endpoints.get_mut(local).and_then(|e| e.sequencer.as_mut());
        for replica in
            sequencer.into_iter().flat_map(|s| s.replicas_mut()).filter(|r| Some(r.target) == target)
        {
            replica.merging = false;
            replica.merged = ok;
            replica.judge_at = self.now.ms + if ok { 0 } else { 1_000 };
        }
        self.touch_sequencer(local);
    }

    /// A command of the control plane of a member, at the peer port: reads of this member's Redis, and
    ///
    /// ```text
    /// REDISHA MARKS member ─▶ [all, functions, bits]       REDISHA JOURNAL ─▶ [trusted, all, [db, key, time, …]]
    /// REDISHA MERGE db key time expiry payload ─▶ +APPLIED or +KEPT          (empty payload: the key is to go)
    /// ```
    pub(super) fn control_command(
        &mut self,
        slot: usize,
        ours: bool,
        request: &Request<'_>,
        writes: bool,
    ) -> Option<Step> {
        if !ours {
            return writes.then(|| self.refuse(slot, "ERR a control connection only reads"));
        }
        Some(match request.arg(1) {
            b"MARKS" => self.answer_marks(slot, request),
            b"JOURNAL" => self.answer_journal(slot),
            b"MERGE" if request.len() == 7 => return self.merge(slot, request),
            word if is_word(word, "PING") => self.answer_now(slot, |out| encode::status(out, "PONG")),
            _ => self.refuse(slot, "ERR a control connection knows MARKS, JOURNAL and MERGE"),
        })
    }

    fn answer_journal(&mut self, slot: usize) -> Step {
        let Some(group) = self.group.as_ref() else { return self.refuse(slot, "ERR no group") };
        // A Redis that was started since may have lost what it had.
        let run =
            self.primary_identity(group.local).map_or(0, |(_, identity)| name_hash(&[&identity.run_id]));
        let sequencer = self.endpoints.get(group.local).and_then(|e| e.sequencer.as_ref());
        let trusted = run != 0 && sequencer.is_some_and(|s| s.replicas().any(|r| r.map.run(0) == run));
        let mut out = Vec::new();
        encode::array(&mut out, 3);
        encode::integer(&mut out, i64::from(trusted));
        encode::integer(&mut out, group.journal.all as i64);
        encode::array(&mut out, group.journal.keys.len() * 3);
        for ((db, name), at) in &group.journal.keys {
            encode::integer(&mut out, i64::from(*db));
            encode::bulk(&mut out, name);
            encode::integer(&mut out, *at as i64);
        }
        self.answer_now(slot, |reply| reply.extend_from_slice(&out))
    }

    /// What another member had in a key, unless this leader wrote the key later.
    fn merge(&mut self, slot: usize, request: &Request<'_>) -> Option<Step> {
        let number = |i: usize| number(request.arg(i));
        let (db, name, at, payload) = (number(2) as u16, request.arg(3), number(4), request.arg(6));
        let group = self.group.as_ref()?;
        if !group.leads() {
            return Some(self.refuse(slot, "NOTLEADER this member does not lead any more"));
        }
        let mine = group.journal.at(&(db, name.into()));
        if mine.is_some_and(|mine| mine >= at) {
            return Some(self.answer_now(slot, |out| encode::status(out, "KEPT")));
        }
        let mut bytes = Vec::new();
        if payload.is_empty() {
            encode::command(&mut bytes, &[&b"DEL"[..], name]);
        } else {
            encode::command(
                &mut bytes,
                &[&b"RESTORE"[..], name, request.arg(5), payload, b"REPLACE", b"ABSTTL"],
            );
        }
        let mut scanner = RequestScanner::default();
        scanner.scan(&bytes, super::keys::ANY);
        let request = scanner.request(&bytes);
        let command = crate::command::lookup(request.arg(0)).and_then(|c| c.resolve(&request).ok());
        let before = std::mem::replace(&mut self.sessions[slot].db, db);
        self.sessions[slot].peering = Peering::Client; // for this one command: it takes the way of all writes
        let noted = self.group.as_mut().map(|g| std::mem::replace(&mut g.journal.on, false)); // it is not this leader's
        let step = self.forward(slot, command, &super::ingress::Incoming { request, owner: None });
        if let Some(group) = self.group.as_mut() {
            group.journal.on = noted.unwrap_or(false);
        }
        self.sessions[slot].peering = Peering::Control;
        self.sessions[slot].db = before;
        Some(step)
    }
}
