//! Float32 accuracy where a plain BatchNorm loses it: a mean of 1e4 with a deviation of 1.

use std::collections::BTreeMap;

use syncbn_ir::training::Generator;
use syncbn_ir::{Array, OutputKind, RankInputs, evaluate, initial_state};
use syncbn_onnx::ImportOptions;
use syncbn_passes::{Options, training_graph};

use crate::support::compare::Comparison;
use crate::support::executable::compiled;
use crate::support::files::{Column, write_npz};
use crate::support::net::Net;

const CHANNELS: i64 = 3;
const SIZE: i64 = 8;

/// `offset` adds a trained tensor of zeros to the input: its gradient is BatchNorm's dx, summed over samples.
fn network(offset: bool) -> Vec<u8> {
    let mut net = Net::new(&[CHANNELS, SIZE, SIZE]);
    let mut x = "x".to_string();
    if offset {
        let dims = [1, CHANNELS, SIZE, SIZE];
        let zeros = vec![0.0; dims.iter().product::<i64>() as usize];
        let zeros = net.floats("offset", &dims, &zeros);
        x = net.node("Add", &[&x, &zeros], &[]);
    }
    let normalized = net.bn(&x, CHANNELS);
    let x = net.node("Flatten", &[&normalized], &[]);
    let logits = net.linear(&x, CHANNELS * SIZE * SIZE, 5);
    net.finish(&[&normalized, &logits])
}

fn check(name: &str, offset: bool) {
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("model.onnx");
    std::fs::write(&onnx, network(offset)).unwrap();
    let samples = 6;
    let mut random = Generator(3);
    let mut x = random.array(&[samples, CHANNELS as usize, SIZE as usize, SIZE as usize]);
    x.data.iter_mut().for_each(|v| *v = f64::from((1e4 + *v) as f32));
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
    let reference = evaluate(&graph, &rank, &initial_state(&graph, 0).unwrap())
        .unwrap()
        .remove(0);

    let executable = compiled(name, &onnx, &["--precision", "f32", "--loss-output", &logits]);
    let mut all = Comparison::default();
    for split in ["6", "3,3", "4,0,2"] {
        let run = executable.train(&data, &["--rank-batches", split, "--steps", "1"]);
        for (name, array) in reference.of_kind(OutputKind::Output) {
            all.array(&format!("{split} {name}"), run.outputs.get(name), array, 1e-5);
        }
        let mut seen = 0;
        for (name, array) in reference.of_kind(OutputKind::Gradient) {
            let largest = array.data.iter().map(|v| v.abs()).fold(0.0, f64::max);
            assert!(largest > 1e-3, "{name} tells nothing");
            all.array(&format!("{split} {name}"), run.gradients.get(name), array, 1e-5);
            seen += usize::from(name.starts_with("bn") || name == "offset");
        }
        assert_eq!(seen, 2 + usize::from(offset));
    }
    all.finish(name);
}

#[test]
fn a_batch_norm_fed_by_the_input_keeps_a_large_mean() {
    check("large_mean", false);
}

#[test]
fn the_gradient_of_its_input_is_right_too() {
    check("large_mean_offset", true);
}
