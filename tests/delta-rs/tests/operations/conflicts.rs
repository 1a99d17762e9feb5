//! Pairs of operations of which the second was begun before the first was committed.

use std::collections::HashMap;

use deltalakedb::deltalake::deltalake as delta;

use crate::both::Ended;
use crate::databases::Database;
use crate::{Result, append, batch, filled_quietly};
use delta::DeltaTable;
use delta::datafusion::prelude::{col, lit};
use delta::kernel::{DataType as DeltaType, PrimitiveType, StructField};
use delta::protocol::SaveMode;

/// What one of two writers does.
#[derive(Debug, Clone, Copy)]
enum Work {
    Append,
    DeleteMonday,
    DeleteRowsOfMonday,
    UpdateTuesday,
    Overwrite,
    Compact,
    AddColumn,
    SetProperty,
}

const ALL: [Work; 8] = [
    Work::Append,
    Work::DeleteMonday,
    Work::DeleteRowsOfMonday,
    Work::UpdateTuesday,
    Work::Overwrite,
    Work::Compact,
    Work::AddColumn,
    Work::SetProperty,
];

impl Work {
    async fn run(self, t: DeltaTable) -> Result<DeltaTable> {
        let monday = || col("day").eq(lit("mon"));
        match self {
            Work::Append => append(t, 60, 2, "mon").await,
            Work::DeleteMonday => Ok(t.delete().with_predicate(monday()).await?.0),
            Work::DeleteRowsOfMonday => {
                let some = monday().and(col("id").lt(lit(3_i64)));
                Ok(t.delete().with_predicate(some).await?.0)
            }
            Work::UpdateTuesday => {
                let rows = t.update().with_predicate(col("day").eq(lit("tue")));
                Ok(rows.with_update("name", lit("changed")).await?.0)
            }
            Work::Overwrite => {
                t.write([batch([70], "mon")]).with_save_mode(SaveMode::Overwrite).await
            }
            Work::Compact => Ok(t.optimize().await?.0),
            Work::AddColumn => {
                let field = DeltaType::Primitive(PrimitiveType::Date);
                t.add_columns().with_fields([StructField::new("later", field, true)]).await
            }
            Work::SetProperty => {
                let properties =
                    HashMap::from([("delta.appendOnly".to_owned(), "false".to_owned())]);
                t.set_tbl_properties().with_properties(properties).await
            }
        }
    }
}

pub(crate) async fn pairs_end_as_they_do_on_a_plain_table(db: Database) {
    let (mut passed, mut refused, mut only_plain) = (0, 0, Vec::new());
    for first in ALL {
        for second in ALL {
            let mut both = filled_quietly(db).await;
            let what = format!("{second:?} after {first:?}");
            let ended =
                both.race(&what, async |t| first.run(t).await, async |t| second.run(t).await);
            match ended.await {
                Ended::Passed => passed += 1,
                Ended::Refused => refused += 1,
                Ended::OnlyPlain { rows } => only_plain.push((what, rows)),
            }
        }
    }
    println!("{passed} pairs passed, {refused} were refused");
    // What a plain table has then is not what either writer wanted: an overwrite by one row leaves the
    // compacted files in it, and two compactions leave each row of theirs twice.
    let known =
        [("Overwrite after Compact".to_owned(), 21), ("Compact after Compact".to_owned(), 50)];
    assert_eq!(only_plain, known);
    assert!(passed > 10 && refused > 10, "{passed} {refused}");
}
