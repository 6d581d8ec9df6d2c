//! What executables carry of the runtime: the emulator only where there are emulated kernels, and what drives GPUs only
//! where there is a GPU part.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSymbol};

use crate::support::fixture;
use crate::support::run::{compiler, outcome};

/// The linker, but for the stripping of symbols.
const LINKER: &str = "#!/bin/sh\nfor a; do shift; [ \"$a\" = -Wl,--strip-all ] || set -- \"$@\" \"$a\"; done\nexec cc \"$@\"\n";

/// A folder of the runtime below `gpu`, what the names of its symbols hold, and the targets that need it.
const PARTS: [(&str, &[&str], &[&str]); 3] = [
    (
        "emulator",
        &["gpu8emulator", "gpu..emulator", "corosensei", "syncbn_emu_"],
        &["cuda-emulated", "cuda,cuda-emulated"],
    ),
    (
        "cuda",
        &["gpu4cuda", "gpu..cuda"],
        &["cuda", "cuda-emulated", "cuda,cuda-emulated"],
    ),
    (
        "nccl",
        &["gpu4nccl", "gpu..nccl"],
        &["cuda", "cuda-emulated", "cuda,cuda-emulated"],
    ),
];

/// Whether `bytes` hold `text`.
fn hold(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The names of what an executable defines. Drop glue is left out: where it is alike, the linker keeps that of any type.
fn symbols(executable: &[u8]) -> Vec<String> {
    let file = object::File::parse(executable).unwrap();
    let defined = file.symbols().filter(|symbol| !symbol.is_undefined());
    let names = defined.filter_map(|symbol| symbol.name().ok().map(str::to_string));
    names.filter(|name| !name.contains("drop_in_place")).collect()
}

fn link(folder: &Path, target: &str) -> Vec<u8> {
    let executable = folder.join(target);
    let mut command = Command::new(compiler());
    command
        .env("CC", folder.join("cc"))
        .arg(fixture("dev/mlp_bn1d.onnx"))
        .args(["--target", target, "-o"])
        .arg(&executable);
    outcome(&mut command).ok();
    std::fs::read(executable).unwrap()
}

#[test]
fn executables_carry_of_the_runtime_only_what_their_targets_need() {
    let folder = tempfile::tempdir().unwrap();
    let linker = folder.path().join("cc");
    std::fs::write(&linker, LINKER).unwrap();
    std::fs::set_permissions(&linker, std::fs::Permissions::from_mode(0o755)).unwrap();
    for target in ["cpu", "cuda", "cpu,cuda", "cuda-emulated", "cuda,cuda-emulated"] {
        let bytes = link(folder.path(), target);
        let names = symbols(&bytes);
        assert!(names.iter().any(|name| name == "main"), "{target} has no symbols");
        for (part, words, targets) in PARTS {
            let needed = targets.contains(&target) || (target == "cpu,cuda" && part != "emulator");
            let known: Vec<&String> = names
                .iter()
                .filter(|name| words.iter().any(|word| name.contains(word)))
                .collect();
            assert_eq!(
                !known.is_empty(),
                needed,
                "symbols of gpu/{part} in {target}: {known:?}"
            );
            // Where a panic says that it happened.
            let path = format!("src/gpu/{part}/");
            assert!(needed || !hold(&bytes, &path), "{target} holds the path {path}");
        }
    }
}
