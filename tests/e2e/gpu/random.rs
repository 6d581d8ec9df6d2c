//! Random networks on emulated GPUs, with products close to float32, against the reference evaluation.

use syncbn_ir::DType;

use crate::random::check;
use crate::support::compare::Comparison;

#[test]
fn random_networks_match_the_reference() {
    let mut all = Comparison::default();
    let flags = ["--target", "cuda-emulated", "--precision", "cuda=f32"];
    (0..8).for_each(|seed| check(seed, DType::F32, &flags, 1e-4, &mut all));
    all.finish("random networks on emulated GPUs");
}
