//! Logs of other engines, as established readers read them.
//!
//! [`Action::parse`] takes what the protocol says. Logs in use hold more: numbers as `696.0` or in
//! quotes, numbers where text belongs, a key beside the action, an action over several lines. The
//! Delta kernel (DuckDB, `deltalake`, Polars) or Spark read these, and so must whoever takes such a
//! log over. The bytes stay as they are. What is read of a line that is not the protocol's is put into
//! the protocol's form first (`normal`) and noted ([`Oddities`]); a line of the protocol never comes
//! here, so reading one costs what it did. Our own commits are not read like this: they are ours to
//! check.

mod normal;
mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;

use crate::action::{Action, CommitInfo, Metadata};
use crate::error::{CatalogError, Result};
use crate::fields::Fields;

pub use text::text_of;
pub(crate) use text::{Lenient, each_action};

/// Lines that one action may extend over.
const MAX_LINES: usize = 4096;

/// What a log says in another way than the protocol does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Oddity {
    /// The file begins with a byte order mark.
    ByteOrderMark,
    /// An action extends over several lines.
    SeveralLines,
    /// Several JSON objects stand on one line.
    SeveralObjects,
    /// One JSON object holds several actions.
    SeveralActions,
    /// A key stands beside the action that is none.
    UnknownKey,
    /// A control character stands in a text as it is.
    ControlCharacter,
    /// A field stands twice: the last one counts.
    Twice(String),
    /// A number is in quotes.
    QuotedNumber(String),
    /// An integer is written with a fraction or an exponent.
    FractionalNumber(String),
    /// A number has a fraction that means something, where the protocol has an integer.
    CutNumber(String),
    /// A number, true or false, where the protocol has text.
    NumberForText(String),
    /// A JSON object or list, where the protocol has it as text.
    JsonForText(String),
    /// A field that the protocol requires is missing or null.
    Missing(String),
    /// A column of a checkpoint has a type that has to be converted.
    ColumnType {
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Oddity::ByteOrderMark => f.write_str("a file begins with a byte order mark"),
            Oddity::SeveralLines => f.write_str("an action extends over several lines"),
            Oddity::SeveralObjects => f.write_str("several JSON objects stand on one line"),
            Oddity::SeveralActions => f.write_str(
                "one JSON object holds several actions: all of them count, as for the Delta kernel \
                 (Spark takes one)",
            ),
            Oddity::UnknownKey => {
                f.write_str("a key that is no action stands beside one: it is passed over")
            }
            Oddity::ControlCharacter => {
                f.write_str("a text holds a control character that is not escaped")
            }
            Oddity::Twice(at) => write!(f, "'{at}' stands twice: the last one counts"),
            Oddity::QuotedNumber(at) => write!(f, "'{at}' is a number in quotes"),
            Oddity::FractionalNumber(at) => {
                write!(f, "'{at}' is an integer written with a fraction or an exponent")
            }
            Oddity::CutNumber(at) => {
                write!(f, "'{at}' has a fraction where an integer belongs: it is cut off")
            }
            Oddity::NumberForText(at) => {
                write!(
                    f,
                    "'{at}' is a number, true or false where text belongs: it is taken as text"
                )
            }
            Oddity::JsonForText(at) => {
                write!(f, "'{at}' is JSON where text belongs: it is taken as its text")
            }
            Oddity::Missing(at) => match at.as_str() {
                "metaData.id" => {
                    write!(f, "'{at}' is missing: an id is derived from the action's text")
                }
                "metaData.schemaString" => {
                    write!(f, "'{at}' is missing: the table has no columns at that version")
                }
                _ => write!(f, "'{at}' is missing: the protocol requires it"),
            },
            Oddity::ColumnType { column, found } => {
                write!(f, "column '{column}' is {found}: it is converted")
            }
        }
    }
}

/// How often something was found, and where first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How often.
    pub count: u64,
    /// Line of the first one, from 1 on; 0 where there are no lines.
    pub line: usize,
}

/// What was found in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Oddities(BTreeMap<Oddity, Seen>);

impl Oddities {
    /// Notes one.
    pub fn note(&mut self, oddity: Oddity, line: usize) {
        self.0
            .entry(oddity)
            .and_modify(|seen| {
                seen.count = seen.count.saturating_add(1);
                seen.line = seen.line.min(line);
            })
            .or_insert(Seen { count: 1, line });
    }

    pub(crate) fn note_all(&mut self, oddities: &mut Vec<Oddity>, line: usize) {
        for oddity in oddities.drain(..) {
            self.note(oddity, line);
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was found, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&Oddity, &Seen)> {
        self.0.iter()
    }
}

/// An action, and for `commitInfo` the text of its object.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) action: Action,
    pub(crate) info: Option<String>,
}

/// Why a text is no actions.
#[derive(Debug)]
enum Wrong {
    /// It breaks off: more of it may stand on the next line.
    Incomplete,
    Error(CatalogError),
}

fn bad(what: impl fmt::Display) -> Wrong {
    Wrong::Error(CatalogError::invalid(format!("not a JSON object with one action: {what}")))
}

/// All actions of a text: mostly one line.
fn read(text: &str, odd: &mut Vec<Oddity>) -> Result<Vec<Found>, Wrong> {
    let mut found = Vec::new();
    let mut objects = 0;
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = match value {
            Ok(value) => value,
            Err(e) if e.is_eof() => return Err(Wrong::Incomplete),
            Err(e) => {
                return match text::escaped(text) {
                    Cow::Borrowed(_) => Err(bad(e)),
                    Cow::Owned(escaped) => {
                        odd.clear();
                        let found = read(&escaped, odd)?;
                        odd.push(Oddity::ControlCharacter);
                        Ok(found)
                    }
                };
            }
        };
        objects += 1;
        object(value, odd, &mut found)?;
    }
    if objects > 1 {
        odd.push(Oddity::SeveralObjects);
    }
    Ok(found)
}

/// The actions of one JSON object.
fn object(value: &RawValue, odd: &mut Vec<Oddity>, found: &mut Vec<Found>) -> Result<(), Wrong> {
    let Fields(entries) = serde_json::from_str(value.get()).map_err(bad)?;
    let mut actions: Vec<(&str, &str)> = Vec::new();
    let mut unknown = Vec::new();
    for (name, raw) in &entries {
        match raw.get() {
            "null" => {}
            raw if Action::is_known(name) => match actions.iter_mut().find(|(n, _)| n == name) {
                Some((_, earlier)) => {
                    odd.push(Oddity::Twice(name.clone()));
                    *earlier = raw;
                }
                None => actions.push((name, raw)),
            },
            _ => unknown.push(name),
        }
    }
    if actions.len() > 1 {
        odd.push(Oddity::SeveralActions);
    }
    if unknown.len() + usize::from(!actions.is_empty()) > 1 {
        odd.push(Oddity::UnknownKey);
    }
    if actions.is_empty() {
        let action = unknown.first().map_or(Action::Empty, |name| Action::Unknown((*name).clone()));
        found.push(Found { action, info: None });
    }
    for (name, raw) in actions {
        let info = (name == "commitInfo").then(|| raw.to_owned());
        found.push(Found { action: action(name, raw, odd).map_err(Wrong::Error)?, info });
    }
    Ok(())
}

/// An action from the text of its object.
fn action(name: &str, raw: &str, odd: &mut Vec<Oddity>) -> Result<Action> {
    let mut action = match Action::of(name, raw) {
        Ok(action) => action,
        Err(error) => match normal::action(name, raw, odd) {
            Some(text) => Action::of(name, &text).map_err(without_place)?,
            None => return Err(error),
        },
    };
    if let Action::Metadata(metadata) = &mut action {
        complete(metadata, odd);
    }
    Ok(action)
}

/// Where something stands in a text that was made meanwhile helps nobody.
fn without_place(error: CatalogError) -> CatalogError {
    match error {
        CatalogError::InvalidInput(text) => {
            let end = text.rfind(" at line ").unwrap_or(text.len());
            CatalogError::invalid(text.get(..end).unwrap_or(&text))
        }
        other => other,
    }
}

/// Gives a metadata that was read what readers of the protocol need and some writers leave out.
pub fn complete(metadata: &mut Metadata, odd: &mut Vec<Oddity>) {
    if metadata.schema_string.trim().is_empty() {
        odd.push(Oddity::Missing("metaData.schemaString".to_owned()));
        normal::NO_COLUMNS.clone_into(&mut metadata.schema_string);
    } else if let Some(schema) = normal::schema(&metadata.schema_string, odd) {
        metadata.schema_string = schema;
    }
}

/// The id of a table whose metadata has none: the same for the same text.
#[must_use]
pub fn derived_id(text: &str) -> String {
    normal::derived_id(text)
}

/// What the catalog looks at of a `commitInfo`, of which only this need have the protocol's form.
pub(crate) fn commit_info(raw: &str) -> CommitInfo {
    serde_json::from_str(raw)
        .ok()
        .or_else(|| serde_json::from_str(&normal::action("commitInfo", raw, &mut Vec::new())?).ok())
        .unwrap_or_default()
}

/// The lines of a commit in the protocol's form, for readers that know no other. Lines that have it
/// keep their bytes.
///
/// # Errors
/// `InvalidInput` with origin and line for what cannot be read.
pub fn normal_lines<'b>(origin: &str, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>> {
    text::normal_lines(origin, bytes)
}

#[cfg(test)]
#[path = "lenient_tests.rs"]
mod tests;
