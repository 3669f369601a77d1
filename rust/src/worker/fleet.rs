//! The control plane's handle on the data plane: starts the worker, hands it plans, hears from it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::flow::Event;
use crate::net::{BindError, Bound, Poller, Waker};
use crate::plan::{Plan, PlanError};
use crate::stats::Registry;

use super::mailbox::{ControlEnd, Order, WorkerEnd, mailbox};
use super::sockets::WAKER;
use super::turn::Worker;

/// A plan was not put in force; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The plan is wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A listener cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The data plane cannot be started, has ended, or is not keeping up with orders.
    #[error("data plane: {0}")]
    Io(#[from] io::Error),
}

/// The data plane, seen from above.
#[derive(Debug)]
pub struct Fleet {
    registry: Arc<Registry>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    control: ControlEnd,
    /// Until the first plan starts the worker.
    waiting: Option<WorkerEnd>,
    running: Option<Running>,
    bound: Vec<(String, crate::plan::Address, String)>,
}

#[derive(Debug)]
struct Running {
    waker: Arc<Waker>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    /// A data plane without a plan.
    pub fn new() -> io::Result<Self> {
        let (worker, control) = mailbox()?;
        let state = State { control, waiting: Some(worker), running: None, bound: Vec::new() };
        Ok(Self { registry: Arc::default(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Put a plan in force; gives its generation. The first one starts the worker.
    pub fn apply(&self, json: &[u8], seed: u64) -> Result<u64, ApplyError> {
        let plan = Arc::new(Plan::from_json(json)?);
        let generation = plan.generation;
        let mut state = self.state();
        let mut bound = Vec::new();
        let mut names = Vec::new();
        for listener in &plan.listeners {
            for address in &listener.bind {
                if let Some((_, _, local)) = state.bound.iter().find(|(_, old, _)| old == address) {
                    names.push((listener.name.clone(), address.clone(), local.clone()));
                    continue;
                }
                let socket = Bound::bind(&listener.name, address)?;
                names.push((listener.name.clone(), address.clone(), socket.local_address()));
                bound.push(socket);
            }
        }
        match state.waiting.take() {
            Some(worker) => {
                state.running = Some(start(worker, plan, bound, Arc::clone(&self.registry), seed)?);
            }
            None if !state.order(Order::Apply(plan, bound)) => {
                return Err(io::Error::other("it does not take orders any more").into());
            }
            None => {}
        }
        state.bound = names;
        Ok(generation)
    }

    /// Listener name and address as bound, of every listening socket.
    pub fn listeners(&self) -> Vec<(String, String)> {
        self.state().bound.iter().map(|(name, _, local)| (name.clone(), local.clone())).collect()
    }

    /// Give an order; `false` when it could not be given.
    pub fn order(&self, order: Order) -> bool {
        self.state().order(order)
    }

    /// The descriptor that is readable while events wait.
    pub fn fileno(&self) -> i32 {
        self.state().control.fileno()
    }

    /// All events since the last call.
    pub fn drain_events(&self) -> Vec<Event> {
        self.state().control.drain()
    }

    /// Everything that is counted, as JSON.
    pub fn stats(&self) -> Vec<u8> {
        self.registry.snapshot()
    }

    /// What is known of the group, as JSON; empty: there is none.
    pub fn group(&self) -> String {
        self.registry.group()
    }

    /// Stop the worker and wait for its end; whether it has come.
    pub fn join(&self, timeout: Duration) -> bool {
        let Some(mut running) = ({
            let mut state = self.state();
            state.order(Order::Stop);
            state.running.take()
        }) else {
            return true;
        };
        let ended = !matches!(running.ended.recv_timeout(timeout), Err(RecvTimeoutError::Timeout));
        match running.thread.take() {
            Some(thread) if ended => drop(thread.join()),
            Some(thread) => {
                running.thread = Some(thread);
                self.state().running = Some(running);
            }
            None => {}
        }
        ended
    }
}

impl State {
    fn order(&mut self, order: Order) -> bool {
        let Some(running) = &self.running else { return false };
        self.control.order(order) && running.waker.wake().is_ok()
    }
}

fn start(
    mailbox: WorkerEnd,
    plan: Arc<Plan>,
    bound: Vec<Bound>,
    registry: Arc<Registry>,
    seed: u64,
) -> io::Result<Running> {
    let poller = Poller::new()?;
    let waker = Arc::new(poller.waker(WAKER)?);
    let (end, ended) = channel();
    let thread = std::thread::Builder::new().name("redisha-worker".to_owned()).spawn({
        move || {
            let _end = end; // dropped when the thread ends, however it ends
            live(poller, mailbox, plan, bound, registry, seed);
        }
    })?;
    Ok(Running { waker, ended, thread: Some(thread) })
}

/// The worker's life. A panic, or an error of the poller, is told; it never hangs the process.
fn live(
    poller: Poller,
    mut mailbox: WorkerEnd,
    plan: Arc<Plan>,
    bound: Vec<Bound>,
    registry: Arc<Registry>,
    seed: u64,
) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        Worker::new(poller, &mut mailbox, plan, bound, registry, seed)?.run()
    }));
    let detail = match result {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "a panic without a text".to_owned(),
        },
    };
    mailbox.tell(Event { kind: "worker_died", subject: String::new(), detail });
}
