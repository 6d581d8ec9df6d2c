//! `syncbn-opt`: a graph in text form in, passes, a graph in text form out. See [`syncbn_passes::opt`].

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Result<Vec<String>, _> = std::env::args_os().skip(1).map(|a| a.into_string()).collect();
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(bad) => {
            let _ = writeln!(
                std::io::stderr(),
                "error: argument {} is not UTF-8",
                bad.display()
            );
            return ExitCode::from(2);
        }
    };
    // A closed pipe behind this program is no reason to say more.
    match syncbn_passes::opt::opt_main(&arguments) {
        Ok(written) => {
            let _ = std::io::stderr().write_all(written.messages.as_bytes());
            match std::io::stdout().write_all(written.output.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}
