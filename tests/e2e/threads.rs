//! No result depends on how many threads a rank has, down to the last bit.

use std::path::Path;

use syncbn_ir::Array;
use syncbn_ir::training::Generator;

use crate::corpus::{Network, SGD};
use crate::support::executable::{Executable, Trained, compiled};
use crate::support::files::{Column, write_npz};
use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::Net;

fn trained(executable: &Executable, data: &Path, ranks: &[&str], threads: &str) -> Trained {
    let flags = ["--steps", "3", "--threads-per-rank", threads];
    executable.train(data, &[&SGD[..], &flags, ranks].concat())
}

#[track_caller]
fn check_equal(one: &Trained, several: &Trained, what: &str) {
    for (array, a, b) in [
        ("outputs", &one.outputs, &several.outputs),
        ("gradients", &one.gradients, &several.gradients),
        ("statistics", &one.statistics, &several.statistics),
        ("weights", &one.weights, &several.weights),
    ] {
        for (name, values) in a {
            assert_eq!(values.data, b[name].data, "{what}: {array} {name}");
        }
    }
    assert_eq!(one.loss.data, several.loss.data, "{what}: loss");
    assert!(one.weight_bytes == several.weight_bytes, "{what}: weight files");
}

fn check(name: &'static str, flags: &[&str]) {
    let network = Network::new(name);
    check_executable(&network.compiled(flags), &network.data());
}

/// Training on one rank, on two and on three, and inference of all samples at once and one a rank.
fn check_executable(executable: &Executable, data: &Path) {
    for ranks in [
        &["--ranks", "1", "--batch", "8"][..],
        &["--ranks", "2", "--batch", "4"],
        &["--rank-batches", "5,3,0"],
    ] {
        let one = trained(executable, data, ranks, "1");
        for threads in ["2", "3"] {
            let several = trained(executable, data, ranks, threads);
            check_equal(&one, &several, &format!("{ranks:?} with {threads} threads"));
        }
    }
    for ranks in ["1", "8"] {
        let infer = |threads| executable.infer(data, &["--ranks", ranks, "--threads-per-rank", threads]);
        let one = infer("1");
        for threads in ["2", "3"] {
            for (name, values) in infer(threads) {
                let what = format!("{name}, {ranks} ranks of {threads} threads");
                assert_eq!(one[&name].data, values.data, "{what}");
            }
        }
    }
}

#[test]
fn residual_network() {
    check("resnet18_narrow", &["--precision", "f32"]);
}

#[test]
fn winograd_network() {
    check("syncbnnet_w12", &["--precision", "f32"]);
}

#[test]
fn plain_layouts_in_f64() {
    check("syncbnnet_w4", &["--precision", "f64"]);
}

#[test]
fn concatenating_network() {
    check("densenet_like", &["--precision", "f32"]);
}

#[test]
fn depthwise_network() {
    check("mobilenetv2_narrow", &["--precision", "f32"]);
}

#[test]
fn dense_network() {
    check("mlp_bn1d", &["--precision", "f32"]);
}

/// Pooling, resampling, concatenation, a bias and a loss of pixels; enough of these for sums in parts.
#[test]
fn segmenting_network() {
    let same: &[(&str, _)] = &[("pads", Ints(&[1, 1, 1, 1]))];
    let mut net = Net::new(&[3, 32, 32]);
    let fine = net.conv_bn_relu("x", &[12, 3, 3, 3], same);
    let window = [("kernel_shape", Ints(&[2, 2])), ("strides", Ints(&[2, 2]))];
    let x = net.node("MaxPool", &[&fine], &window);
    let x = net.conv_bn_relu(&x, &[20, 12, 3, 3], same);
    let scales = net.floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
    let x = net.node("Resize", &[&x, "", &scales], &[]);
    let x = net.node("Concat", &[&fine, &x], &[("axis", Int(1))]);
    let x = net.conv_bias(&x, &[24, 32, 3, 3], same);
    let x = net.silu(&x);
    let window = [("kernel_shape", Ints(&[3, 3])), ("pads", Ints(&[1, 1, 1, 1]))];
    let x = net.node("AveragePool", &[&x], &window);
    let y = net.conv_bias(&x, &[5, 24, 1, 1], &[]);
    check_net("threads_segmenting", net, &y, 32);
}

/// Channels enough that threads share them instead of rows, and too many for one block of them.
#[test]
fn network_of_many_channels() {
    let mut net = Net::new(&[3, 6, 6]);
    let x = net.conv_bn_relu("x", &[1030, 3, 1, 1], &[]);
    let x = net.conv_bn_relu(&x, &[2060, 1030, 1, 1], &[]);
    let y = net.conv_bias(&x, &[5, 2060, 1, 1], &[]);
    check_net("threads_wide", net, &y, 6);
}

/// A network of images of three channels whose pixels have one of five classes.
fn check_net(name: &'static str, net: Net, output: &str, pixels: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (onnx, data) = (folder.path().join("model.onnx"), folder.path().join("data.npz"));
    std::fs::write(&onnx, net.finish(&[output])).unwrap();
    let mut random = Generator(3);
    let area = pixels * pixels;
    let x: Vec<f64> = (0..8 * 3 * area).map(|_| random.normal()).collect();
    let target = (0..8 * area).map(|_| (random.uniform() * 5.0).floor()).collect();
    let x = Array::new(&[8, 3, pixels, pixels], x);
    let target = Array::new(&[8, pixels, pixels], target);
    write_npz(&data, &[("x", Column::F32(&x)), ("target", Column::I64(&target))]);
    for precision in ["f32", "f64"] {
        let flags = ["--precision", precision, "--batch", "8"];
        check_executable(&compiled(name, &onnx, &flags), &data);
    }
}

#[test]
fn first_line_says_how_many_threads() {
    let network = Network::new("mlp_bn1d");
    let executable = network.compiled(&["--precision", "f32"]);
    let data = network.data();
    let flags = ["--steps", "1", "--batch", "8", "--threads-per-rank", "3"];
    let run = executable.attempt(&data, &flags).ok();
    let lines = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr);
    assert!(lines.contains("1 rank of 3 threads"), "{lines}");
}
