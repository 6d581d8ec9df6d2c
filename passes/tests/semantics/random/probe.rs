//! How far rounding alone moves the results of a training step.
//!
//! What ranks exchange of a channel of m values is `S1 = m*mean` and `S2 = M2 + m*mean^2` in float64, and the variance
//! is `S2/N - (S1/N)^2`. With u = 2^-53, R ranks, and every operation right to u of its result:
//!
//! - `S2`: two products and a sum on the rank, R - 1 sums over ranks, a division: (R + 3) u of `S2/N`, which is
//!   var + mean^2.
//! - `S1/N`: a product, R - 1 sums, a division: (R + 1) u of |mean|. Its square: (2 R + 3) u of mean^2.
//! - The difference: u of var.
//!
//! Together at most (3 R + 7) u (var + mean^2), which is (3 R + 7) u (1 + ratio^2) of the variance with ratio =
//! |mean| / deviation; the mean's own error is (R + 1) u ratio of the deviation. Half the former is the relative error
//! of `inv_std`: the forward pass shows it as it is, 1e-13 at a ratio of 10 on one rank. The gradient behind a BatchNorm is
//! what is left of `dy - B/N - xhat*G/N`: where `dy` is nearly a combination of 1 and `xhat`, which with a few values
//! a channel it is, next to nothing is left, and the error of `xhat` stands against that. No formula bounds it
//! for a whole network, so the probe measures it: the definition, its BatchNorms taken apart on one rank, is evaluated
//! with each `S2`, and each of the backward sums `B` and `G`, off by (3 R + 7) u, up or down at random, and with each
//! value of the samples off by at most one unit in its last place. (A sum of k terms is right to (k - 1) u of their
//! magnitudes, at 25 values a channel and sample more than (3 R + 7) u of the sum.) The signs that add up the most are one
//! in 2^channels, so that the bound is twice the largest of a few draws. What such roundings move a result by, no
//! split can be asked to keep.

use std::sync::Arc;

use syncbn_ir::ops::{Binary, BinaryFunction, Constant};
use syncbn_ir::training::Generator;
use syncbn_ir::{DType, Graph, Literal, NodeId, Op, RankInputs};
use syncbn_passes::{BatchNormMode, Options};

use super::expected::Expected;
use crate::support::{after, options, run};

/// Evaluations, each with other signs.
const DRAWS: u64 = 16;

/// The bound in parts of the largest draw.
const FACTOR: f64 = 2.0;

/// The bound of every output's error by rounding alone.
pub fn probe(expected: &Expected) -> Vec<f64> {
    let local = Options {
        batch_norm: BatchNormMode::Local,
        ..options()
    };
    let apart = after(expected.graph, &["bn-to-syncbn"], &local);
    let mut largest = vec![0.0; expected.graph.outputs.len()];
    for draw in 0..DRAWS {
        let mut generator = Generator(draw ^ 0x1a57);
        let mut graph = apart.clone();
        round_sums(&mut graph, expected.summed, &mut generator);
        let ranks: Vec<RankInputs> = expected
            .ranks
            .iter()
            .map(|rank| round_samples(rank, &mut generator))
            .collect();
        let errors = expected.errors_of_parts(&graph, &run(&graph, &ranks, expected.state));
        for (largest, error) in largest.iter_mut().zip(errors) {
            *largest = f64::max(*largest, FACTOR * error);
        }
    }
    largest
}

/// Multiplies every `S2`, `B` and `G` by 1 + or - the bound of its rounding.
fn round_sums(graph: &mut Graph, ranks: usize, generator: &mut Generator) {
    let rounding = (3 * ranks + 7) as f64 * f64::EPSILON / 2.0;
    let nodes: Vec<NodeId> = graph.nodes().collect();
    for node in nodes {
        let (slot, backward) = match graph.op(node) {
            Op::BatchNormFinalize(_) => (0, false),
            Op::BatchNormBackwardData(_) => (5, true),
            _ => continue,
        };
        let sums = graph.operand(node, slot).unwrap();
        let size = graph.ty(sums).shape.sizes(0)[0];
        let exact = if backward { 0 } else { 1 + size / 2 };
        let mut factors = vec![1.0; size];
        for factor in &mut factors[exact..] {
            *factor += if generator.bits().is_multiple_of(2) {
                rounding
            } else {
                -rounding
            };
        }
        let value = Arc::new(Literal::from_f64(DType::F64, &[size], &factors));
        let factors = graph.add_value(Constant { value }, "rounding", &[]).unwrap();
        let function = BinaryFunction::Mul;
        let rounded = graph.add_value(Binary { function }, "rounded", &[sums, factors]);
        graph.set_operand(node, slot, rounded.unwrap()).unwrap();
    }
}

/// The samples, each value of which is off by at most one unit in its last place.
fn round_samples(rank: &RankInputs, generator: &mut Generator) -> RankInputs {
    let mut rank = rank.clone();
    for (_, array) in rank.values.iter_mut().filter(|(name, _)| *name != "target") {
        let round = |v: &mut f64| *v *= 1.0 + (generator.uniform() * 2.0 - 1.0) * f64::EPSILON;
        array.data.iter_mut().for_each(round);
    }
    rank
}
