//! `insert-gradient-all-reduce`: sums gradients and the loss over the ranks, in one collective.
//!
//! Before:
//! ```text
//! loss "loss" %1
//! gradient "w" %2
//! gradient "bn.scale" %3     // from sums that were already reduced
//! ```
//! After:
//! ```text
//! %4:2 = all_reduce(%2, %1) {scope = all}
//! loss "loss" %4#1
//! gradient "w" %4
//! gradient "bn.scale" %3
//! ```
//!
//! Operands stand in parameter order, the loss last. It leaves alone what is already the same on all ranks
//! (BatchNorm's scale and bias under `--bn sync`, gradients that are zero), and gradients of data inputs.

use syncbn_ir::ops::{AllReduce, Scope};
use syncbn_ir::{Graph, OutputKind, Value};

use crate::analysis::replicated;
use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};

/// The pass.
pub struct InsertGradientAllReduce;

impl Pass for InsertGradientAllReduce {
    fn name(&self) -> &'static str {
        "insert-gradient-all-reduce"
    }

    fn summary(&self) -> &'static str {
        "sums gradients and the loss over the ranks, in one collective"
    }

    fn run(&self, graph: &mut Graph, _: &mut PassContext) -> Result<Changes, PassError> {
        let replicated = replicated(graph)?;
        let local = |kind: OutputKind| {
            let outputs = graph.outputs.iter().enumerate();
            let of_kind = outputs.filter(move |(_, o)| o.kind == kind);
            of_kind
                .filter(|(_, o)| !replicated.contains(&o.value.node) && !graph.ty(o.value).shape.has_batch())
        };
        let chosen: Vec<usize> = local(OutputKind::Gradient)
            .chain(local(OutputKind::Loss))
            .map(|(i, _)| i)
            .collect();
        if chosen.is_empty() {
            return Ok(0);
        }
        let operands: Vec<Value> = chosen.iter().map(|&i| graph.outputs[i].value).collect();
        let node = graph.add(AllReduce { scope: Scope::All }, "gradients", &operands)?;
        for (slot, &i) in chosen.iter().enumerate() {
            graph.outputs[i].value = Value { node, slot };
        }
        Ok(1)
    }
}
