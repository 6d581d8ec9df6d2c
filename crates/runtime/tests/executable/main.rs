//! A produced executable from the outside: this binary acts as one, with a model written by hand.

// The tests are plain functions here, which clippy does not know as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deaths;
mod errors;
mod fake_model;
mod gpu;
mod gpu_errors;
mod graphs;
mod harness;
mod inference;
mod optimizers;
mod processes;
mod threads;
mod training;

use libtest_mimic::{Arguments, Trial};

fn main() {
    if let Ok(description) = std::env::var(harness::ACT_AS) {
        harness::die_if_asked();
        let program = || Ok(fake_model::program(&description));
        std::process::exit(syncbn_runtime::commands::run::main(
            program,
            std::env::args_os().collect(),
        ));
    }
    let tests = [
        training::TESTS,
        inference::TESTS,
        optimizers::TESTS,
        errors::TESTS,
        gpu::TESTS,
        gpu_errors::TESTS,
        graphs::TESTS,
        processes::TESTS,
        deaths::TESTS,
        threads::TESTS,
    ]
    .concat();
    let trial = |(name, test): (&'static str, fn())| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), tests.into_iter().map(trial).collect()).exit();
}

/// Lists a module's tests under their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[(&str, fn())] = &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*];
    };
}
pub(crate) use tests;
