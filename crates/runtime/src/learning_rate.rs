//! Learning rates.

use std::f64::consts::PI;

/// How the learning rate changes after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// It stays.
    Constant,
    /// PyTorch's CosineAnnealingLR to 0, stepped once a step, over the steps after the warm-up:
    /// `base * (1 + cos(pi * t / T)) / 2`.
    Cosine,
    /// PyTorch's StepLR: multiplied by `gamma` after every `steps` steps, counted from the run's start.
    Step {
        /// Steps between two changes, above 0.
        steps: u64,
        /// The factor.
        gamma: f64,
    },
}

/// The learning rates of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRate {
    /// The learning rate that the warm-up reaches and the shape starts from.
    pub base: f64,
    /// How it changes.
    pub shape: Shape,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the run, the warm-up included.
    pub steps: u64,
}

impl LearningRate {
    /// The learning rate of step `step` (from 0). The warm-up is linear: `base * (step + 1) / warmup`, which is
    /// PyTorch's LinearLR from `1 / warmup` to 1 over `warmup - 1` steps.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.base * ((step + 1) as f64 / self.warmup as f64);
        }
        match self.shape {
            Shape::Constant => self.base,
            Shape::Cosine => {
                let (step, steps) = (step - self.warmup, self.steps.saturating_sub(self.warmup));
                self.base * (1.0 + libm::cos(PI * step as f64 / steps.max(1) as f64)) / 2.0
            }
            Shape::Step { steps, gamma } => self.base * libm::pow(gamma, (step / steps.max(1)) as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shape: Shape, warmup: u64, steps: u64) -> Vec<f64> {
        let rate = LearningRate {
            base: 0.2,
            shape,
            warmup,
            steps,
        };
        (0..steps).map(|step| rate.at(step)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= 1e-14 * expected.abs().max(0.01),
                "{step}: {found} {expected}"
            );
        }
    }

    /// PyTorch's CosineAnnealingLR with eta_min = 0, in the form that goes from step to step.
    fn cosine_annealing(base: f64, steps: u64) -> Vec<f64> {
        let factor = |t: u64| 1.0 + (PI * t as f64 / steps as f64).cos();
        let mut lr = base;
        let mut all = vec![lr];
        for t in 1..steps {
            lr *= factor(t) / factor(t - 1);
            all.push(lr);
        }
        all
    }

    #[test]
    fn cosine_is_cosine_annealing() {
        let lr = run(Shape::Cosine, 0, 10);
        assert_eq!(lr[0], 0.2);
        assert!((lr[5] - 0.1).abs() < 1e-15);
        // 0.2 * (1 + cos(0.3 pi)) / 2
        assert!((lr[3] - 0.158_778_525_229_247_3).abs() < 1e-15);
        assert_close(&lr, &cosine_annealing(0.2, 10));
        assert_close(&run(Shape::Cosine, 0, 97), &cosine_annealing(0.2, 97));
    }

    #[test]
    fn step_multiplies_by_gamma_from_time_to_time() {
        let shape = Shape::Step { steps: 3, gamma: 0.3 };
        let mut lr = 0.2;
        let mut expected = Vec::new();
        for step in 0..14 {
            // PyTorch's StepLR in the form that goes from step to step.
            if step != 0 && step % 3 == 0 {
                lr *= 0.3;
            }
            expected.push(lr);
        }
        assert_close(&run(shape, 0, 14), &expected);
    }

    #[test]
    fn warmup_is_linear_and_the_cosine_spans_the_rest() {
        // PyTorch's LinearLR(start_factor=1/4, total_iters=3).
        let linear: Vec<f64> = (0..4).map(|t| 0.2 * (0.25 + 0.75 * f64::from(t) / 3.0)).collect();
        let cosine = run(Shape::Cosine, 4, 11);
        assert_close(&cosine[..4], &linear);
        assert_close(&cosine[4..], &cosine_annealing(0.2, 7));
        let constant = run(Shape::Constant, 4, 6);
        assert_close(&constant[..4], &linear);
        assert_eq!(constant[3..], [0.2; 3]);
        // The changes come when they would without a warm-up.
        let step = run(Shape::Step { steps: 3, gamma: 0.5 }, 4, 7);
        assert_close(&step[..4], &linear);
        assert_close(&step[4..], &[0.1, 0.1, 0.05]);
        // A run may end within its warm-up.
        assert_close(&run(Shape::Cosine, 4, 2), &linear[..2]);
    }
}
