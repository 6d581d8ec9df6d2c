//! Float32 accuracy where a plain BatchNorm loses it: a mean of 1e3 or 1e4 with a deviation of 1.

use std::collections::BTreeMap;

use syncbn_ir::training::Generator;
use syncbn_ir::{Array, OutputKind, RankInputs, Sgd, initial_state, train_step};
use syncbn_onnx::ImportOptions;
use syncbn_passes::{Options, training_graph};

use crate::support::compare::Comparison;
use crate::support::executable::compiled;
use crate::support::files::{Column, write_npz};
use crate::support::net::Net;

const SIZE: i64 = 8;

/// What is compared does not depend on the optimiser.
const SGD: Sgd = Sgd {
    learning_rate: 0.01,
    momentum: 0.0,
    weight_decay: 0.0,
    nesterov: false,
};

/// What stands between the input and the BatchNorm.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// Adds a trained tensor of zeros: its gradient is BatchNorm's dx, summed over samples.
    Offset,
    /// Convolutions with the identity. The gradient of their weights loses what the mean takes from a float32.
    Identity,
}

struct Case {
    name: &'static str,
    before: Before,
    channels: i64,
    mean: f64,
    /// Deviations from the mean are multiples of this of at most 2, unless it is 0.
    grain: f64,
    flags: &'static [&'static str],
    /// Gradients of BatchNorm and of what stands before it.
    gradients: usize,
}

fn network(case: &Case) -> Vec<u8> {
    let channels = case.channels;
    let mut net = Net::new(&[channels, SIZE, SIZE]);
    let mut x = "x".to_string();
    if case.before == Before::Offset {
        let dims = [1, channels, SIZE, SIZE];
        let zeros = vec![0.0; dims.iter().product::<i64>() as usize];
        let zeros = net.floats("offset", &dims, &zeros);
        x = net.node("Add", &[&x, &zeros], &[]);
    }
    if case.before == Before::Identity {
        let element = |i: i64| f64::from(u8::from(i / channels == i % channels));
        let weight: Vec<f64> = (0..channels * channels).map(element).collect();
        let weight = net.floats("identity", &[channels, channels, 1, 1], &weight);
        // The first one brings channels innermost, where tensor cores take them.
        x = net.node("Conv", &[&x, &weight], &[]);
        x = net.node("Conv", &[&x, &weight], &[]);
    }
    let normalized = net.bn(&x, channels);
    let x = net.node("Flatten", &[&normalized], &[]);
    let logits = net.linear(&x, channels * SIZE * SIZE, 5);
    net.finish(&[&normalized, &logits])
}

fn check(case: &Case) {
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("model.onnx");
    std::fs::write(&onnx, network(case)).unwrap();
    let samples = 6;
    let mut random = Generator(3);
    let mut x = random.array(&[samples, case.channels as usize, SIZE as usize, SIZE as usize]);
    x.data.iter_mut().for_each(|v| {
        let deviation = match case.grain {
            0.0 => *v,
            grain => (v.clamp(-2.0, 2.0) / grain).round() * grain,
        };
        *v = f64::from((case.mean + deviation) as f32);
    });
    let labels: Vec<f64> = (0..samples).map(|i| (i % 5) as f64).collect();
    let target = Array::new(&[samples], labels);
    let data = folder.path().join("data.npz");
    write_npz(&data, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);

    let import = ImportOptions {
        dtype: Some(syncbn_ir::DType::F64),
        ..ImportOptions::default()
    };
    let graph = syncbn_onnx::import(&onnx, &import).unwrap().graph;
    let logits = graph.outputs[1].name.clone();
    let options = Options {
        loss_output: Some(logits.clone()),
        ..Options::default()
    };
    let (graph, _) = training_graph(&graph, &options).unwrap();
    let values = BTreeMap::from([("x".to_string(), x), ("target".to_string(), target)]);
    let rank = [RankInputs { n: samples, values }];
    let mut state = initial_state(&graph, 0).unwrap();
    let reference = train_step(&graph, &rank, &mut state, &SGD).unwrap().remove(0);

    let flags = [case.flags, &["--precision", "f32", "--loss-output", &logits]].concat();
    let executable = compiled(case.name, &onnx, &flags);
    let mut all = Comparison::default();
    for split in ["6", "3,3", "4,0,2"] {
        let run = executable.train(&data, &["--rank-batches", split, "--steps", "1"]);
        for (name, array) in reference.of_kind(OutputKind::Output) {
            all.array(&format!("{split} {name}"), run.outputs.get(name), array, 1e-5);
        }
        let mut seen = 0;
        for (name, array) in reference.of_kind(OutputKind::Gradient) {
            if name == "identity" {
                continue;
            }
            let largest = array.data.iter().map(|v| v.abs()).fold(0.0, f64::max);
            assert!(largest > 1e-3, "{name} tells nothing");
            all.array(&format!("{split} {name}"), run.gradients.get(name), array, 1e-5);
            seen += usize::from(name.starts_with("bn") || name == "offset");
        }
        assert_eq!(seen, case.gradients);
        let mut seen = 0;
        for (name, array) in &state.statistics[0] {
            all.array(&format!("{split} {name}"), run.weights.get(name), array, 1e-5);
            seen += 1;
        }
        assert_eq!(seen, 2);
    }
    all.finish(case.name);
}

/// The case that the others differ from.
const CASE: Case = Case {
    name: "large_mean",
    before: Before::Nothing,
    channels: 3,
    mean: 1e4,
    grain: 0.0,
    flags: &[],
    gradients: 2,
};

#[test]
fn a_batch_norm_fed_by_the_input_keeps_a_large_mean() {
    check(&CASE);
}

#[test]
fn the_gradient_of_its_input_is_right_too() {
    check(&Case {
        name: "large_mean_offset",
        before: Before::Offset,
        gradients: 3,
        ..CASE
    });
}

/// Statistics as a convolution's epilogue takes them on tensor cores. The inputs have 20 bits, which two tf32 numbers
/// hold, so that the result is the input exactly and statistics alone can be wrong. A thread adds up to 16 squares
/// in float32 about a value that is up to twice the deviation from the mean, so that their sum is up to 5 times the
/// variance's share: a relative error of at most about `(16 + 2) * 5 * 2^-24 = 5e-6`.
#[test]
fn statistics_of_tensor_cores_keep_a_large_mean() {
    check(&Case {
        name: "large_mean_tensor_cores",
        before: Before::Identity,
        channels: 36,
        mean: 1536.0,
        grain: 1.0 / 512.0,
        flags: &["--target", "cuda-emulated"],
        ..CASE
    });
}
