//! Long products in `cuda=f32`, added as tensor cores add: close to float32 on every GPU.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use syncbn_ir::Array;
use syncbn_ir::training::Generator;

use crate::support::executable::compiled;
use crate::support::files::{Column, read_npz, write_npz};
use crate::support::net::Net;

/// Length of the products: 512 channels under a window of 3x3.
const LENGTH: usize = 4608;
const SAMPLES: usize = 16;
const OUTPUTS: usize = 64;
/// The largest error, in parts of the largest value.
const BOUND: f64 = 3e-6;

/// The largest error of `x w^T` on emulated GPUs that add as `accumulation` says, in parts of the largest value, and the
/// product.
fn product(executable: &Path, accumulation: &str, x: &Array, w: &Array) -> (f64, Vec<f64>) {
    let folder = tempfile::tempdir().unwrap();
    let [data, output] = ["d.npz", "o.npz"].map(|name| folder.path().join(name));
    write_npz(&data, &[("x", Column::F64(x))]);
    let run = Command::new(executable)
        .env("SYNCBN_EMULATOR_ACCUMULATION", accumulation)
        .arg("infer")
        .arg("--data")
        .arg(&data)
        .arg("-o")
        .arg(&output)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let found = read_npz(&output).into_values().next().unwrap();
    let (mut largest, mut error) = (0.0f64, 0.0f64);
    for n in 0..SAMPLES {
        for k in 0..OUTPUTS {
            let pairs = x.data[n * LENGTH..][..LENGTH]
                .iter()
                .zip(&w.data[k * LENGTH..][..LENGTH]);
            let exact: f64 = pairs.map(|(x, w)| x * w).sum();
            largest = largest.max(exact.abs());
            error = error.max((found.data[n * OUTPUTS + k] - exact).abs());
        }
    }
    (error / largest, found.data)
}

fn check(name: &'static str, value: impl Fn(&mut Generator) -> f64) {
    let mut random = Generator(7);
    let mut array = |dims: [usize; 2]| {
        let mut array = Array::zeros(&dims);
        // Numbers that float32 holds.
        array
            .data
            .iter_mut()
            .for_each(|v| *v = f64::from(value(&mut random) as f32));
        array
    };
    let (x, w) = (array([SAMPLES, LENGTH]), array([OUTPUTS, LENGTH]));
    let mut net = Net::new(&[LENGTH as i64]);
    let weight = net.floats("w", &[OUTPUTS as i64, LENGTH as i64], &w.data);
    let y = net.node(
        "Gemm",
        &["x", &weight],
        &[("transB", crate::support::net::Attribute::Int(1))],
    );
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::write(&model, net.finish(&[&y])).unwrap();
    let flags = [
        "--target",
        "cuda-emulated",
        "--precision",
        "f32",
        "--mode",
        "infer",
        "--batch",
        "16",
    ];
    let executable = compiled(name, &model, &flags);
    let mut products = BTreeSet::new();
    for accumulation in [
        "least", "least,1", "least,2", "least,3", "sm_90,0", "sm_80", "sm_90",
    ] {
        let (error, product) = product(executable.path(), accumulation, &x, &w);
        assert!(error < BOUND, "{name}, {accumulation}: {error:.1e}");
        // Even a float32 sum that rounds to nearest is not exact: what is below this was not computed in float32.
        assert!(error > 1e-9, "{name}, {accumulation}: {error:.1e}");
        products.insert(product.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
    }
    // What tensor cores do not add is the same however they add.
    assert!(products.len() > 2, "{name}: {} products", products.len());
}

#[test]
fn a_long_product_of_both_signs_is_close_to_float32() {
    check("long_product", |random| random.normal());
}

/// All terms push the sum the same way, and what is cut off adds up.
#[test]
fn a_long_product_of_one_sign_is_close_to_float32() {
    check("long_product_of_one_sign", |random| random.uniform());
}
