//! Agreement and times as gpu-check and gpu-first find them, of emulated executables.

use std::path::Path;
use std::process::Output;

use super::{NETWORK, ended, has_numpy, packed, with_numpy};

fn check(pack: &Path) -> Output {
    with_numpy(pack.join("gpu-check"))
        .args(["--device", "cuda-emulated", "--batches", "2"])
        .output()
        .unwrap()
}

fn first(pack: &Path, output: &Path) -> Output {
    with_numpy(pack.join("gpu-first"))
        .args([
            "--device",
            "cuda-emulated",
            "--phases",
            "ladder,agreement,timings,peers",
        ])
        .arg("--output")
        .arg(output)
        .output()
        .unwrap()
}

#[track_caller]
fn says(report: &str, words: &[&str]) {
    for words in words {
        assert!(report.contains(words), "\"{words}\" is not in\n{report}");
    }
}

#[test]
fn a_packed_network_is_compared_and_timed_where_there_is_no_compiler() {
    if !has_numpy() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pack = packed(folder.path(), "cuda-emulated", "f32,tf32", "mlp");
    let report = ended(&check(&pack), 0);
    says(
        &report,
        &[
            "| mlp_bn1d | f32 | 1 |",
            "| mlp_bn1d | f32 | 2 |",
            "| mlp_bn1d | tf32 | 1 |",
            "| mlp_bn1d | tf32 | 2 |",
            "| mlp | f32 | 2 |",
            "| mlp | tf32 | 2 |",
            "all well",
            "compute-sanitizer not run",
        ],
    );
    let report = ended(&first(&pack, &folder.path().join("right")), 0);
    says(
        &report,
        &[
            "ladder | mlp_bn1d tf32, infer | ok | error",
            "ladder | mlp_bn1d tf32, one step, no graphs | ok | error",
            "ladder | mlp_bn1d tf32, six steps, graphs | ok | error",
            "agreement | mlp_bn1d tf32 | ok |",
            "agreement | mlp_bn1d f32 | ok |",
            "- f32: error at most 0.",
            "| training step | ms | images/s |",
            "peers |  | not possible here | no GPU",
            "nothing wrong",
        ],
    );
    // A reference that is not met must be noticed.
    let spoil = "import sys, numpy\n\
                 a = dict(numpy.load(sys.argv[1])); a['loss'] = a['loss'] * 1.01; numpy.savez(sys.argv[1], **a)";
    let references = pack.join("dev").join(format!("{NETWORK}.npz"));
    let output = with_numpy("python3")
        .args(["-c", spoil])
        .arg(&references)
        .output();
    ended(&output.unwrap(), 0);
    says(&ended(&check(&pack), 1), &["WRONG", "| loss |"]);
    let report = ended(&first(&pack, &folder.path().join("wrong")), 1);
    says(
        &report,
        &[
            "ladder | mlp_bn1d tf32, one step, no graphs | WRONG |",
            "agreement | mlp_bn1d f32 | WRONG |",
            "of the bound: loss",
            "**3 wrong**",
        ],
    );
}
