//! Sessions in which constants keep their digits and times do not end in 2262.

use std::sync::Arc;

use deltalake::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use deltalake::datafusion::error::Result;
use deltalake::datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use deltalake::datafusion::logical_expr::planner::TypePlanner;
use deltalake::datafusion::prelude::SessionConfig;
use deltalake::datafusion::sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};
use deltalake::delta_datafusion::{DeltaSessionConfig, create_session};

/// Settings of every session.
pub(super) fn config() -> SessionConfig {
    let config: SessionConfig = DeltaSessionConfig::default().into();
    config
        .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
        // Old timestamps in Parquet (INT96) do not end in 2262 either.
        .set_str("datafusion.execution.parquet.coerce_int96", "us")
}

/// The session that texts of operations are read in, as `deltalake` makes it but for what they mean.
pub(super) fn operation_session() -> SessionState {
    SessionStateBuilder::new_from_existing(create_session().state())
        .with_config(config())
        .with_type_planner(Arc::new(Microseconds))
        .build()
}

/// `TIMESTAMP` is in microseconds, as in Delta tables.
#[derive(Debug)]
pub(super) struct Microseconds;

impl TypePlanner for Microseconds {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let zone = match sql_type {
            SqlType::Timestamp(None, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
                Some("UTC".into())
            }
            SqlType::Timestamp(None, _) => None,
            _ => return Ok(None),
        };
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
