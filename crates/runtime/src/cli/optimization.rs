//! The flags of optimisers and learning rates, and which of them go together.

use clap::{Args, ValueEnum};

use crate::{
    error::{Error, Result},
    learning_rate::{LearningRate, Shape},
    optimizer::Optimizer,
};

/// The optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OptimizerName {
    /// d = g + weight_decay*p; v = d in the first step, else momentum*v + d; p -= lr*v.
    Sgd,
    /// p *= 1 - lr*weight_decay; m = beta1*m + (1-beta1)*g; v = beta2*v + (1-beta2)*g^2; in step t = 1, 2, …
    /// p -= lr/(1-beta1^t) * m / (sqrt(v)/sqrt(1-beta2^t) + epsilon).
    #[value(name = "adamw")]
    AdamW,
}

/// How the learning rate changes over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScheduleName {
    /// Always --lr.
    Constant,
    /// lr * (1 + cos(pi * t / T)) / 2 in step t = 0, 1, …, T-1 of the T steps after the warm-up.
    Cosine,
    /// lr * gamma^floor(e / step_size) in epoch e = 0, 1, … of the run.
    Step,
}

/// Flags of the optimiser and the learning rate.
#[derive(Debug, Clone, Args)]
pub struct Optimization {
    /// Optimiser
    #[arg(long, value_enum, default_value_t = OptimizerName::Sgd)]
    pub optimizer: OptimizerName,
    /// Learning rate [default: 0.05 with sgd, 0.001 with adamw]
    #[arg(long, value_name = "F", value_parser = not_negative)]
    pub lr: Option<f64>,
    /// Momentum; sgd only [default: 0.9]
    #[arg(long, value_name = "F", value_parser = not_negative)]
    pub momentum: Option<f64>,
    /// Nesterov's form of momentum; sgd only
    #[arg(long)]
    pub nesterov: bool,
    /// Decay of the first moment; adamw only [default: 0.9]
    #[arg(long, value_name = "F", value_parser = below_one)]
    pub beta1: Option<f64>,
    /// Decay of the second moment; adamw only [default: 0.999]
    #[arg(long, value_name = "F", value_parser = below_one)]
    pub beta2: Option<f64>,
    /// Added to the denominator; adamw only [default: 1e-8]
    #[arg(long, value_name = "F", value_parser = not_negative)]
    pub epsilon: Option<f64>,
    /// Weight decay, on every trained parameter [default: 0 with sgd, 0.01 with adamw]
    #[arg(long, value_name = "F", value_parser = not_negative)]
    pub weight_decay: Option<f64>,
    /// Learning rate over the run
    #[arg(long, value_enum, default_value_t = ScheduleName::Constant)]
    pub schedule: ScheduleName,
    /// Epochs after which the learning rate is multiplied by --gamma, again and again; needed by, and only with,
    /// --schedule step. A warm-up does not delay them
    #[arg(long, value_name = "E", value_parser = clap::value_parser!(u64).range(1..))]
    pub step_size: Option<u64>,
    /// Factor of --schedule step [default: 0.1]
    #[arg(long, value_name = "F", value_parser = not_negative)]
    pub gamma: Option<f64>,
    /// Steps in which the learning rate rises to --lr before the schedule sets it: lr * (t + 1) / S in step
    /// t = 0, 1, …, S-1. The cosine spans the steps that remain
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub warmup: u64,
}

impl Optimization {
    /// The optimiser. Flags of another one are refused.
    pub fn optimizer(&self) -> Result<Optimizer> {
        let sgd_only = [
            ("--momentum", self.momentum.is_some()),
            ("--nesterov", self.nesterov),
        ];
        let adamw_only = [
            ("--beta1", self.beta1.is_some()),
            ("--beta2", self.beta2.is_some()),
            ("--epsilon", self.epsilon.is_some()),
        ];
        let refuse = |flags: &[(&str, bool)], belongs: &str, chosen: &str| {
            let given = flags.iter().find(|(_, given)| *given);
            given.map_or(Ok(()), |(flag, _)| {
                Err(Error::user(format!(
                    "{flag} belongs to --optimizer {belongs}, but the optimiser is {chosen}"
                ))
                .help(format!("leave {flag} away, or give --optimizer {belongs}")))
            })
        };
        match self.optimizer {
            OptimizerName::Sgd => {
                refuse(&adamw_only, "adamw", "sgd")?;
                Ok(Optimizer::Sgd {
                    momentum: self.momentum.unwrap_or(0.9),
                    weight_decay: self.weight_decay.unwrap_or(0.0),
                    nesterov: self.nesterov,
                })
            }
            OptimizerName::AdamW => {
                refuse(&sgd_only, "sgd", "adamw")?;
                Ok(Optimizer::AdamW {
                    beta1: self.beta1.unwrap_or(0.9),
                    beta2: self.beta2.unwrap_or(0.999),
                    epsilon: self.epsilon.unwrap_or(1e-8),
                    weight_decay: self.weight_decay.unwrap_or(0.01),
                })
            }
        }
    }

    /// The learning rates of a run of `steps` steps. Flags of another schedule are refused.
    pub fn learning_rate(&self, steps: u64, steps_per_epoch: u64) -> Result<LearningRate> {
        let shape = match (self.schedule, self.step_size) {
            (ScheduleName::Step, Some(epochs)) => Shape::Step {
                steps: epochs.saturating_mul(steps_per_epoch),
                gamma: self.gamma.unwrap_or(0.1),
            },
            (ScheduleName::Step, None) => {
                return Err(Error::user("--schedule step needs --step-size")
                    .help("--step-size 30 multiplies the learning rate by --gamma after every 30 epochs"));
            }
            (ScheduleName::Constant | ScheduleName::Cosine, size) => {
                let given = [("--step-size", size.is_some()), ("--gamma", self.gamma.is_some())];
                if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
                    return Err(Error::user(format!("{flag} belongs to --schedule step"))
                        .help(format!("leave {flag} away, or give --schedule step")));
                }
                match self.schedule {
                    ScheduleName::Cosine => Shape::Cosine,
                    ScheduleName::Constant | ScheduleName::Step => Shape::Constant,
                }
            }
        };
        let default = match self.optimizer {
            OptimizerName::Sgd => 0.05,
            OptimizerName::AdamW => 1e-3,
        };
        Ok(LearningRate {
            base: self.lr.unwrap_or(default),
            shape,
            warmup: self.warmup,
            steps,
        })
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        Ok(_) => Err("must be a finite number, 0 or more".into()),
        Err(cause) => Err(cause.to_string()),
    }
}

fn below_one(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        Ok(_) => Err("must be 0 or more and below 1".into()),
        Err(cause) => Err(cause.to_string()),
    }
}
