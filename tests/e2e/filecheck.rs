//! The MLIR that lowering produces, checked with LLVM's FileCheck: `tests/fixtures/mlir/*.ir` are graphs whose
//! first line holds the flags and whose `CHECK` lines say what must come out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::support::fixture;
use crate::support::run::compile;

fn file_check() -> PathBuf {
    let prefix = env::var_os("LLVM_SYS_221_PREFIX").map_or_else(|| "/usr/lib/llvm-22".into(), PathBuf::from);
    prefix.join("bin").join("FileCheck")
}

/// Whether FileCheck accepts `input` for the checks in `file`, and what it says.
fn check(file: &Path, input: &Path) -> (bool, String) {
    let output = Command::new(file_check())
        .arg(file)
        .arg("--input-file")
        .arg(input)
        .stdin(Stdio::null())
        .output()
        .expect("FileCheck of LLVM 22 is installed (scripts/setup)");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn lowering_produces_what_the_checks_say() {
    let mut files: Vec<PathBuf> = fs::read_dir(fixture("mlir"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 13, "{files:?}");
    let mut failures = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let flags = text.lines().next().and_then(|l| l.strip_prefix("// RUN: "));
        let flags = flags.unwrap_or_else(|| panic!("{} begins with no RUN line", file.display()));
        let folder = tempfile::tempdir().unwrap();
        let mlir = folder.path().join("out.mlir");
        let mut arguments = vec![file.to_str().unwrap(), "-o", mlir.to_str().unwrap()];
        if !flags.contains("--emit") {
            arguments.extend(["--emit", "mlir"]);
        }
        arguments.extend(flags.split_whitespace());
        compile(folder.path(), &arguments).ok();
        let (accepted, message) = check(file, &mlir);
        if !accepted {
            failures.push(format!("{}\n{message}", file.display()));
        }
        // A file whose checks accept a module without functions checks nothing.
        let empty = folder.path().join("empty.mlir");
        fs::write(&empty, "module {\n}\n").unwrap();
        if check(file, &empty).0 {
            failures.push(format!("{} accepts an empty module", file.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
