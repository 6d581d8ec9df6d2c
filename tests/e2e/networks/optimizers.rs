//! The generated updates of the optimisers, under learning rates that change, against the reference.

use std::collections::BTreeMap;

use syncbn_ir::training::Generator;
use syncbn_ir::{AdamW, Array, DType, Optimizer, RankInputs, Sgd, initial_state, train_step};
use syncbn_onnx::ImportOptions;
use syncbn_passes::{Options, training_graph};

use super::check::SPLITS;
use crate::support::compare::Comparison;
use crate::support::executable::compiled;
use crate::support::files::{Column, write_npz};
use crate::support::net::Attribute::Ints;
use crate::support::net::Net;

/// Samples of each of [`SPLITS`].
const SAMPLES: usize = 6;

/// Trains with `flags`, in as many steps as there are optimisers, and compares all weights with what the
/// optimisers make of them in the reference.
fn check(what: &str, optimizers: &[impl Optimizer], flags: &[&str]) {
    // Odd sizes leave elements beside the vectors. No parameter has a gradient of 0 but for rounding errors,
    // which AdamW would turn into steps of full length.
    let mut net = Net::new(&[3, 6, 6]);
    let x = net.conv_bn_relu("x", &[7, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let y = net.head(&x, 7, 5);
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("model.onnx");
    std::fs::write(&onnx, net.finish(&[&y])).unwrap();

    let mut random = Generator(3);
    let mut x = random.array(&[SAMPLES, 3, 6, 6]);
    x.data.iter_mut().for_each(|v| *v = f64::from(*v as f32));
    let labels = (0..SAMPLES).map(|_| (random.uniform() * 5.0).floor()).collect();
    let target = Array::new(&[SAMPLES], labels);
    let data = folder.path().join("data.npz");
    write_npz(&data, &[("x", Column::F64(&x)), ("target", Column::I64(&target))]);

    let import = ImportOptions {
        dtype: Some(DType::F64),
        ..ImportOptions::default()
    };
    let imported = syncbn_onnx::import(&onnx, &import).unwrap();
    let options = Options {
        batch_bound: SAMPLES,
        ..Options::default()
    };
    let (train, _) = training_graph(&imported.graph, &options).unwrap();
    let values = BTreeMap::from([("x".to_string(), x), ("target".to_string(), target)]);
    let rank = [RankInputs { n: SAMPLES, values }];
    let mut state = initial_state(&train, 0).unwrap();
    for optimizer in optimizers {
        train_step(&train, &rank, &mut state, optimizer).unwrap();
    }

    let mut all = Comparison::default();
    let steps = optimizers.len().to_string();
    for (target, precision, tolerance) in [
        ("cpu", "f64", 1e-9),
        ("cpu", "f32", 1e-4),
        ("cuda-emulated", "f32", 1e-4),
    ] {
        let asked = ["--target", target, "--precision", precision, "--batch", "8"];
        let executable = compiled("optimizers", &onnx, &asked);
        for split in SPLITS {
            let flags = [flags, &["--rank-batches", split, "--steps", &steps]].concat();
            let trained = executable.train(&data, &flags);
            for (name, expected) in state.parameters.iter().chain(&state.statistics[0]) {
                let title = format!("{target} {precision} {split} {name}");
                all.array(&title, trained.weights.get(name), expected, tolerance);
            }
        }
    }
    all.finish(what);
}

#[test]
fn adamw_with_warmup_and_cosine() {
    let rates = [0.01, 0.02, 0.02, 0.01].map(|learning_rate| AdamW {
        learning_rate,
        beta1: 0.8,
        beta2: 0.95,
        epsilon: 1e-4,
        weight_decay: 0.1,
    });
    let flags = "--optimizer adamw --lr 0.02 --beta1 0.8 --beta2 0.95 --epsilon 1e-4 --weight-decay 0.1 \
                 --warmup 2 --schedule cosine";
    check("adamw", &rates, &flags.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn nesterov_with_steps() {
    let rates = [0.05, 0.05, 0.025, 0.025].map(|learning_rate| Sgd {
        learning_rate,
        momentum: 0.9,
        weight_decay: 1e-2,
        nesterov: true,
    });
    // Every step is an epoch here.
    let flags =
        "--lr 0.05 --momentum 0.9 --weight-decay 1e-2 --nesterov --schedule step --step-size 2 --gamma 0.5";
    check("nesterov", &rates, &flags.split_whitespace().collect::<Vec<_>>());
}
