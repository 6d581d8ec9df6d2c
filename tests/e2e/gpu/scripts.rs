//! The scripts for a machine with a GPU, tried on emulated executables. They need python3 with numpy, which is said
//! where it is not there.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::run::compiler;

const NETWORK: &str = "mlp_bn1d";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

/// A program that finds numpy where scripts/setup puts it.
fn with_numpy(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let target = compiler().ancestors().nth(2).unwrap().to_path_buf();
    command.env("PYTHONPATH", target.join("tools/python"));
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

fn check(pack: &Path) -> Output {
    with_numpy(pack.join("gpu-check"))
        .args(["--device", "cuda-emulated", "--batches", "2"])
        .output()
        .unwrap()
}

/// Packs one network to compare and to time, and unpacks that.
fn packed(folder: &Path) -> PathBuf {
    let archive = folder.join("pack.tar.gz");
    let timed = format!(
        "mlp={}=20",
        crate::support::fixture(&format!("dev/{NETWORK}.onnx")).display()
    );
    let output = with_numpy(script("gpu-pack"))
        .arg(&archive)
        .args([
            "--target",
            "cuda-emulated",
            "--networks",
            NETWORK,
            "--precisions",
            "f32,tf32",
            "--batches",
            "2",
            &timed,
        ])
        .env("SYNCBN_COMPILE", compiler())
        .output()
        .unwrap();
    ended(&output, 0);
    let output = Command::new("tar")
        .arg("xzf")
        .arg(&archive)
        .arg("-C")
        .arg(folder)
        .output();
    ended(&output.unwrap(), 0);
    folder.join("gpu-check")
}

#[test]
fn a_packed_network_is_compared_and_timed_where_there_is_no_compiler() {
    if !has_numpy() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pack = packed(folder.path());
    let report = ended(&check(&pack), 0);
    for words in [
        "| mlp_bn1d | f32 | 1 |",
        "| mlp_bn1d | f32 | 2 |",
        "| mlp_bn1d | tf32 | 1 |",
        "| mlp_bn1d | tf32 | 2 |",
        "| mlp | f32 | 2 |",
        "| mlp | tf32 | 2 |",
        "all well",
        "compute-sanitizer not run",
    ] {
        assert!(report.contains(words), "\"{words}\" is not in\n{report}");
    }
    // A reference that is not met must be noticed.
    let spoil = "import sys, numpy\n\
                 a = dict(numpy.load(sys.argv[1])); a['loss'] = a['loss'] * 1.01; numpy.savez(sys.argv[1], **a)";
    let references = pack.join("dev").join(format!("{NETWORK}.npz"));
    let output = with_numpy("python3")
        .args(["-c", spoil])
        .arg(&references)
        .output();
    ended(&output.unwrap(), 0);
    let report = ended(&check(&pack), 1);
    assert!(
        report.contains("WRONG") && report.contains("| loss |"),
        "{report}"
    );
}

/// A container of device code with one entry for each `(kind, compute capability)`, whose bytes are all 7.
fn container(entries: &[(u16, u32)]) -> Vec<u8> {
    let mut body = Vec::new();
    for &(kind, capability) in entries {
        let mut header = vec![0; 64];
        header[..2].copy_from_slice(&kind.to_le_bytes());
        header[4..8].copy_from_slice(&64_u32.to_le_bytes());
        header[8..16].copy_from_slice(&32_u64.to_le_bytes());
        header[28..32].copy_from_slice(&capability.to_le_bytes());
        body.extend(header);
        body.extend([7; 32]);
    }
    let mut bytes = 0xBA55_ED50_u32.to_le_bytes().to_vec();
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(16_u16.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn a_slim_nccl_keeps_machine_code_for_the_named_gpus_only() {
    if Command::new("python3").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let before = [
        b"head".to_vec(),
        container(&[(2, 70), (2, 90), (1, 90)]),
        b"tail".to_vec(),
    ]
    .concat();
    fs::write(&from, &before).unwrap();
    let slim = |capability: &str| {
        let command = Command::new(script("slim-nccl"))
            .arg(&from)
            .arg(&to)
            .arg(capability)
            .output();
        command.unwrap()
    };
    ended(&slim("90"), 0);
    let mut expected = before.clone();
    let entry = |i: usize| 4 + 16 + i * 96 + 64;
    for gone in [0, 2] {
        expected[entry(gone)..entry(gone) + 32].fill(0);
    }
    assert_eq!(fs::read(&to).unwrap(), expected);
    assert!(ended(&slim("80"), 1).contains("no machine code for 80"));
}
