//! What workers send each other: questions about clients, and links.
//!
//! A link is how the other workers reach the first one, which gives the writes to a Redis with mirrors their order. It is a
//! pair of connected sockets, and nobody outside the process can get at one. The worker that wants it makes the pair, keeps
//! one end as if it were a server's, and hands the other over; the first worker takes that for a client.
//!
//! The channels have no bound of their own. They need none: a session has one question at a time, and a link is a connection
//! that the flow has a bound for.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::flow::Answer;
use crate::net::{Stream, Waker};

/// How long a link waits for its listener, which may be in a plan that is on its way (milliseconds).
const EARLY_MS: u64 = 2_000;

/// What one worker sends another.
#[derive(Debug)]
pub enum Letter {
    /// The first worker's end of a link, and the listener that it comes in at.
    Link {
        /// The listener's name.
        listener: String,
        /// The socket.
        stream: Stream,
    },
    /// A command that concerns the sessions of all.
    Ask {
        /// Who asks.
        from: usize,
        /// The question.
        number: u64,
        /// The command.
        frame: Arc<[u8]>,
    },
    /// What was found.
    Answer {
        /// The question.
        number: u64,
        /// It.
        answer: Answer,
    },
}

/// One worker's place in it.
#[derive(Debug)]
pub struct Post {
    index: usize,
    inbox: Receiver<Letter>,
    /// All workers, itself among them.
    workers: Vec<(Sender<Letter>, Arc<Waker>)>,
    /// Links whose listener is not known yet, and until when they wait for it.
    early: Vec<(Letter, u64)>,
}

impl Post {
    /// The places of the workers that these wake.
    pub fn row(wakers: &[Arc<Waker>]) -> Vec<Self> {
        let (senders, inboxes): (Vec<_>, Vec<_>) = wakers.iter().map(|_| channel()).unzip();
        let workers: Vec<_> = senders.into_iter().zip(wakers.iter().cloned()).collect();
        let place = |(index, inbox)| Self { index, inbox, workers: workers.clone(), early: Vec::new() };
        inboxes.into_iter().enumerate().map(place).collect()
    }

    /// What has come, and until when a link may wait.
    pub fn take(&mut self, now_ms: u64) -> Vec<(Letter, u64)> {
        let mut all = std::mem::take(&mut self.early);
        all.retain(|(_, until_ms)| now_ms < *until_ms);
        all.extend(self.inbox.try_iter().map(|letter| (letter, now_ms + EARLY_MS)));
        all
    }

    /// A link has come before its listener.
    pub fn put_back(&mut self, listener: String, stream: Stream, until_ms: u64) {
        self.early.push((Letter::Link { listener, stream }, until_ms));
    }

    /// A new link to the first worker.
    pub fn call(&self, listener: &str) -> io::Result<Stream> {
        let (mine, theirs) = Stream::pair()?;
        if self.send(0, Letter::Link { listener: listener.to_owned(), stream: theirs }) {
            Ok(mine)
        } else {
            Err(io::Error::other("the first worker has ended"))
        }
    }

    /// Ask all others; gives how many of them have ended.
    pub fn ask(&self, number: u64, frame: &Arc<[u8]>) -> usize {
        let others = (0..self.workers.len()).filter(|to| *to != self.index);
        let ask = || Letter::Ask { from: self.index, number, frame: Arc::clone(frame) };
        others.filter(|to| !self.send(*to, ask())).count()
    }

    /// Answer one that asked.
    pub fn answer(&self, to: usize, number: u64, answer: Answer) {
        self.send(to, Letter::Answer { number, answer }); // who has ended waits for nothing
    }

    fn send(&self, to: usize, letter: Letter) -> bool {
        let Some((sender, waker)) = self.workers.get(to) else { return false };
        sender.send(letter).is_ok() && waker.wake().is_ok()
    }
}
