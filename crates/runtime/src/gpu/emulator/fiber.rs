//! Fibers that run generated code, on stacks that are used again.

use std::ffi::c_void;

use corosensei::{Coroutine, CoroutineResult, Yielder, stack::DefaultStack};

use crate::error::{Error, Result};
use crate::gpu::part::EmulatedKernel;

/// Bytes of a fiber's stack. Below it lies a page that faults.
const STACK: usize = 256 * 1024;

/// How a fiber gives way. It lies on the fiber's stack, and lives as long as the fiber runs.
pub(super) type Way = Yielder<(), ()>;

/// Stacks that no fiber uses.
#[derive(Default)]
pub(super) struct Stacks(Vec<DefaultStack>);

impl Stacks {
    fn take(&mut self) -> Result<DefaultStack> {
        if let Some(stack) = self.0.pop() {
            return Ok(stack);
        }
        DefaultStack::new(STACK).map_err(|cause| {
            Error::environment(format!(
                "cannot get {STACK} bytes for a stack of an emulated thread: {cause}"
            ))
        })
    }
}

/// One fiber. Nothing on its stack may need dropping while it is suspended: it may never be resumed.
pub(super) struct Fiber(Coroutine<(), (), (), DefaultStack>);

impl Fiber {
    /// A fiber that has not begun; it will call `body` with the way to suspend it.
    pub fn new(stacks: &mut Stacks, body: impl FnOnce(&Way) + 'static) -> Result<Self> {
        Ok(Fiber(Coroutine::with_stack(stacks.take()?, move |way, ()| {
            body(way)
        })))
    }

    /// Runs until it suspends itself or ends; whether it has ended.
    pub fn resume(&mut self) -> bool {
        matches!(self.0.resume(()), CoroutineResult::Return(()))
    }

    /// Ends the fiber, wherever it is. A stack that is empty then serves another fiber; one that was left in the middle
    /// does not, because the address sanitizer still knows its frames.
    pub fn end(mut self, stacks: &mut Stacks) {
        if self.0.done() {
            stacks.0.push(self.0.into_stack());
            return;
        }
        // SAFETY: a suspended fiber's frames are those of a kernel and of the intrinsic that suspended it. Neither
        // owns anything (see the type), and nothing else points into the stack once the launch is over.
        unsafe { self.0.force_reset() };
    }
}

/// The entry of a kernel and where the values of its parameters lie, for use inside a fiber.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub entry: EmulatedKernel,
    pub parameters: *const *const c_void,
}

impl Call {
    /// Runs the kernel for the current thread.
    ///
    /// # Safety
    /// The parameters are those that the kernel wants, and a launch is under way.
    pub unsafe fn run(self) {
        // SAFETY: passed on from the caller.
        unsafe { (self.entry)(self.parameters) };
    }
}
