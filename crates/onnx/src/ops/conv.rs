//! Conv.

use syncbn_ir::ops::Conv;

use super::window;
use crate::attributes::OnnxNode;
use crate::binding::Binding;
use crate::classify::is_generated;
use crate::error::ImportError;
use crate::importer::Importer;

/// `Conv` over 1 to 3 spatial axes.
pub(super) fn conv(cx: &mut Importer, node: &OnnxNode) -> Result<Vec<Binding>, ImportError> {
    node.expect_inputs(2, 3)?;
    let (x, w) = (cx.value(node, 0)?, cx.value(node, 1)?);
    let (input, weight) = (cx.ty(x), cx.ty(w));
    let sizes = window::spatial(&input)?;
    let kernel = window::spatial(&weight)?;
    if kernel.len() != sizes.len() {
        return Err(ImportError::user(format!(
            "its input {input} and weight {weight} differ in rank"
        )));
    }
    if kernel.contains(&0) {
        return Err(ImportError::user(format!("its kernel {kernel:?} is empty")));
    }
    let declared = node.sizes("kernel_shape", Some(kernel.len()), 1)?;
    if declared.is_some_and(|d| d != kernel) {
        return Err(ImportError::user(format!(
            "attribute kernel_shape differs from the kernel {kernel:?} of its weight"
        )));
    }
    let group = node.int("group")?.unwrap_or(1);
    let groups = usize::try_from(group).ok().filter(|&g| g > 0);
    let groups =
        groups.ok_or_else(|| ImportError::user(format!("attribute group is {group}: must be positive")))?;
    let window = window::window(node, &sizes, kernel)?;
    let op = Conv {
        strides: window.strides,
        pads: window.pads,
        dilations: window.dilations,
        groups,
        moments: false,
        activation: None,
    };
    let mut operands = vec![x, w];
    let filters = weight.shape.0.first().and_then(|d| d.fixed()).unwrap_or(0);
    if !is_zero_noise(cx, node, filters)? {
        operands.extend(cx.optional_value(node, 2)?);
    }
    Ok(vec![cx.add(node, op, &operands)?.into()])
}

/// Whether the bias is none of the network's: exporters give convolutions without one a zero bias, as a folded
/// constant named `val_N`, or computed in a shape that does not fit.
fn is_zero_noise(cx: &Importer, node: &OnnxNode, filters: usize) -> Result<bool, ImportError> {
    let Some(name) = node.input(2) else {
        return Ok(false);
    };
    let binding = cx.binding(node, 2)?;
    let generated = is_generated(name);
    let misfits = cx.dims(&binding).is_some_and(|dims| dims != [filters]);
    match &binding {
        Binding::Weight(_) if !generated => Ok(false),
        Binding::Weight(weight) => {
            let zeros = cx.weight_literal(weight)?.is_none_or(|l| l.splat() == Some(0.0));
            Ok(zeros)
        }
        Binding::Value(value) if misfits => {
            Ok(cx.fold(*value).is_some_and(|a| a.data.iter().all(|&v| v == 0.0)))
        }
        _ => Ok(false),
    }
}
