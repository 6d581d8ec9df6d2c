//! Memory and copies.

use std::ffi::{c_int, c_uint, c_void};

use crate::{
    arena::Refusal,
    call::{CAPTURING, Outcome, Then, call},
    export::{export, give},
    plant,
    rule::Rule,
    state::{Kind, State},
    status,
    work::Work,
};

type Handle = *mut c_void;

fn allocate(state: &mut State, bytes: usize, pinned: bool) -> Result<u64, c_int> {
    if bytes == 0 {
        return state.refuse(Rule::Argument, "no bytes", status::INVALID_VALUE);
    }
    let arena = if pinned {
        &mut state.pinned
    } else {
        &mut state.device
    };
    arena.allocate(bytes as u64).ok_or(status::OUT_OF_MEMORY)
}

/// Frees memory once all work is done, as the driver does.
fn free(state: &mut State, address: u64, pinned: bool) -> Outcome {
    let arena = if pinned { &state.pinned } else { &state.device };
    if arena.is_live(address)
        && let Some(work) = state.is_in_use(address, pinned)
    {
        state.violation(Rule::FreedInUse, &format!("{work} is under way"));
    }
    Ok(Then::Wait(Box::new(move |state| {
        if !state.finish_all() {
            return None;
        }
        let arena = if pinned {
            &mut state.pinned
        } else {
            &mut state.device
        };
        match arena.free(address) {
            Ok(()) => return Some(status::SUCCESS),
            Err(Refusal::Freed) => {
                state.violation(Rule::DoubleFree, &format!("{address:#x} was freed before"))
            }
            Err(Refusal::Unknown) => {
                state.violation(
                    Rule::MemoryRange,
                    &format!("no allocation begins at {address:#x}"),
                );
            }
        }
        Some(status::INVALID_VALUE)
    })))
}

/// Checks device memory that is worked on.
fn check_device(state: &mut State, address: u64, bytes: u64) -> Result<(), c_int> {
    if state.device.find(address, bytes).is_some() {
        return Ok(());
    }
    let text = format!("{bytes} bytes: {}", state.device.describe(address));
    state.refuse(Rule::MemoryRange, &text, status::INVALID_VALUE)
}

/// Checks host memory of a copy; whether it is pinned.
fn check_host(state: &mut State, stream: u64, address: u64, bytes: u64) -> Result<bool, c_int> {
    if state.pinned.find(address, bytes).is_some() {
        return Ok(true);
    }
    if state.pinned.spans(address) || state.device.spans(address) || address == 0 {
        let text = format!("{bytes} bytes: {}", state.pinned.describe(address));
        return state.refuse(Rule::MemoryRange, &text, status::INVALID_VALUE);
    }
    if let Some(capture) = state.capture_of(stream) {
        state.invalidate(capture);
        return state.refuse(
            Rule::PageableCopy,
            &format!("{bytes} bytes at {address:#x}"),
            status::CAPTURE_UNSUPPORTED,
        );
    }
    Ok(false)
}

/// Enqueues a copy; one of pageable memory is done when its call returns.
fn copy(state: &mut State, stream: u64, pinned: bool, work: Work) -> Outcome {
    state.enqueue_checked(stream, work)?;
    if pinned {
        return Ok(Then::Return);
    }
    let end = state.streams.get(&stream).map_or(0, |stream| stream.enqueued());
    Ok(Then::Wait(Box::new(move |state| {
        state.advance(stream, end).then_some(status::SUCCESS)
    })))
}

impl State {
    /// Enqueues work; a thread that captures works on streams of its capture only.
    pub fn enqueue_checked(&mut self, stream: u64, work: Work) -> Result<(), c_int> {
        let capture = CAPTURING.get();
        if capture != 0 && self.capture_of(stream) != Some(capture) {
            self.violation(
                Rule::CaptureIsolation,
                "the stream takes no part in the capture of its thread",
            );
        }
        self.enqueue(stream, work);
        Ok(())
    }
}

export! {
    /// Allocates device memory.
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        let place = address as usize;
        let allocate = move || call("cuMemAlloc_v2", |state| {
            let memory = allocate(state, bytes, false)?;
            give(state, place as *mut u64, memory).map(|()| Then::Return)
        });
        match plant::once("no-context") {
            true => std::thread::spawn(allocate).join().unwrap_or(status::INVALID_CONTEXT),
            false => allocate(),
        }
    }

    /// Frees device memory.
    fn cuMemFree_v2(address: u64) {
        if plant::once("leak") {
            return status::SUCCESS;
        }
        if plant::once("double-free") {
            // SAFETY: any address may be given.
            unsafe { cuMemFree_v2(address) };
        }
        call("cuMemFree_v2", |state| free(state, address, false))
    }

    /// Allocates pinned host memory.
    fn cuMemHostAlloc(place: *mut *mut c_void, bytes: usize, flags: c_uint) {
        call("cuMemHostAlloc", |state| {
            if flags > 7 {
                state.violation(Rule::Argument, &format!("flags {flags}"));
            }
            let memory = allocate(state, bytes, true)?;
            give(state, place, memory as *mut c_void).map(|()| Then::Return)
        })
    }

    /// Frees pinned host memory.
    fn cuMemFreeHost(place: *mut c_void) {
        call("cuMemFreeHost", |state| free(state, place as u64, true))
    }

    /// Fills device memory.
    fn cuMemsetD8Async(address: u64, value: u8, bytes: usize, stream: Handle) {
        call("cuMemsetD8Async", |state| {
            let stream = state.find(Kind::Stream, stream)?;
            check_device(state, address, bytes as u64)?;
            let work = Work::Fill { to: address, value, bytes: bytes as u64 };
            state.enqueue_checked(stream, work).map(|()| Then::Return)
        })
    }

    /// Copies to the device.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle) {
        let from = match CAPTURING.get() != 0 && plant::once("pageable-copy") {
            true => Box::leak(vec![0u8; bytes].into_boxed_slice()).as_ptr().cast(),
            false => from,
        };
        let status = call("cuMemcpyHtoDAsync_v2", |state| {
            let stream = state.find(Kind::Stream, stream)?;
            check_device(state, to, bytes as u64)?;
            let pinned = check_host(state, stream, from as u64, bytes as u64)?;
            let work = Work::Upload { to, from: from as u64, bytes: bytes as u64 };
            copy(state, stream, pinned, work)
        });
        if status == status::SUCCESS && CAPTURING.get() == 0 {
            plant::after_upload(to, from.cast_mut().cast());
        }
        status
    }

    /// Copies from the device.
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) {
        call("cuMemcpyDtoHAsync_v2", |state| {
            let stream = state.find(Kind::Stream, stream)?;
            check_device(state, from, bytes as u64)?;
            let pinned = check_host(state, stream, to as u64, bytes as u64)?;
            let work = Work::Download { to: to as u64, from, bytes: bytes as u64 };
            copy(state, stream, pinned, work)
        })
    }
}
