//! A GPU that is not there: kernels compiled for this processor run under an emulator that checks what they do.
//!
//! A *block* runs at a time, its threads as fibers that give way where threads meet: at barriers (`block`) and
//! in the operations of a warp (`warp`). Kernels whose threads never meet run as a plain loop. Every access to
//! memory is checked (`launch`, `memory`, `shared`): alignment, bounds, direction, and for shared memory
//! also that it was written, that a barrier lies between threads of different warps, and that asynchronous
//! copies were waited for. A kernel that does something wrong ends its launch with an error that says where;
//! the process goes on.
//!
//! Everything that generated code enqueues happens at once, so streams are in order by themselves.

mod asynchronous;
mod block;
mod communicator;
mod fiber;
mod launch;
mod matrix;
mod memory;
mod registers;
mod root;
mod scalar;
mod shared;
mod shuffle;
#[cfg(test)]
mod tests;
mod warp;

use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
};

use syncbn_abi::{GpuKernel, SHARED_LIMIT};

pub use self::shared::{SharedMemory, syncbn_emulated_shared};
pub(super) use communicator::Communicator;

use self::{
    block::Order,
    fiber::{Call, Stacks},
    launch::Launch,
    memory::Memory,
};
use super::{
    device::Device,
    stream::{self, Backend, Stream},
};
use crate::error::{Error, Result};

/// An emulated kernel: runs one thread, with pointers to the values of its parameters.
pub type EmulatedKernel = unsafe extern "C" fn(*const *const c_void);

/// Sets the order in which blocks and warps run: 0 or absent for 0, 1, …, else random.
pub const SEED_VARIABLE: &str = "SYNCBN_EMULATOR_SEED";

/// Threads that a block may have.
const MOST_THREADS: u32 = 1024;
/// Blocks that a grid may have along x, y and z.
const MOST_BLOCKS: [i64; 3] = [0x7fff_ffff, 0xffff, 0xffff];

/// The emulated GPU of a rank.
pub struct EmulatedDevice {
    emulator: Rc<Emulator>,
    /// The identifiers that this device made.
    identifiers: RefCell<Vec<Vec<u8>>>,
    collectives: Rc<Cell<u64>>,
    listen_on: IpAddr,
    streams: RefCell<Vec<Rc<Stream>>>,
    communicators: RefCell<Vec<Rc<stream::Communicator>>>,
}

/// What streams need of an emulated device.
pub(super) struct Emulator {
    kernels: Vec<GpuKernel>,
    entries: Vec<EmulatedKernel>,
    memory: Memory,
    stacks: RefCell<Stacks>,
    order: RefCell<Order>,
}

impl EmulatedDevice {
    /// A GPU with its kernels and their code in the same order. They run in the order of [`SEED_VARIABLE`].
    pub fn new(kernels: Vec<GpuKernel>, entries: Vec<EmulatedKernel>) -> Result<Self> {
        let seed = match std::env::var(SEED_VARIABLE) {
            Err(_) => 0,
            Ok(text) => text
                .parse()
                .map_err(|_| Error::user(format!("{SEED_VARIABLE} is \"{text}\", which is not a number")))?,
        };
        Self::with_seed(kernels, entries, seed)
    }

    /// As [`EmulatedDevice::new`], in the order that `seed` gives.
    pub fn with_seed(kernels: Vec<GpuKernel>, entries: Vec<EmulatedKernel>, seed: u64) -> Result<Self> {
        if kernels.len() != entries.len() {
            return Err(Error::internal(format!(
                "the model describes {} kernels and has the code of {}",
                kernels.len(),
                entries.len()
            )));
        }
        if let Some(kernel) = kernels.iter().find(|kernel| {
            kernel.block == 0 || kernel.block > MOST_THREADS || u64::from(kernel.shared) > SHARED_LIMIT
        }) {
            return Err(Error::internal(format!(
                "kernel \"{}\" wants blocks of {} threads with {} bytes of shared memory",
                kernel.name, kernel.block, kernel.shared
            )));
        }
        Ok(EmulatedDevice {
            emulator: Rc::new(Emulator {
                kernels,
                entries,
                memory: Memory::default(),
                stacks: RefCell::default(),
                order: RefCell::new(Order::new(seed)),
            }),
            listen_on: IpAddr::V4(Ipv4Addr::LOCALHOST),
            identifiers: RefCell::default(),
            collectives: Rc::default(),
            streams: RefCell::default(),
            communicators: RefCell::default(),
        })
    }

    /// Lets communicators that this rank identifies listen on `address`, which the other ranks must reach;
    /// without it, on the loopback address.
    pub fn listening_on(self, address: IpAddr) -> Self {
        EmulatedDevice {
            listen_on: address,
            ..self
        }
    }
}

impl Device for EmulatedDevice {
    fn name(&self) -> String {
        "emulated GPU".to_string()
    }

    fn allocate(&self, bytes: u64, what: &str) -> Result<*mut u8> {
        self.emulator.memory.allocate(bytes, what)
    }

    fn upload(&self, to: *mut u8, from: &[u8]) -> Result<()> {
        self.emulator.upload(to, from)
    }

    fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        self.emulator.download(from, to)
    }

    fn stream(&self) -> Result<*mut c_void> {
        Ok(stream::keep(
            &self.streams,
            Stream::new(Backend::Emulated(Rc::clone(&self.emulator)), &self.collectives),
        ))
    }

    fn synchronize(&self, stream: *mut c_void) -> Result<()> {
        stream::find(&self.streams, stream)?.take_failure()
    }

    fn unique_id(&self) -> Result<Vec<u8>> {
        let id = communicator::open(self.listen_on)?;
        self.identifiers.borrow_mut().push(id.clone());
        Ok(id)
    }

    fn communicator(&self, id: &[u8], rank: usize, peers: &[usize]) -> Result<*mut c_void> {
        let own = self.identifiers.borrow().iter().any(|made| made == id);
        let communicator = Communicator::join(id, own, rank, peers)?;
        Ok(stream::keep(
            &self.communicators,
            stream::Communicator::Emulated(communicator),
        ))
    }

    fn collectives(&self) -> u64 {
        self.collectives.get()
    }

    fn aborter(&self) -> Box<dyn Fn() + Send> {
        let communicators = self.communicators.borrow();
        let aborters: Vec<_> = communicators
            .iter()
            .filter_map(|communicator| match &**communicator {
                stream::Communicator::Emulated(communicator) => communicator.aborter(),
                stream::Communicator::Nccl(_) => None,
            })
            .collect();
        Box::new(move || aborters.iter().for_each(|abort| abort()))
    }
}

impl Emulator {
    /// Runs a kernel.
    ///
    /// # Safety
    /// `parameters` points to the values of the kernel's parameters.
    pub unsafe fn launch(&self, kernel: i64, grid: [i64; 3], parameters: *const *const c_void) -> Result<()> {
        let known = usize::try_from(kernel)
            .ok()
            .and_then(|index| Some((self.kernels.get(index)?, self.entries.get(index)?)));
        let Some((kernel, &entry)) = known else {
            return Err(Error::internal(format!("the model has no kernel {kernel}")));
        };
        if grid.contains(&0) {
            return Ok(());
        }
        if grid
            .iter()
            .zip(MOST_BLOCKS)
            .any(|(&size, most)| size < 0 || size > most)
        {
            return Err(Error::internal(format!(
                "kernel \"{}\" has a grid of {grid:?}",
                kernel.name
            )));
        }
        // SAFETY: passed on from the caller.
        let ranges = unsafe { self.memory.ranges(kernel, parameters)? };
        let launch = Launch::new(
            kernel,
            Call { entry, parameters },
            grid.map(|size| size as u32),
            ranges,
        );
        let (mut stacks, mut order) = (self.stacks.borrow_mut(), self.order.borrow_mut());
        if kernel.cooperative {
            block::run_together(&launch, &mut stacks, &mut order)
        } else {
            block::run_alone(&launch, &mut stacks, &mut order)
        }
    }

    /// Copies to the device.
    pub fn upload(&self, to: *mut u8, from: &[u8]) -> Result<()> {
        self.memory.check(to, from.len(), "an upload")?;
        // SAFETY: `check` says that the destination is in an allocation, and no kernel runs.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    /// Copies from the device.
    pub fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
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
