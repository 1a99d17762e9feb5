//! What the backends that stand on `sqlx` share: the pool of connections, options, and the errors of the
//! driver.
#![forbid(unsafe_code)]

mod columns;
mod errors;
mod options;
mod pool;

pub use errors::{Place, driver_error, timed_out};
pub use options::{PoolOptions, TlsOptions};
pub use pool::{Lease, Pool, TakesWrites};
