//! The registry on both sides.

use deltalakedb_catalog_core::backend::RegistryBackend;
use deltalakedb_catalog_core::error::{CatalogError, PlainResult};
use deltalakedb_catalog_core::registry::{Expected, RecordKey, RecordWrite};

use super::ops::{Hope, Op, Pick, Written};
use super::world::{Step, World};

/// Few enough to meet, and easy to take for each other.
const KEYS: [(&str, &str); 8] = [
    ("share", "a"),
    ("share", "a "),
    ("share", "A"),
    ("share-", "a"),
    ("role", "é"),
    ("role", "e\u{301}"),
    ("role", "😀"),
    ("share", "\u{ffff}"),
];

fn key(pick: Pick) -> RecordKey {
    let (kind, name) = KEYS[usize::from(pick) % KEYS.len()];
    RecordKey::new(kind, name).expect("a valid key")
}

impl World<'_> {
    /// Whether the backend keeps a registry.
    async fn keeps_registry(&self) -> bool {
        let revision = self.db.registry_revision().await.plain();
        !matches!(revision, Err(CatalogError::Unsupported(_)))
    }

    pub(super) async fn registry(&self, op: &Op) -> Step {
        if !self.keeps_registry().await {
            return Ok(());
        }
        let now = self.now();
        match op {
            Op::RegistryWrite(parts) => {
                let mut writes = Vec::new();
                for part in parts {
                    writes.push(self.record_write(part).await?);
                }
                self.both(async |db| db.registry_write(&writes, now, None).await).await?;
            }
            Op::RegistryRead { key: pick, limit } => {
                let (key, limit) = (key(*pick), usize::from(*limit));
                self.both(async |db| db.registry_get(&key).await).await?;
                let after = Some(key.name());
                self.both(async |db| db.registry_list(key.kind(), after, limit).await).await?;
                self.both(async |db| db.registry_all(Some(&key), limit).await).await?;
            }
            other => return Err(format!("{other:?} is not about the registry")),
        }
        self.both(async |db| db.registry_revision().await).await?;
        Ok(())
    }

    async fn record_write(&self, part: &Written) -> Step<RecordWrite> {
        let key = key(part.key);
        let current = self.reference.registry_get(&key).await.map_err(|e| e.to_string())?;
        let current = current.map(|record| record.revision);
        let expected = match part.expected {
            Hope::Any => Expected::Any,
            Hope::Right => current.map_or(Expected::Absent, Expected::Revision),
            Hope::Absent => Expected::Absent,
            Hope::Older => Expected::Revision(current.unwrap_or(1) - 1),
        };
        let body = part.body.map(|n| format!("{{\"n\": {n}}}"));
        Ok(RecordWrite { key, expected, body })
    }

    /// Compares all records.
    pub(super) async fn compare_registry(&self) -> Step {
        if self.keeps_registry().await {
            self.both(async |db| db.registry_all(None, 1_000).await).await?;
            self.both(async |db| db.registry_list("share", None, 1_000).await).await?;
            self.both(async |db| db.registry_revision().await).await?;
        }
        Ok(())
    }
}
