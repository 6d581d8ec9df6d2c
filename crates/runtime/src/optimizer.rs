//! The optimisers and their hyper-parameters.

use syncbn_abi::{AdamWArguments, UpdateArguments};

/// An optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent, by the formula of [`UpdateArguments`].
    Sgd {
        /// Momentum.
        momentum: f64,
        /// Weight decay.
        weight_decay: f64,
        /// Nesterov's form.
        nesterov: bool,
    },
    /// AdamW, by the formula of [`AdamWArguments`].
    AdamW {
        /// Decay of the first moment, in `[0, 1)`.
        beta1: f64,
        /// Decay of the second moment, in `[0, 1)`.
        beta2: f64,
        /// Added to the denominator.
        epsilon: f64,
        /// Weight decay.
        weight_decay: f64,
    },
}

impl Optimizer {
    /// Whether it keeps a second moment beside the velocity (which AdamW uses as first moment).
    pub fn has_second_moment(self) -> bool {
        matches!(self, Optimizer::AdamW { .. })
    }
}

/// One update.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// The optimiser.
    pub optimizer: Optimizer,
    /// Learning rate.
    pub lr: f64,
    /// The step, from 0.
    pub step: u64,
}

/// What an update works on.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// The weights arena.
    pub weights: *mut u8,
    /// Summed gradients.
    pub gradients: *const u8,
    /// SGD's momentum buffer, AdamW's first moment.
    pub velocity: *mut u8,
    /// AdamW's second moment.
    pub second_moment: *mut u8,
    /// First element.
    pub begin: i64,
    /// One past the last element.
    pub end: i64,
}

/// What the generated update of an optimiser takes.
#[derive(Debug, Clone, Copy)]
pub enum Arguments {
    /// For `syncbn_update_sgd`.
    Sgd(UpdateArguments),
    /// For `syncbn_update_adamw`.
    AdamW(AdamWArguments),
}

impl Update {
    /// The arguments for `slice`.
    pub fn arguments(self, slice: Slice) -> Arguments {
        let Slice {
            weights,
            gradients,
            velocity,
            second_moment,
            begin,
            end,
        } = slice;
        let lr = self.lr;
        match self.optimizer {
            Optimizer::Sgd {
                momentum,
                weight_decay,
                nesterov,
            } => Arguments::Sgd(UpdateArguments {
                weights,
                gradients,
                velocity,
                begin,
                end,
                first: i64::from(self.step == 0),
                nesterov: i64::from(nesterov),
                lr,
                momentum,
                weight_decay,
            }),
            Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                let correction = |beta| 1.0 - libm::pow(beta, (self.step + 1) as f64);
                Arguments::AdamW(AdamWArguments {
                    weights,
                    gradients,
                    first_moment: velocity,
                    second_moment,
                    begin,
                    end,
                    lr,
                    beta1,
                    beta2,
                    epsilon,
                    weight_decay,
                    correction1: correction(beta1),
                    correction2: correction(beta2),
                })
            }
        }
    }
}
