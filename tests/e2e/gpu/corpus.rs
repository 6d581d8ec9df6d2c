//! The networks of `tests/fixtures/dev` on emulated GPUs against their float64 references, in every precision.

use syncbn_ir::schedule::ImplicitGemm;
use syncbn_ir::{Array, Schedule};

use super::NETWORKS;
use super::rounding::{Bounds, spread};
use crate::corpus::{Network, SGD, output};
use crate::determinism::of_rank;
use crate::support::compare::Comparison;
use crate::support::executable::Executable;
use crate::support::fixture;
use crate::support::run::compile;

/// Samples of each rank.
const SPLITS: [&str; 4] = ["8", "4,4", "2,2,2,2", "5,3,0"];

/// The networks of every run of the tests. `SYNCBN_EMULATED` names those of another run, separated by spaces, or says
/// `all`, as `make test-emulated` does: that takes minutes.
const USUAL: [(&str, &[&str]); 3] = [
    // The last one is what truncation in tensor cores moves most.
    (
        "f32",
        &["mlp_bn1d", "syncbnnet_small", "syncbnnet_w4", "resnet18_narrow"],
    ),
    ("tf32", &["mlp_bn1d", "syncbnnet_w4"]),
    ("bf16", &["mlp_bn1d", "syncbnnet_small"]),
];

fn networks(precision: &str) -> Vec<&'static str> {
    let known = |word: &str| NETWORKS.into_iter().find(|name| *name == word);
    match std::env::var("SYNCBN_EMULATED") {
        Err(_) => {
            let (_, names) = USUAL.iter().find(|(p, _)| *p == precision).unwrap();
            names.to_vec()
        }
        Ok(words) if words == "all" => NETWORKS.to_vec(),
        Ok(words) => words
            .split_whitespace()
            .map(|word| known(word).unwrap_or_else(|| panic!("{word} is no network of tests/fixtures/dev")))
            .collect(),
    }
}

fn check_networks(precision: &'static str) {
    let names = networks(precision);
    assert!(!names.is_empty(), "SYNCBN_EMULATED names no network");
    let mut all = Comparison::default();
    for name in names {
        check(name, precision, &mut all);
    }
    all.finish(&format!("networks on emulated GPUs in {precision}"));
}

fn check(name: &'static str, precision: &'static str, all: &mut Comparison) {
    let network = Network::new(name);
    let bounds = Bounds::of(name, precision);
    let cuda = format!("cuda={precision}");
    let executable = network.compiled(&["--target", "cuda-emulated", "--precision", &cuda]);
    let before = executable.infer(&network.data(), &["--ranks", "2"]);
    let key = "eval_before";
    let reference = &network.references[key];
    all.array(
        &format!("{name}: {key}"),
        Some(output(&before)),
        reference,
        bounds.array(key),
    );
    for split in SPLITS {
        train(&network, &executable, &bounds, split, all);
    }
}

/// Compares one and three steps of a split.
fn train(network: &Network, executable: &Executable, bounds: &Bounds, split: &str, all: &mut Comparison) {
    let flags = |steps| [&SGD[..], &["--steps", steps, "--rank-batches", split]].concat();
    let data = network.data();
    let title = format!("{} {split}", network.name);
    let (one, three) = (
        executable.train(&data, &flags("1")),
        executable.train(&data, &flags("3")),
    );
    let after = executable.infer(&data, &["--weights", three.weight_file.to_str().unwrap()]);
    let first = |losses: &Array| Array::new(&[1], vec![losses.data[0]]);
    let losses = &network.references["loss"];
    for (key, found, reference) in [
        (
            "train_logits",
            output(&one.outputs),
            &network.references["train_logits"],
        ),
        ("loss1", &one.loss, &first(losses)),
        ("loss", &three.loss, losses),
        ("eval_after", output(&after), &network.references["eval_after"]),
    ] {
        all.array(
            &format!("{title}: {key}"),
            Some(found),
            reference,
            bounds.array(key),
        );
    }
    for (group, found) in [
        ("grad", &one.gradients),
        ("stats1", &one.weights),
        ("param1", &one.weights),
        ("param3", &three.weights),
        ("stats3", &three.weights),
    ] {
        for (name, reference) in network.group(group) {
            let key = format!("{group}/{name}");
            all.array(
                &format!("{title}: {key}"),
                found.get(name),
                reference,
                bounds.array(&key),
            );
        }
        let pairs = network
            .group(group)
            .filter_map(|(name, reference)| Some((found.get(name)?, reference)));
        let (spread, range) = (spread(pairs), bounds.group(group));
        all.check(range.contains(&spread), || {
            format!("{title}: {group} spread by {spread:.2e}, not in {range:?}")
        });
    }
    let first = of_rank(&three.statistics, 0);
    let layers = executable.info()["batch_norms"].as_array().unwrap().len();
    all.check(first.len() == 4 * layers, || {
        format!("{title}: {} statistics", first.len())
    });
    for rank in 1..split.split(',').count() {
        all.check(first == of_rank(&three.statistics, rank), || {
            format!("{title}: the statistics of rank {rank} are not those of rank 0 to the bit")
        });
    }
}

#[test]
fn f32() {
    check_networks("f32");
}

#[test]
fn tf32() {
    check_networks("tf32");
}

#[test]
fn bf16() {
    check_networks("bf16");
}

/// Every tile that there is for the precision, each on some convolution, and parts of its gradient for the weights.
#[test]
fn tiles_that_the_user_names() {
    let network = Network::new("syncbnnet_w4");
    let model = fixture("dev/syncbnnet_w4.onnx");
    let folder = tempfile::tempdir().unwrap();
    let compiled = |own: &[&str], flags: &[String]| {
        let own = [&[model.to_str().unwrap()][..], own].concat();
        let part = ["--target", "cuda-emulated", "--precision", "cuda=f32"];
        let words = [own, part.to_vec()].concat().into_iter().map(String::from);
        let words = words.chain(flags.iter().cloned()).collect::<Vec<String>>();
        compile(folder.path(), &words).ok().text().to_string()
    };
    let report = |flags: &[String]| compiled(&["--emit", "schedule", "-o", "-"], flags);
    let text = report(&[]);
    let line = |line: &str| Some(line.strip_prefix("conv \"")?.split_once('"')?.0.to_string());
    let mut names: Vec<String> = text.lines().filter_map(line).collect();
    names.dedup();
    let tiles = ImplicitGemm::THREE_TF32;
    assert!(names.len() >= tiles.len(), "{names:?}");
    let mut flags = Vec::new();
    let mut wanted = Vec::new();
    for (name, tile) in names.iter().zip(tiles) {
        let whole = Schedule::ImplicitGemm(tile);
        let parts = Schedule::ImplicitGemm(ImplicitGemm { splits: 3, ..tile });
        flags.extend(["--schedule".to_string(), format!("{name}={whole}")]);
        flags.extend([
            "--schedule".to_string(),
            format!("conv_backward_weight {name}={parts}"),
        ]);
        wanted.extend([whole.to_string(), parts.to_string()]);
    }
    let text = report(&flags);
    for schedule in wanted {
        let is_chosen = |line: &str| line.starts_with("  * ") && line.ends_with(&schedule);
        assert!(text.lines().any(is_chosen), "{schedule} is not chosen in\n{text}");
    }
    compiled(&["-o", "m.bin"], &flags);
    let executable = Executable::at(folder.path().join("m.bin"));
    let mut all = Comparison::default();
    train(
        &network,
        &executable,
        &Bounds::of(network.name, "f32"),
        "4,4",
        &mut all,
    );
    all.finish("a network in tiles that the user names");
}
