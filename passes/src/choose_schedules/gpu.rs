//! The GPU that schedules are chosen for, and which nodes it has schedules for.

use std::str::FromStr;

use syncbn_ir::schedule::{Gemm, Products};
use syncbn_ir::{Graph, NodeId, Op, Schedule};

use super::implicit_gemm;
use crate::assign_layouts::keeps_order;

/// What tiles are ranked by. Cycles and bytes are those of one multiprocessor, except where it says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gpu {
    /// How it multiplies matrices.
    pub products: Products,
    /// Multiprocessors.
    pub multiprocessors: i64,
    /// Multiply-adds of tensor cores in tf32, and bytes from shared memory and from the L2 cache, in one cycle.
    pub per_cycle: [f64; 3],
    /// Bytes from memory in one cycle of the whole GPU.
    pub memory_per_cycle: f64,
    /// Cycles until a copy from global memory has arrived.
    pub latency: f64,
    /// Cycles of a block besides its steps.
    pub block: f64,
    /// Cycles of a launch.
    pub launch: f64,
}

impl Gpu {
    /// An A100 (NVIDIA's data sheet). Schedules are ranked for it whatever GPU code runs on: a tile decides in which order
    /// products are added, so that sums have one order on every device.
    pub fn a100(products: Products) -> Gpu {
        Gpu {
            products,
            multiprocessors: 108,
            per_cycle: [512.0, 128.0, 40.0],
            memory_per_cycle: 1100.0,
            latency: 700.0,
            block: 1500.0,
            launch: 3000.0,
        }
    }

    /// The matrix product that tensor cores compute for a node; None where the general form is better or the only one.
    pub fn product(&self, graph: &Graph, id: NodeId, batch_bound: usize) -> Option<Gemm> {
        let (operands, results) = graph.types(id);
        let gemm = Gemm::of(graph.op(id), &operands, &results, batch_bound).ok()?;
        let fits = self.products != Products::Exact && gemm.dtype == self.products.operand();
        (fits && has_channels_innermost(graph, id)).then_some(gemm)
    }

    /// The schedule of a node; None for the general form.
    pub fn best(&self, graph: &Graph, id: NodeId, batch_bound: usize) -> Option<Schedule> {
        let gemm = self.product(graph, id, batch_bound)?;
        let candidates = implicit_gemm::candidates(self, &gemm).into_iter();
        let best = candidates.min_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map(|(schedule, _)| Schedule::ImplicitGemm(schedule))
    }
}

/// Whether a convolution's images and weights will have their channels innermost without a copy made for it alone; those of
/// graph inputs get one that several convolutions share.
fn has_channels_innermost(graph: &Graph, id: NodeId) -> bool {
    let copied: &[usize] = match graph.op(id) {
        Op::MatMul(_) => return true,
        Op::Conv(_) | Op::ConvBackwardWeight(_) => &[0],
        _ => &[],
    };
    // A convolution's bias is no image.
    let slots = graph
        .operands(id)
        .into_iter()
        .enumerate()
        .filter(|(slot, _)| *slot != 2);
    slots.into_iter().all(|(slot, value)| {
        let is_input = matches!(graph.op(value.node), Op::Input(_));
        !keeps_order(graph, value.node) || is_input && copied.contains(&slot)
    })
}

impl FromStr for Gpu {
    type Err = String;

    /// By how it multiplies matrices.
    fn from_str(text: &str) -> Result<Gpu, String> {
        match text {
            "tf32" => Ok(Gpu::a100(Products::Tf32)),
            "f32" => Ok(Gpu::a100(Products::ThreeTf32)),
            "bf16" => Ok(Gpu::a100(Products::Bf16)),
            _ => Err(format!("\"{text}\" is none of tf32, bf16, f32")),
        }
    }
}
