//! `infer`: outputs of a data set.

use std::{
    io::Write,
    sync::{Arc, atomic::AtomicBool},
};

use syncbn_abi::Initial;

use crate::{
    cli,
    error::{Error, Kind, Result},
    files::{
        atomic_file,
        data::{Dataset, write_npz},
    },
    place::{self, Place},
    report,
    sizes::sample_bytes,
};

/// Runs `infer`.
pub fn run(place: &Place, flags: &cli::Infer, interrupted: Arc<AtomicBool>) -> Result<()> {
    place.check_inference()?;
    let model = place.model();
    if place.leads() {
        atomic_file::check("-o", &flags.output)?;
    }
    let random = |initial: &Initial| matches!(initial, Initial::KaimingNormal { .. });
    let untrained = model.parameters.iter().any(|tensor| random(&tensor.initial));
    if place.leads() && flags.weights.is_none() && untrained {
        report::warning("the compiled file has random weights; give trained ones with --weights");
    }
    let data = Arc::new(Dataset::read(model, &flags.data, false)?);
    let batch = model.batch_bound.min(data.samples());
    let purpose = place.purpose(batch, None, true);
    let execution = place::start(place, purpose, flags.weights.as_deref(), interrupted)?;
    execution.prepare_inference()?;
    let sizes: Vec<usize> = model
        .outputs
        .iter()
        .map(|output| sample_bytes(output) as usize)
        .collect();
    let shown = sizes.clone();
    // A piece is a batch of the first output, then one of the second, and so on.
    let consume = move |outputs: &[&[u8]], samples: &[u64]| {
        let outputs = outputs.iter().zip(&shown);
        outputs
            .flat_map(|(output, size)| &output[..samples.len() * size])
            .copied()
            .collect()
    };
    let pieces = execution.infer(&data, batch, Some(Arc::new(consume)))?;
    if execution.interrupted() {
        return Err(Error::new(Kind::Interrupted, "interrupted; nothing was written"));
    }
    if !execution.leads() {
        return execution.finish();
    }
    let outputs = separate(&pieces, &sizes);
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
    write_arrays(&flags.output, &arrays)?;
    execution.finish()
}

/// The outputs, of `sizes` bytes a sample, that lie one after the other in each of the pieces.
fn separate(pieces: &[Vec<u8>], sizes: &[usize]) -> Vec<Vec<u8>> {
    let whole: usize = sizes.iter().sum();
    let mut outputs = vec![Vec::new(); sizes.len()];
    for piece in pieces {
        let samples = piece.len() / whole.max(1);
        let mut rest = piece.as_slice();
        for (output, size) in outputs.iter_mut().zip(sizes) {
            let (own, others) = rest.split_at(samples * size);
            output.extend_from_slice(own);
            rest = others;
        }
    }
    outputs
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
