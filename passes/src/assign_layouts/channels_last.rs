//! Activations with channels innermost.

use std::collections::{BTreeMap, BTreeSet};

use syncbn_ir::{DType, Graph, Layout, NodeId, Op, Schedule, TensorType, Value};

use super::{copy, is_plain_copy, redirect};
use crate::error::PassError;
use crate::pass::Changes;

/// Which values have their channels innermost.
pub struct Images {
    ranks: BTreeSet<usize>,
    batched: bool,
}

impl Images {
    /// Those of rank 4, weights too.
    pub fn all_of_rank_4() -> Images {
        Images {
            ranks: BTreeSet::from([4]),
            batched: false,
        }
    }

    /// Those with a batch, of ranks that a window of the graph slides over.
    pub fn of_windows(graph: &Graph) -> Images {
        let is_window = |id: &NodeId| {
            matches!(
                graph.op(*id),
                Op::Conv(_) | Op::ConvBackwardData(_) | Op::MaxPool(_) | Op::AveragePool(_)
            )
        };
        let windows = graph.nodes().filter(is_window);
        Images {
            ranks: windows.map(|id| graph.ty(id.into()).shape.rank()).collect(),
            batched: true,
        }
    }

    fn has(&self, ty: &TensorType) -> bool {
        self.ranks.contains(&ty.shape.rank())
            && (ty.shape.has_batch() || !self.batched)
            && matches!(ty.dtype, DType::F32 | DType::F64 | DType::BF16 | DType::U8)
    }
}

/// Whether the results of a node stay row-major: their bytes come from elsewhere, or they are a view of something plain.
pub fn keeps_order(graph: &Graph, id: NodeId) -> bool {
    match graph.op(id) {
        Op::Input(_) | Op::Constant(_) | Op::Statistic(_) => true,
        Op::Reduce(_) | Op::Reshape(_) => graph.ty(id.into()).shape.has_batch(),
        _ => false,
    }
}

/// Puts channels innermost.
pub fn assign(graph: &mut Graph, images: &Images) -> Result<Changes, PassError> {
    let mut changes = 0;
    for id in graph.topological()? {
        if keeps_order(graph, id) || is_plain_copy(graph, id.into()) {
            continue;
        }
        for slot in 0..graph.node(id).outputs.len() {
            let value = Value { node: id, slot };
            let ty = graph.ty(value);
            if images.has(ty) && ty.layout == Layout::Plain {
                graph.node_mut(id).outputs[slot].ty.layout = Layout::Nhwc;
                changes += 1;
            }
        }
    }
    Ok(changes)
}

/// Lets convolutions read copies of graph inputs whose channels are a multiple of `multiple` above 1: the copies get
/// channels innermost.
pub fn copy_inputs(graph: &mut Graph, multiple: usize) -> Result<Changes, PassError> {
    let mut changes = 0;
    for id in graph.topological()? {
        let input = Value::from(id);
        let channels = |ty: &TensorType| ty.shape.0[1].fixed();
        let fits = matches!(graph.op(id), Op::Input(_))
            && Images::all_of_rank_4().has(graph.ty(input))
            && channels(graph.ty(input)).is_some_and(|n| n % multiple == 0);
        if multiple <= 1 || !fits {
            continue;
        }
        let is_convolution = |&(user, slot): &(NodeId, usize)| match graph.op(user) {
            Op::Conv(op) => slot == 0 && op.groups == 1,
            Op::ConvBackwardWeight(op) => slot == 0 && op.groups == 1,
            _ => false,
        };
        let readers: Vec<_> = graph.users(input).into_iter().filter(is_convolution).collect();
        let Some(&(first, _)) = readers.first() else {
            continue;
        };
        let copied = copy(graph, input, first, Layout::Plain)?;
        for (user, slot) in readers {
            graph.set_operand(user, slot, copied)?;
        }
        changes += 1;
    }
    Ok(changes)
}

/// Lets scheduled convolutions read copies, with channels innermost, of what has another order. The direct form copies
/// `x` itself, whatever its order.
pub fn copy_operands(graph: &mut Graph) -> Result<Changes, PassError> {
    let mut copies: BTreeMap<Value, Value> = BTreeMap::new();
    for id in graph.topological()? {
        let packs = match graph.schedule(id) {
            None | Some(Schedule::General | Schedule::Product(_)) => continue,
            Some(Schedule::Direct(_)) => true,
            Some(_) => false,
        };
        // On a GPU weights lie as images do; else their order follows from the schedule.
        let on_gpu = matches!(graph.schedule(id), Some(Schedule::ImplicitGemm(_)));
        let slots: &[usize] = match graph.op(id) {
            Op::Conv(_) if graph.operands(id).len() > 3 && on_gpu => &[0, 1, 3],
            Op::Conv(_) | Op::ConvBackwardData(_) if on_gpu => &[0, 1],
            // The residual is read where the result is written.
            Op::Conv(_) if graph.operands(id).len() > 3 && packs => &[3],
            Op::Conv(_) if graph.operands(id).len() > 3 => &[0, 3],
            Op::Conv(_) if packs => &[],
            Op::Conv(_) | Op::ConvBackwardData(_) => &[0],
            Op::ConvBackwardWeight(_) if packs => &[1],
            Op::ConvBackwardWeight(_) => &[0, 1],
            _ => continue,
        };
        for &slot in slots {
            let value = graph.operands(id)[slot];
            if graph.ty(value).layout == Layout::Nhwc {
                continue;
            }
            let copied = match copies.get(&value) {
                Some(&copied) => copied,
                None => copy(graph, value, id, Layout::Nhwc)?,
            };
            copies.insert(value, copied);
            redirect(graph, (id, slot), copied)?;
        }
    }
    Ok(copies.len())
}
