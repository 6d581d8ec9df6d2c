//! What the last step left: gradients, outputs and statistics, for comparison with other implementations.

use syncbn_abi::ElementType;

use crate::{
    checkpoint::{self, Entry},
    cli,
    error::{Error, Result},
    execution::Execution,
    infer::write_arrays,
    rank::sample_bytes,
    sampler::Share,
};

/// Writes the dumps that `flags` asks for; `last` is the last step's share.
pub fn write(execution: &Execution, flags: &cli::Train, last: &Share) -> Result<()> {
    if let Some(path) = &flags.dump_gradients {
        let model = &execution.program().model;
        let trained: Vec<_> = model
            .parameters
            .iter()
            .filter(|tensor| tensor.trained)
            .cloned()
            .collect();
        let mut rank = execution.crew().rank(0);
        let entries = checkpoint::entries(&trained, model.element_type, rank.gradients.bytes())?;
        checkpoint::write(path, &entries)?;
    }
    if let Some(path) = &flags.dump_outputs {
        outputs(execution, path, last)?;
    }
    if let Some(path) = &flags.dump_statistics {
        statistics(execution, path)?;
    }
    Ok(())
}

fn outputs(execution: &Execution, path: &std::path::Path, last: &Share) -> Result<()> {
    let model = &execution.program().model;
    let mut found = vec![Vec::new(); model.outputs.len()];
    for (rank, count) in last.counts.iter().enumerate() {
        let mut rank = execution.crew().rank(rank);
        for ((bytes, tensor), buffer) in found.iter_mut().zip(&model.outputs).zip(&mut rank.outputs) {
            let length = (count * sample_bytes(tensor)) as usize;
            bytes.extend_from_slice(&buffer.bytes()[..length]);
        }
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

fn statistics(execution: &Execution, path: &std::path::Path) -> Result<()> {
    let model = &execution.program().model;
    let mut owned: Vec<(String, ElementType, Vec<u64>, Vec<u8>)> = Vec::new();
    for index in 0..execution.crew().len() {
        let mut rank = execution.crew().rank(index);
        let running = checkpoint::entries(&model.statistics, model.element_type, rank.statistics.bytes())?;
        for (name, element_type, shape, bytes) in running {
            owned.push((format!("rank{index}/{name}"), element_type, shape, bytes.to_vec()));
        }
        for layer in &model.batch_norms {
            let Some((mean, inv_std)) = layer.saved else {
                continue;
            };
            for (name, offset) in [("mean", mean), ("inv_std", inv_std)] {
                let range = offset as usize..(offset + layer.channels * 8) as usize;
                let bytes = rank.train_step.bytes().get(range).ok_or_else(|| {
                    Error::internal(format!(
                        "the {name} of \"{}\" lies outside its memory",
                        layer.name
                    ))
                })?;
                let name = format!("rank{index}/{}/{name}", layer.name);
                owned.push((name, ElementType::F64, vec![layer.channels], bytes.to_vec()));
            }
        }
    }
    let entries: Vec<Entry> = owned
        .iter()
        .map(|(name, kind, shape, bytes)| (name.clone(), *kind, shape.clone(), &bytes[..]))
        .collect();
    checkpoint::write(path, &entries)
}
