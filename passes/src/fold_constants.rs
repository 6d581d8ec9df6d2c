//! `fold-constants`: evaluates what depends on constants alone.
//!
//! Before:
//! ```text
//! %0 = constant [1.0, 2.0]
//! %1 = unary(%0) {function = neg}
//! ```
//! After:
//! ```text
//! %1 = constant [-1.0, -2.0]
//! ```
//!
//! Values are those of the reference evaluation, rounded to the element type. It leaves alone results that
//! depend on the batch, which is not known yet; results with more than 65536 elements, unless an operand has
//! as many, because the executable would grow; integers that the evaluation in f64 cannot hold exactly (a division
//! by zero, a product above 2^53), because a rounded number in place of an error would hide it; all-reduces and losses, whose value depends on the ranks; and
//! dropout, which `canonicalize` has to warn about.

use std::sync::Arc;

use syncbn_ir::ops::{StepInfo, literal};
use syncbn_ir::{Array, DType, Graph, Literal, NodeId, Op};

use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};
use crate::rewrite::{Patch, Rule, rewrite};

/// Largest result in elements that may be larger than all operands.
const MAX_ELEMENTS: usize = 65536;

/// The pass.
pub struct FoldConstants;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold-constants"
    }

    fn summary(&self) -> &'static str {
        "evaluates what depends on constants alone"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let rule = Rule {
            name: "fold",
            matcher: fold,
        };
        rewrite(graph, &[rule], cx)
    }
}

fn fold(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let node = graph.node(id);
    match node.op {
        Op::Constant(_) | Op::AllReduce(_) | Op::Dropout(_) => return Ok(None),
        Op::SoftmaxCrossEntropy(_) | Op::SoftmaxCrossEntropyBackward(_) => return Ok(None),
        Op::MeanSquaredError(_) | Op::MeanSquaredErrorBackward(_) => return Ok(None),
        _ => {}
    }
    let operands = graph.operands(id);
    let constants: Option<Vec<&Arc<Literal>>> = operands
        .iter()
        .map(|v| match graph.op(v.node) {
            Op::Constant(c) => Some(&c.value),
            _ => None,
        })
        .collect();
    let Some(constants) = constants.filter(|c| !c.is_empty()) else {
        return Ok(None);
    };
    let allowed = constants.iter().map(|c| c.len()).fold(MAX_ELEMENTS, usize::max);
    let fits = node
        .outputs
        .iter()
        .all(|o| !o.ty.shape.has_batch() && o.ty.shape.elements_per_sample().is_some_and(|n| n <= allowed));
    // A sum of integers can leave the exact range on its way even where its result lies in it.
    let total = |c: &Literal| c.to_f64().iter().map(|v| v.abs()).sum::<f64>();
    let sums = matches!(node.op, Op::Reduce(_));
    let exact = constants.iter().all(|c| {
        let held = c.to_f64().iter().all(|&v| is_exact(v)) && (!sums || is_exact(total(c)));
        c.dtype() != DType::I64 || held
    });
    if !fits || !exact {
        return Ok(None);
    }
    let arrays: Vec<Array> = constants.iter().map(|c| c.to_array()).collect();
    let arrays: Vec<&Array> = arrays.iter().collect();
    let step = StepInfo { n: 0, total: 0 };
    let Ok(results) = node.op.evaluate(&arrays, step) else {
        return Ok(None);
    };
    let mut typed = results.iter().zip(&node.outputs);
    if typed.any(|(r, info)| info.ty.dtype == DType::I64 && !r.data.iter().all(|&v| is_exact(v))) {
        return Ok(None);
    }
    let mut patch = Patch::default();
    for (slot, (result, info)) in results.iter().zip(&node.outputs).enumerate() {
        let value = Literal::from_f64(info.ty.dtype, &result.dims, &result.data);
        let new = patch.add(graph, literal(value), &node.name, &[])?;
        patch.replace(syncbn_ir::Value { node: id, slot }, new);
    }
    Ok(Some(patch))
}

/// Whether an integer survives the evaluation in f64.
fn is_exact(v: f64) -> bool {
    v.abs() < 9_007_199_254_740_992.0
}
