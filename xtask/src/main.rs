//! Developer commands, run as `cargo xtask COMMAND`.
//!
//! | command | does |
//! |---|---|
//! | `tidy` | checks the habits of the house; each problem is one line `file:line: what, and what to do` |
//! | `doctor` | says whether the tool-chain is complete, and what to do if not |
//! | `bless [ARGS]` | runs the golden tests and writes what they print; refused under `CI=true` |
//! | `notices` | writes `THIRD_PARTY.md` from the dependency graph |

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands talk to a terminal"
)]

mod bless;
mod doctor;
mod metadata;
mod notices;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

const USAGE: &str = "usage: cargo xtask tidy | doctor | bless [CARGO TEST ARGS] | notices";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let outcome = match command.as_str() {
        "tidy" => workspace_root().and_then(|root| tidy::run(&root)),
        "doctor" => workspace_root().and_then(|root| doctor::run(&root)),
        "bless" => workspace_root().and_then(|root| bless::run(&root, &rest)),
        "notices" => workspace_root().and_then(|root| notices::write(&root)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the root `Cargo.toml`: the parent of this crate's own.
fn workspace_root() -> Result<PathBuf> {
    let own = std::env::var("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let own = PathBuf::from(own);
    Ok(own.parent().context("xtask has no parent folder")?.to_path_buf())
}
