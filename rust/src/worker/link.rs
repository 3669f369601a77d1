//! Links: how the other workers reach the first one, which gives the writes to a Redis with mirrors their order.
//!
//! A link is a pair of connected sockets, and nobody outside the process can get at one. The worker that wants it makes the
//! pair, keeps one end as if it were a server's, and hands the other over; the first worker takes that for a client.

use std::io;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::net::{Stream, Waker};

/// Links that may wait to be taken.
const WAITING: usize = 1024;
/// How long one waits for its listener, which may be in a plan that is on its way (milliseconds).
const EARLY_MS: u64 = 2_000;

/// The first worker's end of a link.
#[derive(Debug)]
pub struct Arrival {
    /// Where it comes in.
    pub listener: String,
    /// The socket.
    pub stream: Stream,
}

/// What a worker does with links.
#[derive(Debug)]
pub enum Links {
    /// It takes them, if there are other workers.
    First(Arrivals),
    /// It makes them.
    Other(Caller),
}

/// Links that come in.
#[derive(Debug, Default)]
pub struct Arrivals {
    rings: Vec<Consumer<Arrival>>,
    /// Those whose listener is not known yet, and until when they wait for it.
    early: Vec<(Arrival, u64)>,
}

/// Links that go out.
#[derive(Debug)]
pub struct Caller {
    arrivals: Producer<Arrival>,
    first: Arc<Waker>,
}

impl Arrivals {
    /// What another worker may call by.
    pub fn caller(&mut self, first: Arc<Waker>) -> Caller {
        let (arrivals, ring) = RingBuffer::new(WAITING);
        self.rings.push(ring);
        Caller { arrivals, first }
    }

    /// Those that wait.
    pub fn take(&mut self, now_ms: u64) -> Vec<(Arrival, u64)> {
        let mut all = std::mem::take(&mut self.early);
        all.retain(|(_, until_ms)| now_ms < *until_ms);
        for ring in &mut self.rings {
            all.extend(std::iter::from_fn(|| ring.pop().ok()).map(|arrival| (arrival, now_ms + EARLY_MS)));
        }
        all
    }

    /// One has come before its listener.
    pub fn put_back(&mut self, early: (Arrival, u64)) {
        self.early.push(early);
    }
}

impl Caller {
    /// A new link.
    pub fn call(&mut self, listener: &str) -> io::Result<Stream> {
        let (mine, theirs) = Stream::pair()?;
        let arrival = Arrival { listener: listener.to_owned(), stream: theirs };
        if self.arrivals.push(arrival).is_err() {
            return Err(io::Error::other("too many links wait to be taken"));
        }
        self.first.wake()?;
        Ok(mine)
    }
}
