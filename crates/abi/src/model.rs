//! The description of a compiled model, which travels as JSON.

use serde::{Deserialize, Serialize};

use crate::{ElementType, Gpu};

/// The description of a compiled model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Version of the compiler.
    pub compiler: String,
    /// Name of the network.
    pub name: String,
    /// The compile-time flags that shaped the model, in order: `("bn", "sync")`, …
    pub flags: Vec<(String, String)>,
    /// The targets of the executable: `cpu`, `cuda`, `cuda-emulated`.
    pub targets: Vec<String>,
    /// What a description of the GPU part adds; None in that of the CPU part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// The processor that the part's code is for; in a description of the GPU part, its host code.
    pub cpu: Cpu,
    /// Lowest glibc version the executable runs with, if known.
    pub glibc: Option<String>,
    /// Element type of parameters and activations.
    pub element_type: ElementType,
    /// Largest batch of one rank.
    pub batch_bound: u64,
    /// Whether the training functions are present.
    pub train: bool,
    /// Whether the inference functions are present.
    pub infer: bool,
    /// Whether a step divides its work between the threads of a rank ([`crate::StepArguments::threads`]).
    #[serde(default)]
    pub threads: bool,
    /// Data inputs, in the order of [`crate::StepArguments::inputs`].
    pub inputs: Vec<Tensor>,
    /// What training takes as `target`; None without training.
    pub target: Option<Target>,
    /// Outputs, in the order of [`crate::StepArguments::outputs`].
    pub outputs: Vec<Tensor>,
    /// All tensors of the weights arena: trained ones first, by offset.
    pub parameters: Vec<Parameter>,
    /// All tensors of the statistics arena.
    pub statistics: Vec<Parameter>,
    /// BatchNorm layers, in graph order.
    pub batch_norms: Vec<BatchNorm>,
    /// `sync`, `local`, `frozen` or `group=K`.
    pub batch_norm_mode: String,
    /// Collectives of one training step, in execution order; a call names one by its index.
    pub collectives: Vec<Collective>,
    /// What these were before independent ones were merged.
    pub uncombined: Uncombined,
    /// FNV-1a hash of the schedule of collectives.
    pub schedule_hash: u64,
    /// Nodes of the training graph, for [`crate::symbols::TRACE`].
    pub train_nodes: Vec<Node>,
    /// Nodes of the inference graph (prepare, then step), for [`crate::symbols::TRACE`].
    pub infer_nodes: Vec<Node>,
    /// Arena sizes in bytes.
    pub arenas: Arenas,
    /// Warnings of the compilation that matter to whoever runs the model.
    pub warnings: Vec<String>,
}

impl Model {
    /// The value of a compile-time flag in [`Model::flags`].
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags
            .iter()
            .find(|(flag, _)| flag == name)
            .map(|(_, value)| value.as_str())
    }

    /// Index in [`Model::outputs`] of what the loss is taken of: the one that the flag `loss-output` names,
    /// else the first.
    pub fn loss_output(&self) -> usize {
        let named = |name| self.outputs.iter().position(|output| output.name == name);
        self.flag("loss-output").and_then(named).unwrap_or(0)
    }
}

/// A processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// The value of `--cpu`.
    pub flag: String,
    /// LLVM's name of the processor.
    pub name: String,
    /// x86 features that the code may use, in LLVM's spelling without `+`. Those that every x86-64 has may be among
    /// them (`--cpu native`) or not; empty for any x86-64.
    pub features: Vec<String>,
}

/// Features of x86-64-v3 that not every x86-64 has, in LLVM's spelling.
pub const X86_64_V3: [&str; 14] = [
    "avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse3", "sse4.1",
    "sse4.2", "ssse3",
];

/// An input or output: its shape is `[n, shape...]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// ONNX name.
    pub name: String,
    /// Element type.
    pub element_type: ElementType,
    /// Sizes after the batch dimension.
    pub shape: Vec<u64>,
}

/// What `target` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Target {
    /// i64 class indices below `classes`, of shape `[n, shape...]`.
    Classes {
        /// Number of classes.
        classes: u64,
        /// Sizes after the batch dimension; empty for one label a sample.
        shape: Vec<u64>,
    },
    /// Values of the model's element type, of shape `[n, shape...]` (mean squared error).
    Values {
        /// Sizes after the batch dimension.
        shape: Vec<u64>,
    },
}

/// A tensor of the weights or statistics arena.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// ONNX initializer name: the name in safetensors files.
    pub name: String,
    /// Shape.
    pub shape: Vec<u64>,
    /// Byte offset in its arena.
    pub offset: u64,
    /// The order of its elements in memory.
    #[serde(default)]
    pub order: Order,
    /// Whether the optimiser updates it.
    pub trained: bool,
    /// How it starts.
    pub initial: Initial,
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Number of elements in memory, padding included.
    pub fn stored_elements(&self) -> u64 {
        match (self.order, self.shape.split_first()) {
            (Order::Filter { block }, Some((first, rest))) => {
                first.next_multiple_of(block.max(1)) * rest.iter().product::<u64>()
            }
            _ => self.elements(),
        }
    }
}

/// The order of a tensor's elements in an arena. Files and [`Initial`] values are row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Order {
    /// Row-major.
    #[default]
    Plain,
    /// Axis 1 innermost, behind the axes that follow it.
    ChannelsLast,
    /// Axis 0 in blocks: a block's elements innermost, axis 1 before them. The last block is padded with zeros.
    Filter {
        /// Elements of a block.
        block: u64,
    },
}

/// How a tensor gets its first value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Initial {
    /// Copied from byte `offset` of [`crate::symbols::DATA`], dense, in the model's element type.
    Data {
        /// Byte offset.
        offset: u64,
    },
    /// Every element is `value`.
    Fill {
        /// The value.
        value: f64,
    },
    /// Kaiming normal, fan-in: deviation `sqrt(2 / fan_in)`. The generator is seeded by `seed` and the
    /// parameter's name, so that the order of parameters does not matter.
    KaimingNormal {
        /// Inputs of one output: the product of the sizes after the first.
        fan_in: u64,
        /// The seed of `--init`.
        seed: u64,
    },
}

/// A BatchNorm layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchNorm {
    /// ONNX node name.
    pub name: String,
    /// Channels.
    pub channels: u64,
    /// Values of one channel in one sample (1 for 2-D inputs): with `n` samples a channel has
    /// `n * positions` values, and training needs at least 2 in what is normalised together.
    pub positions: u64,
    /// Whether statistics are of the data, so that the count rule applies (false for weight standardisation
    /// and frozen layers).
    pub counts: bool,
    /// Name of the running mean in [`Model::statistics`].
    pub running_mean: String,
    /// Name of the running variance.
    pub running_var: String,
    /// Byte offsets in the step arena of the last training step's mean and inverse deviation (f64, `channels`
    /// each), which stay valid until the next step; None for layers without batch statistics.
    pub saved: Option<(u64, u64)>,
}

/// A collective of the training step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Collective {
    /// What it is for, for `info`.
    pub name: String,
    /// 0: all ranks; K: groups of K neighbouring ranks.
    pub group: u64,
    /// Bytes that every rank contributes.
    pub bytes: u64,
    /// Whether it sums gradients. On GPUs these have a stream and communicators of their own.
    pub gradients: bool,
}

/// The collectives of one training step before independent ones were merged, for `info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Uncombined {
    /// How many.
    pub collectives: u64,
    /// Bytes that every rank contributes to them in all.
    pub bytes: u64,
}

/// A graph node, named in messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// ONNX node name it comes from.
    pub name: String,
    /// Operator in the graph's spelling.
    pub op: String,
    /// Multiplications and additions for each sample; 0 where the operator is no sum of products.
    #[serde(default)]
    pub flops: u64,
    /// Bytes of its operands and results for each sample, at the batch bound.
    #[serde(default)]
    pub bytes: u64,
    /// What computes it; empty where there is one way only.
    #[serde(default)]
    pub schedule: String,
}

/// Sizes of the arenas in bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Arenas {
    /// Weights.
    pub weights: u64,
    /// The part of `weights` that is trained; also the size of gradients, of velocity and of the second moment.
    pub trained: u64,
    /// Statistics of one rank.
    pub statistics: u64,
    /// Prepared values for inference.
    pub prepared: u64,
    /// Step arena of one training rank.
    pub train_step: u64,
    /// Step arena of one inferring rank.
    pub infer_step: u64,
    /// What each thread of a rank but the first needs while kernels run.
    #[serde(default)]
    pub scratch: u64,
    /// What the threads of a rank share while kernels run.
    #[serde(default)]
    pub partials: u64,
}
