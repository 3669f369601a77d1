//! The data plane of redisha. Stub map; see below.
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod command;
pub mod flow;
pub mod plan;
pub mod resp;
pub mod stats;
pub mod net;
#[cfg(feature = "python")]
mod python;
pub mod worker;
