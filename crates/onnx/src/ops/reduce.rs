//! ReduceMean and ReduceSum.

use std::collections::BTreeSet;

use syncbn_ir::Dim;
use syncbn_ir::ops::{Reduce, ReduceFunction};

use crate::attributes::{OnnxNode, axis};
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;

type Imported = Result<Vec<Binding>, ImportError>;

pub(super) fn reduce_mean(cx: &mut Importer, node: &OnnxNode) -> Imported {
    reduce(cx, node, ReduceFunction::Mean, 18)
}

pub(super) fn reduce_sum(cx: &mut Importer, node: &OnnxNode) -> Imported {
    reduce(cx, node, ReduceFunction::Sum, 13)
}

/// `operand_since`: the opset from which the axes are an operand.
fn reduce(cx: &mut Importer, node: &OnnxNode, function: ReduceFunction, operand_since: i64) -> Imported {
    let given = if node.opset < operand_since {
        node.expect_inputs(1, 1)?;
        node.ints("axes")?.map(<[i64]>::to_vec)
    } else {
        node.expect_inputs(1, 2)?;
        node.input(1).map(|_| cx.integers_of(node, 1)).transpose()?
    };
    let x = cx.value(node, 0)?;
    let ty = cx.ty(x);
    let rank = ty.shape.rank();
    let given = given.unwrap_or_default();
    if given.is_empty() && node.flag("noop_with_empty_axes", false)? {
        return Ok(vec![x.into()]);
    }
    let axes: BTreeSet<usize> = if given.is_empty() {
        (0..rank).collect()
    } else {
        given
            .into_iter()
            .map(|a| axis("axis", a, rank))
            .collect::<Result<_, _>>()?
    };
    if axes.iter().any(|&a| ty.shape.0[a] == Dim::Batch) {
        return Err(ImportError::unsupported(format!(
            "{} (opset {}) over the batch axis of {ty}: its value would depend on how samples are split",
            node.proto.op_type(),
            node.opset
        )));
    }
    let op = Reduce {
        function,
        axes: axes.into_iter().collect(),
        keep_dims: node.flag("keepdims", true)?,
    };
    Ok(vec![cx.add(node, op, &[x])?.into()])
}
