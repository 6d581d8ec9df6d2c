//! What the last step left: gradients, outputs and statistics, for comparison with other implementations.

use std::path::Path;

use syncbn_abi::ElementType;

use crate::{
    cli,
    commands::infer::write_arrays,
    error::Result,
    execution::{Execution, Region},
    files::checkpoint::{self, Entry},
    sampler::Share,
    sizes::sample_bytes,
};

/// Writes the dumps that `flags` asks for; `last` is the last step's share. Called by all processes.
pub fn write(execution: &dyn Execution, flags: &cli::Train, last: &Share) -> Result<()> {
    if let Some(path) = flags.dump_gradients.as_ref().filter(|_| execution.leads()) {
        let model = execution.model();
        let trained: Vec<_> = model
            .parameters
            .iter()
            .filter(|tensor| tensor.trained)
            .cloned()
            .collect();
        execution.read(Region::Gradients, &mut |gradients| {
            checkpoint::write(
                path,
                &checkpoint::entries(&trained, model.element_type, gradients)?,
            )
        })?;
    }
    if let Some(path) = &flags.dump_outputs {
        outputs(execution, path, last)?;
    }
    if let Some(path) = &flags.dump_statistics {
        statistics(execution, path)?;
    }
    Ok(())
}

fn outputs(execution: &dyn Execution, path: &Path, last: &Share) -> Result<()> {
    let model = execution.model();
    let mut found = Vec::new();
    for (index, tensor) in model.outputs.iter().enumerate() {
        let bytes = |rank: usize| last.counts[rank] * sample_bytes(tensor);
        let pieces = execution.gather(&|rank| Region::Output {
            index,
            bytes: bytes(rank),
        })?;
        found.push(pieces.concat());
    }
    if !execution.leads() {
        return Ok(());
    }
    let arrays: Vec<_> = model
        .outputs
        .iter()
        .zip(&found)
        .map(|(tensor, bytes)| {
            let mut shape = vec![last.total()];
            shape.extend(&tensor.shape);
            (tensor.name.as_str(), tensor.element_type, shape, bytes.as_slice())
        })
        .collect();
    write_arrays(path, &arrays)
}

fn statistics(execution: &dyn Execution, path: &Path) -> Result<()> {
    let model = execution.model();
    let mut owned: Vec<(String, ElementType, Vec<u64>, Vec<u8>)> = Vec::new();
    for (rank, arena) in execution.gather(&|_| Region::Statistics)?.iter().enumerate() {
        for (name, element_type, shape, bytes) in
            checkpoint::entries(&model.statistics, model.element_type, arena)?
        {
            owned.push((format!("rank{rank}/{name}"), element_type, shape, bytes.to_vec()));
        }
    }
    for layer in &model.batch_norms {
        let Some((mean, inv_std)) = layer.saved else {
            continue;
        };
        for (name, offset) in [("mean", mean), ("inv_std", inv_std)] {
            let bytes = layer.channels * 8;
            let found = execution.gather(&|_| Region::Step { offset, bytes })?;
            for (rank, bytes) in found.into_iter().enumerate() {
                let name = format!("rank{rank}/{}/{name}", layer.name);
                owned.push((name, ElementType::F64, vec![layer.channels], bytes));
            }
        }
    }
    if !execution.leads() {
        return Ok(());
    }
    let entries: Vec<Entry> = owned
        .iter()
        .map(|(name, kind, shape, bytes)| (name.clone(), *kind, shape.clone(), &bytes[..]))
        .collect();
    checkpoint::write(path, &entries)
}
