//! The derivative of every operator.

use std::num::NonZeroUsize;

use syncbn_ir::ops::{
    AveragePoolBackward, BinaryFunction, Cast, MaxPoolBackward, MeanSquaredErrorBackward, Pad, Reduce,
    ReduceFunction, ResizeBackward, Slice, SoftmaxCrossEntropyBackward, Transpose, Unary, UnaryBackward,
    UnaryFunction, literal,
};
use syncbn_ir::{Dim, Literal, NodeId, Op, Shape, TensorType, Value};

use super::accumulate::Backward;
use super::{batch_norm, products};
use crate::error::{Fault, PassError};

/// Contributes to the gradients of a node's operands, if a gradient arrived at the node.
pub fn differentiate_node(backward: &mut Backward, id: NodeId) -> Result<(), PassError> {
    let operands = backward.graph.operands(id);
    let is_loss = backward.is_loss(id.into());
    if !operands.iter().any(|&v| backward.needs(v)) || !(is_loss || backward.reaches(id)) {
        return Ok(());
    }
    let node = backward.graph.node(id);
    let (op, name) = (node.op.clone(), node.name.clone());
    let y = Value::from(id);
    if is_loss {
        return loss(backward, &op, &name, &operands, backward.reaches(id));
    }
    let Some(dy) = backward.gradient(y)? else {
        return Err(no_derivative(&name, &op, "of a result other than the first"));
    };
    let x = operands[0];
    match &op {
        Op::Input(_) | Op::Parameter(_) | Op::Statistic(_) | Op::Constant(_) => Ok(()),
        Op::Conv(conv) => products::convolution(backward, conv, &name, &operands, dy),
        Op::MatMul(product) => products::matmul(backward, product, &name, &operands, dy),
        Op::BatchNorm(bn) if bn.training => batch_norm::training(backward, id, dy),
        Op::BatchNorm(bn) => batch_norm::inference(backward, id, bn, dy),
        Op::Unary(unary) => {
            let function = unary.function;
            let dx = backward.add(UnaryBackward { function }, &name, &[x, dy])?;
            backward.contribute(x, dx);
            Ok(())
        }
        Op::Binary(binary) => elementwise(backward, binary.function, &name, [x, operands[1]], y, dy),
        Op::Reduce(reduce) => reduction(backward, reduce, &name, x, dy),
        Op::Expand(_) => {
            let ty = backward.graph.ty(x).clone();
            let dx = backward.sum_to(&name, dy, &ty)?;
            backward.contribute(x, dx);
            Ok(())
        }
        Op::Reshape(_) => {
            let shape = backward.graph.ty(x).shape.clone();
            let dx = backward.reshape(&name, dy, &shape)?;
            backward.contribute(x, dx);
            Ok(())
        }
        Op::Transpose(transpose) => {
            let mut permutation = vec![0; transpose.permutation.len()];
            for (i, &p) in transpose.permutation.iter().enumerate() {
                permutation[p] = i;
            }
            let dx = backward.add(Transpose { permutation }, &name, &[dy])?;
            backward.contribute(x, dx);
            Ok(())
        }
        Op::Concat(concat) => {
            let mut begin = 0;
            for &operand in &operands {
                let size = axis_size(backward.graph.ty(operand), concat.axis);
                let end = begin + size;
                if backward.needs(operand) {
                    let slice = Slice {
                        axis: concat.axis,
                        begin,
                        end,
                        step: NonZeroUsize::MIN,
                    };
                    let part = backward.add(slice, &name, &[dy])?;
                    backward.contribute(operand, part);
                }
                begin = end;
            }
            Ok(())
        }
        Op::Slice(slice) => {
            let dx = backward.add(unslice(slice, backward.graph.ty(x)), &name, &[dy])?;
            backward.contribute(x, dx);
            Ok(())
        }
        Op::Pad(pad) => {
            let slice = Slice {
                axis: pad.axis,
                begin: pad.before,
                end: axis_size(backward.graph.ty(y), pad.axis) - pad.after,
                step: pad.step,
            };
            let dx = backward.add(slice, &name, &[dy])?;
            backward.contribute(x, dx);
            Ok(())
        }
        Op::Cast(_) => {
            let dtype = backward.graph.ty(x).dtype;
            if dtype.is_float() && backward.graph.ty(y).dtype.is_float() {
                let dx = backward.add(Cast { dtype }, &name, &[dy])?;
                backward.contribute(x, dx);
            }
            Ok(())
        }
        Op::Identity(_) | Op::Dropout(_) => {
            backward.contribute(x, dy);
            Ok(())
        }
        Op::MaxPool(pool) => {
            let pool = MaxPoolBackward {
                kernel: pool.kernel.clone(),
                strides: pool.strides.clone(),
                pads: pool.pads.clone(),
                dilations: pool.dilations.clone(),
                ceil_mode: pool.ceil_mode,
                input: spatial(backward.graph.ty(x)),
            };
            let code = Value { node: id, slot: 1 };
            let dx = backward.add(pool, &name, &[dy, code])?;
            backward.contribute(x, dx);
            Ok(())
        }
        Op::AveragePool(pool) => {
            let pool = AveragePoolBackward {
                kernel: pool.kernel.clone(),
                strides: pool.strides.clone(),
                pads: pool.pads.clone(),
                dilations: pool.dilations.clone(),
                ceil_mode: pool.ceil_mode,
                count_include_pad: pool.count_include_pad,
                input: spatial(backward.graph.ty(x)),
            };
            let dx = backward.add(pool, &name, &[dy])?;
            backward.contribute(x, dx);
            Ok(())
        }
        Op::Resize(resize) => {
            let resize = ResizeBackward {
                mode: resize.mode,
                input: spatial(backward.graph.ty(x)),
                slope: resize.slope.clone(),
                shift: resize.shift.clone(),
                divisor: resize.divisor.clone(),
            };
            let dx = backward.add(resize, &name, &[dy])?;
            backward.contribute(x, dx);
            Ok(())
        }
        Op::SoftmaxCrossEntropy(_) | Op::MeanSquaredError(_) => {
            Err(no_derivative(&name, &op, "where it is not the loss itself"))
        }
        Op::ConvBackwardData(_)
        | Op::ConvBackwardWeight(_)
        | Op::BatchNormBackward(_)
        | Op::Moments(_)
        | Op::BatchNormFinalize(_)
        | Op::Normalize(_)
        | Op::BatchNormBackwardReduce(_)
        | Op::BatchNormBackwardData(_)
        | Op::AllReduce(_)
        | Op::UnaryBackward(_)
        | Op::MaxPoolBackward(_)
        | Op::AveragePoolBackward(_)
        | Op::ResizeBackward(_)
        | Op::SoftmaxCrossEntropyBackward(_)
        | Op::MeanSquaredErrorBackward(_) => {
            Err(no_derivative(&name, &op, "in a graph that is already lowered"))
        }
    }
}

pub(super) fn no_derivative(name: &str, op: &Op, where_: &str) -> PassError {
    Fault::unsupported(format!("has no derivative {where_}"))
        .at(format!("node \"{name}\" ({})", op.name()))
        .help("freeze the parameters before it (see --freeze), or start from the network as the importer leaves it")
        .into()
}

fn axis_size(ty: &TensorType, axis: usize) -> usize {
    ty.shape.0.get(axis).and_then(|d| d.fixed()).unwrap_or(0)
}

pub(super) fn spatial(ty: &TensorType) -> Vec<usize> {
    ty.shape.0.iter().skip(2).filter_map(|d| d.fixed()).collect()
}

/// The gradient of the loss itself is 1, which the backward operators of losses imply.
fn loss(
    backward: &mut Backward,
    op: &Op,
    name: &str,
    operands: &[Value],
    read: bool,
) -> Result<(), PassError> {
    if read {
        return Err(no_derivative(name, op, "where the loss is read by other nodes"));
    }
    if operands.get(1).is_some_and(|&target| backward.needs(target)) {
        return Err(no_derivative(
            name,
            op,
            "for a target that depends on trained parameters",
        ));
    }
    let dx = match op {
        Op::SoftmaxCrossEntropy(_) => backward.add(SoftmaxCrossEntropyBackward {}, name, operands)?,
        Op::MeanSquaredError(_) => backward.add(MeanSquaredErrorBackward {}, name, operands)?,
        _ => return Err(no_derivative(name, op, "as a loss")),
    };
    backward.contribute(operands[0], dx);
    Ok(())
}

fn elementwise(
    backward: &mut Backward,
    function: BinaryFunction,
    name: &str,
    [a, b]: [Value; 2],
    y: Value,
    dy: Value,
) -> Result<(), PassError> {
    let neg = Unary {
        function: UnaryFunction::Neg,
    };
    if backward.needs(a) {
        let da = match function {
            BinaryFunction::Add | BinaryFunction::Sub => dy,
            BinaryFunction::Mul => backward.binary(BinaryFunction::Mul, name, dy, b)?,
            BinaryFunction::Div => backward.binary(BinaryFunction::Div, name, dy, b)?,
        };
        let ty = backward.graph.ty(a).clone();
        let da = backward.sum_to(name, da, &ty)?;
        backward.contribute(a, da);
    }
    if backward.needs(b) {
        let ty = backward.graph.ty(b).clone();
        let db = match function {
            BinaryFunction::Add | BinaryFunction::Sub => dy,
            BinaryFunction::Mul => backward.binary(BinaryFunction::Mul, name, dy, a)?,
            // d(a/b)/db = -(a/b)/b
            BinaryFunction::Div => {
                let slope = backward.binary(BinaryFunction::Div, name, y, b)?;
                backward.binary(BinaryFunction::Mul, name, dy, slope)?
            }
        };
        // Negated after the sum, where it is smaller.
        let mut db = backward.sum_to(name, db, &ty)?;
        if matches!(function, BinaryFunction::Sub | BinaryFunction::Div) {
            db = backward.add(neg, name, &[db])?;
        }
        backward.contribute(b, db);
    }
    Ok(())
}

fn reduction(
    backward: &mut Backward,
    reduce: &Reduce,
    name: &str,
    x: Value,
    dy: Value,
) -> Result<(), PassError> {
    let ty = backward.graph.ty(x).clone();
    let kept: Vec<Dim> = (ty.shape.0.iter().enumerate())
        .map(|(i, &d)| {
            if reduce.axes.contains(&i) {
                Dim::Fixed(1)
            } else {
                d
            }
        })
        .collect();
    let mut gradient = backward.reshape(name, dy, &Shape(kept))?;
    if reduce.function == ReduceFunction::Mean {
        let count: usize = reduce.axes.iter().map(|&i| axis_size(&ty, i)).product();
        let share = literal(Literal::scalar(ty.dtype, 1.0 / count as f64));
        let share = backward.add(share, name, &[])?;
        gradient = backward.binary(BinaryFunction::Mul, name, gradient, share)?;
    }
    let dx = backward.expand(name, gradient, &ty.shape)?;
    backward.contribute(x, dx);
    Ok(())
}

/// The reverse of a slice of a value of this type: its indices where they were, zeros elsewhere.
fn unslice(slice: &Slice, ty: &TensorType) -> Pad {
    let last = (slice.end - 1 - slice.begin) / slice.step * slice.step.get() + slice.begin;
    Pad {
        axis: slice.axis,
        before: slice.begin,
        after: axis_size(ty, slice.axis) - 1 - last,
        step: slice.step,
    }
}
