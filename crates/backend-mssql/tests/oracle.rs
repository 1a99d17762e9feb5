//! Random operations on the SQL Server of `DL_TEST_MSSQL_URL`, compared with the reference.

mod support;

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    deltalakedb_conformance::run_oracle(vec![Arc::new(support::Mssql)])
}
