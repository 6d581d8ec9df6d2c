//! What the fused graphs look like: how often activations are written, how many collectives there are.

use syncbn_ir::ops::{Unary, UnaryFunction};
use syncbn_ir::{Graph, Op};
use syncbn_passes::{BatchNormMode, Options, inference_graph, training_graph};

use crate::networks::{NETWORKS, activated, dense, residual};
use crate::support::options;

fn count(graph: &Graph, test: impl Fn(&Op) -> bool) -> usize {
    graph.nodes().filter(|&id| test(graph.op(id))).count()
}

/// Every convolution writes its result, every BatchNorm its normalised, added and activated one; nothing else
/// writes an activation in the forward pass, and no gradient of an activation function is stored.
#[test]
fn no_activation_is_written_twice() {
    let (graph, _) = training_graph(&residual().unwrap(), &options()).unwrap();
    assert_eq!(
        count(&graph, |op| matches!(
            op,
            Op::Unary(_) | Op::UnaryBackward(_) | Op::Moments(_)
        )),
        0
    );
    assert_eq!(count(&graph, |op| matches!(op, Op::Conv(c) if c.moments)), 6);
    assert_eq!(count(&graph, |op| matches!(op, Op::Normalize(_))), 6);
    assert_eq!(
        count(
            &graph,
            |op| matches!(op, Op::Normalize(n) if n.activation.is_some())
        ),
        5
    );
    let batched = |id: &syncbn_ir::NodeId| graph.ty((*id).into()).shape.rank() == 4;
    let additions = graph
        .nodes()
        .filter(batched)
        .filter(|&id| matches!(graph.op(id), Op::Binary(_)));
    // Only where the gradients of a block's input from its two branches meet.
    let additions = additions
        .filter(|&id| graph.ty(id.into()).shape.has_batch())
        .count();
    assert_eq!(additions, 3, "{graph}");
}

#[test]
fn collectives() {
    let reduces = |graph: &Graph| count(graph, |op| matches!(op, Op::AllReduce(_)));
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        let layers = count(&network, |op| matches!(op, Op::BatchNorm(_)));
        let (graph, _) = training_graph(&network, &options()).unwrap();
        let expected = match *name {
            // The weights' BatchNorm is not synchronised.
            "weight-standardised" | "weight-standardised-by-graph" => 3,
            // Nothing needs the gradient of the input, so that pair of sums joins the gradients.
            "batch-norm-first" => 2,
            // The projection's travel with those of the main branch.
            "residual" => 2 * (layers - 1) + 1,
            _ => 2 * layers + 1,
        };
        assert_eq!(reduces(&graph), expected, "{name}");
        for batch_norm in [BatchNormMode::Local, BatchNormMode::Frozen] {
            let (graph, _) = training_graph(
                &network,
                &Options {
                    batch_norm,
                    ..options()
                },
            )
            .unwrap();
            assert_eq!(reduces(&graph), 1, "{name} {batch_norm:?}");
        }
        let (graph, _) = inference_graph(&network, &options(), None).unwrap();
        assert_eq!(reduces(&graph), 0, "{name}");
    }
}

/// The second BatchNorm of a dense block sends the moments of the new part only, and both parts' moments come from
/// the convolutions that compute them.
#[test]
fn a_dense_block_measures_each_part_once() {
    let (graph, _) = training_graph(&dense().unwrap(), &options()).unwrap();
    assert_eq!(count(&graph, |op| matches!(op, Op::Moments(_))), 0, "{graph}");
    assert_eq!(count(&graph, |op| matches!(op, Op::Conv(c) if c.moments)), 2);
    let measured = graph
        .nodes()
        .filter(|&id| matches!(graph.op(id), Op::Conv(c) if c.moments));
    let sizes = measured.map(|id| graph.node(id).outputs[1].ty.shape.elements_per_sample());
    let sizes: std::collections::BTreeSet<Option<usize>> = sizes.collect();
    // 3 and 2 channels; the concat would have 5.
    assert_eq!(sizes, [Some(1 + 2 * 3), Some(1 + 2 * 2)].into());
}

#[test]
fn inference_folds_every_batch_norm_behind_a_convolution() {
    let (graph, _) = inference_graph(&residual().unwrap(), &options(), None).unwrap();
    assert_eq!(
        count(&graph, |op| matches!(op, Op::BatchNorm(_) | Op::Normalize(_))),
        0
    );
    assert_eq!(
        count(&graph, |op| matches!(op, Op::Conv(c) if c.activation.is_some())),
        5
    );
    // Both sums are in an epilogue too.
    let images = graph
        .nodes()
        .filter(|&id| graph.ty(id.into()).shape.has_batch() && graph.ty(id.into()).shape.rank() == 4);
    assert_eq!(
        images
            .filter(|&id| matches!(graph.op(id), Op::Binary(_) | Op::Unary(_)))
            .count(),
        0
    );
}

/// In the forward pass, in both kernels of its backward twin, and in inference.
#[test]
fn every_activation_is_fused() {
    for function in [
        None,
        Some(UnaryFunction::Relu),
        Some(UnaryFunction::Silu),
        Some(UnaryFunction::HardSwish),
        Some(UnaryFunction::LeakyRelu { alpha: 0.1 }),
        Some(UnaryFunction::Sigmoid),
    ] {
        let network = activated(function.map(|function| Unary { function })).unwrap();
        let (train, _) = training_graph(&network, &options()).unwrap();
        let (infer, _) = inference_graph(&network, &options(), None).unwrap();
        let separate = |op: &Op| matches!(op, Op::Unary(_) | Op::UnaryBackward(_) | Op::BatchNorm(_));
        assert_eq!(count(&train, separate), 0, "{function:?}\n{train}");
        for (graph, fused) in [
            (
                &train,
                count(
                    &train,
                    |op| matches!(op, Op::Normalize(n) if n.activation == function),
                ),
            ),
            (
                &train,
                count(
                    &train,
                    |op| matches!(op, Op::BatchNormBackwardReduce(r) if r.activation == function),
                ),
            ),
            (
                &train,
                count(
                    &train,
                    |op| matches!(op, Op::BatchNormBackwardData(d) if d.activation == function),
                ),
            ),
            (
                &infer,
                count(&infer, |op| matches!(op, Op::Conv(c) if c.activation == function)),
            ),
        ] {
            assert_eq!(fused, 1, "{function:?}\n{graph}");
        }
        let batched = infer.nodes().filter(|&id| infer.ty(id.into()).shape.has_batch());
        let left = batched.filter(|&id| matches!(infer.op(id), Op::Unary(_) | Op::BatchNorm(_)));
        assert_eq!(left.count(), 0, "{function:?}\n{infer}");
    }
}
