//! Streams of a GPU, and graphs captured from them.

use std::{
    ffi::{c_int, c_uint, c_void},
    rc::Rc,
};

use super::{
    context::Context,
    driver::{Handle, NOT_READY},
};
use crate::{
    error::Result,
    gpu::{
        device::Replay,
        nccl,
        stream::{AllReduce, Backend, Communicator, Stream},
    },
};

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: c_uint = 1;
/// `CU_EVENT_DISABLE_TIMING`
const NO_TIMING: c_uint = 2;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`
const THREAD_LOCAL: c_int = 1;

/// A stream.
pub(in crate::gpu) struct CudaStream {
    context: Rc<Context>,
    stream: Handle,
    /// Recorded each time another stream is to wait for this one.
    event: Event,
}

/// A point in a stream.
pub(super) struct Event {
    context: Rc<Context>,
    event: Handle,
}

impl Event {
    /// An event that lies in no stream yet.
    pub fn new(context: &Rc<Context>) -> Result<Self> {
        let driver = &context.driver;
        // SAFETY: the driver writes a handle.
        let event = unsafe { driver.get("cuEventCreate", |to| (driver.create_event)(to, NO_TIMING))? };
        Ok(Event {
            context: Rc::clone(context),
            event,
        })
    }

    /// Puts it at the end of `stream`.
    pub fn record(&self, stream: &CudaStream) -> Result<()> {
        let driver = &self.context.driver;
        // SAFETY: both are of this context.
        driver.check(
            unsafe { (driver.record_event)(self.event, stream.stream) },
            "cuEventRecord",
        )
    }

    /// Waits for what lies before it, if it lies in a stream.
    pub fn synchronize(&self) -> Result<()> {
        let driver = &self.context.driver;
        // SAFETY: an event of this context.
        driver.check(
            unsafe { (driver.synchronize_event)(self.event) },
            "cuEventSynchronize",
        )
    }
}

impl CudaStream {
    /// A stream that waits for no other.
    pub fn new(context: &Rc<Context>) -> Result<Self> {
        let (driver, event) = (&context.driver, Event::new(context)?);
        // SAFETY: the driver writes a handle.
        let stream = unsafe { driver.get("cuStreamCreate", |to| (driver.create_stream)(to, NON_BLOCKING))? };
        Ok(CudaStream {
            context: Rc::clone(context),
            stream,
            event,
        })
    }

    /// Waits for all work.
    pub fn synchronize(&self) -> Result<()> {
        let driver = &self.context.driver;
        // SAFETY: a stream of this context.
        let status = unsafe { (driver.synchronize_stream)(self.stream) };
        driver.check(status, "cuStreamSynchronize")
    }

    /// Whether all work is done.
    pub fn is_idle(&self) -> Result<bool> {
        let driver = &self.context.driver;
        // SAFETY: a stream of this context.
        match unsafe { (driver.query_stream)(self.stream) } {
            NOT_READY => Ok(false),
            status => driver.check(status, "cuStreamQuery").map(|()| true),
        }
    }

    /// Enqueues a copy to the device.
    ///
    /// # Safety
    /// `to` has room for `bytes` bytes; `from` is pinned memory that stays as it is until the copy is done.
    pub unsafe fn upload(&self, to: *mut u8, from: *const u8, bytes: usize) -> Result<()> {
        let driver = &self.context.driver;
        // SAFETY: passed on from the caller.
        let status = unsafe { (driver.upload)(to as u64, from.cast(), bytes, self.stream) };
        driver.check(status, "cuMemcpyHtoDAsync")
    }

    /// Enqueues a copy from the device.
    ///
    /// # Safety
    /// `from` has `bytes` bytes; nobody uses `to` until the copy is done.
    pub unsafe fn download(&self, from: *const u8, to: *mut u8, bytes: usize) -> Result<()> {
        let driver = &self.context.driver;
        // SAFETY: passed on from the caller.
        let status = unsafe { (driver.download)(to.cast(), from as u64, bytes, self.stream) };
        driver.check(status, "cuMemcpyDtoHAsync")
    }

    /// Enqueues the zeroing of device memory.
    ///
    /// # Safety
    /// `to` has room for `bytes` bytes.
    pub unsafe fn zero(&self, to: *mut u8, bytes: usize) -> Result<()> {
        let driver = &self.context.driver;
        // SAFETY: passed on from the caller.
        let status = unsafe { (driver.fill)(to as u64, 0, bytes, self.stream) };
        driver.check(status, "cuMemsetD8Async")
    }

    /// Captures what `enqueue` enqueues here, instead of doing it.
    pub(super) fn capture(&self, enqueue: impl FnOnce() -> Result<()>) -> Result<CudaGraph> {
        let driver = &self.context.driver;
        // SAFETY: a stream of this context.
        let status = unsafe { (driver.begin_capture)(self.stream, THREAD_LOCAL) };
        driver.check(status, "cuStreamBeginCapture")?;
        let enqueued = enqueue();
        // SAFETY: as above; the driver writes a handle.
        let captured =
            unsafe { driver.get("cuStreamEndCapture", |to| (driver.end_capture)(self.stream, to)) };
        let graph = match (enqueued, captured) {
            (Err(error), Ok(graph)) => {
                self.destroy(graph);
                return Err(error);
            }
            (Err(error), Err(_)) | (Ok(()), Err(error)) => return Err(error),
            (Ok(()), Ok(graph)) => graph,
        };
        // SAFETY: a graph of this context; the driver writes a handle.
        let executable = unsafe {
            driver.get("cuGraphInstantiateWithFlags", |to| {
                (driver.instantiate)(to, graph, 0)
            })
        };
        self.destroy(graph);
        Ok(CudaGraph {
            context: Rc::clone(&self.context),
            stream: self.stream,
            executable: executable?,
        })
    }

    fn destroy(&self, graph: Handle) {
        if !graph.is_null() {
            // SAFETY: a graph of this context that nothing uses any more.
            unsafe { (self.context.driver.destroy_graph)(graph) };
        }
    }
}

impl Backend for CudaStream {
    unsafe fn launch(&self, kernel: i64, grid: [i64; 3], parameters: *const *const c_void) -> Result<()> {
        // SAFETY: passed on from the caller.
        unsafe { self.context.launch(self.stream, kernel, grid, parameters) }
    }

    fn wait_for(&self, signalling: &Stream) -> Result<()> {
        let signalling: &CudaStream = signalling.of()?;
        signalling.event.record(signalling)?;
        let driver = &self.context.driver;
        // SAFETY: both are of this context.
        let status = unsafe { (driver.wait_event)(self.stream, signalling.event.event, 0) };
        driver.check(status, "cuStreamWaitEvent")
    }

    fn all_reduce(&self, communicator: &Communicator, call: AllReduce) -> Result<()> {
        let communicator: &nccl::Communicator = communicator.of()?;
        communicator.all_reduce(self.stream, call)
    }

    fn fetch(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        self.context.check(from, to.len(), "a download")?;
        // SAFETY: `check` says that the source is in an allocation. Until it has waited, nobody uses `to`.
        unsafe { self.download(from, to.as_mut_ptr(), to.len())? };
        self.synchronize()
    }
}

/// A captured graph.
pub(super) struct CudaGraph {
    context: Rc<Context>,
    stream: Handle,
    executable: Handle,
}

impl Replay for CudaGraph {
    fn replay(&self) -> Result<()> {
        let driver = &self.context.driver;
        // SAFETY: the device keeps the stream as long as it lives, and whoever replays has the device.
        let status = unsafe { (driver.launch_graph)(self.executable, self.stream) };
        driver.check(status, "cuGraphLaunch")
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more.
        unsafe { (self.context.driver.destroy_executable)(self.executable) };
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more.
        unsafe { (self.context.driver.destroy_event)(self.event) };
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more.
        unsafe { (self.context.driver.destroy_stream)(self.stream) };
    }
}
