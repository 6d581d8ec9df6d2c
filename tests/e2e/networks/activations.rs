//! Activations, each after a BatchNorm and alone.

use super::check::{Case, SPLITS, Target, check};
use crate::support::net::Attribute::{Float, Text};
use crate::support::net::{Attributes, Net};

/// A network with the activation in several places, opset 14.
fn with(name: &'static str, op: &str, attributes: Attributes) {
    with_opset(14, name, op, attributes);
}

/// The same of another opset.
fn with_opset(opset: i64, name: &'static str, op: &str, attributes: Attributes) {
    let mut net = Net::new(&[3, 5, 6]).opset(opset);
    let x = net.conv("x", &[7, 3, 3, 3], &[]);
    let x = net.bn(&x, 7);
    let x = net.node(op, &[&x], attributes);
    let x = net.conv(&x, &[5, 7, 1, 1], &[]);
    let gate = net.node(op, &[&x], attributes);
    let x = net.node("Add", &[&x, &gate], &[]);
    let x = net.bn(&x, 5);
    let x = net.node(op, &[&x], attributes);
    let y = net.head(&x, 5, 4);
    check(Case {
        name,
        onnx: net.finish(&[&y]),
        input: &[3, 5, 6],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}

#[test]
fn leaky_relu() {
    with("leaky_relu", "LeakyRelu", &[("alpha", Float(0.125))]);
}

#[test]
fn hard_sigmoid() {
    let attributes = [("alpha", Float(0.375)), ("beta", Float(0.25))];
    with("hard_sigmoid", "HardSigmoid", &attributes);
}

#[test]
fn hard_swish() {
    with("hard_swish", "HardSwish", &[]);
}

#[test]
fn tanh() {
    with("tanh", "Tanh", &[]);
}

#[test]
fn gelu() {
    with_opset(20, "gelu", "Gelu", &[]);
}

#[test]
fn gelu_by_tanh() {
    with_opset(20, "gelu_by_tanh", "Gelu", &[("approximate", Text("tanh"))]);
}

#[test]
fn error_function() {
    with("error_function", "Erf", &[]);
}

#[test]
fn squeeze_and_excitation_with_a_hard_gate() {
    let mut net = Net::new(&[3, 6, 5]).opset(14);
    let x = net.conv("x", &[8, 3, 3, 3], &[]);
    let x = net.bn(&x, 8);
    let x = net.node("HardSwish", &[&x], &[]);
    let pooled = net.node("GlobalAveragePool", &[&x], &[]);
    let gate = net.conv_bias(&pooled, &[2, 8, 1, 1], &[]);
    let gate = net.node("Relu", &[&gate], &[]);
    let gate = net.conv_bias(&gate, &[8, 2, 1, 1], &[]);
    let gate = net.node("HardSigmoid", &[&gate], &[("alpha", Float(1.0 / 6.0))]);
    let x = net.node("Mul", &[&gate, &x], &[]);
    let y = net.head(&x, 8, 4);
    check(Case {
        name: "squeeze_and_excitation_with_a_hard_gate",
        onnx: net.finish(&[&y]),
        input: &[3, 6, 5],
        target: Target::Classes(4, &[]),
        splits: SPLITS,
    });
}
