//! `insert-gradient-all-reduce`: sums gradients and the loss over the ranks, in buckets.
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
//! With more gradients than `--bucket-bytes` there are several buckets: gradients are taken in the order in which
//! the backward pass has them ready, a bucket is full when the next one does not fit, and the loss travels with
//! the last. In a bucket operands stand in parameter order, the loss behind them; `plan-memory` places the
//! parameters of a bucket side by side, so that each all-reduce sums one contiguous piece of memory.
//!
//! It leaves alone what is already the same on all ranks (BatchNorm's scale and bias under `--bn sync`, gradients
//! that are zero), and gradients of data inputs.

use std::collections::BTreeMap;

use syncbn_ir::ops::{AllReduce, Scope};
use syncbn_ir::{Graph, NodeId, OutputKind, Value};

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
        "sums gradients and the loss over the ranks, in buckets (--bucket-bytes)"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let replicated = replicated(graph)?;
        let local = |kind: OutputKind| {
            let outputs = graph.outputs.iter().enumerate();
            let of_kind = outputs.filter(move |(_, o)| o.kind == kind);
            let local = of_kind
                .filter(|(_, o)| !replicated.contains(&o.value.node) && !graph.ty(o.value).shape.has_batch());
            local.map(|(i, _)| i).collect::<Vec<usize>>()
        };
        let mut buckets = buckets(graph, local(OutputKind::Gradient), cx.options.bucket_bytes)?;
        let loss = local(OutputKind::Loss);
        match buckets.last_mut() {
            Some(last) => last.extend(loss),
            None if loss.is_empty() => {}
            None => buckets.push(loss),
        }
        for bucket in &buckets {
            let operands: Vec<Value> = bucket.iter().map(|&i| graph.outputs[i].value).collect();
            let node = graph.add(AllReduce { scope: Scope::All }, "gradients", &operands)?;
            for (slot, &i) in bucket.iter().enumerate() {
                graph.outputs[i].value = Value { node, slot };
            }
        }
        Ok(buckets.len())
    }
}

/// Gradients by bucket: buckets in order of readiness, the outputs of one in their own order.
fn buckets(graph: &Graph, mut gradients: Vec<usize>, limit: u64) -> Result<Vec<Vec<usize>>, PassError> {
    let depths = depths(graph)?;
    gradients.sort_by_key(|&i| depths.get(&graph.outputs[i].value.node).copied());
    let mut buckets: Vec<(u64, Vec<usize>)> = Vec::new();
    for i in gradients {
        let bytes = graph.ty(graph.outputs[i].value).bytes(0).unwrap_or(0);
        match buckets.last_mut() {
            Some((held, bucket)) if held.saturating_add(bytes) <= limit => {
                *held += bytes;
                bucket.push(i);
            }
            _ => buckets.push((bytes, vec![i])),
        }
    }
    let sorted = buckets.into_iter().map(|(_, mut bucket)| {
        bucket.sort_unstable();
        bucket
    });
    Ok(sorted.collect())
}

/// The length of the longest chain that ends in each node: what has a shorter one is ready earlier.
fn depths(graph: &Graph) -> Result<BTreeMap<NodeId, usize>, PassError> {
    let mut depths: BTreeMap<NodeId, usize> = BTreeMap::new();
    for id in graph.topological()? {
        let operands = graph.operands(id);
        let before = operands.iter().filter_map(|v| depths.get(&v.node)).max();
        depths.insert(id, before.map_or(0, |d| d + 1));
    }
    Ok(depths)
}
