//! A GPU that is not there: kernels compiled for this processor run under an emulator that checks what they do.
//!
//! A *block* runs at a time, its threads as fibers that give way where threads meet: at barriers (`block`) and
//! in the operations of a warp (`warp`). Kernels whose threads never meet run as a plain loop. Every access to
//! memory is checked (`access`): alignment, bounds and direction, in global memory against the parameter that the
//! address is based on; that no other thread of the launch touches what a thread writes, unless a barrier lies
//! between (`races`); and for shared memory (`shared`) that it was written, that a barrier lies between threads of
//! different warps, and that asynchronous copies were waited for. A kernel that does something wrong ends its launch
//! with an error that says where; the process goes on.
//!
//! Everything that is enqueued happens at once, so streams are in order by themselves; [`timeline`] checks that events
//! order them where a GPU needs that. A capture keeps what is enqueued ([`graph`]) and does it at each replay, with the
//! same checks.

mod access;
mod accumulation;
mod asynchronous;
mod banks;
mod block;
mod communicator;
mod device;
mod fiber;
mod graph;
mod launch;
mod matrix;
mod memory;
mod races;
mod registers;
mod root;
mod scalar;
mod shadow;
mod shared;
mod shuffle;
mod stream;
#[cfg(test)]
mod tests;
mod timeline;
mod warp;

use std::{cell::RefCell, ffi::c_void};

use syncbn_abi::GpuKernel;

pub use self::{
    accumulation::{ACCUMULATION_VARIABLE, Accumulation},
    banks::BANKS_VARIABLE,
    device::{EmulatedDevice, GPUS, SEED_VARIABLE},
    shared::{SharedMemory, syncbn_emulated_shared},
};

use self::{
    access::Bounds,
    banks::{Banks, Counts},
    block::Order,
    communicator::Communicator,
    fiber::{Call, Stacks},
    graph::{Recording, Work},
    launch::Launch,
    memory::{Memory, Range},
    races::Races,
    stream::EmulatedStream,
    timeline::Timeline,
};
use crate::{
    error::{Error, Result},
    gpu::part::EmulatedKernel,
};

/// Blocks that a grid may have along x, y and z.
const MOST_BLOCKS: [i64; 3] = [0x7fff_ffff, 0xffff, 0xffff];

/// What streams need of an emulated device.
pub(super) struct Emulator {
    kernels: Vec<GpuKernel>,
    entries: Vec<EmulatedKernel>,
    memory: Memory,
    races: RefCell<Races>,
    stacks: RefCell<Stacks>,
    order: RefCell<Order>,
    accumulation: Accumulation,
    banks: Option<RefCell<Counts>>,
    timeline: RefCell<Timeline>,
    /// The capture under way.
    recording: RefCell<Option<Recording>>,
}

impl Emulator {
    /// A device without memory.
    fn new(
        kernels: Vec<GpuKernel>,
        entries: Vec<EmulatedKernel>,
        seed: u64,
        accumulation: Accumulation,
    ) -> Self {
        Emulator {
            kernels,
            entries,
            memory: Memory::default(),
            races: RefCell::default(),
            stacks: RefCell::default(),
            order: RefCell::new(Order::new(seed)),
            accumulation,
            banks: Counts::of_environment().map(RefCell::new),
            timeline: RefCell::default(),
            recording: RefCell::default(),
        }
    }

    fn is_recording(&self) -> bool {
        self.recording.borrow().is_some()
    }

    fn refuse_in_capture(&self, what: &str) -> Result<()> {
        match self.is_recording() {
            true => Err(Error::internal(format!("{what} of the host in a capture"))),
            false => Ok(()),
        }
    }

    fn kernel(&self, index: i64) -> Result<(&GpuKernel, EmulatedKernel)> {
        let known = usize::try_from(index)
            .ok()
            .and_then(|index| Some((self.kernels.get(index)?, self.entries.get(index)?)));
        let missing = || Error::internal(format!("the model has no kernel {index}"));
        known.map(|(kernel, &entry)| (kernel, entry)).ok_or_else(missing)
    }

    /// Does work of a stream.
    fn perform(&self, stream: usize, work: &Work) -> Result<()> {
        let mut timeline = self.timeline.borrow_mut();
        match work {
            Work::Launch { kernel, grid, values } => {
                drop(timeline);
                let parameters: Vec<*const c_void> = values
                    .iter()
                    .map(|value| std::ptr::from_ref(value).cast())
                    .collect();
                // SAFETY: the values were copied from the kernel's parameters.
                unsafe { self.launch(stream, *kernel, *grid, parameters.as_ptr()) }
            }
            Work::Wait { signalling } => {
                timeline.wait(stream, *signalling);
                Ok(())
            }
            Work::AllReduce { communicator, call } => {
                timeline.all_reduce(stream)?;
                communicator.all_reduce(self, *call)
            }
            Work::Upload { to, from, bytes } => {
                let range = Range {
                    begin: *to as usize,
                    end: *to as usize + bytes,
                    written: true,
                };
                timeline.copy(stream, range)?;
                // SAFETY: both were checked when the work was enqueued, and memory lives as long as the device.
                unsafe { std::ptr::copy_nonoverlapping(*from, *to, *bytes) };
                Ok(())
            }
            Work::Download { from, to, bytes } => {
                // SAFETY: as above.
                unsafe { std::ptr::copy_nonoverlapping(*from, *to, *bytes) };
                Ok(())
            }
        }
    }

    /// Runs a kernel of a stream.
    ///
    /// # Safety
    /// `parameters` points to the values of the kernel's parameters.
    unsafe fn launch(
        &self,
        stream: usize,
        kernel: i64,
        grid: [i64; 3],
        parameters: *const *const c_void,
    ) -> Result<()> {
        let (kernel, entry) = self.kernel(kernel)?;
        if grid.contains(&0) {
            return Ok(());
        }
        if grid
            .iter()
            .zip(MOST_BLOCKS)
            .any(|(&size, most)| size < 0 || size > most)
        {
            return Err(Error::internal(format!("{kernel} has a grid of {grid:?}")));
        }
        // SAFETY: passed on from the caller.
        let ranges = unsafe { self.memory.ranges(kernel, parameters)? };
        if kernel.parameters.is_some() {
            let ordered = self.timeline.borrow_mut().launch(stream, &ranges);
            ordered.map_err(|text| Error::internal(format!("{kernel} {text}")))?;
        }
        let mut races = self.races.borrow_mut();
        races.start_launch(&self.memory.allocated())?;
        let launch = Launch::new(
            kernel,
            Call { entry, parameters },
            (grid.map(|size| size as u32), self.accumulation),
            Bounds::new(kernel, ranges, &races),
            &mut races,
        );
        let counts = self.banks.as_ref().filter(|_| kernel.shared > 0);
        launch.banks.replace(counts.map(|_| Banks::default()));
        let (mut stacks, mut order) = (self.stacks.borrow_mut(), self.order.borrow_mut());
        if kernel.cooperative {
            block::run_together(&launch, &mut stacks, &mut order)?;
            if let (Some(counts), Some(count)) = (counts, launch.counted.take()) {
                counts.borrow_mut().add(&kernel.name, count);
            }
            Ok(())
        } else {
            block::run_alone(&launch, &mut stacks, &mut order)
        }
    }

    /// Copies to the device.
    fn upload(&self, to: *mut u8, from: &[u8]) -> Result<()> {
        self.refuse_in_capture("a copy")?;
        self.memory.check(to, from.len(), "an upload")?;
        // SAFETY: `check` says that the destination is in an allocation, and no kernel runs.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    /// Copies from the device.
    fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        self.refuse_in_capture("a copy")?;
        self.memory.check(from, to.len(), "a download")?;
        // SAFETY: `check` says that the source is in an allocation, and no kernel runs.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// The memory, for collectives.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}
