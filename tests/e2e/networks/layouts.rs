//! Operators that see plain tensors and tensors with channels innermost side by side, on emulated GPUs.

use super::check::{Build, Case, Target, check_builds};
use crate::support::net::Attribute::{Int, Ints};
use crate::support::net::Net;

const BUILDS: [Build; 1] = [Build {
    precision: "f32",
    flags: &["--target", "cuda-emulated", "--precision", "f32"],
    tolerance: 1e-4,
}];

/// One rank, and two with an empty one between them.
const SPLITS: &[&str] = &["6", "3,0,3"];

/// The target is plain and the prediction is not; the shift's gradient is a sum over samples, which lies as the shift.
#[test]
fn squared_error_of_images_with_a_shift_of_every_pixel() {
    let mut net = Net::new(&[4, 6, 5]);
    let shift = net.normal("shift", &[1, 4, 6, 5], 0.0, 0.5);
    let x = net.node("Add", &["x", &shift], &[]);
    let x = net.conv(&x, &[8, 4, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let x = net.bn(&x, 8);
    let x = net.silu(&x);
    let y = net.conv_bias(&x, &[3, 8, 1, 1], &[]);
    check_builds(
        Case {
            name: "layouts_squared_error",
            onnx: net.finish(&[&y]),
            input: &[4, 6, 5],
            target: Target::Values(&[3, 6, 5]),
            splits: SPLITS,
        },
        &BUILDS,
    );
}

/// The rows of the linear layer are features in the order of their logical index, whatever lies in memory.
#[test]
fn features_of_every_pixel() {
    let mut net = Net::new(&[4, 4, 3]);
    let x = net.conv("x", &[8, 4, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let x = net.bn(&x, 8);
    let x = net.silu(&x);
    let x = net.node("Concat", &[&x, "x"], &[("axis", Int(1))]);
    let x = net.node("Flatten", &[&x], &[]);
    let y = net.linear(&x, 144, 5);
    check_builds(
        Case {
            name: "layouts_features",
            onnx: net.finish(&[&y]),
            input: &[4, 4, 3],
            target: Target::Classes(5, &[]),
            splits: SPLITS,
        },
        &BUILDS,
    );
}

/// The input is added to the result of a convolution, which inference does where it writes that result.
#[test]
fn residual_that_is_the_input() {
    let mut net = Net::new(&[8, 5, 4]);
    let h = net.conv("x", &[8, 8, 3, 3], &[("pads", Ints(&[1, 1, 1, 1]))]);
    let h = net.bn(&h, 8);
    let h = net.silu(&h);
    let h = net.conv(&h, &[8, 8, 1, 1], &[]);
    let h = net.bn(&h, 8);
    let h = net.node("Add", &[&h, "x"], &[]);
    let y = net.head(&h, 8, 4);
    check_builds(
        Case {
            name: "layouts_residual",
            onnx: net.finish(&[&y]),
            input: &[8, 5, 4],
            target: Target::Classes(4, &[]),
            splits: SPLITS,
        },
        &BUILDS,
    );
}
