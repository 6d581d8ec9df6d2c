//! What a description says of the steps: nodes, collectives and BatchNorm layers.

use std::collections::VecDeque;

use syncbn_abi::{BatchNorm, Collective, Node};
use syncbn_ir::ops::{Op, Scope};
use syncbn_ir::{Graph, NodeId, Value};
use syncbn_mlir::order;
use syncbn_passes::BatchNormMode;

use super::tensors::fixed_sizes;
use super::work;
use crate::compile::Graphs;
use crate::{Error, Options};

/// One all-reduce.
pub fn collective(graph: &Graph, id: NodeId, scope: Scope) -> Collective {
    let bytes = graph
        .operands(id)
        .iter()
        .filter_map(|&v| graph.ty(v).bytes(0))
        .sum();
    let group = match scope {
        Scope::All => 0,
        Scope::Group(k) => k as u64,
    };
    Collective {
        name: graph.node(id).name.clone(),
        group,
        bytes,
        gradients: order::sums_gradients(graph, id),
    }
}

/// FNV-1a over order, scope, size and name of the collectives.
pub fn hash(collectives: &[Collective]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for c in collectives {
        let text = format!("{} {} {};", c.name, c.group, c.bytes);
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    hash
}

/// All nodes, in the graph's own order, with their work in batches of `batch` samples.
pub fn nodes(graph: &Graph, batch: usize) -> Result<Vec<Node>, Error> {
    let order = graph.topological().map_err(Error::internal)?;
    Ok(order
        .into_iter()
        .map(|id| Node {
            name: graph.node(id).name.clone(),
            op: graph.op(id).name().to_string(),
            flops: work::flops(graph, id, batch),
            bytes: work::bytes(graph, id, batch),
            schedule: graph.schedule(id).map(|s| s.to_string()).unwrap_or_default(),
        })
        .collect())
}

/// The name of the statistic behind a running mean or variance; a layer that is used twice passes it on.
fn statistic(graph: &Graph, value: Value) -> Option<String> {
    match graph.op(value.node) {
        Op::Statistic(s) => Some(s.name.clone()),
        Op::BatchNorm(_) => statistic(graph, graph.operand(value.node, value.slot)?),
        Op::BatchNormFinalize(_) => statistic(graph, graph.operand(value.node, value.slot - 2)?),
        _ => None,
    }
}

/// BatchNorm layers in the order of the imported network.
pub fn batch_norms(graph: &Graph, graphs: &Graphs, options: &Options) -> Result<Vec<BatchNorm>, Error> {
    let data = graph.depends_on_data().map_err(Error::internal)?;
    let mut saved: VecDeque<(String, (u64, u64))> = VecDeque::new();
    if let Some(train) = &graphs.train {
        for id in train.graph.topological().map_err(Error::internal)? {
            let Op::BatchNormFinalize(_) = train.graph.op(id) else {
                continue;
            };
            let name = train
                .graph
                .operand(id, 1)
                .and_then(|v| statistic(&train.graph, v))
                .unwrap_or_default();
            let at = |slot| order::place(&train.graph, Value { node: id, slot }).map(|(p, _)| p.offset);
            saved.push_back((name, (at(1)?, at(2)?)));
        }
    }
    let mut layers = Vec::new();
    for id in graph.topological().map_err(Error::internal)? {
        let Op::BatchNorm(_) = graph.op(id) else { continue };
        let operands = graph.operands(id);
        let sizes = fixed_sizes(graph.ty(operands[0]));
        let of_data = data.contains(&id);
        let skip = usize::from(graph.ty(operands[0]).shape.has_batch());
        let running = [3, 4].map(|i| statistic(graph, operands[i]).unwrap_or_default());
        let place = saved.iter().position(|(name, _)| *name == running[0]);
        layers.push(BatchNorm {
            name: graph.node(id).name.clone(),
            channels: sizes.get(1 - skip).copied().unwrap_or(0),
            positions: sizes.iter().skip(2 - skip).product(),
            counts: of_data && options.batch_norm != BatchNormMode::Frozen,
            saved: place.and_then(|i| saved.remove(i)).map(|(_, offsets)| offsets),
            running_mean: running[0].clone(),
            running_var: running[1].clone(),
        });
    }
    Ok(layers)
}
