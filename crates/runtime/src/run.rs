//! From the command line to an exit code.

use std::{
    ffi::OsString,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicBool},
};

use clap::{CommandFactory, FromArgMatches};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::{
    bench,
    cli::{Cli, Command, Device, Place},
    cpu,
    error::{Error, Kind, Result},
    infer, info, launcher, panics,
    program::Program,
    report, train,
};

/// Runs the executable: parses `arguments` (the program's name first), does what they say, reports errors,
/// and returns the exit code. No panic leaves it.
pub fn main(program: impl FnOnce() -> Result<Program>, arguments: Vec<OsString>) -> i32 {
    panics::install_hook();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let program = program()?;
        let flags = match parse(&program, arguments) {
            Ok(flags) => flags,
            Err(error) => {
                // Help and version are errors to clap, but not to the user.
                let _ = error.print();
                return Ok(error.exit_code());
            }
        };
        execute(&Arc::new(program), &flags).map(|()| 0)
    }));
    let error = match outcome {
        Ok(Ok(code)) => return code,
        Ok(Err(error)) => error,
        Err(payload) => Error::internal(format!("panicked: {}", panics::describe(payload.as_ref()))),
    };
    report::complaint(&error.to_string());
    error.kind.exit_code()
}

fn parse(program: &Program, arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let model = &program.model;
    let version = format!("(syncbn-compile {})", model.compiler);
    let command = Cli::command().name(model.name.clone()).version(version);
    let matches = command.try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

fn execute(program: &Arc<Program>, flags: &Cli) -> Result<()> {
    // `info` runs no generated code, so that it works on every machine.
    if let Command::Info(flags) = &flags.command {
        return info::run(program, flags);
    }
    cpu::check(&program.model.cpu)?;
    let interrupted = catch_signals()?;
    match &flags.command {
        Command::Train(flags) => {
            check_place(program, &flags.place)?;
            train::run(program, flags, interrupted)
        }
        Command::Infer(flags) => {
            check_place(program, &flags.place)?;
            infer::run(program, flags, interrupted)
        }
        Command::Bench(flags) => {
            check_place(program, &flags.place)?;
            bench::run(program, flags, interrupted)
        }
        Command::Info(_) => Ok(()),
    }
}

/// The first signal sets the flag, a second one ends the process at once.
fn catch_signals() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let code = Kind::Interrupted.exit_code();
        flag::register_conditional_shutdown(signal, code, Arc::clone(&interrupted))
            .and_then(|_| flag::register(signal, Arc::clone(&interrupted)))
            .map_err(|cause| Error::environment(format!("cannot catch signals: {cause}")))?;
    }
    Ok(interrupted)
}

fn check_place(program: &Program, place: &Place) -> Result<()> {
    for warning in &program.model.warnings {
        report::warning(warning);
    }
    let has_gpu_part = program.model.targets.iter().any(|target| target == "cuda");
    if place.device == Device::Cuda && !has_gpu_part {
        return Err(
            Error::environment("--device cuda: this executable has no GPU part")
                .note(format!(
                    "it was compiled for {}",
                    program.model.targets.join(", ")
                ))
                .help("use --device cpu"),
        );
    }
    if !place.no_launcher_env {
        launcher::refuse_many_processes(|name| std::env::var(name).ok())?;
    }
    Ok(())
}
