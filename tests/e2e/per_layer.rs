//! `bench --per-layer`: where the time of a step goes.

use crate::support::executable::compiled;
use crate::support::fixture;

#[test]
fn every_node_has_its_time_its_work_and_its_traffic() {
    let model = fixture("dev/syncbnnet_w4.onnx");
    let flags = ["--target", "cpu,cuda-emulated", "--batch", "4"];
    let executable = compiled("per_layer", &model, &flags);
    for (device, ranks) in [("cpu", "1"), ("cpu", "2"), ("cuda-emulated", "1")] {
        for (mode, operators) in [
            (
                "train",
                &["conv", "conv_backward_data", "conv_backward_weight", "matmul"][..],
            ),
            ("infer", &["conv", "matmul"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let flags = ["bench", "--device", device, "--ranks", ranks, "--mode", mode];
            let more = ["--steps", "2", "--warmup", "1", "--per-layer", "--json"];
            let figures = executable
                .run(folder.path(), &[&flags[..], &more].concat())
                .ok()
                .json();
            let layers = figures["layers"].as_array().unwrap();
            let number = |layer: &serde_json::Value, key: &str| layer[key].as_f64().unwrap();
            let times: Vec<f64> = layers.iter().map(|layer| number(layer, "ms")).collect();
            assert!(times.is_sorted_by(|a, b| a >= b), "{device} {mode}: {times:?}");
            let shares: f64 = layers.iter().map(|layer| number(layer, "share")).sum();
            assert!((shares - 1.0).abs() < 1e-9, "{device} {mode}: {shares}");
            for operator in operators {
                let mut own = layers.iter().filter(|layer| layer["op"] == *operator).peekable();
                assert!(own.peek().is_some(), "{device} {mode} times no {operator}");
                assert!(own.all(|layer| number(layer, "flops") > 0.0 && number(layer, "bytes") > 0.0));
            }
            let synchronised = layers.iter().any(|layer| layer["op"] == "all_reduce");
            assert_eq!(synchronised, mode == "train", "{device} {mode}");
        }
    }
}
