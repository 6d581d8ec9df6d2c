//! Layers that tensor cores do not take, on a GPU: threads move 16 bytes at a time, and results are the reference's.

use std::fs;

use super::check::{Build, Case, Target, check_builds};
use crate::support::net::Attribute::{Int, Ints, Text};
use crate::support::net::Net;
use crate::support::run::compile;

const F32: [Build; 1] = [Build {
    precision: "f32",
    flags: &["--target", "cuda-emulated", "--precision", "f32"],
    tolerance: 1e-4,
}];

/// Depthwise and grouped convolutions, both poolings, both resamplings, a residual, and what moves channels about.
fn network() -> Vec<u8> {
    let mut net = Net::new(&[4, 12, 12]);
    let pads = ("pads", Ints(&[1, 1, 1, 1]));
    let x = net.conv("x", &[16, 4, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let x = net.bn(&x, 16);
    let x = net.silu(&x);
    let deep = [pads, ("strides", Ints(&[2, 2])), ("group", Int(16))];
    let y = net.conv(&x, &[16, 1, 3, 3], &deep);
    let y = net.bn(&y, 16);
    let y = net.silu(&y);
    let window = [
        ("kernel_shape", Ints(&[3, 3])),
        ("pads", Ints(&[1, 1, 1, 1])),
        ("strides", Ints(&[2, 2])),
    ];
    let most = net.node("MaxPool", &[&x], &window);
    let halves = [("kernel_shape", Ints(&[2, 2])), ("strides", Ints(&[2, 2]))];
    let mean = net.node("AveragePool", &[&x], &halves);
    let both = net.node("Concat", &[&most, &mean], &[("axis", Int(1))]);
    let grouped = [("pads", Ints(&[1, 1, 1, 1])), ("group", Int(4))];
    let z = net.conv(&both, &[16, 8, 3, 3], &grouped);
    let z = net.bn(&z, 16);
    let z = net.node("Add", &[&z, &y], &[]);
    let z = net.silu(&z);
    let scales = net.floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
    let linear = [
        ("mode", Text("linear")),
        ("coordinate_transformation_mode", Text("half_pixel")),
    ];
    let smooth = net.node("Resize", &[&z, "", &scales], &linear);
    let nearest = [
        ("mode", Text("nearest")),
        ("coordinate_transformation_mode", Text("asymmetric")),
        ("nearest_mode", Text("floor")),
    ];
    let blocks = net.node("Resize", &[&y, "", &scales], &nearest);
    let product = net.node("Mul", &[&smooth, &blocks], &[]);
    let y = net.head(&product, 16, 4);
    net.finish(&[&y])
}

#[test]
fn layers_with_vectors_match_the_reference() {
    let case = Case {
        name: "layers_with_vectors",
        onnx: network(),
        input: &[4, 12, 12],
        target: Target::Classes(4, &[]),
        splits: &["6", "4,2", "3,0,3"],
    };
    check_builds(case, &F32);
}

/// The kernels of the PTX, by name.
fn kernels(precision: &str) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    fs::write(&model, network()).unwrap();
    let flags = [
        "--batch", "32", "--target", "cuda", "--emit", "ptx", "-o", "k.ptx",
    ];
    let model = [model.to_str().unwrap(), "--precision", precision];
    compile(folder.path(), &[&model[..], &flags].concat()).ok();
    let ptx = fs::read_to_string(folder.path().join("k.ptx")).unwrap();
    let kernel = |text: &str| {
        let (name, body) = text.split_once('(').unwrap();
        (name.to_string(), body.to_string())
    };
    ptx.split(".entry ").skip(1).map(kernel).collect()
}

/// Whether a line begins with one of these instructions.
fn has(body: &str, instructions: &[&str]) -> bool {
    let begins = |line: &str| instructions.iter().any(|i| line.trim_start().starts_with(i));
    body.lines().any(begins)
}

/// Of the kernels whose names begin so, none does without both instructions.
fn all_move(kernels: &[(String, String)], names: &[&str], loads: &[&str], stores: &[&str]) {
    for name in names {
        let mut found = kernels
            .iter()
            .filter(|(kernel, _)| kernel.starts_with(name))
            .peekable();
        assert!(found.peek().is_some(), "no kernel {name}");
        for (kernel, body) in found {
            assert!(has(body, loads) && has(body, stores), "{kernel}: {body}");
        }
    }
}

/// Those that have one stage, or whose stages all have wide accesses.
const WIDE: [&str; 11] = [
    "normalize_",
    "batch_norm_backward_data_",
    "max_pool_",
    "max_pool_backward_",
    "average_pool_",
    "average_pool_backward_",
    "resize_",
    "resize_backward_",
    "concat_",
    "slice_",
    "update_",
];

const LOADS: [&str; 4] = [
    "ld.global.nc.v4.b32",
    "ld.global.v4.b32",
    "ld.global.nc.v2.b64",
    "ld.global.v2.b64",
];
const STORES: [&str; 2] = ["st.global.v4.b32", "st.global.v2.b64"];

#[test]
fn kernels_in_f32_move_16_bytes_at_a_time() {
    let kernels = kernels("f32");
    all_move(&kernels, &WIDE, &LOADS, &STORES);
    // Of these some work on weights, whose innermost axis is a window's.
    for name in [
        "binary_",
        "batch_norm_backward_reduce_",
        "conv_",
        "conv_backward_data_",
    ] {
        let wide = |(kernel, body): &(String, String)| {
            kernel.starts_with(name) && !body.contains("mma.sync") && has(body, &LOADS) && has(body, &STORES)
        };
        assert!(kernels.iter().any(wide), "no kernel {name} is wide");
    }
}
