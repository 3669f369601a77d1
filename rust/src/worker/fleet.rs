//! The control plane's handle on the data plane: starts the workers, hands them plans, hears from them.

use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::flow::{Event, Seat};
use crate::net::{BindError, Bound, Poller, Waker};
use crate::plan::{Address, Plan, PlanError};
use crate::stats::{Registry, snapshot};

use super::mailbox::{ControlEnd, Draining, Order, Signal, WorkerEnd, mailbox};
use super::post::Post;
use super::sockets::WAKER;
use super::turn::{Start, Worker};

/// How long the first worker's plan waits for the others to have theirs.
const OTHERS: Duration = Duration::from_secs(1);

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
    signal: Signal,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first one in front; none until the first plan.
    workers: Vec<Running>,
    /// What each counts. It outlives them.
    registries: Vec<Arc<Registry>>,
    bound: Vec<(String, Address, String)>,
    /// Clusters whose writes the first worker gives their order.
    ordered: BTreeSet<String>,
}

#[derive(Debug)]
struct Running {
    control: ControlEnd,
    waker: Arc<Waker>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
    /// The addresses that it accepts on.
    accepts: Vec<Address>,
}

impl Fleet {
    /// A data plane without a plan.
    pub fn new() -> io::Result<Self> {
        let state = State { registries: vec![Arc::default()], ..State::default() };
        Ok(Self { signal: Signal::new()?, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Put a plan in force; gives its generation. The first one starts the workers.
    pub fn apply(&self, json: &[u8], seed: u64) -> Result<u64, ApplyError> {
        let plan = Plan::from_json(json)?;
        let mut state = self.state();
        let mut ordered = state.ordered.clone();
        let plans: Vec<Arc<Plan>> = plan.divide(&mut ordered).into_iter().map(Arc::new).collect();
        let generation = plans.first().map_or(0, |p| p.generation);
        let running = state.workers.len();
        if running != 0 && running != plans.len() {
            let text = format!("there are {running} workers, and a plan cannot change that");
            return Err(PlanError::Wrong(text).into());
        }
        let Binding { sockets, names } = state.bind(&plans)?;
        if running == 0 {
            state.registries = plans.iter().map(|_| Arc::default()).collect();
            state.workers = start(&self.signal, &plans, sockets, &state.registries, seed)?;
        } else {
            state.hand_out(&plans, sockets)?;
        }
        for (worker, plan) in state.workers.iter_mut().zip(&plans) {
            worker.accepts = plan.listeners.iter().flat_map(|l| l.bind.clone()).collect();
        }
        state.bound = names;
        state.ordered = ordered;
        Ok(generation)
    }

    /// Listener name and address as bound, of every listening socket.
    pub fn listeners(&self) -> Vec<(String, String)> {
        self.state().bound.iter().map(|(name, _, local)| (name.clone(), local.clone())).collect()
    }

    /// Give an order; `false` when it could not be given. All workers drain and stop, the rest is for the first.
    pub fn order(&self, order: Order) -> bool {
        let mut state = self.state();
        if let Order::Drain(limit_ms) = order {
            return state.order_all(|| Order::Drain(limit_ms));
        }
        state.workers.first_mut().is_some_and(|first| first.order(order))
    }

    /// The descriptor that is readable while events wait.
    pub fn fileno(&self) -> i32 {
        self.signal.fileno()
    }

    /// All events since the last call.
    pub fn drain_events(&self) -> Vec<Event> {
        self.signal.clear();
        let mut events = Vec::new();
        for worker in &mut self.state().workers {
            worker.control.drain(&mut events);
        }
        events
    }

    /// Everything that is counted, as JSON.
    pub fn stats(&self) -> Vec<u8> {
        let registries = self.state().registries.clone();
        snapshot(&registries)
    }

    /// What is known of the group, as JSON; empty: there is none.
    pub fn group(&self) -> String {
        let first = self.state().registries.first().cloned();
        first.map(|registry| registry.group()).unwrap_or_default()
    }

    /// Stop the workers and wait for their end; whether it has come.
    pub fn join(&self, timeout: Duration) -> bool {
        let mut workers = {
            let mut state = self.state();
            state.order_all(|| Order::Stop);
            std::mem::take(&mut state.workers)
        };
        workers.retain_mut(|worker| !worker.has_ended(timeout));
        let ended = workers.is_empty();
        self.state().workers = workers;
        ended
    }
}

/// Sockets that are new, for each worker; and listener, address and address as bound of all that there are then.
#[derive(Default)]
struct Binding {
    sockets: Vec<Vec<Bound>>,
    names: Vec<(String, Address, String)>,
}

impl State {
    fn bind(&self, plans: &[Arc<Plan>]) -> Result<Binding, BindError> {
        let mut binding = Binding { sockets: plans.iter().map(|_| Vec::new()).collect(), names: Vec::new() };
        let Some((_, others)) = plans.split_first() else { return Ok(binding) };
        for listener in plans.first().iter().flat_map(|plan| &plan.listeners) {
            for address in &listener.bind {
                let local = match self.bound.iter().find(|(_, old, _)| old == address) {
                    Some((_, _, local)) => local.clone(),
                    None => {
                        let socket = Bound::bind(&listener.name, address, !others.is_empty())?;
                        let local = socket.local_address();
                        binding.give(0, socket);
                        local
                    }
                };
                for (at, plan) in others.iter().enumerate().map(|(i, plan)| (i + 1, plan)) {
                    let accepts = self.workers.get(at).is_some_and(|w| w.accepts.contains(address));
                    if !accepts && plan.listeners.iter().any(|l| l.bind.contains(address)) {
                        binding.give(at, Bound::beside(&listener.name, address, &local)?);
                    }
                }
                binding.names.push((listener.name.clone(), address.clone(), local));
            }
        }
        Ok(binding)
    }

    /// Give each worker its plan. The first one's comes last: then nothing goes past it that it is to give its order, and a
    /// link that comes before its listener waits.
    fn hand_out(&mut self, plans: &[Arc<Plan>], sockets: Vec<Vec<Bound>>) -> io::Result<()> {
        let refused = || io::Error::other("it does not take orders any more");
        let (done, all_done) = channel();
        let mut parts: Vec<_> = self.workers.iter_mut().zip(plans.iter().zip(sockets)).collect();
        for (worker, (plan, bound)) in parts.drain(1..) {
            if !worker.order(Order::Apply(Arc::clone(plan), bound, done.clone())) {
                return Err(refused());
            }
        }
        drop(done);
        // A worker that is late is not waited for longer: it is overloaded, or about to end.
        let _ = all_done.recv_timeout(OTHERS);
        let (done, _) = channel();
        let taken = parts
            .pop()
            .is_none_or(|(first, (plan, bound))| first.order(Order::Apply(Arc::clone(plan), bound, done)));
        if taken { Ok(()) } else { Err(refused()) }
    }

    /// Give an order to all; whether all took it.
    fn order_all(&mut self, order: impl Fn() -> Order) -> bool {
        let some = !self.workers.is_empty();
        self.workers.iter_mut().fold(some, |all, worker| worker.order(order()) && all)
    }
}

impl Binding {
    fn give(&mut self, worker: usize, socket: Bound) {
        if let Some(sockets) = self.sockets.get_mut(worker) {
            sockets.push(socket);
        }
    }
}

impl Running {
    fn order(&mut self, order: Order) -> bool {
        self.control.order(order) && self.waker.wake().is_ok()
    }

    /// Wait for its end; whether it has come.
    fn has_ended(&mut self, timeout: Duration) -> bool {
        let ended = !matches!(self.ended.recv_timeout(timeout), Err(RecvTimeoutError::Timeout));
        if ended && let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        ended
    }
}

/// Start a worker for each plan.
fn start(
    signal: &Signal,
    plans: &[Arc<Plan>],
    sockets: Vec<Vec<Bound>>,
    registries: &[Arc<Registry>],
    seed: u64,
) -> io::Result<Vec<Running>> {
    let pollers = plans.iter().map(|_| Poller::new()).collect::<io::Result<Vec<Poller>>>()?;
    let wakers = pollers.iter().map(|p| p.waker(WAKER).map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
    let draining = Arc::new(Draining::of(plans.len()));
    let post = Post::row(&wakers);
    let seats = registries.first().map_or_else(Vec::new, |first| Seat::row(plans.len(), first));
    let each =
        pollers.into_iter().zip(wakers).zip(seats).zip(post).zip(plans.iter().zip(sockets)).zip(registries);
    let mut workers: Vec<Running> = Vec::new();
    for (((((poller, waker), seat), post), (plan, bound)), registry) in each {
        let (mailbox, control) = mailbox(signal);
        let (end, ended) = channel();
        let name = if seat.is_first() {
            "redisha-worker".to_owned()
        } else {
            format!("redisha-work-{}", seat.index)
        };
        let start = Start {
            seed: seed.wrapping_add(seat.index as u64),
            seat,
            plan: Arc::clone(plan),
            bound,
            registry: Arc::clone(registry),
            post,
            draining: Arc::clone(&draining),
        };
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            let _end = end; // dropped when the thread ends, however it ends
            live(poller, mailbox, start);
        });
        match spawned {
            Ok(thread) => {
                let accepts = Vec::new();
                workers.push(Running { control, waker, ended, thread: Some(thread), accepts });
            }
            Err(error) => {
                for worker in &mut workers {
                    worker.order(Order::Stop);
                }
                return Err(error);
            }
        }
    }
    Ok(workers)
}

/// A worker's life. A panic, or an error of the poller, is told; it never hangs the process.
fn live(poller: Poller, mut mailbox: WorkerEnd, start: Start) {
    let result = catch_unwind(AssertUnwindSafe(|| Worker::new(poller, &mut mailbox, start)?.run()));
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
