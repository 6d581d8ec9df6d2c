//! Convolutions: number of spatial axes, groups, dilations, padding, bias, odd sizes.

use super::check::{Case, SPLITS, Target, check};
use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::{Attributes, Net};

#[test]
fn one_dimensional() {
    let mut net = Net::new(&[5, 33]);
    let x = net.conv_bn_relu(
        "x",
        &[7, 5, 5],
        &[("pads", Ints(&[2, 1])), ("strides", Ints(&[2]))],
    );
    let x = net.conv_bn_relu(&x, &[6, 7, 3], &[("dilations", Ints(&[2]))]);
    let y = net.head(&x, 6, 4);
    check(Case {
        name: "one_dimensional",
        onnx: net.finish(&[&y]),
        input: &[5, 33],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn three_dimensional() {
    let mut net = Net::new(&[2, 5, 7, 6]);
    let x = net.conv_bn_relu("x", &[5, 2, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1, 1, 1]))]);
    let x = net.conv_bn_relu(&x, &[4, 5, 1, 3, 2], &[("strides", Ints(&[2, 1, 2]))]);
    let y = net.head(&x, 4, 3);
    check(Case {
        name: "three_dimensional",
        onnx: net.finish(&[&y]),
        input: &[2, 5, 7, 6],
        target: Target::Classes(3, &[]),
        splits: SPLITS,
    });
}

/// A network around one convolution from 8 to `dims[0]` channels.
fn around(name: &'static str, dims: &[i64], attributes: Attributes) {
    let mut net = Net::new(&[3, 11, 9]);
    let x = net.conv_bn_relu("x", &[8, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let x = net.conv_bn_relu(&x, dims, attributes);
    let y = net.head(&x, dims[0], 5);
    check(Case {
        name,
        onnx: net.finish(&[&y]),
        input: &[3, 11, 9],
        target: Target::Classes(5, &[]),
        splits: SPLITS,
    });
}

#[test]
fn depthwise() {
    let attributes = [
        ("group", Int(8)),
        ("pads", Ints(&[1, 1, 1, 1])),
        ("strides", Ints(&[2, 2])),
    ];
    around("depthwise", &[8, 1, 3, 3], &attributes);
}

#[test]
fn depthwise_with_multiplier() {
    around("depthwise_with_multiplier", &[24, 1, 3, 3], &[("group", Int(8))]);
}

#[test]
fn grouped() {
    let attributes = [("group", Int(4)), ("pads", Ints(&[1, 1, 1, 1]))];
    around("grouped", &[12, 2, 3, 3], &attributes);
}

#[test]
fn dilated() {
    let attributes = [("dilations", Ints(&[2, 3])), ("pads", Ints(&[2, 3, 2, 3]))];
    around("dilated", &[13, 8, 3, 3], &attributes);
}

#[test]
fn dilated_grouped_strided() {
    let attributes = [
        ("dilations", Ints(&[2, 2])),
        ("group", Int(2)),
        ("pads", Ints(&[2, 2, 2, 2])),
        ("strides", Ints(&[3, 2])),
    ];
    around("dilated_grouped_strided", &[10, 4, 3, 3], &attributes);
}

#[test]
fn asymmetric_padding() {
    let attributes = [("pads", Ints(&[0, 2, 3, 1])), ("strides", Ints(&[2, 3]))];
    around("asymmetric_padding", &[9, 8, 4, 3], &attributes);
}

#[test]
fn large_kernel_and_stride() {
    let attributes = [("pads", Ints(&[3, 3, 3, 3])), ("strides", Ints(&[4, 4]))];
    around("large_kernel_and_stride", &[5, 8, 7, 7], &attributes);
}

#[test]
fn many_odd_channels() {
    let mut net = Net::new(&[5, 17, 13]);
    let x = net.conv_bn_relu("x", &[33, 5, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let x = net.conv_bn_relu(&x, &[17, 33, 3, 3], &[("strides", Ints(&[2, 2]))]);
    let x = net.conv_bn_relu(&x, &[65, 17, 1, 1], &[]);
    let x = net.conv_bn_relu(&x, &[1, 65, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let y = net.head(&x, 1, 7);
    check(Case {
        name: "many_odd_channels",
        onnx: net.finish(&[&y]),
        input: &[5, 17, 13],
        target: Target::Classes(7, &[]),
        splits: &["6", "5,1", "0,2,4"],
    });
}

#[test]
fn bias_before_and_without_batch_norm() {
    let mut net = Net::new(&[3, 7, 7]);
    let x = net.conv_bias("x", &[6, 3, 3, 3], &[]);
    let x = net.bn(&x, 6);
    let x = net.silu(&x);
    let x = net.conv_bias(&x, &[9, 6, 3, 3], &[]);
    let x = net.node("Relu", &[&x], &[]);
    let y = net.head(&x, 9, 4);
    check(Case {
        name: "bias_before_and_without_batch_norm",
        onnx: net.finish(&[&y]),
        input: &[3, 7, 7],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn a_single_sample() {
    let mut net = Net::new(&[3, 5, 5]);
    let x = net.conv_bn_relu("x", &[4, 3, 3, 3], &[]);
    let y = net.head(&x, 4, 3);
    check(Case {
        name: "a_single_sample",
        onnx: net.finish(&[&y]),
        input: &[3, 5, 5],
        target: Target::Classes(3, &[]),
        splits: &["1", "0,1", "0,0,1,0"],
    });
}
