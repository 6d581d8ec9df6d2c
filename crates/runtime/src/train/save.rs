//! Saving a training's weights, and the checks that come before.

use std::path::Path;

use syncbn_abi::Parameter;

use crate::{
    checkpoint,
    error::{Error, Result},
    execution::Execution,
    initial::values,
};

use super::counts::group_size;

/// Saves parameters and rank 0's running statistics after step `step`. Values that are not finite are
/// refused with an error that names the first such tensor, and the file keeps what it held.
pub fn write(execution: &Execution, path: Option<&Path>, step: u64) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    if let Some(name) = first_not_finite(execution)? {
        return Err(Error::user(format!("\"{name}\" is not finite after step {step}"))
            .note(format!("\"{}\" was left as it was", path.display()))
            .help("lower --lr, and check the data for values that are not finite"));
    }
    let model = &execution.program().model;
    let mut memory = execution.memory();
    let mut rank = execution.crew().rank(0);
    let mut entries = checkpoint::entries(&model.parameters, model.element_type, memory.weights.bytes())?;
    entries.extend(checkpoint::entries(
        &model.statistics,
        model.element_type,
        rank.statistics.bytes(),
    )?);
    checkpoint::write(path, &entries)
}

/// The first parameter or running statistic of rank 0 with a value that is not finite.
pub fn first_not_finite(execution: &Execution) -> Result<Option<String>> {
    let model = &execution.program().model;
    let broken = |tensors: &[Parameter], arena: &[u8]| -> Result<Option<String>> {
        let entries = checkpoint::entries(tensors, model.element_type, arena)?;
        let finite = |bytes: &[u8]| {
            values(bytes, model.element_type)
                .iter()
                .all(|value| value.is_finite())
        };
        Ok(entries
            .into_iter()
            .find(|(.., bytes)| !finite(bytes))
            .map(|(name, ..)| name))
    };
    let weights = broken(&model.parameters, execution.memory().weights.bytes())?;
    match weights {
        Some(name) => Ok(Some(name)),
        None => broken(&model.statistics, execution.crew().rank(0).statistics.bytes()),
    }
}

/// Checks that ranks that normalise together ended with the same bits of running statistics.
pub fn check_statistics(execution: &Execution) -> Result<()> {
    let model = &execution.program().model;
    let ranks = execution.crew().len();
    let Some(size) = group_size(&model.batch_norm_mode, ranks) else {
        return Ok(());
    };
    for rank in (0..ranks).filter(|rank| rank % size != 0) {
        let first = rank / size * size;
        let expected = execution.crew().rank(first).statistics.bytes().to_vec();
        if execution.crew().rank(rank).statistics.bytes() != expected {
            return Err(Error::internal(format!(
                "the running statistics of rank {rank} differ from those of rank {first}"
            )));
        }
    }
    Ok(())
}
