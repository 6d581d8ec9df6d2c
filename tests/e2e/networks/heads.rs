//! Linear networks, Gemm's attributes and other losses.

use super::check::{Case, SPLITS, Target, check};
use crate::support::net::Attribute::{Float, Int, Ints};
use crate::support::net::Net;

#[test]
fn mlp_with_batch_norm() {
    let mut net = Net::new(&[13]);
    let x = net.linear("x", 13, 17);
    let x = net.bn(&x, 17);
    let x = net.node("Relu", &[&x], &[]);
    let x = net.linear(&x, 17, 33);
    let x = net.bn(&x, 33);
    let x = net.silu(&x);
    let y = net.linear(&x, 33, 5);
    check(Case {
        name: "mlp_with_batch_norm",
        onnx: net.finish(&[&y]),
        input: &[13],
        target: Target::Classes(5, &[]),
        splits: SPLITS,
    });
}

#[test]
fn gemm_attributes() {
    let mut net = Net::new(&[12]);
    // The weight of the first layer is a product of two: transA on parameters.
    let left = net.normal("left", &[4, 12], 0.0, 0.5);
    let right = net.normal("right", &[4, 9], 0.0, 0.5);
    let weight = net.node("Gemm", &[&left, &right], &[("transA", Int(1))]);
    let bias = net.normal("bias", &[1, 9], 0.0, 0.5);
    let factors = [("alpha", Float(0.75)), ("beta", Float(1.5))];
    let x = net.node("Gemm", &["x", &weight, &bias], &factors);
    let x = net.bn(&x, 9);
    let x = net.node("Relu", &[&x], &[]);
    let weight = net.normal("weight", &[6, 9], 0.0, 0.5);
    let factors = [("alpha", Float(-0.5)), ("transB", Int(1))];
    let y = net.node("Gemm", &[&x, &weight], &factors);
    check(Case {
        name: "gemm_attributes",
        onnx: net.finish(&[&y]),
        input: &[12],
        target: Target::Classes(6, &[]),
        splits: SPLITS,
    });
}

#[test]
fn matmul_and_broadcast_parameters() {
    let mut net = Net::new(&[6]);
    let weight = net.normal("weight", &[6, 8], 0.0, 0.5);
    let x = net.node("MatMul", &["x", &weight], &[]);
    let shift = net.normal("shift", &[8], 0.0, 0.5);
    let scale = net.normal("scale", &[1, 8], 1.0, 0.2);
    let x = net.node("Add", &[&shift, &x], &[]);
    let x = net.node("Mul", &[&x, &scale], &[]);
    let x = net.bn(&x, 8);
    let y = net.linear(&x, 8, 4);
    check(Case {
        name: "matmul_and_broadcast_parameters",
        onnx: net.finish(&[&y]),
        input: &[6],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn mean_squared_error() {
    let mut net = Net::new(&[2, 6, 5]);
    let x = net.conv_bn_relu("x", &[6, 2, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let y = net.conv_bias(&x, &[3, 6, 1, 1], &[]);
    check(Case {
        name: "mean_squared_error",
        onnx: net.finish(&[&y]),
        input: &[2, 6, 5],
        target: Target::Values(&[3, 6, 5]),
        splits: SPLITS,
    });
}

#[test]
fn cross_entropy_of_every_pixel() {
    let mut net = Net::new(&[3, 7, 5]);
    let pad = [("pads", Ints(&[1, 1, 1, 1]))];
    let x = net.conv_bn_relu("x", &[9, 3, 3, 3], &pad);
    let x = net.conv_bn_relu(&x, &[7, 9, 3, 3], &pad);
    let y = net.conv_bias(&x, &[4, 7, 1, 1], &[]);
    check(Case {
        name: "cross_entropy_of_every_pixel",
        onnx: net.finish(&[&y]),
        input: &[3, 7, 5],
        target: Target::Classes(4, &[7, 5]),
        splits: SPLITS,
    });
}
