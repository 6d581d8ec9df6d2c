//! Pad with zeros.

use std::num::NonZeroUsize;

use syncbn_ir::Dim;
use syncbn_ir::ops::{Pad, Slice};

use crate::attributes::{OnnxNode, axis};
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;

/// Padding before each axis, then after each axis; with `axes`, of these.
fn pads(cx: &Importer, node: &OnnxNode) -> Result<Vec<i64>, ImportError> {
    let name = if node.opset < 2 { "paddings" } else { "pads" };
    let pads = if node.opset < 11 {
        node.expect_inputs(1, 1)?;
        let list = node.ints(name)?;
        list.ok_or_else(|| ImportError::user(format!("attribute {name} is missing")))?
            .to_vec()
    } else {
        node.expect_inputs(2, 4)?;
        cx.integers_of(node, 1)?
    };
    Ok(pads)
}

/// Whether what is padded with is 0.
fn is_zero(cx: &Importer, node: &OnnxNode) -> Result<bool, ImportError> {
    if node.opset < 11 {
        return Ok(node.float("value")?.unwrap_or(0.0) == 0.0);
    }
    if node.input(2).is_none() {
        return Ok(true);
    }
    Ok(cx.constant(node, 2)?.as_deref() == Some(&[0.0]))
}

/// `Pad` with zeros, on axes other than the batch; negative padding cuts off.
pub(super) fn pad(cx: &mut Importer, node: &OnnxNode) -> Result<Vec<Binding>, ImportError> {
    let unsupported = |text: &str| ImportError::unsupported(format!("Pad (opset {}) {text}", node.opset));
    let mode = node.text("mode")?.unwrap_or("constant");
    if mode != "constant" {
        return Err(unsupported(&format!("with mode {mode}")));
    }
    let pads = pads(cx, node)?;
    if pads.iter().any(|&p| p > 0) && !is_zero(cx, node)? {
        return Err(unsupported("with another value than 0"));
    }
    let mut x = cx.value(node, 0)?;
    let rank = cx.ty(x).shape.rank();
    let axes = match node.input(3) {
        Some(_) => cx.integers_of(node, 3)?,
        None => (0..rank as i64).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(ImportError::user(format!(
            "{} pads for {} axes",
            pads.len(),
            axes.len()
        )));
    }
    for (i, &given) in axes.iter().enumerate() {
        let at = axis("axis", given, rank)?;
        let (before, after) = (pads[i], pads[axes.len() + i]);
        let step = NonZeroUsize::MIN;
        if (before, after) == (0, 0) {
            continue;
        }
        let Dim::Fixed(size) = cx.ty(x).shape.0[at] else {
            return Err(unsupported("of the batch axis"));
        };
        if before < 0 || after < 0 {
            let cut = |pad: i64| usize::try_from(pad.min(0).unsigned_abs()).unwrap_or(usize::MAX);
            let (begin, end) = (cut(before), size.saturating_sub(cut(after)));
            let slice = Slice {
                axis: at,
                begin,
                end,
                step,
            };
            x = cx.add(node, slice, &[x])?;
        }
        if before > 0 || after > 0 {
            let grow = |pad: i64| usize::try_from(pad.max(0)).unwrap_or(usize::MAX);
            let pad = Pad {
                axis: at,
                before: grow(before),
                after: grow(after),
                step,
            };
            x = cx.add(node, pad, &[x])?;
        }
    }
    Ok(vec![x.into()])
}
