//! Pooling.

use syncbn_ir::ops::{AveragePool, MaxPool, Reduce, ReduceFunction};

use super::window;
use crate::attributes::OnnxNode;
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;

type Imported = Result<Vec<Binding>, ImportError>;

fn kernel(node: &OnnxNode, rank: usize) -> Result<Vec<usize>, ImportError> {
    let kernel = node.sizes("kernel_shape", Some(rank), 1)?;
    kernel.ok_or_else(|| ImportError::user("attribute kernel_shape is missing"))
}

pub(super) fn average_pool(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let x = cx.value(node, 0)?;
    let sizes = window::spatial(&cx.ty(x))?;
    let window = window::window(node, &sizes, kernel(node, sizes.len())?)?;
    let op = AveragePool {
        kernel: window.kernel,
        strides: window.strides,
        pads: window.pads,
        dilations: window.dilations,
        ceil_mode: node.flag("ceil_mode", false)?,
        count_include_pad: node.flag("count_include_pad", false)?,
    };
    Ok(vec![cx.add(node, op, &[x])?.into()])
}

/// `MaxPool`; its indices are refused where they are used.
pub(super) fn max_pool(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let x = cx.value(node, 0)?;
    let sizes = window::spatial(&cx.ty(x))?;
    let window = window::window(node, &sizes, kernel(node, sizes.len())?)?;
    // The storage order is that of the indices only.
    node.flag("storage_order", false)?;
    let op = MaxPool {
        kernel: window.kernel,
        strides: window.strides,
        pads: window.pads,
        dilations: window.dilations,
        ceil_mode: node.flag("ceil_mode", false)?,
    };
    Ok(vec![cx.add(node, op, &[x])?.into()])
}

pub(super) fn global_average_pool(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let x = cx.value(node, 0)?;
    let rank = cx.ty(x).shape.rank();
    if rank < 3 {
        return Err(ImportError::user(format!(
            "its input {} has no spatial axes",
            cx.ty(x)
        )));
    }
    let op = Reduce {
        function: ReduceFunction::Mean,
        axes: (2..rank).collect(),
        keep_dims: true,
    };
    Ok(vec![cx.add(node, op, &[x])?.into()])
}
