//! Losses: the mean over the global batch. Each rank computes its share; the shares sum to the loss.

use super::positions::Channels;
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

/// Whether a loss can be taken of it: bf16 has too few digits for that.
fn is_exact(ty: &TensorType) -> bool {
    matches!(ty.dtype, DType::F32 | DType::F64) && ty.shape.has_batch()
}

fn check_classes(operands: &[&TensorType]) -> Result<(), String> {
    expect_operands(operands, 2..=2)?;
    let logits = operands[0];
    channels("the logits", logits)?;
    if !is_exact(logits) {
        return Err(format!(
            "logits of type {logits} must be f32 or f64 and have a batch"
        ));
    }
    let mut labels = TensorType::new(DType::I64, logits.shape.clone());
    labels.shape.0.remove(1);
    expect_type("the target", operands[1], &labels)
}

fn check_values(operands: &[&TensorType]) -> Result<(), String> {
    expect_operands(operands, 2..=2)?;
    if !is_exact(operands[0]) {
        return Err(format!(
            "prediction of type {} must be f32 or f64 and have a batch",
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
        let (logits, target) = (operands[0], operands[1]);
        let mut loss = 0.0;
        for_each_pixel(logits, target, |at, label| {
            loss -= log_softmax(logits, at)[label];
        })?;
        let pixels: usize = target.dims[1..].iter().product();
        Ok(vec![Array::new(&[1], vec![mean(loss, step.total * pixels)])])
    }
}

impl Operator for SoftmaxCrossEntropyBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_classes(operands)?;
        Ok(vec![operands[0].clone()])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let (logits, target) = (operands[0], operands[1]);
        let pixels: usize = target.dims[1..].iter().product();
        let mut gradient = Array::zeros(&logits.dims);
        for_each_pixel(logits, target, |at, label| {
            for (k, (&p, log_share)) in at.iter().zip(log_softmax(logits, at)).enumerate() {
                let one_hot = if k == label { 1.0 } else { 0.0 };
                gradient.data[p] = mean(log_share.exp() - one_hot, step.total * pixels);
            }
        })?;
        Ok(vec![gradient])
    }
}

impl Operator for MeanSquaredError {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_values(operands)?;
        Ok(vec![TensorType::fixed(DType::F64, &[1])])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let (prediction, target) = (operands[0], operands[1]);
        let per_sample: usize = prediction.dims[1..].iter().product();
        let pairs = prediction.data.iter().zip(&target.data);
        let sum: f64 = pairs.map(|(&p, &t)| (p - t) * (p - t)).sum();
        Ok(vec![Array::new(&[1], vec![mean(sum, step.total * per_sample)])])
    }
}

impl Operator for MeanSquaredErrorBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        check_values(operands)?;
        Ok(vec![operands[0].clone()])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let (prediction, target) = (operands[0], operands[1]);
        let per_sample: usize = prediction.dims[1..].iter().product();
        let pairs = prediction.data.iter().zip(&target.data);
        let data = pairs
            .map(|(&p, &t)| mean(2.0 * (p - t), step.total * per_sample))
            .collect();
        Ok(vec![Array::new(&prediction.dims, data)])
    }
}

/// `sum / count`, or 0 where there is nothing to divide by.
fn mean(sum: f64, count: usize) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Logarithms of the softmax of the scores at these offsets. The largest score is subtracted first, so that
/// large scores neither overflow nor cancel.
fn log_softmax(logits: &Array, at: &[usize]) -> Vec<f64> {
    let largest = at
        .iter()
        .map(|&p| logits.data[p])
        .fold(f64::NEG_INFINITY, f64::max);
    let shifted = at.iter().map(|&p| logits.data[p] - largest);
    let log_sum = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|s| s - log_sum).collect()
}

/// Calls `visit` for every sample and pixel with the offsets of its class scores and its label.
fn for_each_pixel(
    logits: &Array,
    target: &Array,
    mut visit: impl FnMut(&[usize], usize),
) -> Result<(), String> {
    let sizes = Channels::of(logits);
    for i in 0..sizes.n {
        for d in 0..sizes.s {
            let label = target.data[i * sizes.s + d];
            if !(0.0..sizes.c as f64).contains(&label) {
                return Err(format!("label {label} is not in 0..{}", sizes.c));
            }
            let at: Vec<usize> = (0..sizes.c).map(|k| (i * sizes.c + k) * sizes.s + d).collect();
            visit(&at, label as usize);
        }
    }
    Ok(())
}
