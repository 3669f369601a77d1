//! `CLIENT PAUSE`: for a while this sidecar's clients wait with their writes, or with everything.
//!
//! A session waits at the command that is not let through, unread and on no list that is walked; it costs nothing until
//! the time is over or `CLIENT UNPAUSE` comes.

use crate::command::Command;
use crate::resp::Request;

use super::Engine;
use super::session::{Peering, Wait};
use super::ticket::SessionId;

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// Commands that write, or may.
    #[default]
    Writes,
    /// All but the CLIENT family, which can end it.
    All,
}

/// The pause, if there is one.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// When it ends, milliseconds of the worker's clock; 0: there is none.
    until: u64,
    extent: Extent,
    waiting: Vec<SessionId>,
}

impl Pause {
    /// When to look again, if ever.
    pub(super) fn ends_at(&self) -> u64 {
        if self.until == 0 { u64::MAX } else { self.until }
    }
}

impl Engine {
    /// Begin a pause, or extend the one there is: the later end and the larger extent hold, as in Redis.
    pub(super) fn pause_sessions(&mut self, extent: Extent, ms: u64) {
        let until = self.now.ms.saturating_add(ms);
        if until <= self.now.ms {
            return;
        }
        let pause = &mut self.pause;
        pause.extent = if pause.until == 0 { extent } else { pause.extent.max(extent) };
        pause.until = pause.until.max(until);
    }

    /// End the pause: who waits for its end goes on.
    pub(super) fn unpause(&mut self) {
        self.pause.until = 0;
        for id in std::mem::take(&mut self.pause.waiting) {
            if let Some(session) = self.sessions.get_mut(id.slot as usize).filter(|s| s.id == id)
                && session.wait == Wait::Pause
            {
                Self::wake(session, &mut self.runnable);
            }
        }
    }

    /// Whether a command has to wait for the end of the pause; its session is then noted.
    #[inline]
    pub(super) fn must_pause(
        &mut self,
        slot: usize,
        known: Option<&'static Command>,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> bool {
        self.pause.until != 0 && self.is_held(slot, known, command, request)
    }

    fn is_held(
        &mut self,
        slot: usize,
        known: Option<&'static Command>,
        command: Option<&'static Command>,
        request: &Request<'_>,
    ) -> bool {
        if command.is_some_and(|c| !c.arity_ok(request.len())) {
            return false; // it is refused at once
        }
        let session = &self.sessions[slot];
        let exempt = known.is_some_and(|k| k.name == "client") || session.peering != Peering::Client;
        let queued = session.extra.as_ref().and_then(|e| e.transaction.as_ref());
        let held = match (self.pause.extent, command) {
            _ if exempt || self.now.ms >= self.pause.until || !session.authenticated => false,
            (Extent::All, _) => true,
            (Extent::Writes, Some(exec)) if exec.name == "exec" => queued.is_some_and(|t| t.any(may_write)),
            (Extent::Writes, command) => may_write(command, request),
        };
        if held {
            let id = session.id;
            self.pause.waiting.push(id);
            self.unbar(id); // who reads need not wait for an EXEC that waits
        }
        held
    }
}

/// A command that is not in the table may write, and Redis replicates a PFCOUNT that changes its key's cache. A script may
/// say that it does not write (redis.io, Script flags); of one that is named by its digest, and of a function, it is not known.
fn may_write(command: Option<&'static Command>, request: &Request<'_>) -> bool {
    command.is_none_or(|c| match c.name {
        "publish" | "spublish" | "pfcount" => true,
        "eval" => !says_no_writes(request.arg(1)),
        _ => c.is_write(),
    })
}

fn says_no_writes(script: &[u8]) -> bool {
    let line = script.split(|b| *b == b'\n').next().unwrap_or(&[]);
    let mut words = line.split(u8::is_ascii_whitespace);
    words.next().is_some_and(|first| first.starts_with(b"#!"))
        && words
            .filter_map(|word| word.strip_prefix(b"flags="))
            .any(|flags| flags.split(|b| *b == b',').any(|flag| flag == b"no-writes"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::{Ends, Engine, Now, SessionId};
    use crate::plan::Plan;
    use crate::stats::Registry;

    struct Clients {
        engine: Engine,
        ids: Vec<SessionId>,
    }

    impl Clients {
        fn new(n: usize) -> Self {
            let plan = json!({
                "generation": 1,
                "limits": {
                    "max_clients": 10, "max_request": 1 << 20, "max_output": 1 << 20, "log_bytes": 1 << 20,
                    "memory_bytes": 1 << 26, "idle_timeout_ms": 60_000, "handshake_timeout_ms": 0,
                },
                "listeners": [{
                    "name": "clients", "bind": ["127.0.0.1:6380"], "users": [], "case_insensitive": false, "routes": [],
                }],
                "clusters": [],
            });
            let plan = Arc::new(Plan::from_json(plan.to_string().as_bytes()).expect("a plan"));
            let mut engine = Engine::new(plan, Arc::new(Registry::default()), at(1), 1);
            let ids = (0..n).map(|_| engine.session_open(0, Ends::default()).expect("a session")).collect();
            Self { engine, ids }
        }

        /// A client sends this; what it is given at once.
        fn says(&mut self, who: usize, line: &str) -> String {
            self.engine.session_bytes(self.ids[who], format!("{line}\r\n").as_bytes());
            self.given(who)
        }

        fn given(&mut self, who: usize) -> String {
            let id = self.ids[who];
            let output = String::from_utf8(self.engine.session_output(id).to_vec()).expect("text");
            self.engine.session_wrote(id, output.len());
            output
        }

        /// A turn at this millisecond, without bytes; how many sessions went on.
        fn turn(&mut self, ms: u64) -> usize {
            self.engine.set_now(at(ms));
            self.engine.tick(at(ms));
            let mut runnable = Vec::new();
            self.engine.take_runnable(&mut runnable);
            for id in &runnable {
                self.engine.session_resume(*id);
            }
            runnable.len()
        }
    }

    fn at(ms: u64) -> Now {
        Now { us: ms * 1_000, ms, unix_ms: 1_700_000_000_000 + ms }
    }

    #[test]
    fn ends_to_the_millisecond_and_costs_nothing_until_then() {
        let mut clients = Clients::new(3);
        assert_eq!(clients.says(0, "CLIENT PAUSE 70000"), "+OK\r\n");
        assert_eq!(clients.says(1, "PING"), "");
        assert_eq!(clients.says(2, "CLIENT GETNAME"), "$-1\r\n");
        assert!(!clients.engine.wants_read(clients.ids[1]) && clients.engine.wants_read(clients.ids[2]));
        for ms in [2, 30_000, 65_000, 70_000] {
            assert_eq!((clients.turn(ms), clients.given(1)), (0, String::new()), "at {ms}");
            assert!(clients.engine.next_tick() <= 70_001, "at {ms}");
        }
        assert_eq!((clients.turn(70_001), clients.given(1)), (1, "+PONG\r\n".to_owned()));
        assert!(clients.engine.wants_read(clients.ids[1]));
        assert_eq!(clients.says(1, "PING"), "+PONG\r\n");
    }

    #[test]
    fn writes_and_what_may_write_wait() {
        let waits = ["SET k v", "PUBLISH c m", "EVAL x 0", "PFCOUNT k", "NOSUCH", "DEL k"];
        let goes_on = [
            "EVAL '#!lua flags=allow-oom,no-writes' 0",
            "SET k",
            "PING",
            "GET k",
            "EVAL_RO x 0",
            "MULTI",
            "EXEC",
            "CLIENT ID",
            "HELLO",
        ];
        for (line, waiting) in waits.map(|l| (l, true)).into_iter().chain(goes_on.map(|l| (l, false))) {
            let mut clients = Clients::new(2);
            assert_eq!(clients.says(0, "CLIENT PAUSE 100 WRITE"), "+OK\r\n");
            assert_eq!(clients.says(1, line).is_empty(), waiting, "{line}");
            assert_eq!(clients.says(0, "CLIENT UNPAUSE"), "+OK\r\n");
            assert_eq!(clients.turn(2), usize::from(waiting), "{line}");
            assert_eq!(clients.given(1).is_empty(), !waiting, "{line}");
        }
    }

    #[test]
    fn the_later_end_and_the_larger_extent_hold() {
        let mut clients = Clients::new(2);
        clients.says(0, "CLIENT PAUSE 100 ALL");
        clients.says(0, "CLIENT PAUSE 50 WRITE");
        assert_eq!(clients.says(1, "PING"), "");
        assert_eq!(clients.turn(100), 0);
        assert_eq!(clients.turn(101), 1);
        clients.given(1);
        clients.says(0, "CLIENT PAUSE 50 WRITE");
        assert_eq!(clients.says(1, "PING"), "+PONG\r\n", "a pause that is over leaves nothing behind");
    }
}
