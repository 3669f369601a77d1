//! Orders down to the worker, events up from it. Bounded rings; neither side ever waits for the other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};

use crate::flow::{Action, Event};
use crate::net::Bound;
use crate::plan::Plan;

/// Orders that may wait; a reload is rare.
const ORDERS: usize = 64;
/// Events that may wait; past it they are dropped, the statistics still tell the state.
const EVENTS: usize = 4096;

/// What the control plane wants.
#[derive(Debug)]
pub enum Order {
    /// Put a plan in force, with the sockets that are new in it; the sender is dropped when it is done.
    Apply(Arc<Plan>, Vec<Bound>, Sender<()>),
    /// Drain, within so many milliseconds.
    Drain(u64),
    /// What the operator wants of the replicas of a cluster.
    Resync(String, Action),
    /// A primary was filled from its mirror, or could not be.
    Refilled(String, bool),
    /// Keys that differ between a primary and a mirror, to be copied.
    Doubt(String, String, Vec<(u16, Vec<u8>)>),
    /// This member leads the term.
    Lead(u64),
    /// Another member does; an empty name: nobody is known to.
    Follow(u64, String),
    /// Take no more commands, so that another may lead; or take them again.
    YieldLead(bool),
    /// The members that a quorum counts.
    Count(Vec<String>),
    /// The arbiter has renewed this leadership; it was asked so many milliseconds ago.
    ArbiterBeat(u64),
    /// A question to another member's control plane: its address, a number, the text.
    Ask(String, u64, String),
    /// What a member wrote alone has been merged, or could not be.
    Merged(String, bool),
    /// The answer to another's: its number, the text.
    Answer(u64, String),
    /// End.
    Stop,
    /// Panic, for a test.
    Panic,
}

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd {
    /// Orders that came.
    pub orders: Consumer<Order>,
    events: Producer<Event>,
    signal: Signal,
}

/// The control plane's end of one worker's.
#[derive(Debug)]
pub struct ControlEnd {
    orders: Producer<Order>,
    /// Events that came.
    pub events: Consumer<Event>,
}

/// What is readable while events of any worker wait.
#[derive(Clone, Debug)]
pub struct Signal(Arc<OwnedFd>);

impl Signal {
    /// A new one.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    /// The descriptor.
    pub fn fileno(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Events are about to be taken.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.0, &mut count);
    }

    fn set(&self) {
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// How many workers have not drained yet. The last one tells.
#[derive(Debug)]
pub struct Draining {
    left: AtomicUsize,
    closed: AtomicUsize,
}

impl Draining {
    /// Of so many workers.
    pub fn of(workers: usize) -> Self {
        Self { left: AtomicUsize::new(workers), closed: AtomicUsize::new(0) }
    }

    /// One more has drained, and closed so many sessions at the limit. If it was the last: how many all have closed.
    pub fn done(&self, closed: usize) -> Option<usize> {
        self.closed.fetch_add(closed, Ordering::Relaxed);
        (self.left.fetch_sub(1, Ordering::AcqRel) == 1).then(|| self.closed.load(Ordering::Relaxed))
    }
}

/// A new pair.
pub fn mailbox(signal: &Signal) -> (WorkerEnd, ControlEnd) {
    let (order_in, order_out) = RingBuffer::new(ORDERS);
    let (event_in, event_out) = RingBuffer::new(EVENTS);
    (
        WorkerEnd { orders: order_out, events: event_in, signal: signal.clone() },
        ControlEnd { orders: order_in, events: event_out },
    )
}

impl WorkerEnd {
    /// Tell the control plane.
    pub fn tell(&mut self, event: Event) {
        if self.events.push(event).is_ok() {
            self.signal.set();
        }
    }
}

impl ControlEnd {
    /// Give an order; `false` when too many wait already.
    pub fn order(&mut self, order: Order) -> bool {
        self.orders.push(order).is_ok()
    }

    /// Take all events.
    pub fn drain(&mut self, into: &mut Vec<Event>) {
        into.extend(std::iter::from_fn(|| self.events.pop().ok()));
    }
}
