//! What the opaque pointers of generated code point to: streams and communicators.

use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
    rc::Rc,
};

use super::{
    cuda::CudaStream,
    device::Replay,
    emulator::{self, EmulatedStream},
    nccl,
};
use crate::error::{Error, Result};

/// `ncclSuccess`.
pub const NCCL_SUCCESS: i32 = 0;
/// `ncclInternalError`: the status of a collective that failed for a reason that the stream knows.
pub const NCCL_FAILED: i32 = 3;

/// A stream of a device, and what went wrong on it.
pub struct Stream {
    backend: Backend,
    failure: RefCell<Option<Error>>,
    /// The device's count of all-reduces.
    collectives: Rc<Cell<u64>>,
}

/// Whether this thread is in a group of NCCL's calls, and whether the group has been counted.
#[derive(Clone, Copy)]
enum Group {
    Outside,
    Empty,
    Counted,
}

thread_local! {
    static GROUP: Cell<Group> = const { Cell::new(Group::Outside) };
}

/// Until [`end_group`], all-reduces of this thread count as one.
pub(super) fn begin_group() {
    GROUP.set(Group::Empty);
}

/// Ends what [`begin_group`] began.
pub(super) fn end_group() {
    GROUP.set(Group::Outside);
}

/// The device of a stream.
pub(super) enum Backend {
    Emulated(EmulatedStream),
    Cuda(CudaStream),
}

/// A communicator of a device.
pub enum Communicator {
    /// Of emulated devices.
    Emulated(Rc<emulator::Communicator>),
    /// Of GPUs.
    Nccl(nccl::Communicator),
}

/// An all-reduce as NCCL has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct AllReduce {
    pub send: *const u8,
    pub receive: *mut u8,
    /// Elements.
    pub count: u64,
    /// `ncclDataType_t`
    pub data_type: i32,
    /// `ncclRedOp_t`
    pub operation: i32,
}

impl Stream {
    /// A stream on which nothing went wrong yet.
    pub(super) fn new(backend: Backend, collectives: &Rc<Cell<u64>>) -> Self {
        Stream {
            backend,
            failure: RefCell::new(None),
            collectives: Rc::clone(collectives),
        }
    }

    /// The stream of a GPU.
    pub(super) fn cuda(&self) -> Result<&CudaStream> {
        match &self.backend {
            Backend::Cuda(stream) => Ok(stream),
            Backend::Emulated(_) => Err(mixed()),
        }
    }

    /// The stream of an emulated device.
    pub(super) fn emulated(&self) -> Result<&EmulatedStream> {
        match &self.backend {
            Backend::Emulated(stream) => Ok(stream),
            Backend::Cuda(_) => Err(mixed()),
        }
    }

    /// Keeps the first failure.
    pub fn fail(&self, error: Error) {
        self.failure.borrow_mut().get_or_insert(error);
    }

    /// Whether something went wrong since the last [`Stream::take_failure`].
    pub fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// The first failure since the last call of this.
    pub fn take_failure(&self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Enqueues a kernel, unless the stream has failed.
    ///
    /// # Safety
    /// `parameters` points to the values of the kernel's parameters.
    pub(super) unsafe fn launch(&self, kernel: i64, grid: [i64; 3], parameters: *const *const c_void) {
        if self.has_failed() {
            return;
        }
        let outcome = match &self.backend {
            // SAFETY: passed on from the caller.
            Backend::Emulated(stream) => unsafe { stream.launch(kernel, grid, parameters) },
            // SAFETY: passed on from the caller.
            Backend::Cuda(stream) => unsafe { stream.launch(kernel, grid, parameters) },
        };
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    /// Lets later work wait for what `signalling` has been given so far; nothing to do for the stream itself.
    pub(super) fn wait_for(&self, signalling: &Stream) {
        if std::ptr::eq(self, signalling) {
            return;
        }
        let outcome = match (&self.backend, &signalling.backend) {
            (Backend::Emulated(waiting), Backend::Emulated(signalling)) => waiting.wait_for(signalling),
            (Backend::Cuda(waiting), Backend::Cuda(signalling)) => waiting.wait_for(signalling),
            _ => Err(mixed()),
        };
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    /// Enqueues an all-reduce, unless the stream has failed; its status.
    pub(super) fn all_reduce(&self, communicator: &Communicator, call: AllReduce) -> i32 {
        if self.has_failed() {
            return NCCL_FAILED;
        }
        match GROUP.get() {
            Group::Counted => {}
            Group::Empty => {
                GROUP.set(Group::Counted);
                self.collectives.update(|count| count + 1);
            }
            Group::Outside => self.collectives.update(|count| count + 1),
        }
        let outcome = match (&self.backend, communicator) {
            (Backend::Emulated(stream), Communicator::Emulated(communicator)) => {
                stream.all_reduce(communicator, call)
            }
            (Backend::Cuda(stream), Communicator::Nccl(communicator)) => {
                communicator.all_reduce(stream.handle(), call)
            }
            _ => Err(mixed()),
        };
        match outcome {
            Ok(()) => NCCL_SUCCESS,
            Err(error) => {
                self.fail(error);
                NCCL_FAILED
            }
        }
    }

    /// Copies from the device after all work of the stream.
    pub(super) fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        match &self.backend {
            Backend::Emulated(stream) => stream.fetch(from, to),
            Backend::Cuda(stream) => stream.fetch(from, to),
        }
    }
}

fn mixed() -> Error {
    Error::internal("streams or communicators of different kinds of devices meet")
}

/// The first failure of any stream since the last call of this.
pub(super) fn take_failures(streams: &RefCell<Vec<Rc<Stream>>>) -> Result<()> {
    let failures: Vec<Result<()>> = streams
        .borrow()
        .iter()
        .map(|stream| stream.take_failure())
        .collect();
    failures.into_iter().collect()
}

/// A graph that counts its all-reduces each time it is replayed.
struct Counted<G> {
    graph: G,
    collectives: Rc<Cell<u64>>,
    /// All-reduces of one replay.
    count: u64,
}

impl<G: Replay> Replay for Counted<G> {
    fn replay(&self) -> Result<()> {
        self.collectives.update(|count| count + self.count);
        self.graph.replay()
    }
}

/// The graph that `capture` captures on `streams` of a device, whose all-reduces `collectives` counts. What failed
/// before is not the capture's, and what was captured has not happened.
pub(super) fn capture<G: Replay + 'static>(
    streams: &RefCell<Vec<Rc<Stream>>>,
    collectives: &Rc<Cell<u64>>,
    capture: impl FnOnce() -> Result<G>,
) -> Result<Box<dyn Replay>> {
    take_failures(streams)?;
    let before = collectives.get();
    let graph = capture();
    let count = collectives.replace(before) - before;
    // What could not be captured must not fail what comes after.
    let failures = take_failures(streams);
    let graph = graph?;
    failures?;
    Ok(Box::new(Counted {
        graph,
        collectives: Rc::clone(collectives),
        count,
    }))
}

/// Keeps an object for as long as its device, and gives the pointer that names it.
pub(super) fn keep<T>(all: &RefCell<Vec<Rc<T>>>, object: T) -> *mut c_void {
    let object = Rc::new(object);
    let pointer = Rc::as_ptr(&object).cast_mut().cast();
    all.borrow_mut().push(object);
    pointer
}

/// The object of a device that a pointer names.
pub(super) fn find<T>(all: &RefCell<Vec<Rc<T>>>, pointer: *mut c_void) -> Result<Rc<T>> {
    let objects = all.borrow();
    let found = objects
        .iter()
        .find(|object| Rc::as_ptr(object).cast_mut().cast() == pointer);
    found
        .map(Rc::clone)
        .ok_or_else(|| Error::internal("a stream or communicator of another device"))
}
