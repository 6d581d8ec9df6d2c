//! Pooling and reductions.

use super::check::{Case, SPLITS, Target, check};
use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::{Attributes, Net};

/// A network around one pooling operator.
fn around(name: &'static str, op: &str, attributes: Attributes) {
    let mut net = Net::new(&[3, 10, 9]);
    let x = net.conv_bn_relu("x", &[7, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let x = net.node(op, &[&x], attributes);
    let x = net.conv_bn_relu(&x, &[5, 7, 2, 2], &[]);
    let y = net.head(&x, 5, 4);
    check(Case {
        name,
        onnx: net.finish(&[&y]),
        input: &[3, 10, 9],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn max_pool_of_overlapping_windows() {
    let attributes = [
        ("kernel_shape", Ints(&[3, 3])),
        ("pads", Ints(&[1, 1, 1, 1])),
        ("strides", Ints(&[2, 2])),
    ];
    around("max_pool_of_overlapping_windows", "MaxPool", &attributes);
}

#[test]
fn max_pool_with_ceil_mode() {
    let attributes = [
        ("ceil_mode", Int(1)),
        ("kernel_shape", Ints(&[3, 2])),
        ("strides", Ints(&[2, 2])),
    ];
    around("max_pool_with_ceil_mode", "MaxPool", &attributes);
}

#[test]
fn max_pool_with_dilation_and_asymmetric_padding() {
    let attributes = [
        ("dilations", Ints(&[2, 1])),
        ("kernel_shape", Ints(&[3, 3])),
        ("pads", Ints(&[0, 1, 2, 0])),
        ("strides", Ints(&[1, 2])),
    ];
    around("max_pool_with_dilation", "MaxPool", &attributes);
}

#[test]
fn average_pool() {
    let attributes = [("kernel_shape", Ints(&[2, 2])), ("strides", Ints(&[2, 2]))];
    around("average_pool", "AveragePool", &attributes);
}

#[test]
fn average_pool_that_counts_padding() {
    let attributes = [
        ("count_include_pad", Int(1)),
        ("kernel_shape", Ints(&[3, 3])),
        ("pads", Ints(&[1, 1, 1, 1])),
        ("strides", Ints(&[2, 2])),
    ];
    around("average_pool_that_counts_padding", "AveragePool", &attributes);
}

#[test]
fn average_pool_that_leaves_padding_out() {
    let attributes = [
        ("kernel_shape", Ints(&[3, 3])),
        ("pads", Ints(&[1, 0, 1, 2])),
        ("strides", Ints(&[2, 2])),
    ];
    around("average_pool_that_leaves_padding_out", "AveragePool", &attributes);
}

#[test]
fn average_pool_with_ceil_mode() {
    for (name, include) in [("average_pool_ceil", 0), ("average_pool_ceil_counting", 1)] {
        let attributes = [
            ("ceil_mode", Int(1)),
            ("count_include_pad", Int(include)),
            ("kernel_shape", Ints(&[3, 3])),
            ("pads", Ints(&[1, 1, 1, 1])),
            ("strides", Ints(&[2, 2])),
        ];
        around(name, "AveragePool", &attributes);
    }
}

#[test]
fn reduce_mean_in_every_form() {
    let mut net = Net::new(&[3, 6, 5]).opset(18);
    let x = net.conv_bn_relu("x", &[8, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    // Over channels, over one spatial axis, over both with and without the axes kept.
    let axes = net.longs(&[1]);
    let channel = net.node("ReduceMean", &[&x, &axes], &[("keepdims", Int(1))]);
    let x = net.node("Sub", &[&x, &channel], &[]);
    let axes = net.longs(&[-1]);
    let column = net.node("ReduceMean", &[&x, &axes], &[]);
    let x = net.node("Mul", &[&x, &column], &[]);
    let x = net.conv_bn_relu(&x, &[7, 8, 1, 1], &[]);
    let axes = net.longs(&[-2, 3]);
    let x = net.node("ReduceMean", &[&x, &axes], &[("keepdims", Int(0))]);
    let y = net.linear(&x, 7, 4);
    check(Case {
        name: "reduce_mean_in_every_form",
        onnx: net.finish(&[&y]),
        input: &[3, 6, 5],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn reduce_mean_with_axes_as_an_attribute() {
    let mut net = Net::new(&[3, 6, 5]).opset(13);
    let x = net.conv_bn_relu("x", &[8, 3, 3, 3], &[]);
    let x = net.node(
        "ReduceMean",
        &[&x],
        &[("axes", Ints(&[2, 3])), ("keepdims", Int(1))],
    );
    let x = net.node("Flatten", &[&x], &[]);
    let y = net.linear(&x, 8, 4);
    check(Case {
        name: "reduce_mean_with_axes_as_an_attribute",
        onnx: net.finish(&[&y]),
        input: &[3, 6, 5],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}
