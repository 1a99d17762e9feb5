//! The native part of the Python package `deltalakedb`: thin over the facade. What people use stands in
//! `python/deltalakedb/`, with its types and docs.
#![forbid(unsafe_code)]

mod catalog;
mod changes;
mod commits;
mod failure;
mod files;
mod kept;
mod logs;
mod native;
mod partitions;
mod rows;
mod runtime;
mod table;

use std::ffi::OsString;

use pyo3::prelude::*;

/// The native part of the package `deltalakedb`.
#[pymodule]
mod _internal {
    use deltalakedb::CatalogError;
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::catalog::{after_fork_in_child, after_fork_in_parent, before_fork};
    #[pymodule_export]
    use crate::changes::{NativeTransaction, begin};
    #[pymodule_export]
    use crate::logs::{end_logs, next_logs, set_log_level};
    #[pymodule_export]
    use crate::native::{NativeCatalog, catalog_of_table, metric_names};
    #[pymodule_export]
    use crate::rows::{NativeBatch, NativeRows, NativeSchema};
    #[pymodule_export]
    use crate::run_program;
    #[pymodule_export]
    use crate::runtime::{NativeCancel, set_cancel};
    #[pymodule_export]
    use crate::table::NativeTable;
    #[pymodule_export]
    use crate::table_url;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        let mut codes = CatalogError::CODES.to_vec();
        codes.extend(crate::failure::OWN_CODES);
        module.add("ERROR_CODES", codes)
    }
}

/// Runs the command line of `dl`, whose first argument is the program's name, and gives its exit code. It handles Ctrl-C
/// itself.
#[pyfunction]
fn run_program(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| dl::run(&arguments))
}

/// The URL of a table, without a password.
#[pyfunction]
fn table_url(py: Python<'_>, catalog: &str, table: &str) -> PyResult<String> {
    catalog::table_url(catalog, table).map_err(|failure| failure.raise(py))
}
