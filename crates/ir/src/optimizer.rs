//! The optimisers, in plain float64 arithmetic.

use crate::interpreter::State;
use crate::tensor::Array;

/// Moves a parameter along its gradient.
pub trait Optimizer {
    /// Updates `name` among the parameters of `state`, and what the optimiser remembers of it. Parameters
    /// that `state` does not have are ignored.
    fn update(&self, state: &mut State, name: &str, gradient: &Array);
}

/// Stochastic gradient descent: `d = g + weight_decay * p`; `v = d` in the first step, then `momentum * v + d`;
/// `p -= learning_rate * v`, or with Nesterov `p -= learning_rate * (d + momentum * v)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub learning_rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Whether the step looks ahead.
    pub nesterov: bool,
}

impl Optimizer for Sgd {
    fn update(&self, state: &mut State, name: &str, gradient: &Array) {
        let Some(parameter) = state.parameters.get_mut(name) else {
            return;
        };
        let pairs = parameter.data.iter().zip(&gradient.data);
        let direction: Vec<f64> = pairs.map(|(&p, &g)| g + self.weight_decay * p).collect();
        let v = match state.velocity.get(name) {
            None => direction.clone(),
            Some(v) => {
                let pairs = v.data.iter().zip(&direction);
                pairs.map(|(&v, &d)| self.momentum * v + d).collect()
            }
        };
        for ((p, &d), &v) in parameter.data.iter_mut().zip(&direction).zip(&v) {
            let step = if self.nesterov { d + self.momentum * v } else { v };
            *p -= self.learning_rate * step;
        }
        state
            .velocity
            .insert(name.to_string(), Array::new(&parameter.dims, v));
    }
}

/// AdamW (Loshchilov and Hutter 2019): in step `t = 1, 2, …`, with `m` (the state's velocity) and `v` (its second
/// moment) 0 before the first, `p -= learning_rate * weight_decay * p`; `m = beta1 * m + (1 - beta1) * g`;
/// `v = beta2 * v + (1 - beta2) * g^2`;
/// `p -= learning_rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

impl Optimizer for AdamW {
    fn update(&self, state: &mut State, name: &str, gradient: &Array) {
        let Some(parameter) = state.parameters.get_mut(name) else {
            return;
        };
        let zeros = || Array::zeros(&parameter.dims);
        let m = state.velocity.entry(name.to_string()).or_insert_with(zeros);
        let v = state.second_moment.entry(name.to_string()).or_insert_with(zeros);
        let correction = |beta: f64| 1.0 - beta.powf((state.steps + 1) as f64);
        let (correction1, correction2) = (correction(self.beta1), correction(self.beta2));
        for (i, &g) in gradient.data.iter().enumerate() {
            let (p, m, v) = (&mut parameter.data[i], &mut m.data[i], &mut v.data[i]);
            *p -= self.learning_rate * self.weight_decay * *p;
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
            let denominator = v.sqrt() / correction2.sqrt() + self.epsilon;
            *p -= self.learning_rate / correction1 * *m / denominator;
        }
    }
}
