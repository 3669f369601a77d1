//! Counters, gauges and latencies. Written by one worker alone, read by anyone at any time: plain relaxed loads and
//! stores, no locked instruction, no handshake. Several workers have a registry each; `snapshot` adds them up.

mod counter;
mod latency;
mod registry;
mod snapshot;

pub use counter::Counter;
pub use latency::Latency;
pub use registry::{EndpointStats, Label, ListenerStats, LogStats, Registry, ReplicaStats, WorkerStats};
pub use snapshot::snapshot;
