//! Arithmetic on integer tensors that are known during import.

use std::rc::Rc;

use syncbn_ir::ops::BinaryFunction;

use crate::attributes::{OnnxNode, axis};
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::initializers::as_integers;
use crate::integers::{Integers, MAX_ELEMENTS, Size, broadcast_dims};

type Imported = Result<Vec<Binding>, ImportError>;
type Pair = (Rc<Integers>, Rc<Integers>);

fn both(cx: &Importer, node: &OnnxNode) -> Result<Option<Pair>, ImportError> {
    let (a, b) = (
        as_integers(&cx.binding(node, 0)?),
        as_integers(&cx.binding(node, 1)?),
    );
    Ok(a.zip(b))
}

fn required(cx: &Importer, node: &OnnxNode, i: usize) -> Result<Rc<Integers>, ImportError> {
    as_integers(&cx.binding(node, i)?).ok_or_else(|| {
        ImportError::unsupported(format!(
            "operator {} (opset {}) is supported on integer shape arithmetic only",
            node.proto.op_type(),
            node.opset
        ))
    })
}

fn zip(
    a: &Integers,
    b: &Integers,
    function: impl Fn(Size, Size) -> Option<Size>,
) -> Result<Integers, ImportError> {
    let mismatch = || {
        ImportError::user(format!(
            "integer operands of shapes {:?} and {:?} do not broadcast",
            a.dims, b.dims
        ))
    };
    let dims = broadcast_dims(&a.dims, &b.dims).ok_or_else(mismatch)?;
    let (a, b) = (
        a.broadcast(&dims).ok_or_else(mismatch)?,
        b.broadcast(&dims).ok_or_else(mismatch)?,
    );
    let values = a.values.iter().zip(&b.values).map(|(&x, &y)| function(x, y));
    let values = values.collect::<Option<Vec<Size>>>();
    let values = values.ok_or_else(|| ImportError::user("an integer is divided by zero"))?;
    Ok(Integers { dims, values })
}

/// The result when both operands are known integers.
pub(super) fn arithmetic(
    cx: &Importer,
    node: &OnnxNode,
    function: BinaryFunction,
) -> Result<Option<Integers>, ImportError> {
    let Some((a, b)) = both(cx, node)? else {
        return Ok(None);
    };
    let result = zip(&a, &b, |x, y| match function {
        BinaryFunction::Add => Some(x.add(y)),
        BinaryFunction::Sub => Some(x.sub(y)),
        BinaryFunction::Mul => Some(x.mul(y)),
        BinaryFunction::Div => x.div(y),
    })?;
    Ok(Some(result))
}

pub(super) fn equal(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(2, 2)?;
    let (a, b) = (required(cx, node, 0)?, required(cx, node, 1)?);
    Ok(vec![zip(&a, &b, |x, y| Some(x.equal(y)))?.into()])
}

pub(super) fn min(cx: &mut Importer, node: &OnnxNode) -> Imported {
    fold(cx, node, Size::min)
}

pub(super) fn max(cx: &mut Importer, node: &OnnxNode) -> Imported {
    fold(cx, node, Size::max)
}

fn fold(cx: &Importer, node: &OnnxNode, function: fn(Size, Size) -> Size) -> Imported {
    let mut result = (*required(cx, node, 0)?).clone();
    for i in 1..node.inputs() {
        result = zip(&result, &*required(cx, node, i)?, |x, y| Some(function(x, y)))?;
    }
    Ok(vec![result.into()])
}

pub(super) fn where_(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(3, 3)?;
    let (condition, x, y) = (
        required(cx, node, 0)?,
        required(cx, node, 1)?,
        required(cx, node, 2)?,
    );
    let either = zip(&x, &y, |x, _| Some(x))?;
    let x = zip(&either, &condition, |x, _| Some(x))?;
    let y = zip(&y, &x, |y, _| Some(y))?;
    let condition = zip(&condition, &x, |c, _| Some(c))?;
    let pick = |((c, x), y): ((&Size, &Size), &Size)| match c.constant() {
        Some(0) => *y,
        Some(_) => *x,
        None if x == y => *x,
        None => Size::Unknown,
    };
    let values = condition
        .values
        .iter()
        .zip(&x.values)
        .zip(&y.values)
        .map(pick)
        .collect();
    Ok(vec![Integers { dims: x.dims, values }.into()])
}

pub(super) fn range(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(3, 3)?;
    let mut bounds = [0i64; 3];
    for (i, bound) in bounds.iter_mut().enumerate() {
        *bound = match required(cx, node, i)?.constants().as_deref() {
            Some(&[value]) => value,
            _ => {
                return Err(ImportError::unsupported(
                    "a range whose bounds depend on the batch",
                ));
            }
        };
    }
    let [start, limit, delta] = bounds.map(i128::from);
    if delta == 0 {
        return Err(ImportError::user("the step of a range is zero"));
    }
    let span = limit - start;
    let count = if (span > 0) == (delta > 0) {
        span.unsigned_abs().div_ceil(delta.unsigned_abs())
    } else {
        0
    };
    if count > MAX_ELEMENTS as u128 {
        return Err(ImportError::unsupported(format!(
            "a range of {count} numbers is too large"
        )));
    }
    let values = (0..count as i128)
        .map(|i| Size::from((start + i * delta) as i64))
        .collect();
    Ok(vec![Integers::vector(values).into()])
}

pub(super) fn reduce_prod(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let x = required(cx, node, 0)?;
    let axes = if node.opset < 18 {
        node.ints("axes")?.map(<[i64]>::to_vec)
    } else if node.input(1).is_some() {
        Some(cx.integers_of(node, 1)?)
    } else {
        None
    };
    let whole = match axes.as_deref() {
        None | Some([]) => true,
        Some(&[a]) => x.dims.len() == 1 && axis("axis", a, 1)? == 0,
        Some(_) => false,
    };
    if !whole {
        return Err(ImportError::unsupported(
            "a product over some axes of an integer tensor",
        ));
    }
    let value = x.values.iter().fold(Size::from(1), |p, &v| p.mul(v));
    let dims = if node.flag("keepdims", true)? {
        vec![1; x.dims.len()]
    } else {
        Vec::new()
    };
    Ok(vec![
        Integers {
            dims,
            values: vec![value],
        }
        .into(),
    ])
}
