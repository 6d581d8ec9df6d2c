//! The outputs of a graph, and the rule by which other graphs and splits match them.

use std::cell::OnceCell;

use syncbn_ir::{Array, Graph, NodeId, Op, Output, OutputKind, RankInputs, RankOutputs, State, Value};

use super::probe::probe;
use crate::support::{joined, run};

/// The bound of every error: largest difference in parts of the array's largest magnitude, at least [`FLOOR`].
pub const BOUND: f64 = 1e-12;
/// The |mean| / deviation up to which everything but gradients keeps it.
const RATIO: f64 = 100.0;
const FLOOR: f64 = 1e-3;
/// A gradient is nothing but rounding where its magnitude is this part of the network's largest one.
const NOTHING: f64 = 1e-12;

/// What a graph computes, against which others are compared.
pub struct Expected<'g> {
    pub graph: &'g Graph,
    pub ranks: Vec<RankInputs>,
    pub state: &'g State,
    /// Ranks over which the compared graphs sum moments.
    pub summed: usize,
    /// Of every output what is compared, and by which magnitude: see [`Expected::parts`].
    wholes: Vec<Vec<(Array, f64)>>,
    probed: OnceCell<Vec<f64>>,
}

/// An error that exceeds [`BOUND`].
#[derive(Debug)]
pub struct Excess {
    /// Name of the output, which is a gradient, or anything where the ratio exceeds [`RATIO`].
    pub output: String,
    pub error: f64,
    /// How far roundings of the moments and of the samples move this gradient.
    pub probed: f64,
    /// The largest |mean| / deviation of all channels of all BatchNorms.
    pub ratio: f64,
}

impl Excess {
    /// Whether this is a listed exception; another mathematical library can change the error's last digits.
    pub fn is(&self, output: &str, error: f64) -> bool {
        self.output == output && (0.9 * error..=1.1 * error).contains(&self.error)
    }

    /// Its row in the list.
    pub fn row(&self, property: &str, seed: u64) -> String {
        let Excess {
            output,
            error,
            probed,
            ratio,
        } = self;
        format!("    (\"{property}\", {seed}, \"{output}\", {error:.2e}, {probed:.1e}, {ratio:.1}),")
    }
}

impl<'g> Expected<'g> {
    pub fn of(graph: &'g Graph, ranks: Vec<RankInputs>, state: &'g State, summed: usize) -> Expected<'g> {
        let outputs = run(graph, &ranks, state);
        let wholes: Vec<Vec<Array>> = graph.outputs.iter().map(|o| whole(graph, &outputs, o)).collect();
        let magnitude = |array: &Array| array.data.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let gradients = graph.outputs.iter().zip(&wholes);
        let gradients = gradients.filter(|(o, _)| o.kind == OutputKind::Gradient);
        let largest = gradients
            .flat_map(|(_, arrays)| arrays)
            .map(magnitude)
            .fold(FLOOR, f64::max);
        // A gradient that is 0 in theory, such as that of a bias before a BatchNorm, is a sum of terms that cancel; each
        // is rounded to 1e-16 of itself, so that 1e-12 of the floor, 1e-15, is less than one rounding of a term of 10.
        // Its scale is that of the gradients which do not cancel.
        let scale = |output: &Output, array: &Array| match magnitude(array) {
            m if output.kind == OutputKind::Gradient && m <= NOTHING * largest => largest,
            m => m.max(FLOOR),
        };
        let scaled = |(output, arrays): (&Output, Vec<Array>)| {
            let arrays = arrays.into_iter();
            let scaled = arrays.map(|array| {
                let scale = scale(output, &array);
                (array, scale)
            });
            scaled.collect()
        };
        let wholes = graph.outputs.iter().zip(wholes).map(scaled).collect();
        Expected {
            graph,
            ranks,
            state,
            summed,
            wholes,
            probed: OnceCell::new(),
        }
    }

    /// The errors of a graph that sums over ranks, output by output.
    pub fn errors(&self, graph: &Graph, found: &[RankOutputs]) -> Vec<f64> {
        self.errors_of(|output| self.parts(graph, found, output))
    }

    /// The errors of a graph that, as the definition, sums nothing.
    pub fn errors_of_parts(&self, graph: &Graph, found: &[RankOutputs]) -> Vec<f64> {
        self.errors_of(|output| whole(graph, found, output))
    }

    fn errors_of(&self, found: impl Fn(&Output) -> Vec<Array>) -> Vec<f64> {
        let error = |(output, wholes): (&Output, &Vec<(Array, f64)>)| {
            let found = found(output);
            assert_eq!(found.len(), wholes.len(), "{}", output.name);
            let pairs = found.iter().zip(wholes);
            pairs
                .map(|(found, (whole, scale))| distance(found, whole) / scale)
                .fold(0.0, f64::max)
        };
        self.graph.outputs.iter().zip(&self.wholes).map(error).collect()
    }

    /// What is compared of an output: samples joined, the statistics of every group, and gradients and the loss, which
    /// all ranks have alike, once.
    fn parts(&self, graph: &Graph, found: &[RankOutputs], output: &Output) -> Vec<Array> {
        let Output { kind, name, .. } = output;
        let group = match kind {
            OutputKind::Statistic => found.len() / self.ranks.len(),
            OutputKind::Gradient | OutputKind::Loss => found.len(),
            OutputKind::Output => return vec![joined(graph, found, *kind, name)],
        };
        let of = |rank: &RankOutputs| rank.get(*kind, name).unwrap().clone();
        let groups = found.chunks(group).map(|ranks| {
            let first = of(&ranks[0]);
            for rank in &ranks[1..] {
                assert_eq!(of(rank), first, "{kind:?} {name} differs between ranks\n{graph}");
            }
            first
        });
        groups.collect()
    }

    /// Compares the outputs of a graph, and returns what exceeds [`BOUND`] the most. Below [`RATIO`] that can only
    /// be a gradient, and everywhere only by as much as rounding moves it anyway.
    pub fn check(&self, what: &str, graph: &Graph, found: &[RankOutputs]) -> Option<Excess> {
        assert_eq!(self.graph.outputs.len(), graph.outputs.len(), "{what}");
        let mut worst: Option<Excess> = None;
        for (i, error) in self.errors(graph, found).into_iter().enumerate() {
            let Output { kind, name, .. } = &self.graph.outputs[i];
            if error <= BOUND {
                continue;
            }
            let about = format!("{what}: {kind:?} {name} differs by {error:.2e}");
            let ratio = self.ratio();
            assert!(
                *kind == OutputKind::Gradient || ratio > RATIO,
                "{about}, the largest |mean| / deviation is {ratio:.0}\n{graph}"
            );
            let probed = self.probed.get_or_init(|| probe(self))[i];
            assert!(
                error <= probed,
                "{about}, rounding can move it by {probed:.2e}\n{graph}"
            );
            if worst.as_ref().is_none_or(|w| w.error < error) {
                worst = Some(Excess {
                    output: name.clone(),
                    error,
                    probed,
                    ratio,
                });
            }
        }
        worst
    }

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
                    let name = format!("{layer}.{slot}");
                    &rank.get(OutputKind::Output, &name).unwrap().data
                };
                for (mean, inv_std) in of(1).iter().zip(of(2)) {
                    largest = largest.max((mean * inv_std).abs());
                }
            }
        }
        largest
    }
}

/// An output over all ranks: samples joined, statistics one by one, and gradients and loss summed, since the definition
/// sums nothing.
fn whole(graph: &Graph, outputs: &[RankOutputs], output: &Output) -> Vec<Array> {
    let Output { kind, name, .. } = output;
    let of = |rank: &RankOutputs| rank.get(*kind, name).unwrap().clone();
    match kind {
        OutputKind::Output => vec![joined(graph, outputs, *kind, name)],
        OutputKind::Statistic => outputs.iter().map(of).collect(),
        OutputKind::Gradient | OutputKind::Loss => {
            let mut array = of(&outputs[0]);
            for rank in &outputs[1..] {
                array
                    .data
                    .iter_mut()
                    .zip(of(rank).data)
                    .for_each(|(a, b)| *a += b);
            }
            vec![array]
        }
    }
}

/// Largest difference of two arrays; infinite when one of them is not a number.
fn distance(a: &Array, b: &Array) -> f64 {
    assert_eq!(a.dims, b.dims);
    let pairs = a.data.iter().zip(&b.data).map(|(x, y)| (x - y).abs());
    pairs.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}
