//! All names that the methods of the contract use, for files that implement its parts:
//! `use deltalakedb_catalog_core::support::prelude::*;`.

pub use async_trait::async_trait;
pub use bytes::Bytes;

pub use crate::action::{Add, DomainMetadata, FileKey, Metadata, Protocol, Remove, Txn};
pub use crate::audit::{
    Act, Actor, AuditCursor, AuditEntry, AuditFilter, AuditOrder, AuditRow, action as audit_action,
};
pub use crate::backend::*;
pub use crate::commit::{CommitBody, CommitIndex, Packed};
pub use crate::error::{CatalogError, ReadResult, Result, WriteResult, WriteState};
pub use crate::ids::{At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version};
pub use crate::model::*;
pub use crate::registry::{Expected, Record, RecordKey, RecordWrite, RegistryOutcome};
