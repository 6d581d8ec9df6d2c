//! Attributes of sliding windows: strides, dilations, pads and auto_pad.

use syncbn_ir::TensorType;
use syncbn_ir::ops::Window;

use crate::attributes::OnnxNode;
use crate::error::ImportError;

/// The spatial sizes of `[n, c, spatial...]`.
pub(super) fn spatial(ty: &TensorType) -> Result<Vec<usize>, ImportError> {
    let dims = ty.shape.0.get(2..).unwrap_or(&[]);
    let sizes: Option<Vec<usize>> = dims.iter().map(|d| d.fixed()).collect();
    let sizes = sizes.filter(|s| !s.is_empty());
    let sizes = sizes.ok_or_else(|| {
        ImportError::user(format!(
            "a value of type {ty} has no spatial axes after batch and channels"
        ))
    })?;
    if sizes.len() > 3 {
        return Err(ImportError::unsupported(format!(
            "{} spatial axes; 1 to 3 are supported",
            sizes.len()
        )));
    }
    Ok(sizes)
}

/// The window of a node over an input of these spatial sizes.
pub(super) fn window(node: &OnnxNode, input: &[usize], kernel: Vec<usize>) -> Result<Window, ImportError> {
    let rank = input.len();
    let strides = node
        .sizes("strides", Some(rank), 1)?
        .unwrap_or_else(|| vec![1; rank]);
    let dilations = node
        .sizes("dilations", Some(rank), 1)?
        .unwrap_or_else(|| vec![1; rank]);
    let auto_pad = node.text("auto_pad")?.unwrap_or("NOTSET");
    let pads = match auto_pad {
        "NOTSET" | "" => node
            .sizes("pads", Some(2 * rank), 0)?
            .unwrap_or_else(|| vec![0; 2 * rank]),
        "VALID" => vec![0; 2 * rank],
        "SAME_UPPER" | "SAME_LOWER" => {
            let upper = auto_pad == "SAME_UPPER";
            let mut pads = vec![0; 2 * rank];
            for i in 0..rank {
                let total = same_padding(input[i], kernel[i], strides[i], dilations[i])?;
                let (small, large) = (total / 2, total - total / 2);
                (pads[i], pads[rank + i]) = if upper { (small, large) } else { (large, small) };
            }
            pads
        }
        other => {
            return Err(ImportError::user(format!(
                "attribute auto_pad is \"{other}\", which is unknown"
            )));
        }
    };
    Ok(Window {
        kernel,
        strides,
        pads,
        dilations,
    })
}

/// Padding of one axis that makes the output `ceil(input / stride)`.
fn same_padding(input: usize, kernel: usize, stride: usize, dilation: usize) -> Result<usize, ImportError> {
    let reach = || -> Option<usize> {
        let extent = kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
        let covered = (input.div_ceil(stride).checked_sub(1)?)
            .checked_mul(stride)?
            .checked_add(extent)?;
        Some(covered.saturating_sub(input))
    };
    reach().ok_or_else(|| ImportError::user("kernel, strides or dilations are too large: the size overflows"))
}
