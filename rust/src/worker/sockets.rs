//! Which socket belongs to which session or upstream, and what its events are called.

use crate::flow::SessionId;
use crate::net::{Ready, Stream, Token};

const KIND: u32 = 62;
const SESSION: usize = 1;
const UPSTREAM: usize = 2;
const LISTENER: usize = 3;
const PIPE: usize = 0;
/// The waker's token. (No pipe has it: their indices are counted from 1.)
pub const WAKER: Token = Token(0);

/// Whom an event concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The mailbox.
    Waker,
    /// A listening socket.
    Listener(usize),
    /// A client: slot and generation.
    Session(usize, u32),
    /// An upstream: key and epoch.
    Upstream(usize, u32),
    /// A pipe: index, number and side.
    Pipe(usize, u32, usize),
}

const USE: u32 = 0x3fff_ffff;

fn token(kind: usize, index: usize, used: u32) -> Token {
    Token(kind << KIND | ((used & USE) as usize) << 32 | index & 0xffff_ffff)
}

/// The token of a client's socket.
pub fn session_token(id: SessionId) -> Token {
    token(SESSION, id.slot as usize, id.generation.get())
}

/// The token of an upstream's socket.
pub fn upstream_token(key: usize, epoch: u32) -> Token {
    token(UPSTREAM, key, epoch)
}

/// The token of a listening socket.
pub fn listener_token(index: usize) -> Token {
    token(LISTENER, index, 0)
}

/// The token of one side of a pipe.
pub fn pipe_token(index: usize, number: u32, side: usize) -> Token {
    token(PIPE, (index + 1) << 1 | side, number)
}

/// Whom a token names.
pub fn whose(token: Token) -> Whose {
    let index = token.0 & 0xffff_ffff;
    let used = (token.0 >> 32) as u32 & USE;
    match token.0 >> KIND {
        SESSION => Whose::Session(index, used),
        UPSTREAM => Whose::Upstream(index, used),
        LISTENER => Whose::Listener(index),
        _ if token == WAKER => Whose::Waker,
        _ => Whose::Pipe((index >> 1) - 1, used, index & 1),
    }
}

/// A client's socket.
#[derive(Debug)]
pub struct SessionSocket {
    /// Whose.
    pub id: SessionId,
    /// The socket.
    pub stream: Stream,
    /// What it is ready for.
    pub ready: Ready,
}

/// An upstream's socket.
#[derive(Debug)]
pub struct UpstreamSocket {
    /// The try it belongs to.
    pub epoch: u32,
    /// The socket.
    pub stream: Stream,
    /// What it is ready for.
    pub ready: Ready,
    /// Connecting has not ended yet.
    pub connecting: bool,
}

/// Sockets by index.
#[derive(Debug)]
pub struct Sockets<T>(Vec<Option<T>>);

impl<T> Default for Sockets<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Sockets<T> {
    /// The socket at `index`.
    #[inline]
    pub fn get(&mut self, index: usize) -> Option<&mut T> {
        self.0.get_mut(index)?.as_mut()
    }

    /// Put a socket at `index`.
    pub fn set(&mut self, index: usize, socket: T) {
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        if let Some(place) = self.0.get_mut(index) {
            *place = Some(socket);
        }
    }

    /// Take the socket at `index` away; dropped, it is closed.
    pub fn take(&mut self, index: usize) -> Option<T> {
        let taken = self.0.get_mut(index)?.take();
        while matches!(self.0.last(), Some(None)) {
            self.0.pop();
        }
        self.0.shrink_to(self.0.len() * 2);
        taken
    }

    /// The first place that is free.
    pub fn vacant(&self) -> usize {
        self.0.iter().position(Option::is_none).unwrap_or(self.0.len())
    }

    /// All sockets.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_whom_they_were_made_for() {
        let generation = std::num::NonZeroU32::MIN.saturating_add(6);
        let id = SessionId { slot: 9_999, generation };
        assert_eq!(whose(session_token(id)), Whose::Session(9_999, 7));
        assert_eq!(whose(upstream_token(3, 4)), Whose::Upstream(3, 4));
        assert_eq!(whose(listener_token(2)), Whose::Listener(2));
        assert_eq!(whose(WAKER), Whose::Waker);
        assert_eq!(whose(pipe_token(0, 1, 0)), Whose::Pipe(0, 1, 0));
        assert_eq!(whose(pipe_token(7, 9, 1)), Whose::Pipe(7, 9, 1));
    }
}
