//! What executables export: libnccl and libcuda, which the executable opens, must find no function of their names in it,
//! or they would call ours in place of their own.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSymbol};

use crate::support::fixture;
use crate::support::run::{compile, compiler, outcome};

const TARGETS: [&str; 3] = ["cpu", "cuda", "cuda-emulated"];

/// The names of an executable's dynamic symbols: those that it defines, and those that it takes from libraries.
fn dynamic_symbols(executable: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let bytes = std::fs::read(executable).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let (mut defined, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for symbol in file.dynamic_symbols() {
        let names = if symbol.is_undefined() {
            &mut taken
        } else {
            &mut defined
        };
        names.insert(symbol.name().unwrap().to_string());
    }
    (defined, taken)
}

/// Whether a name is one of NCCL's or of the CUDA driver's: `ncclAllReduce`, `cuLaunchKernel`.
fn of_nvidia(name: &str) -> bool {
    let driver = name.strip_prefix("cu");
    name.starts_with("nccl") || driver.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

fn nvidias(names: &BTreeSet<String>) -> Vec<&String> {
    names.iter().filter(|name| of_nvidia(name)).collect()
}

#[test]
fn executables_neither_export_nor_import_functions_of_nccl_or_the_driver() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/mlp_bn1d.onnx");
    for target in TARGETS {
        compile(
            folder.path(),
            &[model.to_str().unwrap(), "-o", target, "--target", target],
        )
        .ok();
        let (defined, taken) = dynamic_symbols(&folder.path().join(target));
        assert_eq!(nvidias(&defined), [""; 0], "{target} exports them");
        assert_eq!(nvidias(&taken), [""; 0], "{target} is linked with their library");
        let own: Vec<&String> = defined.iter().filter(|name| name.starts_with("syncbn")).collect();
        assert_eq!(own, [""; 0], "{target} exports its own functions");
        for name in ["__libc_start_main", "malloc"] {
            assert!(taken.contains(name), "{target} takes no {name}: {taken:?}");
        }
        // Only what drives GPUs opens libraries.
        assert_eq!(taken.contains("dlopen"), target != "cpu", "{target}: {taken:?}");
    }
}

/// The same link with `-rdynamic`, which exports everything: what the test above looks for is there to be found.
#[test]
fn exported_functions_of_nccl_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let linker = folder.path().join("cc");
    std::fs::write(&linker, "#!/bin/sh\nexec cc -rdynamic \"$@\"\n").unwrap();
    std::fs::set_permissions(&linker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let executable = folder.path().join("exporting");
    let mut command = Command::new(compiler());
    command
        .env("CC", &linker)
        .arg(fixture("dev/mlp_bn1d.onnx"))
        .args(["--target", "cuda", "-o"])
        .arg(&executable);
    outcome(&mut command).ok();
    let (defined, _) = dynamic_symbols(&executable);
    assert_eq!(
        nvidias(&defined),
        ["ncclAllReduce", "ncclGroupEnd", "ncclGroupStart"]
    );
}
