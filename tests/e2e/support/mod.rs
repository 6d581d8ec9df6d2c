//! What the end-to-end tests share.

pub mod compare;
pub mod executable;
pub mod files;
pub mod net;
pub mod run;

use std::path::PathBuf;

/// A file or folder of the repository's fixtures.
pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

/// The `index.json` of a folder of fixtures.
pub fn index(folder: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(fixture(folder).join("index.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}
