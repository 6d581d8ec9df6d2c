//! `cargo xtask bless`: runs the golden tests so that they write what they print instead of comparing it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The variable that makes a golden test write its `.expect` file.
const VARIABLE: &str = "SYNCBN_BLESS";
/// The packages whose tests read golden files.
const PACKAGES: [&str; 2] = ["syncbn-passes", "syncbn-codegen"];

/// Blesses, then shows which golden files changed. `arguments` go to `cargo test`, so
/// `cargo xtask bless -p syncbn-passes -- bn-to-syncbn` blesses the cases whose name holds that text.
pub fn run(root: &Path, arguments: &[String]) -> Result<bool> {
    if forbidden(std::env::var("CI").ok().as_deref()) {
        bail!("blessing is refused under CI=true: bless on your machine, read the diff, and commit it");
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let passed = Command::new(cargo)
        .current_dir(root)
        .env(VARIABLE, "1")
        .args(test_arguments(arguments))
        .status()
        .context("cargo test did not start")?
        .success();
    Command::new("git")
        .current_dir(root)
        .args(["status", "--short", "--", "tests/fixtures"])
        .status()
        .context("git did not start")?;
    Ok(passed)
}

fn forbidden(ci: Option<&str>) -> bool {
    ci == Some("true")
}

/// The packages are named unless the caller names some.
fn test_arguments(arguments: &[String]) -> Vec<String> {
    let mut all = vec!["test".to_owned(), "--release".to_owned()];
    let own = arguments.iter().take_while(|a| *a != "--");
    if !own
        .clone()
        .any(|a| a == "-p" || a.starts_with("--package") || a == "--workspace")
    {
        all.extend(
            PACKAGES
                .iter()
                .flat_map(|name| ["-p".to_owned(), (*name).to_owned()]),
        );
    }
    all.extend(arguments.iter().cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuous_integration_may_not_bless() {
        assert!(forbidden(Some("true")));
        assert!(!forbidden(Some("false")));
        assert!(!forbidden(None));
    }

    #[test]
    fn packages_are_named_unless_the_caller_names_one() {
        let arguments = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            test_arguments(&words).join(" ")
        };
        assert_eq!(
            arguments(&["--", "-p"]),
            "test --release -p syncbn-passes -p syncbn-codegen -- -p"
        );
        assert_eq!(arguments(&["-p", "syncbn-ir"]), "test --release -p syncbn-ir");
    }
}
