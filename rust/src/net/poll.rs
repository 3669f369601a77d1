//! Readiness. Sockets are registered once, edge-triggered, for both directions; each keeps the bits that are still set,
//! so that back-pressure costs no system call.

use std::io;
use std::time::Duration;

use mio::event::{Event, Source};

pub use mio::{Interest, Token, Waker};

/// What a socket is ready for, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A read may give something.
    pub readable: bool,
    /// A write may take something.
    pub writable: bool,
    /// The other side has closed, or the socket failed: a short read is not the end.
    pub closed: bool,
}

impl Ready {
    /// Add what an event tells.
    pub fn add(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.closed |= event.is_read_closed() || event.is_error();
    }
}

/// The epoll instance.
#[derive(Debug)]
pub struct Poller {
    poll: mio::Poll,
    events: mio::Events,
}

impl Poller {
    /// Events taken at a time.
    const EVENTS: usize = 1024;

    /// A new instance.
    pub fn new() -> io::Result<Self> {
        Ok(Self { poll: mio::Poll::new()?, events: mio::Events::with_capacity(Self::EVENTS) })
    }

    /// What wakes it from another thread.
    pub fn waker(&self, token: Token) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), token)
    }

    /// Register a socket, for good.
    pub fn add(&self, source: &mut impl Source, token: Token, interest: Interest) -> io::Result<()> {
        self.poll.registry().register(source, token, interest)
    }

    /// Give a registered socket another token; what it is ready for is told again.
    pub fn rename(&self, source: &mut impl Source, token: Token, interest: Interest) -> io::Result<()> {
        self.poll.registry().reregister(source, token, interest)
    }

    /// Wait for events, at most `timeout`.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    /// The events of the last wait.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }
}
