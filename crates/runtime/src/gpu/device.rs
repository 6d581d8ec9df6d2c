//! What the GPU part needs of a device, whether the CUDA driver or the emulator is behind it.

use std::ffi::c_void;

use crate::error::Result;

/// A device of this rank. Streams and communicators are opaque pointers that generated code passes back to the
/// runtime; they live as long as the device.
pub trait Device {
    /// For messages: `NVIDIA H100`, `emulated GPU`.
    fn name(&self) -> String;

    /// Zeroed device memory, aligned to 256 bytes and freed with the device. `what` names it in errors.
    fn allocate(&self, bytes: u64, what: &str) -> Result<*mut u8>;

    /// Copies to the device; returns when the source may be reused. Ordered before later work of all streams.
    fn upload(&self, to: *mut u8, from: &[u8]) -> Result<()>;

    /// Copies from the device after all work enqueued so far.
    fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()>;

    /// A new stream.
    fn stream(&self) -> Result<*mut c_void>;

    /// Waits for all work of a stream. Returns the first failure of the stream (a launch, a collective, or for
    /// the emulator a bad access) since the last call.
    fn synchronize(&self, stream: *mut c_void) -> Result<()>;

    /// An identifier that one rank makes and all ranks of a communicator pass to [`Device::communicator`].
    fn unique_id(&self) -> Result<Vec<u8>>;

    /// Joins a communicator as its member `rank`; all of its members must call it. `peers` are the ranks of the
    /// run that take part, in order: this rank is `peers[rank]`.
    fn communicator(&self, id: &[u8], rank: usize, peers: &[usize]) -> Result<*mut c_void>;

    /// All-reduces enqueued so far on all streams; a group of NCCL's counts as one.
    fn collectives(&self) -> u64;

    /// Captures what `enqueue` enqueues on `stream` (and on streams that wait for it and that it waits for at the
    /// end), so that it can be replayed. None if the device has no graphs; then nothing was enqueued. The first
    /// failure of an enqueued launch or collective is the error.
    fn capture(
        &self,
        stream: *mut c_void,
        enqueue: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Box<dyn Replay>>> {
        let _ = (stream, enqueue);
        Ok(None)
    }

    /// What ends all communicators from another thread, so that a thread that waits in one gets an error where
    /// that can be had. The process ends soon after, whether or not it returns.
    fn aborter(&self) -> Box<dyn Fn() + Send> {
        Box::new(|| ())
    }
}

/// Captured work of a stream.
pub trait Replay {
    /// Enqueues the work again on the stream that it was captured from, which must still live.
    fn replay(&self) -> Result<()>;
}
