//! One GPU rank: its memory on a device, and the calls of generated code on it.
//!
//! Kernels have one stream, the sums of gradients another, and the copies of batches a third ([`inputs`]). A step
//! waits for its work, because the loss decides what comes next; the next batch is copied meanwhile. An update is only
//! enqueued. Steps, updates and inference are captured and replayed ([`graphs`]).

mod calls;
mod capture;
mod communicators;
mod exchange;
mod graphs;
mod inputs;
mod memory;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    ffi::c_void,
    path::Path,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use syncbn_abi::{GpuArguments, StepArguments};

use super::{Kind, control::Control, device::Device, process::Seat};
use crate::{
    cli::Options,
    error::{Error, Result},
    execution::Purpose,
    gpu::{
        self,
        part::{GpuFunction, GpuPart},
    },
    trace::Trace,
};
use graphs::Graphs;
use inputs::Inputs;
use memory::{Buffer, Memory};

/// What a training step's graph stands for: the counts of all ranks, so that all decide alike, and the set of input
/// buffers.
type StepKey = (Vec<u64>, usize);
/// The number of samples, and the set of input buffers.
type InferenceKey = (u64, usize);

/// A GPU part with its memory on one device, as one rank of a run.
pub struct GpuExecution {
    // Graphs go before the device, whose communicators wait for the end of graphs that use them.
    step_graphs: Graphs<StepKey>,
    update_graphs: Graphs<()>,
    inference_graphs: Graphs<InferenceKey>,
    part: Arc<GpuPart>,
    device: Box<dyn Device>,
    seat: Seat,
    ranks: usize,
    memory: Memory,
    inputs: Inputs,
    stream: *mut c_void,
    /// Of the gradients' collectives; the same without overlap.
    gradient_stream: *mut c_void,
    /// One for each collective; empty with one rank.
    communicators: Vec<*mut c_void>,
    trace: Box<Trace>,
    /// Set by a signal.
    signalled: Arc<AtomicBool>,
    /// Whether all ranks agreed to end because of a signal.
    interrupted: Cell<bool>,
    /// Whether all ranks came to the end.
    finished: Cell<bool>,
}

/// A call of a generated function: what it works on, beside the arenas that every call gets.
struct Call<'a> {
    function: GpuFunction,
    constants: Buffer,
    gradients: *mut u8,
    statistics: Buffer,
    prepared: *mut u8,
    step: Buffer,
    loss: *mut f64,
    update: *const u8,
    /// What is copied from the host before it.
    copy_in: Option<HostCopy>,
    /// What is copied to the host after it.
    copy_out: Option<HostCopy>,
    n: u64,
    total: u64,
    ranks: usize,
    trace: bool,
    /// What it is, for errors.
    what: &'a str,
}

/// A copy between the device and pinned host memory.
#[derive(Clone, Copy)]
struct HostCopy {
    device: *mut u8,
    host: *mut u8,
    bytes: usize,
}

impl GpuExecution {
    /// Opens the rank's device, allocates, sets initial values, and joins the communicators. Called by all
    /// ranks.
    pub fn start(
        part: &Arc<GpuPart>,
        kind: Kind,
        seat: &Seat,
        purpose: Purpose,
        options: Options,
        weights: Option<&Path>,
        signalled: Arc<AtomicBool>,
    ) -> Result<Self> {
        let index = match kind {
            Kind::Cuda => seat.local_rank % gpu::visible(part, kind)?,
            Kind::Emulated => seat.local_rank,
        };
        let device = part.devices.open(part, kind, index)?;
        let memory = Memory::new(&*device, part, &purpose, weights)?;
        let inputs = Inputs::new(&*device, &part.model, purpose.capacity)?;
        let stream = device.stream()?;
        let gradient_stream = match options.overlap {
            true => device.stream()?,
            false => stream,
        };
        let mut communicators = Vec::new();
        // Only the training step has collectives.
        if let Some(control) = seat.control.as_ref().filter(|_| purpose.train.is_some()) {
            let collectives = &part.model.collectives;
            let ranks = (seat.rank, purpose.ranks);
            let joined = communicators::join(&*device, control, ranks, collectives, options.overlap);
            control.set_aborter(device.aborter());
            communicators = joined.map_err(|error| {
                // The others may wait in a communicator that this rank does not join; only once this rank has told them
                // can they end those that they have, and until then ending one in order would wait for them.
                control.end_communicators(false);
                control.explain(error)
            })?;
        }
        Ok(GpuExecution {
            step_graphs: Graphs::new(options.graphs),
            update_graphs: Graphs::new(options.graphs),
            inference_graphs: Graphs::new(options.graphs),
            part: Arc::clone(part),
            device,
            seat: seat.clone(),
            ranks: purpose.ranks,
            memory,
            inputs,
            stream,
            gradient_stream,
            communicators,
            trace: Box::new(Trace::new(part.model.element_type)),
            signalled,
            interrupted: Cell::new(false),
            finished: Cell::new(false),
        })
    }

    fn control(&self) -> Option<&Control> {
        self.seat.control.as_deref()
    }

    /// Calls a generated function, which enqueues its work, and enqueues the copies around it.
    fn enqueue(&self, call: &Call) -> Result<()> {
        if let Some(HostCopy { device, host, bytes }) = call.copy_in {
            // SAFETY: the host memory is written by calls that come after a wait for this one.
            unsafe { self.device.copy_in(self.stream, device, host, bytes)? };
        }
        let inputs = self.inputs.pointers();
        let outputs: Vec<*mut u8> = self.memory.outputs.iter().map(|one| one.start).collect();
        let communicators = match self.communicators.as_slice() {
            [] => ptr::null(),
            some => some.as_ptr(),
        };
        let arguments = GpuArguments {
            step: StepArguments {
                context: ptr::from_ref::<Trace>(&self.trace).cast_mut().cast(),
                weights: self.memory.weights.start,
                gradients: call.gradients,
                statistics: call.statistics.start,
                prepared: call.prepared,
                step: call.step.start,
                inputs: inputs.as_ptr(),
                outputs: outputs.as_ptr(),
                loss: call.loss,
                n: call.n as i64,
                total: call.total as i64,
                ranks: call.ranks as i64,
                trace: i64::from(call.trace),
                thread: 0,
                threads: 1,
                scratch: std::ptr::null_mut(),
                partials: std::ptr::null_mut(),
            },
            constants: call.constants.start,
            update: call.update,
            stream: self.stream,
            gradient_stream: self.gradient_stream,
            communicators,
        };
        // SAFETY: the device memory has the sizes of the description, and nothing else uses it during the call.
        let status = unsafe { (call.function)(&raw const arguments) };
        if status != 0 {
            return Err(self.explain(Error::internal(format!(
                "{} of rank {} ended with status {status}",
                call.what, self.seat.rank
            ))));
        }
        if let Some(HostCopy { device, host, bytes }) = call.copy_out {
            // SAFETY: the host memory is read after a wait for this call.
            unsafe { self.device.copy_out(self.stream, device, host, bytes)? };
        }
        Ok(())
    }

    /// Waits for all enqueued calls; the first error of any of them.
    fn settle(&self) -> Result<()> {
        let gradients = self.device.synchronize(self.gradient_stream);
        let outcome = gradients.and(self.device.synchronize(self.stream));
        outcome.map_err(|error| self.explain(error))
    }

    /// The error behind `error`: a dead rank, if there is one.
    fn explain(&self, error: Error) -> Error {
        match self.control() {
            Some(control) => control.explain(error),
            None => error,
        }
    }

    /// Whether a signal asked this or another rank for the end; ranks learn of it at different times.
    fn asked_to_end(&self) -> bool {
        match self.control() {
            Some(control) => control.interrupted(),
            None => self.signalled.load(Ordering::Relaxed),
        }
    }

    /// Copies from the device after all enqueued calls, whose errors it returns.
    fn download(&self, buffer: Buffer) -> Result<Vec<u8>> {
        self.settle()?;
        let mut bytes = vec![0; buffer.bytes as usize];
        self.device.download(buffer.start, &mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for GpuExecution {
    fn drop(&mut self) {
        // Communicators wait for the end of graphs that use them.
        self.step_graphs.give_up();
        if let Some(control) = self.control() {
            control.end_communicators(self.finished.get());
        }
        // A batch that was copied ahead may still be on its way from memory that ends with the device.
        let _ = self.inputs.settle(&*self.device);
    }
}
