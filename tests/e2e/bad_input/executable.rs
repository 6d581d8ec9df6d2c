//! Data and flags that an executable refuses.

use std::path::Path;

use syncbn_ir::Array;
use syncbn_ir::training::Generator;

use crate::corpus::Network;
use crate::support::executable::Executable;
use crate::support::files::{Column, write_npz};
use crate::support::run::{Outcome, listing};

fn mlp() -> Executable {
    Network::new("mlp_bn1d").compiled(&["--precision", "f32"])
}

fn inputs(samples: usize, width: usize) -> Array {
    Generator(1).array(&[samples, width])
}

fn labels(values: &[f64]) -> Array {
    Array::new(&[values.len()], values.to_vec())
}

const LABELS: [f64; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0];

/// Trains with everything that could be written, on the file that `write` makes; nothing may be left.
#[track_caller]
fn refused(write: impl Fn(&Path), flags: &[&str], code: i32, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d.npz");
    write(&data);
    let before = listing(folder.path());
    let mut arguments = vec!["train", "--data", "d.npz", "--save", "w.safetensors"];
    arguments.extend(["--dump-gradients", "g.safetensors", "--dump-outputs", "o.npz"]);
    arguments.extend(flags);
    let outcome: Outcome = mlp().run(folder.path(), &arguments);
    outcome.exits(code).says(words);
    assert_eq!(listing(folder.path()), before);
}

/// A valid file.
fn good(path: &Path) {
    let (x, target) = (inputs(8, 20), labels(&LABELS));
    write_npz(path, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);
}

fn with_label(label: f64) -> impl Fn(&Path) {
    move |path| {
        let mut values = LABELS;
        values[3] = label;
        let (x, target) = (inputs(8, 20), labels(&values));
        write_npz(path, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);
    }
}

#[test]
fn files_without_what_is_needed() {
    let x = inputs(8, 20);
    let target = labels(&LABELS);
    let no_x = |path: &Path| write_npz(path, &[("target", Column::I64(&target))]);
    refused(no_x, &[], 2, &["no array \"x\"", "it holds \"target\""]);
    let no_target = |path: &Path| write_npz(path, &[("x", Column::F32(&x))]);
    refused(no_target, &[], 2, &["no array \"target\"", "it holds \"x\""]);
    refused(|_: &Path| (), &[], 2, &["d.npz", "No such file"]);
    let cut = |path: &Path| {
        good(path);
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    refused(cut, &[], 2, &["d.npz", "not a complete npz archive"]);
}

#[test]
fn arrays_of_the_wrong_shape_or_type() {
    let target = labels(&LABELS);
    let narrow = |path: &Path| {
        let x = inputs(8, 19);
        write_npz(path, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);
    };
    refused(
        narrow,
        &[],
        2,
        &["\"x\"", "expected (samples, 20), found (8, 19)"],
    );
    let short = |path: &Path| {
        let x = inputs(7, 20);
        write_npz(path, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);
    };
    refused(
        short,
        &[],
        2,
        &["number of samples", "\"x\" has 7", "\"target\" has 8"],
    );
    let fractional = |path: &Path| {
        let x = inputs(8, 20);
        write_npz(path, &[("x", Column::F32(&x)), ("target", Column::F32(&target))]);
    };
    refused(fractional, &[], 2, &["\"target\"", "labels are integers"]);
    let empty = |path: &Path| {
        let (x, target) = (inputs(0, 20), labels(&[]));
        write_npz(path, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);
    };
    refused(empty, &[], 2, &["no samples"]);
}

#[test]
fn labels_out_of_range() {
    refused(
        with_label(10.0),
        &[],
        2,
        &["label 10 at index 3", "10 classes", "0 to 9"],
    );
    refused(with_label(-1.0), &[], 2, &["label -1 at index 3", "0 to 9"]);
    let words = ["label -100", "ignoring labels is not supported", "remove"];
    refused(with_label(-100.0), &[], 2, &words);
}

#[test]
fn a_single_value_in_a_batch_norm_is_refused_before_the_first_step() {
    let words = ["BatchNorm \"", "single value", "all ranks", "step 1", "--batch"];
    refused(good, &["--batch", "1", "--log", "log.jsonl"], 2, &words);
    refused(good, &["--rank-batches", "0,1", "--log", "log.jsonl"], 2, &words);
    // 8 samples in steps of 7: the second step of every epoch has one.
    let words = ["single value", "step 2", "--drop-last"];
    refused(good, &["--batch", "7", "--log", "log.jsonl"], 2, &words);
    let folder = tempfile::tempdir().unwrap();
    good(&folder.path().join("d.npz"));
    let flags = ["train", "--data", "d.npz", "--batch", "7"];
    let executable = mlp();
    executable
        .run(folder.path(), &[&flags[..], &["--drop-last"]].concat())
        .ok();
    executable
        .run(folder.path(), &[&flags[..], &["--steps", "1"]].concat())
        .ok();
}

#[test]
fn a_single_value_on_one_rank_is_refused_in_local_mode() {
    let folder = tempfile::tempdir().unwrap();
    good(&folder.path().join("d.npz"));
    let local = Network::new("mlp_bn1d").compiled(&["--precision", "f32", "--bn", "local"]);
    let flags = ["train", "--data", "d.npz", "--rank-batches", "7,1", "--save", "w"];
    local
        .run(folder.path(), &flags)
        .exits(2)
        .says(&["BatchNorm \"", "single value", "rank 1", "step 1"]);
    assert_eq!(listing(folder.path()), ["d.npz"]);
}

#[test]
fn batches_that_do_not_fit() {
    let words = ["--batch", "33", "at most 32", "syncbn-compile --batch 33"];
    refused(good, &["--batch", "33"], 2, &words);
    let words = ["--rank-batches", "33", "at most 32"];
    refused(good, &["--rank-batches", "33,1"], 2, &words);
    let words = ["--rank-batches gives 2 ranks", "--ranks gives 3"];
    refused(good, &["--rank-batches", "3,1", "--ranks", "3"], 2, &words);
    refused(
        good,
        &["--rank-batches", "3,1", "--batch", "2"],
        2,
        &["--rank-batches", "--batch"],
    );
    refused(
        good,
        &["--rank-batches", "0,0"],
        2,
        &["--rank-batches", "no rank any samples"],
    );
    refused(good, &["--rank-batches", "3,-1"], 2, &["--rank-batches"]);
    refused(good, &["--ranks", "0"], 2, &["--ranks"]);
    refused(
        good,
        &["--epochs", "1", "--steps", "1"],
        2,
        &["--epochs", "--steps"],
    );
    refused(good, &["--lr", "nan"], 2, &["--lr", "finite"]);
    refused(good, &["--optimizer", "frob"], 2, &["--optimizer"]);
    refused(good, &["--device", "cuda"], 4, &["--device cuda", "no GPU part"]);
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    good(&folder.path().join("d.npz"));
    let executable = mlp();
    for flag in ["--save", "--dump-gradients", "--dump-outputs", "--log"] {
        let flags = ["train", "--data", "d.npz", "--steps", "1", flag, "nowhere/out"];
        executable.run(folder.path(), &flags).exits(2).says(&["nowhere"]);
    }
    let flags = ["infer", "--data", "d.npz", "-o", "nowhere/out.npz"];
    executable
        .run(folder.path(), &flags)
        .exits(2)
        .says(&["nowhere", "does not exist"]);
    let same = ["train", "--data", "d.npz", "--steps", "1", "--log", "./d.npz"];
    executable
        .run(folder.path(), &same)
        .exits(2)
        .says(&["--log", "--data", "same file"]);
    let twice = ["train", "--data", "d.npz", "--save", "w", "--dump-gradients", "w"];
    executable
        .run(folder.path(), &twice)
        .exits(2)
        .says(&["--save", "--dump-gradients", "same file"]);
    assert_eq!(listing(folder.path()), ["d.npz"]);
}

#[test]
fn weights_of_another_network() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    good(&at.join("d.npz"));
    let other = Network::new("syncbnnet_w4");
    let run = other
        .compiled(&["--precision", "f32"])
        .train(&other.data(), &["--steps", "1"]);
    let weights = run.weight_file.to_str().unwrap();
    let infer = |weights| {
        let flags = ["infer", "--data", "d.npz", "-o", "o.npz", "--weights", weights];
        mlp().run(at, &flags)
    };
    infer(weights)
        .exits(2)
        .says(&["net.0.weight", "stem.conv.weight"]);
    infer("d.npz").exits(2).says(&["d.npz", "safetensors"]);
    infer("none").exits(2).says(&["none", "No such file"]);
    assert_eq!(listing(at), ["d.npz"]);
}

#[test]
fn a_loss_that_is_not_finite_stops_with_the_step_and_the_layer() {
    let bad = |path: &Path| {
        let (mut x, target) = (inputs(8, 20), labels(&LABELS));
        x.data[5] = f64::NAN;
        write_npz(path, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);
    };
    let words = ["not finite in step 1", "first layer", "node_linear", "--save"];
    refused(bad, &["--steps", "2"], 2, &words);
}

#[test]
fn bench_refuses_what_training_refuses() {
    let folder = tempfile::tempdir().unwrap();
    mlp()
        .run(folder.path(), &["bench", "--mode", "train", "--batch", "1"])
        .exits(2)
        .says(&["single value", "step 1"]);
}
