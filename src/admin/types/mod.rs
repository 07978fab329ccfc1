//! What the admin API takes and gives. The OpenAPI document is generated from these types, so their comments are its
//! descriptions.

pub mod alerts;
pub mod catalog;
pub mod configuration;
pub mod health;
pub mod identity;
pub mod keys;
pub mod people;
pub mod records;
pub mod standing;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// One page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// The entries.
    pub data: Vec<T>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

/// A list that is always whole.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    /// The entries.
    pub data: Vec<T>,
}

/// Which page of a list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct PageQuery {
    /// Entries a page. Default and maximum are settings (`admin.page_size_default`, `admin.page_size_max`).
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[schemars(length(max = 512))]
    pub cursor: Option<String>,
}

/// Labels of the caller's own: at most 64 of them, names of at most 64 bytes, values of at most 512.
pub type Metadata = BTreeMap<String, String>;

/// Distinguishes a field that is left out (`None`) from one that is null (`Some(None)`).
///
/// # Errors
/// Those of the value.
pub fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}
