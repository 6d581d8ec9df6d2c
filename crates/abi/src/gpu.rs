//! The GPU part of a model: what its host code and the runtime share. The same host code drives the CUDA
//! driver and the emulator; only what the runtime's functions do differs.
//!
//! A *stream*, a *communicator* and a *context* are opaque pointers that the runtime hands to generated code,
//! which hands them back. Kernels are named by their index in [`Gpu::kernels`]. All memory that kernels see is
//! device memory; [`GpuArguments`] itself, and the tables it points to, lie in host memory.
//!
//! A step enqueues work and returns: it allocates, synchronises and creates nothing, so that a CUDA graph can
//! capture it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Cpu, StepArguments};

/// Names of the symbols that cross the boundary of the GPU part.
pub mod gpu_symbols {
    /// `i32 (const GpuArguments*)`: enqueues forward, backward and all collectives of one training step.
    pub const TRAIN_STEP: &str = "syncbn_gpu_train_step";
    /// `i32 (const GpuArguments*)`: enqueues the filling of the prepared arena.
    pub const INFER_PREPARE: &str = "syncbn_gpu_infer_prepare";
    /// `i32 (const GpuArguments*)`: enqueues inference on `n` samples.
    pub const INFER_STEP: &str = "syncbn_gpu_infer_step";
    /// `i32 (const GpuArguments*)`: enqueues the SGD update of all trained weights, with the
    /// [`crate::UpdateArguments`] that [`super::GpuArguments::update`] points to.
    pub const UPDATE_SGD: &str = "syncbn_gpu_update_sgd";
    /// As [`UPDATE_SGD`], AdamW with [`crate::AdamWArguments`].
    pub const UPDATE_ADAMW: &str = "syncbn_gpu_update_adamw";

    /// `const u8[]`: constants of the training graph; the step's `constants` is a device copy of them.
    pub const TRAIN_CONSTANTS: &str = "syncbn_gpu_train_constants";
    /// `const u8[]`: constants of the inference graph.
    pub const INFER_CONSTANTS: &str = "syncbn_gpu_infer_constants";
    /// `const u8[]`: the device code, a JSON [`super::Images`] table followed by the images.
    pub const IMAGES: &str = "syncbn_gpu_images";
    /// `void (*const[])(void* const* parameters)`: the emulated kernels, in order of their indices. Each runs
    /// one thread of the kernel; where that thread is, it asks the runtime.
    pub const EMULATED_KERNELS: &str = "syncbn_emulated_kernels";
    /// `const void*`: [`RUNTIME_CUDA`], by which an executable with a GPU part has what drives GPUs.
    pub const CUDA: &str = "syncbn_cuda";
    /// Provided by the runtime: how GPUs are counted and opened.
    pub const RUNTIME_CUDA: &str = "syncbn_rt_cuda";
    /// `const void*`: [`RUNTIME_EMULATOR`], by which an executable with emulated kernels has the emulator.
    pub const EMULATOR: &str = "syncbn_emulator";
    /// Provided by the runtime: how emulated GPUs are opened.
    pub const RUNTIME_EMULATOR: &str = "syncbn_rt_emulator";
    /// `u8[]`, provided by the runtime: the shared memory of the emulated block.
    pub const EMULATED_SHARED: &str = "syncbn_emulated_shared";
    /// Prefix of the runtime's functions that stand for NVVM intrinsics: `llvm.nvvm.a.b` becomes `syncbn_emu_a_b`.
    /// Special registers (`read.ptx.sreg.*`) are `i32 ()`; all others are `void (const void* arguments, void*
    /// result)`, where the arguments lie as in a C structure and so does a structure result. After the last argument
    /// comes, as i64, the `base` of each argument that points to global memory, as in [`EMULATED_ACCESS`].
    pub const EMULATED_INTRINSIC: &str = "syncbn_emu_";
    /// Provided by the runtime: `void (const void* address, i64 place, i64 bytes, i64 alignment, i64 write, i64 base)`,
    /// called before every access of emulated kernels to global or shared memory. `place` numbers the instructions of a
    /// function that access memory, so that what a warp does at once can be seen together. `base` is the number of the kernel's
    /// parameter that the address is based on, [`super::BASE_UNKNOWN`] or [`super::BASE_SHARED`].
    pub const EMULATED_ACCESS: &str = "syncbn_emu_access";

    /// Provided by the runtime: `void (void* stream, i64 kernel, i64 grid_x, i64 grid_y, i64 grid_z,
    /// void** parameters)`. Enqueues a kernel with the block and shared memory that the kernel's description
    /// says; does nothing when a grid dimension is 0. `parameters[i]` points to the value of parameter `i`.
    /// The first failure of a stream is kept and reported when the runtime waits for it.
    pub const LAUNCH: &str = "syncbn_rt_launch";
    /// Provided by the runtime: `void (void* waiting, void* signalling)`. Work enqueued on stream `waiting`
    /// from now on starts after everything enqueued on `signalling` so far.
    pub const STREAM_WAIT: &str = "syncbn_rt_stream_wait";
    /// Provided by the runtime, with NCCL's signature: `i32 (const void* send, void* receive, u64 count,
    /// i32 data_type, i32 operation, void* communicator, void* stream)`.
    pub const NCCL_ALL_REDUCE: &str = "ncclAllReduce";
    /// Provided by the runtime: `i32 ()`.
    pub const NCCL_GROUP_START: &str = "ncclGroupStart";
    /// Provided by the runtime: `i32 ()`.
    pub const NCCL_GROUP_END: &str = "ncclGroupEnd";
    /// Provided by the runtime: `void (void* stream, i32 status)`. Keeps the first status that is not 0.
    pub const NCCL_CHECK: &str = "syncbn_rt_nccl_check";
    /// Provided by the runtime: as [`crate::symbols::TRACE`], with device data and the stream in front:
    /// `void (void* stream, void* context, i64 node, i64 output, const void* data, i64 elements)`.
    pub const TRACE: &str = "syncbn_rt_gpu_trace";
}

/// `ncclFloat32` of NCCL's `ncclDataType_t`.
pub const NCCL_FLOAT32: i32 = 7;
/// `ncclFloat64`.
pub const NCCL_FLOAT64: i32 = 8;
/// `ncclSum` of NCCL's `ncclRedOp_t`.
pub const NCCL_SUM: i32 = 0;

/// What an address is based on: global memory, but no single parameter, such as a pointer that the kernel has loaded.
pub const BASE_UNKNOWN: i64 = -1;
/// What an address is based on: shared memory.
pub const BASE_SHARED: i64 = -2;

/// Bytes of shared memory of an emulated block: what sm_90 allows.
pub const SHARED_LIMIT: u64 = 232_448;

/// The arguments of one call of the GPU part.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GpuArguments {
    /// As on the CPU, with device pointers for arenas, tensors and loss; the tables `inputs` and `outputs`
    /// are host memory.
    pub step: StepArguments,
    /// Device copy of the graph's constants.
    pub constants: *const u8,
    /// Device copy of the update's arguments, which hold device pointers; null in steps.
    pub update: *const u8,
    /// The stream of all kernels and of BatchNorm's collectives.
    pub stream: *mut core::ffi::c_void,
    /// The stream of the gradients' collectives; may be the same.
    pub gradient_stream: *mut core::ffi::c_void,
    /// One communicator for each of [`crate::Model::collectives`]; null with one rank.
    pub communicators: *const *mut core::ffi::c_void,
}

/// The GPU part of a [`crate::Model`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// `f32`, `tf32` or `bf16`.
    pub precision: String,
    /// The executable holds device code for NVIDIA GPUs.
    pub cuda: bool,
    /// The executable holds the kernels compiled for the emulator.
    pub emulated: bool,
    /// The processor that the emulated kernels are compiled for; None without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulated_cpu: Option<Cpu>,
    /// The kernels, by index.
    pub kernels: Vec<GpuKernel>,
    /// Bytes of the training graph's constants.
    pub train_constants: u64,
    /// Bytes of the inference graph's constants.
    pub infer_constants: u64,
}

/// A kernel, as it is launched for tensors of certain shapes: several of these may share code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuKernel {
    /// Symbol of its device code.
    pub name: String,
    /// Threads of a block; blocks are one-dimensional.
    pub block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
    /// Whether its threads meet (barriers, shuffles, matrix instructions); if not, the emulator runs them one
    /// after the other.
    pub cooperative: bool,
    /// What each pointer parameter may touch, in order: tensors, then the node's workspace. After them come `n` (i32, samples
    /// of this rank) and `total` (i64, samples of all ranks). None for the updates, which have one parameter, the
    /// pointer to their arguments, and may touch every allocation.
    pub parameters: Option<Vec<GpuParameter>>,
    /// If not 0, one parameter more follows: so many i32, passed by value.
    pub numbers: u32,
    /// What it is launched for, for messages: names of nodes, and "loss" for the copy of the loss. None for the updates.
    pub nodes: Vec<String>,
}

/// `kernel "conv_3" of nodes "a", "b", "c" and 2 more`
impl fmt::Display for GpuKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        write!(f, "kernel \"{}\"", self.name)?;
        let plural = if self.nodes.len() > 1 { "s" } else { "" };
        for (i, node) in self.nodes.iter().take(SHOWN).enumerate() {
            match i {
                0 => write!(f, " of node{plural} \"{node}\"")?,
                _ => write!(f, ", \"{node}\"")?,
            }
        }
        match self.nodes.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// What a kernel may touch through one pointer parameter. The emulator refuses every other access through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuParameter {
    /// Bytes that do not depend on the batch.
    pub bytes: u64,
    /// Further bytes for each sample.
    pub bytes_per_sample: u64,
    /// Whether it may be written.
    pub written: bool,
}

/// Device code: what precedes the images in [`gpu_symbols::IMAGES`], as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Images {
    /// The images, in the order in which they follow.
    pub images: Vec<Image>,
}

/// One image of the device code, which holds all kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `ptx` or `cubin`.
    pub kind: String,
    /// Compute capability it is for, such as 80: the lowest for PTX, the only major one for a cubin.
    pub compute_capability: u32,
    /// Length in bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_say_whose_they_are() {
        let kernel = |count: usize| GpuKernel {
            name: "conv_3".to_string(),
            block: 256,
            shared: 0,
            cooperative: false,
            parameters: None,
            numbers: 0,
            nodes: ["a", "b", "c", "d", "e"][..count]
                .iter()
                .map(|&node| node.into())
                .collect(),
        };
        for (count, text) in [
            (0, "kernel \"conv_3\""),
            (1, "kernel \"conv_3\" of node \"a\""),
            (3, "kernel \"conv_3\" of nodes \"a\", \"b\", \"c\""),
            (5, "kernel \"conv_3\" of nodes \"a\", \"b\", \"c\" and 2 more"),
        ] {
            assert_eq!(kernel(count).to_string(), text);
        }
    }
}
