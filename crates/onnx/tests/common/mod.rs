//! What the import tests share.
#![allow(dead_code, clippy::unwrap_used)]

pub mod model;

use std::path::PathBuf;

use syncbn_onnx::{ImportErrors, ImportOptions, Imported, import};

/// A folder of the repository's fixtures.
pub fn fixtures(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(folder)
}

/// The `index.json` of a folder of fixtures.
pub fn index(folder: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(fixtures(folder).join("index.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Imports a fixture with default options.
pub fn import_fixture(folder: &str, file: &str) -> Result<Imported, ImportErrors> {
    import(&fixtures(folder).join(file), &ImportOptions::default())
}
