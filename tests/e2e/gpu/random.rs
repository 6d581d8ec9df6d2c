//! Random networks on emulated GPUs, in float32, against the reference evaluation.

use syncbn_ir::DType;

use crate::random::check;
use crate::support::compare::Comparison;

#[test]
fn random_networks_match_the_reference() {
    let mut all = Comparison::default();
    (0..8).for_each(|seed| check(seed, DType::F32, &["--target", "cuda-emulated"], 1e-4, &mut all));
    all.finish("random networks on emulated GPUs");
}
