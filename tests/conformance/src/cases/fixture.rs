//! The catalog that the upgrade tests load, made anew.

use super::cases;
use crate::env::{CaseResult, Env};
use crate::fixture;

cases! {
    /// contract 3, 7, 8: a catalog with everything that a row can be answers what version 2 of the schema
    /// answered, and goes on as the reference does.
    async fn everything_that_a_row_can_be(env: &Env) -> CaseResult {
        fixture::build(env.db()).await?;
        let answers = fixture::answers(env.db()).await?;
        fixture::same("this backend", fixture::ANSWERS, &answers)?;
        fixture::goes_on(env.db()).await?;
        Ok(())
    }
}
