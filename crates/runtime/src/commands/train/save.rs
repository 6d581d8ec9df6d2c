//! Saving a training's weights, and the checks that come before.

use std::path::Path;

use syncbn_abi::ElementType;

use crate::{
    error::{Error, Result},
    execution::{Execution, Region},
    files::checkpoint::{self, Entry},
    initial::values,
};

use super::counts::group_size;

/// Saves parameters and rank 0's running statistics after step `step`, if all ranks hold the same parameters.
/// Values that are not finite are refused with an error that names the first such tensor, and the file keeps
/// what it held.
pub fn write(execution: &dyn Execution, path: Option<&Path>, step: u64) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    execution.check_weights()?;
    let written = match execution.leads() {
        true => write_file(execution, path, step),
        false => Ok(()),
    };
    execution.agree(written)
}

fn write_file(execution: &dyn Execution, path: &Path, step: u64) -> Result<()> {
    let model = execution.model();
    let mut statistics = Vec::new();
    execution.read(Region::Statistics, &mut |bytes| {
        statistics.extend_from_slice(bytes);
        Ok(())
    })?;
    execution.read(Region::Weights, &mut |weights| {
        let mut entries = checkpoint::entries(&model.parameters, model.element_type, weights)?;
        entries.extend(checkpoint::entries(
            &model.statistics,
            model.element_type,
            &statistics,
        )?);
        if let Some(name) = first_not_finite(&entries) {
            return Err(Error::user(format!("\"{name}\" is not finite after step {step}"))
                .note(format!("\"{}\" was left as it was", path.display()))
                .help("lower --lr, and check the data for values that are not finite"));
        }
        checkpoint::write(path, &entries)
    })
}

/// The first parameter with a value that is not finite.
pub fn first_not_finite_parameter(execution: &dyn Execution) -> Result<Option<String>> {
    let model = execution.model();
    let mut found = None;
    execution.read(Region::Weights, &mut |weights| {
        found = first_not_finite(&checkpoint::entries(
            &model.parameters,
            model.element_type,
            weights,
        )?);
        Ok(())
    })?;
    Ok(found)
}

fn first_not_finite(entries: &[Entry]) -> Option<String> {
    let finite = |element_type: ElementType, bytes: &[u8]| {
        values(bytes, element_type).iter().all(|value| value.is_finite())
    };
    entries
        .iter()
        .find(|(_, element_type, _, bytes)| !finite(*element_type, bytes))
        .map(|(name, ..)| name.clone())
}

/// Checks that ranks that normalise together ended with the same bits of running statistics.
pub fn check_statistics(execution: &dyn Execution) -> Result<()> {
    let model = execution.model();
    let Some(size) = group_size(&model.batch_norm_mode, execution.ranks()) else {
        return Ok(());
    };
    let found = execution.gather(&|_| Region::Statistics)?;
    for (rank, statistics) in found.iter().enumerate() {
        let first = rank / size * size;
        if *statistics != found[first] {
            return Err(Error::internal(format!(
                "the running statistics of rank {rank} differ from those of rank {first}"
            )));
        }
    }
    Ok(())
}
