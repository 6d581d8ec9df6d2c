//! A compiled model as the runtime sees it: its parts, each with a description and functions, and the initial
//! values.

use std::sync::Arc;

use syncbn_abi::{AdamWArguments, GpuArguments, Model, StepArguments, UpdateArguments};

use crate::{
    error::{Error, Result},
    gpu::Devices,
};

/// A generated step. Callers must pass arguments that match the model's description.
pub type StepFunction = unsafe extern "C" fn(*const StepArguments) -> i32;
/// The generated update of the weights by SGD.
pub type UpdateFunction = unsafe extern "C" fn(*const UpdateArguments) -> i32;
/// The generated update of the weights by AdamW.
pub type AdamWFunction = unsafe extern "C" fn(*const AdamWArguments) -> i32;
/// A generated function of the GPU part. Callers must pass arguments that match the model's description.
pub type GpuFunction = unsafe extern "C" fn(*const GpuArguments) -> i32;
pub use crate::gpu::emulator::EmulatedKernel;

/// The generated updates of the weights.
#[derive(Debug, Clone, Copy)]
pub struct Updates {
    /// Stochastic gradient descent.
    pub sgd: UpdateFunction,
    /// AdamW.
    pub adamw: AdamWFunction,
}

/// The generated updates of the weights on a GPU.
#[derive(Debug, Clone, Copy)]
pub struct GpuUpdates {
    /// Stochastic gradient descent.
    pub sgd: GpuFunction,
    /// AdamW.
    pub adamw: GpuFunction,
}

/// A compiled model. Whoever makes one vouches that the functions keep to the contract of `syncbn-abi` for
/// the arenas and tensors that the models describe. It has at least one part.
#[derive(Debug, Clone)]
pub struct Program {
    /// What runs on the CPU.
    pub cpu: Option<Arc<CpuPart>>,
    /// What runs on GPUs, real and emulated ones.
    pub gpu: Option<Arc<GpuPart>>,
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

/// The GPU part.
#[derive(Debug, Clone)]
pub struct GpuPart {
    /// The description; its [`Model::gpu`] is there.
    pub model: Model,
    /// Initial values of tensors.
    pub data: &'static [u8],
    /// Present if [`Model::train`].
    pub train_step: Option<GpuFunction>,
    /// Present if [`Model::train`].
    pub update_sgd: Option<GpuFunction>,
    /// Present if [`Model::train`].
    pub update_adamw: Option<GpuFunction>,
    /// Present if [`Model::infer`].
    pub infer_prepare: Option<GpuFunction>,
    /// Present if [`Model::infer`].
    pub infer_step: Option<GpuFunction>,
    /// Constants of the training graph.
    pub train_constants: &'static [u8],
    /// Constants of the inference graph.
    pub infer_constants: &'static [u8],
    /// A line with the JSON text of [`syncbn_abi::Images`], then the images; empty without device code.
    pub images: &'static [u8],
    /// The emulated kernels, in the order of [`syncbn_abi::Gpu::kernels`]; empty without them.
    pub emulated_kernels: &'static [EmulatedKernel],
    /// Where devices come from.
    pub devices: Devices,
}

impl Program {
    /// The description of the first part: that of the CPU, if there is one.
    pub fn model(&self) -> Result<&Model> {
        let cpu = self.cpu.as_ref().map(|part| &part.model);
        cpu.or(self.gpu.as_ref().map(|part| &part.model))
            .ok_or_else(|| Error::internal("the executable holds no model"))
    }
}

/// The functions that training needs, or an error that says how to get them.
fn training<Step, Sgd, AdamW>(
    model: &Model,
    functions: (Option<Step>, Option<Sgd>, Option<AdamW>),
) -> Result<(Step, Sgd, AdamW)> {
    match (model.train, functions) {
        (true, (Some(step), Some(sgd), Some(adamw))) => Ok((step, sgd, adamw)),
        (true, _) => Err(Error::internal(
            "the training functions are missing from the executable",
        )),
        _ => Err(
            Error::unsupported("this executable was compiled without training")
                .help("compile the model again with `syncbn-compile --mode both`"),
        ),
    }
}

/// The functions that inference needs, or an error that says how to get them.
fn inference<Step>(model: &Model, functions: (Option<Step>, Option<Step>)) -> Result<(Step, Step)> {
    match (model.infer, functions) {
        (true, (Some(prepare), Some(step))) => Ok((prepare, step)),
        (true, _) => Err(Error::internal(
            "the inference functions are missing from the executable",
        )),
        _ => Err(
            Error::unsupported("this executable was compiled without inference")
                .help("compile the model again with `syncbn-compile --mode both`"),
        ),
    }
}

impl CpuPart {
    /// The training functions, or an error that says how to get them.
    pub fn training(&self) -> Result<(StepFunction, Updates)> {
        let functions = (self.train_step, self.update_sgd, self.update_adamw);
        training(&self.model, functions).map(|(step, sgd, adamw)| (step, Updates { sgd, adamw }))
    }

    /// The inference functions (prepare, step), or an error that says how to get them.
    pub fn inference(&self) -> Result<(StepFunction, StepFunction)> {
        inference(&self.model, (self.infer_prepare, self.infer_step))
    }
}

impl GpuPart {
    /// The training functions, or an error that says how to get them.
    pub fn training(&self) -> Result<(GpuFunction, GpuUpdates)> {
        let functions = (self.train_step, self.update_sgd, self.update_adamw);
        training(&self.model, functions).map(|(step, sgd, adamw)| (step, GpuUpdates { sgd, adamw }))
    }

    /// The inference functions (prepare, step), or an error that says how to get them.
    pub fn inference(&self) -> Result<(GpuFunction, GpuFunction)> {
        inference(&self.model, (self.infer_prepare, self.infer_step))
    }
}
