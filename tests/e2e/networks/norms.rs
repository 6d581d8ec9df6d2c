//! BatchNorm in unusual places.

use super::check::{Case, SPLITS, Target, check};
use crate::support::net::Attribute::Ints;
use crate::support::net::Net;

#[test]
fn weight_standardisation() {
    let mut net = Net::new(&[3, 7, 7]);
    let weight = net.normal("conv.weight", &[6, 3, 3, 3], 0.2, 0.5);
    let flat = net.longs(&[1, 6, -1]);
    let flat = net.node("Reshape", &[&weight, &flat], &[]);
    let standardised = net.bn_training_mode(&flat, 6);
    let shape = net.longs(&[6, 3, 3, 3]);
    let weight = net.node("Reshape", &[&standardised, &shape], &[]);
    let x = net.node("Conv", &["x", &weight], &[]);
    let x = net.bn(&x, 6);
    let x = net.node("Relu", &[&x], &[]);
    let y = net.head(&x, 6, 4);
    check(Case {
        name: "weight_standardisation",
        onnx: net.finish(&[&y]),
        input: &[3, 7, 7],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn batch_norm_in_primitive_operators() {
    let mut net = Net::new(&[3, 6, 6]);
    let x = net.conv("x", &[5, 3, 3, 3], &[]);
    let dims = [5, 1, 1];
    let [mean, var] = [
        net.floats("running_mean", &dims, &[0.1, -0.2, 0.3, 0.0, 0.5]),
        net.floats("running_var", &dims, &[1.0, 0.5, 2.0, 1.5, 0.25]),
    ];
    let scale = net.normal("scale", &dims, 1.0, 0.25);
    let bias = net.normal("bias", &dims, 0.0, 0.25);
    let epsilon = net.floats("epsilon", &[], &[1e-3]);
    let centred = net.node("Sub", &[&x, &mean], &[]);
    let shifted = net.node("Add", &[&var, &epsilon], &[]);
    let deviation = net.node("Sqrt", &[&shifted], &[]);
    let inverse = net.node("Reciprocal", &[&deviation], &[]);
    let factor = net.node("Mul", &[&scale, &inverse], &[]);
    let x = net.node("Mul", &[&centred, &factor], &[]);
    let x = net.node("Add", &[&x, &bias], &[]);
    let x = net.node("Relu", &[&x], &[]);
    let y = net.head(&x, 5, 4);
    check(Case {
        name: "batch_norm_in_primitive_operators",
        onnx: net.finish(&[&y]),
        input: &[3, 6, 6],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn one_batch_norm_used_twice() {
    let mut net = Net::new(&[3, 6, 6]);
    let pad = [("pads", Ints(&[1, 1, 1, 1]))];
    let shared = net.bn_tensors("shared", 5);
    let x = net.conv("x", &[5, 3, 3, 3], &pad);
    let x = net.bn_with(&x, "first", &shared);
    let x = net.silu(&x);
    let x = net.conv(&x, &[5, 5, 3, 3], &pad);
    let x = net.bn_with(&x, "second", &shared);
    let x = net.silu(&x);
    let y = net.head(&x, 5, 4);
    check(Case {
        name: "one_batch_norm_used_twice",
        onnx: net.finish(&[&y]),
        input: &[3, 6, 6],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn one_convolution_used_twice() {
    let mut net = Net::new(&[4, 6, 6]);
    let weight = net.normal("weight", &[4, 4, 3, 3], 0.0, 0.3);
    let mut x = "x".to_string();
    for _ in 0..2 {
        x = net.node("Conv", &[&x, &weight], &[("pads", Ints(&[1, 1, 1, 1]))]);
        x = net.bn(&x, 4);
        x = net.node("Relu", &[&x], &[]);
    }
    let y = net.head(&x, 4, 4);
    check(Case {
        name: "one_convolution_used_twice",
        onnx: net.finish(&[&y]),
        input: &[4, 6, 6],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn batch_norm_in_training_mode_before_activation() {
    let mut net = Net::new(&[3, 5, 5]);
    let x = net.bn("x", 3);
    let x = net.node("Relu", &[&x], &[]);
    let x = net.conv(&x, &[7, 3, 3, 3], &[]);
    let x = net.bn_training_mode(&x, 7);
    let x = net.bn(&x, 7);
    let x = net.silu(&x);
    let y = net.head(&x, 7, 4);
    check(Case {
        name: "batch_norm_in_training_mode",
        onnx: net.finish(&[&y]),
        input: &[3, 5, 5],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn no_batch_norm_at_all() {
    let mut net = Net::new(&[3, 5, 5]);
    let x = net.conv_bias("x", &[7, 3, 3, 3], &[]);
    let x = net.node("Relu", &[&x], &[]);
    let y = net.head(&x, 7, 4);
    check(Case {
        name: "no_batch_norm_at_all",
        onnx: net.finish(&[&y]),
        input: &[3, 5, 5],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}
