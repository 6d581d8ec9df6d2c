//! What a compilation is asked for.

use syncbn_codegen::CpuFlag;
use syncbn_ir::ops::RunningVar;
use syncbn_passes::{BatchNormMode, Loss};

/// Which functions the executable has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// Training and inference.
    #[default]
    Both,
    /// Training only.
    Train,
    /// Inference only.
    Infer,
}

impl Mode {
    /// Whether the executable trains.
    pub fn trains(self) -> bool {
        self != Mode::Infer
    }

    /// Whether the executable infers.
    pub fn infers(self) -> bool {
        self != Mode::Train
    }

    /// The flag's text.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Both => "both",
            Mode::Train => "train",
            Mode::Infer => "infer",
        }
    }
}

/// Options of a compilation; the defaults are those of the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Training, inference or both.
    pub mode: Mode,
    /// What BatchNorm's statistics are taken of, in training.
    pub batch_norm: BatchNormMode,
    /// Rule of the running variance.
    pub running_var: RunningVar,
    /// The loss.
    pub loss: Loss,
    /// Name of the output that the loss is taken of; needed when there are several.
    pub loss_output: Option<String>,
    /// Largest batch of one rank.
    pub batch: usize,
    /// Bytes of gradients that one all-reduce sums at most, unless a single gradient has more.
    pub bucket_bytes: u64,
    /// Processor.
    pub cpu: CpuFlag,
    /// Seed of parameters that start at random.
    pub seed: u64,
    /// Passes instead of the standard pipelines.
    pub passes: Option<Vec<String>>,
    /// Passes to leave out.
    pub skip: Vec<String>,
    /// Passes after which the graph is printed to standard error.
    pub print_after: syncbn_passes::PrintAfter,
    /// Last pass to run; only text forms of the graph can be emitted then.
    pub stop_after: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Mode::Both,
            batch_norm: BatchNormMode::Sync,
            running_var: RunningVar::Pytorch,
            loss: Loss::CrossEntropy,
            loss_output: None,
            batch: 32,
            bucket_bytes: syncbn_passes::DEFAULT_BUCKET_BYTES,
            cpu: CpuFlag::Native,
            seed: 0,
            passes: None,
            skip: Vec::new(),
            print_after: syncbn_passes::PrintAfter::Nothing,
            stop_after: None,
        }
    }
}
