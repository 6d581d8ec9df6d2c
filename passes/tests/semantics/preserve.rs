//! Rewrites keep what a graph computes.

use syncbn_ir::{Graph, Op, OutputKind, initial_state};
use syncbn_passes::{Mode, Options, inference_graph, training_graph};

use crate::networks::NETWORKS;
use crate::support::{after, assert_close, inputs, joined, options, run, split};

#[test]
fn inference_keeps_the_outputs() {
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        // Weight standardisation with training_mode=1 normalises with its own statistics.
        let infer = Options {
            mode: Mode::Infer,
            ..options()
        };
        let definition = after(&network, &["set-batch-norm-mode"], &infer);
        let (graph, _) = inference_graph(&network, &options(), None).unwrap();
        let mut state = initial_state(&network, 3).unwrap();
        for array in state.statistics[0].values_mut() {
            array
                .data
                .iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v += 0.3 + 0.1 * i as f64);
        }
        let data = inputs(&graph, 5, 7);
        let (a, b) = (
            run(&definition, &split(&data, &[5]), &state),
            run(&graph, &split(&data, &[5]), &state),
        );
        for output in &definition.outputs {
            let of = |graph: &Graph, outputs| joined(graph, outputs, output.kind, &output.name);
            assert_close(name, &of(&graph, &b), &of(&definition, &a), 1e-12);
        }
        assert!(
            !graph.nodes().any(|id| matches!(graph.op(id), Op::AllReduce(_))),
            "{name}"
        );
    }
}

/// Each pass of the training pipeline alone, on the graph before it.
#[test]
fn every_pass_keeps_the_results() {
    let steps = syncbn_passes::pipelines::expand(&["train"]).unwrap();
    let names: Vec<&str> = steps.iter().map(|p| p.name()).collect();
    let start = names.iter().position(|&n| n == "differentiate").unwrap();
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        let state = initial_state(&network, 3).unwrap();
        let mut graph = after(&network, &names[..=start], &options());
        let data = inputs(&graph, 6, 13);
        let ranks = split(&data, &[6]);
        let expected = run(&graph, &ranks, &state);
        for pass in &names[start + 1..] {
            graph = after(&graph, &[pass], &options());
            let found = run(&graph, &ranks, &state);
            for output in &graph.outputs {
                let of = |outputs| joined(&graph, outputs, output.kind, &output.name);
                assert_close(
                    &format!("{name} after {pass}: {}", output.name),
                    &of(&found),
                    &of(&expected),
                    1e-12,
                );
            }
        }
    }
}

#[test]
fn a_second_run_changes_nothing() {
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        for mode in [Mode::Train, Mode::Infer] {
            let options = Options { mode, ..options() };
            let steps =
                syncbn_passes::pipelines::expand(&[if mode == Mode::Train { "train" } else { "infer" }]);
            let mut graph = network.clone();
            for pass in steps.unwrap() {
                graph = after(&graph, &[pass.name()], &options);
                let again = after(&graph, &[pass.name()], &options);
                assert_eq!(graph.to_string(), again.to_string(), "{name}: {}", pass.name());
            }
        }
    }
}

#[test]
fn training_updates_a_shared_statistic_twice() {
    let network = NETWORKS
        .iter()
        .find(|(name, _)| *name == "shared-batch-norm")
        .unwrap()
        .1()
    .unwrap();
    let (graph, _) = training_graph(&network, &options()).unwrap();
    let of_kind = |kind| graph.outputs.iter().filter(move |o| o.kind == kind).count();
    assert_eq!(of_kind(OutputKind::Statistic), 2);
    assert_eq!(of_kind(OutputKind::Gradient), 3);
}
