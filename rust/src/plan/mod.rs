//! The plan: what the control plane described, compiled into what the data plane walks.
//!
//! `spec` is the JSON as Python writes it, `compile` checks it and builds the tables, `select` and `balance` (with `maglev`, `ring_hash`,
//! `slots`, `scatter`) are the only parts that the hot path calls. A plan never changes; a new one replaces it whole. `divide` makes
//! of it the plans of several workers.

mod balance;
mod compile;
mod divide;
mod maglev;
mod ring_hash;
mod scatter;
mod select;
mod slots;
pub mod spec;

pub use balance::{Ring, key_hash};
pub use compile::{Cluster, Endpoint, Group, Listener, Mirror, Plan, PlanError, Route, Sample, User};
pub use maglev::Maglev;
pub use scatter::{Scatter, mix};
pub use select::RouteTable;
pub use slots::Slots;
pub use spec::{Address, GroupSpec, Limits, Link};
