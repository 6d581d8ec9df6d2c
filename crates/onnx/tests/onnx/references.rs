//! Imported networks compute what PyTorch computed in float64, with the running statistics of the file.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{fixtures, import_fixture, index};
use npyz::npz::NpzArchive;
use syncbn_ir::{Array, OutputKind, RankInputs, evaluate, initial_state};
use syncbn_onnx::{ImportOptions, TensorClass, import};

fn array(path: &Path, name: &str) -> Array {
    let mut archive = NpzArchive::open(path).unwrap();
    let file = archive.by_name(name).unwrap().unwrap();
    let dims: Vec<usize> = file.shape().iter().map(|&d| d as usize).collect();
    let data = if file.dtype().descr().contains("f4") {
        file.into_vec::<f32>()
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect()
    } else {
        file.into_vec::<f64>().unwrap()
    };
    Array::new(&dims, data)
}

/// Compares the inference of a network with `eval_before` of its references.
fn compare(folder: &str, model: &str, references: &str) {
    let imported = import(&fixtures(folder).join(model), &ImportOptions::default()).unwrap();
    let references = fixtures(folder).join(references);
    let (x, expected) = (array(&references, "x"), array(&references, "eval_before"));
    let inputs = RankInputs {
        n: x.dims[0],
        values: BTreeMap::from([("x".to_string(), x)]),
    };
    let state = initial_state(&imported.graph, 0).unwrap();
    let results = evaluate(&imported.graph, &[inputs], &state).unwrap();
    let name = imported.graph.outputs[0].name.clone();
    let found = results[0].get(OutputKind::Output, &name).unwrap();
    assert_eq!(found.dims, expected.dims, "{model}");
    let scale = expected.data.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    let error = found
        .data
        .iter()
        .zip(&expected.data)
        .fold(0f64, |m, (f, e)| m.max((f - e).abs()));
    assert!(error <= 1e-10 * scale, "{model}: error {error} at scale {scale}");
}

#[test]
fn reference_networks_infer_what_pytorch_inferred() {
    for model in index("dev")["models"].as_array().unwrap() {
        let name = |key: &str| model[key].as_str().unwrap();
        compare("dev", name("model"), name("data"));
    }
}

#[test]
fn both_export_recipes_give_the_same_network() {
    for model in ["dynamo.onnx", "legacy.onnx"] {
        compare("recipes", model, "references.npz");
    }
    let trained = |model: &str| {
        let imported = import_fixture("recipes", model).unwrap();
        assert_eq!(imported.warnings, [], "{model}");
        let mut names: Vec<String> = imported
            .tensors
            .into_iter()
            .filter(|t| t.class == TensorClass::Trained)
            .map(|t| t.name)
            .collect();
        names.sort();
        names
    };
    assert_eq!(trained("dynamo.onnx"), trained("legacy.onnx"));
}

#[test]
fn a_folded_export_warns_with_the_recipe() {
    let imported = import_fixture("recipes", "folded.onnx").unwrap();
    assert_eq!(imported.batch_norms, 0);
    let warning = &imported.warnings[0];
    let help = warning.help.as_deref().unwrap_or_default();
    assert!(
        warning.message.contains("folded into convolutions") && help.contains("optimize=False"),
        "{warning:?}"
    );
}
