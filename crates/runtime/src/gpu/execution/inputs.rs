//! The inputs of a rank: two sets of buffers on the device, so that the next batch is copied while a step works on
//! this one.
//!
//! Samples are gathered into pinned host memory and copied on a stream of their own. Events order each copy before
//! the step that reads it, and the step that last read a buffer before the next copy to it:
//!
//! ```text
//! copies:   copy k (set 1) | waits for step k-1 | copy k+1 (set 0)
//! kernels:  step k-1 (set 0) | waits for copy k | step k (set 1)
//! ```

use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
};

use syncbn_abi::Model;

use super::memory::Buffer;
use crate::{
    error::{Error, Result},
    execution::Batch,
    files::data::Dataset,
    gpu::device::Device,
    sizes::{sample_bytes, target_bytes},
};

/// Buffers of one batch: one for each input, then one for the target.
struct Set {
    device: Vec<Buffer>,
    pinned: Vec<*mut u8>,
}

/// The buffers of a rank.
pub struct Inputs {
    /// Of the copies.
    stream: *mut c_void,
    sets: [Set; 2],
    /// The set that the last work was given.
    current: Cell<usize>,
    /// The batch whose samples the other set has.
    ahead: RefCell<Option<Batch>>,
}

impl Inputs {
    /// Buffers for batches of up to `capacity` samples.
    pub fn new(device: &dyn Device, model: &Model, capacity: u64) -> Result<Self> {
        let sizes = || {
            let inputs = model.inputs.iter().map(sample_bytes);
            inputs.chain([target_bytes(model)]).map(|bytes| {
                // Generated code may form the address of an empty tensor.
                bytes.saturating_mul(capacity).max(1)
            })
        };
        let set = || {
            let buffer = |bytes| {
                let start = device.allocate(bytes, "a batch")?;
                Ok(Buffer { start, bytes })
            };
            let pinned = |bytes| device.pinned(bytes, "a batch");
            Ok::<_, Error>(Set {
                device: sizes().map(buffer).collect::<Result<_>>()?,
                pinned: sizes().map(pinned).collect::<Result<_>>()?,
            })
        };
        Ok(Inputs {
            stream: device.stream()?,
            sets: [set()?, set()?],
            current: Cell::new(0),
            ahead: RefCell::default(),
        })
    }

    /// Copies rank `rank`'s samples of a batch to the other set, unless they are there. Returns before they are.
    pub fn load(&self, device: &dyn Device, batch: &Batch, rank: usize) -> Result<()> {
        if self.ahead.take().is_some_and(|ahead| ahead.is(batch)) {
            return Ok(());
        }
        self.copy(device, &batch.data, &batch.order[batch.share.range(rank)])
    }

    /// As [`Inputs::load`], of the batch after the current one.
    pub fn load_ahead(&self, device: &dyn Device, batch: &Batch, rank: usize) -> Result<()> {
        self.copy(device, &batch.data, &batch.order[batch.share.range(rank)])?;
        self.ahead.replace(Some(batch.clone()));
        Ok(())
    }

    /// Copies `samples` of `data` to the other set. The target is copied if the data have one. Returns before they
    /// are there.
    pub fn copy(&self, device: &dyn Device, data: &Dataset, samples: &[u64]) -> Result<()> {
        self.ahead.take();
        let set = &self.sets[1 - self.current.get()];
        // Copies that still read the pinned memory.
        device.synchronize(self.stream)?;
        for ((buffer, &pinned), column) in set.device.iter().zip(&set.pinned).zip(data.columns()) {
            let bytes = column.sample_bytes() * samples.len();
            if bytes as u64 > buffer.bytes {
                return Err(Error::internal("a batch is larger than its memory"));
            }
            if bytes == 0 {
                continue;
            }
            // SAFETY: the memory has at least as many bytes as the buffer, and no copy reads it now. The next write is
            // here, after the wait above.
            unsafe {
                column.gather(samples, std::slice::from_raw_parts_mut(pinned, bytes));
                device.copy_in(self.stream, buffer.start, pinned, bytes)?;
            }
        }
        Ok(())
    }

    /// Gives work that `stream` gets next the set that was copied to last, and lets later copies wait for what
    /// `stream` has got so far.
    pub fn enter(&self, device: &dyn Device, stream: *mut c_void) -> Result<()> {
        device.wait(stream, self.stream)?;
        device.wait(self.stream, stream)?;
        self.current.set(1 - self.current.get());
        Ok(())
    }

    /// The number of the current set, 0 or 1.
    pub fn current(&self) -> usize {
        self.current.get()
    }

    /// Begins again with the first set, so that all ranks have the same one. The device must be idle.
    pub fn restart(&self) {
        self.ahead.take();
        self.current.set(0);
    }

    /// Waits for all copies.
    pub fn settle(&self, device: &dyn Device) -> Result<()> {
        device.synchronize(self.stream)
    }

    /// Where the current set's tensors are.
    pub fn pointers(&self) -> Vec<*const u8> {
        let set = &self.sets[self.current.get()];
        set.device
            .iter()
            .map(|buffer| buffer.start.cast_const())
            .collect()
    }
}
