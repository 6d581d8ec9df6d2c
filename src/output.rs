//! Files that are written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a file through a temporary one in the same folder: write, fsync, rename. A failure leaves what was
/// there before. A symbolic link stays one: the file it leads to is replaced. What is no regular file (a pipe, a
/// device) is written in place.
pub fn write_atomically(
    path: &Path,
    executable: bool,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return write(&mut File::options().write(true).open(path)?);
    }
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(".syncbn-")
        .tempfile_in(folder)
        .map_err(plain)?;
    write(temporary.as_file_mut())?;
    temporary.as_file_mut().flush()?;
    let mode = if executable { 0o777 } else { 0o666 };
    temporary
        .as_file()
        .set_permissions(fs::Permissions::from_mode(mode & !umask()))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    // Some file systems cannot sync a folder; the rename is atomic all the same.
    let _ = File::open(folder).and_then(|f| f.sync_all());
    Ok(())
}

/// The system's own error: tempfile adds the temporary path, which means nothing to the user.
fn plain(error: io::Error) -> io::Error {
    let text = error.to_string();
    io::Error::new(error.kind(), text.split(" at path ").next().unwrap_or(&text))
}

/// The process's file mode mask, as the kernel reports it (reading it otherwise means changing it).
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("Umask:"));
    mask.and_then(|m| u32::from_str_radix(m.trim(), 8).ok())
        .unwrap_or(0o022)
}
