//! scripts/slim-nccl.

use std::fs;
use std::process::Command;

use super::{ended, script};

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
