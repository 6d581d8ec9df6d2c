//! Shape, Size and Gather of sizes.

use crate::attributes::{OnnxNode, axis};
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::initializers::as_integers;
use crate::integers::{Integers, Size, small};

type Imported = Result<Vec<Binding>, ImportError>;

/// `Shape`, with `start` and `end` from opset 15.
pub(super) fn shape(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let shape = cx
        .shape(&cx.binding(node, 0)?)
        .ok_or_else(|| ImportError::user("input 0 is missing"))?;
    let rank = shape.rank() as i64;
    let clamp = |v: i64| if v < 0 { v.saturating_add(rank) } else { v }.clamp(0, rank) as usize;
    let start = clamp(node.int("start")?.unwrap_or(0));
    let end = clamp(node.int("end")?.unwrap_or(rank));
    let sizes = shape.0.get(start..end.max(start)).unwrap_or(&[]);
    Ok(vec![
        Integers::vector(sizes.iter().map(|&d| d.into()).collect()).into(),
    ])
}

pub(super) fn size(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let shape = cx
        .shape(&cx.binding(node, 0)?)
        .ok_or_else(|| ImportError::user("input 0 is missing"))?;
    let total = shape.0.iter().fold(Size::from(1), |p, &d| p.mul(d.into()));
    Ok(vec![Integers::scalar(total).into()])
}

/// `Gather` from a list of sizes.
pub(super) fn gather(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(2, 2)?;
    let Some(data) = as_integers(&cx.binding(node, 0)?).filter(|d| d.dims.len() == 1) else {
        return Err(ImportError::unsupported(format!(
            "Gather (opset {}) is supported on lists of sizes only",
            node.opset
        )));
    };
    axis("axis", node.int("axis")?.unwrap_or(0), 1)?;
    let indices = cx.integers(node, 1)?;
    let length = data.values.len();
    let pick = |index: i64| axis("index", index, length).map(|i| data.values[i]);
    let list = cx.integers_of(node, 1)?;
    if small(&indices.dims).is_none() {
        return Err(ImportError::unsupported("too many indices"));
    }
    let values = list.into_iter().map(pick).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![
        Integers {
            dims: indices.dims.clone(),
            values,
        }
        .into(),
    ])
}
