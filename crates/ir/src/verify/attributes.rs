//! Ranges of attributes.

use crate::ops::{Op, ParameterData, Scope, UnaryFunction};
use crate::types::DType;

/// What outlives a step, or comes from outside, is never bf16.
fn check_storage(op: &Op) -> Result<(), String> {
    let ty = match op {
        Op::Input(op) => &op.ty,
        Op::Parameter(op) => &op.ty,
        Op::Statistic(op) => &op.ty,
        _ => return Ok(()),
    };
    match ty.dtype {
        DType::BF16 => Err(format!("type {ty} is for what a step computes only")),
        _ => Ok(()),
    }
}

/// Ranges of attributes that types do not depend on.
pub(super) fn check(op: &Op) -> Result<(), String> {
    check_storage(op)?;
    match op {
        Op::Input(op) if !op.ty.shape.has_batch() => {
            Err(format!("type {} does not have the batch in front", op.ty))
        }
        Op::Parameter(op) => {
            if op.trained && !op.ty.dtype.is_float() {
                return Err(format!("a tensor of type {} cannot be trained", op.ty));
            }
            check_data(&op.data)
        }
        Op::Statistic(op) => check_data(&op.data),
        Op::BatchNorm(op) => check_rule(op.epsilon, op.momentum),
        Op::BatchNormFinalize(op) => check_rule(op.epsilon, op.momentum),
        Op::Conv(op) => check_function(op.activation),
        Op::Normalize(op) => check_function(op.activation),
        Op::BatchNormBackwardReduce(op) => check_function(op.activation),
        Op::BatchNormBackwardData(op) => check_function(op.activation),
        Op::Unary(op) => check_function(Some(op.function)),
        Op::UnaryBackward(op) => check_function(Some(op.function)),
        Op::AllReduce(op) if op.scope == Scope::Group(0) => Err("a group of 0 ranks".to_string()),
        Op::Dropout(op) if !(0.0..=1.0).contains(&op.ratio) => {
            Err(format!("ratio {} is not in 0 to 1", op.ratio))
        }
        Op::Input(_)
        | Op::Constant(_)
        | Op::ConvBackwardData(_)
        | Op::ConvBackwardWeight(_)
        | Op::MatMul(_)
        | Op::BatchNormBackward(_)
        | Op::Moments(_)
        | Op::AllReduce(_)
        | Op::Binary(_)
        | Op::Reduce(_)
        | Op::Expand(_)
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Concat(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Cast(_)
        | Op::Identity(_)
        | Op::Dropout(_)
        | Op::MaxPool(_)
        | Op::MaxPoolBackward(_)
        | Op::AveragePool(_)
        | Op::AveragePoolBackward(_)
        | Op::Resize(_)
        | Op::ResizeBackward(_)
        | Op::SoftmaxCrossEntropy(_)
        | Op::SoftmaxCrossEntropyBackward(_)
        | Op::MeanSquaredError(_)
        | Op::MeanSquaredErrorBackward(_) => Ok(()),
    }
}

fn check_rule(epsilon: f64, momentum: f64) -> Result<(), String> {
    if !(epsilon.is_finite() && epsilon >= 0.0) {
        return Err(format!("epsilon {epsilon} is not a finite number of at least 0"));
    }
    if !(0.0..=1.0).contains(&momentum) {
        return Err(format!("momentum {momentum} is not in 0 to 1"));
    }
    Ok(())
}

fn check_function(function: Option<UnaryFunction>) -> Result<(), String> {
    match function {
        Some(UnaryFunction::Clip { min, max }) if min.is_nan() || max.is_nan() => {
            Err(format!("clip bounds {min} and {max} must be numbers"))
        }
        Some(UnaryFunction::HardSigmoid { alpha, beta }) if !(alpha.is_finite() && beta.is_finite()) => Err(
            format!("hard_sigmoid of slope {alpha} and offset {beta}: must be finite"),
        ),
        Some(UnaryFunction::LeakyRelu { alpha }) if !alpha.is_finite() => {
            Err(format!("leaky_relu of slope {alpha}: must be finite"))
        }
        _ => Ok(()),
    }
}

fn check_data(data: &ParameterData) -> Result<(), String> {
    match data {
        ParameterData::Fill(value) if !value.is_finite() => Err(format!("fill value {value} is not finite")),
        ParameterData::KaimingNormal { fan_in: 0 } => Err("Kaiming initialisation of fan-in 0".to_string()),
        _ => Ok(()),
    }
}
