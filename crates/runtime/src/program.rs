//! A compiled model as the runtime sees it: its parts, each with a description and functions, and the initial
//! values.

use std::sync::Arc;

use syncbn_abi::Model;

use crate::{
    cpu::part::CpuPart,
    error::{Error, Result},
    gpu::part::GpuPart,
};

/// A compiled model. Whoever makes one vouches that the functions keep to the contract of `syncbn-abi` for
/// the arenas and tensors that the models describe. It has at least one part.
#[derive(Debug, Clone)]
pub struct Program {
    /// What runs on the CPU.
    pub cpu: Option<Arc<CpuPart>>,
    /// What runs on GPUs, real and emulated ones.
    pub gpu: Option<Arc<GpuPart>>,
}

impl Program {
    /// The description of the first part: that of the CPU, if there is one.
    pub fn model(&self) -> Result<&Model> {
        let cpu = self.cpu.as_ref().map(|part| &part.model);
        cpu.or(self.gpu.as_ref().map(|part| &part.model))
            .ok_or_else(|| Error::internal("the executable holds no model"))
    }
}
