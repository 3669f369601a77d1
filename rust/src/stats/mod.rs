//! Counters, gauges and latencies. Written by the worker alone, read by anyone at any time: plain relaxed loads and
//! stores, no locked instruction, no handshake.

mod counter;
mod latency;
mod registry;

pub use counter::Counter;
pub use latency::Latency;
pub use registry::{EndpointStats, Label, ListenerStats, LogStats, Registry, ReplicaStats, WorkerStats};
