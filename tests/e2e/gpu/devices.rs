//! Which part of an executable runs, and what is said where there is no GPU.

use std::path::Path;
use std::process::{Command, Output};

use crate::corpus::Network;
use crate::support::executable::Executable;

/// Runs one training step where no GPU is visible.
fn step(executable: &Executable, data: &Path, flags: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(executable.path())
        .current_dir(folder.path())
        .env("CUDA_VISIBLE_DEVICES", "")
        .args(["train", "--steps", "1", "--batch", "8", "--data"])
        .arg(data)
        .args(flags)
        .output()
        .unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "\"{word}\" is not said in:\n{text}");
    }
}

#[test]
fn without_a_gpu_the_cpu_part_runs_and_says_so() {
    let network = Network::new("mlp_bn1d");
    let executable = network.compiled(&["--target", "cpu,cuda"]);
    let words = ["running on the CPU, as there is no GPU"];
    says(&step(&executable, &network.data(), &[]), 0, &words);
    let asked = step(&executable, &network.data(), &["--device", "cpu"]);
    says(&asked, 0, &[]);
    assert!(!String::from_utf8_lossy(&asked.stderr).contains("no GPU"));
}

#[test]
fn a_gpu_that_is_asked_for_and_not_there_is_an_environment_error() {
    let network = Network::new("mlp_bn1d");
    let executable = network.compiled(&["--target", "cpu,cuda"]);
    let asked = step(&executable, &network.data(), &["--device", "cuda"]);
    says(&asked, 4, &["error:"]);
    let executable = network.compiled(&["--target", "cuda"]);
    says(&step(&executable, &network.data(), &[]), 4, &["error:"]);
}

#[test]
fn a_part_that_is_not_there_is_an_environment_error() {
    let network = Network::new("mlp_bn1d");
    let executable = network.compiled(&["--target", "cpu"]);
    let asked = step(&executable, &network.data(), &["--device", "cuda-emulated"]);
    assert_eq!(asked.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("has no emulated kernels"));
}
