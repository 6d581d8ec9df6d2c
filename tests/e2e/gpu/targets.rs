//! Which parts an executable gets, and in what precision.

use crate::corpus::{Network, SGD};
use crate::support::compare::Comparison;
use crate::support::fixture;
use crate::support::run::{Outcome, compiler, run};

/// Compiles mlp_bn1d with these flags and nothing else: its parts, and what was said.
fn compile(flags: &[&str]) -> (Outcome, Option<serde_json::Value>) {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/mlp_bn1d.onnx");
    let all = [&[model.to_str().unwrap(), "-o", "m.bin"], flags].concat();
    let outcome = run(&compiler(), folder.path(), &all);
    let executable = folder.path().join("m.bin");
    let targets = executable.exists().then(|| {
        let info = run(&executable, folder.path(), &["info", "--json"]).ok();
        info.json()["targets"].clone()
    });
    (outcome, targets)
}

#[test]
fn there_is_a_part_for_cpus_and_one_for_gpus_unless_asked_otherwise() {
    let (outcome, targets) = compile(&[]);
    outcome.ok();
    assert_eq!(targets, Some(serde_json::json!(["cpu", "cuda"])));
    let (outcome, targets) = compile(&["--target", "cpu"]);
    outcome.ok();
    assert_eq!(targets, Some(serde_json::json!(["cpu"])));
}

#[test]
fn gpus_have_no_f64() {
    let (outcome, targets) = compile(&["--precision", "f64"]);
    outcome.ok();
    assert_eq!(targets, Some(serde_json::json!(["cpu"])));
    let (outcome, targets) = compile(&["--precision", "f64", "--target", "cpu,cuda"]);
    outcome.exits(2).says(&["--precision f64", "cpu=f64"]);
    assert_eq!(targets, None);
}

#[test]
fn a_network_too_large_for_the_gpu_part_has_none_unless_it_was_asked_for() {
    // The largest layer has 48 features.
    let batch = (1 << 30) / 48 + 1;
    let batch = batch.to_string();
    let (outcome, targets) = compile(&["--batch", &batch]);
    outcome.ok().says(&["has no GPU part", "smaller --batch"]);
    assert_eq!(targets, Some(serde_json::json!(["cpu"])));
    let (outcome, targets) = compile(&["--batch", &batch, "--target", "cpu,cuda"]);
    outcome.exits(3).says(&["smaller --batch"]);
    assert_eq!(targets, None);
}

#[test]
fn a_float64_network_is_rounded_for_gpus_with_a_warning() {
    let (outcome, _) = compile(&["--precision", "cpu=f64"]);
    outcome.ok().says(&["warning", "the GPU part computes in f32"]);

    let network = Network::new("mlp_bn1d");
    let precision = ["--precision", "cpu=f64,cuda=f32"];
    let executable = network.compiled(&[&["--target", "cuda-emulated"], &precision[..]].concat());
    let flags = [&SGD[..], &["--steps", "3", "--rank-batches", "5,3"]].concat();
    let trained = executable.train(&network.data(), &flags);
    let mut all = Comparison::default();
    for (name, reference) in network.group("param3") {
        all.array(name, trained.weights.get(name), reference, 1e-4);
    }
    all.check(trained.weights.len() > 1, || "nothing was compared".to_string());
    all.finish("a float64 network on emulated GPUs");
}
