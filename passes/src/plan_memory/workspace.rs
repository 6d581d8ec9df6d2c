//! Memory that nodes need while they are computed: buffers that live for one node.

use std::collections::BTreeMap;

use syncbn_ir::{Arena, Graph, Location, NodeId};

use super::fit::Buffer;
use super::{align, at};
use crate::error::PassError;
use crate::options::Options;

/// The workspaces of all nodes.
#[derive(Debug, Default)]
pub struct Workspaces {
    /// Those that share the step arena by liveness.
    pub step: Vec<(NodeId, Buffer)>,
    /// Nodes that run before the first step, and the bytes that they need. They run one after the other, so that one
    /// place serves all.
    prepared: Vec<NodeId>,
    /// Bytes of that place.
    pub prepared_bytes: u64,
}

impl Workspaces {
    /// What the nodes of a graph need, which run in this order; some of them before the first step.
    pub fn of(
        graph: &Graph,
        order: &[NodeId],
        runs_early: impl Fn(NodeId) -> bool,
        options: &Options,
    ) -> Result<Workspaces, PassError> {
        let mut workspaces = Workspaces::default();
        for (position, &id) in order.iter().enumerate() {
            let size = align(options.target.workspace_bytes(graph, id, options.batch_bound))?;
            if size == 0 {
                continue;
            }
            if runs_early(id) {
                workspaces.prepared.push(id);
                workspaces.prepared_bytes = workspaces.prepared_bytes.max(size);
            } else {
                let (begin, end) = (position, position);
                workspaces.step.push((id, Buffer { begin, end, size }));
            }
        }
        Ok(workspaces)
    }

    /// The places of all workspaces, for offsets in the step arena in the order of [`Workspaces::step`], and one offset in
    /// the prepared arena.
    pub fn places(&self, step: &[u64], prepared: u64) -> BTreeMap<NodeId, Location> {
        let of_step = self
            .step
            .iter()
            .zip(step)
            .map(|(&(id, _), &offset)| (id, at(Arena::Step, offset)));
        let of_prepared = self
            .prepared
            .iter()
            .map(|&id| (id, at(Arena::Prepared, prepared)));
        of_step.chain(of_prepared).collect()
    }
}
