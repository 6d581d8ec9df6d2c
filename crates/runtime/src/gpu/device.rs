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

    /// Host memory for [`Device::copy_in`] and [`Device::copy_out`], zeroed, which lives as long as the device.
    fn pinned(&self, bytes: u64, what: &str) -> Result<*mut u8>;

    /// Lets later work of `waiting` start after everything enqueued on `signalling` so far. Returns the first failure of
    /// `waiting` since it was last asked: work that could not wait must not come.
    fn wait(&self, waiting: *mut c_void, signalling: *mut c_void) -> Result<()>;

    /// Enqueues a copy from memory of [`Device::pinned`] to the device on a stream.
    ///
    /// # Safety
    /// The host memory stays as it is until the copy is done.
    unsafe fn copy_in(&self, stream: *mut c_void, to: *mut u8, from: *const u8, bytes: usize) -> Result<()>;

    /// Enqueues a copy from the device to memory of [`Device::pinned`] on a stream.
    ///
    /// # Safety
    /// Nobody uses the host memory until the copy is done.
    unsafe fn copy_out(&self, stream: *mut c_void, from: *const u8, to: *mut u8, bytes: usize) -> Result<()>;

    /// Captures what `enqueue` enqueues on `stream`, and on streams that wait for it first and that it waits for at the
    /// end, so that it can be replayed; nothing is done yet. The first failure of what was enqueued is the error;
    /// the streams can be used again after it. The graph must be dropped before the device.
    fn capture(
        &self,
        stream: *mut c_void,
        enqueue: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Box<dyn Replay>>;

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
