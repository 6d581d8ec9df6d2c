//! The batch as a symbol: fixed batches, shape arithmetic, declared shapes.

use crate::common::model::{With, floats, info, longs, model, node, ramp};
use crate::common::{conv_bn, import_model, import_with, output_type, run};
use syncbn_ir::{DType, Op, TensorType};
use syncbn_onnx::{ErrorKind, ImportOptions};

#[test]
fn a_fixed_batch_becomes_the_batch() {
    let nodes = vec![
        node("Expand", "scale eight", "e"),
        node("Mul", "x e", "p"),
        node("Reshape", "p shape", "y"),
    ];
    let initializers = vec![
        floats("scale", &[1, 3, 1], &[1.0, 2.0, 3.0]),
        longs("eight", &[3], &[8, 3, 1]),
        longs("shape", &[2], &[8, -1]),
    ];
    let imported = import_model(&model(17, &[8, 3, 2], initializers, nodes)).unwrap();
    assert_eq!(imported.fixed_batch, Some(8));
    assert_eq!(output_type(&imported), TensorType::batched(DType::F32, &[6]));
    let y = run(&imported, 2, &[1.0; 12], &[2, 3, 2]);
    assert_eq!(
        y.data,
        [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    );
}

#[test]
fn a_fixed_batch_that_cannot_become_the_batch_names_the_node() {
    let reshape = model(
        17,
        &[8, 3, 2],
        vec![longs("s", &[2], &[4, 12])],
        vec![node("Reshape", "x s", "y")],
    );
    let addend = ramp("w", &[8, 3, 2], 0.1);
    let add = model(17, &[8, 3, 2], vec![addend], vec![node("Add", "x w", "y")]);
    for (model, op) in [(reshape, "Reshape"), (add, "Add")] {
        let errors = import_model(&model).unwrap_err();
        assert_eq!(errors.kind(), ErrorKind::Unsupported);
        assert!(
            errors.to_string().contains(&format!("node \"y_node\" ({op})")),
            "{errors}"
        );
    }
}

#[test]
fn shape_arithmetic_carries_the_batch() {
    // x.view(x.size(0), -1) and x.view(x.size(0), 3 * 2) as the legacy exporter writes them.
    let nodes = vec![
        node("Shape", "x", "s"),
        node("Constant", "", "zero").tensor("value", longs("", &[], &[0])),
        node("Gather", "s zero", "n").int("axis", 0),
        node("Unsqueeze", "n axes", "n1"),
        node("Slice", "s one three", "rest"),
        node("ReduceProd", "rest", "features").int("keepdims", 1),
        node("Concat", "n1 features", "shape").int("axis", 0),
        node("Reshape", "x shape", "y"),
    ];
    let initializers = vec![
        longs("axes", &[1], &[0]),
        longs("one", &[1], &[1]),
        longs("three", &[1], &[3]),
    ];
    let imported = import_model(&model(17, &[0, 3, 2], initializers, nodes)).unwrap();
    assert_eq!(output_type(&imported), TensorType::batched(DType::F32, &[6]));
    assert_eq!(imported.tensors, []);
}

#[test]
fn attributes_that_became_operands() {
    let axes = || longs("axes", &[1], &[1]);
    let cases = [
        (
            9,
            vec![],
            node("Squeeze", "x", "y").ints("axes", &[1]),
            vec![6, 2],
        ),
        (13, vec![axes()], node("Squeeze", "x axes", "y"), vec![6, 2]),
        (
            11,
            vec![],
            node("Unsqueeze", "x", "y").ints("axes", &[-1]),
            vec![1, 6, 2, 1],
        ),
        (
            9,
            vec![],
            node("Slice", "x", "y")
                .ints("starts", &[1])
                .ints("ends", &[-1])
                .ints("axes", &[2]),
            vec![1, 4, 2],
        ),
        (
            12,
            vec![],
            node("ReduceSum", "x", "y").ints("axes", &[2]).int("keepdims", 0),
            vec![1, 2],
        ),
        (
            13,
            vec![axes()],
            node("ReduceSum", "x axes", "y").int("keepdims", 0),
            vec![6, 2],
        ),
        (
            17,
            vec![],
            node("ReduceMean", "x", "y").ints("axes", &[1, 3]),
            vec![1, 6, 1],
        ),
        (18, vec![axes()], node("ReduceMean", "x axes", "y"), vec![1, 6, 2]),
        (
            18,
            vec![],
            node("ReduceMean", "x", "y").int("noop_with_empty_axes", 1),
            vec![1, 6, 2],
        ),
        (
            10,
            vec![],
            node("Clip", "x", "y").float("min", 0.0).float("max", 6.0),
            vec![1, 6, 2],
        ),
        (
            10,
            vec![],
            node("Dropout", "x", "y").float("ratio", 0.25),
            vec![1, 6, 2],
        ),
        (7, vec![], node("Flatten", "x", "y"), vec![12]),
    ];
    for (opset, initializers, node, expected) in cases {
        let op = node.op_type().to_string();
        let imported = import_model(&model(opset, &[0, 1, 6, 2], initializers, vec![node])).unwrap();
        assert_eq!(
            output_type(&imported),
            TensorType::batched(DType::F32, &expected),
            "{op} {opset}"
        );
    }
}

#[test]
fn precision_and_input_shape_override_the_file() {
    let mut file = conv_bn(&[0, 2, -1, -2], 17, node("BatchNormalization", "c g b m v", "y"));
    let errors = import_model(&file).unwrap_err().to_string();
    assert!(
        errors.contains("s1, s2") && errors.contains("--input-shape x=2x224x224"),
        "{errors}"
    );
    let options = ImportOptions {
        input_shapes: vec![("x".to_string(), vec![2, 6, 5])],
        dtype: Some(DType::F64),
        ..ImportOptions::default()
    };
    let imported = import_with(&file, &options).unwrap();
    assert_eq!(
        output_type(&imported),
        TensorType::batched(DType::F64, &[3, 6, 5])
    );
    assert_eq!((imported.file_dtype, imported.dtype), (DType::F32, DType::F64));
    assert_eq!(imported.notes.len(), 1);
    let wrong = ImportOptions {
        input_shapes: vec![("z".to_string(), vec![2])],
        ..ImportOptions::default()
    };
    assert!(
        import_with(&file, &wrong)
            .unwrap_err()
            .to_string()
            .contains("--input-shape z")
    );
    // The channels follow from the weight.
    file.graph.as_mut().unwrap().input[0] = info("x", 1, &[0, -1, 6, 5]);
    assert_eq!(
        import_model(&file).unwrap().inputs,
        [("x".to_string(), vec![2, 6, 5])]
    );
}

#[test]
fn lists_that_double_are_refused() {
    // 60 joins of a list with itself would be 2^60 sizes.
    let mut nodes = vec![node("Shape", "x", "s0")];
    for i in 0..60 {
        nodes.push(node("Concat", &format!("s{i} s{i}"), &format!("s{}", i + 1)).int("axis", 0));
    }
    nodes.push(node("Reshape", "x s60", "y"));
    let errors = import_model(&model(17, &[0, 3, 2], vec![], nodes)).unwrap_err();
    assert!(errors.to_string().contains("too large"), "{errors}");
}

#[test]
fn same_padding_is_worked_out() {
    for (auto_pad, pads) in [
        ("SAME_UPPER", [0, 1, 1, 1]),
        ("SAME_LOWER", [1, 1, 0, 1]),
        ("VALID", [0; 4]),
    ] {
        let conv = node("Conv", "x w", "y")
            .text("auto_pad", auto_pad)
            .ints("strides", &[2, 2]);
        let imported = import_model(&model(
            17,
            &[0, 2, 8, 7],
            vec![ramp("w", &[3, 2, 3, 3], 0.1)],
            vec![conv],
        ))
        .unwrap();
        let found = imported.graph.nodes().find_map(|id| match imported.graph.op(id) {
            Op::Conv(conv) => Some(conv.pads.clone()),
            _ => None,
        });
        assert_eq!(found.unwrap(), pads, "{auto_pad}");
    }
}
