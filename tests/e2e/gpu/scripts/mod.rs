//! The scripts for a machine with a GPU, tried on emulated executables and on a driver that computes nothing. They
//! need python3 with numpy, which is said where it is not there.

mod check;
mod first;
mod hangs;
mod pack;
mod parts;
mod slim;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::run::compiler;

const NETWORK: &str = "mlp_bn1d";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// Where scripts/setup puts numpy.
fn numpy() -> PathBuf {
    let target = compiler().ancestors().nth(2).unwrap().to_path_buf();
    target.join("tools/python")
}

/// A program that finds numpy.
fn with_numpy(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PYTHONPATH", numpy());
    command
}

#[allow(clippy::print_stderr)]
fn has_numpy() -> bool {
    let found = with_numpy("python3").args(["-c", "import numpy"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("there is no python3 with numpy: the scripts for GPUs are not tried");
    }
    found
}

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// `script` with a network to compare and to time as `name`, for `target` in `precisions`.
fn pack_command(script: &Path, archive: &Path, target: &str, precisions: &str, name: &str) -> Command {
    // Emulated steps are slow; the batch of 32 is timed without graphs too.
    let batch = if target == "cuda" { "32" } else { "2" };
    let model = crate::support::fixture(&format!("dev/{NETWORK}.onnx"));
    let mut command = with_numpy(script);
    command
        .arg(archive)
        .args(["--target", target, "--networks", NETWORK]);
    command.args(["--precisions", precisions, "--batches", batch]);
    command.arg(format!("{name}={}=20", model.display()));
    command.env("SYNCBN_COMPILE", compiler());
    command
}

/// Packs one network to compare and to time, and unpacks that.
fn packed(folder: &Path, target: &str, precisions: &str, name: &str) -> PathBuf {
    let archive = folder.join("pack.tar.gz");
    let output = pack_command(&script("gpu-pack"), &archive, target, precisions, name).output();
    ended(&output.unwrap(), 0);
    let output = Command::new("tar")
        .arg("xzf")
        .arg(&archive)
        .arg("-C")
        .arg(folder)
        .output();
    ended(&output.unwrap(), 0);
    folder.join("gpu-check")
}
