//! A client that replicates, joined with its Redis: from `SYNC` on the two speak about the stream of the replication, which is
//! no RESP and has no end. Bytes are passed on as they come; neither side is read faster than the other takes it.

use crate::net::{Io, Ready, Stream, Token};

/// Reads of one side in one turn.
const READS: usize = 16;

/// One side.
#[derive(Debug)]
struct End {
    stream: Stream,
    ready: Ready,
    /// What it has not taken yet.
    out: Vec<u8>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pumped {
    /// As far as it goes for now.
    Later,
    /// There may be more.
    More,
    /// One side is gone.
    Over,
}

/// Two sockets, the client's and the server's.
#[derive(Debug)]
pub struct Pipe {
    /// Tells it from another that had its place before.
    pub number: u32,
    ends: [End; 2],
}

impl Pipe {
    /// `to_client`, `to_server`: what each has not been sent yet.
    pub fn new(number: u32, client: Stream, to_client: Vec<u8>, server: Stream, to_server: Vec<u8>) -> Self {
        let end = |stream, out| End { stream, ready: Ready::default(), out };
        Self { number, ends: [end(client, to_client), end(server, to_server)] }
    }

    /// The sockets with the tokens that tell which side an event concerns.
    pub fn sockets(
        &mut self,
        token: impl Fn(u32, usize) -> Token,
    ) -> impl Iterator<Item = (&mut Stream, Token)> {
        let number = self.number;
        self.ends.iter_mut().enumerate().map(move |(side, end)| (&mut end.stream, token(number, side)))
    }

    /// What a side is ready for.
    pub fn ready(&mut self, side: usize) -> Option<&mut Ready> {
        self.ends.get_mut(side).map(|end| &mut end.ready)
    }

    /// Pass on what has come.
    pub fn pump(&mut self, buffer: &mut [u8]) -> Pumped {
        let [client, server] = &mut self.ends;
        match (pass(client, server, buffer), pass(server, client, buffer)) {
            (Pumped::Over, _) | (_, Pumped::Over) => Pumped::Over,
            (Pumped::More, _) | (_, Pumped::More) => Pumped::More,
            _ => Pumped::Later,
        }
    }
}

fn pass(from: &mut End, to: &mut End, buffer: &mut [u8]) -> Pumped {
    for _ in 0..READS {
        if !to.flush() {
            return Pumped::Over;
        }
        if !to.out.is_empty() || !from.ready.readable {
            return Pumped::Later;
        }
        match from.stream.read(buffer) {
            Io::Done(n) => to.out.extend_from_slice(buffer.get(..n).unwrap_or(&[])),
            Io::Later => from.ready.readable = false,
            Io::End | Io::Failed(_) => return Pumped::Over,
        }
    }
    Pumped::More
}

impl End {
    /// Write what waits; `false`: it is gone.
    fn flush(&mut self) -> bool {
        while !self.out.is_empty() && self.ready.writable {
            match self.stream.write(&self.out) {
                Io::Done(n) => drop(self.out.drain(..n)),
                Io::Later => self.ready.writable = false,
                Io::End | Io::Failed(_) => return false,
            }
        }
        true
    }
}
