//! The BatchNorm modes on emulated GPUs.

use crate::modes::check;

const TARGET: &str = "cuda-emulated";

#[test]
fn local() {
    check("syncbnnet_w4", "local", "f32", TARGET);
}

#[test]
fn groups_of_two() {
    check("syncbnnet_w4", "group=2", "f32", TARGET);
    check("mlp_bn1d", "group=2", "f32", TARGET);
}

#[test]
fn frozen() {
    check("syncbnnet_w4", "frozen", "f32", TARGET);
    check("mlp_bn1d", "frozen", "f32", TARGET);
}
