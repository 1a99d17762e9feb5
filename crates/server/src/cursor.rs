//! Where the next page of a list starts, as clients hand it back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deltalakedb::{TableId, TableName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::problem::{Answer, Failed};

/// Most items of a page, and how many it has if nothing is said.
pub(crate) const MOST: usize = 1_000;
/// Items of a page if nothing is said.
pub(crate) const USUAL: usize = 100;

/// The size of a page.
pub(crate) fn size(limit: Option<u32>) -> Answer<usize> {
    let Some(limit) = limit else { return Ok(USUAL) };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if (1..=MOST).contains(&limit) {
        return Ok(limit);
    }
    Err(Failed::invalid(format!("limit is {limit}: a page has 1 to {MOST} items")))
}

/// How many items of a list that is streamed are wanted at most.
pub(crate) fn most(limit: Option<i64>) -> Answer<Option<usize>> {
    let read = limit.map(|limit| {
        usize::try_from(limit).map_err(|_| Failed::invalid(format!("limit is {limit}, below 0")))
    });
    read.transpose()
}

/// After this table.
#[derive(Serialize, Deserialize)]
pub(crate) struct AfterTable(pub(crate) TableName, pub(crate) TableId);

/// As text.
pub(crate) fn write(cursor: &impl Serialize) -> Answer<String> {
    let json = serde_json::to_vec(cursor)
        .map_err(|error| Failed::invalid(format!("a cursor cannot be written: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// From text.
pub(crate) fn read<C: DeserializeOwned>(text: Option<&str>) -> Answer<Option<C>> {
    let Some(text) = text else { return Ok(None) };
    let read = URL_SAFE_NO_PAD.decode(text).ok();
    let read = read.and_then(|json| serde_json::from_slice(&json).ok());
    read.map(Some).ok_or_else(|| {
        Failed::invalid(
            "cursor is not one of this list: give `next_cursor` of the page before, or none",
        )
    })
}
