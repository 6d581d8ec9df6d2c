//! What `info --device` of executables says of drivers, GPUs and their code.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::strict::library;
use crate::corpus::Network;
use crate::support::executable::Executable;
use crate::support::fixture;
use crate::support::run::{command, compile_ptx};

/// Variables and values.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// A folder with the stand-in for the driver, and an executable that carries PTX only.
struct Machine {
    folder: TempDir,
    executable: Executable,
}

impl Machine {
    fn new() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        symlink(library(), folder.path().join("libcuda.so.1")).unwrap();
        let path = folder.path().join("ptx.bin");
        compile_ptx(&fixture("dev/mlp_bn1d.onnx"), &path);
        Machine {
            folder,
            executable: Executable::at(path),
        }
    }

    /// Text, and what stands under `device` with `--json`.
    fn survey(&self, variables: Variables) -> (String, Value) {
        survey(&self.executable, self.folder.path(), variables)
    }
}

/// `info --device` of an executable where the loader looks in `folder` first.
fn info(
    executable: &Executable,
    folder: &Path,
    flags: &[&str],
    variables: Variables,
) -> (i32, String, String) {
    let output = command(executable.path())
        .args(["info", "--device"])
        .args(flags)
        .env_remove("SYNCBN_CUDA_LIBRARY")
        .env_remove("SYNCBN_IMAGE")
        .env("LD_LIBRARY_PATH", folder)
        .env("SYNCBN_NCCL_LIBRARY", library())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[track_caller]
fn survey(executable: &Executable, folder: &Path, variables: Variables) -> (String, Value) {
    let said = |flags: &[&str]| {
        let (code, text, error) = info(executable, folder, flags, variables);
        assert_eq!(code, 0, "{error}");
        text
    };
    let mut all: Value = serde_json::from_str(&said(&["--json"])).unwrap();
    (said(&[]), all["device"].take())
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "\"{word}\" is not in:\n{text}");
    }
}

#[test]
fn what_is_there_is_said_with_file_version_and_code() {
    let machine = Machine::new();
    let (text, json) = machine.survey(&[("SYNCBN_IMAGE", "")]);
    let file = machine.folder.path().join("libcuda.so.1").display().to_string();
    has(
        &text,
        &[
            &format!("driver      CUDA 13.0, {file}\n"),
            "GPU         0: Strict GPU, compute capability 9.0, 132 multiprocessors, 151.4 GB, ptx for sm_80\n",
            "NCCL        2.",
        ],
    );
    assert_eq!(
        json["driver"],
        json!({"found": {"file": file, "version": "CUDA 13.0"}})
    );
    let gpu = json!({"found": {
        "name": "Strict GPU",
        "compute_capability": 90,
        "multiprocessors": 132,
        "memory": 141u64 << 30,
        "code": {"found": "ptx for sm_80"},
    }});
    assert_eq!(json["gpus"], json!({"found": [gpu]}));
    assert!(json["nccl"]["found"]["version"].is_string(), "{json}");
}

#[test]
fn a_driver_that_sees_no_gpu_is_there() {
    let machine = Machine::new();
    for (variables, why) in [
        (
            [("STRICT_GPUS", "0")],
            "there is an NVIDIA driver but no GPU that it can use",
        ),
        ([("STRICT_FAIL", "cuInit:1")], "cuInit: "),
    ] {
        let (text, json) = machine.survey(&variables);
        has(
            &text,
            &["driver      CUDA 13.0, ", &format!("GPU         missing: {why}")],
        );
        assert_eq!(json["driver"]["found"]["version"], "CUDA 13.0");
        assert!(
            json["gpus"]["missing"].as_str().unwrap().starts_with(why),
            "{json}"
        );
    }
}

#[test]
fn a_gpu_that_tells_nothing_is_missing_and_the_others_are_not() {
    let variables = [("STRICT_GPUS", "2"), ("STRICT_FAIL", "cuDeviceGetName:1")];
    let (text, json) = Machine::new().survey(&variables);
    has(
        &text,
        &[
            "GPU         0: missing: cuDeviceGetName",
            "GPU         1: Strict GPU",
        ],
    );
    let gpus = &json["gpus"]["found"];
    assert!(gpus[0]["missing"].is_string(), "{json}");
    assert_eq!(gpus[1]["found"]["name"], "Strict GPU");
}

#[test]
fn without_a_driver_it_says_what_was_looked_for() {
    let nowhere = [("SYNCBN_CUDA_LIBRARY", "/nowhere/libcuda.so.1")];
    let (text, json) = Machine::new().survey(&nowhere);
    let why = "no NVIDIA driver: /nowhere/libcuda.so.1 could not be opened";
    has(
        &text,
        &[
            &format!("driver      missing: {why}"),
            "SYNCBN_CUDA_LIBRARY names",
            "GPU         missing: ",
        ],
    );
    let missing = json["driver"]["missing"].as_str().unwrap();
    assert!(missing.starts_with(why), "{json}");
    assert!(json["gpus"]["missing"].is_string(), "{json}");
}

#[test]
fn code_of_a_kind_that_is_not_there_is_missed_by_name() {
    let (text, json) = Machine::new().survey(&[("SYNCBN_IMAGE", "cubin")]);
    let why = "the executable has no device code as cubin (SYNCBN_IMAGE=cubin) for Strict GPU of compute capability 9.0";
    has(&text, &[&format!("GB, no code: {why}")]);
    assert_eq!(json["gpus"]["found"][0]["found"]["code"]["missing"], why);
}

#[test]
fn emulated_kernels_are_no_code_for_gpus() {
    let machine = Machine::new();
    let emulated = Network::new("mlp_bn1d").compiled(&["--target", "cuda-emulated"]);
    let (text, json) = survey(&emulated, machine.folder.path(), &[]);
    has(
        &text,
        &[
            "GPU         0: Strict GPU",
            "no code: the executable has no code for GPUs\n  help: compile the network with --target cuda",
        ],
    );
    let code = &json["gpus"]["found"][0]["found"]["code"];
    let why = code["missing"].as_str().unwrap();
    assert!(why.starts_with("the executable has no code for GPUs"), "{json}");
}

#[test]
fn an_executable_for_cpus_alone_says_what_to_do() {
    let executable = Network::new("mlp_bn1d").compiled(&["--target", "cpu"]);
    for flags in [&[][..], &["--json"]] {
        let (code, _, said) = info(&executable, Path::new("/nowhere"), flags, &[]);
        assert_eq!(code, 4, "{said}");
        has(&said, &["this executable has no GPU part", "--target cpu,cuda"]);
    }
}
