//! What a compilation is asked for.

use syncbn_codegen::CpuFlag;

use syncbn_ir::ops::RunningVar;
use syncbn_mlir::Products;
use syncbn_passes::{BatchNormMode, Loss, Override};

use crate::target::FAST;
use crate::{Error, Kind};

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

/// What a part of an executable runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A GPU, emulated or not.
    Gpu,
}

/// What an executable runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// The CPU: ranks are threads of one process.
    pub cpu: bool,
    /// NVIDIA GPUs: a process for each rank.
    pub cuda: bool,
    /// A network that the GPU part cannot take gets none, with a warning instead of an error: nobody asked for it.
    pub cuda_if_possible: bool,
    /// The kernels of the GPU target under an emulator, on any machine.
    pub emulated: bool,
}

impl Default for Targets {
    /// The CPU, and NVIDIA GPUs if possible.
    fn default() -> Targets {
        Targets {
            cpu: true,
            cuda: true,
            cuda_if_possible: true,
            emulated: false,
        }
    }
}

impl Targets {
    /// Whether there is a GPU part.
    pub fn gpu(self) -> bool {
        self.cuda || self.emulated
    }

    /// Whether the executable is made without a GPU part when that failed with `error`.
    pub(crate) fn can_do_without(self, error: &Error) -> bool {
        self.cuda_if_possible && self.cpu && error.kind == Kind::Unsupported
    }

    /// The parts of the executable.
    pub fn devices(self) -> Vec<Device> {
        let all = [(self.cpu, Device::Cpu), (self.gpu(), Device::Gpu)];
        all.into_iter()
            .filter(|(wanted, _)| *wanted)
            .map(|(_, device)| device)
            .collect()
    }

    /// The part that text forms show.
    pub fn main(self) -> Device {
        if self.cpu { Device::Cpu } else { Device::Gpu }
    }

    /// The flag's words.
    pub fn names(self) -> Vec<String> {
        let all = [
            (self.cpu, "cpu"),
            (self.cuda, "cuda"),
            (self.emulated, "cuda-emulated"),
        ];
        let wanted = all.into_iter().filter(|(wanted, _)| *wanted);
        wanted.map(|(_, name)| name.to_string()).collect()
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
    /// What the executable runs on.
    pub targets: Targets,
    /// Processor.
    pub cpu: CpuFlag,
    /// Whether code for the CPU follows schedules; otherwise every node has its general form.
    pub fast: bool,
    /// Whether schedules of the CPU may be Winograd's, which round more.
    pub winograd: bool,
    /// Schedules of nodes on the CPU, instead of those that the passes choose.
    pub schedules: Vec<Override>,
    /// How GPUs multiply matrices.
    pub products: Products,
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
            targets: Targets::default(),
            cpu: CpuFlag::Native,
            fast: FAST,
            winograd: true,
            schedules: Vec::new(),
            products: Products::Tf32,
            seed: 0,
            passes: None,
            skip: Vec::new(),
            print_after: syncbn_passes::PrintAfter::Nothing,
            stop_after: None,
        }
    }
}
