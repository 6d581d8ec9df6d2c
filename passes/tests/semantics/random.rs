//! Properties on networks put together at random. `SYNCBN_RANDOM_GRAPHS` says how many (1,000), and
//! `SYNCBN_RANDOM_SEED` which is the first.

use std::sync::atomic::{AtomicU64, Ordering};

use syncbn_ir::training::Generator;
use syncbn_ir::{
    Array, DType, Graph, NodeId, Op, Output, OutputKind, RankInputs, RankOutputs, State, Value, initial_state,
};
use syncbn_passes::pipelines::expand;
use syncbn_passes::{BatchNormMode, Mode, Options, inference_graph, training_graph};

use crate::memory::check_memory;
use crate::random_network::random_network;
use crate::support::{after, inputs, joined, options, run, split};

const DEFINITION: &[&str] = &["clean", "set-batch-norm-mode", "add-loss", "differentiate"];

fn setting(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |v| {
        v.parse().unwrap_or_else(|_| panic!("{name}={v} is not a number"))
    })
}

/// Runs a check for many seeds, on all processors.
fn for_each_seed(check: impl Fn(u64) + Sync) {
    let first = setting("SYNCBN_RANDOM_SEED", 0);
    let end = first + setting("SYNCBN_RANDOM_GRAPHS", 1000);
    let next = AtomicU64::new(first);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    check(seed);
                }
            });
        }
    });
}

/// What a graph computes, against which others are compared.
struct Expected<'g> {
    graph: &'g Graph,
    ranks: Vec<RankInputs>,
    state: &'g State,
    outputs: Vec<RankOutputs>,
}

/// The bound of every error. What ranks exchange holds the variance beside the squared mean, so that rounding costs
/// 1e-15 times the square of the largest |mean| / deviation (docs/ir.md), and the layers behind amplify that up to ten
/// times. A few of a thousand networks have a ratio at which this is more, most often where an activation made a
/// channel nearly constant.
const BOUND: f64 = 1e-12;
const PER_SQUARED_RATIO: f64 = 1e-14;

impl<'g> Expected<'g> {
    fn of(graph: &'g Graph, ranks: Vec<RankInputs>, state: &'g State) -> Expected<'g> {
        let outputs = run(graph, &ranks, state);
        Expected {
            graph,
            ranks,
            state,
            outputs,
        }
    }

    /// An output over all ranks: samples joined, gradients and loss summed, since the definition sums nothing.
    fn whole(&self, outputs: &[RankOutputs], output: &Output) -> Array {
        let mut array = joined(self.graph, outputs, output.kind, &output.name);
        if matches!(output.kind, OutputKind::Gradient | OutputKind::Loss) {
            for rank in &outputs[1..] {
                let more = &rank.get(output.kind, &output.name).unwrap().data;
                array.data.iter_mut().zip(more).for_each(|(a, b)| *a += b);
            }
        }
        array
    }

    /// The largest |mean| / deviation of all channels of all BatchNorms.
    fn ratio(&self) -> f64 {
        let mut graph = self.graph.clone();
        graph.outputs.clear();
        let layers: Vec<NodeId> = graph
            .nodes()
            .filter(|&id| matches!(graph.op(id), Op::BatchNorm(op) if op.training))
            .collect();
        for (layer, &node) in layers.iter().enumerate() {
            for slot in [1, 2] {
                graph.outputs.push(Output {
                    kind: OutputKind::Output,
                    name: format!("{layer}.{slot}"),
                    value: Value { node, slot },
                });
            }
        }
        let mut largest: f64 = 0.0;
        for rank in run(&graph, &self.ranks, self.state) {
            for layer in 0..layers.len() {
                let of = |slot| {
                    &rank
                        .get(OutputKind::Output, &format!("{layer}.{slot}"))
                        .unwrap()
                        .data
                };
                for (mean, inv_std) in of(1).iter().zip(of(2)) {
                    largest = largest.max((mean * inv_std).abs());
                }
            }
        }
        largest
    }

    /// Gradients are compared on the scale of the largest one: that of a bias before a BatchNorm is 0, and only
    /// rounding is left of it.
    fn check(&self, what: &str, graph: &Graph, found: &[RankOutputs]) {
        assert_eq!(self.graph.outputs.len(), graph.outputs.len(), "{what}");
        let all: Vec<(&Output, Array)> = self
            .graph
            .outputs
            .iter()
            .map(|o| (o, self.whole(&self.outputs, o)))
            .collect();
        let magnitude = |array: &Array| array.data.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
        let gradients = all.iter().filter(|(o, _)| o.kind == OutputKind::Gradient);
        let largest = gradients.map(|(_, a)| magnitude(a)).fold(1e-3, f64::max);
        for (output, expected) in &all {
            let scale = match output.kind {
                OutputKind::Gradient => largest,
                _ => magnitude(expected),
            };
            let found = joined(graph, found, output.kind, &output.name);
            let error = distance(&found, expected) / scale;
            let bound = match error <= BOUND {
                true => BOUND,
                false => BOUND.max(PER_SQUARED_RATIO * self.ratio().powi(2)),
            };
            assert!(
                error <= bound,
                "{what}: {:?} {} differs by {error:e}, allowed {bound:e}\n{graph}",
                output.kind,
                output.name
            );
        }
    }
}

/// Largest difference of two arrays; infinite when one of them is not a number.
fn distance(a: &Array, b: &Array) -> f64 {
    assert_eq!(a.dims, b.dims);
    let pairs = a.data.iter().zip(&b.data).map(|(x, y)| (x - y).abs());
    pairs.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}

fn state_of(network: &Graph, seed: u64) -> State {
    let mut state = initial_state(network, seed).unwrap();
    let mut generator = Generator(seed ^ 0x5eed);
    for (name, array) in state.parameters.iter_mut().chain(&mut state.statistics[0]) {
        // Scales, biases and running statistics that differ from channel to channel.
        if array.dims.len() == 1 {
            let jitter =
                |v: &mut f64| *v += 0.4 * generator.uniform() * if name.contains("var") { 1.0 } else { -1.0 };
            array.data.iter_mut().for_each(jitter);
        }
    }
    state
}

/// Samples of four ranks in two groups, empty ranks among them. Every group has four or more: of fewer, the
/// gradient through a BatchNorm can be nothing but rounding (of two it is 0 but for epsilon).
fn random_counts(seed: u64) -> [usize; 4] {
    let mut generator = Generator(seed ^ 0xc0);
    let mut pair = || {
        let n = 4 + (generator.bits() % 2) as usize;
        let first = (generator.bits() % (n as u64 + 1)) as usize;
        [first, n - first]
    };
    let ([a, b], [c, d]) = (pair(), pair());
    [a, b, c, d]
}

#[test]
fn every_pass_keeps_the_training_step() {
    let names: Vec<&str> = expand(&["train"]).unwrap().iter().map(|p| p.name()).collect();
    let start = names.iter().position(|&n| n == "differentiate").unwrap();
    for_each_seed(|seed| {
        let network = random_network(seed, DType::F64).unwrap();
        let state = state_of(&network, seed);
        let definition = after(&network, DEFINITION, &options());
        let ranks = split(&inputs(&definition, 4, seed), &[4]);
        let expected = Expected::of(&definition, ranks.clone(), &state);
        // Small buckets, so that there are several.
        let options = Options {
            bucket_bytes: 1 + seed % 700,
            ..options()
        };
        let mut graph = definition.clone();
        for pass in &names[start + 1..] {
            graph = after(&graph, &[pass], &options);
            expected.check(
                &format!("seed {seed}, {pass}"),
                &graph,
                &run(&graph, &ranks, &state),
            );
        }
        let (whole, report) = training_graph(&network, &options).unwrap();
        expected.check(&format!("seed {seed}"), &whole, &run(&whole, &ranks, &state));
        check_memory(&format!("seed {seed}"), &whole, &report, &state);
    });
}

#[test]
fn every_pass_keeps_the_inference() {
    let names: Vec<&str> = expand(&["infer"]).unwrap().iter().map(|p| p.name()).collect();
    for_each_seed(|seed| {
        let network = random_network(seed, DType::F64).unwrap();
        let state = state_of(&network, seed);
        let ranks = split(&inputs(&network, 3, seed), &[3]);
        let expected = Expected::of(&network, ranks.clone(), &state);
        let options = Options {
            mode: Mode::Infer,
            ..options()
        };
        let mut graph = network.clone();
        for pass in &names {
            graph = after(&graph, &[pass], &options);
            expected.check(
                &format!("seed {seed}, {pass}"),
                &graph,
                &run(&graph, &ranks, &state),
            );
        }
        let (whole, report) = inference_graph(&network, &options, None).unwrap();
        expected.check(&format!("seed {seed}"), &whole, &run(&whole, &ranks, &state));
        check_memory(&format!("seed {seed}, inference"), &whole, &report, &state);
    });
}

/// A split over ranks gives what one rank gives on all samples, or under `group=2` what each group gives on its
/// own samples.
#[test]
fn splits_do_not_matter() {
    for_each_seed(|seed| {
        let network = random_network(seed, DType::F64).unwrap();
        let state = state_of(&network, seed);
        let definition = after(&network, DEFINITION, &options());
        let counts = random_counts(seed);
        let n = counts.iter().sum();
        let data = inputs(&definition, n, seed);
        let groups = [counts[0] + counts[1], counts[2] + counts[3]];
        for (batch_norm, whole) in [
            (BatchNormMode::Sync, &[n][..]),
            (BatchNormMode::Group(2), &groups),
        ] {
            let options = Options {
                batch_norm,
                bucket_bytes: 1 + seed % 700,
                ..options()
            };
            let (graph, _) = training_graph(&network, &options).unwrap();
            let expected = Expected::of(&definition, split(&data, whole), &state);
            let what = format!("seed {seed}, {batch_norm:?} over {counts:?}");
            expected.check(&what, &graph, &run(&graph, &split(&data, &counts), &state));
        }
    });
}
