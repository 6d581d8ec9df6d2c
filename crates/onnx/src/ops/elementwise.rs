//! Operators that compute each element from the elements at its own index.

use syncbn_ir::ops::{Binary, BinaryFunction, Expand, Unary, UnaryFunction, literal};
use syncbn_ir::{Dim, Literal, Op, Shape, Value};

use super::integer;
use crate::attributes::OnnxNode;
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;

type Imported = Result<Vec<Binding>, ImportError>;

pub(super) fn add(cx: &mut Importer, node: &OnnxNode) -> Imported {
    binary(cx, node, BinaryFunction::Add)
}

pub(super) fn sub(cx: &mut Importer, node: &OnnxNode) -> Imported {
    binary(cx, node, BinaryFunction::Sub)
}

pub(super) fn mul(cx: &mut Importer, node: &OnnxNode) -> Imported {
    binary(cx, node, BinaryFunction::Mul)
}

pub(super) fn div(cx: &mut Importer, node: &OnnxNode) -> Imported {
    binary(cx, node, BinaryFunction::Div)
}

pub(super) fn relu(cx: &mut Importer, node: &OnnxNode) -> Imported {
    unary(cx, node, UnaryFunction::Relu)
}

pub(super) fn sigmoid(cx: &mut Importer, node: &OnnxNode) -> Imported {
    unary(cx, node, UnaryFunction::Sigmoid)
}

pub(super) fn tanh(cx: &mut Importer, node: &OnnxNode) -> Imported {
    unary(cx, node, UnaryFunction::Tanh)
}

pub(super) fn erf(cx: &mut Importer, node: &OnnxNode) -> Imported {
    unary(cx, node, UnaryFunction::Erf)
}

pub(super) fn gelu(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let function = match node.text("approximate")?.unwrap_or("none") {
        "none" => UnaryFunction::Gelu,
        "tanh" => UnaryFunction::GeluTanh,
        other => {
            let text = format!("attribute approximate is \"{other}\": must be none or tanh");
            return Err(ImportError::user(text));
        }
    };
    unary(cx, node, function)
}

pub(super) fn hard_swish(cx: &mut Importer, node: &OnnxNode) -> Imported {
    unary(cx, node, UnaryFunction::HardSwish)
}

pub(super) fn hard_sigmoid(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let (alpha, beta) = (slope(node, "alpha", 0.2)?, slope(node, "beta", 0.5)?);
    unary(cx, node, UnaryFunction::HardSigmoid { alpha, beta })
}

pub(super) fn leaky_relu(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let alpha = slope(node, "alpha", 0.01)?;
    unary(cx, node, UnaryFunction::LeakyRelu { alpha })
}

/// A finite float attribute.
fn slope(node: &OnnxNode, name: &str, default: f32) -> Result<f64, ImportError> {
    let value = node.float(name)?.unwrap_or(default);
    if !value.is_finite() {
        return Err(ImportError::user(format!("attribute {name} is {value}")));
    }
    Ok(f64::from(value))
}

pub(super) fn neg(cx: &mut Importer, node: &OnnxNode) -> Imported {
    unary(cx, node, UnaryFunction::Neg)
}

pub(super) fn sqrt(cx: &mut Importer, node: &OnnxNode) -> Imported {
    unary(cx, node, UnaryFunction::Sqrt)
}

pub(super) fn reciprocal(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let x = cx.value(node, 0)?;
    Ok(vec![inverse(cx, node, x)?.into()])
}

/// `1 / x`
fn inverse(cx: &mut Importer, node: &OnnxNode, x: Value) -> Result<Value, ImportError> {
    let dtype = cx.ty(x).dtype;
    let one = cx.add(node, literal(Literal::scalar(dtype, 1.0)), &[])?;
    let function = BinaryFunction::Div;
    cx.add(node, Binary { function }, &[one, x])
}

/// Powers that other operators compute: a constant exponent of 1, 2, 3, 1/2, -1/2 or -1.
pub(super) fn pow(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(2, 2)?;
    let exponent = exponent(cx, node)?;
    let x = cx.value(node, 0)?;
    let function = BinaryFunction::Mul;
    let y = match exponent {
        Some(1.0) => x,
        Some(2.0) => cx.add(node, Binary { function }, &[x, x])?,
        Some(3.0) => {
            let square = cx.add(node, Binary { function }, &[x, x])?;
            cx.add(node, Binary { function }, &[square, x])?
        }
        Some(-1.0) => inverse(cx, node, x)?,
        Some(0.5) => cx.add(
            node,
            Unary {
                function: UnaryFunction::Sqrt,
            },
            &[x],
        )?,
        Some(-0.5) => cx.add(
            node,
            Unary {
                function: UnaryFunction::Rsqrt,
            },
            &[x],
        )?,
        _ => {
            let text = "exponents other than the constants 1, 2, 3, 0.5, -0.5 and -1 are not supported";
            return Err(ImportError::unsupported(text));
        }
    };
    Ok(vec![y.into()])
}

/// The one number that a Pow's exponents are.
fn exponent(cx: &mut Importer, node: &OnnxNode) -> Result<Option<f64>, ImportError> {
    let binding = cx.binding(node, 1)?;
    match &binding {
        Binding::Weight(weight) => Ok(cx.weight_literal(weight)?.and_then(|l| l.splat())),
        Binding::Integers(integers) => match integers.values.as_slice() {
            [one] => Ok(one.constant().map(|n| n as f64)),
            _ => Ok(None),
        },
        _ => {
            let value = cx.value(node, 1)?;
            let array = cx.fold(value);
            Ok(array.filter(|a| a.data.len() == 1).map(|a| a.data[0]))
        }
    }
}

fn unary(cx: &mut Importer, node: &OnnxNode, function: UnaryFunction) -> Imported {
    node.expect_inputs(1, 1)?;
    let x = cx.value(node, 0)?;
    Ok(vec![cx.add(node, Unary { function }, &[x])?.into()])
}

fn binary(cx: &mut Importer, node: &OnnxNode, function: BinaryFunction) -> Imported {
    node.expect_inputs(2, 2)?;
    if let Some(integers) = integer::arithmetic(cx, node, function)? {
        return Ok(vec![integers.into()]);
    }
    let (a, b) = (cx.value(node, 0)?, cx.value(node, 1)?);
    let (a, b) = (generalise(cx, node, a, b)?, generalise(cx, node, b, a)?);
    Ok(vec![cx.add(node, Binary { function }, &[a, b])?.into()])
}

/// A value that was expanded to the file's fixed batch, expanded to the batch instead where the other operand
/// has it.
fn generalise(cx: &mut Importer, node: &OnnxNode, value: Value, other: Value) -> Result<Value, ImportError> {
    let (ty, other) = (cx.ty(value), cx.ty(other));
    let fixed = cx.fixed_batch.filter(|&n| n > 1).map(Dim::Fixed);
    if !other.shape.has_batch()
        || ty.shape.rank() != other.shape.rank()
        || ty.shape.0.first().copied() != fixed
    {
        return Ok(value);
    }
    if let Op::Expand(_) = cx.graph.op(value.node) {
        let source = cx.graph.operand(value.node, 0);
        let source = source.filter(|s| {
            let shape = &cx.graph.ty(*s).shape;
            shape.rank() < ty.shape.rank() || shape.0.first() == Some(&Dim::Fixed(1))
        });
        if let Some(source) = source {
            let mut shape: Shape = ty.shape.clone();
            shape.0[0] = Dim::Batch;
            return cx.add(node, Expand { shape }, &[source]);
        }
    }
    Err(ImportError::unsupported(format!(
        "an operand of type {ty} has the file's fixed batch and cannot be generalised to any batch"
    ))
    .note("export with a dynamic batch"))
}

/// `Clip`: attributes below opset 11, operands from 11. A missing bound is infinite.
pub(super) fn clip(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let (low, high) = if node.opset < 11 {
        node.expect_inputs(1, 1)?;
        (
            node.float("min")?.map(f64::from),
            node.float("max")?.map(f64::from),
        )
    } else {
        node.expect_inputs(1, 3)?;
        (bound(cx, node, 1)?, bound(cx, node, 2)?)
    };
    let max = high.unwrap_or(f64::INFINITY);
    // ONNX lets the upper bound win when the bounds cross.
    let min = low.unwrap_or(f64::NEG_INFINITY).min(max);
    if min.is_nan() || max.is_nan() {
        return Err(ImportError::user("a bound is not a number"));
    }
    unary_with(cx, node, UnaryFunction::Clip { min, max })
}

fn unary_with(cx: &mut Importer, node: &OnnxNode, function: UnaryFunction) -> Imported {
    let x = cx.value(node, 0)?;
    Ok(vec![cx.add(node, Unary { function }, &[x])?.into()])
}

fn bound(cx: &mut Importer, node: &OnnxNode, i: usize) -> Result<Option<f64>, ImportError> {
    if node.input(i).is_none() {
        return Ok(None);
    }
    match cx.constant(node, i)?.as_deref() {
        Some(&[value]) => Ok(Some(value)),
        Some(values) => Err(ImportError::user(format!(
            "a bound has {} values, expected 1",
            values.len()
        ))),
        None => Err(ImportError::unsupported(
            "a bound that is computed is not supported",
        )),
    }
}
