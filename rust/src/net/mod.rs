//! The only part that makes system calls: listening, connecting, reading, writing, waking.
//!
//! Knows nothing of RESP or Redis. Reads no clock.

mod listener;
mod poll;
mod stream;
mod words;

pub use listener::{BindError, Bound};
pub use poll::{Interest, Poller, Ready, Token, Waker};
pub use stream::{Io, Stream};
pub use words::words;
