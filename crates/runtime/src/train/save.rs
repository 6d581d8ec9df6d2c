//! Saving a training's weights, and the checks that come before.

use std::path::Path;

use syncbn_abi::{ElementType, Parameter};

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
    let broken = match first_not_finite_parameter(execution)? {
        Some(name) => Some(name),
        None => first_not_finite_statistic(execution)?,
    };
    if let Some(name) = broken {
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

/// The first parameter with a value that is not finite.
pub fn first_not_finite_parameter(execution: &Execution) -> Result<Option<String>> {
    let model = &execution.program().model;
    find_not_finite(
        &model.parameters,
        model.element_type,
        execution.memory().weights.bytes(),
    )
}

/// The first running statistic of rank 0 with a value that is not finite.
fn first_not_finite_statistic(execution: &Execution) -> Result<Option<String>> {
    let model = &execution.program().model;
    find_not_finite(
        &model.statistics,
        model.element_type,
        execution.crew().rank(0).statistics.bytes(),
    )
}

fn find_not_finite(tensors: &[Parameter], element_type: ElementType, arena: &[u8]) -> Result<Option<String>> {
    let entries = checkpoint::entries(tensors, element_type, arena)?;
    let finite = |bytes: &[u8]| values(bytes, element_type).iter().all(|value| value.is_finite());
    Ok(entries
        .into_iter()
        .find(|(.., bytes)| !finite(bytes))
        .map(|(name, ..)| name))
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
