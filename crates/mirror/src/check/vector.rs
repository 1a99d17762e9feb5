//! Deletion vectors in files of their own (protocol section "Deletion Vectors", "Deletion Vector File Storage
//! Format"): at the vector's offset stand its size (4 bytes, big-endian), its data, and the CRC-32 of the data (4
//! bytes, big-endian).

use deltalakedb_catalog_core::action::DeletionVector;
use object_store::{GetOptions, GetRange, ObjectStore as _};

use super::{CheckFindingKind, Look, Looked, Where, is_absent};
use crate::store::redact;

/// Bytes of the size before the data, and of the checksum behind it.
const FRAME: u64 = 4;
/// Largest vector that is read to compare its checksum, bytes.
const MAX_READ: u64 = 64 << 20;

impl Look<'_> {
    /// Looks at a deletion vector, unless it stands in the log itself.
    pub(super) async fn vector(&self, vector: &DeletionVector, looked: &mut Looked) {
        let resolved = match self.root.resolve_vector(vector) {
            Ok(Some(resolved)) => resolved,
            Ok(None) => return,
            Err(error) => {
                looked.not_comparable.push(format!("its deletion vector: {error}"));
                return;
            }
        };
        looked.vector = true;
        let path = match self.locate(&resolved.place) {
            Where::Here(path) => path,
            Where::Unknown(why) => {
                looked.not_comparable.push(format!("its deletion vector: {why}"));
                return;
            }
        };
        let shown = self.store.shown(&path);
        // Without an offset only the file's being there can be told.
        let place = vector.offset.and_then(|offset| {
            Some((u64::try_from(offset).ok()?, u64::try_from(vector.size_in_bytes).ok()?))
        });
        let range = match place {
            Some((offset, size)) if size <= MAX_READ => {
                Some(GetRange::Bounded(offset..offset + FRAME + size + FRAME))
            }
            _ => None,
        };
        let read = async {
            let head = range.is_none();
            let options = GetOptions { range, head, ..GetOptions::default() };
            let answer = self.store.store.get_opts(&path, options).await?;
            let length = answer.meta.size;
            let bytes = if head { None } else { Some(answer.bytes().await?) };
            Ok::<_, object_store::Error>((length, bytes))
        };
        let (length, bytes) = match self.in_time(read).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) if is_absent(&error) => {
                let detail = format!("there is no '{shown}'");
                looked.findings.push((CheckFindingKind::VectorMissing, detail));
                return;
            }
            Ok(Err(error)) => return self.unread(&path, &error, vector, looked).await,
            Err(why) => {
                looked.failures.push(format!("its deletion vector '{shown}': {why}"));
                return;
            }
        };
        let Some((offset, size)) = place else {
            looked.not_comparable.push(format!(
                "its deletion vector '{shown}' is there; the log does not say where in it"
            ));
            return;
        };
        let end = offset + FRAME + size + FRAME;
        if length < end {
            looked.findings.push((CheckFindingKind::VectorSize, short(&shown, length, end)));
            return;
        }
        match bytes {
            Some(bytes) => {
                if let Some((kind, what)) = wrong(&bytes, size) {
                    looked.findings.push((kind, format!("'{shown}', at byte {offset}: {what}")));
                }
            }
            None => looked.not_comparable.push(format!(
                "its deletion vector of {size} bytes is too large to compare the checksum"
            )),
        }
    }

    /// A range that the store did not give: the file may end before it.
    async fn unread(
        &self,
        path: &object_store::path::Path,
        error: &object_store::Error,
        vector: &DeletionVector,
        looked: &mut Looked,
    ) {
        let shown = self.store.shown(path);
        let end = i64::from(vector.offset.unwrap_or_default())
            + i64::from(vector.size_in_bytes)
            + 2 * i64::try_from(FRAME).unwrap_or_default();
        match self.head(path).await {
            Ok(Some(object)) if i64::try_from(object.size).is_ok_and(|size| size < end) => {
                let end = u64::try_from(end).unwrap_or_default();
                let detail = short(&shown, object.size, end);
                looked.findings.push((CheckFindingKind::VectorSize, detail));
            }
            _ => {
                let why = redact(&error.to_string());
                looked.failures.push(format!("its deletion vector '{shown}': {why}"));
            }
        }
    }
}

fn short(shown: &str, length: u64, end: u64) -> String {
    format!("'{shown}' has {length} bytes, the deletion vector ends at byte {end}")
}

/// What is wrong with a vector: its size, its data and its checksum.
fn wrong(bytes: &[u8], size: u64) -> Option<(CheckFindingKind, String)> {
    let word = |at: usize| -> Option<u32> {
        let part = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes(part.try_into().ok()?))
    };
    let length = usize::try_from(size).ok()?;
    let stored = word(0)?;
    if u64::from(stored) != size {
        let what = format!("the log says {size} bytes, the file {stored}");
        return Some((CheckFindingKind::VectorSize, what));
    }
    let data = bytes.get(4..4 + length)?;
    let (expected, found) = (word(4 + length)?, crc32fast::hash(data));
    (expected != found).then(|| {
        let what = format!("its checksum is {expected:08x}, that of its data {found:08x}");
        (CheckFindingKind::VectorChecksum, what)
    })
}
