//! Slices, splits, padding and transposition.

use super::check::{Case, SPLITS, Target, check};
use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::Net;

fn finish(name: &'static str, mut net: Net, x: &str, channels: i64, input: &'static [usize]) {
    let x = net.conv_bn_relu(x, &[5, channels, 2, 1], &[]);
    let y = net.head(&x, 5, 4);
    check(Case {
        name,
        onnx: net.finish(&[&y]),
        input,
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

/// Every second row and column, in four phases (a space-to-depth stem), and ranges counted from the end.
#[test]
fn slices_with_steps() {
    let mut net = Net::new(&[3, 8, 10]);
    let x = net.conv_bn_relu("x", &[4, 3, 1, 1], &[]);
    let (axes, steps) = (net.longs(&[2, -1]), net.longs(&[2, 2]));
    let end = net.longs(&[i64::MAX, i64::MAX]);
    let mut phases = Vec::new();
    for phase in [[0, 0], [1, 0], [0, 1], [1, 1]] {
        let begin = net.longs(&phase);
        phases.push(net.node("Slice", &[&x, &begin, &end, &axes, &steps], &[]));
    }
    let phases: Vec<&str> = phases.iter().map(String::as_str).collect();
    let x = net.node("Concat", &phases, &[("axis", Int(1))]);
    let (begin, end, axes, steps) = (
        net.longs(&[-13, -9]),
        net.longs(&[-1, 4]),
        net.longs(&[1, 3]),
        net.longs(&[3, 1]),
    );
    let x = net.node("Slice", &[&x, &begin, &end, &axes, &steps], &[]);
    finish("slices_with_steps", net, &x, 4, &[3, 8, 10]);
}

/// Uneven parts, each with its own way, and one that is left out.
#[test]
fn uneven_split() {
    let mut net = Net::new(&[3, 6, 5]);
    let x = net.conv_bn_relu("x", &[9, 3, 1, 1], &[]);
    let sizes = net.longs(&[2, 4, 3]);
    let parts = net.nodes("Split", &[&x, &sizes], 3, &[("axis", Int(1))]);
    let first = net.conv_bn_relu(&parts[0], &[2, 2, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let x = net.node("Concat", &[&first, &parts[2]], &[("axis", Int(1))]);
    finish("uneven_split", net, &x, 5, &[3, 6, 5]);
}

/// The attribute form, and parts of the last axis.
#[test]
fn split_by_an_attribute() {
    let mut net = Net::new(&[3, 6, 5]).opset(11);
    let x = net.conv_bn_relu("x", &[6, 3, 1, 1], &[]);
    let halves = net.nodes("Split", &[&x], 2, &[("axis", Int(1))]);
    let x = net.node("Mul", &[&halves[0], &halves[1]], &[]);
    let columns = [("axis", Int(-1)), ("split", Ints(&[1, 4]))];
    let parts = net.nodes("Split", &[&x], 2, &columns);
    let x = net.node("Add", &[&parts[0], &parts[1]], &[]);
    finish("split_by_an_attribute", net, &x, 3, &[3, 6, 5]);
}

#[test]
fn sequence_of_parts() {
    let mut net = Net::new(&[3, 6, 5]);
    let x = net.conv_bn_relu("x", &[7, 3, 1, 1], &[]);
    let sizes = net.longs(&[3, 4]);
    let parts = net.node("SplitToSequence", &[&x, &sizes], &[("axis", Int(1))]);
    let (first, last) = (net.longs(&[0]), net.longs(&[-1]));
    let first = net.node("SequenceAt", &[&parts, &first], &[]);
    let last = net.node("SequenceAt", &[&parts, &last], &[]);
    let x = net.node("Concat", &[&last, &first], &[("axis", Int(1))]);
    finish("sequence_of_parts", net, &x, 7, &[3, 6, 5]);
}

#[test]
fn padding_on_several_axes() {
    let mut net = Net::new(&[3, 6, 5]);
    let x = net.conv_bn_relu("x", &[4, 3, 1, 1], &[]);
    let pads = net.longs(&[0, 1, 0, 2, 0, 0, 3, -1]);
    let x = net.node("Pad", &[&x, &pads], &[]);
    finish("padding_on_several_axes", net, &x, 5, &[3, 6, 5]);
}

/// Tiles of every width and a rest on both axes.
#[test]
fn another_innermost_axis() {
    let mut net = Net::new(&[3, 3, 18]);
    let x = net.conv_bn_relu("x", &[20, 3, 1, 1], &[]);
    let x = net.node("Transpose", &[&x], &[("perm", Ints(&[0, 3, 2, 1]))]);
    finish("another_innermost_axis", net, &x, 18, &[3, 3, 18]);
}
