//! `Core` and `Event`.

use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{PyErr, create_exception};

use crate::flow;
use crate::worker::{ApplyError, Fleet, Order};

create_exception!(redisha._core, PlanError, PyValueError);
create_exception!(redisha._core, BindError, PyOSError);

/// Something that happened on the data plane.
#[pyclass(frozen, module = "redisha._core")]
#[derive(Debug)]
pub struct Event(flow::Event);

#[pymethods]
impl Event {
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind
    }

    #[getter]
    fn subject(&self) -> &str {
        &self.0.subject
    }

    #[getter]
    fn detail(&self) -> &str {
        &self.0.detail
    }

    fn __repr__(&self) -> String {
        format!("Event(kind={:?}, subject={:?}, detail={:?})", self.0.kind, self.0.subject, self.0.detail)
    }
}

/// The data plane.
#[pyclass(frozen, module = "redisha._core")]
#[derive(Debug)]
pub struct Core {
    fleet: Fleet,
}

#[pymethods]
impl Core {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self { fleet: Fleet::new()? })
    }

    fn apply(&self, py: Python<'_>, plan: &[u8]) -> PyResult<u64> {
        py.detach(|| self.fleet.apply(plan, seed())).map_err(|error| match error {
            ApplyError::Plan(error) => PlanError::new_err(error.to_string()),
            ApplyError::Bind(error) => {
                let text = error.to_string();
                match error.source.raw_os_error() {
                    Some(errno) => BindError::new_err((errno, text)),
                    None => BindError::new_err(text),
                }
            }
            ApplyError::Io(error) => PyErr::from(error),
        })
    }

    fn fileno(&self) -> i32 {
        self.fleet.fileno()
    }

    fn drain_events(&self) -> Vec<Event> {
        self.fleet.drain_events().into_iter().map(Event).collect()
    }

    fn stats<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.fleet.stats()))
    }

    fn listeners(&self) -> Vec<(String, String)> {
        self.fleet.listeners()
    }

    fn resync(&self, cluster: String, action: &str) -> PyResult<()> {
        let action = action.parse().map_err(PyValueError::new_err)?;
        self.order(Order::Resync(cluster, action))
    }

    fn refilled(&self, primary: String, ok: bool) -> PyResult<()> {
        self.order(Order::Refilled(primary, ok))
    }

    fn doubt(&self, primary: String, mirror: String, keys: Vec<(u16, Vec<u8>)>) -> PyResult<()> {
        self.order(Order::Doubt(primary, mirror, keys))
    }

    fn group(&self) -> String {
        self.fleet.group()
    }

    fn lead(&self, term: u64) -> PyResult<()> {
        self.order(Order::Lead(term))
    }

    fn follow(&self, term: u64, leader: String) -> PyResult<()> {
        self.order(Order::Follow(term, leader))
    }

    fn yield_lead(&self, on: bool) -> PyResult<()> {
        self.order(Order::YieldLead(on))
    }

    fn count(&self, members: Vec<String>) -> PyResult<()> {
        self.order(Order::Count(members))
    }

    fn arbiter_beat(&self, age_ms: u64) -> PyResult<()> {
        self.order(Order::ArbiterBeat(age_ms))
    }

    fn ask(&self, peer: String, number: u64, message: String) -> PyResult<()> {
        self.order(Order::Ask(peer, number, message))
    }

    fn answer(&self, number: u64, message: String) -> PyResult<()> {
        self.order(Order::Answer(number, message))
    }

    fn merged(&self, peer: String, ok: bool) -> PyResult<()> {
        self.order(Order::Merged(peer, ok))
    }

    fn begin_drain(&self, limit_ms: u64) -> PyResult<()> {
        self.order(Order::Drain(limit_ms))
    }

    fn join(&self, py: Python<'_>, timeout_ms: u64) -> bool {
        py.detach(|| self.fleet.join(Duration::from_millis(timeout_ms)))
    }

    fn debug_panic(&self) -> PyResult<()> {
        self.order(Order::Panic)
    }
}

impl Core {
    fn order(&self, order: Order) -> PyResult<()> {
        if self.fleet.order(order) {
            Ok(())
        } else {
            Err(PyRuntimeError::new_err("the data plane is not running"))
        }
    }
}

/// The bucket of a key in dirty maps.
#[pyfunction]
pub(super) fn bucket(db: u16, key: &[u8]) -> u32 {
    flow::bucket(db, key)
}

/// Different in every process and every call: it only spreads retries.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
