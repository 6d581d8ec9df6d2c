//! What the import tests share.

pub mod model;

use std::collections::BTreeMap;
use std::path::PathBuf;

use prost::Message;
use syncbn_ir::{Array, OutputKind, RankInputs, TensorType, evaluate, initial_state, verify};
use syncbn_onnx::proto::{ModelProto, NodeProto};
use syncbn_onnx::{ImportErrors, ImportOptions, Imported, TensorClass, import, import_bytes};

use self::model::{floats, node, ramp};

/// A folder of the repository's fixtures.
pub fn fixtures(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(folder)
}

/// The `index.json` of a folder of fixtures.
pub fn index(folder: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(fixtures(folder).join("index.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Imports a fixture with default options.
pub fn import_fixture(folder: &str, file: &str) -> Result<Imported, ImportErrors> {
    import(&fixtures(folder).join(file), &ImportOptions::default())
}

/// Imports and verifies a model.
pub fn import_with(model: &ModelProto, options: &ImportOptions) -> Result<Imported, ImportErrors> {
    let imported = import_bytes(&model.encode_to_vec(), None, options)?;
    verify(&imported.graph).unwrap_or_else(|errors| panic!("{errors:?}"));
    Ok(imported)
}

/// Imports and verifies a model with default options.
pub fn import_model(model: &ModelProto) -> Result<Imported, ImportErrors> {
    import_with(model, &ImportOptions::default())
}

/// Names of the tensors of a class.
pub fn names(imported: &Imported, class: TensorClass) -> Vec<&str> {
    imported
        .tensors
        .iter()
        .filter(|t| t.class == class)
        .map(|t| t.name.as_str())
        .collect()
}

/// Output `y` for input `x`.
pub fn run(imported: &Imported, n: usize, x: &[f64], dims: &[usize]) -> Array {
    let values = BTreeMap::from([("x".to_string(), Array::new(dims, x.to_vec()))]);
    let state = initial_state(&imported.graph, 1).unwrap();
    let results = evaluate(&imported.graph, &[RankInputs { n, values }], &state).unwrap();
    results[0].get(OutputKind::Output, "y").unwrap().clone()
}

/// Type of the first output.
pub fn output_type(imported: &Imported) -> TensorType {
    imported.graph.ty(imported.graph.outputs[0].value).clone()
}

/// A convolution from 2 to 3 channels with a BatchNorm of these inputs.
pub fn conv_bn(input: &[i64], opset: i64, bn: NodeProto) -> ModelProto {
    let initializers = vec![
        ramp("w", &[3, 2, 1, 1], 0.1),
        floats("g", &[3], &[1.0, 2.0, 3.0]),
        floats("b", &[3], &[0.0, 0.5, 1.0]),
        floats("m", &[3], &[0.0, 0.1, 0.2]),
        floats("v", &[3], &[1.0, 2.0, 3.0]),
    ];
    model::model(opset, input, initializers, vec![node("Conv", "x w", "c"), bn])
}
