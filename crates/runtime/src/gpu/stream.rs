//! What the opaque pointers of generated code point to: streams and communicators.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    ffi::c_void,
    rc::Rc,
};

use super::{device::Replay, group};
use crate::error::{Error, Result};

/// A stream of a device, and what went wrong on it.
pub struct Stream {
    backend: Box<dyn Backend>,
    failure: RefCell<Option<Error>>,
    /// The device's count of all-reduces.
    collectives: Rc<Cell<u64>>,
}

/// What a kind of device does on a stream.
pub(super) trait Backend: Any {
    /// Enqueues a kernel.
    ///
    /// # Safety
    /// `parameters` points to the values of the kernel's parameters.
    unsafe fn launch(&self, kernel: i64, grid: [i64; 3], parameters: *const *const c_void) -> Result<()>;

    /// Lets later work wait for what `signalling` has been given so far.
    fn wait_for(&self, signalling: &Stream) -> Result<()>;

    /// Enqueues an all-reduce.
    fn all_reduce(&self, communicator: &Communicator, call: AllReduce) -> Result<()>;

    /// Copies from the device after all work, and waits.
    fn fetch(&self, from: *const u8, to: &mut [u8]) -> Result<()>;
}

/// A communicator of a device, as its kind of device made it.
pub struct Communicator(Box<dyn Any>);

impl Communicator {
    /// Hides what kind of communicator it is.
    pub(super) fn new<C: Any>(communicator: C) -> Self {
        Communicator(Box::new(communicator))
    }

    /// The communicator, if it is of this kind.
    pub(super) fn of<C: Any>(&self) -> Result<&C> {
        self.0.downcast_ref().ok_or_else(mixed)
    }
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
    pub(super) fn new(backend: impl Backend, collectives: &Rc<Cell<u64>>) -> Self {
        Stream {
            backend: Box::new(backend),
            failure: RefCell::new(None),
            collectives: Rc::clone(collectives),
        }
    }

    /// The backend, if it is of this kind.
    pub(super) fn of<B: Backend>(&self) -> Result<&B> {
        let backend: &dyn Any = &*self.backend;
        backend.downcast_ref().ok_or_else(mixed)
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
        // SAFETY: passed on from the caller.
        let outcome = unsafe { self.backend.launch(kernel, grid, parameters) };
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    /// Lets later work wait for what `signalling` has been given so far; nothing to do for the stream itself.
    pub(super) fn wait_for(&self, signalling: &Stream) {
        if std::ptr::eq(self, signalling) {
            return;
        }
        if let Err(error) = self.backend.wait_for(signalling) {
            self.fail(error);
        }
    }

    /// Enqueues an all-reduce. False if the stream has failed, now or before.
    pub(super) fn all_reduce(&self, communicator: &Communicator, call: AllReduce) -> bool {
        if self.has_failed() {
            return false;
        }
        if group::counts() {
            self.collectives.update(|count| count + 1);
        }
        let outcome = self.backend.all_reduce(communicator, call);
        outcome.map_err(|error| self.fail(error)).is_ok()
    }

    /// Copies from the device after all work of the stream.
    pub(super) fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        self.backend.fetch(from, to)
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
