//! What the CPU computes in several ways: each schedule of a node, and the code that it stands for. Begin to read here.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul};
use syncbn_ir::schedule::{Direct, Pointwise, Winograd};
use syncbn_ir::{Layout, Schedule};

use super::{conv, product, winograd};
use crate::emit::{Emitter, Val};
use crate::ops::kernel::{Kernel, Tensor};
use crate::ops::moments::moments;

const NO_WORKSPACE: &str = "a node with a schedule has no workspace; let plan-memory run";

/// The CPU.
pub struct Cpu;

impl Cpu {
    /// The result, and its moments where the operator has them.
    pub fn conv<'c>(&self, op: &Conv, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
        check_layouts(
            k,
            &k.operands[1],
            &[k.operands.first(), k.operands.get(3), k.results.first()],
        )?;
        match k.schedule.unwrap_or(Schedule::General) {
            Schedule::General => conv::general::forward(op, k, e)?,
            // These take the moments as they store the result.
            Schedule::Depthwise(s) => return conv::depthwise::forward(s, own_workspace(k)?, op, k, e),
            Schedule::Direct(s) => return conv::direct::forward(&direct(s, k)?, op, k, e),
            Schedule::Pointwise(s) => return conv::direct::forward(&pointwise(s, k)?, op, k, e),
            Schedule::Winograd(s) | Schedule::Polyphase(s) => {
                winograd::convolution::forward(&tiled(s, k)?, op, k, e)?
            }
            other => return Err(unknown(other)),
        }
        if op.moments {
            e.meet();
            moments(k, &k.results[0], &k.results[1], e);
        }
        Ok(())
    }

    /// The gradient for the input.
    pub fn conv_backward_data<'c>(
        &self,
        op: &ConvBackwardData,
        k: &Kernel<'c>,
        e: &Emitter<'c>,
    ) -> Result<(), String> {
        check_layouts(k, &k.operands[1], &[None, k.operands.first(), k.results.first()])?;
        match k.schedule.unwrap_or(Schedule::General) {
            Schedule::General => conv::general::backward_data(op, k, e),
            Schedule::Depthwise(s) => conv::depthwise::backward_data(s, own_workspace(k)?, op, k, e),
            Schedule::Direct(s) => conv::direct::backward_data(&direct(s, k)?, op, k, e),
            Schedule::Pointwise(s) => conv::direct::backward_data(&pointwise(s, k)?, op, k, e),
            Schedule::Winograd(s) | Schedule::Polyphase(s) => {
                winograd::convolution::backward_data(&tiled(s, k)?, op, k, e)
            }
            other => Err(unknown(other)),
        }
    }

    /// The gradient for the weight.
    pub fn conv_backward_weight<'c>(
        &self,
        op: &ConvBackwardWeight,
        k: &Kernel<'c>,
        e: &Emitter<'c>,
    ) -> Result<(), String> {
        check_layouts(k, &k.results[0], &[k.operands.first(), k.operands.get(1)])?;
        match k.schedule.unwrap_or(Schedule::General) {
            Schedule::General => conv::general::backward_weight(op, k, e),
            Schedule::Depthwise(s) => conv::depthwise_weight::backward_weight(s, own_workspace(k)?, op, k, e),
            Schedule::Direct(s) => conv::direct_weight::backward_weight(&direct(s, k)?, op, k, e),
            Schedule::Pointwise(s) => conv::direct_weight::backward_weight(&pointwise(s, k)?, op, k, e),
            Schedule::Winograd(s) | Schedule::Polyphase(s) => {
                winograd::weight_gradient::backward_weight(&tiled(s, k)?, op, k, e);
                Ok(())
            }
            other => Err(unknown(other)),
        }
    }

    /// The copy of weights that Winograd's algorithms read.
    pub fn transform_filter<'c>(&self, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
        let (w, to) = (&k.operands[0], &k.results[0]);
        match (w.ty.layout, to.ty.layout) {
            (Layout::Filter(lanes), Layout::Winograd(block)) if block.is_multiple_of(lanes) => {
                winograd::weights::prepare([w, to], winograd::single(), [lanes, block], e);
                Ok(())
            }
            (Layout::Filter(lanes), Layout::Polyphase(block)) if block.is_multiple_of(lanes) => {
                winograd::weights::prepare([w, to], winograd::phases(), [lanes, block], e);
                Ok(())
            }
            (from, to) => Err(format!("weights in {from} are not transformed to {to}")),
        }
    }

    /// The product of two matrices.
    pub fn matmul<'c>(&self, op: &MatMul, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
        match k.schedule.unwrap_or(Schedule::General) {
            Schedule::General => product::general::lower(op, k, e),
            Schedule::Product(s) => product::blocked::lower(s, own_workspace(k), op, k, e)?,
            other => return Err(unknown(other)),
        }
        Ok(())
    }
}

/// Whether a convolution's tensors lie as its schedule reads and writes them. `images` begins with what the direct forms
/// copy, which may be plain.
fn check_layouts(k: &Kernel, weights: &Tensor, images: &[Option<&Tensor>]) -> Result<(), String> {
    let Some(schedule) = k.schedule.filter(|s| *s != Schedule::General) else {
        return Ok(());
    };
    let wanted = match (schedule.transformed_filter(), schedule.lanes()) {
        (Some(transformed), _) => transformed,
        (None, Some(lanes)) if schedule.blocks_filters() => Layout::Filter(lanes),
        _ => Layout::Plain,
    };
    let copied = matches!(schedule, Schedule::Direct(_) | Schedule::Depthwise(_));
    let images = images.iter().skip(usize::from(copied)).flatten();
    match weights.ty.layout == wanted && images.into_iter().all(|t| t.ty.layout == Layout::Nhwc) {
        true => Ok(()),
        false => Err(format!(
            "schedule {} reads weights in {wanted} and images in {}; let assign-layouts run",
            schedule.name(),
            Layout::Nhwc
        )),
    }
}

fn direct<'c>(s: Direct, k: &Kernel<'c>) -> Result<conv::Blocking<'c>, String> {
    Ok(conv::Blocking {
        lanes: s.lanes,
        pixels: s.pixels as i64,
        vectors: s.vectors as i64,
        rows: s.rows as i64,
        workspace: workspace(k)?,
        own: own_workspace(k)?,
    })
}

fn pointwise<'c>(s: Pointwise, k: &Kernel<'c>) -> Result<conv::Blocking<'c>, String> {
    direct(s.0, k)
}

fn tiled<'c>(s: Winograd, k: &Kernel<'c>) -> Result<winograd::Blocking<'c>, String> {
    Ok(winograd::Blocking {
        lanes: s.lanes,
        pixels: s.pixels as i64,
        vectors: s.vectors as i64,
        tiles: s.tiles as i64,
        chunked: s.chunked,
        prepared: s.prepared,
        workspace: workspace(k)?,
        own: own_workspace(k)?,
    })
}

fn workspace<'c>(k: &Kernel<'c>) -> Result<Val<'c>, String> {
    k.workspace.ok_or_else(|| NO_WORKSPACE.to_string())
}

/// The workspace of this thread alone.
fn own_workspace<'c>(k: &Kernel<'c>) -> Result<Val<'c>, String> {
    k.own_workspace.ok_or_else(|| NO_WORKSPACE.to_string())
}

fn unknown(schedule: Schedule) -> String {
    format!("schedule {} does not fit the operator", schedule.name())
}
