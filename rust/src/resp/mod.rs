//! RESP2 and RESP3 on the wire: finding frames, reading them in place, writing them.
//!
//! Owns the protocol's limits and error texts. Never allocates for a frame that is complete in its buffer, never
//! scans a byte twice, never builds a tree.

pub mod encode;
mod inline;
pub mod limits;
pub mod reply;
mod reply_scan;
mod request;
mod request_scan;

pub use reply::Reply;
pub use reply_scan::{ReplyError, ReplyScanner};
pub use request::{Request, Span};
pub use request_scan::{Bounds, ProtocolError, RequestScanner, Scanned, parse_integer};
