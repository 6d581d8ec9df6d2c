//! A compiled model as the runtime sees it: its description, its functions and its initial values.

use syncbn_abi::{AdamWArguments, Model, StepArguments, UpdateArguments};

use crate::error::{Error, Result};

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

/// A compiled model. Whoever makes one vouches that the functions keep to the contract of `syncbn-abi` for
/// the arenas and tensors that `model` describes.
#[derive(Debug, Clone)]
pub struct Program {
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

impl Program {
    /// The training functions, or an error that says how to get them.
    pub fn training(&self) -> Result<(StepFunction, Updates)> {
        let functions = (self.train_step, self.update_sgd, self.update_adamw);
        match (self.model.train, functions) {
            (true, (Some(step), Some(sgd), Some(adamw))) => Ok((step, Updates { sgd, adamw })),
            (true, ..) => Err(Error::internal(
                "the training functions are missing from the executable",
            )),
            _ => Err(
                Error::unsupported("this executable was compiled without training")
                    .help("compile the model again with `syncbn-compile --mode both`"),
            ),
        }
    }

    /// The inference functions (prepare, step), or an error that says how to get them.
    pub fn inference(&self) -> Result<(StepFunction, StepFunction)> {
        match (self.model.infer, self.infer_prepare, self.infer_step) {
            (true, Some(prepare), Some(step)) => Ok((prepare, step)),
            (true, ..) => Err(Error::internal(
                "the inference functions are missing from the executable",
            )),
            _ => Err(
                Error::unsupported("this executable was compiled without inference")
                    .help("compile the model again with `syncbn-compile --mode both`"),
            ),
        }
    }
}
