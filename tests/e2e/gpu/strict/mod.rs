//! Executables for NVIDIA GPUs against a strict stand-in for the driver and NCCL (`crates/strict`), which computes nothing
//! and checks every call. Nothing here looks at a number that a kernel computes.

mod clean;
mod deaths;
mod failures;
mod plants;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use run::library;

use crate::corpus::Network;
use crate::support::executable::compiled;
use crate::support::fixture;
use crate::support::net::Attribute::Ints;
use crate::support::net::Net;
use crate::support::run::compile_ptx;

/// Trains with everything that a run can do.
const TRAIN: &str =
    "train --device cuda --steps 5 --data DATA --val DATA --save w.safetensors --log log.jsonl";

/// An executable with data.
struct Subject {
    executable: PathBuf,
    network: Network,
}

impl Subject {
    /// A network of the corpus, assembled where there is an assembler.
    fn new(name: &'static str) -> Subject {
        let network = Network::new(name);
        let executable = network.compiled(&["--target", "cuda"]).path().to_path_buf();
        Subject { executable, network }
    }

    /// A network whose device code is PTX.
    fn ptx(name: &'static str) -> Subject {
        let network = Network::new(name);
        let executable = scratch().join(format!("{name}_ptx.bin"));
        compile_ptx(&fixture(&format!("dev/{name}.onnx")), &executable);
        Subject { executable, network }
    }

    /// A network with kernels that need more shared memory than a block gets without being asked. It takes the images of
    /// syncbnnet_small.
    fn wide() -> Subject {
        let mut net = Net::new(&[3, 16, 16]);
        let x = net.conv("x", &[64, 3, 1, 1], &[]);
        let pads = [("pads", Ints(&[1, 1, 1, 1]))];
        let x = net.conv_bn_relu(&x, &[128, 64, 3, 3], &pads);
        let x = net.conv_bn_relu(&x, &[256, 128, 1, 1], &[]);
        let x = net.head(&x, 256, 10);
        let model = scratch().join("strict_wide.onnx");
        fs::write(&model, net.finish(&[&x])).unwrap();
        Subject {
            executable: compiled("strict_wide", &model, &["--target", "cuda"])
                .path()
                .to_path_buf(),
            network: Network::new("syncbnnet_small"),
        }
    }

    fn data(&self) -> PathBuf {
        self.network.data()
    }
}

/// Where compiled networks lie.
fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Checks all of `cases` a few at a time, since most of them wait, and fails with all that was found.
fn check_all<C: Sync>(cases: &[C], check: impl Fn(&C) -> Vec<String> + Sync) {
    const AT_ONCE: usize = 6;
    let (next, found) = (Mutex::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        *next - 1
                    };
                    let Some(case) = cases.get(index) else { return };
                    let problems = check(case);
                    found.lock().unwrap().extend(problems);
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(
        found.is_empty(),
        "{} problems in {} cases:\n{}",
        found.len(),
        cases.len(),
        found.join("\n")
    );
}
