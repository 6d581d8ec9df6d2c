//! `lower-precision`: stores activations and their gradients in bf16, for matrix units that multiply it.
//!
//! Before:
//! ```text
//! %y = conv(%x, %w) : f32[batch, 8, 16, 16]
//! %dw = conv_backward_weight(%x, %dy) : f32[8, 4, 3, 3]
//! %l = matmul(%h, %v) : f32[batch, 10]
//! output "l" %l
//! ```
//! After:
//! ```text
//! %0 = cast(%x) {dtype = bf16} : bf16[batch, 4, 16, 16]
//! %1 = cast(%w) {dtype = bf16} : bf16[8, 4, 3, 3]
//! %y = conv(%0, %1) : bf16[batch, 8, 16, 16]
//! %dw = conv_backward_weight(%0, %dy) : f32[8, 4, 3, 3]
//! %2 = cast(%v) {dtype = bf16} : bf16[16, 10]
//! %l = matmul(%h, %2) {wide = true} : f32[batch, 10]
//! output "l" %l
//! ```
//!
//! Only memory becomes narrower: arithmetic stays that of f32, and sums over samples are f32 or f64 as before. One cast
//! of a value serves all its readers, those of the backward pass too. Logits are what a linear layer sums up in f32:
//! it writes them so, and elementwise operators behind it keep them so.
//!
//! It leaves alone inputs, outputs and losses, whose type others rely on; parameters, statistics, what
//! is computed for each channel, and gradients of parameters; and f64 networks. Without
//! [`Storage::Bf16`] it does nothing.

use std::collections::BTreeSet;

use syncbn_ir::ops::Cast;
use syncbn_ir::{DType, Graph, NodeId, Op, Value};

use crate::error::PassError;
use crate::options::Storage;
use crate::pass::{Changes, Pass, PassContext};

/// The pass.
pub struct LowerPrecision;

impl Pass for LowerPrecision {
    fn name(&self) -> &'static str {
        "lower-precision"
    }

    fn summary(&self) -> &'static str {
        "stores activations in bf16, for GPUs"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        if cx.options.target.storage != Storage::Bf16 {
            return Ok(0);
        }
        let order = graph.topological()?;
        let wide = wide_values(graph, &order);
        let mut changes = 0;
        for id in order {
            let mut operands = graph.operands(id);
            for (slot, operand) in operands.iter_mut().enumerate() {
                if let Some(dtype) = wanted(graph, id, slot, &wide) {
                    *operand = cast(graph, *operand, dtype, &mut changes)?;
                }
            }
            let mut op = graph.op(id).clone();
            if let Op::MatMul(product) = &mut op {
                let is_narrow = graph.ty(operands[0]).dtype == DType::BF16;
                product.wide = is_narrow && wide.contains(&id.into());
            }
            let before = graph.node(id).clone();
            graph.retype(id, op, &operands)?;
            changes += usize::from(*graph.node(id) != before);
        }
        for i in 0..graph.outputs.len() {
            let value = graph.outputs[i].value;
            graph.outputs[i].value = cast(graph, value, DType::F32, &mut changes)?;
        }
        Ok(changes)
    }
}

/// The value in another element type, by a cast that may be there already; itself where it has that type, or is
/// neither f32 nor bf16.
fn cast(graph: &mut Graph, value: Value, dtype: DType, changes: &mut usize) -> Result<Value, PassError> {
    let own = graph.ty(value).dtype;
    if own == dtype || !matches!(own, DType::F32 | DType::BF16) {
        return Ok(value);
    }
    let existing = graph.users(value).into_iter().map(|(user, _)| user);
    let mut existing = existing.filter(|&user| matches!(graph.op(user), Op::Cast(c) if c.dtype == dtype));
    if let Some(user) = existing.next() {
        return Ok(user.into());
    }
    *changes += 1;
    let name = graph.node(value.node).name.clone();
    Ok(graph.add_value(Cast { dtype }, &name, &[value])?)
}

/// The element type that an operator reads an operand in; None where it takes what there is.
fn wanted(graph: &Graph, id: NodeId, slot: usize, wide: &BTreeSet<Value>) -> Option<DType> {
    let operands = graph.operands(id);
    let of_batch = |slot: usize| operands.get(slot).is_some_and(|&v| graph.ty(v).shape.has_batch());
    let activation = |slots: &[usize]| (slots.contains(&slot) && of_batch(0)).then_some(DType::BF16);
    match graph.op(id) {
        Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) => None,
        Op::Conv(_) => activation(&[0, 1, 3]),
        Op::ConvBackwardData(_) | Op::ConvBackwardWeight(_) => activation(&[0, 1]),
        Op::MatMul(_) => (of_batch(0) || of_batch(1)).then_some(DType::BF16),
        Op::BatchNorm(_) | Op::Moments(_) => activation(&[0]),
        Op::BatchNormBackward(_) | Op::BatchNormBackwardData(_) => activation(&[0, 1]),
        Op::Normalize(_) => activation(&[0, 5]),
        Op::BatchNormBackwardReduce(_) => activation(&[0, 1, 6]),
        Op::Unary(_)
        | Op::UnaryBackward(_)
        | Op::Binary(_)
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Concat(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Identity(_)
        | Op::Dropout(_)
        | Op::MaxPool(_)
        | Op::MaxPoolBackward(_)
        | Op::AveragePool(_)
        | Op::AveragePoolBackward(_)
        | Op::Resize(_)
        | Op::ResizeBackward(_) => of_batch(slot).then(|| match wide.contains(&id.into()) {
            true => DType::F32,
            false => DType::BF16,
        }),
        Op::SoftmaxCrossEntropy(_) | Op::SoftmaxCrossEntropyBackward(_) => (slot == 0).then_some(DType::F32),
        Op::MeanSquaredError(_) | Op::MeanSquaredErrorBackward(_) => Some(DType::F32),
        Op::BatchNormFinalize(_) | Op::AllReduce(_) | Op::Reduce(_) | Op::Expand(_) | Op::Cast(_) => None,
    }
}

/// Values with a batch that stay f32: outputs and what losses read, and what these are made from by elementwise
/// operators, as long as all of it can be had in f32.
fn wide_values(graph: &Graph, order: &[NodeId]) -> BTreeSet<Value> {
    let mut available: BTreeSet<Value> = BTreeSet::new();
    for &id in order {
        let can = match graph.op(id) {
            Op::Input(_)
            | Op::MatMul(_)
            | Op::SoftmaxCrossEntropyBackward(_)
            | Op::MeanSquaredErrorBackward(_) => true,
            _ if is_elementwise(graph.op(id)) => activations(graph, id).all(|v| available.contains(&v)),
            _ => false,
        };
        if can && graph.ty(id.into()).shape.has_batch() {
            available.insert(id.into());
        }
    }
    let losses = order.iter().filter(|&&id| is_loss(graph.op(id)));
    let read = losses.flat_map(|&id| activations(graph, id).collect::<Vec<_>>());
    let mut stack: Vec<Value> = read.chain(graph.outputs.iter().map(|o| o.value)).collect();
    let mut wide = BTreeSet::new();
    while let Some(value) = stack.pop() {
        if available.contains(&value) && wide.insert(value) && is_elementwise(graph.op(value.node)) {
            stack.extend(activations(graph, value.node));
        }
    }
    wide
}

/// The operands of a node that have a batch.
fn activations(graph: &Graph, id: NodeId) -> impl Iterator<Item = Value> + '_ {
    let operands = graph.operands(id).into_iter();
    operands.filter(|&v| graph.ty(v).shape.has_batch())
}

fn is_elementwise(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_) | Op::Binary(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Identity(_)
    )
}

fn is_loss(op: &Op) -> bool {
    matches!(
        op,
        Op::SoftmaxCrossEntropy(_)
            | Op::SoftmaxCrossEntropyBackward(_)
            | Op::MeanSquaredError(_)
            | Op::MeanSquaredErrorBackward(_)
    )
}
