//! Random data of the shapes that a network takes.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use syncbn_abi::{ElementType, Model, Target};

use crate::{
    files::data::{Column, Dataset},
    initial::store,
    sampler::below,
    sizes::{sample_bytes, target_bytes},
};

/// Random inputs in [-1, 1) (integers: 0) and random targets.
pub fn data(model: &Model, samples: u64) -> Dataset {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut floats = |bytes: u64, element_type: ElementType| {
        let mut out = vec![0; (bytes * samples) as usize];
        let uniform = || Some((random.next_u64() >> 11) as f64 * 2_f64.powi(-52) - 1.0);
        if element_type != ElementType::I64 {
            store(&mut out, element_type, std::iter::from_fn(uniform));
        }
        Column::new(out, bytes)
    };
    let mut columns: Vec<Column> = model
        .inputs
        .iter()
        .map(|input| floats(sample_bytes(input), input.element_type))
        .collect();
    let bytes = target_bytes(model);
    match &model.target {
        Some(Target::Values { .. }) => columns.push(floats(bytes, model.element_type)),
        Some(Target::Classes { classes, .. }) => {
            let mut random = ChaCha8Rng::seed_from_u64(1);
            let label = |_| below(&mut random, (*classes).max(1)).to_le_bytes();
            let labels = (0..samples * bytes / 8).flat_map(label).collect();
            columns.push(Column::new(labels, bytes));
        }
        None => {}
    }
    Dataset::new(samples, columns)
}
