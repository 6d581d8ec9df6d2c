//! The command line of `syncbn-compile`.

mod arguments;
mod network;
mod opt;
mod options;
mod precision;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use arguments::{Arguments, EmitFlag};
use clap::Parser;
use network::import;
use options::options;

use crate::compile::{Graphs, Planned, finish, is_of, lower, optimize, schedules};
use crate::diagnostic::{MessageFormat, Reporter};
use crate::executable::cannot_write;
use crate::output::write_atomically;
use crate::selection::check_passes;
use crate::{Error, Options, gpu, kernels, worker};
use syncbn_codegen::Cpu;
use syncbn_ir::Warning;
use syncbn_passes::Override;

pub use opt::main as opt_main;

/// Whether arguments that may be wrong ask for messages in JSON.
fn wants_json(words: &[OsString]) -> bool {
    let two = words
        .windows(2)
        .any(|w| w[0] == "--message-format" && w[1] == "json");
    two || words.iter().any(|w| w == "--message-format=json")
}

/// Shows help, or what is wrong with the flags in the format that they ask for.
fn refuse(error: &clap::Error) -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if wants_json(&words) {
        let text = error.render().to_string();
        let text = text.trim_start_matches("error: ").trim_end();
        let reporter = Reporter {
            format: MessageFormat::Json,
            colours: false,
        };
        return fail(reporter, &Error::user(text, "see --help"));
    }
    let _ = error.print();
    ExitCode::from(2)
}

/// The entry point. The compilation runs in a child process, because LLVM ends the process on some errors.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            return refuse(&error);
        }
    };
    let reporter = Reporter {
        format: arguments.message_format,
        colours: worker::wants_colours(),
    };
    if !worker::is_worker() {
        return worker::run(reporter).unwrap_or_else(|error| fail(reporter, &error));
    }
    let code = match std::panic::catch_unwind(|| run(&arguments, reporter)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(reporter, &error),
        Err(_) => fail(
            reporter,
            &Error::internal("the compiler panicked; the message stands above"),
        ),
    };
    worker::note_end();
    code
}

fn fail(reporter: Reporter, error: &Error) -> ExitCode {
    for diagnostic in &error.diagnostics {
        reporter.report(diagnostic);
    }
    ExitCode::from(error.exit_code())
}

/// A schedule that the user names and no part has code for.
fn of_no_target(options: &Options) -> Option<&Override> {
    let parts = options.targets.devices();
    let mut wanted = options.schedules.iter();
    wanted.find(|wanted| !parts.iter().any(|&part| is_of(&wanted.schedule, part)))
}

/// Lets a text form show the part that it is of, or refuses it.
fn check_emit(emit: EmitFlag, options: &mut Options) -> Result<(), Error> {
    if let Some(wanted) = of_no_target(options) {
        let (node, name) = (&wanted.node, wanted.schedule.name());
        return Err(Error::user(
            format!("--schedule \"{node}\": schedule {name} is for none of the targets"),
            "change --target, or leave it out",
        ));
    }
    match emit {
        EmitFlag::Ptx if !options.targets.cuda => Err(Error::user(
            "PTX is code for the target cuda, which is not asked for, or not in a precision that GPUs have",
            "add --target cuda, and no --precision but f32, tf32 or bf16",
        )),
        _ if emit.report().is_some() && !options.targets.cuda => Err(Error::user(
            "the report is about kernels for the target cuda, which is not asked for, or not in a precision that GPUs have",
            "add --target cuda, and no --precision but f32, tf32 or bf16",
        )),
        EmitFlag::Obj if !options.targets.cpu => Err(Error::user(
            "--emit obj writes the CPU's code, and the CPU is no target",
            "add cpu to --target, or use --emit ptx",
        )),
        _ if emit.is_of_gpu() => {
            options.targets.cpu = false;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Times stages for `--verbose`.
struct Stages {
    reporter: Reporter,
    verbose: bool,
    start: Instant,
}

impl Stages {
    fn say(&self, lines: &[String]) {
        if self.verbose {
            lines.iter().for_each(|line| self.reporter.text(line));
        }
    }

    fn done(&mut self, stage: &str) {
        if self.verbose {
            self.reporter.text(&format!(
                "{stage}: {:.1} ms",
                self.start.elapsed().as_secs_f64() * 1e3
            ));
        }
        self.start = Instant::now();
    }
}

fn run(arguments: &Arguments, reporter: Reporter) -> Result<(), Error> {
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
    let same =
        std::fs::canonicalize(output).is_ok_and(|o| std::fs::canonicalize(model).is_ok_and(|m| m == o));
    if same && output.is_file() {
        let message = format!("-o {} is the network itself", output.display());
        return Err(Error::user(message, "name another file"));
    }
    if arguments.gpu.is_some() && arguments.emit.report().is_none() {
        return Err(Error::user(
            "--gpu says what GPU --emit kernels is about, and something else is emitted",
            "leave it out, or add --emit kernels or kernels-json",
        ));
    }
    let mut stages = Stages {
        reporter,
        verbose: arguments.verbose,
        start: Instant::now(),
    };
    let imported = import(arguments, model, reporter)?;
    stages.done("import");
    let mut options = options(arguments, &imported)?;
    check_emit(arguments.emit, &mut options)?;
    if arguments.emit == EmitFlag::Graph {
        return write_text(output, syncbn_ir::print(&imported.graph).as_bytes());
    }
    if arguments.emit == EmitFlag::Exe {
        check_passes(&options)?;
    }
    if arguments.emit == EmitFlag::Schedule {
        let text = schedules(&imported.graph, &options)?;
        stages.done("passes");
        return write_text(output, text.as_bytes());
    }
    let graphs = optimize(
        &imported.graph,
        &options,
        options.targets.main(),
        &mut |pass, text| reporter.text(&format!("// after {pass}\n{text}")),
    )?;
    warn(reporter, &graphs.warnings);
    if arguments.verbose {
        for planned in graphs.train.iter().chain(&graphs.infer) {
            for run in &planned.runs {
                reporter.text(&format!("  {} {run}", planned.graph.name));
            }
        }
    }
    stages.done("passes");
    if arguments.emit == EmitFlag::GraphOpt {
        return write_text(output, graphs_text(&graphs).as_bytes());
    }
    if let Some(form) = arguments.emit.report() {
        let gpu = arguments.gpu.unwrap_or_default();
        let (text, warning) = kernels::report(&graphs, &options, gpu, form)?;
        warn(reporter, warning.as_slice());
        stages.done("report");
        return write_text(output, text.as_bytes());
    }
    if let Some(emit) = arguments.emit.code() {
        let bytes = lower(&graphs, &Cpu::new(options.cpu), &options, emit)?;
        stages.done("code generation");
        if arguments.verbose && arguments.emit == EmitFlag::Ptx {
            stages.say(&gpu::usage(&bytes)?);
            stages.done("ptxas");
        }
        return write_text(output, &bytes);
    }
    let said = graphs.warnings.clone();
    let mut compiled = finish(&imported.graph, graphs, &options)?;
    compiled.warnings.retain(|warning| !said.contains(warning));
    warn(reporter, &compiled.warnings);
    for part in &mut compiled.parts {
        let warnings = imported.warnings.iter().map(ToString::to_string);
        part.model.warnings.extend(warnings);
        stages.say(&part.notes);
    }
    stages.done("code generation");
    compiled.write_executable(output)?;
    stages.done("link");
    Ok(())
}

fn warn(reporter: Reporter, warnings: &[Warning]) {
    for warning in warnings {
        reporter.report(&warning.into());
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
        match std::io::stdout()
            .write_all(bytes)
            .and_then(|()| std::io::stdout().flush())
        {
            // Whoever reads has seen enough.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    } else {
        write_atomically(output, false, |file| file.write_all(bytes))
    };
    written.map_err(|e| cannot_write(output, &e))
}
