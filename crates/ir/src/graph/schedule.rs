//! How nodes are computed.

use super::{Graph, NodeId};
use crate::schedule::{Schedule, gpu_workspace};
use crate::types::TensorType;

impl Graph {
    /// How a node is computed; None stands for the general form.
    pub fn schedule(&self, id: NodeId) -> Option<Schedule> {
        self.node(id).schedule
    }

    /// Says how a node is computed; the verifier checks that it can be computed so.
    pub fn set_schedule(&mut self, id: NodeId, schedule: Option<Schedule>) {
        self.node_mut(id).schedule = schedule;
    }

    /// Bytes of memory that a node needs on a processor while it is computed, for batches up to `batch_bound`.
    pub fn workspace_bytes(&self, id: NodeId, batch_bound: usize) -> u64 {
        let Some(schedule) = self.schedule(id) else {
            return 0;
        };
        let (operands, results) = self.types(id);
        schedule.workspace(self.op(id), &operands, &results, batch_bound)
    }

    /// Bytes of memory that a node needs on a GPU while it is computed, for batches up to `batch_bound`: its general form
    /// may need some too.
    pub fn gpu_workspace_bytes(&self, id: NodeId, batch_bound: usize) -> u64 {
        let (operands, results) = self.types(id);
        gpu_workspace(self.op(id), self.schedule(id), &operands, &results, batch_bound)
    }

    /// Types of a node's operands and results.
    pub fn types(&self, id: NodeId) -> (Vec<&TensorType>, Vec<&TensorType>) {
        let operands = self.operands(id).into_iter().map(|v| self.ty(v)).collect();
        let results = self.node(id).outputs.iter().map(|output| &output.ty).collect();
        (operands, results)
    }
}
