//! Streams of an emulated device.

use std::{ffi::c_void, rc::Rc};

use super::{Communicator, Emulator, graph, graph::Work};
use crate::{
    error::Result,
    gpu::stream::{self, AllReduce, Backend, Stream},
};

/// A stream of an emulated device.
pub(super) struct EmulatedStream {
    pub(super) emulator: Rc<Emulator>,
    pub(super) number: usize,
}

impl Backend for EmulatedStream {
    /// Runs the kernel, or keeps it for replays.
    unsafe fn launch(&self, kernel: i64, grid: [i64; 3], parameters: *const *const c_void) -> Result<()> {
        let emulator = &self.emulator;
        if !emulator.is_recording() {
            // SAFETY: passed on from the caller.
            return unsafe { emulator.launch(self.number, kernel, grid, parameters) };
        }
        let (known, _) = emulator.kernel(kernel)?;
        // SAFETY: passed on from the caller.
        let values = unsafe { graph::values(known, parameters) };
        self.submit(Work::Launch { kernel, grid, values })
    }

    fn wait_for(&self, signalling: &Stream) -> Result<()> {
        let signalling = signalling.of::<EmulatedStream>()?.number;
        self.submit(Work::Wait { signalling })
    }

    fn all_reduce(&self, communicator: &stream::Communicator, call: AllReduce) -> Result<()> {
        let communicator = Rc::clone(communicator.of::<Rc<Communicator>>()?);
        self.submit(Work::AllReduce { communicator, call })
    }

    fn fetch(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        self.synchronize()?;
        self.emulator.download(from, to)
    }
}

impl EmulatedStream {
    pub(super) fn synchronize(&self) -> Result<()> {
        self.emulator.refuse_in_capture("a wait")?;
        self.emulator.timeline.borrow_mut().synchronize(self.number);
        Ok(())
    }

    /// Does work, or keeps it for replays.
    pub(super) fn submit(&self, work: Work) -> Result<()> {
        if let Some(recording) = &mut *self.emulator.recording.borrow_mut() {
            return recording.add(self.number, work);
        }
        self.emulator.perform(self.number, &work)
    }
}
