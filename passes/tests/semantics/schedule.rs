//! The schedule: the same on every rank, whatever the split and the order in which the graph was made.

use std::collections::BTreeMap;

use syncbn_ir::ops::{Scope, StepInfo};
use syncbn_ir::training::Generator;
use syncbn_ir::{Array, DType, Graph, NodeId, Op, RankInputs, State, Value, initial_state};
use syncbn_passes::{BatchNormMode, Options, training_graph};

use crate::networks::NETWORKS;
use crate::random_network::random_network;
use crate::support::{after, inputs, options, run, split};

/// A collective as a rank sees it: name, scope and number of values.
type Call = (String, Scope, usize);

/// One rank: runs the planned nodes in order, as generated code does, and stops at each collective.
struct Rank<'a> {
    graph: &'a Graph,
    inputs: &'a RankInputs,
    state: &'a State,
    step: StepInfo,
    values: BTreeMap<Value, Array>,
    next: usize,
    calls: Vec<Call>,
}

impl Rank<'_> {
    /// Goes on to the next collective; None at the end of the step.
    fn advance(&mut self, order: &[NodeId]) -> Option<NodeId> {
        while let Some(&id) = order.get(self.next) {
            self.next += 1;
            let read = |v: &Value| self.values.get(v).expect("operands come before their readers");
            let results = match self.graph.op(id) {
                Op::Input(op) => vec![self.inputs.values[&op.name].clone()],
                Op::Parameter(op) => vec![self.state.parameters[&op.name].clone()],
                Op::Statistic(op) => vec![self.state.statistics[0][&op.name].clone()],
                Op::AllReduce(op) => {
                    let values = self.graph.operands(id).iter().map(|v| read(v).len()).sum();
                    let name = self.graph.node(id).name.clone();
                    self.calls.push((name, op.scope, values));
                    return Some(id);
                }
                op => {
                    let operands = self.graph.operands(id);
                    let operands: Vec<&Array> = operands.iter().map(read).collect();
                    op.evaluate(&operands, self.step).unwrap()
                }
            };
            for (slot, array) in results.into_iter().enumerate() {
                self.values.insert(Value { node: id, slot }, array);
            }
        }
        None
    }
}

/// Runs every rank on its own from collective to collective; fails when they arrive at different ones. Returns the
/// calls of each rank.
fn collectives(graph: &Graph, ranks: &[RankInputs], state: &State) -> Vec<Vec<Call>> {
    let order = graph.topological().unwrap();
    let total = ranks.iter().map(|r| r.n).sum();
    let mut running: Vec<Rank> = ranks
        .iter()
        .map(|inputs| Rank {
            graph,
            inputs,
            state,
            step: StepInfo { n: inputs.n, total },
            values: BTreeMap::new(),
            next: 0,
            calls: Vec::new(),
        })
        .collect();
    loop {
        let at: Vec<Option<NodeId>> = running.iter_mut().map(|rank| rank.advance(&order)).collect();
        assert!(
            at.iter().all(|other| *other == at[0]),
            "ranks wait at different collectives"
        );
        let Some(id) = at[0] else { break };
        let Op::AllReduce(op) = graph.op(id) else {
            panic!("only collectives stop a rank");
        };
        let size = match op.scope {
            Scope::All => running.len(),
            Scope::Group(k) => k,
        };
        for group in running.chunks_mut(size) {
            for (slot, operand) in graph.operands(id).into_iter().enumerate() {
                let mut sum = group[0].values[&operand].clone();
                for rank in &group[1..] {
                    let more = &rank.values[&operand].data;
                    sum.data.iter_mut().zip(more).for_each(|(s, x)| *s += x);
                }
                for rank in group.iter_mut() {
                    rank.values.insert(Value { node: id, slot }, sum.clone());
                }
            }
        }
    }
    let expected = run(graph, ranks, state);
    for (rank, expected) in running.iter().zip(&expected) {
        for output in &graph.outputs {
            let found = rank.values.get(&output.value);
            assert_eq!(found, expected.get(output.kind, &output.name), "{}", output.name);
        }
    }
    running.into_iter().map(|rank| rank.calls).collect()
}

#[test]
fn every_rank_of_every_split_calls_the_same_collectives() {
    for (name, build) in NETWORKS {
        let network = build().unwrap();
        let state = initial_state(&network, 3).unwrap();
        for batch_norm in [BatchNormMode::Sync, BatchNormMode::Group(2)] {
            let options = Options {
                batch_norm,
                bucket_bytes: 300,
                ..options()
            };
            let (graph, _) = training_graph(&network, &options).unwrap();
            let data = inputs(&graph, 8, 5);
            let mut calls = Vec::new();
            for counts in [&[4, 4][..], &[5, 3], &[2, 2, 2, 2], &[3, 1, 0, 4], &[8, 0]] {
                if batch_norm != BatchNormMode::Sync && counts == [8, 0] {
                    continue;
                }
                calls.extend(collectives(&graph, &split(&data, counts), &state));
            }
            assert!(!calls[0].is_empty(), "{name}");
            assert!(calls.iter().all(|other| *other == calls[0]), "{name}");
        }
    }
}

/// The same graph with its nodes made in another order.
fn shuffled(graph: &Graph, seed: u64) -> Graph {
    let mut generator = Generator(seed);
    let mut order: Vec<NodeId> = Vec::new();
    let mut left = graph.topological().unwrap();
    // Sources keep their order: parameters are laid out in it.
    while !left.is_empty() {
        let sources = left.iter().position(|&id| graph.operands(id).is_empty());
        let ready: Vec<usize> = (0..left.len())
            .filter(|&i| graph.operands(left[i]).iter().all(|v| order.contains(&v.node)))
            .collect();
        let at = sources.unwrap_or_else(|| ready[(generator.bits() % ready.len() as u64) as usize]);
        order.push(left.remove(at));
    }
    let mut graph = graph.clone();
    graph.reorder(&order).unwrap();
    graph
}

#[test]
fn the_order_of_making_does_not_matter_to_collectives() {
    let names = |graph: &Graph| {
        let order = graph.topological().unwrap();
        let reduces = order
            .into_iter()
            .filter(|&id| matches!(graph.op(id), Op::AllReduce(_)));
        let name = |id: NodeId| (graph.node(id).name.clone(), graph.operands(id).len());
        reduces.map(name).collect::<Vec<_>>()
    };
    for seed in 0..40 {
        let network = random_network(seed, DType::F64).unwrap();
        let before = [
            "clean",
            "set-batch-norm-mode",
            "add-loss",
            "differentiate",
            "bn-to-syncbn",
            "insert-gradient-all-reduce",
            "fuse-conv-syncbn-silu",
        ];
        let graph = after(&network, &before, &options());
        let combined = after(&graph, &["combine-all-reduce"], &options());
        let expected = names(&after(&combined, &["schedule"], &options()));
        let other = shuffled(&combined, seed + 1);
        let found = names(&after(&other, &["schedule"], &options()));
        assert_eq!(found, expected, "seed {seed}");
    }
}
