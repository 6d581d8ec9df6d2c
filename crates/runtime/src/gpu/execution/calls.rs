//! The calls of generated code: a training step, an update, inference.

use std::ptr;

use super::{Call, GpuExecution};
use crate::{
    data::Dataset,
    error::{Error, Result},
    optimizer::{Arguments, Slice, Update},
    program::{GpuFunction, GpuUpdates},
    sampler::Share,
};

impl GpuExecution {
    /// Runs one training step on this rank's samples; returns the loss.
    pub(super) fn step(&self, data: &Dataset, order: &[u64], share: &Share, trace: bool) -> Result<f64> {
        let (function, _) = self.part.training()?;
        let samples = &order[share.range(self.seat.rank)];
        self.load(data, samples)?;
        self.call(
            function,
            &Call {
                constants: self.memory.train_constants,
                gradients: self.memory.gradients.start,
                statistics: self.memory.statistics,
                prepared: ptr::null_mut(),
                step: self.memory.train_step,
                loss: self.memory.loss.start.cast(),
                update: ptr::null(),
                n: samples.len() as u64,
                total: share.total(),
                ranks: self.ranks,
                trace,
                what: "the training step",
            },
        )?;
        if self.ranks == 1 && self.device.collectives() != 0 {
            return Err(Error::internal("one rank executed a collective"));
        }
        let mut loss = [0; 8];
        self.device.download(self.memory.loss.start, &mut loss)?;
        Ok(f64::from_le_bytes(loss))
    }

    /// Updates all trained weights of this rank's copy: the gradients of all ranks have the same bits, and so
    /// have the weights.
    pub(super) fn apply(&self, update: Update) -> Result<()> {
        let (_, GpuUpdates { sgd, adamw }) = self.part.training()?;
        let elements = self.part.model.arenas.trained / self.part.model.element_type.bytes();
        let arguments = update.arguments(Slice {
            weights: self.memory.weights.start,
            gradients: self.memory.gradients.start,
            velocity: self.memory.velocity.start,
            second_moment: self.memory.second_moment.start,
            begin: 0,
            end: elements as i64,
        });
        let function = match arguments {
            Arguments::Sgd(arguments) => {
                self.device
                    .upload(self.memory.update.start, bytes_of(&arguments))?;
                sgd
            }
            Arguments::AdamW(_) if self.memory.second_moment.bytes == 0 && elements > 0 => {
                return Err(Error::internal("AdamW has no memory for the second moment"));
            }
            Arguments::AdamW(arguments) => {
                self.device
                    .upload(self.memory.update.start, bytes_of(&arguments))?;
                adamw
            }
        };
        self.call(
            function,
            &Call {
                constants: self.memory.train_constants,
                gradients: self.memory.gradients.start,
                statistics: self.memory.statistics,
                prepared: ptr::null_mut(),
                step: self.memory.train_step,
                loss: ptr::null_mut(),
                update: self.memory.update.start,
                n: 0,
                total: 0,
                ranks: self.ranks,
                trace: false,
                what: "the update",
            },
        )
    }

    /// Runs a function of inference on `n` loaded samples.
    pub(super) fn infer_call(&self, function: GpuFunction, n: u64) -> Result<()> {
        let before = self.device.collectives();
        self.call(
            function,
            &Call {
                constants: self.memory.infer_constants,
                gradients: ptr::null_mut(),
                statistics: self.memory.shared_statistics,
                prepared: self.memory.prepared.start,
                step: self.memory.infer_step,
                loss: ptr::null_mut(),
                update: ptr::null(),
                n,
                total: n,
                ranks: 1,
                trace: false,
                what: "inference",
            },
        )?;
        if self.device.collectives() != before {
            return Err(Error::internal("inference executed a collective"));
        }
        Ok(())
    }
}

/// The memory of the arguments of an update.
fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: plain values of 8 bytes each have no padding.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Structures of fields of 8 bytes.
trait Plain {}
impl Plain for syncbn_abi::UpdateArguments {}
impl Plain for syncbn_abi::AdamWArguments {}
