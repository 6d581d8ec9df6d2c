//! `examples/syncbn_net.rs`, run as a user would.

use std::path::PathBuf;
use std::process::Command;

use crate::support::run::{compiler, listing, run};

/// The example's executable, beside the compiler's. `cargo test` builds it, `cargo test --test e2e` alone does not.
fn example() -> PathBuf {
    let folder = compiler().parent().unwrap().to_path_buf();
    let path = folder.join("examples").join("syncbn_net");
    if !path.is_file() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--example", "syncbn_net"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
    }
    path
}

#[test]
fn the_network_built_in_rust_compiles_and_learns() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(&example(), folder.path(), &["out"]).ok();
    let last = outcome.text().lines().last().unwrap().to_string();
    let accuracy: f64 = last.rsplit(' ').next().unwrap().parse().unwrap();
    // Two epochs with synchronised BatchNorm reach 0.95 and more; without it about 0.75 (see `make demo`).
    assert!((0.9..=1.0).contains(&accuracy), "{last}");
    let files = listing(&folder.path().join("out"));
    assert_eq!(files, ["log.jsonl", "syncbn_net.bin", "weights.safetensors"]);
}
