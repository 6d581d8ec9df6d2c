//! One GPU rank: its memory on a device, and the calls of generated code on it.
//!
//! Kernels have one stream and the sums of gradients another, and each call waits for both, so that the host's
//! copies and the device's work never overlap. Copying the next batch ahead, and replaying a captured step, belong into
//! `GpuExecution::load` and `GpuExecution::call`.

mod calls;
mod communicators;
mod exchange;
mod layout;
mod memory;

use std::{
    cell::{Cell, RefCell},
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
    data::Dataset,
    error::{Error, Result},
    execution::Purpose,
    place,
    place::Target,
    program::{GpuFunction, GpuPart},
    trace::Trace,
};
use memory::{Buffer, Memory};

/// A GPU part with its memory on one device, as one rank of a run.
pub struct GpuExecution {
    part: Arc<GpuPart>,
    device: Box<dyn Device>,
    seat: Seat,
    ranks: usize,
    memory: Memory,
    stream: *mut c_void,
    /// Of the gradients' collectives.
    gradient_stream: *mut c_void,
    /// One for each collective; empty with one rank.
    communicators: Vec<*mut c_void>,
    trace: Box<Trace>,
    /// Set by a signal.
    signalled: Arc<AtomicBool>,
    /// Whether all ranks agreed to end because of a signal.
    interrupted: Cell<bool>,
    /// Where samples are gathered before they are copied to the device.
    staging: RefCell<Vec<u8>>,
}

/// What a call works on, beside the arenas that every call gets.
struct Call<'a> {
    constants: Buffer,
    gradients: *mut u8,
    statistics: Buffer,
    prepared: *mut u8,
    step: Buffer,
    loss: *mut f64,
    update: *const u8,
    n: u64,
    total: u64,
    ranks: usize,
    trace: bool,
    /// What it is, for errors.
    what: &'a str,
}

impl GpuExecution {
    /// Opens the rank's device, allocates, sets initial values, and joins the communicators. Called by all
    /// ranks.
    pub fn start(
        part: &Arc<GpuPart>,
        kind: Kind,
        seat: &Seat,
        purpose: Purpose,
        weights: Option<&Path>,
        signalled: Arc<AtomicBool>,
    ) -> Result<Self> {
        let index = match kind {
            Kind::Cuda => seat.local_rank % place::visible(&Target::Gpu(Arc::clone(part), kind))?,
            Kind::Emulated => seat.local_rank,
        };
        let device = (part.devices.open)(part, kind, index)?;
        let memory = Memory::new(&*device, part, &purpose, weights)?;
        let (stream, gradient_stream) = (device.stream()?, device.stream()?);
        let mut communicators = Vec::new();
        // Only the training step has collectives.
        if let Some(control) = seat.control.as_ref().filter(|_| purpose.train.is_some()) {
            let collectives = &part.model.collectives;
            let joined = communicators::join(&*device, control, (seat.rank, purpose.ranks), collectives);
            communicators = joined.map_err(|error| control.explain(error))?;
            control.set_aborter(device.aborter());
        }
        Ok(GpuExecution {
            part: Arc::clone(part),
            device,
            seat: seat.clone(),
            ranks: purpose.ranks,
            memory,
            stream,
            gradient_stream,
            communicators,
            trace: Box::new(Trace::new(part.model.element_type)),
            signalled,
            interrupted: Cell::new(false),
            staging: RefCell::new(Vec::new()),
        })
    }

    fn control(&self) -> Option<&Control> {
        self.seat.control.as_deref()
    }

    /// Copies `samples` of `data` to the device. The target is copied if the data have one.
    fn load(&self, data: &Dataset, samples: &[u64]) -> Result<()> {
        let mut staging = self.staging.borrow_mut();
        for (buffer, column) in self.memory.inputs.iter().zip(data.columns()) {
            let bytes = column.sample_bytes() * samples.len();
            if bytes as u64 > buffer.bytes {
                return Err(Error::internal("a batch is larger than its memory"));
            }
            staging.resize(bytes, 0);
            column.gather(samples, &mut staging);
            self.device.upload(buffer.start, &staging)?;
        }
        Ok(())
    }

    /// Calls a generated function and waits for what it enqueued.
    fn call(&self, function: GpuFunction, call: &Call) -> Result<()> {
        let inputs: Vec<*const u8> = self
            .memory
            .inputs
            .iter()
            .map(|one| one.start.cast_const())
            .collect();
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
            },
            constants: call.constants.start,
            update: call.update,
            stream: self.stream,
            gradient_stream: self.gradient_stream,
            communicators,
        };
        // SAFETY: the device memory has the sizes of the description, and nothing else uses it during the call.
        let status = unsafe { function(&raw const arguments) };
        let outcome = match status {
            0 => {
                let gradients = self.device.synchronize(self.gradient_stream);
                gradients.and(self.device.synchronize(self.stream))
            }
            status => Err(Error::internal(format!(
                "{} of rank {} ended with status {status}",
                call.what, self.seat.rank
            ))),
        };
        match self.control() {
            Some(control) => outcome.map_err(|error| control.explain(error)),
            None => outcome,
        }
    }

    /// Whether a signal asked this or another rank for the end; ranks learn of it at different times.
    fn asked_to_end(&self) -> bool {
        match self.control() {
            Some(control) => control.interrupted(),
            None => self.signalled.load(Ordering::Relaxed),
        }
    }

    fn download(&self, buffer: Buffer) -> Result<Vec<u8>> {
        let mut bytes = vec![0; buffer.bytes as usize];
        self.device.download(buffer.start, &mut bytes)?;
        Ok(bytes)
    }
}
