//! What a compiled model and the runtime agree on: the symbols a model exports, the symbols it calls,
//! the arguments of a step, and the model's description.
//!
//! A model object defines the functions and data named in [`symbols`]. Every generated function takes one
//! pointer to [`StepArguments`] and returns 0, or the non-zero status that a runtime call gave it.
//!
//! Arenas. Each lifetime class of values has one arena; offsets are in bytes and multiples of
//! [`ALIGNMENT`].
//!
//! | arena | copies | holds |
//! |---|---|---|
//! | weights | one a process, shared by its ranks | parameters; the trained ones first, in `[0, trained_bytes)` |
//! | gradients | one a rank | gradients, at the byte offsets that the trained parameters have in `weights` |
//! | velocity | one a process | SGD's momentum buffer or AdamW's first moment, at the same offsets |
//! | second moment | one a process, only under AdamW | AdamW's second moment, at the same offsets |
//! | statistics | one a rank | running means and variances |
//! | prepared | one a process | what inference derives from weights alone (folded BatchNorm) |
//! | step | one a rank | everything else; valid within one call |

mod gpu;
mod model;

use serde::{Deserialize, Serialize};

pub use gpu::{
    BASE_SHARED, BASE_UNKNOWN, Gpu, GpuArguments, GpuKernel, GpuParameter, Image, Images, NCCL_FLOAT32,
    NCCL_FLOAT64, NCCL_SUM, SHARED_LIMIT, gpu_symbols,
};
pub use model::{
    Arenas, BatchNorm, Collective, Cpu, Initial, Model, Node, Order, Parameter, Target, Tensor, Uncombined,
    X86_64_V3,
};

/// Alignment in bytes of arenas and of every offset in them.
pub const ALIGNMENT: u64 = 64;

include!(concat!(env!("OUT_DIR"), "/symbol.rs"));

/// Names of the symbols that cross the boundary.
pub mod symbols {
    /// `i32 (const StepArguments*)`: forward, backward and all collectives of one training step. Ends with
    /// all-reduced gradients in the gradient arena and updated running statistics; weights are not touched.
    pub const TRAIN_STEP: &str = "syncbn_train_step";
    /// `i32 (const StepArguments*)`: fills the prepared arena from weights and statistics.
    pub const INFER_PREPARE: &str = "syncbn_infer_prepare";
    /// `i32 (const StepArguments*)`: inference on `n` samples; needs the prepared arena.
    pub const INFER_STEP: &str = "syncbn_infer_step";
    /// `i32 (const UpdateArguments*)`: the SGD update of elements `[begin, end)` of the trained weights.
    pub const UPDATE_SGD: &str = "syncbn_update_sgd";
    /// `i32 (const AdamWArguments*)`: the AdamW update of elements `[begin, end)` of the trained weights.
    pub const UPDATE_ADAMW: &str = "syncbn_update_adamw";
    /// `const u8[]`: constants of the training graph.
    pub const TRAIN_CONSTANTS: &str = "syncbn_train_constants";
    /// `const u8[]`: constants of the inference graph.
    pub const INFER_CONSTANTS: &str = "syncbn_infer_constants";
    /// `const u8[]`: the JSON text of a list of [`crate::Model`]s: one for each of the CPU and the GPU part.
    pub const MODEL: &str = "syncbn_model";
    /// `u64`: the length of [`MODEL`] in bytes.
    pub const MODEL_LENGTH: &str = "syncbn_model_length";
    /// `const u8[]`, aligned to [`crate::ALIGNMENT`]: initial values of tensors, see [`crate::Initial::Data`].
    pub const DATA: &str = "syncbn_data";
    /// `u64`: the length of [`DATA`] in bytes.
    pub const DATA_LENGTH: &str = "syncbn_data_length";

    /// Provided by the runtime: `i32 (void* context, i64 collective, const Segment*, i64 segments)`.
    /// Sums the segments over the ranks of the collective's scope, in place, in rank order.
    pub const ALL_REDUCE: &str = "syncbn_rt_all_reduce";
    /// Provided by the runtime: `void (void* context, i64 node, i64 output, const void* data, i64 elements)`.
    /// Called after every node, only when [`crate::StepArguments::trace`] is not 0. `output` is what
    /// [`crate::trace_output`] makes of the output's index and element type; a bare index means the
    /// model's element type.
    pub const TRACE: &str = "syncbn_rt_trace";
    /// Provided by the runtime: `i32 (void* context)`. Waits for the other threads of the rank; what each wrote before is
    /// visible to all after it. Not 0 if one of them has ended with a status that is not 0: this one must end too.
    pub const TEAM_BARRIER: &str = "syncbn_team_barrier";
}

/// The arguments of one call of a generated step. All pointers are aligned to [`ALIGNMENT`] unless said otherwise.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct StepArguments {
    /// Handed through to the runtime's functions.
    pub context: *mut core::ffi::c_void,
    /// The weights arena.
    pub weights: *mut u8,
    /// This rank's gradients arena; null in inference.
    pub gradients: *mut u8,
    /// This rank's statistics arena.
    pub statistics: *mut u8,
    /// The prepared arena; null in training.
    pub prepared: *mut u8,
    /// This rank's step arena.
    pub step: *mut u8,
    /// One pointer for each of [`Model::inputs`]: `n` samples, dense, of the input's element type.
    /// In training the target follows as the last pointer.
    pub inputs: *const *const u8,
    /// One pointer for each of [`Model::outputs`]: room for `n` samples, dense.
    pub outputs: *const *mut u8,
    /// Where the step writes the loss: one f64, already all-reduced. Null in inference.
    pub loss: *mut f64,
    /// Samples of this rank, 0 to the batch bound.
    pub n: i64,
    /// Samples of all ranks in this step.
    pub total: i64,
    /// Number of ranks; with 1 no collective is called.
    pub ranks: i64,
    /// Not 0: call [`symbols::TRACE`] after every node.
    pub trace: i64,
    /// Which thread of the rank this call is, from 0. Each thread of a rank calls the step, and with [`Model::threads`]
    /// the step takes its slice of every kernel's work; thread 0 alone calls collectives, traces, and stores the loss.
    pub thread: u64,
    /// Threads of the rank; 1 without [`Model::threads`].
    pub threads: u64,
    /// [`Arenas::scratch`] bytes of this thread's own, for what kernels need while they run; not used by thread 0, which has
    /// places in the step's arena.
    pub scratch: *mut u8,
    /// [`Arenas::partials`] bytes that the threads of the rank share, for what kernels need while they run.
    pub partials: *mut u8,
}

/// The arguments of [`symbols::UPDATE_SGD`]:
/// `d = g + weight_decay*p; v = first ? d : momentum*v + d; p -= lr * (nesterov ? d + momentum*v : v)`.
/// Hyper-parameters are f64 and are rounded to the model's element type only when that is f32.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct UpdateArguments {
    /// The weights arena.
    pub weights: *mut u8,
    /// Summed gradients.
    pub gradients: *const u8,
    /// The velocity arena.
    pub velocity: *mut u8,
    /// First element (not byte) to update.
    pub begin: i64,
    /// One past the last element to update.
    pub end: i64,
    /// Not 0 in the first step.
    pub first: i64,
    /// Not 0 for Nesterov's form.
    pub nesterov: i64,
    /// Learning rate.
    pub lr: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// The arguments of [`symbols::UPDATE_ADAMW`], after PyTorch's `AdamW` (Loshchilov and Hutter 2019). In step
/// `t = 1, 2, …`:
///
/// ```text
/// p -= lr*weight_decay * p
/// m = beta1*m + (1 - beta1)*g
/// v = beta2*v + (1 - beta2)*g^2
/// p -= lr/(1 - beta1^t) * m / (sqrt(v)/sqrt(1 - beta2^t) + epsilon)
/// ```
///
/// Moments are 0 before the first step. Hyper-parameters are f64; what of them is the same for all elements
/// is computed in f64, and rounded to the model's element type only when that is f32.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AdamWArguments {
    /// The weights arena.
    pub weights: *mut u8,
    /// Summed gradients.
    pub gradients: *const u8,
    /// The first moment, `m`: the velocity arena.
    pub first_moment: *mut u8,
    /// The second moment, `v`.
    pub second_moment: *mut u8,
    /// First element (not byte) to update.
    pub begin: i64,
    /// One past the last element to update.
    pub end: i64,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// `1 - beta1^t`
    pub correction1: f64,
    /// `1 - beta2^t`
    pub correction2: f64,
}

/// One contiguous piece of an all-reduce.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// First element.
    pub data: *mut u8,
    /// Number of elements.
    pub elements: i64,
    /// 0: f32, 1: f64.
    pub element_type: i64,
}

/// Element types of tensors that cross the boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ElementType {
    /// 32-bit IEEE float.
    F32,
    /// 64-bit IEEE float.
    F64,
    /// 64-bit signed integer.
    I64,
}

impl ElementType {
    /// Size of one element in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            ElementType::F32 => 4,
            ElementType::F64 | ElementType::I64 => 8,
        }
    }
}

/// Element types of what a step stores, which traces show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit IEEE float.
    F32,
    /// 64-bit IEEE float.
    F64,
    /// 64-bit signed integer.
    I64,
    /// The upper half of a 32-bit IEEE float.
    BF16,
}

impl StoredType {
    /// Size of one element in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            StoredType::BF16 => 2,
            StoredType::F32 => 4,
            StoredType::F64 | StoredType::I64 => 8,
        }
    }
}

impl From<ElementType> for StoredType {
    fn from(element_type: ElementType) -> StoredType {
        match element_type {
            ElementType::F32 => StoredType::F32,
            ElementType::F64 => StoredType::F64,
            ElementType::I64 => StoredType::I64,
        }
    }
}

/// The `output` argument of [`symbols::TRACE`]: the output's index in the low 32 bits, and above it 1 for
/// f32, 2 for f64, 3 for i64, 4 for bf16 (0, a bare index, stands for the model's element type).
pub const fn trace_output(index: u32, stored: StoredType) -> i64 {
    let code = match stored {
        StoredType::F32 => 1,
        StoredType::F64 => 2,
        StoredType::I64 => 3,
        StoredType::BF16 => 4,
    };
    (code << 32) | index as i64
}
