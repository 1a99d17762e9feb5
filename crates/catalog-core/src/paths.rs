//! Where the path of an action leads: which object it means, whatever way it is spelt.
//!
//! A path is a URI or a relative reference, resolved against the table's root (protocol section "Add
//! File and Remove File"), and percent-decoded once. Engines write the same file as `a.parquet`,
//! `./a.parquet`, `file:/t/a.parquet` or `s3a://bucket/t/a.parquet`, so nothing that compares files may
//! compare the text. [`TableRoot::resolve`] follows RFC 3986 (sections 5.2 and 6.2), and Hadoop's `Path`
//! where that goes beyond: doubled slashes are one, `s3a` is `s3`, `wasbs` is `abfss`.
//!
//! Not all engines read a text alike, and some have written names that were not encoded. What a text may
//! mean besides is in [`Resolved::also`]: who deletes keeps all of them, who reads takes the first.

mod volume;

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

use crate::action::DeletionVector;
use crate::error::{CatalogError, Result};
use volume::Volume;

/// What a relative URI cannot hold as it is. A colon would make a scheme of what stands before it.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b':')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A key of an object store as a relative URI: what [`TableRoot::resolve`] takes back to the key.
#[must_use]
pub fn encode(key: &str) -> String {
    utf8_percent_encode(key, ENCODED).to_string()
}

/// What a path within one table is told from others by: its key below the root, if it is a relative path
/// that stays there; else itself. Two spellings of one file have one.
#[must_use]
pub fn relative_key(path: &str) -> Cow<'_, str> {
    if is_plain(path) || path.starts_with('/') || split_scheme(path).is_some() {
        return path.into();
    }
    // Whether it comes back from above the root depends on the root's name.
    let climbs = percent_decode_str(path).decode_utf8_lossy().split('/').any(|s| s == "..");
    let nowhere = TableRoot { volume: Volume::Local, key: Vec::new() };
    match nowhere.read(path, STANDARD) {
        Ok((_, key)) if !climbs && !key.is_empty() => key.join("/").into(),
        _ => path.into(),
    }
}

/// The root of a table, against which the paths of its actions are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRoot {
    volume: Volume,
    /// Decoded segments of the root in its volume.
    key: Vec<String>,
}

/// An object: which one a path means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Below the root: its key relative to the root, decoded, as object stores name it.
    Inside(String),
    /// Anywhere else.
    Outside(Outside),
}

/// An object that does not lie below the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outside {
    /// Its canonical URL, without credentials: the same for each spelling.
    pub url: String,
    /// Whether it is in the bucket, container or file system that the root is in.
    pub same_volume: bool,
    /// Its key there, decoded.
    pub key: String,
}

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What it means by the protocol.
    pub place: Place,
    /// What other readers or careless writers may mean by it, without the first. For most paths there
    /// is nothing.
    pub also: Vec<Place>,
}

impl Resolved {
    /// Everything that it may mean, the protocol's meaning first.
    pub fn all(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.place).chain(&self.also)
    }

    /// Keys below the root that it may mean.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.all().filter_map(|place| match place {
            Place::Inside(key) => Some(key.as_str()),
            Place::Outside(_) => None,
        })
    }
}

/// One way to read a text.
#[derive(Clone, Copy)]
struct Reading {
    /// How often percent-encoding is taken off.
    decode: u8,
    /// Whether a `?` begins a query, and a `#` a fragment, which are no part of the name.
    query: bool,
}

/// The protocol's: that of RFC 3986.
const STANDARD: Reading = Reading { decode: 1, query: true };

impl TableRoot {
    /// The root at a location, an absolute URL.
    ///
    /// # Errors
    /// `InvalidInput` for what is no such URL.
    pub fn new(location: &str) -> Result<TableRoot> {
        // Relative to nothing, which is never looked at: the location is absolute.
        let nowhere = TableRoot { volume: Volume::Local, key: Vec::new() };
        if split_scheme(location).is_none() {
            return Err(unplaced(location, "a table's location is an absolute URL"));
        }
        let (volume, key) = nowhere.read(location, STANDARD)?;
        Ok(TableRoot { volume, key })
    }

    /// The same with the name of the Azure account, where the location does not say it
    /// (`az://container/…`).
    #[must_use]
    pub fn with_account(mut self, name: &str) -> TableRoot {
        if let Volume::Azure { account: account @ None, .. } = &mut self.volume {
            *account = Some(name.to_ascii_lowercase());
        }
        self
    }

    /// What the path of an `add`, `remove` or `cdc` action, or of a deletion vector, means.
    ///
    /// # Errors
    /// `InvalidInput` naming the path, where nobody can tell: other machines' files, mount points, names
    /// that are not UTF-8, schemes of file systems that may be this one.
    pub fn resolve(&self, path: &str) -> Result<Resolved> {
        if is_plain(path) {
            return Ok(Resolved { place: Place::Inside(path.to_owned()), also: Vec::new() });
        }
        let (volume, key) = self.read(path, STANDARD)?;
        if volume == self.volume && self.key.starts_with(&key) {
            return Err(unplaced(
                path,
                "it is a folder, not a file: the table's root or one above",
            ));
        }
        let place = self.place(&volume, &key);
        let mut also = Vec::new();
        let mut add = |other: Place| {
            if other != place && !also.contains(&other) {
                also.push(other);
            }
        };
        let shadow = |volume: &Volume, key: &[String]| {
            // A gateway, an alias, an account that is not told: the same key may be the same object.
            (*volume != self.volume).then(|| self.below(key)).flatten().map(Place::Inside)
        };
        shadow(&volume, &key).into_iter().for_each(&mut add);
        for (text, reading) in other_readings(path) {
            let Ok((volume, key)) = self.read(&text, reading) else { continue };
            if key.is_empty() {
                continue;
            }
            add(self.place(&volume, &key));
            shadow(&volume, &key).into_iter().for_each(&mut add);
        }
        Ok(Resolved { place, also })
    }

    /// What the path of a deletion vector means; none for one that is stored inline.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve); `InvalidInput` for a storage type that is not in the protocol, and a
    /// UUID that is none.
    pub fn resolve_vector(&self, vector: &DeletionVector) -> Result<Option<Resolved>> {
        let text = &vector.path_or_inline_dv;
        match vector.storage_type.as_str() {
            "i" => Ok(None),
            "p" => self.resolve(text).map(Some),
            "u" => match vector_file(text) {
                Some(file) => self.resolve(&file).map(Some),
                None => Err(unplaced(text, "the deletion vector's file has no UUID as its name")),
            },
            other => Err(unplaced(
                text,
                &format!("deletion vectors are stored as 'u', 'p' or 'i', not as '{other}'"),
            )),
        }
    }

    /// Where another root lies: its key below this one, empty if it is the same place, none if it lies
    /// elsewhere. Where it is not sure that two volumes are two, they count as one.
    #[must_use]
    pub fn holds(&self, other: &TableRoot) -> Option<String> {
        if !self.volume.may_be(&other.volume) {
            return None;
        }
        let rest = other.key.strip_prefix(self.key.as_slice())?;
        Some(rest.join("/"))
    }

    /// The canonical URL of the root, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        self.volume.url(&self.key.join("/")).trim_end_matches('/').to_owned()
    }

    /// The canonical URL of a place.
    #[must_use]
    pub fn url_of(&self, place: &Place) -> String {
        match place {
            Place::Inside(key) => {
                let mut whole = self.key.join("/");
                if !whole.is_empty() {
                    whole.push('/');
                }
                whole.push_str(key);
                self.volume.url(&whole)
            }
            Place::Outside(outside) => outside.url.clone(),
        }
    }

    /// Whether a path, relative to some other root, can only lead below that root.
    #[must_use]
    pub fn stays_inside(path: &str) -> bool {
        is_plain(path)
    }

    fn place(&self, volume: &Volume, key: &[String]) -> Place {
        let same_volume = *volume == self.volume;
        if let Some(key) = self.below(key).filter(|_| same_volume) {
            return Place::Inside(key);
        }
        let key = key.join("/");
        Place::Outside(Outside { url: volume.url(&key), same_volume, key })
    }

    /// The rest of a key behind the root's.
    fn below(&self, key: &[String]) -> Option<String> {
        let rest = key.strip_prefix(self.key.as_slice()).filter(|rest| !rest.is_empty())?;
        Some(rest.join("/"))
    }

    /// Volume and key of a text, read in one way.
    fn read(&self, text: &str, reading: Reading) -> Result<(Volume, Vec<String>)> {
        if text.is_empty() {
            return Err(unplaced(text, "it is empty"));
        }
        let name = if reading.query {
            text.find(['?', '#']).and_then(|at| text.get(..at)).unwrap_or(text)
        } else {
            text
        };
        let not_utf8 = || unplaced(text, "decoded, it is not UTF-8 text");
        let mut key = Vec::new();
        let Some((scheme, rest)) = split_scheme(name) else {
            let relative = !name.starts_with('/');
            if relative {
                key.clone_from(&self.key);
            }
            if let Some(network) = name.strip_prefix("//") {
                let (authority, path) = split_authority(network);
                let volume = self.volume.at(authority).map_err(|why| unplaced(text, &why))?;
                walk(&mut key, path, reading.decode).ok_or_else(not_utf8)?;
                return Ok((volume, key));
            }
            walk(&mut key, name, reading.decode).ok_or_else(not_utf8)?;
            return Ok((self.volume.clone(), key));
        };
        // `C:/…`, of Windows.
        if scheme.len() == 1 {
            if self.volume != Volume::Local {
                return Err(unplaced(text, "it is a path of a Windows machine"));
            }
            walk(&mut key, name, reading.decode).ok_or_else(not_utf8)?;
            return Ok((Volume::Local, key));
        }
        let (authority, path) = match rest.strip_prefix("//") {
            Some(network) => split_authority(network),
            None => ("", rest),
        };
        walk(&mut key, path, reading.decode).ok_or_else(not_utf8)?;
        let volume = Volume::of(&scheme.to_ascii_lowercase(), authority, &mut key, &self.volume)
            .map_err(|why| unplaced(text, &why))?;
        Ok((volume, key))
    }
}

/// Ways in which the text of a path is read besides the protocol's.
fn other_readings(path: &str) -> Vec<(Cow<'_, str>, Reading)> {
    let literal = Reading { decode: 0, query: false };
    let mut readings: Vec<(Cow<'_, str>, Reading)> = Vec::new();
    if split_scheme(path).is_some_and(|(scheme, _)| scheme.len() == 1) {
        // Not a drive, but a folder of that name.
        readings.push((format!("./{path}").into(), literal));
        readings.push((format!("./{path}").into(), STANDARD));
    }
    let has_query = path.contains(['?', '#']);
    if has_query {
        // Nobody meant a query: the name was not encoded.
        readings.push((path.into(), Reading { query: false, ..STANDARD }));
    }
    if path.contains('%') || has_query {
        readings.push((path.into(), literal));
    }
    if path.contains('%') {
        readings.push((path.into(), Reading { decode: 2, ..STANDARD }));
        readings.push((path.into(), Reading { decode: 2, query: false }));
        // Dots and slashes that were encoded, of an address that was encoded as a whole.
        if let Ok(decoded) = percent_decode_str(path).decode_utf8() {
            let decoded = decoded.into_owned();
            readings.push((decoded.clone().into(), literal));
            readings.push((decoded.into(), STANDARD));
        }
    }
    if path.contains('\\') {
        // As browsers' URLs have it, and Windows.
        readings.push((path.replace('\\', "/").into(), STANDARD));
        readings.push((path.replace('\\', "/").into(), literal));
    }
    let is_odd = |c: char| c.is_ascii_control() || c == ' ';
    let cleaned: String =
        path.trim_matches(is_odd).chars().filter(|c| !"\t\n\r".contains(*c)).collect();
    if cleaned != path && !cleaned.is_empty() {
        readings.push((cleaned.into(), STANDARD));
    }
    if path.starts_with("//") {
        readings.push((format!("/{}", path.trim_start_matches('/')).into(), STANDARD));
    }
    readings
}

/// Whether a path is a relative name that every reader takes for the same file.
fn is_plain(path: &str) -> bool {
    let is_plain_byte =
        |b: u8| b.is_ascii_alphanumeric() || b >= 0x80 || b"-._=+,~!$&'()*@;/".contains(&b);
    path.bytes().all(is_plain_byte)
        && path.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

/// Scheme and rest of an absolute URI. A colon that no slash follows is part of a name.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (is_scheme && rest.starts_with('/')).then_some((scheme, rest))
}

fn split_authority(text: &str) -> (&str, &str) {
    text.find('/').map_or((text, ""), |at| text.split_at(at))
}

/// Goes on from a key by the segments of a path, `.` and `..` among them. None if it is not UTF-8.
fn walk(key: &mut Vec<String>, path: &str, decode: u8) -> Option<()> {
    for segment in path.split('/') {
        let mut decoded = Cow::Borrowed(segment);
        for _ in 0..decode {
            if !decoded.contains('%') {
                break;
            }
            decoded = Cow::Owned(percent_decode_str(&decoded).decode_utf8().ok()?.into_owned());
        }
        // An encoded slash is one once it is decoded: keys of object stores know no other.
        for name in decoded.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(key.pop()),
                name => key.push(name.to_owned()),
            }
        }
    }
    Some(())
}

/// The file of a deletion vector that is relative to the table: `<prefix>/deletion_vector_<uuid>.bin`
/// (protocol section "Derived Fields").
fn vector_file(encoded: &str) -> Option<String> {
    /// Characters of a UUID in Z85.
    const UUID_CHARS: usize = 20;
    let at = encoded.len().checked_sub(UUID_CHARS)?;
    let (prefix, encoded) = (encoded.get(..at)?, encoded.get(at..)?);
    let uuid = Uuid::from_slice(&z85::decode(encoded).ok()?).ok()?;
    let file = format!("deletion_vector_{}.bin", uuid.as_hyphenated());
    Some(if prefix.is_empty() { file } else { format!("{prefix}/{file}") })
}

fn unplaced(path: &str, why: &str) -> CatalogError {
    CatalogError::invalid(format!("path '{}' cannot be placed: {why}", shown(path)))
}

/// A path for an error, without credentials.
fn shown(path: &str) -> Cow<'_, str> {
    let Some((scheme, network)) = path.split_once("://") else { return path.into() };
    let (authority, rest) = split_authority(network);
    let host = match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') => format!("…@{host}"),
        _ => authority.to_owned(),
    };
    // A signature may stand there.
    let rest = rest.split_once('?').map_or(rest.to_owned(), |(name, _)| format!("{name}?…"));
    format!("{scheme}://{host}{rest}").into()
}

#[cfg(test)]
mod tests;
