//! The BatchNorm modes against `tests/fixtures/modes`.

use std::path::Path;

use syncbn_ir::training::Generator;

use crate::corpus::{Network, SGD, output};
use crate::support::compare::{Comparison, error};
use crate::support::files::{Arrays, Column, read_npz, write_npz};
use crate::support::fixture;

/// Bound in float64.
const F64_LIMIT: f64 = 1e-9;
/// Bound in float32.
const F32_LIMIT: f64 = 1e-4;

/// Network, case, and the arrays that are not determined to [`F32_LIMIT`] in float32, nor where the last figure
/// says so to [`F64_LIMIT`] in float64. Two to five samples leave BatchNorm as many values a channel in the last
/// layers, and normalising so few amplifies rounding a hundred to a thousand times a step. A test below measures
/// it: an input that is off by [`ROUNDINGS`] takes these arrays past the bound in float64 as well.
const SENSITIVE: [(&str, &str, &[&str], f64); 6] = [
    ("mlp_bn1d", "local/2,2,2,2", &["param3", "eval_after"], F64_LIMIT),
    ("resnet18_narrow", "group=2/2,2,2,2", AFTER_THREE_STEPS, F64_LIMIT),
    ("resnet18_narrow", "group=2/3,2,0,3", AFTER_THREE_STEPS, F64_LIMIT),
    ("resnet18_narrow", "local/4,4", AFTER_THREE_STEPS, F64_LIMIT),
    ("resnet18_narrow", "local/5,3", AFTER_THREE_STEPS, F64_LIMIT),
    ("resnet18_narrow", "local/2,2,2,2", FROM_GRADIENTS_ON, 1e-5),
];
const AFTER_THREE_STEPS: &[&str] = &["loss", "stats3", "param3", "eval_after"];
const FROM_GRADIENTS_ON: &[&str] = &["grad", "loss", "stats3", "param3", "eval_after"];

/// Error of the input, relative, which moves the outputs of the first step by about 1e-5, as float32 does.
const ROUNDINGS: f64 = 64.0 * f32::EPSILON as f64;

/// The bound of an array; None where float32 does not determine it.
fn tolerance(name: &str, case: &str, group: &str, precision: &str) -> Option<f64> {
    let sensitive = SENSITIVE
        .iter()
        .find(|(n, c, groups, _)| *n == name && *c == case && groups.contains(&group));
    match (precision, sensitive) {
        ("f64", None) => Some(F64_LIMIT),
        ("f64", Some((.., limit))) => Some(*limit),
        (_, None) => Some(F32_LIMIT),
        (_, Some(_)) => None,
    }
}

/// Arrays of a case by their names in the reference.
fn run(network: &Network, mode: &str, split: &str, precision: &str, data: &Path) -> Arrays {
    let executable = network.compiled(&["--precision", precision, "--bn", mode]);
    let flags = |steps| [&SGD[..], &["--steps", steps, "--rank-batches", split]].concat();
    let one = executable.train(data, &flags("1"));
    let three = executable.train(data, &flags("3"));
    let after = executable.infer(data, &["--weights", three.weight_file.to_str().unwrap()]);
    let mut arrays = Arrays::from([
        ("train_logits".to_string(), output(&one.outputs).clone()),
        ("eval_after".to_string(), output(&after).clone()),
        ("loss".to_string(), three.loss),
    ]);
    let mut add = |group: &str, from: Arrays| {
        arrays.extend(from.into_iter().map(|(name, a)| (format!("{group}/{name}"), a)));
    };
    add("grad", one.gradients);
    add("stats1", one.weights);
    add("stats3", three.weights.clone());
    add("param3", three.weights);
    arrays
}

/// Checks every case of a mode, such as `local/5,3`: the mode and the samples of each rank.
fn check(name: &'static str, mode: &str, precision: &str) {
    let references = read_npz(&fixture(&format!("modes/{name}.npz")));
    let network = Network::new(name);
    let mut all = Comparison::default();
    let mut splits: Vec<&str> = references
        .keys()
        .filter_map(|key| key.strip_prefix(mode)?.strip_prefix('/')?.split('/').next())
        .collect();
    splits.dedup();
    assert!(!splits.is_empty(), "{name} has no case of {mode}");
    for split in splits {
        let case = format!("{mode}/{split}");
        let found = run(&network, mode, split, precision, &network.data());
        let mut gradients = 0;
        for (key, reference) in &references {
            let Some(array) = key.strip_prefix(&case).and_then(|k| k.strip_prefix('/')) else {
                continue;
            };
            let group = array.split('/').next().unwrap();
            gradients += usize::from(group == "grad");
            match tolerance(name, &case, group, precision) {
                Some(tolerance) => all.array(key, found.get(array), reference, tolerance),
                None => all.check(found.contains_key(array), || format!("{key} is missing")),
            }
        }
        let dumped = found.keys().filter(|k| k.starts_with("grad/")).count();
        all.check(dumped == gradients, || {
            format!("{case}: {dumped} gradients instead of {gradients}")
        });
    }
    all.finish(&format!("{name} in {precision}"));
}

/// The table of sensitive arrays holds nothing that float32 could determine.
#[test]
fn what_float32_does_not_determine_is_sensitive_in_float64_too() {
    let mut all = Comparison::default();
    for (name, case, groups, _) in SENSITIVE {
        let network = Network::new(name);
        let folder = tempfile::tempdir().unwrap();
        let (mode, split) = case.split_once('/').unwrap();
        let exact = run(&network, mode, split, "f64", &network.data());
        let mut x = network.references["x"].clone();
        let mut random = Generator(1);
        for value in &mut x.data {
            *value *= 1.0 + (random.uniform() * 2.0 - 1.0) * ROUNDINGS;
        }
        let moved = folder.path().join("moved.npz");
        let target = Column::I64(&network.references["target"]);
        write_npz(&moved, &[("x", Column::F64(&x)), ("target", target)]);
        let moved = run(&network, mode, split, "f64", &moved);
        let furthest = |group: &str| {
            let of_group = exact
                .iter()
                .filter(|(key, _)| key.split('/').next() == Some(group));
            of_group.map(|(key, a)| error(&moved[key], a)).fold(0.0, f64::max)
        };
        for group in groups {
            let distance = furthest(group);
            all.check(distance > F32_LIMIT, || {
                format!("{name} {case} {group} moves by {distance:.1e} only")
            });
        }
    }
    all.finish("sensitive arrays");
}

macro_rules! modes {
    ($($name:ident)*) => { $(
        mod $name {
            #[test]
            fn local() {
                super::check(stringify!($name), "local", "f32");
                super::check(stringify!($name), "local", "f64");
            }
            #[test]
            fn groups_of_two() {
                super::check(stringify!($name), "group=2", "f32");
                super::check(stringify!($name), "group=2", "f64");
            }
            #[test]
            fn frozen() {
                super::check(stringify!($name), "frozen", "f32");
                super::check(stringify!($name), "frozen", "f64");
            }
        }
    )* };
}

modes! { syncbnnet_w4 resnet18_narrow mlp_bn1d }
