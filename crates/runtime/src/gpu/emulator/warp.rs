//! Operations in which the lanes of a warp meet.

use std::ops::Range;

use super::{
    launch::{Launch, Wait, intrinsic},
    matrix,
    shared::WARP,
    shuffle,
};

/// An operation of a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// `bar.warp.sync`.
    Synchronize,
    /// `shfl.sync`.
    Shuffle {
        mode: shuffle::Mode,
        /// Whether the result says if the source lane was in range.
        predicate: bool,
    },
    /// `ldmatrix` of 8x8 matrices of 16-bit elements.
    LoadMatrix { count: usize, transposed: bool },
    /// `mma.m16n8k16` of bf16.
    MultiplyBf16,
    /// `mma.m16n8k8` of tf32.
    MultiplyTf32,
}

/// One lane's part of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub operation: Operation,
    /// The lanes that take part.
    pub mask: u32,
    /// As a C structure, on the stack of the waiting thread.
    pub arguments: *const u8,
    pub result: *mut u8,
}

/// The parts of an operation's lanes.
pub(super) type Lanes = [Option<Request>; WARP];

/// A failed operation: the lane to blame and what is wrong.
pub(super) type Failure = (usize, String);

/// All lanes.
pub(super) const ALL: u32 = u32::MAX;

impl Request {
    /// A field of the arguments.
    ///
    /// # Safety
    /// The arguments have a `T` at `offset`.
    pub unsafe fn argument<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: passed on from the caller.
        unsafe { self.arguments.add(offset).cast::<T>().read_unaligned() }
    }

    /// Writes a field of the result.
    ///
    /// # Safety
    /// The result has a `T` at `offset`.
    pub unsafe fn answer<T>(&self, offset: usize, value: T) {
        // SAFETY: passed on from the caller.
        unsafe { self.result.add(offset).cast::<T>().write_unaligned(value) };
    }
}

/// Executes the operations of a warp for which all lanes are there; whether there was one.
pub(super) fn resolve(launch: &Launch, warp: Range<usize>) -> Result<bool, (usize, String)> {
    let mut resolved = false;
    for lane in 0..warp.len() {
        let Some(lanes) = complete(launch, &warp, lane)? else {
            continue;
        };
        if let Some(request) = lanes[lane] {
            execute(launch, request.operation, &lanes, warp.start)
                .map_err(|(lane, reason)| (warp.start + lane, reason))?;
        }
        let mut threads = launch.threads.borrow_mut();
        for (thread, _) in threads[warp.clone()]
            .iter_mut()
            .zip(&lanes)
            .filter(|(_, part)| part.is_some())
        {
            thread.wait = Wait::Nothing;
        }
        resolved = true;
    }
    Ok(resolved)
}

/// The parts of the operation that `lane` waits in, if all of them are there.
fn complete(launch: &Launch, warp: &Range<usize>, lane: usize) -> Result<Option<Lanes>, Failure> {
    let threads = &launch.threads.borrow()[warp.clone()];
    let Wait::Warp(own) = threads[lane].wait else {
        return Ok(None);
    };
    if own.mask >> lane & 1 == 0 {
        let reason = format!(
            "takes part in an operation of lanes {:#x}, which it is not one of",
            own.mask
        );
        return Err((warp.start + lane, reason));
    }
    let mut lanes = [None; WARP];
    for (index, thread) in threads.iter().enumerate() {
        if own.mask >> index & 1 == 0 {
            continue;
        }
        match thread.wait {
            Wait::Warp(other) if other.operation == own.operation && other.mask == own.mask => {
                lanes[index] = Some(other);
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(lanes))
}

fn execute(launch: &Launch, operation: Operation, lanes: &Lanes, first: usize) -> Result<(), Failure> {
    if let (Operation::MultiplyBf16 | Operation::MultiplyTf32, Some(banks)) =
        (operation, &mut *launch.banks.borrow_mut())
    {
        banks.multiplies();
    }
    match operation {
        Operation::Synchronize => Ok(()),
        Operation::Shuffle { mode, predicate } => shuffle::execute(mode, predicate, lanes),
        Operation::LoadMatrix { count, transposed } => {
            matrix::load(launch, count, transposed, &matrix::whole(lanes)?, first)
        }
        Operation::MultiplyBf16 => {
            matrix::multiply_bf16(launch.accumulation, &matrix::whole(lanes)?);
            Ok(())
        }
        Operation::MultiplyTf32 => {
            matrix::multiply_tf32(launch.accumulation, &matrix::whole(lanes)?);
            Ok(())
        }
    }
}

/// Suspends the current thread until the lanes of `mask` have all asked for `operation`, which is then done.
pub(super) fn meet(operation: Operation, mask: u32, arguments: *const u8, result: *mut u8) {
    let request = Request {
        operation,
        mask,
        arguments,
        result,
    };
    intrinsic(|launch| launch.wait(Wait::Warp(request)));
}

/// `bar.warp.sync`: `void (i32 mask)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn syncbn_emu_bar_warp_sync(arguments: *const u8, result: *mut u8) {
    // SAFETY: the generated code passes the mask.
    let mask = unsafe { arguments.cast::<u32>().read_unaligned() };
    meet(Operation::Synchronize, mask, arguments, result);
}
