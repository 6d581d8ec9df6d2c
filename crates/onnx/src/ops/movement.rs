//! Concat, Expand and Transpose.

use syncbn_ir::ops::{Concat, Expand, Transpose, broadcast};
use syncbn_ir::{Dim, Shape};

use crate::attributes::{OnnxNode, axis};
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::initializers::as_integers;
use crate::integers::{Integers, MAX_ELEMENTS};

type Imported = Result<Vec<Binding>, ImportError>;

/// `Concat`; of integers when all operands are known.
pub(super) fn concat(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let count = node.inputs();
    if count == 0 {
        return Err(ImportError::user("expected at least 1 input, found 0"));
    }
    let along = node
        .int("axis")?
        .ok_or_else(|| ImportError::user("attribute axis is missing"))?;
    let bindings = (0..count)
        .map(|i| cx.binding(node, i))
        .collect::<Result<Vec<_>, _>>()?;
    let integers: Option<Vec<_>> = bindings.iter().map(as_integers).collect();
    if let Some(integers) = integers {
        if integers.iter().any(|i| i.dims.len() != 1) {
            return Err(ImportError::unsupported(
                "integer tensors of other ranks than 1 are not joined",
            ));
        }
        axis("axis", along, 1)?;
        let length: usize = integers.iter().map(|i| i.values.len()).sum();
        if length > MAX_ELEMENTS {
            return Err(ImportError::unsupported(format!(
                "a list of {length} integers is too large"
            )));
        }
        let joined = integers.iter().flat_map(|i| i.values.clone()).collect();
        return Ok(vec![Integers::vector(joined).into()]);
    }
    let operands = (0..count)
        .map(|i| cx.value(node, i))
        .collect::<Result<Vec<_>, _>>()?;
    let ty = cx.ty(operands[0]);
    let along = axis("axis", along, ty.shape.rank())?;
    if ty.shape.0[along] == Dim::Batch {
        return Err(ImportError::unsupported("joins samples along the batch axis"));
    }
    if operands.iter().any(|&v| cx.ty(v).shape.rank() != ty.shape.rank()) {
        return Err(ImportError::user("its inputs differ in rank"));
    }
    Ok(vec![cx.add(node, Concat { axis: along }, &operands)?.into()])
}

/// `Expand`; of integers when the operand is known.
pub(super) fn expand(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(2, 2)?;
    let sizes = cx.integers(node, 1)?;
    let target = sizes.shape().ok_or_else(|| {
        ImportError::unsupported("its shape has negative sizes, or the batch elsewhere than in front")
    })?;
    if let Some(integers) = as_integers(&cx.binding(node, 0)?) {
        let from = Shape::fixed(&integers.dims);
        let dims = broadcast(&from, &target).and_then(|shape| cx.dims_of(&shape));
        let result = dims.and_then(|dims| integers.broadcast(&dims));
        let error =
            || ImportError::unsupported(format!("integers of shape {from} do not expand to {target}"));
        return Ok(vec![result.ok_or_else(error)?.into()]);
    }
    let x = cx.value(node, 0)?;
    let from = cx.ty(x).shape;
    let target = with_batch(cx, &from, target);
    let shape = broadcast(&from, &target);
    let shape = shape.ok_or_else(|| ImportError::user(format!("{from} does not broadcast to {target}")))?;
    Ok(vec![cx.add(node, Expand { shape }, &[x])?.into()])
}

/// The target with the file's fixed batch in front replaced by the batch where the operand has it.
fn with_batch(cx: &Importer, from: &Shape, mut target: Shape) -> Shape {
    let first = target.0.first().copied();
    if from.has_batch() && from.rank() == target.rank() && first == cx.fixed_batch.map(Dim::Fixed) {
        target.0[0] = Dim::Batch;
    }
    target
}

/// `Transpose`; the batch must stay in front.
pub(super) fn transpose(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let binding = cx.binding(node, 0)?;
    let rank = cx.shape(&binding).map_or(0, |s| s.rank());
    let given = node.sizes("perm", None, 0)?;
    let permutation = given.unwrap_or_else(|| (0..rank).rev().collect());
    if let Some(integers) = as_integers(&binding) {
        if permutation.iter().copied().eq(0..rank) {
            return Ok(vec![binding]);
        }
        let matrix = integers.transposed().filter(|_| permutation == [1, 0]);
        let error = || ImportError::unsupported(format!("perm {permutation:?} of an integer tensor"));
        return Ok(vec![matrix.ok_or_else(error)?.into()]);
    }
    let x = cx.value(node, 0)?;
    let ty = cx.ty(x);
    if ty.shape.has_batch() && permutation.first().is_some_and(|&p| p != 0) {
        let text = format!("perm {permutation:?} moves the batch of {ty} from the front");
        return Err(ImportError::unsupported(text));
    }
    Ok(vec![cx.add(node, Transpose { permutation }, &[x])?.into()])
}
