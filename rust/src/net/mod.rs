//! The only part that makes system calls: listening, connecting, reading, writing, waking, mapping.
//!
//! Knows nothing of RESP or Redis. Reads no clock.

mod listener;
mod poll;
mod stream;
mod sys;
mod words;

pub use listener::{BindError, Bound};
pub use poll::{Interest, Poller, Ready, Token, Waker};
pub use stream::{Io, Stream};
pub use sys::{FileMemory, boot_id, remove_files};
pub use words::words;
