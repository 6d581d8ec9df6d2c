//! What a compilation asks of the passes.

use std::str::FromStr;

use syncbn_ir::ops::RunningVar;
use syncbn_ir::{Graph, NodeId};

use crate::choose_schedules::{Gpu, Machine, Override};

/// Which samples a BatchNorm's statistics are taken of, in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchNormMode {
    /// Those of all ranks.
    Sync,
    /// The rank's own.
    Local,
    /// None: running statistics normalise, scale and bias are constants.
    Frozen,
    /// Those of the group of this many neighbouring ranks.
    Group(usize),
}

impl FromStr for BatchNormMode {
    type Err = String;

    fn from_str(text: &str) -> Result<BatchNormMode, String> {
        let group = text.strip_prefix("group=").and_then(|k| k.parse().ok());
        match (text, group) {
            ("sync", _) => Ok(BatchNormMode::Sync),
            ("local", _) => Ok(BatchNormMode::Local),
            ("frozen", _) => Ok(BatchNormMode::Frozen),
            (_, Some(k)) if k > 0 => Ok(BatchNormMode::Group(k)),
            _ => Err(format!("\"{text}\" is none of sync, local, frozen, group=K")),
        }
    }
}

/// The loss of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Softmax cross-entropy over axis 1; the target holds class indices.
    CrossEntropy,
    /// Mean squared error; the target has the type of the output.
    MeanSquaredError,
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> Result<Loss, String> {
        match text {
            "cross-entropy" => Ok(Loss::CrossEntropy),
            "mse" => Ok(Loss::MeanSquaredError),
            _ => Err(format!("\"{text}\" is none of cross-entropy, mse")),
        }
    }
}

/// What the graph is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One training step.
    Train,
    /// Inference.
    Infer,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        match text {
            "train" => Ok(Mode::Train),
            "infer" => Ok(Mode::Infer),
            _ => Err(format!("\"{text}\" is none of train, infer")),
        }
    }
}

/// The order of activations in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Row-major.
    #[default]
    Plain,
    /// Channels innermost.
    ChannelsLast,
}

/// What activations are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// The network's element type.
    #[default]
    Full,
    /// bf16, by `lower-precision`.
    Bf16,
}

/// What a graph runs on, as far as passes care. The default is a target that has general forms only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// How `assign-layouts` orders activations.
    pub order: Order,
    /// What `pad-channels` makes the channels of convolutions a multiple of.
    pub channel_multiple: usize,
    /// What activations are stored in.
    pub storage: Storage,
    /// The processor that `choose-schedules` chooses for; None for GPUs.
    pub machine: Option<Machine>,
    /// The GPU that it chooses for, where there is no processor.
    pub gpu: Option<Gpu>,
}

impl Default for Target {
    fn default() -> Target {
        Target {
            order: Order::Plain,
            channel_multiple: 1,
            storage: Storage::Full,
            machine: None,
            gpu: None,
        }
    }
}

impl Target {
    /// Bytes of memory that a node needs while it is computed, for batches up to `batch_bound`.
    pub fn workspace_bytes(&self, graph: &Graph, id: NodeId, batch_bound: usize) -> u64 {
        match (self.machine, self.gpu) {
            (None, Some(_)) => graph.gpu_workspace_bytes(id, batch_bound),
            _ => graph.workspace_bytes(id, batch_bound),
        }
    }
}

/// Options of one run of the passes.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Training or inference.
    pub mode: Mode,
    /// BatchNorm's statistics in training.
    pub batch_norm: BatchNormMode,
    /// Rule of the running variance.
    pub running_var: RunningVar,
    /// The loss.
    pub loss: Loss,
    /// Name of the output that the loss is taken of; may be left out when there is one output.
    pub loss_output: Option<String>,
    /// Whether gradients of floating-point data inputs are outputs too (for tests).
    pub input_gradients: bool,
    /// Largest batch of one rank.
    pub batch_bound: usize,
    /// Bytes of gradients that one all-reduce sums at most, unless a single gradient has more.
    pub bucket_bytes: u64,
    /// What the graph runs on.
    pub target: Target,
    /// Whether `choose-schedules` may take Winograd's algorithms, which round more.
    pub winograd: bool,
    /// Schedules that nodes get whatever `choose-schedules` would take.
    pub schedules: Vec<Override>,
}

/// Bytes of a bucket of gradients unless asked for otherwise. On a CPU, ranks share memory, and one all-reduce of
/// everything costs least; a network with more than this has buckets that can be summed while the backward pass
/// still runs.
pub const DEFAULT_BUCKET_BYTES: u64 = 25 << 20;

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Mode::Train,
            batch_norm: BatchNormMode::Sync,
            running_var: RunningVar::Pytorch,
            loss: Loss::CrossEntropy,
            loss_output: None,
            input_gradients: false,
            batch_bound: 32,
            bucket_bytes: DEFAULT_BUCKET_BYTES,
            target: Target::default(),
            winograd: true,
            schedules: Vec::new(),
        }
    }
}
