//! The flags of `syncbn-compile`.

use std::path::PathBuf;

use super::precision::Precision;
use clap::{Parser, ValueEnum};
use syncbn_codegen::{CpuFlag, Emit};
use syncbn_passes::{BatchNormMode, DEFAULT_BUCKET_BYTES, Loss, Override};

use crate::Mode;
use crate::diagnostic::MessageFormat;
use crate::kernels::{Form, Gpu};

/// Compiles a BatchNorm network to one executable that trains it data-parallel with synchronised BatchNorm,
/// and infers.
#[derive(Debug, Parser)]
#[command(name = "syncbn-compile", version, about)]
pub struct Arguments {
    /// The network: an ONNX file, or a graph in text form whose name ends in `.ir`.
    #[arg(value_name = "MODEL.onnx", required_unless_present = "pass_help")]
    pub model: Option<PathBuf>,

    /// Where the result goes; `-` writes a text form to standard output.
    #[arg(short, long, value_name = "OUT", required_unless_present = "pass_help")]
    pub output: Option<PathBuf>,

    /// What to compile for, comma-separated: the CPU, NVIDIA GPUs, or the GPU's kernels under an emulator [default:
    /// cpu,cuda].
    #[arg(long, value_enum, value_delimiter = ',')]
    pub target: Option<Vec<Target>>,

    /// Whether the executable trains, infers, or both.
    #[arg(long, value_enum, default_value = "both")]
    pub mode: Mode,

    /// What BatchNorm's statistics are taken of in training: `sync` all ranks, `local` the rank's own samples,
    /// `frozen` nothing (running statistics), `group=K` groups of K neighbouring ranks.
    #[arg(long, value_name = "sync|local|frozen|group=K", default_value = "sync")]
    pub bn: BatchNormMode,

    /// Rule of the running variance: with N/(N-1) as PyTorch, or the batch's own as ONNX.
    #[arg(long, value_enum, default_value = "pytorch")]
    pub running_var: RunningVarFlag,

    /// Largest batch of one rank [default: the file's own fixed batch if above 1, else 32].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,

    /// Bytes of gradients that one all-reduce sums at most, unless a single gradient has more. Less means more
    /// collectives, of which the first can run while the backward pass goes on.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_BUCKET_BYTES, value_parser = clap::value_parser!(u64).range(1..))]
    pub bucket_bytes: u64,

    /// Shape of an input after the batch, such as `x=3x224x224`; may be given several times.
    #[arg(long, value_name = "NAME=SIZES", value_parser = input_shape)]
    pub input_shape: Vec<(String, Vec<usize>)>,

    /// The training loss: cross-entropy over axis 1 (also per pixel) or mean squared error.
    #[arg(long, value_name = "cross-entropy|mse", default_value = "cross-entropy")]
    pub loss: Loss,

    /// The output that the loss is taken of; needed when there are several.
    #[arg(long, value_name = "NAME")]
    pub loss_output: Option<String>,

    /// Precision, as `P` or `cpu=P,cuda=P`: on the CPU the element type, `f32` or `f64` [default: the file's]; on GPUs
    /// how matrices are multiplied, `tf32`, `bf16` (with activations stored in it) or `f32` [default: tf32].
    #[arg(long, value_name = "P", value_parser = super::precision::precision)]
    pub precision: Option<Precision>,

    /// Processor to compile for; the executable refuses others.
    #[arg(long, value_name = "native|x86-64-v3|x86-64-v4", default_value = "native", value_parser = cpu)]
    pub cpu: CpuFlag,

    /// Whether convolutions on the CPU may be computed by Winograd's algorithms, which are faster and round more.
    #[arg(long, value_enum, default_value = "on")]
    pub winograd: Switch,

    /// How a node is computed, such as `stem=direct(lanes = 16, pixels = 8, vectors = 2, rows = 1)`, on the targets that it is
    /// for; may be given several times. `--emit schedule` lists what is chosen otherwise.
    #[arg(long, value_name = "NODE=SCHEDULE")]
    pub schedule: Vec<Override>,

    /// Graph inputs in trainable slots become parameters with random values from this seed.
    #[arg(long, value_name = "SEED", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub init: Option<u64>,

    /// Parameters that are not trained, by glob; may be given several times.
    #[arg(long, value_name = "GLOB")]
    pub freeze: Vec<String>,

    /// Parameters that are trained, by glob; wins over `--freeze`.
    #[arg(long, value_name = "GLOB")]
    pub train: Vec<String>,

    /// What to write.
    #[arg(long, value_enum, default_value = "exe")]
    pub emit: EmitFlag,

    /// The GPU that `--emit kernels` is about [default: h200].
    #[arg(long, value_enum)]
    pub gpu: Option<Gpu>,

    /// Passes and pipelines to run instead of the standard ones, comma-separated.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub passes: Option<Vec<String>>,

    /// Passes to leave out.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub skip: Vec<String>,

    /// Passes after which the graph is printed to standard error.
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        conflicts_with = "print_ir_after_all"
    )]
    pub print_ir_after: Vec<String>,

    /// Print the graph to standard error after every pass.
    #[arg(long)]
    pub print_ir_after_all: bool,

    /// Last pass to run.
    #[arg(long, value_name = "PASS")]
    pub stop_after: Option<String>,

    /// List all passes and pipelines.
    #[arg(long)]
    pub pass_help: bool,

    /// How messages are written to standard error.
    #[arg(long, value_enum, default_value = "human")]
    pub message_format: MessageFormat,

    /// Say what each stage did and how long it took.
    #[arg(short, long)]
    pub verbose: bool,
}

/// Targets that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Ranks are threads of one process.
    Cpu,
    /// Ranks are processes with a GPU each.
    Cuda,
    /// Ranks are processes with an emulated GPU each, for tests.
    CudaEmulated,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Rules of the running variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RunningVarFlag {
    /// N/(N-1) times the batch's variance.
    Pytorch,
    /// The batch's variance.
    Population,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmitFlag {
    /// The executable.
    Exe,
    /// The graph as imported.
    Graph,
    /// The graphs after their passes.
    GraphOpt,
    /// How each convolution and matrix product is computed, of what there is to choose from, with predicted
    /// times.
    Schedule,
    /// MLIR as lowered.
    Mlir,
    /// MLIR in its LLVM dialect.
    MlirLlvm,
    /// LLVM IR after optimisation.
    Llvm,
    /// Assembly.
    Asm,
    /// PTX of the GPU's kernels.
    Ptx,
    /// What a step launches on a GPU, as a table: bytes, operations, blocks, and a time by a model.
    Kernels,
    /// The same as JSON.
    KernelsJson,
    /// The object file of the generated code.
    Obj,
}

impl EmitFlag {
    /// Whether it tells of the GPU part alone.
    pub fn is_of_gpu(self) -> bool {
        self == EmitFlag::Ptx || self.report().is_some()
    }

    /// The form of the report of a step's launches, if that is what is written.
    pub fn report(self) -> Option<Form> {
        match self {
            EmitFlag::Kernels => Some(Form::Table),
            EmitFlag::KernelsJson => Some(Form::Json),
            _ => None,
        }
    }

    /// What code generation writes; None for the graph, the executable and reports.
    pub fn code(self) -> Option<Emit> {
        match self {
            EmitFlag::Exe | EmitFlag::Graph | EmitFlag::GraphOpt | EmitFlag::Schedule => None,
            EmitFlag::Kernels | EmitFlag::KernelsJson => None,
            EmitFlag::Mlir => Some(Emit::Mlir),
            EmitFlag::MlirLlvm => Some(Emit::MlirLlvm),
            EmitFlag::Llvm => Some(Emit::Llvm),
            EmitFlag::Asm | EmitFlag::Ptx => Some(Emit::Asm),
            EmitFlag::Obj => Some(Emit::Object),
        }
    }
}

fn input_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let form = "expected NAME=SIZES, such as x=3x224x224";
    let (name, sizes) = text.rsplit_once('=').ok_or(form)?;
    let sizes: Option<Vec<usize>> = match sizes {
        "" => Some(Vec::new()),
        _ => sizes
            .split('x')
            .map(|s| s.parse().ok().filter(|&n| n > 0))
            .collect(),
    };
    match sizes {
        Some(sizes) if !name.is_empty() => Ok((name.to_string(), sizes)),
        _ => Err(form.to_string()),
    }
}

fn cpu(text: &str) -> Result<CpuFlag, String> {
    let all = [CpuFlag::Native, CpuFlag::X86_64V3, CpuFlag::X86_64V4];
    all.into_iter()
        .find(|f| f.name() == text)
        .ok_or_else(|| "expected native, x86-64-v3 or x86-64-v4".to_string())
}
