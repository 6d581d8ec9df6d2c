//! Which parts an executable gets, and in what precision.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

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

#[test]
fn the_part_for_cpus_does_not_depend_on_the_one_for_gpus() {
    let network = Network::new("syncbnnet_small");
    let flags = [
        &SGD[..],
        &["--steps", "2", "--rank-batches", "5,3", "--device", "cpu"],
    ]
    .concat();
    let trained = |targets: &str| {
        let executable = network.compiled(&["--target", targets]);
        executable.train(&network.data(), &flags).weights
    };
    let (both, alone) = (trained("cpu,cuda"), trained("cpu"));
    assert!(both.len() > 1 && both == alone);
}

/// A folder with a program of the name of NVIDIA's assembler that knows no GPU.
fn with_an_old_ptxas() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("ptxas");
    std::fs::write(
        &program,
        "#!/bin/sh\necho \"ptxas fatal : Value 'sm_80' is not defined\" >&2\nexit 1\n",
    )
    .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn an_assembler_that_is_too_old_matters_only_where_it_is_named() {
    let tools = with_an_old_ptxas();
    let folder = tempfile::tempdir().unwrap();
    let compile = |variable: &str, value: std::ffi::OsString| {
        let output = Command::new(compiler())
            .current_dir(folder.path())
            .env_remove("SYNCBN_PTXAS")
            .env_remove("CUDA_HOME")
            .env(variable, value)
            .arg(fixture("dev/mlp_bn1d.onnx"))
            .args(["-o", "m.bin"])
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let mut path = vec![tools.path().to_path_buf()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let (code, said) = compile("PATH", std::env::join_paths(path).unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("carries no assembled GPU code"), "{said}");
    std::fs::remove_file(folder.path().join("m.bin")).unwrap();
    let (code, said) = compile("SYNCBN_PTXAS", tools.path().join("ptxas").into_os_string());
    assert_eq!(code, Some(4), "{said}");
    assert!(!folder.path().join("m.bin").exists());
}
