//! What kernels are made for, and whose they are.

use std::collections::{HashMap, HashSet};

use syncbn_ir::ops::Op;
use syncbn_ir::{Graph, NodeId, Schedule, TensorType, partials};

use super::{Parameter, Places};
use crate::program::KernelSource;

/// An operator on tensors: what kernels are made for.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The operator.
    pub op: &'a Op,
    /// Types of its operands, then of its results.
    pub types: &'a [&'a TensorType],
    /// Number of operands.
    pub operands: usize,
    /// Whether each tensor may overlap another one.
    pub overlaps: &'a [bool],
    /// How it is computed, with memory that this needs.
    pub schedule: Option<Schedule>,
    /// Whether there is such memory.
    pub has_workspace: bool,
    /// Name of the node.
    pub label: &'a str,
}

/// All that decides the code of an operator's kernels: calls that are equal in it share them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallKey {
    op: Op,
    types: Vec<TensorType>,
    operands: usize,
    overlaps: Vec<bool>,
    schedule: Option<Schedule>,
    has_workspace: bool,
}

impl<'a> Call<'a> {
    /// What a node needs kernels for.
    pub fn new(graph: &'a Graph, id: NodeId, places: &'a Places) -> Call<'a> {
        let node = graph.node(id);
        Call {
            op: &node.op,
            types: &places.types,
            operands: graph.operands(id).len(),
            overlaps: &places.overlaps,
            schedule: node.schedule,
            has_workspace: node.workspace.is_some(),
            label: &node.name,
        }
    }

    /// What it shares kernels by.
    pub fn key(&self) -> CallKey {
        CallKey {
            op: self.op.clone(),
            types: self.types.iter().map(|&ty| ty.clone()).collect(),
            operands: self.operands,
            overlaps: self.overlaps.to_vec(),
            schedule: self.schedule,
            has_workspace: self.has_workspace,
        }
    }

    /// Types of its operands, and of its results.
    pub fn split(&self) -> (&'a [&'a TensorType], &'a [&'a TensorType]) {
        self.types.split_at(self.operands)
    }

    /// Whether it needs memory for parts of sums.
    pub fn has_partials(&self) -> bool {
        let (operands, results) = self.split();
        // How much it is depends on the batch; whether it is needed does not.
        partials::bytes(self.op, self.schedule, operands, results, 1) > 0
    }

    /// The parameters of a kernel for its tensors.
    pub fn parameters(&self) -> Vec<Parameter> {
        let of = |&overlaps: &bool| match overlaps {
            true => Parameter::Shared,
            false => Parameter::Exclusive,
        };
        self.overlaps.iter().map(of).collect()
    }
}

/// Kernels and the nodes that call them, each once and in the order of first calls.
#[derive(Debug, Default)]
pub struct Sources {
    list: Vec<KernelSource>,
    by_kernel: HashMap<String, usize>,
    noted: HashSet<(usize, String)>,
}

impl Sources {
    /// Notes that a node calls a kernel.
    pub fn note(&mut self, kernel: &str, call: &Call) {
        let place = match self.by_kernel.get(kernel) {
            Some(&place) => place,
            None => {
                self.list.push(KernelSource {
                    kernel: kernel.to_string(),
                    op: call.op.name().to_string(),
                    nodes: Vec::new(),
                });
                self.by_kernel.insert(kernel.to_string(), self.list.len() - 1);
                self.list.len() - 1
            }
        };
        if self.noted.insert((place, call.label.to_string())) {
            self.list[place].nodes.push(call.label.to_string());
        }
    }

    /// All of them.
    pub fn into_list(self) -> Vec<KernelSource> {
        self.list
    }
}
