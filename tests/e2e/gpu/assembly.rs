//! Kernels through NVIDIA's assembler, where it is (`make ptxas`): each must assemble for both GPUs and keep its
//! values in registers.

use std::path::Path;
use std::process::Command;

use super::NETWORKS;
use crate::support::fixture;
use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::Net;
use crate::support::run::{compile, compiler};

/// Lines about kernels, such as `  sm_80 conv_0: 32 registers, ...`; None without ptxas, which is said.
#[allow(clippy::print_stderr)]
fn usage(model: &Path, precision: &str) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        model.to_str().unwrap(),
        "--target",
        "cuda",
        "--precision",
        precision,
        "--emit",
        "ptx",
        "-o",
        "k.ptx",
        "-v",
    ];
    let said = compile(folder.path(), &flags).ok().stderr;
    if said.contains("no ptxas") {
        eprintln!(
            "there is no ptxas: kernels of {} are not assembled",
            model.display()
        );
        return None;
    }
    let lines: Vec<String> = said
        .lines()
        .filter(|l| l.starts_with("  sm_"))
        .map(str::to_string)
        .collect();
    let ptx = std::fs::read_to_string(folder.path().join("k.ptx")).unwrap();
    // Sums have a fixed order.
    let adds_atomically = |line: &str| line.contains("\tatom.") || line.contains("\tred.");
    assert!(
        !ptx.lines().any(adds_atomically),
        "{} adds atomically",
        model.display()
    );
    let kernels = ptx.matches(".entry ").count();
    assert!(
        kernels > 0 && lines.len() == 2 * kernels,
        "{} lines of {kernels} kernels",
        lines.len()
    );
    Some(lines)
}

fn check(model: &Path) {
    for precision in ["f32", "tf32", "bf16"] {
        let Some(lines) = usage(model, precision) else {
            return;
        };
        let spilling: Vec<&String> = lines
            .iter()
            .filter(|line| !line.ends_with("spills 0 bytes stored, 0 loaded"))
            .collect();
        assert!(
            spilling.is_empty(),
            "{} in {precision}: {spilling:#?}",
            model.display()
        );
    }
}

#[test]
fn every_kernel_assembles_without_spills() {
    for name in NETWORKS {
        check(&fixture(&format!("dev/{name}.onnx")));
    }
}

/// The sums of EfficientNet's blocks: ptxas has 25 taps of four channels at once in registers, and 96 channels of one
/// pixel, whose turns it would unroll.
#[test]
fn long_sums_assemble_without_spills() {
    let mut net = Net::new(&[96, 14, 14]);
    let attributes = [("pads", Ints(&[2, 2, 2, 2])), ("group", Int(96))];
    let x = net.conv("x", &[96, 1, 5, 5], &attributes);
    let x = net.bn(&x, 96);
    let x = net.silu(&x);
    let pooled = net.node("GlobalAveragePool", &[&x], &[]);
    let squeezed = net.conv(&pooled, &[4, 96, 1, 1], &[]);
    let squeezed = net.silu(&squeezed);
    let excited = net.conv(&squeezed, &[96, 4, 1, 1], &[]);
    let gate = net.node("Sigmoid", &[&excited], &[]);
    let x = net.node("Mul", &[&x, &gate], &[]);
    let y = net.head(&x, 96, 4);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("m.onnx");
    std::fs::write(&model, net.finish(&[&y])).unwrap();
    check(&model);
}

/// Compiles for CUDA with `SYNCBN_PTXAS` set: exit status, messages, executable.
fn with_ptxas(path: &str) -> (Option<i32>, String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(compiler())
        .current_dir(folder.path())
        .env("SYNCBN_PTXAS", path)
        .arg(fixture("dev/mlp_bn1d.onnx"))
        .args(["-o", "m.bin", "--target", "cuda", "-v"])
        .output()
        .unwrap();
    let executable = std::fs::read(folder.path().join("m.bin")).unwrap_or_default();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
        executable,
    )
}

fn holds(executable: &[u8], words: &str) -> bool {
    executable.windows(words.len()).any(|w| w == words.as_bytes())
}

#[test]
fn without_ptxas_the_executable_carries_ptx_and_the_compiler_says_so() {
    let (code, said, executable) = with_ptxas("");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("carries PTX only"), "{said}");
    assert!(
        holds(&executable, r#""kind":"ptx","compute_capability":80"#)
            && !holds(&executable, r#""kind":"cubin""#)
    );
}

#[test]
fn a_ptxas_that_is_not_there_is_an_environment_error() {
    let (code, said, _) = with_ptxas("/nonexistent/ptxas");
    assert_eq!(code, Some(4), "{said}");
    assert!(
        said.contains("SYNCBN_PTXAS is /nonexistent/ptxas, which is no file"),
        "{said}"
    );
}

#[test]
#[allow(clippy::print_stderr)]
fn with_ptxas_the_executable_carries_code_for_both_gpus_beside_ptx() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("dev/mlp_bn1d.onnx");
    let compiled = |name: &str| {
        let flags = [model.to_str().unwrap(), "-o", name, "--target", "cpu,cuda", "-v"];
        let said = compile(folder.path(), &flags).ok().stderr;
        (said, std::fs::read(Path::new(folder.path()).join(name)).unwrap())
    };
    let (said, executable) = compiled("a.bin");
    if said.contains("no ptxas") {
        eprintln!("there is no ptxas: no executable with assembled code is made");
        return;
    }
    for (kind, capability) in [("cubin", 80), ("cubin", 90), ("ptx", 80)] {
        let entry = format!(r#""kind":"{kind}","compute_capability":{capability}"#);
        assert!(holds(&executable, &entry), "{entry}");
    }
    assert!(
        executable == compiled("b.bin").1,
        "two compilations give other bytes"
    );
}
