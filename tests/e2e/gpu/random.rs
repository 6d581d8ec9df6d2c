//! Random networks on emulated GPUs against the reference evaluation.

use syncbn_ir::DType;

use crate::random::{Compared, check};
use crate::support::compare::Comparison;

#[test]
fn random_networks_match_the_reference() {
    let mut all = Comparison::default();
    // Padded channels are for tensor cores, with products close to f32.
    let flags = ["--target", "cuda-emulated", "--precision", "cuda=f32"];
    (0..8).for_each(|seed| check(seed, DType::F32, &flags, (Compared::All, 1e-4), &mut all));
    all.finish("random networks on emulated GPUs");
}

/// Each value on the way to an output is rounded to `2^-9` of itself, as it is stored or as tensor cores take it, and no
/// more than 32 follow each other.
const BF16_LIMIT: f64 = 32.0 / 512.0;

#[test]
fn random_networks_in_bf16_match_the_reference() {
    let mut all = Comparison::default();
    let flags = ["--target", "cuda-emulated", "--precision", "cuda=bf16"];
    (8..16).for_each(|seed| {
        check(
            seed,
            DType::F32,
            &flags,
            (Compared::Forward, BF16_LIMIT),
            &mut all,
        )
    });
    all.finish("random networks on emulated GPUs in bf16");
}
