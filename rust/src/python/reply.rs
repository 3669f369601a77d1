//! RESP for the control plane's probes and comparisons, read and written by the data plane's own scanner.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyList};
use pyo3::{PyErr, create_exception};

use crate::command::{COMMANDS, by_id};
use crate::resp::{self, Reply, ReplyScanner, encode};

create_exception!(redisha._core, ReplyError, PyException);

/// Resumable reader of replies.
#[pyclass(frozen, module = "redisha._core")]
#[derive(Debug)]
pub struct ReplyReader(Mutex<Reader>);

/// Memory that an empty reader keeps for the next bytes.
const KEPT: usize = 1 << 20;

/// `bytes` from `start` on have not been given out. Up to `whole` they are `counted` replies, up to `scanned` they are
/// known to the scanner.
#[derive(Debug, Default)]
struct Reader {
    scanner: ReplyScanner,
    bytes: Vec<u8>,
    start: usize,
    whole: usize,
    scanned: usize,
    counted: usize,
}

impl Reader {
    fn feed(&mut self, data: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.whole -= self.start;
            self.scanned -= self.start;
            self.start = 0;
            if self.bytes.is_empty() {
                self.bytes.shrink_to(KEPT);
            }
        }
        self.bytes.extend_from_slice(data);
    }

    /// The next `count` replies as they came, once the last of them is complete.
    fn take(&mut self, count: usize) -> Result<Option<&[u8]>, resp::ReplyError> {
        if self.counted > count {
            // An earlier call asked for more and went without: look again from the start.
            self.scanner = ReplyScanner::default();
            (self.whole, self.scanned, self.counted) = (self.start, self.start, 0);
        }
        while self.counted < count {
            let Some(n) = self.scanner.scan(self.bytes.get(self.scanned..).unwrap_or(&[]))? else {
                self.scanned = self.bytes.len();
                return Ok(None);
            };
            self.scanned += n;
            self.whole = self.scanned;
            self.counted += 1;
        }
        let from = std::mem::replace(&mut self.start, self.whole);
        self.counted = 0;
        Ok(self.bytes.get(from..self.whole))
    }
}

#[pymethods]
impl ReplyReader {
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn feed(&self, data: &[u8]) {
        self.lock().feed(data);
    }

    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.lock().take(1) {
            Err(error) => Err(PyValueError::new_err(error.to_string())),
            Ok(None) => Ok(py.NotImplemented().into_bound(py)),
            Ok(Some(frame)) => value(py, Reply::new(frame)),
        }
    }

    fn take<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyAny>> {
        match self.lock().take(count) {
            Err(error) => Err(PyValueError::new_err(error.to_string())),
            Ok(None) => Ok(py.NotImplemented().into_bound(py)),
            Ok(Some(frames)) => Ok(PyBytes::new(py, frames).into_any()),
        }
    }
}

impl ReplyReader {
    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn value<'py>(py: Python<'py>, reply: Reply<'_>) -> PyResult<Bound<'py, PyAny>> {
    let text = || reply.text().unwrap_or(b"");
    Ok(match reply.bytes().first() {
        _ if reply.is_nil() => py.None().into_bound(py),
        Some(b':') => reply.integer().into_pyobject(py)?.into_any(),
        Some(b'-' | b'!') => {
            let line = reply.bytes().get(1..).unwrap_or(b"").trim_ascii_end();
            let error: PyErr = ReplyError::new_err(String::from_utf8_lossy(line).into_owned());
            error.into_value(py).into_bound(py).into_any()
        }
        Some(b'#') => (reply.bytes().get(1) == Some(&b't')).into_pyobject(py)?.to_owned().into_any(),
        Some(b',') => {
            let number = std::str::from_utf8(text()).ok().and_then(|t| t.parse().ok()).unwrap_or(f64::NAN);
            PyFloat::new(py, number).into_any()
        }
        Some(b'%') => {
            let map = PyDict::new(py);
            let mut elements = reply.elements();
            while let (Some(key), Some(item)) = (elements.next(), elements.next()) {
                map.set_item(value(py, key)?, value(py, item)?)?;
            }
            map.into_any()
        }
        Some(b'*' | b'~' | b'>') => {
            let list = PyList::empty(py);
            for element in reply.elements() {
                list.append(value(py, element)?)?;
            }
            list.into_any()
        }
        _ => PyBytes::new(py, text()).into_any(),
    })
}

/// One RESP command.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "extracted from a Python list")]
pub fn encode_command(py: Python<'_>, args: Vec<Vec<u8>>) -> Bound<'_, PyBytes> {
    let mut out = Vec::new();
    encode::command(&mut out, &args);
    PyBytes::new(py, &out)
}

/// The compiled command table as JSON.
#[pyfunction]
pub fn command_table(py: Python<'_>) -> Bound<'_, PyBytes> {
    let rows: Vec<serde_json::Value> = (0..COMMANDS)
        .map(|id| {
            let command = by_id(id as u16);
            let flags: Vec<String> =
                command.flags.iter_names().map(|(name, _)| name.to_lowercase()).collect();
            serde_json::json!({
                "name": command.name,
                "arity": command.arity,
                "flags": flags,
                "keys": format!("{:?}", command.shape),
                "effect": format!("{:?}", command.effect),
                "reply": format!("{:?}", command.reply),
                "treatment": format!("{:?}", command.treatment),
            })
        })
        .collect();
    PyBytes::new(py, &serde_json::to_vec(&rows).unwrap_or_default())
}
