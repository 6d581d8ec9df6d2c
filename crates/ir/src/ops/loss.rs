//! Losses: the mean over the global batch. Each rank computes its share; the shares sum to the loss.

use super::{Operator, StepInfo, channels, expect_operands, expect_type};
use crate::tensor::Array;
use crate::types::{DType, TensorType};

operator! {
    /// Cross-entropy of class scores.
    ///
    /// Operands: `logits [n, K, d...]`, `target i64 [n, d...]` in `0..K`. Results: `f64 [1]`, the rank's sum of
    /// `logsumexp(logits) - logits[target]` divided by `total * d...`.
    SoftmaxCrossEntropy = "softmax_cross_entropy" {}
}

operator! {
    /// Operands: as [`SoftmaxCrossEntropy`]. Results: `(softmax(logits) - onehot(target)) / (total * d...)`.
    SoftmaxCrossEntropyBackward = "softmax_cross_entropy_backward" {}
}

operator! {
    /// Operands: `prediction [n, d...]`, `target` of the same type. Results: `f64 [1]`, the rank's sum of
    /// squared differences divided by `total * d...`.
    MeanSquaredError = "mean_squared_error" {}
}

operator! {
    /// Operands: as [`MeanSquaredError`]. Results: `2 (prediction - target) / (total * d...)`.
    MeanSquaredErrorBackward = "mean_squared_error_backward" {}
}

fn check_classes(operands: &[&TensorType]) -> Result<(), String> {
    expect_operands(operands, 2..=2)?;
    let logits = operands[0];
    channels("the logits", logits)?;
    if !logits.dtype.is_float() || !logits.shape.has_batch() {
        return Err(format!(
            "logits of type {logits} must be floating point and have a batch"
        ));
    }
    let mut labels = TensorType::new(DType::I64, logits.shape.clone());
    labels.shape.0.remove(1);
    expect_type("the target", operands[1], &labels)
}

fn check_values(operands: &[&TensorType]) -> Result<(), String> {
    expect_operands(operands, 2..=2)?;
    if !operands[0].dtype.is_float() || !operands[0].shape.has_batch() {
        return Err(format!(
            "prediction of type {} must be floating point and have a batch",
            operands[0]
        ));
    }
    expect_type("the target", operands[1], operands[0])
}

impl Operator for SoftmaxCrossEntropy {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_classes(operands)?;
        Ok(vec![TensorType::fixed(DType::F64, &[1])])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for SoftmaxCrossEntropyBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_classes(operands)?;
        Ok(vec![operands[0].clone()])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for MeanSquaredError {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_values(operands)?;
        Ok(vec![TensorType::fixed(DType::F64, &[1])])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for MeanSquaredErrorBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_values(operands)?;
        Ok(vec![operands[0].clone()])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}
