//! What a member's council sees: the snapshot of the group that its engine publishes.

use serde_json::Value;

/// See `redisha.group.status.MemberStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub member: String,
    pub term: u64,
    pub leader: String,
    pub leads: bool,
    pub data: String,
    pub set: String,
    pub position: (u64, u64),
    pub in_sync: bool,
}

/// See `redisha.group.status.PeerStatus`.
#[derive(Clone, Debug)]
pub struct Peer {
    pub id: String,
    pub up: bool,
    pub silent_ms: u64,
    pub status: Status,
    pub caught_up: bool,
    pub counted: bool,
    pub replica: String,
}

/// See `redisha.group.status.GroupStatus`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub me: Status,
    pub peers: Vec<Peer>,
    pub yielding: bool,
    pub lost: bool,
    pub waiting: u64,
}

fn status(of: &Value) -> Status {
    let text = |name: &str| of[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| of[name].as_u64().unwrap_or(0);
    Status {
        member: text("member"),
        term: number("term"),
        leader: text("leader"),
        leads: of["role"] == "leader",
        data: if of["data"] == "" { "unknown".to_owned() } else { text("data") },
        set: text("set"),
        position: (number("generation"), number("sequence")),
        in_sync: of["in_sync"] == true,
    }
}

impl Snapshot {
    /// Read the engine's JSON.
    pub fn read(json: &str) -> Option<Self> {
        let all: Value = serde_json::from_str(json).ok()?;
        let peer = |one: &Value| Peer {
            id: one["id"].as_str().unwrap_or_default().to_owned(),
            up: one["up"] == true,
            silent_ms: one["silent_ms"].as_u64().unwrap_or(u64::MAX),
            status: status(&one["status"]),
            caught_up: one["caught_up"] == true,
            counted: one["counted"] == true,
            replica: one["replica"].as_str().unwrap_or_default().to_owned(),
        };
        Some(Self {
            me: status(&all["me"]),
            peers: all["peers"].as_array()?.iter().map(peer).collect(),
            yielding: all["yielding"] == true,
            lost: all["lost"] == true,
            waiting: all["waiting"].as_u64().unwrap_or(0),
        })
    }
}
