//! The command line of `syncbn-opt`: messages and exit codes are those of `syncbn-compile`.

use std::io::Write;
use std::process::ExitCode;

use syncbn_passes::Fault;
use syncbn_passes::opt::{Arguments, Failure, opt_main};

use super::{fail, wants_json};
use crate::diagnostic::{MessageFormat, Reporter};
use crate::worker;

/// The entry point.
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let reporter = Reporter {
        format: match wants_json(&words) {
            true => MessageFormat::Json,
            false => MessageFormat::Human,
        },
        colours: worker::wants_colours(),
    };
    match run(words, reporter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.shown.is_empty() {
                reporter.text(failure.shown.trim_end());
            }
            fail(reporter, &failure.error.into())
        }
    }
}

fn run(words: Vec<std::ffi::OsString>, reporter: Reporter) -> Result<(), Failure> {
    let arguments = words.into_iter().map(|word| {
        let bad = |word: std::ffi::OsString| {
            Fault::user(format!("argument {} is not UTF-8", word.display())).help("rename the file")
        };
        word.into_string().map_err(bad)
    });
    let arguments = arguments.collect::<Result<Vec<String>, Fault>>()?;
    let arguments =
        Arguments::parse(&arguments).map_err(|message| Fault::user(message).help("see --help"))?;
    let written = opt_main(&arguments)?;
    if !written.shown.is_empty() {
        reporter.text(written.shown.trim_end());
    }
    super::warn(reporter, &written.warnings);
    if arguments.verbose {
        written.times.iter().for_each(|time| reporter.text(time));
    }
    let mut out = std::io::stdout();
    match out
        .write_all(written.output.as_bytes())
        .and_then(|()| out.flush())
    {
        // Whoever reads has seen enough.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            let fault = Fault::user(format!("cannot write to standard output: {e}"));
            Err(fault.help("write to a file on a disk with room").into())
        }
        _ => Ok(()),
    }
}
