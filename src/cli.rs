//! The command line of `syncbn-compile`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use syncbn_codegen::{Cpu, CpuFlag, Emit};
use syncbn_ir::ops::RunningVar;
use syncbn_ir::{DType, Graph};
use syncbn_onnx::ImportOptions;
use syncbn_passes::{BatchNormMode, Loss, PrintAfter};

use crate::compile::{Graphs, Planned, cannot_write, finish, lower, optimize};
use crate::output::write_atomically;
use crate::{Error, Mode, Options, worker};

/// Compiles a BatchNorm network to one executable that trains it data-parallel with synchronised BatchNorm,
/// and infers.
#[derive(Debug, Parser)]
#[command(name = "syncbn-compile", version, about)]
struct Arguments {
    /// The network: an ONNX file, or a graph in text form whose name ends in `.ir`.
    #[arg(value_name = "MODEL.onnx", required_unless_present = "pass_help")]
    model: Option<PathBuf>,

    /// Where the result goes; `-` writes a text form to standard output.
    #[arg(short, long, value_name = "OUT", required_unless_present = "pass_help")]
    output: Option<PathBuf>,

    /// What to compile for. GPU targets do not exist yet.
    #[arg(long, value_enum, default_value = "cpu")]
    target: Target,

    /// Whether the executable trains, infers, or both.
    #[arg(long, value_enum, default_value = "both")]
    mode: Mode,

    /// What BatchNorm's statistics are taken of in training: `sync` all ranks, `local` the rank's own samples,
    /// `frozen` nothing (running statistics), `group=K` groups of K neighbouring ranks.
    #[arg(long, value_name = "sync|local|frozen|group=K", default_value = "sync")]
    bn: BatchNormMode,

    /// Rule of the running variance: with N/(N-1) as PyTorch, or the batch's own as ONNX.
    #[arg(long, value_enum, default_value = "pytorch")]
    running_var: RunningVarFlag,

    /// Largest batch of one rank [default: the file's own fixed batch if above 1, else 32].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,

    /// Shape of an input after the batch, such as `x=3x224x224`; may be given several times.
    #[arg(long, value_name = "NAME=SIZES", value_parser = input_shape)]
    input_shape: Vec<(String, Vec<usize>)>,

    /// The training loss: cross-entropy over axis 1 (also per pixel) or mean squared error.
    #[arg(long, value_name = "cross-entropy|mse", default_value = "cross-entropy")]
    loss: Loss,

    /// The output that the loss is taken of; needed when there are several.
    #[arg(long, value_name = "NAME")]
    loss_output: Option<String>,

    /// Element type, as `P` or `cpu=P`, of `f32` and `f64` [default: the file's].
    #[arg(long, value_name = "P", value_parser = precision)]
    precision: Option<DType>,

    /// Processor to compile for; the executable refuses others.
    #[arg(long, value_name = "native|x86-64-v3|x86-64-v4", default_value = "native", value_parser = cpu)]
    cpu: CpuFlag,

    /// Graph inputs in trainable slots become parameters with random values from this seed.
    #[arg(long, value_name = "SEED", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    init: Option<u64>,

    /// Parameters that are not trained, by glob; may be given several times.
    #[arg(long, value_name = "GLOB")]
    freeze: Vec<String>,

    /// Parameters that are trained, by glob; wins over `--freeze`.
    #[arg(long, value_name = "GLOB")]
    train: Vec<String>,

    /// What to write.
    #[arg(long, value_enum, default_value = "exe")]
    emit: EmitFlag,

    /// Passes and pipelines to run instead of the standard ones, comma-separated.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    passes: Option<Vec<String>>,

    /// Passes to leave out.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    skip: Vec<String>,

    /// Passes after which the graph is printed to standard error.
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        conflicts_with = "print_ir_after_all"
    )]
    print_ir_after: Vec<String>,

    /// Print the graph to standard error after every pass.
    #[arg(long)]
    print_ir_after_all: bool,

    /// Last pass to run.
    #[arg(long, value_name = "PASS")]
    stop_after: Option<String>,

    /// List all passes and pipelines.
    #[arg(long)]
    pass_help: bool,

    /// Say what each stage did and how long it took.
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Cpu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RunningVarFlag {
    Pytorch,
    Population,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EmitFlag {
    /// The executable.
    Exe,
    /// The graph as imported.
    Graph,
    /// The graphs after their passes.
    GraphOpt,
    /// MLIR as lowered.
    Mlir,
    /// MLIR in its LLVM dialect.
    MlirLlvm,
    /// LLVM IR after optimisation.
    Llvm,
    /// Assembly.
    Asm,
    /// The object file of the generated code.
    Obj,
}

impl EmitFlag {
    fn code(self) -> Option<Emit> {
        match self {
            EmitFlag::Exe | EmitFlag::Graph | EmitFlag::GraphOpt => None,
            EmitFlag::Mlir => Some(Emit::Mlir),
            EmitFlag::MlirLlvm => Some(Emit::MlirLlvm),
            EmitFlag::Llvm => Some(Emit::Llvm),
            EmitFlag::Asm => Some(Emit::Asm),
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

fn precision(text: &str) -> Result<DType, String> {
    match text.strip_prefix("cpu=").unwrap_or(text) {
        "f32" => Ok(DType::F32),
        "f64" => Ok(DType::F64),
        _ => Err("the cpu target has f32 and f64".to_string()),
    }
}

fn cpu(text: &str) -> Result<CpuFlag, String> {
    let all = [CpuFlag::Native, CpuFlag::X86_64V3, CpuFlag::X86_64V4];
    all.into_iter()
        .find(|f| f.name() == text)
        .ok_or_else(|| "expected native, x86-64-v3 or x86-64-v4".to_string())
}

/// The entry point. The compilation runs in a child process, because LLVM ends the process on some errors.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    if !worker::is_worker() {
        return worker::run().unwrap_or_else(|message| fail(&Error::internal(message)));
    }
    let result = std::panic::catch_unwind(|| run(&arguments));
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(_) => fail(&Error::internal(
            "the compiler panicked; the message stands above",
        )),
    }
}

#[allow(clippy::print_stderr)]
fn say(text: &str) {
    eprintln!("{text}");
}

fn fail(error: &Error) -> ExitCode {
    say(&error.to_string());
    ExitCode::from(error.exit_code())
}

/// Times stages for `--verbose`.
struct Stages {
    verbose: bool,
    start: Instant,
}

impl Stages {
    fn done(&mut self, stage: &str) {
        if self.verbose {
            say(&format!(
                "{stage}: {:.1} ms",
                self.start.elapsed().as_secs_f64() * 1e3
            ));
        }
        self.start = Instant::now();
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    if arguments.pass_help {
        return write_text(Path::new("-"), syncbn_passes::pipelines::help().as_bytes());
    }
    let (Some(model), Some(output)) = (&arguments.model, &arguments.output) else {
        return Err(Error::internal(
            "the command line was accepted without a model or an output",
        ));
    };
    let binary = matches!(arguments.emit, EmitFlag::Exe | EmitFlag::Obj);
    if binary && output == Path::new("-") {
        return Err(Error::user(
            "-o - writes text only",
            "name a file, or choose a text form with --emit",
        ));
    }
    let mut stages = Stages {
        verbose: arguments.verbose,
        start: Instant::now(),
    };
    let imported = import(arguments, model)?;
    stages.done("import");
    let options = options(arguments, &imported);
    if arguments.emit == EmitFlag::Graph {
        return write_text(output, syncbn_ir::print(&imported.graph).as_bytes());
    }
    let graphs = optimize(&imported.graph, &options, &mut |pass, text| {
        say(&format!("// after {pass}\n{text}"))
    })?;
    for warning in &graphs.warnings {
        say(&format!("warning: {warning}"));
    }
    if arguments.verbose {
        for planned in graphs.train.iter().chain(&graphs.infer) {
            for run in &planned.runs {
                let time = run.time.as_secs_f64() * 1e3;
                say(&format!(
                    "  {} {}: {} changes, {time:.1} ms",
                    planned.graph.name, run.name, run.changes
                ));
            }
        }
    }
    stages.done("passes");
    if arguments.emit == EmitFlag::GraphOpt {
        return write_text(output, graphs_text(&graphs).as_bytes());
    }
    if let Some(emit) = arguments.emit.code() {
        let bytes = lower(&graphs, imported.dtype, &Cpu::new(options.cpu), emit)?;
        stages.done("code generation");
        return write_text(output, &bytes);
    }
    let mut compiled = finish(&imported.graph, graphs, &options)?;
    compiled.model.warnings.extend(imported.warnings);
    stages.done("code generation");
    compiled.write_executable(output)?;
    stages.done("link");
    Ok(())
}

/// A network as read.
struct Network {
    graph: Graph,
    dtype: DType,
    fixed_batch: Option<usize>,
    warnings: Vec<String>,
}

fn import(arguments: &Arguments, model: &Path) -> Result<Network, Error> {
    if model.extension().is_some_and(|e| e == "ir") {
        return read_text(model);
    }
    let imported = syncbn_onnx::import(
        model,
        &ImportOptions {
            dtype: arguments.precision,
            input_shapes: arguments.input_shape.clone(),
            init: arguments.init.is_some(),
            freeze: arguments.freeze.clone(),
            train: arguments.train.clone(),
        },
    )?;
    for warning in &imported.warnings {
        say(&format!("warning: {warning}"));
    }
    for note in &imported.notes {
        say(&format!("note: {note}"));
    }
    Ok(Network {
        graph: imported.graph,
        dtype: imported.dtype,
        fixed_batch: imported.fixed_batch,
        warnings: imported.warnings.into_iter().map(|w| w.message).collect(),
    })
}

/// Reads a graph in text form: what `--emit graph` writes, or one written by hand.
fn read_text(path: &Path) -> Result<Network, Error> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::user(format!("cannot read {shown}: {e}"), "check the path"))?;
    let graph = syncbn_ir::parse(&text)
        .map_err(|e| Error::user(format!("{shown}: {e}"), "docs/ir.md has the grammar"))?;
    let dtype = crate::model::element_type(&graph)?;
    Ok(Network {
        graph,
        dtype,
        fixed_batch: None,
        warnings: Vec::new(),
    })
}

fn options(arguments: &Arguments, imported: &Network) -> Options {
    let own = imported.fixed_batch.filter(|&n| n > 1);
    Options {
        mode: arguments.mode,
        batch_norm: arguments.bn,
        running_var: match arguments.running_var {
            RunningVarFlag::Pytorch => RunningVar::Pytorch,
            RunningVarFlag::Population => RunningVar::Population,
        },
        loss: arguments.loss,
        loss_output: arguments.loss_output.clone(),
        batch: arguments.batch.map_or(own.unwrap_or(32), |n| n as usize),
        cpu: arguments.cpu,
        seed: arguments.init.unwrap_or(0),
        passes: arguments.passes.clone(),
        skip: arguments.skip.clone(),
        print_after: match (arguments.print_ir_after_all, arguments.print_ir_after.is_empty()) {
            (true, _) => PrintAfter::All,
            (false, true) => PrintAfter::Nothing,
            (false, false) => PrintAfter::Passes(arguments.print_ir_after.clone()),
        },
        stop_after: arguments.stop_after.clone(),
    }
}

fn graphs_text(graphs: &Graphs) -> String {
    let text = |planned: &Planned| syncbn_ir::print(&planned.graph);
    let all: Vec<String> = graphs.train.iter().chain(&graphs.infer).map(text).collect();
    all.join("\n")
}

/// Writes to a file, whole or not at all, or to standard output.
fn write_text(output: &Path, bytes: &[u8]) -> Result<(), Error> {
    let written = if output == Path::new("-") {
        std::io::stdout()
            .write_all(bytes)
            .and_then(|()| std::io::stdout().flush())
    } else {
        write_atomically(output, false, |file| file.write_all(bytes))
    };
    written.map_err(|e| cannot_write(output, &e))
}
