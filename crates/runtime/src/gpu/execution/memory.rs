//! A rank's memory on its device.

use syncbn_abi::{AdamWArguments, UpdateArguments};

use crate::{
    error::{Error, Result},
    execution::{Purpose, Region, initialise},
    gpu::{device::Device, part::GpuPart},
    optimizer::Optimizer,
    order,
    sizes::sample_bytes,
};

/// An allocation on the device.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    /// First byte.
    pub start: *mut u8,
    /// Length.
    pub bytes: u64,
}

/// What one rank keeps on its device.
#[derive(Debug)]
pub struct Memory {
    pub weights: Buffer,
    pub gradients: Buffer,
    pub velocity: Buffer,
    pub second_moment: Buffer,
    /// This rank's running statistics.
    pub statistics: Buffer,
    /// The running statistics that inference uses: rank 0's.
    pub shared_statistics: Buffer,
    pub prepared: Buffer,
    pub train_step: Buffer,
    pub infer_step: Buffer,
    pub train_constants: Buffer,
    pub infer_constants: Buffer,
    pub outputs: Vec<Buffer>,
    /// One f64.
    pub loss: Buffer,
    /// Pinned host memory for the loss.
    pub host_loss: *mut u8,
    /// The update's arguments, of whichever optimiser.
    pub update: Buffer,
    /// Pinned host memory for them.
    pub host_update: *mut u8,
}

impl Memory {
    /// Allocates what `purpose` needs and sets the initial values.
    pub fn new(
        device: &dyn Device,
        part: &GpuPart,
        purpose: &Purpose,
        weights: Option<&std::path::Path>,
    ) -> Result<Self> {
        let (model, arenas) = (&part.model, &part.model.arenas);
        let (train, infer) = (purpose.train.is_some(), purpose.infer);
        let buffer = |bytes: u64, what: &str| {
            // Generated code may form the address of an empty tensor.
            let start = device.allocate(bytes.max(1), what)?;
            Ok(Buffer { start, bytes })
        };
        let when = |wanted: bool, bytes: u64, what: &str| buffer(if wanted { bytes } else { 0 }, what);
        let batch = |bytes: u64| buffer(bytes.saturating_mul(purpose.capacity), "a batch");
        let constants = |wanted: bool, bytes: &[u8]| {
            let constants = when(wanted, bytes.len() as u64, "constants")?;
            if wanted {
                device.upload(constants.start, bytes)?;
            }
            Ok::<_, Error>(constants)
        };
        let second_moment = purpose.train.is_some_and(Optimizer::has_second_moment);
        let update_bytes = size_of::<UpdateArguments>().max(size_of::<AdamWArguments>());
        let memory = Memory {
            weights: buffer(arenas.weights, "the weights")?,
            gradients: when(train, arenas.trained, "gradients")?,
            velocity: when(train, arenas.trained, "the momentum buffer")?,
            second_moment: when(second_moment, arenas.trained, "the second moment")?,
            statistics: buffer(arenas.statistics, "running statistics")?,
            shared_statistics: when(infer, arenas.statistics, "running statistics")?,
            prepared: when(infer, arenas.prepared, "prepared weights")?,
            train_step: when(train, arenas.train_step, "the training step")?,
            infer_step: when(infer, arenas.infer_step, "inference")?,
            train_constants: constants(train, part.train_constants)?,
            infer_constants: constants(infer, part.infer_constants)?,
            outputs: model
                .outputs
                .iter()
                .map(|output| batch(sample_bytes(output)))
                .collect::<Result<_>>()?,
            loss: buffer(8, "the loss")?,
            host_loss: device.pinned(8, "the loss")?,
            update: buffer(update_bytes as u64, "the update's arguments")?,
            host_update: device.pinned(update_bytes as u64, "the update's arguments")?,
        };
        let mut initial = vec![0; arenas.weights as usize];
        let mut statistics = vec![0; arenas.statistics as usize];
        initialise(model, part.data, weights, (&mut initial, &mut statistics))?;
        order::from_rows(model, &mut initial);
        device.upload(memory.weights.start, &initial)?;
        device.upload(memory.statistics.start, &statistics)?;
        Ok(memory)
    }

    /// The device memory of a region.
    pub fn region(&self, region: Region) -> Result<Buffer> {
        let outside = || Error::internal(format!("{region:?} lies outside its memory"));
        let part = |whole: Buffer, offset: u64, bytes: u64| {
            let end = offset.checked_add(bytes).filter(|end| *end <= whole.bytes);
            end.ok_or_else(outside)?;
            let start = whole.start.wrapping_add(offset as usize);
            Ok(Buffer { start, bytes })
        };
        match region {
            Region::Weights => Ok(self.weights),
            Region::Gradients => Ok(self.gradients),
            Region::Statistics => Ok(self.statistics),
            Region::Step { offset, bytes } => part(self.train_step, offset, bytes),
            Region::Output { index, bytes } => {
                let output = self.outputs.get(index).ok_or_else(outside)?;
                part(*output, 0, bytes)
            }
        }
    }
}
