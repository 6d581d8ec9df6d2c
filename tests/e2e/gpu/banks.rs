//! Bank conflicts of shared memory, as the emulator counts them: the kernels that multiply matrices have none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use syncbn_ir::Array;

use crate::support::executable::compiled;
use crate::support::files::{Column, write_npz};
use crate::support::net::Attribute::Ints;
use crate::support::net::Net;
use crate::support::run::{compile, outcome};

/// Samples of the step.
const BATCH: usize = 6;
/// Sizes of the input after the batch.
const INPUT: [usize; 3] = [8, 64, 64];

/// Layers that have few and many outputs of few and many channels, so that every tile is chosen for one of them. Results
/// with a bias and with a residual are stored by inference.
fn network() -> Vec<u8> {
    let mut net = Net::new(&INPUT.map(|n| n as i64));
    let same = |strides: &'static [i64]| [("pads", Ints(&[1, 1, 1, 1])), ("strides", Ints(strides))];
    let mut x = "x".to_string();
    let mut channels = 8;
    for (to, window, strides) in [
        (16, 3, &[1, 1][..]),
        (128, 1, &[1, 1]),
        (64, 1, &[1, 1]),
        (64, 1, &[2, 2]),
        (64, 3, &[2, 2]),
        (64, 1, &[2, 2]),
        (32, 3, &[2, 2]),
        (128, 1, &[1, 1]),
    ] {
        x = match window {
            1 => net.conv(&x, &[to, channels, 1, 1], &[("strides", Ints(strides))]),
            _ => net.conv(&x, &[to, channels, 3, 3], &same(strides)),
        };
        x = net.bn(&x, to);
        channels = to;
    }
    let branch = net.conv_bias(&x, &[channels, channels, 1, 1], &[]);
    let branch = net.bn(&branch, channels);
    let x = net.node("Add", &[&branch, &x], &[]);
    let x = net.silu(&x);
    // Few samples of many classes: wide tiles of few rows.
    let y = net.head(&x, channels, 7168);
    net.finish(&[&y])
}

/// What the emulator counted in one training step: JSON objects, one a kernel.
fn counts(executable: &Path) -> Vec<serde_json::Value> {
    let folder = tempfile::tempdir().unwrap();
    let [data, lines] = ["d.npz", "banks.jsonl"].map(|name| folder.path().join(name));
    let sizes = [&[BATCH], &INPUT[..]].concat();
    let elements = sizes.iter().product::<usize>();
    let x = Array::new(
        &sizes,
        (0..elements).map(|i| (i % 37) as f64 / 16.0 - 1.0).collect(),
    );
    let target = Array::new(&[BATCH], (0..BATCH).map(|i| i as f64).collect());
    write_npz(&data, &[("x", Column::F64(&x)), ("target", Column::I64(&target))]);
    let mut command = Command::new(executable);
    command
        .env("SYNCBN_EMULATOR_BANKS", &lines)
        .args(["train", "--steps", "1", "--data"])
        .arg(&data);
    outcome(&mut command).ok();
    let text = fs::read_to_string(&lines).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The tiles of the products that a training step launches.
fn tiles(model: &Path, precision: &str) -> BTreeSet<String> {
    let batch = BATCH.to_string();
    let flags = [
        "--target",
        "cuda",
        "--precision",
        precision,
        "--batch",
        &batch,
        "--mode",
        "train",
    ];
    let report = [model.to_str().unwrap(), "--emit", "kernels-json", "-o", "-"];
    let outcome = compile(Path::new("."), &[&report[..], &flags].concat()).ok();
    let rows = outcome.json()["steps"][0]["rows"].as_array().unwrap().clone();
    let tiles = rows.iter().map(|row| &row["tile"]).filter(|tile| tile.is_array());
    tiles.map(ToString::to_string).collect()
}

/// `all` is the number of tiles in `crates/mlir/src/gpu/implicit_gemm/tile.rs`.
fn check(precision: &'static str, all: usize) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    fs::write(&model, network()).unwrap();
    let batch = BATCH.to_string();
    let flags = [
        "--target",
        "cuda-emulated",
        "--precision",
        precision,
        "--batch",
        &batch,
    ];
    let executable = compiled("banks", &model, &flags);
    let counts = counts(executable.path());
    let multiplying: Vec<_> = counts
        .iter()
        .filter(|count| count["multiplies"] == true)
        .collect();
    let directions = ["conv_", "conv_backward_data_", "conv_backward_weight_"];
    for direction in directions {
        let of_direction = |count: &&&serde_json::Value| {
            let name = count["kernel"].as_str().unwrap();
            name.strip_prefix(direction)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        assert!(
            multiplying.iter().any(|count| of_direction(&count)),
            "{direction}: {counts:#?}"
        );
    }
    let conflicting: Vec<_> = multiplying
        .iter()
        .filter(|count| count["conflicts"] != 0)
        .collect();
    assert!(conflicting.is_empty(), "{precision}: {conflicting:#?}");
    let accesses: u64 = multiplying
        .iter()
        .map(|count| count["accesses"].as_u64().unwrap())
        .sum();
    assert!(accesses > 10_000, "{accesses} accesses");
    let tiles = tiles(&model, precision);
    assert_eq!(tiles.len(), all, "{precision}: {tiles:?}");
}

#[test]
fn kernels_that_multiply_have_none_in_tf32() {
    check("tf32", 6);
}

#[test]
fn kernels_that_multiply_have_none_in_bf16() {
    check("bf16", 6);
}

#[test]
fn kernels_that_multiply_have_none_in_f32() {
    check("f32", 5);
}
