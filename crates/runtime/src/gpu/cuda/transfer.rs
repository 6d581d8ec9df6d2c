//! Copies between host and device through pinned memory, on a stream of their own.

use std::{ffi::c_void, rc::Rc};

use super::{
    context::Context,
    stream::{CudaStream, Event},
};
use crate::error::Result;

/// Bytes of each of the two halves of the pinned memory: while one is copied, the other is filled.
const HALF: usize = 8 << 20;

/// The pinned memory and its stream.
pub(super) struct Transfer {
    context: Rc<Context>,
    stream: CudaStream,
    /// When the copy from or to a half is done.
    done: [Event; 2],
    pinned: Pinned,
}

impl Transfer {
    /// Two idle halves.
    pub fn new(context: &Rc<Context>) -> Result<Self> {
        Ok(Transfer {
            context: Rc::clone(context),
            stream: CudaStream::new(context)?,
            done: [Event::new(context)?, Event::new(context)?],
            pinned: Pinned::new(context, 2 * HALF as u64, "copies")?,
        })
    }

    /// Copies to the device, and waits.
    pub fn upload(&self, to: *mut u8, from: &[u8]) -> Result<()> {
        self.context.check(to, from.len(), "an upload")?;
        for (index, chunk) in from.chunks(HALF).enumerate() {
            let half = index % 2;
            self.done[half].synchronize()?;
            // SAFETY: the half has room for a chunk, and nothing copies from it; `check` answers for `to`.
            unsafe {
                let place = self.pinned.start.add(half * HALF);
                std::ptr::copy_nonoverlapping(chunk.as_ptr(), place, chunk.len());
                self.stream.upload(to.add(index * HALF), place, chunk.len())?;
            }
            self.done[half].record(&self.stream)?;
        }
        self.stream.synchronize()
    }

    /// Copies from the device after all work of all streams, and waits.
    pub fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        self.context.check(from, to.len(), "a download")?;
        let driver = &self.context.driver;
        // SAFETY: it takes nothing.
        driver.check(unsafe { (driver.synchronize_context)() }, "cuCtxSynchronize")?;
        for (index, chunk) in to.chunks_mut(2 * HALF).enumerate() {
            // SAFETY: the pinned memory has room for a chunk, and the copy ends before it is read; `check`
            // answers for `from`.
            unsafe {
                self.stream
                    .download(from.add(index * 2 * HALF), self.pinned.start, chunk.len())?;
                self.stream.synchronize()?;
                std::ptr::copy_nonoverlapping(self.pinned.start, chunk.as_mut_ptr(), chunk.len());
            }
        }
        Ok(())
    }

    /// Zeroes device memory, and waits.
    ///
    /// # Safety
    /// `to` is device memory with room for `bytes` bytes.
    pub unsafe fn zero(&self, to: *mut u8, bytes: usize) -> Result<()> {
        // SAFETY: passed on from the caller.
        unsafe { self.stream.zero(to, bytes)? };
        self.stream.synchronize()
    }
}

/// Host memory that the GPU reads and writes.
pub(super) struct Pinned {
    context: Rc<Context>,
    pub start: *mut u8,
    bytes: usize,
}

impl Pinned {
    /// Zeroed memory; `what` names it in errors.
    pub fn new(context: &Rc<Context>, bytes: u64, what: &str) -> Result<Self> {
        let driver = &context.driver;
        let bytes = bytes.max(1) as usize;
        // SAFETY: the driver writes a pointer.
        let start = unsafe {
            driver.get::<*mut c_void>("cuMemHostAlloc", |to| (driver.allocate_pinned)(to, bytes, 0))
        };
        let start = start.map_err(|error| error.note(format!("for {what}: {bytes} bytes of host memory")))?;
        // SAFETY: the memory was just allocated.
        unsafe { std::ptr::write_bytes(start.cast::<u8>(), 0, bytes) };
        Ok(Pinned {
            context: Rc::clone(context),
            start: start.cast(),
            bytes,
        })
    }

    /// Whether `[address, address + bytes)` lies in it.
    pub fn holds(&self, address: *const u8, bytes: usize) -> bool {
        let offset = (address as usize).checked_sub(self.start as usize);
        offset.is_some_and(|offset| offset <= self.bytes && bytes <= self.bytes - offset)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more: the driver waits for copies that are under way.
        unsafe { (self.context.driver.free_pinned)(self.start.cast()) };
    }
}
