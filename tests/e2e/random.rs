//! Networks put together at random, compiled from their text form and compared with the reference evaluation.

#[path = "../../passes/tests/random_network/mod.rs"]
mod random_network;

use std::collections::BTreeMap;
use std::path::Path;

use random_network::random_network;
use safetensors::tensor::{Dtype, TensorView};
use syncbn_ir::training::Generator;
use syncbn_ir::{Array, DType, OutputKind, RankInputs, Sgd, State, evaluate, initial_state, train_step};
use syncbn_passes::{Options, inference_graph, training_graph};

use crate::support::compare::Comparison;
use crate::support::executable::compiled;
use crate::support::files::{Arrays, Column, write_npz};

const SAMPLES: usize = 6;
const SPLITS: [&str; 4] = ["6", "4,2", "2,2,1,1", "3,0,3"];
const SGD: Sgd = Sgd {
    learning_rate: 0.05,
    momentum: 0.9,
    weight_decay: 1e-3,
    nesterov: false,
};
const SGD_FLAGS: [&str; 6] = ["--lr", "0.05", "--momentum", "0.9", "--weight-decay", "1e-3"];

/// Writes parameters and running statistics as a weights file of an f64 executable.
fn write_weights(path: &Path, state: &State) {
    let tensors: Vec<(&String, &Array, Vec<u8>)> = state
        .parameters
        .iter()
        .chain(&state.statistics[0])
        .map(|(name, array)| {
            (
                name,
                array,
                array.data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            )
        })
        .collect();
    let views = tensors.iter().map(|(name, array, bytes)| {
        (
            name.as_str(),
            TensorView::new(Dtype::F64, array.dims.clone(), bytes).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Everything.
    All,
    /// Outputs and loss. A rounding that changes a sign before a ReLU moves gradients by any amount, and that of values
    /// around 0 their mean.
    Forward,
}

/// One network, one split: inference, then a training step and what it leaves.
pub fn check(
    seed: u64,
    dtype: DType,
    flags: &[&str],
    (compared, tolerance): (Compared, f64),
    all: &mut Comparison,
) {
    let network = random_network(seed, dtype).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("network.ir");
    std::fs::write(&text, syncbn_ir::print(&network)).unwrap();
    let options = Options {
        loss_output: Some("logits".to_string()),
        batch_bound: SAMPLES,
        ..Options::default()
    };
    let (train, _) = training_graph(&network, &options).unwrap();
    let (infer, _) = inference_graph(&network, &options, None).unwrap();
    let mut state = initial_state(&train, seed).unwrap();

    let mut random = Generator(seed ^ 0x5eed);
    let x = random.array(&[SAMPLES, 3, 5, 5]);
    let mut target = Array::zeros(&[SAMPLES]);
    target
        .data
        .iter_mut()
        .for_each(|v| *v = (random.uniform() * 3.0).floor());
    let (data, weights) = (folder.path().join("d.npz"), folder.path().join("w.safetensors"));
    write_npz(&data, &[("x", Column::F64(&x)), ("target", Column::I64(&target))]);
    write_weights(&weights, &state);
    let values = BTreeMap::from([("x".to_string(), x), ("target".to_string(), target)]);
    let rank = [RankInputs { n: SAMPLES, values }];

    let executable = compiled(
        &format!("random{seed}{dtype}"),
        &text,
        &[&["--batch", "6", "--loss-output", "logits"], flags].concat(),
    );
    let start = weights.to_str().unwrap();
    let mut arrays = |title: &str, found: &Arrays, references: &Arrays| {
        for (name, array) in references {
            // The gradient of a bias before BatchNorm is 0; in float32 the rounding of its terms remains.
            let zero = dtype == DType::F32 && array.data.iter().all(|v| v.abs() < 1e-12);
            let tolerance = if zero { 1e-3 } else { tolerance };
            all.array(
                &format!("seed {seed} {title} {name}"),
                found.get(name),
                array,
                tolerance,
            );
        }
    };
    let of_kind = |outputs: &syncbn_ir::RankOutputs, kind| -> Arrays {
        outputs
            .of_kind(kind)
            .map(|(name, array)| (name.to_string(), array.clone()))
            .collect()
    };
    let inferred = evaluate(&infer, &rank, &state).unwrap().remove(0);
    let found = executable.infer(&data, &["--weights", start]);
    arrays("inference", &found, &of_kind(&inferred, OutputKind::Output));

    let outputs = train_step(&train, &rank, &mut state, &SGD).unwrap().remove(0);
    let split = SPLITS[seed as usize % SPLITS.len()];
    let flags = [
        &SGD_FLAGS[..],
        &["--weights", start, "--rank-batches", split, "--steps", "1"],
    ]
    .concat();
    let trained = executable.train(&data, &flags);
    arrays(
        "outputs",
        &trained.outputs,
        &of_kind(&outputs, OutputKind::Output),
    );
    let gradients = of_kind(&outputs, OutputKind::Gradient);
    assert_eq!(trained.gradients.len(), gradients.len(), "seed {seed}");
    if compared == Compared::All {
        arrays("gradients", &trained.gradients, &gradients);
        arrays("parameters", &trained.weights, &state.parameters);
        arrays("statistics", &trained.weights, &state.statistics[0]);
    }
    let loss = of_kind(&outputs, OutputKind::Loss).into_values().next().unwrap();
    arrays(
        "loss",
        &Arrays::from([("loss".into(), trained.loss)]),
        &Arrays::from([("loss".into(), loss)]),
    );
}

fn check_all(seeds: std::ops::Range<u64>) {
    let mut all = Comparison::default();
    seeds.for_each(|seed| check(seed, DType::F64, &[], (Compared::All, 1e-9), &mut all));
    all.finish("random networks");
}

#[test]
fn random_networks_0_to_23_match_the_reference() {
    check_all(0..24);
}

#[test]
fn random_networks_24_to_47_match_the_reference() {
    check_all(24..48);
}
