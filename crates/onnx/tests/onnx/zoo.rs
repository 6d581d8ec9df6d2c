//! Exports of known networks without their large weights import under `--init`.

use std::path::PathBuf;

use syncbn_ir::ops::ParameterData;
use syncbn_ir::{Op, TensorType, verify};
use syncbn_onnx::{ImportOptions, Imported, TensorClass, import};

fn zoo(file: &str, options: &ImportOptions) -> Imported {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/zoo");
    let imported = import(&folder.join(file), options).unwrap();
    assert_eq!(verify(&imported.graph), Ok(()), "{file}");
    assert_eq!(imported.warnings, [], "{file}");
    imported
}

#[test]
fn exports_of_known_networks_import() {
    let options = ImportOptions {
        init: true,
        ..ImportOptions::default()
    };
    // Parameters are counted as PyTorch counts them: all that an optimiser would be given.
    let cases = [
        ("mlp_legacy.onnx", 2, 7_114),
        ("preact_resnet_dynamo.onnx", 3, 15_258),
        ("resnet18_legacy.onnx", 20, 11_689_512),
        ("resnet18_dynamo.onnx", 20, 11_689_512),
        ("mobilenet_v2_clean.onnx", 52, 3_504_872),
        ("vgg16_bn_legacy.onnx", 13, 138_365_992),
        ("mobilenet_v3_small_clean.onnx", 34, 2_542_856),
        ("yolo_like_dynamo.onnx", 29, 534_260),
        ("unet_bilinear_legacy.onnx", 7, 70_002),
    ];
    for (file, batch_norms, parameters) in cases {
        let imported = zoo(file, &options);
        assert_eq!(imported.batch_norms, batch_norms, "{file}");
        let trained = imported
            .tensors
            .iter()
            .filter(|t| t.class == TensorClass::Trained);
        let count: usize = trained.map(|t| t.shape.iter().product::<usize>()).sum();
        assert_eq!(count, parameters, "{file}");
        let statistics = imported
            .tensors
            .iter()
            .filter(|t| t.class == TensorClass::Statistic)
            .count();
        assert_eq!(statistics, 2 * batch_norms, "{file}");
        assert_eq!(
            imported
                .tensors
                .iter()
                .filter(|t| t.class == TensorClass::Constant)
                .count(),
            0,
            "{file}"
        );
    }
}

#[test]
fn both_exporters_give_the_same_tensors() {
    let options = ImportOptions {
        init: true,
        ..ImportOptions::default()
    };
    let tensors = |file: &str| {
        let mut tensors = zoo(file, &options).tensors;
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors
    };
    assert_eq!(tensors("resnet18_legacy.onnx"), tensors("resnet18_dynamo.onnx"));
}

#[test]
fn another_input_shape_carries_through_the_network() {
    let options = ImportOptions {
        init: true,
        input_shapes: vec![("x".to_string(), vec![3, 96, 64])],
        ..ImportOptions::default()
    };
    let imported = zoo("resnet18_dynamo.onnx", &options);
    assert_eq!(imported.inputs, [("x".to_string(), vec![3, 96, 64])]);
    let output: &TensorType = imported.graph.ty(imported.graph.outputs[0].value);
    assert!(output.shape.has_batch() && output.shape.rank() == 2);
    let first = imported.graph.nodes().find_map(|id| match imported.graph.op(id) {
        Op::Parameter(p) if p.name == "conv1.weight" => Some(p.data.clone()),
        _ => None,
    });
    assert_eq!(first, Some(ParameterData::KaimingNormal { fan_in: 3 * 7 * 7 }));
}
