//! What importing does beyond single operators: batch, ties, parameters, options and external data.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::model::{With, floats, info, longs, model, node, ramp};
use prost::Message;
use syncbn_ir::ops::ParameterData;
use syncbn_ir::{Array, DType, Op, OutputKind, RankInputs, TensorType, evaluate, initial_state, verify};
use syncbn_onnx::proto::tensor_proto::DataLocation;
use syncbn_onnx::proto::{FunctionProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto};
use syncbn_onnx::{ErrorKind, ImportErrors, ImportOptions, Imported, TensorClass, import_bytes};

fn import_with(model: &ModelProto, options: &ImportOptions) -> Result<Imported, ImportErrors> {
    let imported = import_bytes(&model.encode_to_vec(), None, options)?;
    verify(&imported.graph).unwrap_or_else(|errors| panic!("{errors:?}"));
    Ok(imported)
}

fn import(model: &ModelProto) -> Result<Imported, ImportErrors> {
    import_with(model, &ImportOptions::default())
}

fn names(imported: &Imported, class: TensorClass) -> Vec<&str> {
    imported
        .tensors
        .iter()
        .filter(|t| t.class == class)
        .map(|t| t.name.as_str())
        .collect()
}

fn run(imported: &Imported, n: usize, x: &[f64], dims: &[usize]) -> Array {
    let values = BTreeMap::from([("x".to_string(), Array::new(dims, x.to_vec()))]);
    let state = initial_state(&imported.graph, 1).unwrap();
    let results = evaluate(&imported.graph, &[RankInputs { n, values }], &state).unwrap();
    results[0].get(OutputKind::Output, "y").unwrap().clone()
}

fn output_type(imported: &Imported) -> TensorType {
    imported.graph.ty(imported.graph.outputs[0].value).clone()
}

/// A convolution from 2 to 3 channels with a BatchNorm of these inputs.
fn conv_bn(input: &[i64], opset: i64, bn: NodeProto) -> ModelProto {
    let initializers = vec![
        ramp("w", &[3, 2, 1, 1], 0.1),
        floats("g", &[3], &[1.0, 2.0, 3.0]),
        floats("b", &[3], &[0.0, 0.5, 1.0]),
        floats("m", &[3], &[0.0, 0.1, 0.2]),
        floats("v", &[3], &[1.0, 2.0, 3.0]),
    ];
    model(opset, input, initializers, vec![node("Conv", "x w", "c"), bn])
}

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
    let imported = import(&model(17, &[8, 3, 2], initializers, nodes)).unwrap();
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
        let errors = import(&model).unwrap_err();
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
    let imported = import(&model(17, &[0, 3, 2], initializers, nodes)).unwrap();
    assert_eq!(output_type(&imported), TensorType::batched(DType::F32, &[6]));
    assert_eq!(imported.tensors, []);
}

#[test]
fn exporters_zero_bias_is_no_parameter() {
    let nodes = vec![
        node("Shape", "w", "k").int("start", 0).int("end", 1),
        node("Constant", "", "one").ints("value_ints", &[1]),
        node("Expand", "k one", "sizes"),
        node("Constant", "", "zero").tensor("value", floats("", &[], &[0.0])),
        node("CastLike", "zero x", "like"),
        node("Expand", "like sizes", "bias"),
        node("Conv", "x w bias", "y"),
    ];
    let imported = import(&model(
        20,
        &[0, 2, 4, 4],
        vec![ramp("w", &[3, 2, 1, 1], 0.1)],
        nodes,
    ))
    .unwrap();
    assert_eq!(names(&imported, TensorClass::Trained), ["w"]);
    assert_eq!(names(&imported, TensorClass::Constant), [""; 0]);
    let folded = vec![ramp("w", &[3, 2, 1, 1], 0.1), floats("val_6", &[3], &[0.0; 3])];
    let imported = import(&model(
        20,
        &[0, 2, 4, 4],
        folded,
        vec![node("Conv", "x w val_6", "y")],
    ))
    .unwrap();
    assert_eq!(names(&imported, TensorClass::Trained), ["w"]);
}

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
    let imported = import(&file).unwrap();
    assert_eq!(names(&imported, TensorClass::Trained), ["w", "g", "b"]);
    // One module called twice: both layers share all four tensors.
    assert_eq!(names(&imported, TensorClass::Statistic), ["b.t_node", "g_copy"]);
    assert_eq!(imported.batch_norms, 2);
}

#[test]
fn copies_of_weights_stay_tied_unless_they_are_uniform() {
    let nodes = vec![
        node("Identity", "w", "w_copy"),
        node("Identity", "zeros", "zeros_copy"),
        node("Conv", "x w zeros", "a"),
        node("Conv", "a w_copy zeros_copy", "y"),
    ];
    let initializers = vec![ramp("w", &[2, 2, 1, 1], 0.1), floats("zeros", &[2], &[0.0; 2])];
    let imported = import(&model(17, &[0, 2, 4, 4], initializers, nodes)).unwrap();
    assert_eq!(
        names(&imported, TensorClass::Trained),
        ["w", "zeros", "zeros_copy"]
    );
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
        let imported = import(&conv_bn(&input, opset, node)).unwrap();
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
    let refused = |opset: i64, node| import(&conv_bn(&input, opset, node)).unwrap_err();
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
    let errors = import(&used).unwrap_err();
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
        let warnings = import(&conv_bn(&[0, 2, 4, 4], 17, bn)).unwrap().warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].message.contains(text), "{}", warnings[0]);
    }
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
        let imported = import(&model(opset, &[0, 1, 6, 2], initializers, vec![node])).unwrap();
        assert_eq!(
            output_type(&imported),
            TensorType::batched(DType::F32, &expected),
            "{op} {opset}"
        );
    }
}

#[test]
fn parameters_are_what_reaches_a_slot() {
    let nodes = vec![
        node("Transpose", "w", "wt"),
        node("MatMul", "x wt", "a"),
        node("Add", "a bias", "b"),
        node("Mul", "b factor", "c"),
        node("Sub", "c mean", "d"),
        node("Clip", "d low", "y"),
    ];
    let initializers = vec![
        ramp("w", &[3, 4], 0.1),
        ramp("bias", &[3], 0.1),
        floats("factor", &[], &[2.0]),
        ramp("mean", &[3], 0.1),
        floats("low", &[], &[0.0]),
    ];
    let file = model(17, &[0, 4], initializers, nodes);
    let imported = import(&file).unwrap();
    assert_eq!(names(&imported, TensorClass::Trained), ["w", "bias"]);
    assert_eq!(names(&imported, TensorClass::Constant), ["mean"]);
    let options = ImportOptions {
        freeze: vec!["*".to_string()],
        train: vec!["me*".to_string(), "none".to_string()],
        ..ImportOptions::default()
    };
    let imported = import_with(&file, &options).unwrap();
    assert_eq!(names(&imported, TensorClass::Trained), ["mean"]);
    assert_eq!(names(&imported, TensorClass::Constant), ["w", "bias"]);
    assert!(
        imported
            .warnings
            .iter()
            .any(|w| w.message == "--train none matches no parameter")
    );
    let bad = ImportOptions {
        freeze: vec!["[".to_string()],
        ..ImportOptions::default()
    };
    assert!(
        import_with(&file, &bad)
            .unwrap_err()
            .to_string()
            .contains("--freeze")
    );
}

#[test]
fn init_fills_weights_that_are_inputs() {
    let mut file = conv_bn(&[0, 2, 4, 4], 17, node("BatchNormalization", "c g b m v", "y"));
    let graph = file.graph.as_mut().unwrap();
    graph.initializer.clear();
    graph.input.push(info("w", 1, &[3, 2, 5, 5]));
    graph
        .input
        .extend(["g", "b", "m", "v"].map(|name| info(name, 1, &[3])));
    let errors = import(&file).unwrap_err();
    assert!(
        errors.to_string().contains("\"w\", \"g\", \"b\", \"m\", \"v\""),
        "{errors}"
    );
    assert!(errors.to_string().contains("--init"), "{errors}");
    let options = ImportOptions {
        init: true,
        ..ImportOptions::default()
    };
    let mut large = file.clone();
    large.graph.as_mut().unwrap().input[0] = info("x", 1, &[0, 2, 8, 8]);
    let imported = import_with(&large, &options).unwrap();
    let data: Vec<ParameterData> = imported
        .graph
        .nodes()
        .filter_map(|id| match imported.graph.op(id) {
            Op::Parameter(p) => Some(p.data.clone()),
            Op::Statistic(s) => Some(s.data.clone()),
            _ => None,
        })
        .collect();
    let fills = [1.0, 0.0, 0.0, 1.0].map(ParameterData::Fill);
    assert_eq!(data[0], ParameterData::KaimingNormal { fan_in: 50 });
    assert_eq!(data[1..], fills);
}

#[test]
fn precision_and_input_shape_override_the_file() {
    let mut file = conv_bn(&[0, 2, -1, -2], 17, node("BatchNormalization", "c g b m v", "y"));
    let errors = import(&file).unwrap_err().to_string();
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
    assert_eq!(import(&file).unwrap().inputs, [("x".to_string(), vec![2, 6, 5])]);
}

#[test]
fn all_unknown_operators_are_reported_at_once() {
    let nodes = vec![
        node("Erf", "x", "a"),
        node("Relu", "a", "b"),
        node("Tan", "b", "y"),
    ];
    let errors = import(&model(17, &[0, 4], vec![], nodes)).unwrap_err();
    assert_eq!(errors.kind(), ErrorKind::Unsupported);
    let texts: Vec<String> = errors.0.iter().map(|e| e.to_string()).collect();
    assert_eq!(
        texts,
        [
            "node \"a_node\" (Erf): operator Erf (opset 17) is not supported",
            "node \"y_node\" (Tan): operator Tan (opset 17) is not supported"
        ]
    );
}

#[test]
fn a_final_softmax_is_left_out() {
    let initializers = || vec![ramp("w", &[4, 3], 0.1)];
    let matmul = || node("MatMul", "x w", "a");
    for op in ["Softmax", "LogSoftmax"] {
        let last = model(
            17,
            &[0, 4],
            initializers(),
            vec![matmul(), node(op, "a", "y").int("axis", 1)],
        );
        let imported = import(&last).unwrap();
        assert_eq!(imported.softmax_outputs, ["y"]);
        assert!(
            imported
                .warnings
                .iter()
                .any(|w| w.message.contains("holds logits"))
        );
        assert_eq!(imported.graph.outputs[0].name, "y");
    }
    let inside = vec![matmul(), node("Softmax", "a", "b"), node("Relu", "b", "y")];
    let errors = import(&model(17, &[0, 4], initializers(), inside)).unwrap_err();
    assert_eq!(errors.kind(), ErrorKind::Unsupported);
}

#[test]
fn functions_are_inlined() {
    let mut clip = node("Clip", "h", "r");
    let low = syncbn_onnx::proto::AttributeProto {
        name: Some("value_float".to_string()),
        ref_attr_name: Some("floor".to_string()),
        r#type: Some(1),
        ..Default::default()
    };
    let mut constant = node("Constant", "", "low");
    constant.attribute.push(low);
    clip.input.push("low".to_string());
    let standard = OperatorSetIdProto {
        domain: None,
        version: Some(17),
    };
    let local = OperatorSetIdProto {
        domain: Some("local".to_string()),
        version: Some(1),
    };
    let function = FunctionProto {
        name: Some("Floor".to_string()),
        domain: Some("local".to_string()),
        input: vec!["h".to_string()],
        output: vec!["r".to_string()],
        attribute: vec!["floor".to_string()],
        node: vec![constant, clip],
        opset_import: vec![standard],
        ..Default::default()
    };
    let call = |input: &str, output: &str, floor: f32| {
        let mut call = node("Floor", input, output).float("floor", floor);
        call.domain = Some("local".to_string());
        call
    };
    let mut file = model(
        17,
        &[0, 2],
        vec![],
        vec![call("x", "h", -2.0), call("h", "y", 1.5)],
    );
    file.opset_import.push(local);
    file.functions.push(function);
    let y = run(&import(&file).unwrap(), 1, &[-3.0, 2.0], &[1, 2]);
    assert_eq!(y.data, [1.5, 2.0]);
}

#[test]
fn external_data_is_read_from_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut w = floats("w", &[4, 2], &[]);
    w.raw_data = None;
    w.data_location = Some(DataLocation::External as i32);
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.to_string()),
        value: Some(value.to_string()),
    };
    w.external_data = vec![
        entry("location", "data/w.bin"),
        entry("offset", "8"),
        entry("length", "32"),
    ];
    let file = model(17, &[0, 4], vec![w], vec![node("MatMul", "x w", "y")]);
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, file.encode_to_vec()).unwrap();
    let errors = syncbn_onnx::import(&path, &ImportOptions::default()).unwrap_err();
    assert_eq!(errors.kind(), ErrorKind::User);
    assert!(errors.to_string().contains("data/w.bin"), "{errors}");

    let values: Vec<u8> = (0..10).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/w.bin"), values).unwrap();
    let imported = syncbn_onnx::import(&path, &ImportOptions::default()).unwrap();
    let y = run(&imported, 1, &[1.0, 0.0, 0.0, 1.0], &[1, 4]);
    assert_eq!(y.data, [2.0 + 8.0, 3.0 + 9.0]);

    let without_folder = import(&file).unwrap_err();
    assert!(
        without_folder.to_string().contains("outside of the model"),
        "{without_folder}"
    );
}

#[test]
fn folded_batch_norm_is_noticed() {
    let nodes = vec![node("Conv", "x onnx::Conv_21 onnx::Conv_22", "y")];
    let initializers = vec![
        ramp("onnx::Conv_21", &[3, 2, 1, 1], 0.1),
        ramp("onnx::Conv_22", &[3], 0.1),
    ];
    let imported = import(&model(17, &[0, 2, 4, 4], initializers, nodes)).unwrap();
    assert_eq!(imported.warnings.len(), 1);
    let text = imported.warnings[0].to_string();
    assert!(
        text.contains("no BatchNormalization") && text.contains("folded"),
        "{text}"
    );
    assert!(text.contains("optimize=False"), "{text}");
}
