//! The shell around the flow: one thread, its sockets, its clock.
//!
//! A turn: wait for events → read upstreams → read sessions → tick → pump replicas → write upstreams → write sessions.
//! All writes come at the end of the turn, so that what many clients sent leaves as one.
//!
//! There may be several: each is such a thread, with everything of its own. `post` is what they send each other.

mod clock;
mod fleet;
mod mailbox;
mod pipe;
mod post;
mod sockets;
mod turn;

pub use fleet::{ApplyError, Fleet};
pub use mailbox::Order;
