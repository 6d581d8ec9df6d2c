//! Operators that keep the elements and change the shape.

use std::collections::BTreeSet;

use syncbn_ir::ops::Reshape;
use syncbn_ir::{Dim, Shape};

use crate::attributes::{OnnxNode, axis};
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::integers::{Integers, Size};

type Imported = Result<Vec<Binding>, ImportError>;

/// Gives the operand another shape.
fn finish(cx: &mut Importer, node: &OnnxNode, shape: Shape) -> Imported {
    if let Binding::Integers(integers) = cx.binding(node, 0)? {
        let dims = cx.dims_of(&shape);
        let same = |dims: &Vec<usize>| {
            dims.iter().try_fold(1usize, |p, &d| p.checked_mul(d)) == Some(integers.values.len())
        };
        let dims = dims.filter(same).ok_or_else(|| {
            ImportError::user(format!(
                "integers of shape {:?} cannot be reshaped to {shape}",
                integers.dims
            ))
        })?;
        return Ok(vec![
            Integers {
                dims,
                values: integers.values.clone(),
            }
            .into(),
        ]);
    }
    let x = cx.value(node, 0)?;
    Ok(vec![cx.add(node, Reshape { shape }, &[x])?.into()])
}

/// `Reshape`: 0 copies a size (without allowzero), one -1 is inferred. A fixed batch in front is generalised.
pub(super) fn reshape(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(2, 2)?;
    let allow_zero = node.flag("allowzero", false)?;
    let target = cx.integers(node, 1)?;
    let binding = cx.binding(node, 0)?;
    let from = cx
        .shape(&binding)
        .ok_or_else(|| ImportError::user("input 0 is missing"))?;
    let mut sizes = target.values.clone();
    if !allow_zero {
        for (i, size) in sizes
            .iter_mut()
            .enumerate()
            .filter(|(_, s)| s.constant() == Some(0))
        {
            let copied = from.0.get(i).copied().ok_or_else(|| {
                ImportError::user(format!(
                    "reshape copies size {i} of {from}, which has no such axis"
                ))
            })?;
            *size = copied.into();
        }
    }
    let minus: Vec<usize> = (0..sizes.len())
        .filter(|&i| sizes[i].constant() == Some(-1))
        .collect();
    if minus.len() > 1 {
        return Err(ImportError::user("the shape of a reshape has more than one -1"));
    }
    if sizes
        .iter()
        .enumerate()
        .any(|(i, s)| !minus.contains(&i) && s.constant().is_some_and(|c| c < 0))
    {
        return Err(ImportError::user(
            "the shape of a reshape has a negative size other than one -1",
        ));
    }
    let batch = Size::from(Dim::Batch);
    let fixed = cx.fixed_batch.map(|n| Size::from(n as i64));
    if from.has_batch() && fixed.is_some() && sizes.first().copied() == fixed && !sizes.contains(&batch) {
        sizes[0] = batch;
    }
    if let Some(&i) = minus.first() {
        sizes[i] = infer(&from, &sizes, i).ok_or_else(|| impossible(cx, &from, &target.values))?;
    }
    let shape = Integers::vector(sizes)
        .shape()
        .filter(|s| s.has_batch() == from.has_batch());
    let shape = shape.ok_or_else(|| impossible(cx, &from, &target.values))?;
    finish(cx, node, shape)
}

/// The size that -1 at `i` stands for.
fn infer(from: &Shape, sizes: &[Size], i: usize) -> Option<Size> {
    let total = from.0.iter().fold(Size::from(1), |p, &d| p.mul(d.into()));
    let others = sizes.iter().enumerate().filter(|(j, _)| *j != i);
    let rest = others.fold(Size::from(1), |p, (_, &s)| p.mul(s));
    let size = total.div(rest)?;
    (size.mul(rest) == total || rest == Size::from(Dim::Batch))
        .then_some(size)
        .filter(|s| *s != Size::Unknown)
}

fn impossible(cx: &Importer, from: &Shape, target: &[Size]) -> ImportError {
    let words: Vec<String> = target
        .iter()
        .map(|s| match (s.dim(), s.constant()) {
            (Some(dim), _) => dim.to_string(),
            (None, Some(n)) => n.to_string(),
            _ => "?".to_string(),
        })
        .collect();
    let text = format!(
        "a reshape of {from} to [{}] is not possible for every batch",
        words.join(", ")
    );
    let error = ImportError::unsupported(text);
    match cx.fixed_batch {
        Some(_) => error.note("the file has a fixed batch: export it with a dynamic one"),
        None => error.note("only the first dimension may hold the batch"),
    }
}

/// `Flatten` to a matrix.
pub(super) fn flatten(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let from = cx
        .shape(&cx.binding(node, 0)?)
        .ok_or_else(|| ImportError::user("input 0 is missing"))?;
    let given = node.int("axis")?.unwrap_or(1);
    let at = if given == from.rank() as i64 {
        from.rank()
    } else {
        axis("axis", given, from.rank())?
    };
    let product = |dims: &[Dim]| dims.iter().fold(Size::from(1), |p, &d| p.mul(d.into()));
    let sizes = Integers::vector(vec![product(&from.0[..at]), product(&from.0[at..])]);
    let shape = sizes.shape().filter(|s| s.has_batch() == from.has_batch());
    let shape = shape.ok_or_else(|| {
        ImportError::unsupported(format!(
            "flattens {from} at axis {at}: the batch must stay an axis of its own"
        ))
    })?;
    finish(cx, node, shape)
}

/// The axes of Squeeze and Unsqueeze: an attribute below opset 13, an operand from 13.
fn axes(cx: &Importer, node: &OnnxNode) -> Result<Option<Vec<i64>>, ImportError> {
    if node.opset < 13 {
        node.expect_inputs(1, 1)?;
        return Ok(node.ints("axes")?.map(<[i64]>::to_vec));
    }
    node.expect_inputs(1, 2)?;
    node.input(1).map(|_| cx.integers_of(node, 1)).transpose()
}

pub(super) fn squeeze(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let from = cx
        .shape(&cx.binding(node, 0)?)
        .ok_or_else(|| ImportError::user("input 0 is missing"))?;
    let dropped: BTreeSet<usize> = match axes(cx, node)? {
        None => (0..from.rank()).filter(|&i| from.0[i] == Dim::Fixed(1)).collect(),
        Some(list) => list
            .into_iter()
            .map(|a| axis("axis", a, from.rank()))
            .collect::<Result<_, _>>()?,
    };
    for &i in &dropped {
        match from.0[i] {
            Dim::Fixed(1) => {}
            Dim::Batch => {
                return Err(ImportError::unsupported(format!(
                    "squeezes the batch axis of {from}"
                )));
            }
            Dim::Fixed(n) => {
                return Err(ImportError::user(format!(
                    "squeezes axis {i} of {from}, whose size is {n}"
                )));
            }
        }
    }
    let kept = (0..from.rank())
        .filter(|i| !dropped.contains(i))
        .map(|i| from.0[i]);
    finish(cx, node, Shape(kept.collect()))
}

pub(super) fn unsqueeze(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let from = cx
        .shape(&cx.binding(node, 0)?)
        .ok_or_else(|| ImportError::user("input 0 is missing"))?;
    let list = axes(cx, node)?.ok_or_else(|| ImportError::user("axes are missing"))?;
    let rank = from.rank() + list.len();
    let added: BTreeSet<usize> = list
        .iter()
        .map(|&a| axis("axis", a, rank))
        .collect::<Result<_, _>>()?;
    if added.len() != list.len() {
        return Err(ImportError::user(format!("axes {list:?} repeat")));
    }
    if from.has_batch() && added.contains(&0) {
        return Err(ImportError::unsupported(format!(
            "puts an axis before the batch of {from}"
        )));
    }
    let mut rest = from.0.iter().copied();
    let dims = (0..rank).map(|i| {
        if added.contains(&i) {
            Some(Dim::Fixed(1))
        } else {
            rest.next()
        }
    });
    finish(cx, node, Shape(dims.flatten().collect()))
}
