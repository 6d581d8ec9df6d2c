//! Any split of a batch gives what one rank gives on the whole batch.

use syncbn_ir::{Graph, OutputKind, initial_state};
use syncbn_passes::{BatchNormMode, Options, training_graph};

use crate::networks::NETWORKS;
use crate::support::{after, assert_close, difference, inputs, joined, options, run, split};

/// The training form as it is before BatchNorm is taken apart: on one rank it is the definition.
const DEFINITION: &[&str] = &["clean", "set-batch-norm-mode", "add-loss", "differentiate"];

fn check(counts: &[usize], tolerance: f64) {
    for (name, build) in NETWORKS {
        check_split(name, &build().unwrap(), counts, tolerance);
    }
}

/// Fails unless ranks with these numbers of samples give what one rank gives on all of them.
pub fn check_split(name: &str, network: &Graph, counts: &[usize], tolerance: f64) {
    let n = counts.iter().sum();
    let definition = after(network, DEFINITION, &options());
    let (graph, _) = training_graph(network, &options()).unwrap();
    let state = initial_state(network, 3).unwrap();
    let data = inputs(&definition, n, 5);
    let expected = run(&definition, &split(&data, &[n]), &state);
    let found = run(&graph, &split(&data, counts), &state);
    assert_eq!(definition.outputs.len(), graph.outputs.len(), "{name}");
    for output in &definition.outputs {
        let what = format!("{name}, {counts:?}, {:?} {}", output.kind, output.name);
        let expected = joined(&definition, &expected, output.kind, &output.name);
        let joined = joined(&graph, &found, output.kind, &output.name);
        assert_close(&what, &joined, &expected, tolerance);
        // What is not of samples is the same, to the bit, on every rank.
        if !definition.ty(output.value).shape.has_batch() {
            for rank in &found {
                let first = found[0].get(output.kind, &output.name);
                assert_eq!(rank.get(output.kind, &output.name), first, "{what}");
            }
        }
    }
}

#[test]
fn one_rank() {
    check(&[6], 1e-12);
}

#[test]
fn uneven_ranks() {
    check(&[5, 3], 1e-12);
    check(&[1, 4, 2], 1e-12);
}

#[test]
fn empty_ranks() {
    check(&[5, 3, 0], 1e-12);
    check(&[0, 0, 4, 0, 2], 1e-12);
}

#[test]
fn local_statistics_differ_from_synchronised_ones() {
    let (_, residual) = NETWORKS[0];
    let network = residual().unwrap();
    let state = initial_state(&network, 3).unwrap();
    let local = Options {
        batch_norm: BatchNormMode::Local,
        ..options()
    };
    let (sync, _) = training_graph(&network, &options()).unwrap();
    let (local, _) = training_graph(&network, &local).unwrap();
    let data = inputs(&sync, 8, 5);
    let ranks = split(&data, &[5, 3]);
    let (a, b) = (run(&sync, &ranks, &state), run(&local, &ranks, &state));
    for (kind, name) in [
        (OutputKind::Output, "logits"),
        (OutputKind::Loss, "loss"),
        (OutputKind::Gradient, "stem.conv.weight"),
        (OutputKind::Gradient, "stem.bn.weight"),
        (OutputKind::Statistic, "stem.bn.running_mean"),
    ] {
        let d = difference(&joined(&local, &b, kind, name), &joined(&sync, &a, kind, name));
        assert!(d > 1e-3, "{kind:?} {name} differs by {d:e} only");
    }
    // Gradients are summed all the same.
    let gradient = |rank: usize| b[rank].get(OutputKind::Gradient, "stem.bn.weight");
    assert_eq!(gradient(0), gradient(1));
}

/// Groups of two with the same data in each group give what synchronisation over one group gives.
#[test]
fn groups_share_statistics() {
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        let state = initial_state(&network, 3).unwrap();
        let groups = Options {
            batch_norm: BatchNormMode::Group(2),
            ..options()
        };
        let (sync, _) = training_graph(&network, &options()).unwrap();
        let (groups, _) = training_graph(&network, &groups).unwrap();
        let data = inputs(&sync, 6, 5);
        let pair = split(&data, &[4, 2]);
        let twice = [pair.clone(), pair.clone()].concat();
        let (a, b) = (run(&sync, &pair, &state), run(&groups, &twice, &state));
        for output in &sync.outputs {
            let one = joined(&sync, &a, output.kind, &output.name);
            let two = joined(&groups, &b[..2], output.kind, &output.name);
            // The mean over twice the samples is the same mean.
            assert_close(&format!("{name}: {}", output.name), &two, &one, 1e-12);
        }
    }
}

/// A frozen BatchNorm is an affine function: the split does not matter, statistics stay, scale and bias have no
/// gradient.
#[test]
fn frozen_statistics() {
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        let state = initial_state(&network, 3).unwrap();
        let frozen = Options {
            batch_norm: BatchNormMode::Frozen,
            ..options()
        };
        let (graph, _) = training_graph(&network, &frozen).unwrap();
        let data = inputs(&graph, 6, 5);
        let (a, b) = (
            run(&graph, &split(&data, &[6]), &state),
            run(&graph, &split(&data, &[4, 0, 2]), &state),
        );
        for output in &graph.outputs {
            let what = format!("{name}: {}", output.name);
            let of = |outputs| joined(&graph, outputs, output.kind, &output.name);
            assert_close(&what, &of(&b), &of(&a), 1e-12);
        }
        let gradients = a[0].of_kind(OutputKind::Gradient);
        assert!(
            gradients.into_iter().all(|(name, _)| !name.contains("bn.")),
            "{name}"
        );
    }
}
