//! Functions, external data, final softmax, and errors of a whole file.

use crate::common::model::{With, floats, model, node, ramp};
use crate::common::{import_model, run};
use prost::Message;
use syncbn_onnx::proto::tensor_proto::DataLocation;
use syncbn_onnx::proto::{FunctionProto, OperatorSetIdProto, StringStringEntryProto};
use syncbn_onnx::{ErrorKind, ImportOptions};

#[test]
fn all_unknown_operators_are_reported_at_once() {
    let nodes = vec![
        node("Asin", "x", "a"),
        node("Relu", "a", "b"),
        node("Tan", "b", "c"),
        node("Asin", "c", "y"),
    ];
    let errors = import_model(&model(17, &[0, 4], vec![], nodes)).unwrap_err();
    assert_eq!(errors.kind(), ErrorKind::Unsupported);
    let texts: Vec<String> = errors.0.iter().map(|e| e.to_string()).collect();
    assert_eq!(
        texts,
        [
            "node \"a_node\" (Asin): operator Asin (opset 17) is not supported (and 1 other node)",
            "node \"c_node\" (Tan): operator Tan (opset 17) is not supported"
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
        let imported = import_model(&last).unwrap();
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
    let errors = import_model(&model(17, &[0, 4], initializers(), inside)).unwrap_err();
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
    let y = run(&import_model(&file).unwrap(), 1, &[-3.0, 2.0], &[1, 2]);
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

    let without_folder = import_model(&file).unwrap_err();
    assert!(
        without_folder.to_string().contains("outside of the model"),
        "{without_folder}"
    );
}
