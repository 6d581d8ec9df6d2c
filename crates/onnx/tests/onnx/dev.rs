//! The reference networks import with the parameters and operators that their index lists.

use std::collections::BTreeMap;

use crate::common::{import_fixture, index};
use syncbn_ir::Op;
use syncbn_onnx::TensorClass;

fn count(graph: &syncbn_ir::Graph, name: &str) -> usize {
    graph.nodes().filter(|&id| graph.op(id).name() == name).count()
}

#[test]
fn all_reference_networks_import() {
    let index = index("dev");
    let models = index["models"].as_array().unwrap();
    assert_eq!(models.len(), 8);
    for model in models {
        let name = model["name"].as_str().unwrap();
        let imported = import_fixture("dev", model["model"].as_str().unwrap())
            .unwrap_or_else(|errors| panic!("{name}: {errors}"));
        let trained: Vec<&str> = imported
            .tensors
            .iter()
            .filter(|t| t.class == TensorClass::Trained)
            .map(|t| t.name.as_str())
            .collect();
        let mut expected: Vec<&str> = model["parameter_names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        let mut sorted = trained.clone();
        sorted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(sorted, expected, "{name}");
        let elements: usize = imported
            .tensors
            .iter()
            .filter(|t| t.class == TensorClass::Trained)
            .map(|t| t.shape.iter().product::<usize>())
            .sum();
        assert_eq!(elements as u64, model["parameters"].as_u64().unwrap(), "{name}");
        assert_eq!(
            imported.batch_norms as u64,
            model["batchnorms"].as_u64().unwrap(),
            "{name}"
        );
        assert_eq!(
            imported
                .tensors
                .iter()
                .filter(|t| t.class == TensorClass::Constant)
                .count(),
            0,
            "{name}"
        );
        let statistics = imported
            .tensors
            .iter()
            .filter(|t| t.class == TensorClass::Statistic)
            .count();
        assert_eq!(statistics, 2 * imported.batch_norms, "{name}");
        assert_eq!(imported.fixed_batch, None, "{name}");
        assert_eq!(imported.warnings, [], "{name}");
        for id in imported.graph.nodes() {
            if let Op::BatchNorm(bn) = imported.graph.op(id) {
                assert_eq!((bn.epsilon, bn.momentum), (1e-5, 0.1), "{name}");
            }
        }
    }
}

#[test]
fn nodes_follow_the_file() {
    let imported = import_fixture("dev", "syncbnnet_small.onnx").unwrap();
    let expected = BTreeMap::from([
        ("batch_norm", 9),
        ("conv", 9),
        ("matmul", 1),
        ("reduce", 1),
        ("reshape", 1),
    ]);
    for (op, n) in expected {
        assert_eq!(count(&imported.graph, op), n, "{op}");
    }
    // Sigmoid stays apart; three residual additions and the bias of the head, seven products.
    assert_eq!(count(&imported.graph, "unary"), 7);
    assert_eq!(count(&imported.graph, "binary"), 3 + 1 + 7);
    assert_eq!(imported.inputs, [("x".to_string(), vec![3, 16, 16])]);
    assert_eq!(imported.graph.outputs.len(), 1);
    assert_eq!(imported.graph.outputs[0].name, "y");
}
