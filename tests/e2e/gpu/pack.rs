//! Executables on a processor with fewer features than the one that compiled them, as packs meet it: `qemu-x86_64
//! -cpu Haswell` (Debian's qemu-user) has AVX2 and no AVX-512. Without it the tests are left out, which is said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSection};

use crate::support::fixture;
use crate::support::run::{Outcome, compile, compiler, run};

/// One that has convolutions on tensor cores.
const NETWORK: &str = "syncbnnet_small";
/// AVX2, FMA and what else is in x86-64-v3.
const OLDER: &str = "Haswell";
/// The first processors with x86-64.
const FIRST: &str = "Opteron_G1";

/// Whether there is an emulator of processors that knows AVX2, which QEMU does from 7.2 on.
#[allow(clippy::print_stderr)]
fn has_qemu() -> bool {
    let version = Command::new("qemu-x86_64").arg("--version").output();
    let text = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let number = text.ok().and_then(|text| {
        let mut parts = text.split("version ").nth(1)?.split(['.', ' ']);
        Some((
            parts.next()?.parse::<u32>().ok()?,
            parts.next()?.parse::<u32>().ok()?,
        ))
    });
    let found = number.is_some_and(|number| number >= (7, 2));
    if !found {
        eprintln!("there is no qemu-x86_64 of version 7.2 or later: nothing runs on an older processor");
    }
    found
}

/// Runs an executable on the named processor.
fn run_on(processor: &str, executable: &Path, folder: &Path, arguments: &[&str]) -> Outcome {
    let own = ["-cpu", processor, executable.to_str().unwrap()];
    run(Path::new("qemu-x86_64"), folder, &[&own, arguments].concat())
}

/// Packs the network for the emulator and unpacks that: the folder of the unpacked pack.
fn unpacked(folder: &Path) -> PathBuf {
    let archive = folder.join("pack.tar.gz");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/gpu-pack");
    let pack = Command::new(script)
        .arg(&archive)
        .args(["--target", "cpu,cuda-emulated", "--networks", NETWORK])
        .args(["--precisions", "tf32"])
        .env("SYNCBN_COMPILE", compiler())
        .output()
        .unwrap();
    assert!(pack.status.success(), "{}", String::from_utf8_lossy(&pack.stderr));
    let tar = Command::new("tar")
        .arg("xzf")
        .arg(&archive)
        .current_dir(folder)
        .status();
    assert!(tar.unwrap().success());
    folder.join("gpu-check")
}

/// The bytes of all files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// What a packed executable makes on one device: its description, outputs and one step of training.
fn results(device: &str, data: &Path, run: impl Fn(&Path, &[&str]) -> Outcome) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let data = data.to_str().unwrap();
    let common = ["--device", device, "--data", data];
    let info = run(folder.path(), &["info"]).ok().stdout;
    run(
        folder.path(),
        &[&["infer", "-o", "inferred.npz"], &common[..]].concat(),
    )
    .ok();
    let train = ["train", "--steps", "1", "--batch", "4", "--ranks", "1"];
    let train = [
        &train[..],
        &["--save", "w.safetensors", "--dump-gradients", "g.safetensors"],
        &["--dump-statistics", "s.safetensors", "--dump-outputs", "o.npz"],
        &common[..],
    ]
    .concat();
    run(folder.path(), &train).ok();
    let mut all = files(folder.path());
    assert_eq!(all.len(), 5, "{:?}", all.keys());
    all.insert("info".to_string(), info);
    all
}

#[test]
fn an_unpacked_pack_gives_the_same_bits_on_an_older_processor() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pack = unpacked(folder.path());
    let executable = pack.join(format!("dev/{NETWORK}.tf32"));
    let data = pack.join(format!("dev/{NETWORK}.npz"));
    for device in ["cpu", "cuda-emulated"] {
        let here = results(device, &data, |at, arguments| run(&executable, at, arguments));
        let older = results(device, &data, |at, arguments| {
            run_on(OLDER, &executable, at, arguments)
        });
        let differ: Vec<&String> = here.keys().filter(|name| here[*name] != older[*name]).collect();
        assert!(differ.is_empty(), "on {device}, {OLDER} gives other {differ:?}");
    }
}

#[test]
fn code_for_a_newer_processor_is_refused_and_the_flag_named() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/mlp_bn1d.onnx");
    let data = fixture("dev/mlp_bn1d.npz");
    let executable = folder.path().join("m.bin");
    let flags = [
        "-o",
        "m.bin",
        "--target",
        "cpu,cuda-emulated",
        "--cpu",
        "x86-64-v4",
    ];
    compile(folder.path(), &[&[model.to_str().unwrap()], &flags[..]].concat()).ok();
    for device in ["cpu", "cuda-emulated"] {
        let train = ["train", "--device", device, "--steps", "1", "--data"];
        let train = [&train[..], &[data.to_str().unwrap()]].concat();
        run_on(OLDER, &executable, folder.path(), &train).exits(4).says(&[
            "another processor",
            "compiled with --cpu x86-64-v4",
            "lacks avx512",
            "with `syncbn-compile --cpu x86-64-v3`",
        ]);
    }
    // Whoever wants to know what an executable is for need not have that processor.
    run_on(OLDER, &executable, folder.path(), &["info"]).ok();
    // What would do on the older processor does not do on the first.
    let train = ["train", "--device", "cpu", "--data", data.to_str().unwrap()];
    run_on(FIRST, &executable, folder.path(), &train).exits(4).says(&[
        "lacks avx, avx2",
        "on this machine, with `syncbn-compile --cpu native`",
    ]);
}

/// The bytes of an executable's machine code.
fn code(executable: &Path) -> Vec<u8> {
    let bytes = std::fs::read(executable).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let text = file.section_by_name(".text").unwrap();
    text.data().unwrap().to_vec()
}

#[test]
fn what_launches_on_gpus_runs_on_every_processor() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/mlp_bn1d.onnx");
    let processors = ["native", "x86-64-v3", "x86-64-v4"];
    for cpu in processors {
        let flags = ["-o", cpu, "--target", "cuda", "--cpu", cpu];
        compile(folder.path(), &[&[model.to_str().unwrap()], &flags[..]].concat()).ok();
        let executable = folder.path().join(cpu);
        let info = run(&executable, folder.path(), &["info", "--json"]).ok().json();
        assert_eq!(info["cpu"]["features"], serde_json::json!([]), "{cpu}");
    }
    let codes = processors.map(|cpu| code(&folder.path().join(cpu)));
    assert!(
        !codes[0].is_empty() && codes[0] == codes[1] && codes[0] == codes[2],
        "--cpu changes the host code of the GPU part"
    );
    if !has_qemu() {
        return;
    }
    let data = fixture("dev/mlp_bn1d.npz");
    let train = ["train", "--device", "cuda", "--data", data.to_str().unwrap()];
    for processor in [OLDER, FIRST] {
        for cpu in processors {
            let outcome = run_on(processor, &folder.path().join(cpu), folder.path(), &train).exits(4);
            let said = outcome.says(&["driver"]).stderr;
            assert!(!said.contains("processor"), "{processor}, --cpu {cpu}: {said}");
        }
    }
}
