//! Batch normalisation as networks state it, and its gradient. `bn-to-syncbn` replaces both in training
//! graphs by the operators of `sync_batch_norm.rs`.

use super::batch_statistics::{Finalize, backward_data, backward_sums, normalize};
use super::positions::Channels;
use super::{Operator, StepInfo, channels, expect_operands, expect_type};
use crate::attributes::Word;
use crate::tensor::Array;
use crate::types::{DType, TensorType};

/// Rule of the running variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunningVar {
    /// `N/(N-1)` times the batch's variance (PyTorch).
    Pytorch,
    /// The batch's variance (ONNX).
    Population,
}

impl Word for RunningVar {
    fn to_word(&self) -> (String, Vec<f64>) {
        let word = match self {
            RunningVar::Pytorch => "pytorch",
            RunningVar::Population => "population",
        };
        (word.to_string(), Vec::new())
    }
    fn from_word(word: &str, args: &[f64]) -> Option<RunningVar> {
        let all = [RunningVar::Pytorch, RunningVar::Population];
        all.into_iter().find(|r| r.to_word().0 == word && args.is_empty())
    }
}

operator! {
    /// Batch normalisation over axis 1, `C` channels.
    ///
    /// Operands: `x [n, C, ...]`, `scale [C]`, `bias [C]`, `running_mean [C]`, `running_var [C]`.
    /// Results: `y`, and with `training` also `mean f64 [C]` and `inv_std f64 [C]` of the rank's own samples,
    /// then the next `running_mean [C]` and `running_var [C]`. Without `training` the running statistics
    /// normalise. Weights have a fixed first dimension: `x` may be any tensor of rank 2 or more.
    BatchNorm = "batch_norm" {
        /// Added to the variance.
        epsilon: f64,
        /// Share of the new value in running statistics (1 - ONNX momentum).
        momentum: f64,
        /// Rule of the running variance.
        running_var: RunningVar,
        /// Whether the batch's own statistics normalise.
        training: bool,
        /// `training_mode` of the ONNX file: matters only where `x` depends on no data.
        onnx_training: bool,
    }
}

operator! {
    /// Gradient of [`BatchNorm`] in training, with statistics of the rank's own samples.
    ///
    /// Operands: `x`, `dy`, `scale [C]`, `mean f64 [C]`, `inv_std f64 [C]`.
    /// Results: `dx`, `dscale [C]`, `dbias [C]`.
    BatchNormBackward = "batch_norm_backward" {}
}

impl Operator for BatchNorm {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 5..=5)?;
        let x = operands[0];
        let c = channels("the input", x)?;
        if !x.dtype.is_float() {
            return Err(format!("input {x} must be floating point"));
        }
        let vector = TensorType::fixed(x.dtype.arithmetic(), &[c]);
        for (role, ty) in ["scale", "bias", "mean", "var"].into_iter().zip(&operands[1..]) {
            expect_type(role, ty, &vector)?;
        }
        let mut results = vec![x.clone()];
        if self.training {
            let saved = TensorType::fixed(DType::F64, &[c]);
            results.extend([saved.clone(), saved, vector.clone(), vector]);
        }
        Ok(results)
    }

    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (x, scale, bias) = (operands[0], operands[1], operands[2]);
        let (running_mean, running_var) = (operands[3], operands[4]);
        let c = Channels::of(x).c;
        if !self.training {
            let inv_std = |i: usize| 1.0 / (running_var.data[i] + self.epsilon).sqrt();
            let inv_std = Array::new(&[c], (0..c).map(inv_std).collect());
            return Ok(vec![normalize(x, running_mean, &inv_std, scale, bias)]);
        }
        let rule = Finalize {
            epsilon: self.epsilon,
            momentum: self.momentum,
            running_var: self.running_var,
        };
        let own = rule.own_samples(x, running_mean, running_var)?;
        let y = normalize(x, &own.mean, &own.inv_std, scale, bias);
        Ok(vec![y, own.mean, own.inv_std, own.running_mean, own.running_var])
    }
}

impl Operator for BatchNormBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 5..=5)?;
        let x = operands[0];
        let c = channels("the input", x)?;
        let (vector, saved) = (
            TensorType::fixed(x.dtype.arithmetic(), &[c]),
            TensorType::fixed(DType::F64, &[c]),
        );
        expect_type("the output gradient", operands[1], x)?;
        expect_type("scale", operands[2], &vector)?;
        expect_type("mean", operands[3], &saved)?;
        expect_type("inv_std", operands[4], &saved)?;
        Ok(vec![x.clone(), vector.clone(), vector])
    }

    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (x, dy, scale) = (operands[0], operands[1], operands[2]);
        let (mean, inv_std) = (operands[3], operands[4]);
        let sizes = Channels::of(x);
        let sums = backward_sums(x, dy, mean, inv_std);
        let dx = backward_data(x, dy, mean, inv_std, scale, &sums, sizes.per_channel() as f64);
        let (dbias, dscale) = sums.data.split_at(sizes.c);
        let vector = |data: &[f64]| Array::new(&[sizes.c], data.to_vec());
        Ok(vec![dx, vector(dscale), vector(dbias)])
    }
}
