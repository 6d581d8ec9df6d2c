//! `fuse-conv-syncbn-silu`: moments into the convolution, residual and activation into the normalisation, and
//! the backward twin, which recomputes what the forward pass then no longer stores.
//!
//! Before:
//! ```text
//! %1 = conv(%x, %w)
//! %2 = moments(%1)
//! ...
//! %5 = normalize(%1, %mean, %inv_std, %scale, %bias)
//! %6 = binary(%5, %r) {function = add}
//! %7 = unary(%6) {function = silu}
//! ...
//! %10 = unary_backward(%6, %d7) {function = silu}
//! %11 = batch_norm_backward_reduce(%1, %10, %mean, %inv_std)
//! %13 = batch_norm_backward_data(%1, %10, %mean, %inv_std, %scale, %12, %count)
//! ```
//! After:
//! ```text
//! %1:2 = conv(%x, %w) {moments = true}
//! ...
//! %7 = normalize(%1, %mean, %inv_std, %scale, %bias, %r) {activation = silu}
//! ...
//! %11:2 = batch_norm_backward_reduce(%1, %d7, %mean, %inv_std, %scale, %bias, %r) {activation = silu}
//! %13 = batch_norm_backward_data(%1, %11#1, %mean, %inv_std, %scale, %12, %count)
//! ```
//! Readers of `%10` other than the BatchNorm (the residual's gradient) read `%11#1`, which is written once. It is
//! there before the sums have gone over the ranks: a BatchNorm in the shortcut sums it without waiting, and both
//! sums can travel together. Without a residual nothing stores the gradient of the pre-activation, and both
//! backward nodes recompute it.
//!
//! Any function of one number is fused: its derivative is a function of the pre-activation, which is recomputed.
//!
//! Forward and backward are fused together or not at all: a value that only one of them still needs would be
//! both stored and recomputed. So it leaves alone an activation whose input is an output or is read by
//! anything but the activation and its gradient; one whose gradient is read by anything but this BatchNorm
//! where there is no residual; and moments of what is no convolution, such as a graph input.

use syncbn_ir::ops::{
    BatchNormBackwardData, BatchNormBackwardReduce, Binary, BinaryFunction, Conv, Normalize, UnaryFunction,
};
use syncbn_ir::{Graph, NodeId, Op, Value};

use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};
use crate::rewrite::{Patch, PatchValue, Rule, rewrite};

/// The pass.
pub struct FuseConvSyncBnSilu;

impl Pass for FuseConvSyncBnSilu {
    fn name(&self) -> &'static str {
        "fuse-conv-syncbn-silu"
    }

    fn summary(&self) -> &'static str {
        "moments into the convolution; residual and activation into the normalisation; the backward twin"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let moments = Rule {
            name: "moments-into-conv",
            matcher: moments_into_conv,
        };
        let activation = Rule {
            name: "activation-into-normalize",
            matcher: activation_into_normalize,
        };
        // A residual without an activation comes last: with an activation behind it both go together.
        let residual = Rule {
            name: "residual-into-normalize",
            matcher: residual_into_normalize,
        };
        let first = rewrite(graph, &[moments, activation], cx)?;
        Ok(first + rewrite(graph, &[residual], cx)?)
    }
}

fn moments_into_conv(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let (Op::Moments(_), Some(y)) = (graph.op(id), graph.operand(id, 0)) else {
        return Ok(None);
    };
    let Op::Conv(conv) = graph.op(y.node) else {
        return Ok(None);
    };
    if conv.activation.is_some() {
        return Ok(None);
    }
    if conv.moments {
        return Ok(Some(Patch::forward(id.into(), Value { slot: 1, ..y })));
    }
    let conv = Conv {
        moments: true,
        ..conv.clone()
    };
    let mut patch = Patch::default();
    let operands: Vec<PatchValue> = graph.operands(y.node).into_iter().map(PatchValue::Old).collect();
    let new = patch.add(graph, conv, &graph.node(y.node).name, &operands)?;
    patch.replace(id.into(), new.slot(1));
    patch.replace(y, new);
    Ok(Some(patch))
}

/// A normalisation without activation, and the residual that joins it.
struct Normalized {
    node: NodeId,
    residual: Option<Value>,
}

/// What computes `z`: a normalisation, or the sum of one that nothing else reads and a residual. Of two
/// normalisations the one whose gradient `dz` leads into is taken, else the first.
fn candidates(graph: &Graph, z: Value) -> Vec<Normalized> {
    let plain = |v: Value| matches!(graph.op(v.node), Op::Normalize(op) if op.activation.is_none());
    if plain(z) {
        let residual = graph.operand(z.node, 5);
        return vec![Normalized {
            node: z.node,
            residual,
        }];
    }
    let (
        Op::Binary(Binary {
            function: BinaryFunction::Add,
        }),
        &[a, b],
    ) = (graph.op(z.node), graph.operands(z.node).as_slice())
    else {
        return Vec::new();
    };
    let fits = |&(v, r): &(Value, Value)| {
        plain(v)
            && graph.operand(v.node, 5).is_none()
            && graph.use_count(v) == 1
            && graph.ty(v) == graph.ty(r)
    };
    let sums = [(a, b), (b, a)].into_iter().filter(fits);
    sums.map(|(v, r)| Normalized {
        node: v.node,
        residual: Some(r),
    })
    .collect()
}

fn activation_into_normalize(
    graph: &Graph,
    id: NodeId,
    _: &mut PassContext,
) -> Result<Option<Patch>, PassError> {
    let (Op::Unary(op), Some(z)) = (graph.op(id), graph.operand(id, 0)) else {
        return Ok(None);
    };
    let function = op.function;
    if graph.is_output(z) {
        return Ok(None);
    }
    let mut gradient = None;
    for (user, slot) in graph.users(z) {
        match graph.op(user) {
            Op::Unary(_) if user == id => {}
            Op::UnaryBackward(b) if slot == 0 && b.function == function && gradient.is_none() => {
                // A `dy` that is `z` itself would need `z` to be stored.
                if graph.operand(user, 1) == Some(z) {
                    return Ok(None);
                }
                gradient = Some(user);
            }
            _ => return Ok(None),
        }
    }
    for normalized in candidates(graph, z) {
        let mut patch = Patch::default();
        let forward = fuse_forward(&mut patch, graph, &normalized, Some(function))?;
        patch.replace(id.into(), forward);
        match gradient {
            None => return Ok(Some(patch)),
            Some(gradient) => {
                if fuse_backward(&mut patch, graph, &normalized, function, gradient)? {
                    return Ok(Some(patch));
                }
            }
        }
    }
    Ok(None)
}

fn fuse_forward(
    patch: &mut Patch,
    graph: &Graph,
    normalized: &Normalized,
    activation: Option<UnaryFunction>,
) -> Result<PatchValue, PassError> {
    let mut operands: Vec<PatchValue> = graph
        .operands(normalized.node)
        .into_iter()
        .take(5)
        .map(PatchValue::Old)
        .collect();
    operands.extend(normalized.residual.map(PatchValue::Old));
    patch.add(
        graph,
        Normalize { activation },
        &graph.node(normalized.node).name,
        &operands,
    )
}

/// Adds the fused backward nodes; false when the gradient is read in a way that needs it stored.
fn fuse_backward(
    patch: &mut Patch,
    graph: &Graph,
    normalized: &Normalized,
    function: UnaryFunction,
    gradient: NodeId,
) -> Result<bool, PassError> {
    let dz = Value::from(gradient);
    let (&[x, mean, inv_std, scale, bias, ..], Some(dy)) = (
        graph.operands(normalized.node).as_slice(),
        graph.operand(gradient, 1),
    ) else {
        return Ok(false);
    };
    let (mut reduces, mut datas, mut others) = (Vec::new(), Vec::new(), 0);
    for (user, slot) in graph.users(dz) {
        let operands = graph.operands(user);
        let own = slot == 1 && operands[0] == x && operands[2] == mean && operands[3] == inv_std;
        match graph.op(user) {
            Op::BatchNormBackwardReduce(op) if own && op.activation.is_none() => reduces.push(user),
            Op::BatchNormBackwardData(op) if own && op.activation.is_none() && operands[4] == scale => {
                datas.push(user);
            }
            _ => others += 1,
        }
    }
    let rest = others > 0 || graph.is_output(dz);
    let (&[reduce], true) = (reduces.as_slice(), datas.len() <= 1) else {
        return Ok(false);
    };
    // Whoever else reads `dz` can have it from the sums only, and only with a residual.
    if rest && normalized.residual.is_none() {
        return Ok(false);
    }
    let residual: Vec<PatchValue> = normalized.residual.into_iter().map(PatchValue::Old).collect();
    let activation = Some(function);
    let seen = [x, dy, mean, inv_std].map(PatchValue::Old);
    let operands = [&seen, [scale, bias].map(PatchValue::Old).as_slice(), &residual].concat();
    let op = BatchNormBackwardReduce { activation };
    let own = patch.add(graph, op, &graph.node(reduce).name, &operands)?;
    patch.replace(reduce.into(), own);
    if normalized.residual.is_some() {
        // This takes the data gradient along: it reads the stored `dz` and needs no activation.
        patch.replace(dz, own.slot(1));
    } else if let &[data] = datas.as_slice() {
        let old = graph.operands(data);
        // Sums that are not reduced over ranks come straight from the node that is replaced.
        let sums = if old[5] == Value::from(reduce) {
            own
        } else {
            old[5].into()
        };
        let rest = [scale.into(), sums, old[6].into(), bias.into()];
        let operands = [&seen, rest.as_slice()].concat();
        let op = BatchNormBackwardData { activation };
        let dx = patch.add(graph, op, &graph.node(data).name, &operands)?;
        patch.replace(data.into(), dx);
    }
    Ok(true)
}

/// The gradient of a sum is that of both operands: nothing changes in the backward pass.
fn residual_into_normalize(
    graph: &Graph,
    id: NodeId,
    _: &mut PassContext,
) -> Result<Option<Patch>, PassError> {
    if !matches!(graph.op(id), Op::Binary(_)) {
        return Ok(None);
    }
    let Some(normalized) = candidates(graph, id.into()).into_iter().next() else {
        return Ok(None);
    };
    let mut patch = Patch::default();
    let y = fuse_forward(&mut patch, graph, &normalized, None)?;
    patch.replace(id.into(), y);
    Ok(Some(patch))
}
