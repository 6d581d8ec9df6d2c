//! What is counted and what is compared bit by bit: collectives, statistics of the ranks, repeated runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::corpus::{Network, SGD};
use crate::support::executable::{Executable, compiled};
use crate::support::files::Arrays;
use crate::support::fixture;
use crate::support::net::Attribute::Ints;
use crate::support::net::Net;
use crate::support::run::{compile, listing};

fn collectives(executable: &Executable, flags: &[&str]) -> u64 {
    let short = ["bench", "--json", "--steps", "2", "--warmup", "1", "--batch", "2"];
    let outcome = executable.run(Path::new("."), &[&short[..], flags].concat()).ok();
    outcome.json()["collectives_per_step"].as_u64().unwrap()
}

#[test]
fn collectives_are_executed_where_they_are_needed_only() {
    for (name, mode) in [
        ("syncbnnet_w4", "sync"),
        ("syncbnnet_w4", "local"),
        ("densenet_like", "sync"),
        ("mlp_bn1d", "sync"),
    ] {
        let executable = Network::new(name).compiled(&["--precision", "f32", "--bn", mode]);
        let info = executable.info();
        let planned = info["collectives_per_step"].as_u64().unwrap();
        assert_eq!(collectives(&executable, &["--ranks", "1"]), 0, "{name}");
        assert_eq!(collectives(&executable, &["--ranks", "2"]), planned, "{name}");
        assert_eq!(collectives(&executable, &["--ranks", "3"]), planned, "{name}");
        for ranks in ["1", "3"] {
            let found = collectives(&executable, &["--mode", "infer", "--ranks", ranks]);
            assert_eq!(found, 0, "{name}");
        }
        let layers = info["batch_norms"].as_array().unwrap().len() as u64;
        // One all-reduce forward and one backward for each BatchNorm at most, and the gradients'.
        let least = if mode == "sync" { 2 } else { 1 };
        assert!(
            (least..=2 * layers + 1).contains(&planned),
            "{name}: {planned} of {layers} layers"
        );
        if mode == "local" {
            assert_eq!(planned, 1);
        }
    }
}

#[test]
fn small_buckets_are_more_collectives_and_the_same_numbers() {
    let network = Network::new("syncbnnet_w4");
    let flags = [&SGD[..], &["--steps", "3", "--ranks", "2", "--batch", "2"]].concat();
    let one = network.compiled(&["--precision", "f32"]);
    let several = network.compiled(&["--precision", "f32", "--bucket-bytes", "2000"]);
    let buckets = |executable: &Executable| -> Vec<u64> {
        let info = executable.info();
        let list = info["collectives"].as_array().unwrap().iter();
        list.filter(|c| c["name"].as_str().unwrap().contains("gradients"))
            .map(|c| c["bytes"].as_u64().unwrap())
            .collect()
    };
    let (whole, parts) = (buckets(&one), buckets(&several));
    assert!(whole.len() == 1 && parts.len() > 2, "{whole:?} {parts:?}");
    assert!(parts.iter().sum::<u64>() >= whole[0], "{whole:?} {parts:?}");
    assert!(
        several.info()["flags"]
            .as_array()
            .unwrap()
            .contains(&serde_json::json!(["bucket-bytes", "2000"]))
    );
    let short = collectives(&several, &["--ranks", "2"]) - collectives(&one, &["--ranks", "2"]);
    assert_eq!(short as usize, parts.len() - whole.len());
    // Every sum over ranks is taken in rank order, whatever else is in the bucket: not a bit differs.
    let (one, several) = (
        one.train(&network.data(), &flags),
        several.train(&network.data(), &flags),
    );
    assert!(one.weight_bytes == several.weight_bytes, "weights differ");
    assert_eq!(one.loss.data, several.loss.data);
}

#[test]
fn info_agrees_with_itself_and_with_the_network() {
    let network = Network::new("syncbnnet_w4");
    let executable = network.compiled(&["--precision", "f32"]);
    let info = executable.info();
    let list = info["collectives"].as_array().unwrap();
    assert_eq!(info["collectives_per_step"], list.len());
    let bytes: u64 = list.iter().map(|c| c["bytes"].as_u64().unwrap()).sum();
    assert_eq!(info["collective_bytes_per_step"], bytes);
    // One for each of 11 BatchNorms in either direction, and the gradients. Both shortcuts with a BatchNorm share theirs
    // with the main branch, which changes no bytes.
    assert_eq!(info["collectives_per_step_uncombined"], 2 * 11 + 1);
    assert_eq!(list.len(), 2 * (11 - 2) + 1);
    assert_eq!(info["collective_bytes_per_step_uncombined"], bytes);
    let names = |list: &serde_json::Value| -> BTreeSet<String> {
        let list = list.as_array().unwrap();
        list.iter().map(|n| n.as_str().unwrap().to_string()).collect()
    };
    let of = |prefix: &str| -> BTreeSet<String> {
        let keys = network.references.keys();
        keys.filter_map(|k| Some(k.strip_prefix(prefix)?.to_string()))
            .collect()
    };
    assert_eq!(names(&info["trained"]), of("grad/"));
    assert!(names(&info["constant"]).is_empty());
    let statistics = info["statistics"].as_array().unwrap();
    let statistics: BTreeSet<String> = statistics
        .iter()
        .map(|s| s["name"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(statistics, of("stats1/"));
    assert_eq!(info["batch_norms"].as_array().unwrap().len(), 11);
    assert_eq!(info["batch_norm_mode"], "sync");
    assert_eq!(info["inputs"][0]["name"], "x");
    assert_eq!(info["inputs"][0]["shape"], serde_json::json!([3, 16, 16]));
    let trained = info["parameters"].as_array().unwrap().iter().map(|p| {
        let shape = p["shape"].as_array().unwrap();
        shape.iter().map(|n| n.as_u64().unwrap()).product::<u64>()
    });
    assert_eq!(trained.sum::<u64>(), 5518);
    let text = executable.run(Path::new("."), &["info"]).ok();
    for word in [
        "syncbn-compile",
        "GLIBC",
        "stem.conv.weight",
        "--bn sync",
        "fc.bias",
    ] {
        assert!(
            text.text().to_lowercase().contains(&word.to_lowercase()),
            "{word}"
        );
    }
}

/// The arrays of one rank in a dump of statistics.
pub fn of_rank(statistics: &Arrays, rank: usize) -> Vec<(String, Vec<u64>)> {
    let prefix = format!("rank{rank}/");
    let bits = |data: &[f64]| data.iter().map(|v| v.to_bits()).collect();
    let named = statistics.iter();
    named
        .filter_map(|(name, a)| Some((name.strip_prefix(&prefix)?.to_string(), bits(&a.data))))
        .collect()
}

#[test]
fn every_rank_has_the_same_statistics_to_the_bit() {
    for name in ["syncbnnet_w4", "resnet18_narrow"] {
        let network = Network::new(name);
        let executable = network.compiled(&["--precision", "f32"]);
        for split in ["5,3,0", "2,2,2,2", "1,1,1,1,1,1,1,1"] {
            let flags = [&SGD[..], &["--steps", "3", "--rank-batches", split]].concat();
            let run = executable.train(&network.data(), &flags);
            let first = of_rank(&run.statistics, 0);
            let layers = executable.info()["batch_norms"].as_array().unwrap().len();
            // Running mean and variance, and the last step's mean and inverse deviation.
            assert_eq!(first.len(), 4 * layers);
            for rank in 1..split.split(',').count() {
                assert!(
                    first == of_rank(&run.statistics, rank),
                    "{name} {split} rank {rank}"
                );
            }
        }
        let local = network.compiled(&["--precision", "f32", "--bn", "local"]);
        let run = local.train(&network.data(), &["--steps", "1", "--rank-batches", "4,4"]);
        assert!(
            of_rank(&run.statistics, 0) != of_rank(&run.statistics, 1),
            "{name} local"
        );
    }
}

#[test]
fn two_compilations_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["syncbnnet_w4", "mlp_bn1d"] {
        let model = fixture(&format!("dev/{name}.onnx"));
        let bytes = ["one", "two"].map(|out| {
            compile(folder.path(), &[model.to_str().unwrap(), "-o", out]).ok();
            std::fs::read(folder.path().join(out)).unwrap()
        });
        assert!(bytes[0] == bytes[1], "{name}");
    }
    assert_eq!(listing(folder.path()), ["one", "two"]);
}

#[test]
fn an_executable_needs_the_c_library_only() {
    let executable = Network::new("mlp_bn1d").compiled(&["--precision", "f32"]);
    let output = Command::new("ldd").arg(executable.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        let name = line
            .split_whitespace()
            .next()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap();
        let allowed = [
            "libc.so.6",
            "libm.so.6",
            "ld-linux-x86-64.so.2",
            "linux-vdso.so.1",
        ];
        assert!(allowed.contains(&name), "{line}");
    }
    assert!(text.contains("libc.so.6"), "{text}");
}

#[test]
fn init_makes_weights_that_depend_on_the_seed_only() {
    let mut net = Net::new(&[3, 8, 8]).weight_free();
    let x = net.conv_bn_relu("x", &[6, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let y = net.head(&x, 6, 4);
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("free.onnx");
    std::fs::write(&onnx, net.finish(&[&y])).unwrap();
    let mut data = syncbn_ir::training::Generator(1);
    let x = data.array(&[4, 3, 8, 8]);
    let target = syncbn_ir::Array::zeros(&[4]);
    let npz = folder.path().join("data.npz");
    use crate::support::files::{Column, write_npz};
    write_npz(&npz, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);
    let start = |flag: &str, batch: &str| {
        let executable = compiled("weight_free", &onnx, &[flag, "--batch", batch]);
        executable.train(&npz, &["--lr", "0", "--steps", "1"])
    };
    let one = start("--init=1", "4");
    let names: Vec<&str> = one.gradients.keys().map(String::as_str).collect();
    let expected = [
        "bn2.bias",
        "bn2.weight",
        "conv1.weight",
        "linear6.bias",
        "linear6.weight",
    ];
    assert_eq!(names, expected);
    assert!(one.weights["bn2.weight"].data.iter().all(|&v| v == 1.0));
    assert!(one.weights["bn2.bias"].data.iter().all(|&v| v == 0.0));
    assert!(one.weights["linear6.bias"].data.iter().all(|&v| v == 0.0));
    let weight = &one.weights["conv1.weight"].data;
    let variance = weight.iter().map(|v| v * v).sum::<f64>() / weight.len() as f64;
    assert!((0.5..2.0).contains(&(variance * 27.0 / 2.0)), "{variance}");
    // Another bound of the batch is another executable.
    assert_eq!(
        start("--init=1", "8").weights["conv1.weight"],
        one.weights["conv1.weight"]
    );
    assert_ne!(
        start("--init=2", "4").weights["conv1.weight"],
        one.weights["conv1.weight"]
    );
}
