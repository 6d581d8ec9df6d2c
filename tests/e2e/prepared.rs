//! What inference derives from weights before its first step, Winograd's transforms among it, is derived anew when they
//! change.

use std::fs;
use std::path::Path;

use syncbn_ir::Array;
use syncbn_ir::training::Generator;

use crate::support::executable::compiled;
use crate::support::files::{Column, write_npz};
use crate::support::net::Attribute::Ints;
use crate::support::net::Net;

const EPOCHS: usize = 3;
const CLASSES: usize = 5;

/// A network with a 3x3 convolution of either stride that has channels enough for Winograd's algorithms.
fn network() -> Vec<u8> {
    let mut net = Net::new(&[3, 16, 16]);
    let same: &[(&str, _)] = &[("pads", Ints(&[1, 1, 1, 1]))];
    let halved = [("pads", Ints(&[1, 1, 1, 1])), ("strides", Ints(&[2, 2]))];
    let x = net.conv_bn_relu("x", &[32, 3, 3, 3], same);
    let x = net.conv_bn_relu(&x, &[48, 32, 3, 3], same);
    let x = net.conv_bn_relu(&x, &[64, 48, 3, 3], &halved);
    let y = net.head(&x, 64, CLASSES as i64);
    net.finish(&[&y])
}

/// The mean cross-entropy of logits.
fn loss(logits: &Array, target: &Array) -> f64 {
    let rows = logits.data.chunks(CLASSES).zip(&target.data);
    let losses = rows.map(|(row, &label)| {
        let most = row.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
        let sum: f64 = row.iter().map(|v| (v - most).exp()).sum();
        most + sum.ln() - row[label as usize]
    });
    losses.sum::<f64>() / target.data.len() as f64
}

#[test]
fn validation_sees_the_weights_of_its_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("model.onnx"), network()).unwrap();
    let mut random = Generator(3);
    let x: Vec<f64> = (0..8 * 3 * 256).map(|_| random.normal()).collect();
    let target = (0..8).map(|_| (random.uniform() * CLASSES as f64).floor());
    let x = Array::new(&[8, 3, 16, 16], x);
    let target = Array::new(&[8], target.collect());
    let columns = [("x", Column::F32(&x)), ("target", Column::I64(&target))];
    write_npz(&at("data.npz"), &columns);
    // What is chosen depends on the processor, and any has this one's instructions.
    let flags = ["--precision", "f32", "--batch", "8", "--cpu", "x86-64-v3"];
    let executable = compiled("prepared", &at("model.onnx"), &flags);

    let flags = [
        "bench",
        "--mode",
        "infer",
        "--steps",
        "1",
        "--per-layer",
        "--json",
    ];
    let figures = executable.run(folder.path(), &flags).ok().json();
    let layers = figures["layers"].as_array().unwrap();
    for name in ["winograd", "polyphase"] {
        let is_prepared = |schedule: &str| schedule.starts_with(name) && schedule.contains("prepared = true");
        let mut schedules = layers.iter().filter_map(|layer| layer["schedule"].as_str());
        assert!(
            schedules.any(is_prepared),
            "no {name} that is prepared in {layers:?}"
        );
    }

    let data = at("data.npz");
    let epochs = |count: usize| {
        let count = count.to_string();
        let flags = ["--batch", "8", "--lr", "0.05", "--epochs", &count];
        executable.train(&data, &[&flags[..], &["--val", data.to_str().unwrap()]].concat())
    };
    let whole = epochs(EPOCHS);
    let validated = validated(&whole.weight_file.with_file_name("log.jsonl"));
    assert_eq!(validated.len(), EPOCHS);
    for (epoch, found) in validated.iter().enumerate() {
        let trained = epochs(epoch + 1);
        let weights = ["--weights", trained.weight_file.to_str().unwrap()];
        let outputs = executable.infer(&data, &weights);
        let expected = loss(outputs.values().next().unwrap(), &target);
        let error = (found - expected).abs();
        assert!(error < 1e-5, "epoch {}: {found}, expected {expected}", epoch + 1);
    }
    // Old weights would be found out.
    for pair in validated.windows(2) {
        assert!((pair[0] - pair[1]).abs() > 1e-3, "{validated:?}");
    }
}

/// The loss of every validation in a log file.
fn validated(path: &Path) -> Vec<f64> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter_map(|line: serde_json::Value| line.get("val_loss")?.as_f64())
        .collect()
}
