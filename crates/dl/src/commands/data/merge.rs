//! `dl merge`

use clap::Args;
use delta::arrow::datatypes::Schema;
use delta::datafusion::logical_expr::Expr;
use delta::datafusion::sql::sqlparser::ast::{MergeAction, MergeInsertKind, Statement};
use delta::operations::merge::MergeBuilder;
use deltalakedb::core::ids::TableName;
use deltalakedb::deltalake::{Expressions, deltalake as delta};
use deltalakedb::rows::{asked, column_type, is_column, quoted};
use serde_json::json;

use super::source::Source;
use super::{Change, column, failure, parse_within, target_column};
use crate::commands::commit::Done;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{count, count_of};

/// Arguments of `dl merge`.
#[derive(Debug, Args)]
#[command(after_help = "\
As in SQL's MERGE, the table is called 'target' in conditions and values, and the rows of the files
or of --query 'source'. A clause is an action, or a condition and an action:
  UPDATE SET *, UPDATE SET a = source.a, …, DELETE, INSERT *, INSERT (a, …) VALUES (source.a, …)
  AND source.deleted THEN DELETE
Clauses of one kind are tried in the order in which they stand; * means all columns of the table.

Examples:
  dl merge sales.orders changes.parquet --on 'target.id = source.id' \\
     --when-matched 'AND source.deleted THEN DELETE' --when-matched 'UPDATE SET *' \\
     --when-not-matched 'INSERT *'
  dl merge sales.totals --query 'SELECT day, count(*) AS n FROM sales.orders GROUP BY day' \\
     --on 'target.day = source.day' --when-matched 'UPDATE SET n = source.n'")]
pub(crate) struct Merge {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    #[command(flatten)]
    source: Source,
    /// Which rows belong together: a SQL condition on target and source
    #[arg(long, value_name = "CONDITION", allow_hyphen_values = true)]
    on: String,
    #[command(flatten)]
    clauses: Clauses,
    /// Add columns that only the source has
    #[arg(long = "merge-schema")]
    new_columns: bool,
    #[command(flatten)]
    change: Change,
}

/// What happens to which rows.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Clauses {
    /// Rows of the table that have a row in the source
    #[arg(long = "when-matched", value_name = "CLAUSE")]
    matched: Vec<String>,
    /// Rows of the source that have none in the table
    #[arg(long = "when-not-matched", value_name = "CLAUSE")]
    not_matched: Vec<String>,
    /// Rows of the table that have none in the source
    #[arg(long = "when-not-matched-by-source", value_name = "CLAUSE")]
    not_matched_by_source: Vec<String>,
}

/// Which rows a clause is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Matched,
    NotMatched,
    NotMatchedBySource,
}

impl When {
    fn option(self) -> &'static str {
        match self {
            When::Matched => "--when-matched",
            When::NotMatched => "--when-not-matched",
            When::NotMatchedBySource => "--when-not-matched-by-source",
        }
    }

    fn sql(self) -> &'static str {
        match self {
            When::Matched => "MATCHED",
            When::NotMatched => "NOT MATCHED",
            When::NotMatchedBySource => "NOT MATCHED BY SOURCE",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    UpdateAll,
    Update(Vec<(String, String)>),
    Delete,
    InsertAll,
    Insert(Vec<(String, String)>),
}

/// A clause, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Clause {
    when: When,
    condition: Option<String>,
    action: Action,
}

impl Clause {
    fn parse(when: When, text: &str) -> Result<Clause> {
        let option = when.option();
        let bad = |why: &str| Failure::invalid(format!("{option} '{text}': {why}"));
        // What the parser does not know stands for all columns.
        let (text_for_parser, all) = match without_star(text) {
            Some((before, all)) => (format!("{before} DELETE"), Some(all)),
            None => (text.to_owned(), None),
        };
        let conditional = text.split_whitespace().next();
        let conditional = conditional.is_some_and(|word| {
            let end = word.find(|c: char| !c.is_alphanumeric()).unwrap_or(word.len());
            word[..end].eq_ignore_ascii_case("AND")
        });
        let then = if conditional { "" } else { "THEN " };
        // Of rows that are not in the table none can be deleted: the parser knows that.
        let parsed_as = if all.is_some() { When::Matched } else { when };
        let statement = format!(
            "MERGE INTO t USING s ON true WHEN {} {then}{text_for_parser}",
            parsed_as.sql()
        );
        let Statement::Merge(merge) = parse_within(option, text, &statement)? else {
            return Err(bad("it is no clause of a MERGE"));
        };
        let [clause] = merge.clauses.as_slice() else {
            return Err(bad("it is more than one clause: give each its own option"));
        };
        let action = match (all, &clause.action) {
            (Some(all), _) => all,
            (None, MergeAction::Delete { .. }) => Action::Delete,
            (None, MergeAction::Update(update)) => {
                let pairs = update.assignments.iter().map(|assignment| {
                    let column = target_column(option, &assignment.target)?;
                    Ok((column, assignment.value.to_string()))
                });
                Action::Update(pairs.collect::<Result<_>>()?)
            }
            (None, MergeAction::Insert(insert)) => {
                let MergeInsertKind::Values(values) = &insert.kind else {
                    return Err(bad("give columns and values: INSERT (a) VALUES (source.a)"));
                };
                let [row] = values.rows.as_slice() else {
                    return Err(bad("one row of values is inserted for each row of the source"));
                };
                if insert.columns.len() != row.len() {
                    return Err(bad("it has another number of columns than of values"));
                }
                let columns = insert.columns.iter().map(column);
                Action::Insert(columns.zip(row.iter().map(ToString::to_string)).collect())
            }
        };
        let fits = match (&action, when) {
            (Action::InsertAll | Action::Insert(_), when) => when == When::NotMatched,
            (Action::UpdateAll, when) => when == When::Matched,
            (Action::Update(_) | Action::Delete, when) => when != When::NotMatched,
        };
        if !fits {
            return Err(bad(match when {
                When::Matched => "these rows are there: UPDATE SET … or DELETE",
                When::NotMatched => "these rows are not there: INSERT",
                When::NotMatchedBySource => "these rows have no source: UPDATE SET a = … or DELETE",
            }));
        }
        let condition = clause.predicate.as_ref().map(ToString::to_string);
        Ok(Clause { when, condition, action })
    }
}

/// What stands before `UPDATE SET *` or `INSERT *` at the end of a clause.
fn without_star(text: &str) -> Option<(String, Action)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let ends = |with: &[&str]| {
        let at = words.len().checked_sub(with.len())?;
        let same = words[at..].iter().zip(with).all(|(a, b)| a.eq_ignore_ascii_case(b));
        // The text itself up to there: white space in it may matter.
        let mut rest = text;
        for _ in with.iter().filter(|_| same) {
            rest = rest.trim_end();
            rest = &rest[..rest.rfind(char::is_whitespace).unwrap_or(0)];
        }
        same.then(|| rest.to_owned())
    };
    if let Some(before) = ends(&["UPDATE", "SET", "*"]) {
        return Some((before, Action::UpdateAll));
    }
    ends(&["INSERT", "*"]).map(|before| (before, Action::InsertAll))
}

impl Merge {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let mut clauses = Vec::new();
        for (when, texts) in [
            (When::Matched, &self.clauses.matched),
            (When::NotMatched, &self.clauses.not_matched),
            (When::NotMatchedBySource, &self.clauses.not_matched_by_source),
        ] {
            for text in texts {
                clauses.push(Clause::parse(when, text)?);
            }
        }
        self.change
            .run(context, &self.table, async |db, name, table| {
                let schema = table.snapshot().map_err(|e| failure(name, e))?;
                let schema = schema.snapshot().arrow_schema();
                let rows = self.source.rows(db, Some(schema.clone())).await?;
                let has: Vec<String> =
                    rows.schema().fields().iter().map(|field| field.name().clone()).collect();
                let mut columns: Vec<String> =
                    schema.fields().iter().map(|field| field.name().clone()).collect();
                if self.new_columns {
                    columns.extend(
                        has.iter().filter(|c| !columns.contains(c)).cloned().collect::<Vec<_>>(),
                    );
                }
                let stars = |c: &Clause| matches!(c.action, Action::UpdateAll | Action::InsertAll);
                if clauses.iter().any(stars)
                    && let Some(missing) = columns.iter().find(|column| !has.contains(column))
                {
                    return Err(Failure::invalid(format!(
                        "the source has no column '{missing}', which * takes from it: name the \
                         columns, as in UPDATE SET a = source.a. It has {}",
                        has.join(", ")
                    )));
                }
                for clause in &clauses {
                    let (Action::Update(pairs) | Action::Insert(pairs)) = &clause.action else {
                        continue;
                    };
                    for (column, _) in pairs.iter().filter(|_| !self.new_columns) {
                        is_column(name, &schema, column)?;
                    }
                }
                let expressions = Expressions::of_merge(
                    ("target", &schema),
                    ("source", rows.schema().as_arrow()),
                );
                let expressions = expressions.map_err(|e| asked(name, "columns", e))?;
                let typed = |clause: Clause| clause.typed(name, &schema, &expressions, &columns);
                let clauses = clauses.into_iter().map(typed).collect::<Result<Vec<_>>>()?;
                let on = expressions.condition(&self.on).map_err(|e| asked(name, "--on", e))?;
                let mut merge = table
                    .merge(rows, on)
                    .with_source_alias("source")
                    .with_target_alias("target")
                    .with_merge_schema(self.new_columns);
                for clause in clauses {
                    merge = with_clause(merge, clause).map_err(|e| failure(name, e))?;
                }
                let (_, metrics) = merge.await.map_err(|e| failure(name, e))?;
                let number = |n: usize| count(count_of(n));
                let text = format!(
                    "Rows inserted: {}, updated: {}, deleted: {}",
                    number(metrics.num_target_rows_inserted),
                    number(metrics.num_target_rows_updated),
                    number(metrics.num_target_rows_deleted)
                );
                Ok(Some(Done::files(
                    "merged",
                    json!(metrics),
                    &text,
                    metrics.num_target_files_removed,
                    metrics.num_target_files_added,
                )))
            })
            .await
    }
}

/// A clause whose texts are read. No values: the rows go.
struct Typed {
    when: When,
    condition: Option<Expr>,
    values: Option<Vec<(String, Expr)>>,
}

impl Clause {
    /// Reads conditions and values; `columns` is what * stands for.
    fn typed(
        self,
        table: &TableName,
        schema: &Schema,
        expressions: &Expressions,
        columns: &[String],
    ) -> Result<Typed> {
        let Clause { when, condition, action } = self;
        let bad = |error| asked(table, when.option(), error);
        let condition = condition.map(|text| expressions.condition(&text)).transpose();
        let condition = condition.map_err(bad)?;
        let pairs = match action {
            Action::UpdateAll | Action::InsertAll => columns
                .iter()
                .map(|column| (quoted(column), format!("source.{}", quoted(column))))
                .collect(),
            Action::Update(pairs) | Action::Insert(pairs) => pairs,
            Action::Delete => return Ok(Typed { when, condition, values: None }),
        };
        let values = pairs.into_iter().map(|(column, value)| {
            let value = expressions.value(&value, &column, column_type(schema, &column));
            Ok((column, value.map_err(bad)?))
        });
        Ok(Typed { when, condition, values: Some(values.collect::<Result<_>>()?) })
    }
}

fn with_clause(merge: MergeBuilder, clause: Typed) -> Result<MergeBuilder, delta::DeltaTableError> {
    let Typed { when, condition, values } = clause;
    let Some(pairs) = values else {
        let delete = |mut delete: delta::operations::merge::DeleteBuilder| {
            if let Some(condition) = condition {
                delete = delete.predicate(condition);
            }
            delete
        };
        return if when == When::Matched {
            merge.when_matched_delete(delete)
        } else {
            merge.when_not_matched_by_source_delete(delete)
        };
    };
    if when == When::NotMatched {
        return merge.when_not_matched_insert(|mut insert| {
            for (column, value) in pairs {
                insert = insert.set(column, value);
            }
            if let Some(condition) = condition {
                insert = insert.predicate(condition);
            }
            insert
        });
    }
    let update = |mut update: delta::operations::merge::UpdateBuilder| {
        for (column, value) in pairs {
            update = update.update(column, value);
        }
        if let Some(condition) = condition {
            update = update.predicate(condition);
        }
        update
    };
    if when == When::Matched {
        merge.when_matched_update(update)
    } else {
        merge.when_not_matched_by_source_update(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_taken_apart() {
        let clause = |when, text| Clause::parse(when, text).unwrap();
        assert_eq!(
            clause(When::Matched, "AND source.a  = 'x  y' THEN update set *"),
            Clause {
                when: When::Matched,
                condition: Some("source.a = 'x  y'".to_owned()),
                action: Action::UpdateAll
            }
        );
        assert_eq!(clause(When::NotMatched, "INSERT *").action, Action::InsertAll);
        assert_eq!(
            clause(When::NotMatched, "INSERT (a, \"b c\") VALUES (source.a, 1 + 2)").action,
            Action::Insert(vec![
                ("\"a\"".to_owned(), "source.a".to_owned()),
                ("\"b c\"".to_owned(), "1 + 2".to_owned())
            ])
        );
        let gone = clause(When::NotMatchedBySource, "AND target.n > 3 THEN DELETE");
        assert_eq!(
            (gone.condition.as_deref(), gone.action),
            (Some("target.n > 3"), Action::Delete)
        );
        assert_eq!(
            clause(When::Matched, "UPDATE SET n = target.n * 2").action,
            Action::Update(vec![("\"n\"".to_owned(), "target.n * 2".to_owned())])
        );
        for (when, bad) in [
            (When::Matched, "INSERT *"),
            (When::NotMatched, "DELETE"),
            (When::NotMatched, "UPDATE SET *"),
            (When::NotMatchedBySource, "UPDATE SET *"),
            (When::Matched, "UPDATE"),
            (When::Matched, ""),
            (When::Matched, "DELETE WHEN MATCHED THEN DELETE"),
            (When::NotMatched, "INSERT (a, b) VALUES (1)"),
            // Not all that is written is ASCII.
            (When::Matched, "abé"),
        ] {
            let error = Clause::parse(when, bad).unwrap_err().to_string();
            assert!(error.contains(when.option()), "{bad}: {error}");
        }
    }
}
