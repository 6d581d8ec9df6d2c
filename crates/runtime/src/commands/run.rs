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
    cli::{Cli, Command},
    commands::{bench, infer, info, train},
    cpu::cores,
    error::{Error, Kind, Result},
    gpu::process::{self, Role, Seat},
    launcher, panics,
    place::{self, Place, Target},
    processor,
    program::Program,
    report,
};

/// Runs the executable: parses `arguments` (the program's name first), does what they say, reports errors,
/// and returns the exit code. No panic leaves it.
pub fn main(program: impl FnOnce() -> Result<Program>, arguments: Vec<OsString>) -> i32 {
    panics::install_hook();
    let outcome = caught(|| {
        let program = program()?;
        match parse(&program, arguments)? {
            Ok(flags) => execute(&program, &flags),
            Err(error) => {
                // Help and version are errors to clap, but not to the user.
                let _ = error.print();
                Ok(error.exit_code())
            }
        }
    });
    outcome.unwrap_or_else(|error| {
        report::complaint(&error.to_string());
        error.kind.exit_code()
    })
}

fn parse(program: &Program, arguments: Vec<OsString>) -> Result<Result<Cli, clap::Error>> {
    let model = program.model()?;
    let version = format!("(syncbn-compile {})", model.compiler);
    let command = Cli::command().name(model.name.clone()).version(version);
    let matches = command.try_get_matches_from(arguments);
    Ok(matches.and_then(|matches| Cli::from_arg_matches(&matches)))
}

/// Does what the flags say; returns the exit code.
fn execute(program: &Program, flags: &Cli) -> Result<i32> {
    let (place, ranks) = match &flags.command {
        // `info` runs no generated code, so that it works on every machine.
        Command::Info(flags) => return info::run(program, flags).map(|()| 0),
        Command::Train(flags) => (&flags.place, flags.ranks()?),
        Command::Infer(flags) => (&flags.place, flags.place.ranks()),
        Command::Bench(flags) => (&flags.place, flags.place.ranks()),
    };
    let target = place::choose(program, place.device)?;
    processor::check(target.cpu())?;
    let signalled = catch_signals()?;
    let variable = |name: &str| std::env::var(name).ok();
    let options = place.options();
    let cores = cores::count(launcher::local_processes(variable));
    let threads = |ranks| {
        let requested = place.threads_per_rank.map(|threads| threads as usize);
        place::threads(&target, requested, ranks, cores)
    };
    let seated = |seat, ranks| {
        Ok(Place {
            target: target.clone(),
            ranks,
            seat,
            options,
            threads: threads(ranks)?,
        })
    };
    let alone = |ranks| seated(Seat::default(), ranks);
    let foreign = !place.no_launcher_env;
    match &target {
        Target::Cpu(_) => {
            if foreign {
                launcher::refuse_many_processes(variable)?;
            }
            command(&alone(ranks.unwrap_or(1))?, flags, signalled).map(|()| 0)
        }
        Target::Gpu(part, kind) => match process::role(part, *kind, ranks, foreign, variable)? {
            Role::Alone => command(&alone(1)?, flags, signalled).map(|()| 0),
            Role::Launch(ranks) => process::launch(ranks, &signalled),
            Role::Member(member) => {
                let seat = Seat::take(&member, target.model(), &signalled)?;
                let place = seated(seat, member.ranks)?;
                let outcome = caught(|| command(&place, flags, signalled));
                match &place.seat.control {
                    Some(control) => control.conclude(outcome),
                    None => outcome.map(|()| 0),
                }
            }
        },
    }
}

fn command(place: &Place, flags: &Cli, signalled: Arc<AtomicBool>) -> Result<()> {
    if place.leads() {
        for warning in place.model().warnings.iter().chain(&place.warning()) {
            report::warning(warning);
        }
        // Where the result is printed as JSON, it says this.
        let is_json = matches!(&flags.command, Command::Bench(flags) if flags.json);
        if let Some(line) = place.describe().filter(|_| !is_json) {
            report::line(&line);
        }
    }
    match &flags.command {
        Command::Train(flags) => train::run(place, flags, signalled),
        Command::Infer(flags) => infer::run(place, flags, signalled),
        Command::Bench(flags) => bench::run(place, flags, signalled),
        Command::Info(_) => Ok(()),
    }
}

/// Makes an error of a panic.
fn caught<T>(action: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|payload| {
        let text = panics::describe(payload.as_ref());
        Err(Error::internal(format!("panicked: {text}")))
    })
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
