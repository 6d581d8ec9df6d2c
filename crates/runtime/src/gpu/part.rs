//! The GPU part of a program: its description, its functions, device code, and the initial values.

use std::ffi::c_void;

use syncbn_abi::{GpuArguments, Model};

use super::Devices;
use crate::{error::Result, functions};

/// A generated function of the GPU part. Callers must pass arguments that match the model's description.
pub type GpuFunction = unsafe extern "C" fn(*const GpuArguments) -> i32;
/// An emulated kernel: runs one thread, with pointers to the values of its parameters.
pub type EmulatedKernel = unsafe extern "C" fn(*const *const c_void);

/// The generated updates of the weights on a GPU.
#[derive(Debug, Clone, Copy)]
pub struct GpuUpdates {
    /// Stochastic gradient descent.
    pub sgd: GpuFunction,
    /// AdamW.
    pub adamw: GpuFunction,
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

impl GpuPart {
    /// The training functions, or an error that says how to get them.
    pub fn training(&self) -> Result<(GpuFunction, GpuUpdates)> {
        let functions = (self.train_step, self.update_sgd, self.update_adamw);
        functions::training(&self.model, functions)
            .map(|(step, sgd, adamw)| (step, GpuUpdates { sgd, adamw }))
    }

    /// The inference functions (prepare, step), or an error that says how to get them.
    pub fn inference(&self) -> Result<(GpuFunction, GpuFunction)> {
        functions::inference(&self.model, (self.infer_prepare, self.infer_step))
    }
}
