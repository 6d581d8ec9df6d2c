//! Why a loss is not finite: the step runs again with tracing, which finds the first layer to blame.

use crate::{
    cli,
    error::{Error, Result},
    execution::{Batch, Execution},
};

use super::save;

/// The error for a loss that is not finite in step `step` (from 1).
pub fn not_finite(execution: &dyn Execution, batch: &Batch, step: u64, flags: &cli::Train) -> Error {
    let place = match find(execution, batch) {
        Ok(place) => place,
        Err(error) => return error,
    };
    let mut error = Error::user(format!("the loss is not finite in step {step}")).note(place);
    if let Some(path) = &flags.save {
        error = error.note(format!(
            "--save \"{}\" was not written in this state",
            path.display()
        ));
    }
    error.help("lower --lr, and check the data for values that are not finite or very large")
}

/// A sentence that names the first tensor or layer that is not finite.
fn find(execution: &dyn Execution, batch: &Batch) -> Result<String> {
    // A gradient may have overflowed although the loss of its step was finite.
    if let Some(name) = save::first_not_finite_parameter(execution)? {
        return Ok(format!(
            "the update of the step before left values in \"{name}\" that are not finite"
        ));
    }
    execution.train_step(batch, None, true)?;
    let node = execution.first_not_finite()?.and_then(|index| {
        let index = usize::try_from(index).ok()?;
        execution.model().train_nodes.get(index)
    });
    Ok(match node {
        Some(node) => format!(
            "the first layer that is not finite is \"{}\" ({})",
            node.name, node.op
        ),
        None => "every layer's output is finite, but the loss is not".to_string(),
    })
}
