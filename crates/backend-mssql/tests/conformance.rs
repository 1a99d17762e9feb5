//! Every case of the suite, on the SQL Server of `DL_TEST_MSSQL_URL`.

mod support;

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    deltalakedb_conformance::run(vec![Arc::new(support::Mssql)])
}
