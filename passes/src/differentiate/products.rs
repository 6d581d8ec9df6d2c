//! Gradients of convolution and matrix product.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul, Reduce, ReduceFunction};
use syncbn_ir::{Op, Value};

use super::accumulate::Backward;
use super::rules::{no_derivative, spatial};
use crate::error::PassError;

/// `y = conv(x, w) + bias`: each gradient is taken only where it is needed.
pub fn convolution(
    backward: &mut Backward,
    conv: &Conv,
    name: &str,
    operands: &[Value],
    dy: Value,
) -> Result<(), PassError> {
    if conv.moments || conv.activation.is_some() {
        return Err(no_derivative(name, &Op::Conv(conv.clone()), "with an epilogue"));
    }
    let (x, w) = (operands[0], operands[1]);
    let (x_ty, w_ty) = (backward.graph.ty(x).clone(), backward.graph.ty(w).clone());
    if backward.needs(x) {
        let op = ConvBackwardData {
            strides: conv.strides.clone(),
            pads: conv.pads.clone(),
            dilations: conv.dilations.clone(),
            groups: conv.groups,
            input: spatial(&x_ty),
        };
        let dx = backward.add(op, name, &[dy, w])?;
        backward.contribute(x, dx);
    }
    if backward.needs(w) {
        let op = ConvBackwardWeight {
            strides: conv.strides.clone(),
            pads: conv.pads.clone(),
            dilations: conv.dilations.clone(),
            groups: conv.groups,
            kernel: spatial(&w_ty),
        };
        let dw = backward.add(op, name, &[x, dy])?;
        backward.contribute(w, dw);
    }
    if let Some(&bias) = operands.get(2)
        && backward.needs(bias)
    {
        let axes = (0..x_ty.shape.rank()).filter(|&i| i != 1).collect();
        let function = ReduceFunction::Sum;
        let db = backward.add(
            Reduce {
                function,
                axes,
                keep_dims: false,
            },
            name,
            &[dy],
        )?;
        backward.contribute(bias, db);
    }
    Ok(())
}

/// With `y = op(a) op(b)`: `d op(a) = dy op(b)^T` and `d op(b) = op(a)^T dy`, each transposed back.
pub fn matmul(
    backward: &mut Backward,
    product: &MatMul,
    name: &str,
    operands: &[Value],
    dy: Value,
) -> Result<(), PassError> {
    let (a, b) = (operands[0], operands[1]);
    let (ta, tb) = (product.transpose_a, product.transpose_b);
    let op = |transpose_a, transpose_b| MatMul {
        transpose_a,
        transpose_b,
        wide: false,
    };
    if backward.needs(a) {
        let da = match ta {
            false => backward.add(op(false, !tb), name, &[dy, b])?,
            true => backward.add(op(tb, true), name, &[b, dy])?,
        };
        backward.contribute(a, da);
    }
    if backward.needs(b) {
        let db = match tb {
            false => backward.add(op(!ta, false), name, &[a, dy])?,
            true => backward.add(op(true, ta), name, &[dy, a])?,
        };
        backward.contribute(b, db);
    }
    Ok(())
}
