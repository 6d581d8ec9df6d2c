//! Single-operator cases of the ONNX backend tests, through the importer and the reference evaluation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::common::model::{info, node};
use prost::Message;
use syncbn_ir::{Array, OutputKind, RankInputs, evaluate, initial_state, verify};
use syncbn_onnx::proto::type_proto::Value;
use syncbn_onnx::proto::{ModelProto, TensorProto};
use syncbn_onnx::{ErrorKind, ImportErrors, ImportOptions, import_bytes};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/node")
}

fn array(tensor: &TensorProto) -> Array {
    let raw = tensor.raw_data.clone().unwrap_or_default();
    let data: Vec<f64> = match (tensor.data_type(), raw.is_empty()) {
        (1, false) => raw
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect(),
        (1, true) => tensor.float_data.iter().map(|&v| f64::from(v)).collect(),
        (11, false) => raw
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        _ => tensor.double_data.clone(),
    };
    let dims: Vec<usize> = tensor.dims.iter().map(|&d| d as usize).collect();
    Array::new(&dims, data)
}

struct Case {
    model: ModelProto,
    expected: BTreeMap<String, Array>,
    tolerance: (f64, f64),
}

fn load(entry: &serde_json::Value) -> Case {
    let name = entry["name"].as_str().unwrap();
    let bytes = std::fs::read(folder().join(format!("{name}.onnx"))).unwrap();
    let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let mut expected = BTreeMap::new();
    graph
        .initializer
        .retain(|t| match t.name().strip_prefix("expected:") {
            Some(output) if matches!(t.data_type(), 1 | 11) => {
                expected.insert(output.to_string(), array(t));
                false
            }
            Some(_) => false,
            None => true,
        });
    // Masks, indices and statistics are not supported as outputs.
    graph.output.retain(|o| expected.contains_key(o.name()));
    graph.output.truncate(1);
    Case {
        model,
        expected,
        tolerance: (entry["rtol"].as_f64().unwrap(), entry["atol"].as_f64().unwrap()),
    }
}

/// Imports and evaluates; `data` are the inputs that are not initializers.
fn outputs(
    model: &ModelProto,
    data: BTreeMap<String, Array>,
    n: usize,
) -> Result<BTreeMap<String, Array>, ImportErrors> {
    let imported = import_bytes(&model.encode_to_vec(), None, &ImportOptions::default())?;
    verify(&imported.graph).unwrap_or_else(|errors| panic!("{errors:?}"));
    let state = initial_state(&imported.graph, 1).unwrap();
    let results = evaluate(&imported.graph, &[RankInputs { n, values: data }], &state).unwrap();
    let outputs = results[0].of_kind(OutputKind::Output);
    Ok(outputs
        .map(|(name, array)| (name.to_string(), array.clone()))
        .collect())
}

fn check(case: &str, mode: &str, found: &Array, expected: &Array, (rtol, atol): (f64, f64)) {
    assert_eq!(found.data.len(), expected.data.len(), "{case} {mode}");
    for (i, (f, e)) in found.data.iter().zip(&expected.data).enumerate() {
        let same = f == e || (f.is_nan() && e.is_nan());
        let close = same || (f - e).abs() <= atol + rtol * e.abs();
        assert!(close, "{case} {mode}: element {i} is {f}, expected {e}");
    }
}

/// The first input is data, whose first size is the batch; the others are initializers, or data too where
/// they have the same shape.
fn with_batch(case: &Case) -> Result<(), ImportErrors> {
    let mut model = case.model.clone();
    let graph = model.graph.as_mut().unwrap();
    let first = graph.initializer[0].dims.clone();
    let same = graph
        .node
        .iter()
        .all(|n| matches!(n.op_type(), "Add" | "Sub" | "Mul" | "Div" | "Concat"));
    let mut data = BTreeMap::new();
    let mut index = 0;
    graph.initializer.retain(|t| {
        let is_data = index == 0 || (same && t.dims == first);
        index += 1;
        if is_data {
            data.insert(t.name().to_string(), array(t));
        }
        !is_data
    });
    let n = first.first().copied().unwrap_or(1) as usize;
    let found = outputs(&model, data, n)?;
    for (name, found) in &found {
        assert_eq!(found.dims, case.expected[name].dims, "{:?}", graph_name(case));
        check(
            graph_name(case),
            "with a batch",
            found,
            &case.expected[name],
            case.tolerance,
        );
    }
    Ok(())
}

fn graph_name(case: &Case) -> &str {
    case.model.graph.as_ref().unwrap().name()
}

/// All inputs are initializers, and a zero with a batch of 1 is added to the output.
fn without_batch(case: &Case) -> Result<(), ImportErrors> {
    let mut model = case.model.clone();
    let graph = model.graph.as_mut().unwrap();
    let name = graph.output[0].name().to_string();
    let expected = &case.expected[&name];
    let elem_type = match graph.output[0].r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(Value::TensorType(tensor)) => tensor.elem_type(),
        _ => 1,
    };
    let rank = expected.dims.len() + 1;
    let declared = |n: &str| {
        let mut dims = vec![1i64; rank];
        dims[0] = 0;
        info(n, elem_type, &dims)
    };
    graph.input = vec![declared("zero of the test")];
    let mut add = node("Add", "a b", "c");
    add.input = vec![name, "zero of the test".to_string()];
    add.output = vec!["sum of the test".to_string()];
    graph.node.push(add);
    graph.output = vec![declared("sum of the test")];
    let zero = Array::zeros(&vec![1; rank]);
    let found = outputs(
        &model,
        BTreeMap::from([("zero of the test".to_string(), zero)]),
        1,
    )?;
    check(
        graph_name(case),
        "without a batch",
        &found["sum of the test"],
        expected,
        case.tolerance,
    );
    Ok(())
}

/// The operators that cover 80% of 69 networks of torchvision and timm in the form that PyTorch's newer exporter gives
/// them, but for Shape, which import evaluates. Each passes the cases of ONNX; the finite differences in `passes/tests/semantics` check their gradients.
const MOST_USED: [&str; 19] = [
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "Gemm",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Split",
];

#[test]
fn cases_match_or_are_refused_as_unsupported() {
    let text = std::fs::read_to_string(folder().join("index.json")).unwrap();
    let index: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut refused = [Vec::new(), Vec::new()];
    let mut passed = [0, 0];
    let mut operators = BTreeSet::new();
    for entry in &index {
        let case = load(entry);
        let nodes = &case.model.graph.as_ref().unwrap().node;
        operators.extend(nodes.iter().map(|node| node.op_type().to_string()));
        let name = entry["name"].as_str().unwrap();
        for (mode, result) in [with_batch(&case), without_batch(&case)].into_iter().enumerate() {
            match result {
                Ok(()) => passed[mode] += 1,
                Err(errors) => refused[mode].push((name.to_string(), errors)),
            }
        }
    }
    let show = |list: &[(String, ImportErrors)]| {
        list.iter()
            .map(|(name, errors)| format!("{name}: {errors}"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(refused[1].is_empty(), "{}", show(&refused[1]));
    assert_eq!(passed[1], index.len());
    let missing: Vec<_> = MOST_USED.iter().filter(|op| !operators.contains(**op)).collect();
    assert!(missing.is_empty(), "no case of {missing:?}");
    // What these do to the first axis is not possible for every batch.
    let [refused, _] = refused;
    let wrong: Vec<_> = refused
        .iter()
        .filter(|(_, e)| e.kind() != ErrorKind::Unsupported)
        .cloned()
        .collect();
    assert!(wrong.is_empty(), "{}", show(&wrong));
    assert!(
        passed[0] >= 164,
        "{} of {} pass; refused:\n{}",
        passed[0],
        index.len(),
        show(&refused)
    );
}
