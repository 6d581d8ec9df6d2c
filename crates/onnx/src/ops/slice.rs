//! Slice, Split and SplitToSequence.

use std::num::NonZeroUsize;
use std::rc::Rc;

use syncbn_ir::ops::{Reshape, Slice};
use syncbn_ir::{Dim, Value};

use crate::attributes::{OnnxNode, axis};
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::initializers::as_integers;
use crate::integers::{Integers, MAX_ELEMENTS};

type Imported = Result<Vec<Binding>, ImportError>;

/// One sliced axis.
struct Range {
    axis: i64,
    start: i64,
    end: i64,
    step: i64,
}

/// The ranges: attributes below opset 10, operands from 10.
fn ranges(cx: &Importer, node: &OnnxNode) -> Result<Vec<Range>, ImportError> {
    let missing = |name: &str| ImportError::user(format!("{name} are missing"));
    let (starts, ends, axes, steps) = if node.opset < 10 {
        node.expect_inputs(1, 1)?;
        let starts = node.ints("starts")?.ok_or_else(|| missing("starts"))?.to_vec();
        let ends = node.ints("ends")?.ok_or_else(|| missing("ends"))?.to_vec();
        (starts, ends, node.ints("axes")?.map(<[i64]>::to_vec), None)
    } else {
        node.expect_inputs(3, 5)?;
        let optional = |i: usize| node.input(i).map(|_| cx.integers_of(node, i)).transpose();
        (
            cx.integers_of(node, 1)?,
            cx.integers_of(node, 2)?,
            optional(3)?,
            optional(4)?,
        )
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()]
        .iter()
        .any(|&n| n != starts.len())
    {
        return Err(ImportError::user("starts, ends, axes and steps differ in length"));
    }
    let zipped = axes.into_iter().zip(starts).zip(ends).zip(steps);
    Ok(zipped
        .map(|(((axis, start), end), step)| Range {
            axis,
            start,
            end,
            step,
        })
        .collect())
}

/// `start..end` of an axis of this size, counted from the end when negative.
fn clamp(start: i64, end: i64, size: usize) -> (usize, usize) {
    let size = size as i64;
    let at = |v: i64| if v < 0 { v.saturating_add(size) } else { v }.clamp(0, size) as usize;
    (at(start), at(end))
}

/// `Slice` with positive steps, on axes other than the batch.
pub(super) fn slice(cx: &mut Importer, node: &OnnxNode) -> Imported {
    if let Some(data) = as_integers(&cx.binding(node, 0)?) {
        return slice_integers(cx, node, &data);
    }
    let mut x = cx.value(node, 0)?;
    for range in ranges(cx, node)? {
        let ty = cx.ty(x);
        let at = axis("axis", range.axis, ty.shape.rank())?;
        let step = usize::try_from(range.step).ok().and_then(NonZeroUsize::new);
        let step = step.ok_or_else(|| {
            ImportError::unsupported(format!(
                "Slice (opset {}) with a step of {}",
                node.opset, range.step
            ))
        })?;
        x = match ty.shape.0[at] {
            Dim::Fixed(size) => {
                let (begin, end) = clamp(range.start, range.end, size);
                if begin >= end {
                    return Err(ImportError::user(format!(
                        "its range of axis {at} of {ty} is empty"
                    )));
                }
                if (begin, end, range.step) == (0, size, 1) {
                    continue;
                }
                let slice = Slice {
                    axis: at,
                    begin,
                    end,
                    step,
                };
                cx.add(node, slice, &[x])?
            }
            Dim::Batch if range.start == 0 && range.end >= i64::from(i32::MAX) && range.step == 1 => continue,
            Dim::Batch => {
                return Err(ImportError::unsupported(format!(
                    "Slice (opset {}) of the batch axis",
                    node.opset
                )));
            }
        };
    }
    Ok(vec![x.into()])
}

/// The indices of a range with any step but 0, in order.
fn indices(range: &Range, size: usize) -> Result<Vec<usize>, ImportError> {
    if range.step > 0 {
        let (begin, end) = clamp(range.start, range.end, size);
        let step = usize::try_from(range.step).unwrap_or(usize::MAX);
        return Ok((begin..end.max(begin)).step_by(step).collect());
    }
    let step = usize::try_from(range.step.unsigned_abs()).unwrap_or(usize::MAX);
    if step == 0 {
        return Err(ImportError::user("the step of a slice is zero"));
    }
    // Backwards, from the start inclusive to the end exclusive, where -1 is before the first.
    let length = size as i64;
    let at = |v: i64| if v < 0 { v.saturating_add(length) } else { v }.clamp(-1, length - 1);
    let (first, last) = (at(range.start) + 1, at(range.end) + 1);
    Ok((last as usize..(first as usize).max(last as usize))
        .rev()
        .step_by(step)
        .collect())
}

fn slice_integers(cx: &Importer, node: &OnnxNode, data: &Integers) -> Imported {
    let mut result = data.clone();
    for range in ranges(cx, node)? {
        let at = axis("axis", range.axis, result.dims.len())?;
        let picked = result.select(at, &indices(&range, result.dims[at])?);
        result = picked.ok_or_else(|| ImportError::unsupported("a slice of too many integers"))?;
    }
    Ok(vec![result.into()])
}

/// Sizes of the parts of an axis of this size.
fn parts(cx: &Importer, node: &OnnxNode, size: usize) -> Result<Vec<usize>, ImportError> {
    let given = if node.opset < 13 {
        node.ints("split")?.map(<[i64]>::to_vec)
    } else {
        node.input(1).map(|_| cx.integers_of(node, 1)).transpose()?
    };
    let outputs = node.proto.output.len();
    let sizes = match given {
        Some(list) => {
            let sizes: Option<Vec<usize>> = list.iter().map(|&n| usize::try_from(n).ok()).collect();
            sizes.ok_or_else(|| ImportError::user(format!("split {list:?} has negative sizes")))?
        }
        None => {
            let count = match node.int("num_outputs")? {
                Some(n) => usize::try_from(n).unwrap_or(0),
                None => outputs,
            };
            if count == 0 || count != outputs {
                return Err(ImportError::user(format!(
                    "num_outputs is not its number of outputs, {outputs}"
                )));
            }
            let part = size.div_ceil(count);
            (0..count)
                .map(|i| part.min(size.saturating_sub(i * part)))
                .collect()
        }
    };
    let total = sizes.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    if sizes.len() != outputs || total != Some(size) || sizes.contains(&0) {
        return Err(ImportError::user(format!(
            "parts of sizes {sizes:?} for {outputs} outputs do not make up an axis of size {size}"
        )));
    }
    Ok(sizes)
}

/// `Split` as one slice for each output.
pub(super) fn split(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 2)?;
    let given = node.int("axis")?.unwrap_or(0);
    if let Some(data) = as_integers(&cx.binding(node, 0)?).filter(|d| d.dims.len() == 1) {
        axis("axis", given, 1)?;
        let mut rest = data.values.as_slice();
        let mut results = Vec::new();
        for size in parts(cx, node, rest.len())? {
            let (part, tail) = rest.split_at(size);
            results.push(Integers::vector(part.to_vec()).into());
            rest = tail;
        }
        return Ok(results);
    }
    let (x, at, size) = split_axis(cx, node, given)?;
    let sizes = parts(cx, node, size)?;
    slices(cx, node, x, at, &sizes)
}

/// The value to split, the axis and its size.
fn split_axis(cx: &mut Importer, node: &OnnxNode, given: i64) -> Result<(Value, usize, usize), ImportError> {
    let x = cx.value(node, 0)?;
    let ty = cx.ty(x);
    let at = axis("axis", given, ty.shape.rank())?;
    match ty.shape.0[at] {
        Dim::Fixed(size) => Ok((x, at, size)),
        Dim::Batch => Err(ImportError::unsupported(format!(
            "{} (opset {}) of the batch axis",
            node.proto.op_type(),
            node.opset
        ))),
    }
}

/// Neighbouring parts of an axis.
fn slices(cx: &mut Importer, node: &OnnxNode, x: Value, axis: usize, sizes: &[usize]) -> Imported {
    let mut begin = 0;
    let mut results = Vec::new();
    for part in sizes {
        let end = begin + part;
        let slice = Slice {
            axis,
            begin,
            end,
            step: NonZeroUsize::MIN,
        };
        results.push(cx.add(node, slice, &[x])?.into());
        begin = end;
    }
    Ok(results)
}

/// `SplitToSequence`: parts of given sizes, or of one size, the last one smaller; without either, of size 1.
pub(super) fn split_to_sequence(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 2)?;
    let keep = node.flag("keepdims", true)?;
    let (x, at, size) = split_axis(cx, node, node.int("axis")?.unwrap_or(0))?;
    let given = node.input(1).map(|_| cx.integers(node, 1)).transpose()?;
    let chunk = match given.as_ref().map(|g| g.dims.len()) {
        None => Some(1),
        Some(0) => cx.integers_of(node, 1)?.first().copied(),
        Some(_) => None,
    };
    let sizes = match chunk {
        Some(chunk) => {
            let chunk = usize::try_from(chunk).ok().filter(|&n| n > 0);
            let chunk = chunk.ok_or_else(|| ImportError::user("split is not positive"))?;
            if size.div_ceil(chunk) > MAX_ELEMENTS {
                return Err(ImportError::unsupported("a sequence of too many parts"));
            }
            (0..size).step_by(chunk).map(|i| chunk.min(size - i)).collect()
        }
        None => {
            let list = cx.integers_of(node, 1)?;
            let sizes: Option<Vec<usize>> = list.iter().map(|&n| usize::try_from(n).ok()).collect();
            let total = |s: &[usize]| s.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
            let sizes = sizes.filter(|s| total(s) == Some(size) && !s.contains(&0));
            sizes.ok_or_else(|| {
                ImportError::user(format!(
                    "parts of sizes {list:?} do not make up an axis of size {size}"
                ))
            })?
        }
    };
    let mut parts = slices(cx, node, x, at, &sizes)?;
    if given.is_none() && !keep {
        for part in &mut parts {
            if let Binding::Value(value) = *part {
                let mut shape = cx.ty(value).shape;
                shape.0.remove(at);
                *part = cx.add(node, Reshape { shape }, &[value])?.into();
            }
        }
    }
    Ok(vec![Binding::Sequence(Rc::new(parts))])
}

/// `SequenceAt` a position that is known.
pub(super) fn sequence_at(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(2, 2)?;
    let Binding::Sequence(parts) = cx.binding(node, 0)? else {
        return Err(ImportError::user("input 0 is no sequence"));
    };
    let &[position] = cx.integers_of(node, 1)?.as_slice() else {
        return Err(ImportError::user("the position is not one integer"));
    };
    Ok(vec![parts[axis("position", position, parts.len())?].clone()])
}
