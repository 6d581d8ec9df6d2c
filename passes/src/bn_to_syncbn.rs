//! `bn-to-syncbn`: takes BatchNorms apart, so that an all-reduce fits between their steps.
//!
//! Before:
//! ```text
//! %5:5 = batch_norm(%x, %scale, %bias, %mean, %var) {training = true, ...}
//! %6:3 = batch_norm_backward(%x, %dy, %scale, %5#1, %5#2)
//! ```
//! After, with `--bn sync`:
//! ```text
//! %7 = moments(%x)
//! %8 = all_reduce(%7) {scope = all}
//! %9:5 = batch_norm_finalize(%8, %mean, %var)
//! %10 = normalize(%x, %9#1, %9#2, %scale, %bias)
//! %11 = batch_norm_backward_reduce(%x, %dy, %9#1, %9#2)
//! %12 = all_reduce(%11) {scope = all}
//! %13 = batch_norm_backward_data(%x, %dy, %9#1, %9#2, %scale, %12, %9)
//! dbias, dscale = the halves of %12
//! ```
//!
//! `--bn group=K` reduces over groups. `--bn local`, and a BatchNorm whose input depends on no data, reduce
//! nothing. The gradients of scale and bias are the halves of the reduced sums only where these are already
//! the parameter's whole gradient over all ranks; otherwise they are the halves of the rank's own sums, which
//! join the gradient all-reduce. Where nothing needs `dx`, the sums are not reduced here.
//!
//! It leaves alone a `batch_norm` in inference form: it has no statistics to share.

use syncbn_ir::ops::{
    AllReduce, BatchNormBackwardData, BatchNormBackwardReduce, BatchNormFinalize, Cast, Moments, Normalize,
    Scope, Slice,
};
use syncbn_ir::{Graph, NodeId, Op, OutputKind, Value};

use crate::analysis::any_depends_on_batch;
use crate::error::PassError;
use crate::options::{BatchNormMode, Mode};
use crate::pass::{Changes, Pass, PassContext};
use crate::rewrite::{Patch, PatchValue, Rule, rewrite};

/// The pass.
pub struct BnToSyncBn;

impl Pass for BnToSyncBn {
    fn name(&self) -> &'static str {
        "bn-to-syncbn"
    }

    fn summary(&self) -> &'static str {
        "takes BatchNorms apart and reduces their statistics over ranks (--bn)"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let rules = [
            Rule {
                name: "batch-norm",
                matcher: forward,
            },
            Rule {
                name: "batch-norm-backward",
                matcher: backward,
            },
        ];
        rewrite(graph, &rules, cx)
    }
}

fn forward(graph: &Graph, id: NodeId, cx: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let (Op::BatchNorm(op), &[x, scale, bias, mean, var]) = (graph.op(id), graph.operands(id).as_slice())
    else {
        return Ok(None);
    };
    if !op.training {
        return Ok(None);
    }
    let scope = match (cx.options.mode, cx.options.batch_norm) {
        (Mode::Infer, _) | (_, BatchNormMode::Local) => None,
        (Mode::Train, _) if !any_depends_on_batch(graph, &[x]) => None,
        (_, BatchNormMode::Group(k)) => Some(Scope::Group(k)),
        (_, BatchNormMode::Sync | BatchNormMode::Frozen) => Some(Scope::All),
    };
    let name = &graph.node(id).name;
    let mut patch = Patch::default();
    let mut moments = patch.add(graph, Moments {}, name, &[x.into()])?;
    if let Some(scope) = scope {
        moments = patch.add(graph, AllReduce { scope }, name, &[moments])?;
    }
    let finalize = BatchNormFinalize {
        epsilon: op.epsilon,
        momentum: op.momentum,
        running_var: op.running_var,
    };
    let saved = patch.add(graph, finalize, name, &[moments, mean.into(), var.into()])?;
    let operands = [x.into(), saved.slot(1), saved.slot(2), scale.into(), bias.into()];
    let y = patch.add(graph, Normalize { activation: None }, name, &operands)?;
    patch.replace(id.into(), y);
    for slot in 1..5 {
        patch.replace(Value { node: id, slot }, saved.slot(slot));
    }
    Ok(Some(patch))
}

fn backward(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let (Op::BatchNormBackward(_), &[x, dy, scale, mean, inv_std]) =
        (graph.op(id), graph.operands(id).as_slice())
    else {
        return Ok(None);
    };
    if !matches!(graph.op(mean.node), Op::BatchNormFinalize(_)) {
        return Ok(None);
    }
    // The sums go where the moments went.
    let scope = match graph.operand(mean.node, 0).map(|m| graph.op(m.node)) {
        Some(Op::AllReduce(op)) => Some(op.scope),
        _ => None,
    };
    let count = Value {
        node: mean.node,
        slot: 0,
    };
    let name = &graph.node(id).name;
    let result = |slot| Value { node: id, slot };
    let mut patch = Patch::default();
    let reduce = BatchNormBackwardReduce { activation: None };
    let seen = [x.into(), dy.into(), mean.into(), inv_std.into()];
    let own = patch.add(graph, reduce, name, &seen)?;
    let mut sums = own;
    let needs_dx = graph.use_count(result(0)) > 0;
    if let Some(scope) = scope.filter(|_| needs_dx) {
        sums = patch.add(graph, AllReduce { scope }, name, &[own])?;
    }
    if needs_dx {
        let data = BatchNormBackwardData { activation: None };
        let operands = [seen.as_slice(), &[scale.into(), sums, count.into()]].concat();
        let dx = patch.add(graph, data, name, &operands)?;
        patch.replace(result(0), dx);
    }
    let c = graph.ty(scale).shape.elements_per_sample().unwrap_or(0);
    for (slot, begin) in [(1, c), (2, 0)] {
        let old = result(slot);
        if graph.use_count(old) == 0 {
            continue;
        }
        let global = scope == Some(Scope::All) && needs_dx && is_whole_gradient(graph, old);
        let from = if global { sums } else { own };
        let new = half(&mut patch, graph, name, from, begin..begin + c, old)?;
        patch.replace(old, new);
    }
    match needs_dx || graph.use_count(result(1)) + graph.use_count(result(2)) > 0 {
        true => Ok(Some(patch)),
        false => Ok(None),
    }
}

/// Whether a value is read as a parameter's gradient and for nothing else.
fn is_whole_gradient(graph: &Graph, v: Value) -> bool {
    let outputs = graph.outputs.iter().filter(|o| o.value == v);
    graph.users(v).is_empty() && outputs.map(|o| o.kind).all(|kind| kind == OutputKind::Gradient)
}

/// `range` of the sums, in the element type of `like`.
fn half(
    patch: &mut Patch,
    graph: &Graph,
    name: &str,
    sums: PatchValue,
    range: std::ops::Range<usize>,
    like: Value,
) -> Result<PatchValue, PassError> {
    let slice = Slice {
        axis: 0,
        begin: range.start,
        end: range.end,
        step: std::num::NonZeroUsize::MIN,
    };
    let part = patch.add(graph, slice, name, &[sums])?;
    let dtype = graph.ty(like).dtype;
    match patch.ty(graph, part).is_some_and(|ty| ty.dtype == dtype) {
        true => Ok(part),
        false => patch.add(graph, Cast { dtype }, name, &[part]),
    }
}
