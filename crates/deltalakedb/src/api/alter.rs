//! Changes of a table's metadata.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use deltalakedb_catalog_core::action::Action;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TableRef;
use deltalakedb_catalog_engine::alter::{AlterBase, Alteration, Altered, alter};
use deltalakedb_catalog_engine::catalog::CommitReport;
use deltalakedb_catalog_engine::conflict::{Conflict, ConflictKind};
use deltalakedb_catalog_engine::plan::ENGINE_INFO;
use deltalakedb_catalog_engine::predicate::Pruner;
use deltalakedb_catalog_engine::retry::Retry;
use deltalakedb_catalog_engine::schema::StructType;
use serde_json::{Value, json};

use super::{Change, Table, check_rows};
use crate::filter::parse_filter;

/// Changes of a table's metadata, made by [`Table::alter`]. Awaited, they are committed as one commit, and the
/// table is opened as it is then.
///
/// Columns are named by their paths: `"addr.zip"`, with names that hold a dot in backticks. Elements of arrays are
/// `element`, keys and values of maps `key` and `value`.
///
/// The commit goes on the version that was opened. A change of metadata or protocol that others committed since then
/// conflicts with it; files that they added do not.
#[must_use = "changes are committed when they are awaited"]
#[derive(Debug)]
pub struct AlterTable {
    table: Table,
    changes: Vec<Result<Alteration>>,
}

impl AlterTable {
    pub(super) fn new(table: Table) -> AlterTable {
        AlterTable { table, changes: Vec::new() }
    }

    fn with(mut self, change: Result<Alteration>) -> AlterTable {
        self.changes.push(change);
        self
    }

    /// What the table holds.
    pub fn description(self, text: impl Into<String>) -> AlterTable {
        let text = text.into();
        self.with(Ok(Alteration::Description((!text.is_empty()).then_some(text))))
    }

    /// Sets a table property, and adds the feature that it needs to the protocol.
    pub fn set_property(self, key: impl Into<String>, value: impl Into<String>) -> AlterTable {
        self.with(Ok(Alteration::SetProperty { key: key.into(), value: value.into() }))
    }

    /// Takes a table property away.
    pub fn unset_property(self, key: impl Into<String>) -> AlterTable {
        self.with(Ok(Alteration::UnsetProperty { key: key.into() }))
    }

    /// Says what a column holds; an empty text takes the comment away.
    pub fn comment(self, column: &str, text: impl Into<String>) -> AlterTable {
        let text = text.into();
        let text = (!text.is_empty()).then_some(text);
        self.with(path(column).map(|column| Alteration::Comment { column, text }))
    }

    /// Adds a column that may be null, as SQL writes it: `"note string comment 'free text'"`, `"addr.zip int"`.
    pub fn add_column(self, text: &str) -> AlterTable {
        self.with(new_column(text))
    }

    /// Gives a column another name: the last part of its path. The table must map columns.
    pub fn rename_column(self, column: &str, name: impl Into<String>) -> AlterTable {
        let name = name.into();
        self.with(path(column).map(|column| Alteration::RenameColumn { column, name }))
    }

    /// Drops a column. The table must map columns; its files keep what they hold.
    pub fn drop_column(self, column: &str) -> AlterTable {
        self.with(path(column).map(|column| Alteration::DropColumn { column }))
    }

    /// Lets a column be null from now on.
    pub fn set_nullable(self, column: &str) -> AlterTable {
        self.with(path(column).map(|column| Alteration::SetNullable { column }))
    }

    /// Adds a CHECK constraint, after a look at the rows that the table has: it must be true for each of them.
    /// Without the cargo feature `deltalake` nothing here reads rows, and the table must have none.
    pub fn add_constraint(
        self,
        name: impl Into<String>,
        expression: impl Into<String>,
    ) -> AlterTable {
        let (name, expression) = (name.into(), expression.into());
        self.with(Ok(Alteration::AddConstraint { name, expression }))
    }

    /// Drops a CHECK constraint.
    pub fn drop_constraint(self, name: impl Into<String>) -> AlterTable {
        self.with(Ok(Alteration::DropConstraint { name: name.into() }))
    }

    /// Commits, and tells how; none if nothing is other than it was, and nothing was committed then.
    ///
    /// # Errors
    /// As of awaiting it.
    pub async fn commit(self) -> Result<Option<CommitReport>> {
        let table = self.table;
        let changes = self.changes.into_iter().collect::<Result<Vec<_>>>()?;
        let db = table.db();
        let (id, version) = (table.id(), table.version());
        if table.is_frozen() {
            // As it is now; where it is not frozen any more, that was a change of the protocol.
            db.refuse_frozen_table(&TableRef::Id(id)).await?;
            return Err(CatalogError::Conflict(Box::new(Conflict {
                table: table.name().to_string(),
                read_version: Some(version),
                winning_version: None,
                kind: ConflictKind::ProtocolChanged,
            })));
        }
        let domains = Retry::of(db).repeat(|| db.reader().domain_metadata(id, version)).await?;
        let base =
            AlterBase { protocol: table.protocol(), metadata: table.metadata(), domains: &domains };
        let ids = db.ids();
        let altered = alter(&base, &changes, &mut || ids.uuid())?;
        check_constraints(&table, &changes)?;
        if !altered.changes(&base) {
            return Ok(None);
        }
        if altered.checks_rows && table.num_files() > 0 {
            for change in &changes {
                if let Alteration::AddConstraint { name, expression } = change {
                    check_rows::check(&table, name, expression).await?;
                }
            }
        }
        let ndjson = lines(&table, altered.clone())?;
        let mut change =
            Change::of(&table).operation(altered.operation).ndjson("the change", ndjson);
        if altered.checks_rows {
            // Whoever adds rows meanwhile did not check them.
            change = change.read_whole_table();
        }
        db.changes().change(change).await.map(Some)
    }
}

impl IntoFuture for AlterTable {
    type Output = Result<Table>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Commits the changes, and opens the table as it is then.
    ///
    /// # Errors
    /// Nothing is committed with any of them but `commit_unknown`.
    ///
    /// - `conflict`: others changed metadata or protocol since the version that was opened.
    /// - `table_frozen`: somebody has frozen the table.
    /// - `invalid_input`: a change that does not fit the table, or a constraint that does not hold for its rows; the
    ///   message names the column, property or constraint.
    /// - `unsupported`: a property or a table whose feature this writer does not have.
    /// - `commit_unknown`: the answer was lost. Opening the table anew tells.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let table = self.table.clone();
            match self.commit().await? {
                Some(report) => table.at_commit(&report).await,
                None => Ok(table),
            }
        })
    }
}

/// The commit: its own `commitInfo`, so that the parameters are in the history, and what changes.
fn lines(table: &Table, altered: Altered) -> Result<String> {
    let info = json!({ "commitInfo": {
        "timestamp": table.now().0,
        "operation": altered.operation,
        "operationParameters": Value::Object(altered.parameters),
        "readVersion": table.version().get(),
        "isBlindAppend": false,
        "engineInfo": ENGINE_INFO,
    }});
    let mut lines = format!("{info}\n");
    if let Some(protocol) = altered.protocol {
        lines += &Action::Protocol(protocol).to_line()?;
        lines.push('\n');
    }
    lines += &Action::Metadata(altered.metadata).to_line()?;
    lines.push('\n');
    Ok(lines)
}

/// An expression that nobody here can read, or of a column that is not there, would end every write of others.
fn check_constraints(table: &Table, changes: &[Alteration]) -> Result<()> {
    for change in changes {
        let Alteration::AddConstraint { name, expression } = change else { continue };
        let checked = parse_filter(expression)
            .and_then(|predicate| Pruner::new(table.metadata(), &predicate).map(|_| ()));
        checked.map_err(|error| {
            CatalogError::invalid(format!("constraint '{name}' ({expression}): {error}"))
        })?;
    }
    Ok(())
}

/// The parts of a column's path.
fn path(text: &str) -> Result<Vec<String>> {
    let (parts, rest) = leading_path(text)?;
    if rest.trim().is_empty() {
        return Ok(parts);
    }
    Err(CatalogError::invalid(format!(
        "column '{text}': names that hold other characters than letters, digits and '_' go in backticks"
    )))
}

/// A column's path at the beginning of a text, and what is behind it.
fn leading_path(text: &str) -> Result<(Vec<String>, &str)> {
    let bad = |what: &str| CatalogError::invalid(format!("column '{text}': {what}"));
    let mut rest = text.trim_start();
    let mut parts = Vec::new();
    loop {
        let quote = rest.chars().next().filter(|c| matches!(c, '`' | '"'));
        let (part, behind) = if let Some(quote) = quote {
            quoted(&rest[1..], quote).ok_or_else(|| bad("a quote is not closed"))?
        } else {
            let end = rest
                .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '$')))
                .unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        if part.is_empty() {
            return Err(bad("a part of its path is empty"));
        }
        parts.push(part);
        match behind.strip_prefix('.') {
            Some(more) => rest = more,
            None => return Ok((parts, behind)),
        }
    }
}

/// A quoted name, and what is behind it; a doubled quote stands for itself.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            name.push(quote);
        } else {
            return Some((name, &text[at + c.len_utf8()..]));
        }
    }
    None
}

/// `addr.zip int comment '…'`.
fn new_column(text: &str) -> Result<Alteration> {
    let (mut parent, rest) = leading_path(text)?;
    let Some(name) = parent.pop() else {
        return Err(CatalogError::invalid("a column without a name"));
    };
    let one = format!("`{}` {rest}", name.replace('`', "``"));
    let parsed = StructType::from_text(&one)
        .map_err(|error| CatalogError::invalid(format!("column '{text}': {error}")))?;
    let mut fields = parsed.fields.into_iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(CatalogError::invalid(format!("column '{text}': name one column at a time")));
    };
    if !field.nullable {
        return Err(CatalogError::invalid(format!(
            "column '{text}': a new column is null in all rows that there are, so that it cannot be \
             'not null'"
        )));
    }
    let comment = field.metadata_text("comment").map(str::to_owned);
    Ok(Alteration::AddColumn { parent, name: field.name, data_type: field.data_type, comment })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_dotted_and_quoted() {
        for (text, parts) in [
            ("a", vec!["a"]),
            ("addr.zip", vec!["addr", "zip"]),
            ("`a.b`.c", vec!["a.b", "c"]),
            ("\"a b\".`c``d`", vec!["a b", "c`d"]),
            ("tags.element.x", vec!["tags", "element", "x"]),
        ] {
            assert_eq!(path(text).unwrap(), parts, "{text}");
        }
        for text in ["", "a.", ".a", "a b", "`a", "a..b"] {
            assert!(path(text).is_err(), "{text}");
        }
        let added = new_column("addr.zip int comment 'post'").unwrap();
        let Alteration::AddColumn { parent, name, data_type, comment } = added else { panic!() };
        assert_eq!((parent, name.as_str()), (vec!["addr".to_owned()], "zip"));
        assert_eq!((data_type.to_string().as_str(), comment.as_deref()), ("integer", Some("post")));
        for text in ["a int not null", "a int, b int", "a", "a nothing_known"] {
            assert!(new_column(text).is_err(), "{text}");
        }
    }
}
