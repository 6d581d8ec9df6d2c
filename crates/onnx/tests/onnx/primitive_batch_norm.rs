//! BatchNorm in primitive operators: recognised forms, values, classification, and what is left alone.

use crate::common::model::{floats, model, node, ramp};
use crate::common::{import_model, names, run};
use syncbn_ir::Op;
use syncbn_onnx::proto::{ModelProto, NodeProto};
use syncbn_onnx::{Imported, TensorClass};

const INPUT: [i64; 4] = [0, 2, 3, 3];

/// `x -> y` with these nodes and vectors of two channels, shaped `dims`.
fn network(dims: &[i64], nodes: Vec<NodeProto>) -> ModelProto {
    let vectors = [
        floats("scale", dims, &[1.5, -0.75]),
        floats("bias", dims, &[0.25, 1.0]),
        floats("mean", dims, &[0.5, -2.0]),
        floats("var", dims, &[4.0, 0.3]),
        floats("eps", &[], &[1e-3]),
        floats("one", &[], &[1.0]),
        floats("minus_half", &[], &[-0.5]),
        floats("minus_one", &[], &[-1.0]),
    ];
    model(17, &INPUT, vectors.to_vec(), nodes)
}

fn import(dims: &[i64], form: &[(&str, &str, &str)]) -> Imported {
    let nodes = form.iter().map(|(op, inputs, output)| node(op, inputs, output));
    import_model(&network(dims, nodes.collect())).unwrap()
}

const FORMS: &[&[(&str, &str, &str)]] = &[
    // (x - mean) / sqrt(var + eps) * scale + bias
    &[
        ("Sub", "x mean", "a"),
        ("Add", "var eps", "b"),
        ("Sqrt", "b", "c"),
        ("Div", "a c", "d"),
        ("Mul", "d scale", "e"),
        ("Add", "e bias", "y"),
    ],
    // bias + ((x - mean) * (1 / sqrt(eps + var))) * scale
    &[
        ("Add", "eps var", "b"),
        ("Sqrt", "b", "c"),
        ("Reciprocal", "c", "d"),
        ("Sub", "x mean", "a"),
        ("Mul", "a d", "e"),
        ("Mul", "scale e", "f"),
        ("Add", "bias f", "y"),
    ],
    // (x - mean) * (scale * (var + eps)^-0.5) + bias
    &[
        ("Add", "var eps", "b"),
        ("Pow", "b minus_half", "c"),
        ("Mul", "scale c", "d"),
        ("Sub", "x mean", "a"),
        ("Mul", "a d", "e"),
        ("Add", "e bias", "y"),
    ],
    // (x - mean) * sqrt(var + eps)^-1 * scale + bias, the inverse by Div
    &[
        ("Add", "var eps", "b"),
        ("Sqrt", "b", "c"),
        ("Div", "one c", "d"),
        ("Sub", "x mean", "a"),
        ("Mul", "d a", "e"),
        ("Mul", "e scale", "f"),
        ("Add", "f bias", "y"),
    ],
    // x * d + (bias - mean * d) with d = rsqrt(var + eps) * scale
    &[
        ("Add", "var eps", "b"),
        ("Sqrt", "b", "c"),
        ("Pow", "c minus_one", "r"),
        ("Mul", "r scale", "d"),
        ("Mul", "x d", "e"),
        ("Mul", "mean d", "f"),
        ("Sub", "bias f", "g"),
        ("Add", "e g", "y"),
    ],
];

#[test]
fn every_form_becomes_a_batch_norm() {
    let x: Vec<f64> = (0..36).map(|i| f64::from(i % 11) * 0.37 - 1.0).collect();
    let expected: Vec<f64> = x
        .iter()
        .enumerate()
        .map(|(i, &x)| {
            let c = i / 9 % 2;
            let (scale, bias, mean) = ([1.5, -0.75][c], [0.25, 1.0][c], [0.5, -2.0][c]);
            let var = [4.0, f64::from(0.3f32)][c];
            (x - mean) / f64::sqrt(var + 1e-3) * scale + bias
        })
        .collect();
    for dims in [&[2i64, 1, 1][..], &[1, 2, 1, 1]] {
        for form in FORMS {
            let imported = import(dims, form);
            assert_eq!(imported.batch_norms, 1, "{form:?}");
            assert_eq!(names(&imported, TensorClass::Statistic), ["mean", "var"]);
            let mut trained = names(&imported, TensorClass::Trained);
            trained.sort_unstable();
            assert_eq!(trained, ["bias", "scale"]);
            let layer = imported.graph.nodes().find_map(|id| match imported.graph.op(id) {
                Op::BatchNorm(bn) => Some((bn.epsilon, bn.momentum)),
                _ => None,
            });
            assert_eq!(layer, Some((1e-3, 0.1)));
            assert!(imported.notes.iter().any(|n| n.contains("primitive")));
            let y = run(&imported, 2, &x, &[2, 2, 3, 3]);
            for (a, b) in y.data.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "{form:?}: {a} {b}");
            }
        }
    }
}

/// Each with the reason why it stays as it is.
#[test]
fn what_is_left_alone() {
    let stays = |dims: &[i64], form: &[(&str, &str, &str)], why: &str| {
        let imported = import(dims, form);
        assert_eq!(imported.batch_norms, 0, "{why}");
        assert!(names(&imported, TensorClass::Statistic).is_empty(), "{why}");
    };
    let affine = [
        ("Sub", "x mean", "a"),
        ("Mul", "a var", "d"),
        ("Mul", "d scale", "e"),
        ("Add", "e bias", "y"),
    ];
    stays(
        &[2, 1, 1],
        &affine,
        "a precomputed inverse deviation is any factor",
    );
    let standardised = [
        ("Sub", "x mean", "a"),
        ("Add", "var eps", "b"),
        ("Sqrt", "b", "c"),
        ("Div", "a c", "y"),
    ];
    stays(
        &[2, 1, 1],
        &standardised,
        "without scale and bias it may standardise an input",
    );
    let no_epsilon = [
        ("Sub", "x mean", "a"),
        ("Sqrt", "var", "c"),
        ("Div", "a c", "d"),
        ("Mul", "d scale", "e"),
        ("Add", "e bias", "y"),
    ];
    stays(
        &[2, 1, 1],
        &no_epsilon,
        "a deviation without epsilon is no variance of a BatchNorm",
    );
    let read_twice = [
        ("Sub", "x mean", "a"),
        ("Add", "var eps", "b"),
        ("Sqrt", "b", "c"),
        ("Div", "a c", "d"),
        ("Mul", "d scale", "e"),
        ("Add", "e bias", "f"),
        ("Mul", "f mean", "y"),
    ];
    stays(
        &[2, 1, 1],
        &read_twice,
        "a mean that something else reads is no running statistic",
    );
    // One value a column, not a channel.
    let columns = vec![
        node("Sub", "x mean3", "a"),
        node("Add", "var3 eps", "b"),
        node("Sqrt", "b", "c"),
        node("Div", "a c", "d"),
        node("Mul", "d scale3", "e"),
        node("Add", "e bias3", "y"),
    ];
    let mut file = network(&[2, 1, 1], columns);
    let table = &mut file.graph.as_mut().unwrap().initializer;
    table.extend(["mean3", "var3", "scale3", "bias3"].map(|name| ramp(name, &[3], 0.5)));
    assert_eq!(import_model(&file).unwrap().batch_norms, 0);
}

#[test]
fn powers_with_a_constant_exponent() {
    let x: Vec<f64> = (0..18).map(|i| f64::from(i) * 0.25 + 0.5).collect();
    for exponent in [1.0f32, 2.0, 3.0, 0.5, -0.5, -1.0] {
        let mut file = network(&[2, 1, 1], vec![node("Pow", "x e", "y")]);
        file.graph
            .as_mut()
            .unwrap()
            .initializer
            .push(floats("e", &[], &[exponent]));
        let y = run(&import_model(&file).unwrap(), 1, &x, &[1, 2, 3, 3]);
        for (&x, &y) in x.iter().zip(&y.data) {
            assert!(
                (y - x.powf(exponent.into())).abs() <= 1e-14 * y.abs(),
                "{x}^{exponent}: {y}"
            );
        }
    }
    let mut file = network(&[2, 1, 1], vec![node("Pow", "x e", "y")]);
    file.graph
        .as_mut()
        .unwrap()
        .initializer
        .push(floats("e", &[], &[1.5]));
    let error = import_model(&file).unwrap_err().to_string();
    assert!(error.contains("Pow") && error.contains("exponents"), "{error}");
}
