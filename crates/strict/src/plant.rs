//! Planted faults: what a wrong caller would have done, done in its place. Tests plant each and look for its rule.

use std::{
    collections::BTreeSet,
    ffi::{c_int, c_void},
    sync::{LazyLock, Mutex, PoisonError},
};

use crate::{
    call::{self, CAPTURING, GROUPS},
    driver,
    nccl::ncclGroupStart,
    settings::Settings,
    state::Point,
};

type Handle = *mut c_void;

/// The faults, and the name of the rule that each breaks first.
pub const PLANTS: [(&str, &str); 26] = [
    ("uninitialised", "not-initialised"),
    ("no-context", "no-context"),
    ("event-as-stream", "handle"),
    ("dead-event", "dead-handle"),
    ("unrecorded-event", "unrecorded-event"),
    ("sync-in-capture", "call-in-capture"),
    ("unjoined-stream", "unjoined"),
    ("outside-event", "capture-isolation"),
    ("ended-capture", "captured-event"),
    ("pageable-copy", "pageable-copy"),
    ("pinned-reuse", "pinned-changed"),
    ("freed-in-graph", "graph-memory"),
    ("freed-in-use", "freed-in-use"),
    ("double-free", "double-free"),
    ("leak", "leak"),
    ("image", "image"),
    ("parameter-count", "parameters"),
    ("parameter-outside", "parameters"),
    ("block", "block"),
    ("grid", "grid"),
    ("shared-memory", "shared-memory"),
    ("collective-outside", "collective-buffer"),
    ("collective-type", "collective-form"),
    ("collective-order", "collective-mismatch"),
    ("communicator-first", "communicator-in-graph"),
    ("open-group", "group"),
];

static PLANT: LazyLock<Option<&'static str>> =
    LazyLock::new(|| Settings::read(|name| std::env::var(name).ok()).plant);
/// What was done once.
static DONE: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
/// The all-reduce that is held back.
static HELD: Mutex<Option<AllReduce>> = Mutex::new(None);

/// Whether a fault is planted.
pub fn is(name: &str) -> bool {
    *PLANT == Some(name)
}

/// Whether a fault is planted that happens once, and now.
pub fn once(name: &'static str) -> bool {
    is(name) && DONE.lock().unwrap_or_else(PoisonError::into_inner).insert(name)
}

fn is_done(name: &str) -> bool {
    DONE.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
}

/// Whether an event is not recorded: none is until one is waited for.
pub fn drops_record() -> bool {
    is("unrecorded-event") && !is_done("unrecorded-event")
}

/// Whether a wait is left out: one that joins a capture.
pub fn drops_wait(stream: u64) -> bool {
    once("unrecorded-event");
    if !is("unjoined-stream") {
        return false;
    }
    let state = call::state();
    let capture = state.capture_of(stream).and_then(|id| state.captures.get(&id));
    capture.is_some_and(|capture| capture.origin == stream)
}

/// A handle of a stream, or of an event.
pub fn stream_or_event(stream: Handle) -> Handle {
    if !is("event-as-stream") {
        return stream;
    }
    let event = call::state().events.keys().next().copied();
    match event {
        Some(event) if once("event-as-stream") => event as Handle,
        _ => stream,
    }
}

/// After a copy to the device was enqueued: its source changes, or its target is freed.
pub fn after_upload(to: u64, from: *mut u8) {
    let pinned = call::state().pinned.find(from as u64, 1).is_some();
    if pinned && once("pinned-reuse") {
        // SAFETY: the memory lies in an allocation.
        unsafe { *from ^= 0xff };
    }
    let start = call::state().device.find(to, 1);
    if let Some(start) = start
        && once("freed-in-use")
    {
        // SAFETY: any address may be given.
        unsafe { driver::cuMemFree_v2(start) };
    }
}

/// After a capture: a stream waits for an event of it.
pub fn after_capture(stream: Handle, capture: u64) {
    if !is("ended-capture") {
        return;
    }
    let of_capture = |point: &Point| matches!(point, Point::Captured(of, _) if *of == capture);
    let state = call::state();
    let found = state
        .events
        .iter()
        .find(|(_, point)| of_capture(point))
        .map(|(event, _)| *event);
    drop(state);
    if let Some(event) = found
        && once("ended-capture")
    {
        // SAFETY: handles may be anything.
        unsafe { driver::cuStreamWaitEvent(stream, event as Handle, 0) };
    }
}

/// Before a graph is replayed: memory that it uses is freed.
pub fn before_replay(executable: u64) {
    if !is("freed-in-graph") {
        return;
    }
    let state = call::state();
    let work = state.executables.get(&executable).cloned().unwrap_or_default();
    let used = work.iter().flat_map(|work| work.device_memory()).next();
    let start = used.and_then(|(address, _)| state.device.find(address, 0));
    drop(state);
    if let Some(start) = start
        && once("freed-in-graph")
    {
        // SAFETY: any address may be given.
        unsafe {
            driver::cuCtxSynchronize();
            driver::cuMemFree_v2(start);
        }
    }
}

/// Before a launch in a capture: a wait for the stream, or a wait for an event from outside.
pub fn before_launch(stream: Handle) {
    if CAPTURING.get() == 0 {
        return;
    }
    if once("sync-in-capture") {
        // SAFETY: handles may be anything.
        unsafe { driver::cuStreamSynchronize(stream) };
    }
    if is("outside-event") {
        let is_outside = |point: &Point| matches!(point, Point::Stream(..));
        let state = call::state();
        let found = state
            .events
            .iter()
            .find(|(_, point)| is_outside(point))
            .map(|(event, _)| *event);
        drop(state);
        if let Some(event) = found
            && once("outside-event")
        {
            // SAFETY: handles may be anything.
            unsafe { driver::cuStreamWaitEvent(stream, event as Handle, 0) };
        }
    }
}

/// An address that a kernel gets.
pub fn address(address: u64) -> u64 {
    if once("parameter-outside") {
        address + (1 << 41)
    } else {
        address
    }
}

/// The second size of a launch's grid, and the first of its block.
pub fn sizes(y: u32, block: u32) -> (u32, u32) {
    (
        if once("grid") { 70_000 } else { y },
        if once("block") { block * 2 } else { block },
    )
}

/// An all-reduce as it is called.
#[derive(Debug, Clone, Copy)]
pub struct AllReduce {
    /// Where it reads and writes.
    pub buffers: (u64, u64),
    /// Elements.
    pub count: u64,
    /// Type and operation.
    pub form: (c_int, c_int),
    /// The communicator.
    pub communicator: u64,
    /// The stream.
    pub stream: u64,
}

/// The all-reduces that are called in place of one.
pub fn reorder(mut reduce: AllReduce) -> Vec<AllReduce> {
    if once("collective-outside") {
        reduce.buffers.0 += 1 << 36;
        reduce.buffers.1 += 1 << 36;
    }
    if once("collective-type") {
        reduce.form.0 = 6;
    }
    if GROUPS.get() == 0 && once("open-group") {
        // SAFETY: it takes nothing.
        unsafe { ncclGroupStart() };
    }
    if !is("collective-order") || is_done("collective-order") {
        return vec![reduce];
    }
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    match held.take() {
        None => {
            *held = Some(reduce);
            Vec::new()
        }
        Some(first) if first.communicator != reduce.communicator || first.count == reduce.count => {
            *held = Some(reduce);
            vec![first]
        }
        Some(first) => {
            once("collective-order");
            vec![reduce, first]
        }
    }
}
