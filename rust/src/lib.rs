//! The data plane of redisha: every byte that a client waits for.
//!
//! ```text
//!                 ┌──────────────────────────── worker (one thread, its sockets, its clock) ────────────────────────────┐
//!   SET k v       │  net::poll ─▶ read ─▶ flow::ingress ── resp::scan ── command::lookup ── plan::select                │
//!   client ──────▶│                          │                                                                          │
//!                 │        local answer ◀────┤  HELLO, PING, CLIENT, SELECT …: state of the session                     │
//!                 │                          ▼                                                                          │
//!                 │                   flow::forward ── a Call joins the upstream's line; on a mirrored endpoint           │
//!                 │                          │          the bytes go to flow::log as a pending entry                    │
//!                 │                          ▼                                                                          │
//!                 │     end of the turn: one writev per upstream, spans of the log and of the upstream's own store ─────┼──▶ Redis
//!                 │                                                                                                     │
//!   +OK   ◀───────┼── one write per session ◀── Session::answer ◀── flow::replies ◀── the reply, in the line's order ◀──┼─── Redis
//!                 │                                                    │ flow::effect: what did it change?              │
//!                 │                                                    ▼                                                │
//!                 │                                        log entry committed ─▶ flow::mirror: each replica's cursor ──┼──▶ mirror
//!                 └─────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!   control plane (Python):  plan ─▶ worker::fleet ─▶ mailbox ─▶ Engine::apply      events, statistics ─▶ python::core
//! ```
//!
//! Imports go one way: [`resp`] ◄ [`command`] ◄ [`plan`] ◄ [`flow`] ◄ [`worker`] ◄ `python`; [`net`] ◄ [`worker`];
//! [`stats`] ◄ [`flow`], [`worker`], `python`. The flow and the net never see each other. `tests/arch.rs` checks it.

pub mod command;
pub mod flow;
pub mod net;
pub mod plan;
#[cfg(feature = "python")]
mod python;
pub mod resp;
pub mod stats;
pub mod worker;
