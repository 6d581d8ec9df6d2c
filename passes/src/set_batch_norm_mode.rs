//! `set-batch-norm-mode`: decides for every BatchNorm which statistics normalise.
//!
//! Before:
//! ```text
//! %5 = batch_norm(%0, %scale, %bias, %mean, %var) {epsilon = 1e-5, momentum = 0.1, ...}
//! output "y" %5
//! ```
//! After, for training with `--bn sync`, `local` or `group=K`:
//! ```text
//! %5:5 = batch_norm(%0, %scale, %bias, %mean, %var) {..., training = true}
//! output "y" %5
//! statistic "running_mean" %5#3
//! statistic "running_var" %5#4
//! ```
//!
//! - `--bn frozen` leaves the operator as it is and marks scale and bias as not trained.
//! - Inference leaves the operator as it is too.
//! - A BatchNorm whose input depends on no data (weight standardisation) normalises with its own statistics in
//!   training, unless frozen; with `training_mode=1` in the file it always does. Where the graph computes its
//!   statistics, there are none that could be frozen: it then normalises with its own in training.
//! - Where two BatchNorms update one statistic (a module that is called twice), the second starts from what
//!   the first left, and the statistic is one output.
//!
//! A BatchNorm that already has its training form is left alone, and so are its scale and bias: `--bn frozen` does
//! not undo the decision of an earlier run.

use std::collections::{BTreeMap, BTreeSet};

use syncbn_ir::ops::BatchNorm;
use syncbn_ir::{Graph, NodeId, Op, Output, OutputKind, Value};

use crate::analysis::depends_on_batch;
use crate::error::PassError;
use crate::options::{BatchNormMode, Mode};
use crate::pass::{Changes, Pass, PassContext};

/// The pass.
pub struct SetBatchNormMode;

impl Pass for SetBatchNormMode {
    fn name(&self) -> &'static str {
        "set-batch-norm-mode"
    }

    fn summary(&self) -> &'static str {
        "decides for every BatchNorm which statistics normalise (--mode, --bn, --running-var)"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let of_batch = depends_on_batch(graph)?;
        let mut changes = 0;
        let mut next: BTreeMap<Value, Value> = BTreeMap::new();
        let (mut frozen, mut trained) = (BTreeSet::new(), BTreeSet::new());
        for id in graph.topological()? {
            let Op::BatchNorm(op) = graph.op(id).clone() else {
                continue;
            };
            let operands = graph.operands(id);
            let own = !operands.first().is_some_and(|x| of_batch.contains(&x.node));
            let training = match cx.options.mode {
                _ if op.training => true,
                Mode::Infer => own && op.onnx_training,
                Mode::Train if cx.options.batch_norm == BatchNormMode::Frozen => {
                    own && (op.onnx_training || computed_statistics(graph, &operands))
                }
                Mode::Train => true,
            };
            let slots = operands.iter().skip(1).take(2).map(|v| v.node);
            match training {
                true => trained.extend(slots),
                false => frozen.extend(slots),
            }
            if !training || op.training {
                continue;
            }
            changes += 1;
            train(graph, id, &op, cx, &mut next)?;
        }
        if cx.options.mode == Mode::Train && cx.options.batch_norm == BatchNormMode::Frozen {
            changes += freeze(graph, &frozen, &trained);
        }
        Ok(changes)
    }
}

/// Whether a BatchNorm's mean or variance is the result of trained parameters, as exporters write a BatchNorm
/// of a weight that keeps no running statistics.
fn computed_statistics(graph: &Graph, operands: &[Value]) -> bool {
    let mut reached: Vec<NodeId> = operands.iter().skip(3).map(|v| v.node).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = reached.pop() {
        if matches!(graph.op(id), Op::Parameter(p) if p.trained) {
            return true;
        }
        if seen.insert(id) {
            reached.extend(graph.operands(id).iter().map(|v| v.node));
        }
    }
    false
}

/// Replaces one node by its training form. `next` holds, for every statistic, its value so far in this step.
fn train(
    graph: &mut Graph,
    id: NodeId,
    op: &BatchNorm,
    cx: &PassContext,
    next: &mut BTreeMap<Value, Value>,
) -> Result<(), PassError> {
    let mut operands = graph.operands(id);
    let statistics: Vec<Value> = operands[3..].to_vec();
    for operand in &mut operands[3..] {
        *operand = next.get(operand).copied().unwrap_or(*operand);
    }
    let name = graph.node(id).name.clone();
    let training = BatchNorm {
        training: true,
        running_var: cx.options.running_var,
        ..op.clone()
    };
    let node = graph.add(training, &name, &operands)?;
    graph.replace_uses(id.into(), node.into())?;
    graph.remove(id)?;
    if cx.options.mode == Mode::Infer {
        return Ok(());
    }
    for (i, &statistic) in statistics.iter().enumerate() {
        let value = Value { node, slot: 3 + i };
        next.insert(statistic, value);
        let Op::Statistic(s) = graph.op(statistic.node) else {
            continue;
        };
        let name = s.name.clone();
        let same = |o: &&mut Output| o.kind == OutputKind::Statistic && o.name == name;
        match graph.outputs.iter_mut().find(same) {
            Some(output) => output.value = value,
            None => graph.outputs.push(Output {
                kind: OutputKind::Statistic,
                name,
                value,
            }),
        }
    }
    Ok(())
}

/// Marks the parameters that only frozen layers use as not trained.
fn freeze(graph: &mut Graph, frozen: &BTreeSet<NodeId>, trained: &BTreeSet<NodeId>) -> Changes {
    let mut changes = 0;
    for &id in frozen.difference(trained) {
        if let Op::Parameter(p) = &mut graph.node_mut(id).op
            && p.trained
        {
            p.trained = false;
            changes += 1;
        }
    }
    changes
}
