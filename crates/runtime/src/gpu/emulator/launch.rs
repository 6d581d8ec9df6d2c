//! A launch under way: where the current thread is, and what it may touch.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use syncbn_abi::GpuKernel;

use super::{
    access::Bounds,
    accumulation::Accumulation,
    asynchronous::Copies,
    banks::{Banks, Count},
    fiber::{Call, Way},
    races::Races,
    shared::Shared,
    warp::Request,
};
use crate::{
    error::{Error, Result},
    panics,
};

/// A launch under way.
pub(super) struct Launch<'a> {
    pub kernel: &'a GpuKernel,
    pub call: Call,
    pub grid: [u32; 3],
    /// How its matrix instructions add.
    pub accumulation: Accumulation,
    /// What the kernel may touch.
    pub bounds: Bounds,
    /// What its threads have touched in global memory.
    pub races: RefCell<&'a mut Races>,
    pub shared: RefCell<Shared>,
    /// The bank conflicts of the block that runs, if they are counted.
    pub banks: RefCell<Option<Banks>>,
    /// The bank conflicts of a block that has run.
    pub counted: RefCell<Option<Count>>,
    /// The current block.
    pub block: Cell<[u32; 3]>,
    /// The current thread.
    pub thread: Cell<usize>,
    /// The threads of the block; one for all where they do not cooperate.
    pub threads: RefCell<Vec<Thread>>,
    /// What is wrong with the kernel.
    fault: RefCell<Option<String>>,
}

/// A thread of the current block.
pub(super) struct Thread {
    pub wait: Wait,
    pub way: *const Way,
    pub copies: Copies,
}

/// What a thread waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    /// Nothing: it can run.
    Nothing,
    /// All threads of the block, at the barrier of this number.
    Barrier(i32),
    /// Other lanes of its warp.
    Warp(Request),
    /// It has ended.
    Ended,
}

impl Thread {
    /// One that has not begun.
    pub fn new() -> Self {
        Thread {
            wait: Wait::Nothing,
            way: ptr::null(),
            copies: Copies::default(),
        }
    }
}

thread_local! {
    static CURRENT: Cell<*const Launch<'static>> = const { Cell::new(ptr::null()) };
}

impl<'a> Launch<'a> {
    /// A launch that has not begun.
    pub fn new(
        kernel: &'a GpuKernel,
        call: Call,
        (grid, accumulation): ([u32; 3], Accumulation),
        bounds: Bounds,
        races: &'a mut Races,
    ) -> Self {
        Launch {
            kernel,
            call,
            grid,
            accumulation,
            bounds,
            races: RefCell::new(races),
            shared: RefCell::new(Shared::lock()),
            banks: RefCell::default(),
            counted: RefCell::default(),
            block: Cell::new([0; 3]),
            thread: Cell::new(0),
            threads: RefCell::new(Vec::new()),
            fault: RefCell::new(None),
        }
    }

    /// Makes this the launch that intrinsics see while `body` runs.
    pub fn enter<R>(&self, body: impl FnOnce() -> R) -> R {
        CURRENT.set(ptr::from_ref(self).cast());
        let outcome = body();
        CURRENT.set(ptr::null());
        outcome
    }

    /// The number of blocks.
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&size| u64::from(size)).product()
    }

    /// Goes to a block, counted along x first.
    pub fn start_block(&self, index: u64) {
        let [x, y, _] = self.grid.map(u64::from);
        self.block
            .set([index % x, index / x % y, index / x / y].map(|coordinate| coordinate as u32));
        self.races.borrow_mut().start_block(self.kernel.block);
        if self.kernel.shared > 0 {
            self.shared.borrow_mut().start_block(self.kernel.shared as usize);
        }
    }

    /// All threads of the block have met.
    pub fn pass_barrier(&self) {
        self.races.borrow_mut().start_interval(self.kernel.block);
        self.shared.borrow_mut().barrier();
        if let Some(banks) = &mut *self.banks.borrow_mut() {
            banks.barrier();
        }
    }

    /// The block has ended, and later ones are not counted.
    pub fn end_block(&self) {
        if let Some(banks) = self.banks.take() {
            self.counted.replace(Some(banks.end()));
        }
    }

    /// Where the current thread's entry in `threads` is.
    pub fn slot(&self) -> usize {
        if self.kernel.cooperative {
            self.thread.get()
        } else {
            0
        }
    }

    /// The current thread has returned from the kernel.
    pub fn end_thread(&self) {
        let slot = self.slot();
        let thread = &mut self.threads.borrow_mut()[slot];
        if thread.copies.under_way() {
            let reason = "ends with asynchronous copies that it has not waited for";
            self.blame(self.thread.get(), reason);
        }
        if self.kernel.cooperative {
            thread.wait = Wait::Ended;
        }
    }

    /// Suspends the current thread until it has got what it waits for.
    pub fn wait(&self, wait: Wait) -> Result<(), String> {
        if !self.kernel.cooperative {
            return Err("meets other threads, although the kernel is not cooperative".to_string());
        }
        let way = {
            let thread = &mut self.threads.borrow_mut()[self.thread.get()];
            thread.wait = wait;
            thread.way
        };
        // SAFETY: set when the fiber of this thread began, which is the one that runs.
        unsafe { &*way }.suspend(());
        Ok(())
    }

    /// Keeps the first thing that is wrong, with where it happened.
    pub fn blame(&self, thread: usize, reason: &str) {
        let [x, y, z] = self.block.get();
        self.fault.borrow_mut().get_or_insert_with(|| {
            let kernel = self.kernel;
            format!("{kernel}, block ({x}, {y}, {z}), thread {thread}: {reason}")
        });
    }

    /// Whether something is wrong.
    pub fn is_faulty(&self) -> bool {
        self.fault.borrow().is_some()
    }

    /// What was wrong, as an error.
    pub fn outcome(&self) -> Result<()> {
        self.fault
            .take()
            .map_or(Ok(()), |fault| Err(Error::internal(fault)))
    }

    /// Blames the current thread and suspends it for good.
    fn abandon(&self, reason: String) -> ! {
        self.blame(self.thread.get(), &reason);
        drop(reason);
        let way = self.threads.borrow()[self.slot()].way;
        loop {
            // SAFETY: as in `wait`.
            unsafe { &*way }.suspend(());
        }
    }
}

/// The launch of the current kernel; None outside one.
///
/// The reference must not outlive the intrinsic that asks.
pub(super) fn current<'a>() -> Option<&'a Launch<'a>> {
    // SAFETY: `enter` keeps the pointer only while it borrows the launch.
    unsafe { CURRENT.get().cast::<Launch<'a>>().as_ref() }
}

/// Does what an intrinsic does. If it fails or panics, the current thread stops for good and the launch fails.
/// Nothing that `body` owns may need dropping where it suspends the thread.
pub(super) fn intrinsic(body: impl FnOnce(&Launch) -> Result<(), String>) {
    let Some(launch) = current() else { return };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(launch)))
        .unwrap_or_else(|payload| Err(format!("the emulator panicked: {}", panics::describe(&*payload))));
    if let Err(reason) = outcome {
        launch.abandon(reason);
    }
}
