//! `infer`: outputs of a data set.

use std::{
    io::Write,
    sync::{Arc, atomic::AtomicBool},
};

use syncbn_abi::Initial;

use crate::{
    atomic_file, cli,
    data::{Dataset, write_npz},
    error::{Error, Result},
    execution::{Execution, Purpose},
    program::Program,
    rank::sample_bytes,
    report,
};

/// Runs `infer`.
pub fn run(program: &Arc<Program>, flags: &cli::Infer, interrupted: Arc<AtomicBool>) -> Result<()> {
    program.inference()?;
    let model = &program.model;
    atomic_file::check("-o", &flags.output)?;
    let random = |initial: &Initial| matches!(initial, Initial::KaimingNormal { .. });
    if flags.weights.is_none() && model.parameters.iter().any(|tensor| random(&tensor.initial)) {
        report::warning("the compiled file has random weights; give trained ones with --weights");
    }
    let data = Arc::new(Dataset::read(model, &flags.data, false)?);
    let ranks = flags.place.ranks.unwrap_or(1) as usize;
    let batch = model.batch_bound.min(data.samples());
    let purpose = Purpose {
        ranks,
        capacity: batch,
        train: None,
        infer: true,
    };
    let execution = Execution::start(program, purpose, flags.weights.as_deref(), interrupted)?;
    execution.prepare_inference()?;
    let sizes: Vec<usize> = model
        .outputs
        .iter()
        .map(|output| sample_bytes(output) as usize)
        .collect();
    let pieces = execution.infer(&data, batch, move |rank, samples| {
        let bytes = rank.outputs.iter_mut().zip(&sizes);
        bytes
            .map(|(output, size)| output.bytes()[..samples.len() * size].to_vec())
            .collect::<Vec<_>>()
    })?;
    let outputs: Vec<Vec<u8>> = (0..model.outputs.len())
        .map(|index| {
            pieces
                .iter()
                .flat_map(|piece| piece[index].iter().copied())
                .collect()
        })
        .collect();
    let arrays: Vec<_> = model
        .outputs
        .iter()
        .zip(&outputs)
        .map(|(output, bytes)| {
            let mut shape = vec![data.samples()];
            shape.extend(&output.shape);
            (output.name.as_str(), output.element_type, shape, bytes.as_slice())
        })
        .collect();
    if execution.interrupted() {
        return Err(Error::new(
            crate::error::Kind::Interrupted,
            "interrupted; nothing was written",
        ));
    }
    write_arrays(&flags.output, &arrays)
}

/// Writes arrays to an npz file, atomically.
pub fn write_arrays(
    path: &std::path::Path,
    arrays: &[(&str, syncbn_abi::ElementType, Vec<u64>, &[u8])],
) -> Result<()> {
    atomic_file::write(path, |out| {
        write_npz(&mut *out, arrays)?;
        out.flush().map_err(zip::result::ZipError::from)
    })
}
