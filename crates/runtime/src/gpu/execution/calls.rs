//! The calls of generated code: a training step, an update, inference.

use std::ptr;

use super::{Call, GpuExecution, HostCopy, capture::Scope};
use crate::{
    error::{Error, Result},
    execution::Batch,
    gpu::part::{GpuFunction, GpuUpdates},
    optimizer::{Arguments, Slice, Update},
};

impl GpuExecution {
    /// Runs one training step on this rank's samples, and copies those of `next` meanwhile; returns the loss.
    pub(super) fn step(&self, batch: &Batch, next: Option<&Batch>, trace: bool) -> Result<f64> {
        let (function, _) = self.part.training()?;
        let (rank, share) = (self.seat.rank, &batch.share);
        self.inputs.load(&*self.device, batch, rank)?;
        let entered = self.inputs.enter(&*self.device, self.stream);
        entered.map_err(|error| self.explain(error))?;
        let trace = trace || self.trace.is_timing();
        self.trace.start_clock();
        let call = Call {
            function,
            constants: self.memory.train_constants,
            gradients: self.memory.gradients.start,
            statistics: self.memory.statistics,
            prepared: ptr::null_mut(),
            step: self.memory.train_step,
            loss: self.memory.loss.start.cast(),
            update: ptr::null(),
            copy_in: None,
            copy_out: Some(HostCopy {
                device: self.memory.loss.start,
                host: self.memory.host_loss,
                bytes: 8,
            }),
            n: share.counts[rank],
            total: share.total(),
            ranks: self.ranks,
            trace,
            what: "the training step",
        };
        if trace {
            self.enqueue(&call)?;
        } else {
            let key = (share.counts.clone(), self.inputs.current());
            self.call_captured(&self.step_graphs, &key, Scope::Run, &call)?;
        }
        if let Some(next) = next {
            self.inputs.load_ahead(&*self.device, next, rank)?;
        }
        self.settle()?;
        if self.ranks == 1 && self.device.collectives() != 0 {
            return Err(Error::internal("one rank executed a collective"));
        }
        // SAFETY: 8 bytes of pinned memory, which the step that was waited for has written.
        Ok(unsafe { self.memory.host_loss.cast::<f64>().read() })
    }

    /// Enqueues the update of all trained weights of this rank's copy: the gradients of all ranks have the same bits, and so
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
        let (function, bytes) = match &arguments {
            Arguments::Sgd(arguments) => (sgd, bytes_of(arguments)),
            Arguments::AdamW(_) if self.memory.second_moment.bytes == 0 && elements > 0 => {
                return Err(Error::internal("AdamW has no memory for the second moment"));
            }
            Arguments::AdamW(arguments) => (adamw, bytes_of(arguments)),
        };
        // SAFETY: the memory has room for the arguments of any optimiser. The update before has read it, as a step that
        // was waited for came after it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.host_update, bytes.len()) };
        let call = Call {
            function,
            constants: self.memory.train_constants,
            gradients: self.memory.gradients.start,
            statistics: self.memory.statistics,
            prepared: ptr::null_mut(),
            step: self.memory.train_step,
            loss: ptr::null_mut(),
            update: self.memory.update.start,
            copy_in: Some(HostCopy {
                device: self.memory.update.start,
                host: self.memory.host_update,
                bytes: bytes.len(),
            }),
            copy_out: None,
            n: 0,
            total: 0,
            ranks: self.ranks,
            trace: false,
            what: "the update",
        };
        self.call_captured(&self.update_graphs, &(), Scope::Rank, &call)
    }

    /// Enqueues a function of inference on `n` samples of the current inputs, as a graph if `captured`.
    pub(super) fn infer_call(&self, function: GpuFunction, n: u64, captured: bool) -> Result<()> {
        let before = self.device.collectives();
        let call = Call {
            function,
            constants: self.memory.infer_constants,
            gradients: ptr::null_mut(),
            statistics: self.memory.shared_statistics,
            prepared: self.memory.prepared.start,
            step: self.memory.infer_step,
            loss: ptr::null_mut(),
            update: ptr::null(),
            copy_in: None,
            copy_out: None,
            n,
            total: n,
            ranks: 1,
            trace: self.trace.is_timing(),
            what: "inference",
        };
        self.trace.start_clock();
        if captured && !call.trace {
            let key = (n, self.inputs.current());
            self.call_captured(&self.inference_graphs, &key, Scope::Rank, &call)?;
        } else {
            self.enqueue(&call)?;
        }
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
