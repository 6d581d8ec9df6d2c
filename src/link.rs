//! The linker step: objects and runtime become an executable.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use object::Object;

use crate::Error;

/// Links objects and the runtime archive to `output`.
pub fn link(objects: &[PathBuf], archive: &Path, output: &Path) -> Result<(), Error> {
    let linker = env::var_os("CC")
        .filter(|c| !c.is_empty())
        .unwrap_or_else(|| OsString::from("cc"));
    let mut command = Command::new(&linker);
    command.arg("-o").arg(output).args(objects).arg(archive);
    command.args([
        "-static-libgcc",
        "-Wl,--gc-sections",
        "-Wl,--strip-all",
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack",
    ]);
    command.args(["-lm", "-lpthread", "-ldl"]);
    if let Some(folder) = lld_folder() {
        command.arg("-fuse-ld=lld").arg(prefix_argument(&folder));
    }
    let result = command.output().map_err(|e| {
        Error::environment(
            format!("the linker {} could not be run: {e}", linker.display()),
            "install a C compiler (Debian: apt-get install gcc libc6-dev), or name one in CC",
        )
    })?;
    if result.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&result.stderr);
    let first: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).take(8).collect();
    Err(Error::environment(
        format!(
            "the linker {} failed ({}): {}",
            linker.display(),
            result.status,
            first.join("\n  ")
        ),
        "check that a C compiler and the C library's development files are installed (Debian: gcc libc6-dev)",
    ))
}

fn prefix_argument(folder: &Path) -> OsString {
    let mut argument = OsString::from("-B");
    argument.push(folder);
    argument
}

/// A folder that holds `ld.lld`: on the path, or where Debian's versioned packages put it.
fn lld_folder() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/lib/llvm-22/bin")])
        .find(|folder| folder.is_absolute() && folder.join("ld.lld").is_file())
}

/// The lowest glibc version that an executable needs: the highest version of any symbol it imports.
pub fn needed_glibc(executable: &Path) -> Option<String> {
    let bytes = fs::read(executable).ok()?;
    let file = object::File::parse(bytes.as_slice()).ok()?;
    // Version names of needed libraries stand in .dynstr as GLIBC_2.x.
    let strings = object::ObjectSection::data(&file.section_by_name(".dynstr")?).ok()?;
    strings
        .split(|&b| b == 0)
        .filter_map(|s| std::str::from_utf8(s).ok()?.strip_prefix("GLIBC_"))
        .filter_map(|v| {
            let parts: Option<Vec<u32>> = v.split('.').map(|p| p.parse().ok()).collect();
            parts.map(|p| (p, v.to_string()))
        })
        .max()
        .map(|(_, v)| v)
}
