//! Files that appear whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::BufWriter,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::error::{Error, Result};

/// Writes `path` through a temporary file in the same folder: filled, synced, renamed, and the folder synced.
/// On an error `path` keeps what it held. A symbolic link stays one: the file it leads to is replaced. What is no
/// regular file (a pipe, a device) is written in place.
pub fn write<E: std::fmt::Display>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
) -> Result<()> {
    let failed = |cause: &dyn std::fmt::Display| Error::file("write", path, cause);
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let file = File::options()
            .write(true)
            .open(path)
            .map_err(|cause| failed(&cause))?;
        let mut writer = BufWriter::new(&file);
        fill(&mut writer).map_err(|cause| failed(&cause))?;
        return writer.into_inner().map(drop).map_err(|cause| failed(&cause));
    }
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = folder(path);
    let temporary = tempfile::Builder::new()
        .prefix(".syncbn-")
        .suffix(".tmp")
        // The process's umask takes away from these.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(|cause| failed(&cause))?;
    let mut writer = BufWriter::new(temporary.as_file());
    fill(&mut writer).map_err(|cause| failed(&cause))?;
    writer.into_inner().map_err(|cause| failed(&cause))?;
    temporary.as_file().sync_all().map_err(|cause| failed(&cause))?;
    temporary.persist(path).map_err(|cause| failed(&cause))?;
    // Some file systems cannot sync a folder; the file itself is safe.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Checks early that `path`, which `flag` names, can be written later.
pub fn check(flag: &str, path: &Path) -> Result<()> {
    let folder = folder(path);
    if !folder.is_dir() {
        return Err(Error::user(format!(
            "{flag} \"{}\": the folder \"{}\" does not exist",
            path.display(),
            folder.display()
        ))
        .help("create it first"));
    }
    if path.is_dir() {
        return Err(Error::user(format!("{flag} \"{}\" is a folder", path.display())).help("name a file"));
    }
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Ok(());
    }
    tempfile::tempfile_in(folder)
        .map(drop)
        .map_err(|cause| Error::file("write", path, cause))
}

/// Whether two paths lead to one regular file, which need not exist yet.
pub fn same(a: &Path, b: &Path) -> bool {
    let resolve = |path: &Path| {
        fs::canonicalize(path).ok().or_else(|| {
            let folder = fs::canonicalize(folder(path)).ok()?;
            Some(folder.join(path.file_name()?))
        })
    };
    let device = fs::metadata(a).is_ok_and(|found| !found.is_file());
    !device && resolve(a).is_some_and(|a| Some(a) == resolve(b))
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, |out| out.write_all(b"old")).unwrap();
        let error = write(&path, |out| {
            out.write_all(b"half").unwrap();
            Err("the pen broke")
        });
        assert!(error.unwrap_err().message.contains("the pen broke"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write(&path, |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn links_stay_links_and_devices_stay_devices() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        write(&link, |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        // A link to a device stands for the device itself, which a test must not risk.
        let device = folder.path().join("null");
        symlink("/dev/null", &device).unwrap();
        write(&device, |out| out.write_all(b"gone")).unwrap();
        assert!(!fs::metadata(&device).unwrap().is_file());
        assert!(fs::symlink_metadata(&device).unwrap().is_symlink());
    }

    #[test]
    fn missing_folders_are_found_early() {
        let folder = tempfile::tempdir().unwrap();
        let error = check("--save", &folder.path().join("no/w")).unwrap_err();
        assert!(error.message.contains("--save") && error.message.contains("does not exist"));
        assert!(
            check("--save", folder.path())
                .unwrap_err()
                .message
                .contains("is a folder")
        );
        check("--save", &folder.path().join("w")).unwrap();
        assert!(same(&folder.path().join("w"), &folder.path().join("./w")));
        assert!(!same(&folder.path().join("w"), &folder.path().join("v")));
        assert!(!same(Path::new("/dev/null"), Path::new("/dev/null")));
    }
}
