//! `syncbn-opt`: a graph in text form in, passes, a graph in text form out. See [`syncbn_passes::opt`].

use std::process::ExitCode;

fn main() -> ExitCode {
    syncbn_compile::cli::opt_main()
}
