//! The BatchNorm modes against `tests/fixtures/modes`.

use syncbn_ir::Array;

use crate::corpus::{Network, SGD, output};
use crate::support::compare::Comparison;
use crate::support::files::{Arrays, read_npz};
use crate::support::fixture;

/// Checks every case of a mode, such as `local/5,3`: the mode and the samples of each rank.
fn check(name: &'static str, mode: &str, precision: &str, tolerance: f64) {
    let references = read_npz(&fixture(&format!("modes/{name}.npz")));
    let network = Network::new(name);
    let executable = network.compiled(&["--precision", precision, "--bn", mode]);
    let data = network.data();
    let mut all = Comparison::default();
    let mut cases: Vec<&str> = references
        .keys()
        .filter_map(|key| key.strip_prefix(mode)?.strip_prefix('/')?.split('/').next())
        .collect();
    cases.dedup();
    assert!(!cases.is_empty(), "{name} has no case of {mode}");
    for case in cases {
        let split = ["--rank-batches", case];
        let flags = |steps| [&SGD[..], &["--steps", steps], &split].concat();
        let (one, three) = (
            executable.train(&data, &flags("1")),
            executable.train(&data, &flags("3")),
        );
        let after = executable.infer(&data, &["--weights", three.weight_file.to_str().unwrap()]);
        let prefix = format!("{mode}/{case}/");
        let mut gradients = 0;
        for (key, reference) in &references {
            let Some(array) = key.strip_prefix(&prefix) else {
                continue;
            };
            let (group, parameter) = array.split_once('/').unwrap_or((array, ""));
            let find = |arrays: &Arrays| arrays.get(parameter).cloned();
            let found: Option<Array> = match group {
                "train_logits" => Some(output(&one.outputs).clone()),
                "eval_after" => Some(output(&after).clone()),
                "loss" => Some(three.loss.clone()),
                "grad" => find(&one.gradients),
                "stats1" => find(&one.weights),
                "stats3" | "param3" => find(&three.weights),
                other => panic!("{key} is of an unknown kind {other}"),
            };
            gradients += usize::from(group == "grad");
            all.array(key, found.as_ref(), reference, tolerance);
        }
        all.check(gradients == one.gradients.len(), || {
            format!(
                "{prefix}: {} gradients instead of {gradients}",
                one.gradients.len()
            )
        });
    }
    all.finish(&format!("{name} in {precision}"));
}

macro_rules! modes {
    ($($name:ident)*) => { $(
        mod $name {
            #[test]
            fn local() {
                super::check(stringify!($name), "local", "f32", 1e-4);
                super::check(stringify!($name), "local", "f64", 1e-9);
            }
            #[test]
            fn groups_of_two() {
                super::check(stringify!($name), "group=2", "f32", 1e-4);
                super::check(stringify!($name), "group=2", "f64", 1e-9);
            }
            #[test]
            fn frozen() {
                super::check(stringify!($name), "frozen", "f32", 1e-4);
                super::check(stringify!($name), "frozen", "f64", 1e-9);
            }
        }
    )* };
}

modes! { syncbnnet_w4 resnet18_narrow mlp_bn1d }
