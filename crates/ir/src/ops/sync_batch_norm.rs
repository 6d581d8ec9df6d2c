//! Batch normalisation taken apart, so that an all-reduce fits between its steps, in both directions.
//!
//! The formulas are those of `docs/ir.md`, section "Synchronised BatchNorm"; `C` is the number of channels
//! (axis 1).

use super::batch_statistics::{Finalize, backward_data, backward_sums, moments, normalize};
use super::{Operator, RunningVar, StepInfo, UnaryFunction, channels, expect_operands, expect_type};
use crate::tensor::Array;
use crate::types::{DType, TensorType};

operator! {
    /// Moments of the rank's samples, in a form that sums over ranks.
    ///
    /// Operands: `x [n, C, ...]`. Results: `f64 [1 + 2C]` = `[m, m*mean (C), M2 + m*mean^2 (C)]`, where `m` is
    /// the number of values of a channel and `M2` their sum of squared deviations; zeros for an empty rank.
    Moments = "moments" {}
}

operator! {
    /// Mean, inverse deviation and running statistics from summed moments.
    ///
    /// Operands: `moments f64 [1 + 2C]`, `running_mean [C]`, `running_var [C]`.
    /// Results: `count f64 [1]`, `mean f64 [C]`, `inv_std f64 [C]`, next `running_mean [C]`, next
    /// `running_var [C]`. With a count of 0 (a group without samples) mean and inv_std are 0 and the running
    /// statistics keep their values.
    BatchNormFinalize = "batch_norm_finalize" {
        /// Added to the variance.
        epsilon: f64,
        /// Share of the new value in running statistics.
        momentum: f64,
        /// Rule of the running variance.
        running_var: RunningVar,
    }
}

operator! {
    /// `y = activation((x - mean) * inv_std * scale + bias + residual)`.
    ///
    /// Operands: `x`, `mean f64 [C]`, `inv_std f64 [C]`, `scale [C]`, `bias [C]`, and optionally `residual` of
    /// the type of `x`. Results: `y` of the type of `x`.
    Normalize = "normalize" {
        /// Applied last.
        activation: Option<UnaryFunction>,
    }
}

operator! {
    /// The two sums of the backward pass: `f64 [2C]` = `[sum dz (C), sum dz * xhat (C)]` over the rank's
    /// samples, where `dz` is `dy` taken through the derivative of the activation (recomputed from `x`).
    ///
    /// Operands: `x`, `dy`, `mean f64 [C]`, `inv_std f64 [C]`; with an activation also `scale [C]`, `bias [C]`
    /// and optionally `residual`. Results: the sums, and with a residual `dz`, which is the residual's gradient:
    /// it is ready before the sums have gone over the ranks, so that what lies behind the residual need not wait.
    BatchNormBackwardReduce = "batch_norm_backward_reduce" {
        /// As the [`Normalize`]'s.
        activation: Option<UnaryFunction>,
    }
}

operator! {
    /// `dx = scale * inv_std * (dz - B/N - xhat * G/N)`, with `sums = [B (C), G (C)]` and `N = count`.
    ///
    /// Operands: `x`, `dy`, `mean f64 [C]`, `inv_std f64 [C]`, `scale [C]`, `sums f64 [2C]`, `count f64 [1]`;
    /// with an activation also `bias [C]`. Where there was a residual, `dy` is the `dz` of
    /// [`BatchNormBackwardReduce`] and there is no activation. Results: `dx`.
    BatchNormBackwardData = "batch_norm_backward_data" {
        /// As the [`Normalize`]'s, which has no residual.
        activation: Option<UnaryFunction>,
    }
}

struct Types {
    c: usize,
    vector: TensorType,
    saved: TensorType,
}

fn types_of(x: &TensorType) -> Result<Types, String> {
    let c = channels("the input", x)?;
    if !x.dtype.is_float() {
        return Err(format!("input {x} must be floating point"));
    }
    Ok(Types {
        c,
        vector: TensorType::fixed(x.dtype.arithmetic(), &[c]),
        saved: TensorType::fixed(DType::F64, &[c]),
    })
}

impl Operator for Moments {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let t = types_of(operands[0])?;
        Ok(vec![TensorType::fixed(DType::F64, &[1 + 2 * t.c])])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        Ok(vec![moments(operands[0])])
    }
}

impl Operator for BatchNormFinalize {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 3..=3)?;
        let vector = operands[1].clone();
        let c = match vector.shape.sizes(0).as_slice() {
            &[c] if !vector.shape.has_batch() => c,
            _ => return Err(format!("running_mean of type {vector} is not a vector")),
        };
        expect_type(
            "moments",
            operands[0],
            &TensorType::fixed(DType::F64, &[1 + 2 * c]),
        )?;
        expect_type("running_var", operands[2], &vector)?;
        let saved = TensorType::fixed(DType::F64, &[c]);
        Ok(vec![
            TensorType::fixed(DType::F64, &[1]),
            saved.clone(),
            saved,
            vector.clone(),
            vector,
        ])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let rule = Finalize {
            epsilon: self.epsilon,
            momentum: self.momentum,
            running_var: self.running_var,
        };
        let (count, next) = rule.summed_moments(operands[0], operands[1], operands[2])?;
        let count = Array::new(&[1], vec![count]);
        Ok(vec![
            count,
            next.mean,
            next.inv_std,
            next.running_mean,
            next.running_var,
        ])
    }
}

impl Operator for Normalize {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 5..=6)?;
        let x = operands[0];
        let t = types_of(x)?;
        expect_type("mean", operands[1], &t.saved)?;
        expect_type("inv_std", operands[2], &t.saved)?;
        expect_type("scale", operands[3], &t.vector)?;
        expect_type("bias", operands[4], &t.vector)?;
        if let Some(residual) = operands.get(5) {
            expect_type("the residual", residual, x)?;
        }
        Ok(vec![x.clone()])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (x, mean, inv_std) = (operands[0], operands[1], operands[2]);
        let (scale, bias) = (operands[3], operands[4]);
        let mut y = pre_activation(x, mean, inv_std, scale, bias, operands.get(5).copied());
        if let Some(activation) = self.activation {
            y.data.iter_mut().for_each(|v| *v = activation.value(*v));
        }
        Ok(vec![y])
    }
}

impl Operator for BatchNormBackwardReduce {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let counts = if self.activation.is_some() { 6..=7 } else { 4..=4 };
        expect_operands(operands, counts)?;
        let x = operands[0];
        let t = types_of(x)?;
        expect_type("the output gradient", operands[1], x)?;
        expect_type("mean", operands[2], &t.saved)?;
        expect_type("inv_std", operands[3], &t.saved)?;
        for (role, ty) in ["scale", "bias"].into_iter().zip(operands.iter().skip(4)) {
            expect_type(role, ty, &t.vector)?;
        }
        if let Some(residual) = operands.get(6) {
            expect_type("the residual", residual, x)?;
        }
        let mut results = vec![TensorType::fixed(DType::F64, &[2 * t.c])];
        results.extend(operands.get(6).map(|_| x.clone()));
        Ok(results)
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (x, dy, mean, inv_std) = (operands[0], operands[1], operands[2], operands[3]);
        let dz = match (self.activation, operands.get(4..)) {
            (Some(activation), Some(&[scale, bias, ref rest @ ..])) => {
                let z = pre_activation(x, mean, inv_std, scale, bias, rest.first().copied());
                through_activation(activation, &z, dy)
            }
            _ => dy.clone(),
        };
        let mut results = vec![backward_sums(x, &dz, mean, inv_std)];
        results.extend(operands.get(6).map(|_| dz));
        Ok(results)
    }
}

impl Operator for BatchNormBackwardData {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let count = if self.activation.is_some() { 8 } else { 7 };
        expect_operands(operands, count..=count)?;
        let x = operands[0];
        let t = types_of(x)?;
        expect_type("the output gradient", operands[1], x)?;
        expect_type("mean", operands[2], &t.saved)?;
        expect_type("inv_std", operands[3], &t.saved)?;
        expect_type("scale", operands[4], &t.vector)?;
        expect_type("sums", operands[5], &TensorType::fixed(DType::F64, &[2 * t.c]))?;
        expect_type("count", operands[6], &TensorType::fixed(DType::F64, &[1]))?;
        if let Some(bias) = operands.get(7) {
            expect_type("bias", bias, &t.vector)?;
        }
        Ok(vec![x.clone()])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (x, dy, mean, inv_std) = (operands[0], operands[1], operands[2], operands[3]);
        let (scale, sums, count) = (operands[4], operands[5], operands[6].data[0]);
        let dz = match (self.activation, operands.get(7)) {
            (Some(activation), Some(bias)) => {
                let z = pre_activation(x, mean, inv_std, scale, bias, None);
                through_activation(activation, &z, dy)
            }
            _ => dy.clone(),
        };
        Ok(vec![backward_data(x, &dz, mean, inv_std, scale, sums, count)])
    }
}

/// `(x - mean) * inv_std * scale + bias + residual`.
fn pre_activation(
    x: &Array,
    mean: &Array,
    inv_std: &Array,
    scale: &Array,
    bias: &Array,
    residual: Option<&Array>,
) -> Array {
    let mut z = normalize(x, mean, inv_std, scale, bias);
    if let Some(residual) = residual {
        z.data.iter_mut().zip(&residual.data).for_each(|(z, &r)| *z += r);
    }
    z
}

/// `dy * activation'(z)`.
fn through_activation(activation: UnaryFunction, z: &Array, dy: &Array) -> Array {
    let pairs = z.data.iter().zip(&dy.data);
    Array::new(
        &z.dims,
        pairs.map(|(&z, &dy)| dy * activation.derivative(z)).collect(),
    )
}
