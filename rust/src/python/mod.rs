//! The boundary: the only place that names Python. Data crosses as bytes and small frozen records; `_core.pyi` is the
//! contract.

mod core;
mod reply;

use pyo3::prelude::*;

/// The extension module `redisha._core`.
#[pymodule(gil_used = false)]
mod _core {
    use super::PyModule;
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::core::{BindError, Core, Event, PlanError, bucket};
    #[pymodule_export]
    use super::reply::{ReplyError, ReplyReader, command_table, encode_command};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
