//! `cargo xtask doctor`: is the tool-chain complete, and if not, what to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The LLVM release that melior and inkwell are built for.
const LLVM: &str = "22.1";
const INSTALL: &str = "run scripts/setup";

/// What one look found: the version or path, or what to do.
struct Finding {
    what: &'static str,
    outcome: Result<String, String>,
}

/// Prints one line a finding, and answers whether all are good.
pub fn run(root: &Path) -> Result<bool> {
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).context("Cargo.toml")?;
    let wanted = rust_version(&manifest).context("Cargo.toml names no rust-version")?;

    let llvm = prefix("LLVM_SYS_221_PREFIX");
    let mlir = prefix("MLIR_SYS_220_PREFIX");
    let tablegen = prefix("TABLEGEN_220_PREFIX");
    let mut findings = vec![
        finding("rust", rust(&wanted)),
        finding(
            "rustfmt",
            version_of("rustfmt", &["--version"], "run `rustup component add rustfmt`"),
        ),
        finding(
            "clippy",
            version_of(
                "cargo-clippy",
                &["--version"],
                "run `rustup component add clippy`",
            ),
        ),
        finding("llvm-config", llvm_config(&llvm)),
        finding("mlir-tblgen", tool_of_llvm(&mlir.join("bin/mlir-tblgen"))),
        finding("ld.lld", linker(&llvm)),
        finding("C compiler and linker", version_of("cc", &["--version"], INSTALL)),
        finding("C++ compiler", version_of("c++", &["--version"], INSTALL)),
    ];
    let files = [
        ("libLLVM", llvm.join("lib/libLLVM.so")),
        ("libclang", llvm.join("lib/libclang.so")),
        ("Polly", llvm.join("lib/libPolly.a")),
        ("MLIR's C interface", mlir.join("lib/libMLIRCAPIIR.a")),
        ("MLIR's headers", mlir.join("include/mlir-c/IR.h")),
        ("TableGen's prefix", tablegen.join("bin/llvm-config")),
        ("zlib's header", PathBuf::from("/usr/include/zlib.h")),
        ("zstd's header", PathBuf::from("/usr/include/zstd.h")),
    ];
    findings.extend(files.into_iter().map(|(what, path)| finding(what, file(&path))));

    for Finding { what, outcome } in &findings {
        match outcome {
            Ok(found) => println!("ok       {what}: {found}"),
            Err(advice) => println!("MISSING  {what}: {advice}"),
        }
    }
    Ok(findings.iter().all(|finding| finding.outcome.is_ok()))
}

fn finding(what: &'static str, outcome: Result<String, String>) -> Finding {
    Finding { what, outcome }
}

/// Cargo sets these variables from `.cargo/config.toml` unless the environment has them.
fn prefix(variable: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from("/usr/lib/llvm-22"), PathBuf::from)
}

fn file(path: &Path) -> Result<String, String> {
    if path.exists() {
        Ok(path.display().to_string())
    } else {
        Err(format!("{} is not there; {INSTALL}", path.display()))
    }
}

/// The first line that a tool prints about itself.
fn version_of(tool: &str, arguments: &[&str], advice: &str) -> Result<String, String> {
    let output = Command::new(tool).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()),
        _ => Err(format!("`{tool}` does not run; {advice}")),
    }
}

fn rust(wanted: &str) -> Result<String, String> {
    let advice = format!("install Rust {wanted} or later (`rustup update stable`)");
    let line = version_of("rustc", &["--version"], &advice)?;
    let found = line.split_whitespace().nth(1).unwrap_or_default();
    if numbers(found) >= numbers(wanted) {
        Ok(line)
    } else {
        Err(format!("found {line}; {advice}"))
    }
}

fn llvm_config(llvm: &Path) -> Result<String, String> {
    let path = llvm.join("bin/llvm-config");
    let found = version_of(&path.display().to_string(), &["--version"], INSTALL)?;
    if is_wanted_llvm(&found) {
        Ok(format!("{found} in {}", llvm.display()))
    } else {
        Err(format!(
            "{} is LLVM {found}, and {LLVM} is needed; {INSTALL}, or set LLVM_SYS_221_PREFIX",
            path.display()
        ))
    }
}

/// A tool of LLVM says its version on one of its first lines.
fn tool_of_llvm(path: &Path) -> Result<String, String> {
    file(path)?;
    let output = Command::new(path)
        .arg("--version")
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text
        .split_whitespace()
        .find(|word| word.starts_with(char::is_numeric))
        .unwrap_or_default();
    if is_wanted_llvm(found) {
        Ok(found.to_owned())
    } else {
        Err(format!(
            "{} is of LLVM {found}, and {LLVM} is needed; {INSTALL}",
            path.display()
        ))
    }
}

fn linker(llvm: &Path) -> Result<String, String> {
    let own = llvm.join("bin/ld.lld");
    let name = if own.exists() {
        own.display().to_string()
    } else {
        "ld.lld".to_owned()
    };
    version_of(&name, &["--version"], INSTALL)
}

fn is_wanted_llvm(version: &str) -> bool {
    version == LLVM || version.starts_with(&format!("{LLVM}."))
}

/// The numbers of a dotted version, for comparison; what is not a number ends it.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split(['.', '-'])
        .map_while(|part| part.parse().ok())
        .collect()
}

fn rust_version(manifest: &str) -> Option<String> {
    let line = manifest
        .lines()
        .find(|line| line.trim_start().starts_with("rust-version"))?;
    Some(line.split('"').nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("1.100.0") > numbers("1.95"));
        assert!(numbers("1.94.1") < numbers("1.95"));
        assert!(numbers("1.96.0-nightly") > numbers("1.95"));
    }

    #[test]
    fn only_the_release_that_the_crates_bind_is_wanted() {
        assert!(is_wanted_llvm("22.1.8"));
        assert!(!is_wanted_llvm("22.10.0"));
        assert!(!is_wanted_llvm("14.0.6"));
    }

    #[test]
    fn the_oldest_rust_is_read_from_the_manifest() {
        let manifest = "[workspace.package]\nrust-version = \"1.95\"\n";
        assert_eq!(rust_version(manifest).as_deref(), Some("1.95"));
        assert_eq!(rust_version("[package]\n"), None);
    }

    #[test]
    fn a_missing_file_and_a_missing_tool_say_what_to_do() {
        let missing = file(Path::new("/nowhere/libMLIR.a")).unwrap_err();
        assert!(missing.contains("/nowhere/libMLIR.a") && missing.contains(INSTALL));
        let missing = version_of("no-such-tool-here", &[], INSTALL).unwrap_err();
        assert!(missing.contains("no-such-tool-here") && missing.contains(INSTALL));
    }
}
