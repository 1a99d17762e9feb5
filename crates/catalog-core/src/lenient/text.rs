//! Lines of a log, of which one that is not the protocol's is looked at once more.

use std::fmt::Write;

use std::borrow::Cow;

use super::{Found, MAX_LINES, Oddities, Oddity, Wrong, normal, read};
use crate::action::Action;
use crate::error::{CatalogError, Result};
use crate::fields::Fields;

/// A line that [`Action::parse`] refuses, and as many of those after it as belong to it.
pub(crate) struct Lenient {
    number: usize,
    lines: usize,
    refused: String,
}

impl Lenient {
    /// `refused`: why it is none of the protocol.
    pub(crate) fn new(origin: &str, number: usize, refused: &CatalogError) -> Lenient {
        Lenient { number, lines: 1, refused: format!("{origin}, line {number}: {refused}") }
    }

    /// What the lines so far say; none if they break off and the next one may belong to them.
    ///
    /// # Errors
    /// `InvalidInput` with origin and line.
    pub(crate) fn read(
        &mut self,
        origin: &str,
        text: &str,
        odd: &mut Vec<Oddity>,
    ) -> Result<Option<Vec<Found>>> {
        odd.clear();
        let text = match text.strip_prefix('\u{feff}').filter(|_| self.number == 1) {
            Some(rest) => {
                odd.push(Oddity::ByteOrderMark);
                rest
            }
            None => text,
        };
        let mut inner = Vec::new();
        match read(text, &mut inner) {
            Ok(found) => {
                odd.append(&mut inner);
                if self.lines > 1 {
                    odd.retain(|oddity| *oddity != Oddity::SeveralObjects);
                    odd.push(Oddity::SeveralLines);
                }
                Ok(Some(found))
            }
            Err(Wrong::Incomplete) if self.lines < MAX_LINES => {
                self.lines += 1;
                Ok(None)
            }
            Err(Wrong::Error(error)) if self.lines == 1 => {
                let number = self.number;
                Err(CatalogError::invalid(format!("{origin}, line {number}: {error}")))
            }
            // What is wrong with the first of them tells more.
            Err(_) => Err(self.broken_off()),
        }
    }

    /// There is no further line.
    pub(crate) fn broken_off(&self) -> CatalogError {
        CatalogError::invalid(self.refused.clone())
    }
}

/// All actions of a text.
///
/// # Errors
/// `InvalidInput` with origin and line.
pub(crate) fn each_action<'t>(
    origin: &str,
    text: &'t str,
    odd: &mut Oddities,
    mut take: impl FnMut(Line<'t>),
) -> Result<()> {
    let mut at = 0;
    let mut number = 0;
    while at < text.len() {
        number += 1;
        let (line, mut end) = line_at(text, at);
        if line.trim().is_empty() {
            at = end;
            continue;
        }
        match Action::parse(line) {
            Ok(Action::Metadata(metadata)) => {
                let mut metadata = metadata;
                let mut noted = Vec::new();
                super::complete(&mut metadata, &mut noted);
                let is_odd = !noted.is_empty();
                odd.note_all(&mut noted, number);
                let action = Action::Metadata(metadata);
                take(Line {
                    text: line,
                    start: at,
                    end,
                    found: Found { action, info: None },
                    is_odd,
                });
            }
            Ok(action) => {
                take(Line {
                    text: line,
                    start: at,
                    end,
                    found: Found { action, info: None },
                    is_odd: false,
                });
            }
            Err(error) => {
                let mut lenient = Lenient::new(origin, number, &error);
                let mut noted = Vec::new();
                let mut whole = line;
                let mut more = 0;
                let found = loop {
                    if let Some(found) = lenient.read(origin, whole, &mut noted)? {
                        break found;
                    }
                    if end >= text.len() {
                        return Err(lenient.broken_off());
                    }
                    (_, end) = line_at(text, end);
                    more += 1;
                    whole = text.get(at..end).unwrap_or_default();
                };
                odd.note_all(&mut noted, number);
                number += more;
                for found in found {
                    take(Line { text: whole, start: at, end, found, is_odd: true });
                }
            }
        }
        at = end;
    }
    Ok(())
}

/// An action, and the text that it stands in.
pub(crate) struct Line<'t> {
    pub(crate) text: &'t str,
    /// Where it begins, and where the next line does.
    start: usize,
    end: usize,
    pub(crate) found: Found,
    /// Whether it is not written as the protocol says.
    is_odd: bool,
}

/// The line that begins at a position, without its end, and where the next one begins.
fn line_at(text: &str, at: usize) -> (&str, usize) {
    let rest = text.get(at..).unwrap_or_default();
    match rest.split_once('\n') {
        Some((line, _)) => (line.strip_suffix('\r').unwrap_or(line), at + line.len() + 1),
        None => (rest.strip_suffix('\r').unwrap_or(rest), text.len()),
    }
}

/// A text whose strings hold control characters, with these escaped. Borrowed if there are none.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut in_text, mut after_backslash, mut kept) = (false, false, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !after_backslash => in_text = !in_text,
            0..0x20 if in_text => {
                out.push_str(text.get(kept..at).unwrap_or_default());
                // Into text, it cannot fail.
                let _ = write!(out, "\\u{byte:04x}");
                kept = at + 1;
            }
            _ => {}
        }
        after_backslash = byte == b'\\' && !after_backslash;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    Cow::Owned(out)
}

pub(super) fn normal_lines<'b>(origin: &str, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>> {
    let text = text_of(origin, bytes)?;
    let mut out: Option<Vec<u8>> = None;
    let (mut done, mut failed) = (0, None);
    each_action(origin, text, &mut Oddities::default(), |line| {
        if !line.is_odd && !is_incomplete(line.text, &line.found.action) {
            return;
        }
        let out = out.get_or_insert_with(|| Vec::with_capacity(bytes.len()));
        // What is before it keeps its bytes; nothing is, of a second action on the same line.
        out.extend_from_slice(bytes.get(done..line.start).unwrap_or_default());
        done = line.end;
        match normal_line(&line.found) {
            Ok(line) => out.extend_from_slice(line.as_bytes()),
            Err(error) => failed = Some(error),
        }
    })?;
    match (failed, out) {
        (Some(error), _) => Err(error),
        (None, None) => Ok(Cow::Borrowed(bytes)),
        (None, Some(mut out)) => {
            out.extend_from_slice(bytes.get(done..).unwrap_or_default());
            Ok(Cow::Owned(out))
        }
    }
}

/// An action as a line of its own; nothing for one that says nothing.
fn normal_line(found: &Found) -> Result<String> {
    Ok(match (&found.action, &found.info) {
        (Action::Unknown(_) | Action::Empty, _) => String::new(),
        (Action::CommitInfo(_), Some(info)) => format!("{{\"commitInfo\":{info}}}\n"),
        (action, _) => action.to_line()? + "\n",
    })
}

/// Whether a line of the protocol lacks what strict readers insist on, though a default is clear.
fn is_incomplete(line: &str, action: &Action) -> bool {
    let (name, hints): (&str, &[&str]) = match action {
        Action::Add(_) => ("add", &["\"dataChange\"", "\"partitionValues\""]),
        Action::Remove(_) => ("remove", &["\"dataChange\""]),
        Action::Metadata(_) => ("metaData", &[]),
        _ => return false,
    };
    // Nearly all have all of them.
    if !hints.is_empty() && hints.iter().all(|hint| line.contains(hint)) {
        return false;
    }
    let object = serde_json::from_str::<Fields>(line);
    let object = object.ok().and_then(|o| serde_json::from_str(o.get(name)?.get()).ok());
    object.is_some_and(|object| normal::is_incomplete(name, &object))
}

/// Bytes as text.
pub fn text_of<'a>(origin: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|e| {
        let before = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        let line = before.matches('\n').count() + 1;
        CatalogError::invalid(format!("{origin}, line {line}: not UTF-8 text"))
    })
}
