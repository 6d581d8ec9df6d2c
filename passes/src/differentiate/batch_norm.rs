//! Gradients of BatchNorm.

use syncbn_ir::ops::{
    BatchNorm, BatchNormBackward, Binary, BinaryFunction, Cast, Reduce, ReduceFunction, Unary, UnaryFunction,
    literal,
};
use syncbn_ir::{DType, Literal, NodeId, Value};

use super::accumulate::Backward;
use crate::error::{Fault, PassError};

/// Training: [`BatchNormBackward`] from the saved mean and inverse deviation.
pub fn training(backward: &mut Backward, id: NodeId, dy: Value) -> Result<(), PassError> {
    let name = backward.graph.node(id).name.clone();
    let operands = backward.graph.operands(id);
    let saved = |slot| Value { node: id, slot };
    let slots = [operands[0], dy, operands[1], saved(1), saved(2)];
    let node = backward.graph.add(BatchNormBackward {}, &name, &slots)?;
    for (slot, &operand) in operands[..3].iter().enumerate() {
        if backward.needs(operand) {
            backward.contribute(operand, Value { node, slot });
        }
    }
    Ok(())
}

/// Running statistics: `y = x_hat * scale + bias` with `x_hat = (x - mean) * inv_std` and constants `mean`,
/// `inv_std = 1/sqrt(var + epsilon)`, so `dx = dy * scale * inv_std`.
pub fn inference(backward: &mut Backward, id: NodeId, op: &BatchNorm, dy: Value) -> Result<(), PassError> {
    let name = backward.graph.node(id).name.clone();
    let operands = backward.graph.operands(id);
    let &[x, scale, bias, mean, var] = operands.as_slice() else {
        return Ok(());
    };
    if backward.needs(mean) || backward.needs(var) {
        let fault =
            Fault::unsupported("running statistics that depend on trained parameters have no gradient")
                .help("freeze these parameters: see --freeze");
        return Err(fault.at_node(backward.graph, id).into());
    }
    let x_ty = backward.graph.ty(x).clone();
    // In f64, as the forward operator computes it.
    let wide = |backward: &mut Backward, v: Value| match x_ty.dtype {
        DType::F64 => Ok(v),
        _ => backward.add(Cast { dtype: DType::F64 }, &name, &[v]),
    };
    let narrow = |backward: &mut Backward, v: Value| match x_ty.dtype {
        DType::F64 => Ok(v),
        dtype => backward.add(Cast { dtype }, &name, &[v]),
    };
    let epsilon = backward.add(literal(Literal::scalar(DType::F64, op.epsilon)), &name, &[])?;
    let var = wide(backward, var)?;
    let shifted = backward.binary(BinaryFunction::Add, &name, var, epsilon)?;
    let rsqrt = Unary {
        function: UnaryFunction::Rsqrt,
    };
    let inv_std = backward.add(rsqrt, &name, &[shifted])?;
    if backward.needs(x) {
        let gain = wide(backward, scale)?;
        let gain = backward.binary(BinaryFunction::Mul, &name, gain, inv_std)?;
        let gain = narrow(backward, gain)?;
        let gain = backward.along_channels(&name, gain, &x_ty)?;
        let dx = backward.binary(BinaryFunction::Mul, &name, dy, gain)?;
        backward.contribute(x, dx);
    }
    let axes: Vec<usize> = (0..x_ty.shape.rank()).filter(|&i| i != 1).collect();
    let over_samples = Reduce {
        function: ReduceFunction::Sum,
        axes,
        keep_dims: false,
    };
    if backward.needs(scale) {
        let mean = backward.along_channels(&name, mean, &x_ty)?;
        let inv_std = narrow(backward, inv_std)?;
        let inv_std = backward.along_channels(&name, inv_std, &x_ty)?;
        let centred = backward.add(
            Binary {
                function: BinaryFunction::Sub,
            },
            &name,
            &[x, mean],
        )?;
        let x_hat = backward.binary(BinaryFunction::Mul, &name, centred, inv_std)?;
        let product = backward.binary(BinaryFunction::Mul, &name, dy, x_hat)?;
        let dscale = backward.add(over_samples.clone(), &name, &[product])?;
        backward.contribute(scale, dscale);
    }
    if backward.needs(bias) {
        let dbias = backward.add(over_samples, &name, &[dy])?;
        backward.contribute(bias, dbias);
    }
    Ok(())
}
