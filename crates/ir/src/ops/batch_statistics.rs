//! The formulas of batch normalisation, shared by the operators that state it whole and taken apart.

use super::RunningVar;
use super::positions::{Channels, mean_and_m2};
use crate::tensor::Array;

/// `[m, m*mean (C), M2 + m*mean^2 (C)]` of `x [n, C, ...]`.
pub(super) fn moments(x: &Array) -> Array {
    let sizes = Channels::of(x);
    let m = sizes.per_channel() as f64;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for c in 0..sizes.c {
        let (mean, m2) = mean_and_m2(sizes.positions(c).map(|p| x.data[p]));
        first.push(m * mean);
        second.push(m2 + m * mean * mean);
    }
    Array::new(&[1 + 2 * sizes.c], [vec![m], first, second].concat())
}

/// The attributes that decide how statistics follow from sums.
pub(super) struct Finalize {
    pub epsilon: f64,
    pub momentum: f64,
    pub running_var: RunningVar,
}

/// What normalisation and the next step need of a batch.
pub(super) struct Statistics {
    pub mean: Array,
    pub inv_std: Array,
    pub running_mean: Array,
    pub running_var: Array,
}

impl Finalize {
    /// From the samples of one rank.
    pub fn own_samples(
        &self,
        x: &Array,
        running_mean: &Array,
        running_var: &Array,
    ) -> Result<Statistics, String> {
        let sizes = Channels::of(x);
        let count = sizes.per_channel() as f64;
        let (mut mean, mut var) = (Vec::new(), Vec::new());
        for c in 0..sizes.c {
            let (own_mean, m2) = mean_and_m2(sizes.positions(c).map(|p| x.data[p]));
            mean.push(own_mean);
            var.push(if count > 0.0 { m2 / count } else { 0.0 });
        }
        self.statistics(count, mean, &var, running_mean, running_var)
    }

    /// From moments summed over ranks; returns the count as well.
    pub fn summed_moments(
        &self,
        moments: &Array,
        running_mean: &Array,
        running_var: &Array,
    ) -> Result<(f64, Statistics), String> {
        let c = running_mean.len();
        let count = moments.data[0];
        let divisor = if count > 0.0 { count } else { 1.0 };
        let mean: Vec<f64> = (0..c).map(|i| moments.data[1 + i] / divisor).collect();
        let var: Vec<f64> = (0..c)
            .map(|i| (moments.data[1 + c + i] / divisor - mean[i] * mean[i]).max(0.0))
            .collect();
        Ok((
            count,
            self.statistics(count, mean, &var, running_mean, running_var)?,
        ))
    }

    fn statistics(
        &self,
        count: f64,
        mean: Vec<f64>,
        var: &[f64],
        running_mean: &Array,
        running_var: &Array,
    ) -> Result<Statistics, String> {
        let dims = [mean.len()];
        if count == 0.0 {
            return Ok(Statistics {
                mean: Array::zeros(&dims),
                inv_std: Array::zeros(&dims),
                running_mean: running_mean.clone(),
                running_var: running_var.clone(),
            });
        }
        if count == 1.0 {
            return Err("one value per channel has no variance to normalise by".to_string());
        }
        let correction = match self.running_var {
            RunningVar::Pytorch => count / (count - 1.0),
            RunningVar::Population => 1.0,
        };
        let a = self.momentum;
        let next = |running: &Array, batch: &[f64], factor: f64| {
            let pairs = running.data.iter().zip(batch);
            Array::new(
                &dims,
                pairs.map(|(&r, &b)| (1.0 - a) * r + a * (b * factor)).collect(),
            )
        };
        let inv_std = var.iter().map(|&v| 1.0 / (v + self.epsilon).sqrt()).collect();
        Ok(Statistics {
            running_mean: next(running_mean, &mean, 1.0),
            running_var: next(running_var, var, correction),
            inv_std: Array::new(&dims, inv_std),
            mean: Array::new(&dims, mean),
        })
    }
}

/// `(x - mean) * inv_std * scale + bias`.
pub(super) fn normalize(x: &Array, mean: &Array, inv_std: &Array, scale: &Array, bias: &Array) -> Array {
    let sizes = Channels::of(x);
    let mut y = Array::zeros(&x.dims);
    for c in 0..sizes.c {
        for p in sizes.positions(c) {
            let normalized = (x.data[p] - mean.data[c]) * inv_std.data[c];
            y.data[p] = normalized * scale.data[c] + bias.data[c];
        }
    }
    y
}

/// `[sum dz (C), sum dz * xhat (C)]`.
pub(super) fn backward_sums(x: &Array, dz: &Array, mean: &Array, inv_std: &Array) -> Array {
    let sizes = Channels::of(x);
    let mut sums = Array::zeros(&[2 * sizes.c]);
    for c in 0..sizes.c {
        for p in sizes.positions(c) {
            sums.data[c] += dz.data[p];
            sums.data[sizes.c + c] += dz.data[p] * (x.data[p] - mean.data[c]) * inv_std.data[c];
        }
    }
    sums
}

/// `scale * inv_std * (dz - B/N - xhat * G/N)` with `sums = [B, G]` and `N = count`.
pub(super) fn backward_data(
    x: &Array,
    dz: &Array,
    mean: &Array,
    inv_std: &Array,
    scale: &Array,
    sums: &Array,
    count: f64,
) -> Array {
    let sizes = Channels::of(x);
    let mut dx = Array::zeros(&x.dims);
    for c in 0..sizes.c {
        let (b, g) = (sums.data[c] / count, sums.data[sizes.c + c] / count);
        for p in sizes.positions(c) {
            let xhat = (x.data[p] - mean.data[c]) * inv_std.data[c];
            dx.data[p] = scale.data[c] * inv_std.data[c] * (dz.data[p] - b - xhat * g);
        }
    }
    dx
}
