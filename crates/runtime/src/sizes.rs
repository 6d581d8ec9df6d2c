//! How many bytes samples take.

use syncbn_abi::{Model, Target, Tensor};

/// Bytes of one sample of a tensor.
pub fn sample_bytes(tensor: &Tensor) -> u64 {
    tensor.shape.iter().product::<u64>() * tensor.element_type.bytes()
}

/// Bytes of one sample's target.
pub fn target_bytes(model: &Model) -> u64 {
    match &model.target {
        Some(Target::Classes { shape, .. }) => shape.iter().product::<u64>() * 8,
        Some(Target::Values { shape }) => shape.iter().product::<u64>() * model.element_type.bytes(),
        None => 0,
    }
}
