//! Blocks with several paths: bottleneck, squeeze and excitation, RepVGG, concatenation.

use super::check::{Case, SPLITS, Target, check};
use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::Net;

#[test]
fn resnet_bottleneck() {
    let mut net = Net::new(&[3, 9, 9]);
    let pad = [("pads", Ints(&[1, 1, 1, 1]))];
    let half = [("pads", Ints(&[1, 1, 1, 1])), ("strides", Ints(&[2, 2]))];
    let x = net.conv_bn_relu("x", &[8, 3, 3, 3], &pad);
    let main = net.conv_bn_relu(&x, &[5, 8, 1, 1], &[]);
    let main = net.conv_bn_relu(&main, &[5, 5, 3, 3], &half);
    let main = net.conv(&main, &[20, 5, 1, 1], &[]);
    let main = net.bn(&main, 20);
    let side = net.conv(&x, &[20, 8, 1, 1], &[("strides", Ints(&[2, 2]))]);
    let side = net.bn(&side, 20);
    let x = net.node("Add", &[&main, &side], &[]);
    let x = net.node("Relu", &[&x], &[]);
    let main = net.conv_bn_relu(&x, &[5, 20, 1, 1], &[]);
    let main = net.conv_bn_relu(&main, &[5, 5, 3, 3], &pad);
    let main = net.conv(&main, &[20, 5, 1, 1], &[]);
    let main = net.bn(&main, 20);
    let x = net.node("Add", &[&x, &main], &[]);
    let x = net.node("Relu", &[&x], &[]);
    let y = net.head(&x, 20, 7);
    check(Case {
        name: "resnet_bottleneck",
        onnx: net.finish(&[&y]),
        input: &[3, 9, 9],
        target: Target::Classes(7, &[]),
        splits: SPLITS,
    });
}

#[test]
fn squeeze_and_excitation() {
    let mut net = Net::new(&[3, 7, 7]);
    let x = net.conv("x", &[12, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let x = net.bn(&x, 12);
    let x = net.silu(&x);
    let gate = net.node("GlobalAveragePool", &[&x], &[]);
    let gate = net.conv_bias(&gate, &[3, 12, 1, 1], &[]);
    let gate = net.node("Relu", &[&gate], &[]);
    let gate = net.conv_bias(&gate, &[12, 3, 1, 1], &[]);
    let gate = net.node("Sigmoid", &[&gate], &[]);
    let x = net.node("Mul", &[&x, &gate], &[]);
    let x = net.conv_bn_relu(&x, &[17, 12, 1, 1], &[]);
    let y = net.head(&x, 17, 5);
    check(Case {
        name: "squeeze_and_excitation",
        onnx: net.finish(&[&y]),
        input: &[3, 7, 7],
        target: Target::Classes(5, &[]),
        splits: SPLITS,
    });
}

#[test]
fn repvgg() {
    let mut net = Net::new(&[3, 8, 8]);
    let mut x = net.conv_bn_relu("x", &[6, 3, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    for _ in 0..2 {
        let wide = net.conv(&x, &[6, 6, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
        let wide = net.bn(&wide, 6);
        let narrow = net.conv(&x, &[6, 6, 1, 1], &[]);
        let narrow = net.bn(&narrow, 6);
        let identity = net.bn(&x, 6);
        let sum = net.node("Add", &[&wide, &narrow], &[]);
        let sum = net.node("Add", &[&sum, &identity], &[]);
        x = net.node("Relu", &[&sum], &[]);
    }
    let y = net.head(&x, 6, 10);
    check(Case {
        name: "repvgg",
        onnx: net.finish(&[&y]),
        input: &[3, 8, 8],
        target: Target::Classes(10, &[]),
        splits: SPLITS,
    });
}

#[test]
fn inception_with_concatenation() {
    let mut net = Net::new(&[4, 7, 7]);
    let one = net.conv_bn_relu("x", &[5, 4, 1, 1], &[]);
    let two = net.conv_bn_relu("x", &[3, 4, 1, 1], &[]);
    let two = net.conv_bn_relu(&two, &[7, 3, 5, 5], &[("pads", Ints(&[2, 2, 2, 2]))]);
    let pool = [
        ("kernel_shape", Ints(&[3, 3])),
        ("pads", Ints(&[1, 1, 1, 1])),
        ("strides", Ints(&[1, 1])),
    ];
    let three = net.node("MaxPool", &["x"], &pool);
    let three = net.conv_bn_relu(&three, &[2, 4, 1, 1], &[]);
    let x = net.node("Concat", &[&one, &two, &three, "x"], &[("axis", Int(1))]);
    let x = net.bn(&x, 18);
    let y = net.head(&x, 18, 6);
    check(Case {
        name: "inception_with_concatenation",
        onnx: net.finish(&[&y]),
        input: &[4, 7, 7],
        target: Target::Classes(6, &[]),
        splits: SPLITS,
    });
}

/// What a folded convolution adds to its result is the graph's input, whose channels are not innermost.
#[test]
fn the_input_as_residual() {
    let cases: [(&str, i64, &'static [usize]); 2] = [
        ("input_residual_direct", 5, &[5, 9, 8]),
        ("input_residual_winograd", 16, &[16, 9, 8]),
    ];
    for (name, channels, input) in cases {
        let mut net = Net::new(&[channels, 9, 8]);
        let pad = [("pads", Ints(&[1, 1, 1, 1]))];
        let x = net.conv_bn_relu("x", &[16, channels, 3, 3], &pad);
        let x = net.conv(&x, &[channels, 16, 3, 3], &pad);
        let x = net.bn(&x, channels);
        let x = net.node("Add", &[&x, "x"], &[]);
        let x = net.node("Relu", &[&x], &[]);
        let y = net.head(&x, channels, 4);
        check(Case {
            name,
            onnx: net.finish(&[&y]),
            input,
            target: Target::Classes(4, &[]),
            splits: SPLITS,
        });
    }
}
