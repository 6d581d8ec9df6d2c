//! What becomes of initializers and of inputs that stand for weights.

use crate::common::model::{With, floats, info, model, node, ramp};
use crate::common::{conv_bn, import_model, import_with, names};
use syncbn_ir::Op;
use syncbn_ir::ops::ParameterData;
use syncbn_onnx::{ImportOptions, TensorClass};

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
    let imported = import_model(&model(
        20,
        &[0, 2, 4, 4],
        vec![ramp("w", &[3, 2, 1, 1], 0.1)],
        nodes,
    ))
    .unwrap();
    assert_eq!(names(&imported, TensorClass::Trained), ["w"]);
    assert_eq!(names(&imported, TensorClass::Constant), [""; 0]);
    let folded = vec![ramp("w", &[3, 2, 1, 1], 0.1), floats("val_6", &[3], &[0.0; 3])];
    let imported = import_model(&model(
        20,
        &[0, 2, 4, 4],
        folded,
        vec![node("Conv", "x w val_6", "y")],
    ))
    .unwrap();
    assert_eq!(names(&imported, TensorClass::Trained), ["w"]);
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
    let imported = import_model(&model(17, &[0, 2, 4, 4], initializers, nodes)).unwrap();
    assert_eq!(
        names(&imported, TensorClass::Trained),
        ["w", "zeros", "zeros_copy"]
    );
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
    let imported = import_model(&file).unwrap();
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
            .any(|w| w.to_string() == "--train none: matches no parameter")
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
    let errors = import_model(&file).unwrap_err();
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
fn weights_in_constant_nodes_are_not_trained_and_warn() {
    let nodes = vec![
        node("Constant", "", "k").tensor("value", ramp("", &[2, 2, 1, 1], 0.1)),
        node("Conv", "x k", "c"),
        node("Conv", "c w", "y"),
    ];
    let file = model(17, &[0, 2, 4, 4], vec![ramp("w", &[2, 2, 1, 1], 0.1)], nodes);
    let imported = import_model(&file).unwrap();
    assert_eq!(names(&imported, TensorClass::Trained), ["w"]);
    let text = "weights that are Constant nodes are not trained: those of \"c_node\"";
    assert!(
        imported.warnings.iter().any(|w| w.message == text),
        "{:?}",
        imported.warnings
    );
}

#[test]
fn values_keep_their_bits() {
    let values = [1.0f32, -0.0, 1.1754944e-38, f32::MIN_POSITIVE / 2.0, 3.4e38, 0.1];
    let nodes = || vec![node("MatMul", "x w", "y")];
    let raw = floats("w", &[2, 3], &values);
    let mut typed = raw.clone();
    typed.raw_data = None;
    typed.float_data = values.to_vec();
    for tensor in [raw, typed] {
        let imported = import_model(&model(17, &[0, 2], vec![tensor], nodes())).unwrap();
        let found = imported.graph.nodes().find_map(|id| match imported.graph.op(id) {
            Op::Parameter(p) => Some(p.data.clone()),
            _ => None,
        });
        let Some(ParameterData::Values(literal)) = found else {
            panic!("no parameter")
        };
        let expected: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(
            (literal.dims.as_slice(), literal.to_bytes()),
            ([2, 3].as_slice(), expected)
        );
    }
}
