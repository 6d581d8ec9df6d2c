//! `plan-memory`: gives every value its place in one arena per lifetime class.
//!
//! Before:
//! ```text
//! %1 = unary(%x) {function = neg} : f32[batch, 4]
//! %2 = unary(%1) {function = relu} : f32[batch, 4]
//! output "y" %2
//! ```
//! After:
//! ```text
//! %1 = unary(%x) {function = neg} : f32[batch, 4] @ step+0
//! %2 = unary(%1) {function = relu} : f32[batch, 4] @ outputs+0
//! ```
//!
//! - Parameters: trained ones first, of these the ones whose gradient goes through the gradient all-reduce
//!   first, those of one bucket side by side, so that what it sums is contiguous. Gradients lie in their arena at
//!   the parameter's offset.
//! - Running statistics are updated in place.
//! - Outputs are computed in the caller's buffers; inputs are read there. The loss lies in the step arena and is
//!   valid when the step ends.
//! - In inference, what depends on no data lies in the prepared arena and is never overwritten.
//! - Everything else shares the step arena by liveness, for the largest batch. An elementwise operator works in
//!   place where its operand dies, an all-reduce always, and a reshape is an alias. Results `count`, `mean` and
//!   `inv_std` of a BatchNorm keep their place to themselves: they stay valid until the next step.
//! - What a node needs while it is computed, by its schedule or by its general form on a GPU, is a buffer that lives for
//!   this node, among all others. Nodes that run before the first step share one such buffer behind the prepared values.
//!   Beside kernels only sums over ranks run on a stream of their own: they have no workspace, and what they sum keeps its
//!   place until a node that reads it has waited for them, or the step ends.
//!
//! Where a value would have to be in two places (one value that is two outputs, an output that is a parameter,
//! an all-reduced value that is also read before the sum) a copy (`identity`) is inserted; values that fit
//! where they are computed are left without one. The order of nodes is that of the graph (see `schedule`), with
//! each copy right before its first reader. All offsets are multiples of 64.

mod buffers;
mod copies;
mod fit;
mod layout;
mod workspace;

use syncbn_ir::{Arena, Graph, Location, NodeId, Op, Value};

use crate::analysis::depends_on_batch;
use crate::error::{Fault, PassError};
use crate::options::Mode;
use crate::pass::{Changes, Pass, PassContext};

use buffers::Buffers;
pub use layout::{Layout, Tensor};

/// Alignment of all offsets in bytes.
pub const ALIGNMENT: u64 = 64;

/// What `plan-memory` decided, besides the locations in the graph.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Parameters and statistics with their offsets. Training and inference share it.
    pub layout: Layout,
    /// Bytes of the step arena of one rank.
    pub step_bytes: u64,
    /// Bytes of the prepared arena.
    pub prepared_bytes: u64,
    /// Bytes of the constants arena.
    pub constant_bytes: u64,
    /// Nodes that fill the prepared arena, in order. Empty in training.
    pub prepare: Vec<NodeId>,
    /// Nodes of the step, in order; sources (inputs, parameters, statistics, constants) are left out.
    pub step: Vec<NodeId>,
}

/// The pass.
pub struct PlanMemory;

impl Pass for PlanMemory {
    fn name(&self) -> &'static str {
        "plan-memory"
    }

    fn summary(&self) -> &'static str {
        "gives every value its place in an arena (--batch)"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let layout = match (&cx.layout, &cx.network) {
            (Some(layout), _) => layout.clone(),
            (None, Some(network)) => network.with_types_of(graph)?,
            (None, None) => Layout::of(graph)?,
        };
        layout.check(graph)?;
        let before = graph.topological()?;
        let mut buffers = Buffers::new(graph, cx.options.mode)?;
        copies::claim_places(graph, &mut buffers, &layout)?;
        let inserted = graph.len() - before.len();
        // Copies come right before whoever reads them, so that they do not hold up the schedule.
        let order = copies::settle(graph, &before);
        if !graph.nodes().eq(order.iter().copied()) {
            graph.reorder(&order)?;
            buffers = Buffers::new(graph, cx.options.mode)?;
            copies::claim_places(graph, &mut buffers, &layout)?;
        }
        let order = graph.topological()?;
        let assigned = buffers.place(graph, &order, &layout, &cx.options)?;
        let mut changes = inserted;
        for (value, location) in assigned.locations {
            let old = &mut graph.node_mut(value.node).outputs[value.slot].location;
            changes += usize::from(*old != Some(location));
            *old = Some(location);
        }
        for &id in &order {
            let location = assigned.workspaces.get(&id).copied();
            changes += usize::from(graph.node(id).workspace != location);
            graph.node_mut(id).workspace = location;
        }
        let of_batch = depends_on_batch(graph)?;
        let (mut prepare, mut step) = (Vec::new(), Vec::new());
        for id in order.into_iter().filter(|&id| !is_source(graph.op(id))) {
            let early =
                cx.options.mode == Mode::Infer && !of_batch.contains(&id) && !writes_output(graph, id);
            if early { prepare.push(id) } else { step.push(id) }
        }
        cx.plan = Some(Plan {
            layout,
            step_bytes: assigned.step_bytes,
            prepared_bytes: assigned.prepared_bytes,
            constant_bytes: assigned.constant_bytes,
            prepare,
            step,
        });
        Ok(changes)
    }
}

/// Whether an operator computes nothing: its value is there before the step.
pub fn is_source(op: &Op) -> bool {
    matches!(
        op,
        Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_)
    )
}

fn writes_output(graph: &Graph, id: NodeId) -> bool {
    let locations = graph.node(id).outputs.iter().filter_map(|o| o.location);
    locations.into_iter().any(|l| l.arena == Arena::Outputs)
}

/// The node's outputs.
fn results(graph: &Graph, node: NodeId) -> impl Iterator<Item = Value> + use<> {
    (0..graph.node(node).outputs.len()).map(move |slot| Value { node, slot })
}

/// The value's place in an arena.
fn at(arena: Arena, offset: u64) -> Location {
    Location { arena, offset }
}

/// Rounds up to [`ALIGNMENT`].
fn align(bytes: u64) -> Result<u64, PassError> {
    let aligned = bytes
        .checked_next_multiple_of(ALIGNMENT)
        .filter(|&b| b <= i64::MAX as u64);
    aligned.ok_or_else(too_large)
}

fn too_large() -> PassError {
    let fault = Fault::user("the network needs more memory than a machine can address");
    fault.help("lower --batch").into()
}
