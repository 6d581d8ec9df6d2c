//! BatchNormalization: forms of every opset, ties, and warnings.

use crate::common::model::{With, floats, longs, model, node, ramp};
use crate::common::{conv_bn, import_model, names, run};
use syncbn_ir::Op;
use syncbn_onnx::{ErrorKind, TensorClass};

#[test]
fn batch_norm_slots_are_untied() {
    // The legacy exporter ties equal initializers: scale serves as variance by Identity, bias as mean directly.
    let mut file = conv_bn(
        &[0, 2, 4, 4],
        17,
        node("BatchNormalization", "c g b b g_copy", "t"),
    );
    let graph = file.graph.as_mut().unwrap();
    graph.node.insert(0, node("Identity", "g", "g_copy"));
    graph.node.push(node("BatchNormalization", "t g b b g_copy", "y"));
    let imported = import_model(&file).unwrap();
    assert_eq!(names(&imported, TensorClass::Trained), ["w", "g", "b"]);
    // One module called twice: both layers share all four tensors.
    assert_eq!(names(&imported, TensorClass::Statistic), ["b.t_node", "g_copy"]);
    assert_eq!(imported.batch_norms, 2);
}

#[test]
fn batch_norm_of_every_opset() {
    let bn = |outputs: &str| node("BatchNormalization", "c g b m v", outputs).float("momentum", 0.99);
    let input = [0, 2, 4, 4];
    for (opset, node, training) in [
        (7, bn("y"), false),
        (8, bn("y").int("spatial", 1), false),
        (9, bn("y rm rv sm sv"), true),
        (13, bn("y"), false),
        (14, bn("y").int("training_mode", 0), false),
        (15, bn("y rm rv").int("training_mode", 1), true),
        (28, bn("y"), false),
    ] {
        let imported = import_model(&conv_bn(&input, opset, node)).unwrap();
        let layer = imported.graph.nodes().find_map(|id| match imported.graph.op(id) {
            Op::BatchNorm(bn) => Some(bn.clone()),
            _ => None,
        });
        let layer = layer.unwrap();
        assert_eq!(
            (layer.momentum, layer.epsilon, layer.training),
            (0.01, 1e-5, false)
        );
        assert_eq!(layer.onnx_training, training, "opset {opset}");
    }
    let refused = |opset: i64, node| import_model(&conv_bn(&input, opset, node)).unwrap_err();
    assert_eq!(
        refused(8, bn("y").int("spatial", 0)).kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(refused(15, bn("y rm rv")).kind(), ErrorKind::User);
    let mut used = conv_bn(&input, 15, bn("t rm rv").int("training_mode", 1));
    let reads = node("Reshape", "rm one", "r");
    used.graph
        .as_mut()
        .unwrap()
        .node
        .extend([reads, node("Add", "t r", "y")]);
    used.graph
        .as_mut()
        .unwrap()
        .initializer
        .push(longs("one", &[3], &[3, 1, 1]));
    let errors = import_model(&used).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("running statistics are kept by the executable"),
        "{errors}"
    );
}

#[test]
fn momentum_of_the_last_batch_or_never_warns() {
    for (momentum, text) in [(1.0, "never change"), (0.0, "are those of the last batch")] {
        let bn = node("BatchNormalization", "c g b m v", "y").float("momentum", momentum);
        let warnings = import_model(&conv_bn(&[0, 2, 4, 4], 17, bn)).unwrap().warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].message.contains(text), "{}", warnings[0]);
    }
}

#[test]
fn folded_batch_norm_is_noticed() {
    let nodes = vec![node("Conv", "x onnx::Conv_21 onnx::Conv_22", "y")];
    let initializers = vec![
        ramp("onnx::Conv_21", &[3, 2, 1, 1], 0.1),
        ramp("onnx::Conv_22", &[3], 0.1),
    ];
    let imported = import_model(&model(17, &[0, 2, 4, 4], initializers, nodes)).unwrap();
    assert_eq!(imported.warnings.len(), 1);
    let text = imported.warnings[0].to_string();
    assert!(
        text.contains("no BatchNormalization") && text.contains("folded"),
        "{text}"
    );
    let help = imported.warnings[0].help.as_deref();
    assert!(
        help.is_some_and(|help| help.contains("optimize=False")),
        "{help:?}"
    );
}

/// `(x - mean) / sqrt(var + epsilon) * scale + bias` with the running statistics, by hand: what one output means in
/// opset 9 as in every other. (A reference evaluator that takes the batch's statistics there computes something else.)
#[test]
fn one_output_of_opset_9_normalises_with_running_statistics() {
    let bn = node("BatchNormalization", "x g b m v", "y").float("epsilon", 1e-2);
    let vectors = [
        floats("g", &[2], &[1.5, -0.75]),
        floats("b", &[2], &[0.25, 1.0]),
        floats("m", &[2], &[0.5, -2.0]),
        floats("v", &[2], &[4.0, 0.25]),
    ];
    let x: Vec<f64> = (0..12).map(|i| f64::from(i % 5) - 1.5).collect();
    for opset in [7, 9, 13, 15] {
        let file = model(opset, &[0, 2, 3], vectors.to_vec(), vec![bn.clone()]);
        let imported = import_model(&file).unwrap();
        let y = run(&imported, 2, &x, &[2, 2, 3]);
        for (i, (&x, &y)) in x.iter().zip(&y.data).enumerate() {
            let expected = match i / 3 % 2 {
                0 => (x - 0.5) / f64::sqrt(4.0 + 0.01) * 1.5 + 0.25,
                _ => (x + 2.0) / f64::sqrt(0.25 + 0.01) * -0.75 + 1.0,
            };
            assert!(
                (y - expected).abs() <= 1e-13,
                "opset {opset}, element {i}: {y}, not {expected}"
            );
        }
    }
}
