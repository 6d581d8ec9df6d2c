//! Gradients are those of finite differences.

use syncbn_ir::{Array, Graph, OutputKind, RankInputs, State, initial_state};
use syncbn_passes::{BatchNormMode, Loss, Options, training_graph};

use crate::networks::NETWORKS;
use crate::support::{after, inputs, options, run, split};

fn loss(graph: &Graph, ranks: &[RankInputs], state: &State) -> f64 {
    run(graph, ranks, state)[0]
        .get(OutputKind::Loss, "loss")
        .unwrap()
        .data[0]
}

fn check(options: &Options) {
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        let forward = after(&network, &["set-batch-norm-mode", "add-loss"], options);
        let wanted = Options {
            input_gradients: true,
            ..options.clone()
        };
        let (graph, _) = training_graph(&network, &wanted).unwrap();
        let state = initial_state(&network, 3).unwrap();
        let data = inputs(&graph, 5, 11);
        let outputs = run(&graph, &split(&data, &[5]), &state);
        let mut checked = 0;
        for (tensor, gradient) in outputs[0].of_kind(OutputKind::Gradient) {
            let whole: f64 = gradient.data.iter().fold(1e-2, |m: f64, v| m.max(v.abs()));
            // Every element of small tensors, some of large ones.
            for i in (0..gradient.len()).step_by(gradient.len().div_ceil(7)) {
                let at = |h: f64| {
                    let (mut state, mut data) = (state.clone(), data.clone());
                    let array: &mut Array = match state.parameters.get_mut(tensor) {
                        Some(array) => array,
                        None => data.get_mut(tensor).unwrap(),
                    };
                    array.data[i] += h;
                    loss(&forward, &split(&data, &[5]), &state)
                };

                let h = 1e-5;
                let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
                let error = (slope - gradient.data[i]).abs() / whole;
                assert!(
                    error < 1e-6,
                    "{name}: {tensor}[{i}] is {} expected {slope}",
                    gradient.data[i]
                );
                checked += 1;
            }
        }
        assert!(checked > 0, "{name}");
    }
}

#[test]
fn cross_entropy() {
    check(&options());
}

#[test]
fn mean_squared_error() {
    check(&Options {
        loss: Loss::MeanSquaredError,
        ..options()
    });
}

#[test]
fn frozen() {
    check(&Options {
        batch_norm: BatchNormMode::Frozen,
        ..options()
    });
}
