//! The runtime archive: embedded compressed, unpacked once to a cache that is addressed by content.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::output::write_atomically;

static ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/runtime.a.zst"));
/// FNV-1a of the archive, from the build.
pub const HASH: &str = env!("SYNCBN_RUNTIME_HASH");

/// The folder that caches the archive: `$XDG_CACHE_HOME`, `~/.cache` or the folder for temporary files.
fn cache_folder() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute());
    let home = || {
        env::var_os("HOME")
            .map(|h| Path::new(&h).join(".cache"))
            .filter(|p| p.is_absolute())
    };
    cache
        .or_else(home)
        .unwrap_or_else(env::temp_dir)
        .join("syncbn-compile")
        .join(HASH)
}

/// The path of the unpacked archive. A file in the cache is used only if it holds the very bytes; without a writable
/// cache the archive goes to `scratch`.
pub fn archive(scratch: &Path) -> Result<PathBuf, Error> {
    let unpacked = zstd::decode_all(ARCHIVE).map_err(|e| Error::internal(format!("runtime archive: {e}")))?;
    let cached = cache_folder().join("libsyncbn_runtime.a");
    if fs::read(&cached).is_ok_and(|found| found == unpacked) {
        return Ok(cached);
    }
    let write = |path: &Path| -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        write_atomically(path, false, |file| file.write_all(&unpacked))
    };
    if write(&cached).is_ok() {
        return Ok(cached);
    }
    let fallback = scratch.join("libsyncbn_runtime.a");
    write(&fallback).map(|()| fallback.clone()).map_err(|e| {
        let message = format!("the runtime could not be unpacked to {}: {e}", fallback.display());
        Error::environment(
            message,
            "free some space, or set XDG_CACHE_HOME to a folder that can be written",
        )
    })
}

/// The lowest glibc version of an executable that this archive was linked into before, if it is known.
pub fn known_glibc() -> Option<String> {
    fs::read_to_string(cache_folder().join("glibc"))
        .ok()
        .filter(|v| !v.is_empty())
}

/// Remembers [`known_glibc`]. A cache that cannot be written costs a second link the next time, no more.
pub fn remember_glibc(version: &str) {
    let path = cache_folder().join("glibc");
    let _ = write_atomically(&path, false, |file| file.write_all(version.as_bytes()));
}
