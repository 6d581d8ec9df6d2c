//! Learning rates.

use std::f64::consts::PI;

use clap::ValueEnum;

/// How the learning rate changes over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Schedule {
    /// Always --lr.
    Constant,
    /// lr(t) = --lr * (1 + cos(pi * t / T)) / 2 in step t = 0, 1, …, T-1 of all T steps.
    Cosine,
}

impl Schedule {
    /// The learning rate of step `step` (from 0) of `steps`. The cosine is PyTorch's CosineAnnealingLR to 0,
    /// stepped once a step.
    pub fn lr(self, base: f64, step: u64, steps: u64) -> f64 {
        match self {
            Schedule::Constant => base,
            Schedule::Cosine => base * (1.0 + libm::cos(PI * step as f64 / steps.max(1) as f64)) / 2.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_starts_at_the_base_and_would_end_at_0() {
        let lr = |step| Schedule::Cosine.lr(0.2, step, 10);
        assert_eq!(lr(0), 0.2);
        assert!((lr(5) - 0.1).abs() < 1e-15);
        assert!(lr(10).abs() < 1e-15);
        // 0.2 * (1 + cos(0.3 pi)) / 2
        assert!((lr(3) - 0.158_778_525_229_247_3).abs() < 1e-15);
        assert_eq!(Schedule::Constant.lr(0.2, 7, 10), 0.2);
    }
}
