//! The CPU part of a program: its description, its functions, and the initial values.

use syncbn_abi::{AdamWArguments, Model, StepArguments, UpdateArguments};

use crate::{error::Result, functions};

/// A generated step. Callers must pass arguments that match the model's description.
pub type StepFunction = unsafe extern "C" fn(*const StepArguments) -> i32;
/// The generated update of the weights by SGD.
pub type UpdateFunction = unsafe extern "C" fn(*const UpdateArguments) -> i32;
/// The generated update of the weights by AdamW.
pub type AdamWFunction = unsafe extern "C" fn(*const AdamWArguments) -> i32;

/// The generated updates of the weights.
#[derive(Debug, Clone, Copy)]
pub struct Updates {
    /// Stochastic gradient descent.
    pub sgd: UpdateFunction,
    /// AdamW.
    pub adamw: AdamWFunction,
}

/// The CPU part.
#[derive(Debug, Clone)]
pub struct CpuPart {
    /// The description.
    pub model: Model,
    /// Initial values of tensors.
    pub data: &'static [u8],
    /// Present if [`Model::train`].
    pub train_step: Option<StepFunction>,
    /// Present if [`Model::train`].
    pub update_sgd: Option<UpdateFunction>,
    /// Present if [`Model::train`].
    pub update_adamw: Option<AdamWFunction>,
    /// Present if [`Model::infer`].
    pub infer_prepare: Option<StepFunction>,
    /// Present if [`Model::infer`].
    pub infer_step: Option<StepFunction>,
}

impl CpuPart {
    /// The training functions, or an error that says how to get them.
    pub fn training(&self) -> Result<(StepFunction, Updates)> {
        let functions = (self.train_step, self.update_sgd, self.update_adamw);
        functions::training(&self.model, functions).map(|(step, sgd, adamw)| (step, Updates { sgd, adamw }))
    }

    /// The inference functions (prepare, step), or an error that says how to get them.
    pub fn inference(&self) -> Result<(StepFunction, StepFunction)> {
        functions::inference(&self.model, (self.infer_prepare, self.infer_step))
    }
}
