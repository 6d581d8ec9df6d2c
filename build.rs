//! Builds the runtime archive that the compiler links into what it produces, and compresses it for embedding.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    for input in [
        "build.rs",
        "Cargo.toml",
        "Cargo.lock",
        "crates/runtime/src",
        "crates/runtime/Cargo.toml",
        "crates/abi",
    ] {
        println!("cargo::rerun-if-changed={input}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let archive = build_runtime(&out)?;
    let bytes = fs::read(&archive).map_err(|e| format!("{}: {e}", archive.display()))?;
    fs::write(out.join("runtime.a.zst"), zstd::encode_all(bytes.as_slice(), 10)?)?;
    println!("cargo::rustc-env=SYNCBN_RUNTIME_HASH={:016x}", fnv1a(&bytes));
    Ok(())
}

/// Runs cargo for the runtime, in a target directory of its own and without the settings of the build that
/// runs this script, which might not suit an archive for other machines.
fn build_runtime(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let target = out.join("runtime");
    let mut cargo = Command::new(env::var("CARGO")?);
    for (name, _) in env::vars() {
        let ours = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY"].contains(&name.as_str());
        if (name.starts_with("CARGO") || name.starts_with("RUSTFLAGS") || name.starts_with("RUSTC_")) && !ours
        {
            cargo.env_remove(name);
        }
    }
    cargo
        .args([
            "rustc",
            "--release",
            "--locked",
            "--package",
            "syncbn-runtime",
            "--lib",
        ])
        // Whole-program optimisation quarters the archive's size.
        .args([
            "--config",
            "profile.release.lto=\"fat\"",
            "--config",
            "profile.release.codegen-units=1",
        ])
        .args(["--crate-type", "staticlib", "--features", "entry", "--target-dir"])
        .arg(&target)
        // Executables run on other machines than this one: a user's own flags, such as target-cpu=native, stay out.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-cpu=x86-64");
    let status = cargo
        .status()
        .map_err(|e| format!("cargo could not be run: {e}"))?;
    if !status.success() {
        return Err("the runtime crate did not build; its errors stand above".into());
    }
    let archive = target.join("release").join("libsyncbn_runtime.a");
    // Without binutils the archive is only larger.
    let _ = Command::new("strip").arg("--strip-debug").arg(&archive).status();
    Ok(archive)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    })
}
