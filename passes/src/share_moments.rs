//! `share-moments`: the moments of a concat are those of its parts, which several BatchNorms share.
//!
//! Before (two layers of a dense block, each of which normalises all that was computed before it):
//! ```text
//! %3 = moments(%a)
//! %4 = all_reduce(%3) {scope = all}
//! ...
//! %8 = concat(%a, %b) {axis = 1}
//! %9 = moments(%8)
//! %10 = all_reduce(%9) {scope = all}
//! ```
//! After, with `A` channels in `%a` and `B` in `%b`:
//! ```text
//! %3 = moments(%a)
//! %4 = all_reduce(%3) {scope = all}
//! ...
//! %9 = moments(%b)
//! %10 = all_reduce(%9) {scope = all}
//! %11 = concat(slice(%4, 0..1+A), slice(%10, 1..1+B), slice(%4, 1+A..1+2A), slice(%10, 1+B..1+2B)) {axis = 0}
//! ```
//! All parts have as many values a channel as the concat, so any part's count is the concat's. Each part is read and
//! sent once instead of once for every layer behind it, and a part that a convolution computes gets its moments in
//! the convolution's epilogue. A concat of concats is taken apart down to its parts.
//!
//! It leaves alone a concat none of whose parts another BatchNorm normalises, for which one pass over all channels
//! is less work than several; one along another axis; and all-reduces that were combined already. It does not make
//! fewer all-reduces: in a dense block every layer's statistics wait for the layer before, so that nothing there
//! can be combined. It makes them smaller.

use syncbn_ir::ops::{AllReduce, Concat, Moments, Scope, Slice};
use syncbn_ir::{Graph, NodeId, Op, Value};

use crate::combine_all_reduce::count;
use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};
use crate::rewrite::{Patch, PatchValue, Rule, rewrite};

/// The pass.
pub struct ShareMoments;

impl Pass for ShareMoments {
    fn name(&self) -> &'static str {
        "share-moments"
    }

    fn summary(&self) -> &'static str {
        "the moments of a concat are those of its parts, reduced once for all BatchNorms that read them"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        cx.uncombined.get_or_insert(count(graph));
        let rules = [
            Rule {
                name: "moments-of-concat",
                matcher: moments_of_concat,
            },
            Rule {
                name: "same-moments",
                matcher: same_moments,
            },
        ];
        rewrite(graph, &rules, cx)
    }
}

/// What a value consists of along the channels.
fn parts(graph: &Graph, x: Value) -> Vec<Value> {
    match graph.op(x.node) {
        Op::Concat(Concat { axis: 1 }) => {
            let operands = graph.operands(x.node).into_iter();
            operands.flat_map(|part| parts(graph, part)).collect()
        }
        _ => vec![x],
    }
}

/// The value that moments are taken of.
fn measured(graph: &Graph, id: NodeId) -> Option<Value> {
    match graph.op(id) {
        Op::Moments(_) => graph.operand(id, 0),
        _ => None,
    }
}

/// Whether another BatchNorm needs the moments of one of these parts.
fn is_shared(graph: &Graph, id: NodeId, of: &[Value]) -> bool {
    let others = graph.nodes().filter(|&other| other != id);
    others
        .filter_map(|other| measured(graph, other))
        .any(|x| parts(graph, x).iter().any(|part| of.contains(part)))
}

fn moments_of_concat(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let Some(x) = measured(graph, id) else {
        return Ok(None);
    };
    let parts = parts(graph, x);
    if parts.len() < 2 || !is_shared(graph, id, &parts) {
        return Ok(None);
    }
    let users = graph.users(id.into());
    let (scope, old) = match users.as_slice() {
        &[(user, _)] => match graph.op(user) {
            Op::AllReduce(_) if graph.operands(user).len() > 1 => return Ok(None),
            Op::AllReduce(op) => (Some(op.scope), user),
            _ => (None, id),
        },
        _ => (None, id),
    };
    let name = &graph.node(id).name;
    let mut patch = Patch::default();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (i, &part) in parts.iter().enumerate() {
        let sums = sums(&mut patch, graph, name, part, scope)?;
        let size = patch
            .ty(graph, sums)
            .and_then(|ty| ty.shape.elements_per_sample());
        let c = size.unwrap_or(1) / 2;
        // The first part's brings the count.
        let begin = usize::from(i > 0);
        first.push(slice(&mut patch, graph, name, sums, begin..1 + c)?);
        second.push(slice(&mut patch, graph, name, sums, 1 + c..1 + 2 * c)?);
    }
    first.extend(second);
    let joined = patch.add(graph, Concat { axis: 0 }, name, &first)?;
    patch.replace(old.into(), joined);
    Ok(Some(patch))
}

/// The moments of one part, summed over `scope`: those that the graph has already, under the name of the layer that
/// needs them first, or new ones.
fn sums(
    patch: &mut Patch,
    graph: &Graph,
    name: &str,
    part: Value,
    scope: Option<Scope>,
) -> Result<PatchValue, PassError> {
    let measured = known(graph, part, &Moments {}.into());
    let summed = measured
        .zip(scope)
        .and_then(|(v, scope)| known(graph, v, &AllReduce { scope }.into()));
    if let Some(summed) = summed {
        return Ok(PatchValue::Old(summed));
    }
    let moments = match measured {
        Some(v) => PatchValue::Old(v),
        None => patch.add(graph, Moments {}, name, &[part.into()])?,
    };
    match scope {
        Some(scope) => patch.add(graph, AllReduce { scope }, name, &[moments]),
        None => Ok(moments),
    }
}

/// What an operator makes of `v` alone, if the graph computes it.
fn known(graph: &Graph, v: Value, op: &Op) -> Option<Value> {
    let mut users = graph.users(v).into_iter().map(|(user, _)| user);
    let user = users.find(|&user| graph.op(user) == op && graph.operands(user).len() == 1);
    user.map(Value::from)
}

fn slice(
    patch: &mut Patch,
    graph: &Graph,
    name: &str,
    x: PatchValue,
    range: std::ops::Range<usize>,
) -> Result<PatchValue, PassError> {
    let slice = Slice {
        axis: 0,
        begin: range.start,
        end: range.end,
        step: std::num::NonZeroUsize::MIN,
    };
    let known = match x {
        PatchValue::Old(v) => known(graph, v, &slice.clone().into()),
        PatchValue::New { .. } => None,
    };
    match known {
        Some(v) => Ok(PatchValue::Old(v)),
        None => patch.add(graph, slice, name, &[x]),
    }
}

/// Moments, their sums over ranks and slices of these that the graph computes twice.
fn same_moments(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let operands = graph.operands(id);
    let &[x] = operands.as_slice() else {
        return Ok(None);
    };
    if !of_moments(graph, id) {
        return Ok(None);
    }
    let twin = graph
        .users(x)
        .into_iter()
        .map(|(user, _)| user)
        .filter(|&user| user < id && graph.op(user) == graph.op(id) && graph.operands(user) == operands);
    Ok(twin.min().map(|first| Patch::forward(id.into(), first.into())))
}

fn of_moments(graph: &Graph, id: NodeId) -> bool {
    let before = |id: NodeId| graph.operand(id, 0).map(|v| v.node);
    match graph.op(id) {
        Op::Moments(_) => true,
        Op::AllReduce(_) | Op::Slice(_) => before(id).is_some_and(|x| of_moments(graph, x)),
        _ => false,
    }
}
