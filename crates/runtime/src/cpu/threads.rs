//! The threads of a rank. All of them run every call of generated code: a step divides the work of each kernel between
//! its threads, and an update is called with a slice for each.
//!
//! Thread 0 is that of the rank. A thread that ends with a status that is not 0 poisons the barrier between kernels, so
//! that the others end too.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    thread::{self, JoinHandle},
};

use syncbn_abi::{AdamWArguments, StepArguments, UpdateArguments};

use super::{
    all_reduce::slice_of,
    barrier::Barrier,
    collectives::Context,
    crew::STACK_BYTES,
    part::{AdamWFunction, StepFunction, UpdateFunction},
};
use crate::error::{Error, Result};

/// A call of generated code.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    /// A step, or the preparation of inference; `scratch` of the arguments is that of thread 1, and so many bytes behind it
    /// comes that of the next thread.
    Step(StepFunction, StepArguments, usize),
    /// An update of elements of the given size.
    Sgd(UpdateFunction, UpdateArguments, usize),
    /// The same.
    AdamW(AdamWFunction, AdamWArguments, usize),
}

// SAFETY: its pointers are followed only while the thread that made the call waits for all threads.
unsafe impl Send for Call {}

impl Call {
    /// What thread `thread` of `threads` does of it; its status.
    ///
    /// # Safety
    /// The arguments fit the function, and every thread calls this once.
    unsafe fn perform(self, thread: usize, threads: usize) -> i32 {
        let slice = |begin: i64, end: i64, bytes: usize| {
            let (first, last) = slice_of((end - begin) as usize, bytes, thread, threads);
            (begin + first as i64, begin + last as i64)
        };
        // SAFETY: passed on from the caller; the slices of an update are disjoint.
        unsafe {
            match self {
                Call::Step(function, mut arguments, bytes) => {
                    (arguments.thread, arguments.threads) = (thread as u64, threads as u64);
                    arguments.scratch = match thread {
                        0 => std::ptr::null_mut(),
                        _ => arguments.scratch.wrapping_add((thread - 1) * bytes),
                    };
                    function(&raw const arguments)
                }
                Call::Sgd(function, mut arguments, bytes) => {
                    (arguments.begin, arguments.end) = slice(arguments.begin, arguments.end, bytes);
                    function(&raw const arguments)
                }
                Call::AdamW(function, mut arguments, bytes) => {
                    (arguments.begin, arguments.end) = slice(arguments.begin, arguments.end, bytes);
                    function(&raw const arguments)
                }
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    start: Barrier,
    done: Barrier,
    /// None ends the threads.
    call: Mutex<Option<Call>>,
    /// The first status of the current call that is not 0.
    status: AtomicI32,
    context: Arc<Context>,
}

impl Shared {
    /// Does a thread's part of the current call; false if there is none.
    fn perform(&self, thread: usize) -> bool {
        let Some(call) = *self.call.lock().unwrap_or_else(PoisonError::into_inner) else {
            return false;
        };
        let threads = self.context.threads();
        // SAFETY: whoever made the call vouches for it, and each thread comes here once between `start` and `done`.
        let status = unsafe { call.perform(thread, threads) };
        if status != 0 {
            let _ = self
                .status
                .compare_exchange(0, status, Ordering::Relaxed, Ordering::Relaxed);
            self.context.end_threads();
        }
        true
    }
}

/// The threads of a rank.
#[derive(Debug)]
pub struct Threads {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts the threads of the rank of `context` but for the caller; `spin` as in [`Barrier::new`].
    pub fn start(context: &Arc<Context>, spin: bool) -> Result<Self> {
        let count = context.threads();
        let participants = u32::try_from(count).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            start: Barrier::new(participants, spin),
            done: Barrier::new(participants, spin),
            call: Mutex::new(None),
            status: AtomicI32::new(0),
            context: Arc::clone(context),
        });
        let mut threads = Threads {
            shared,
            others: Vec::new(),
        };
        for index in 1..count {
            let shared = Arc::clone(&threads.shared);
            let thread = thread::Builder::new()
                .name(format!("rank {}.{index}", context.rank))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    while shared.start.wait().is_ok() && shared.perform(index) && shared.done.wait().is_ok() {
                    }
                });
            match thread {
                Ok(thread) => threads.others.push(thread),
                Err(cause) => {
                    // Threads that already wait are released by the poison, as the others will never come.
                    threads.shared.start.poison();
                    let rank = context.rank;
                    return Err(Error::environment(format!(
                        "cannot start thread {index} of rank {rank}: {cause}"
                    ))
                    .help("use fewer --threads-per-rank"));
                }
            }
        }
        Ok(threads)
    }

    /// Runs a call on all threads; the first status that is not 0.
    ///
    /// # Safety
    /// The arguments fit the function, and nothing else uses what the function uses.
    pub unsafe fn run(&self, call: Call) -> i32 {
        let shared = &*self.shared;
        *shared.call.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
        shared.status.store(0, Ordering::Relaxed);
        // Cannot fail: the threads are complete.
        let _ = shared.start.wait();
        shared.perform(0);
        let _ = shared.done.wait();
        shared.status.load(Ordering::Relaxed)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        *self.shared.call.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // Where the threads are incomplete, they have been poisoned.
        let _ = match self.others.len() + 1 == self.shared.context.threads() {
            true => self.shared.start.wait(),
            false => Ok(()),
        };
        for thread in self.others.drain(..) {
            let _ = thread.join();
        }
    }
}
