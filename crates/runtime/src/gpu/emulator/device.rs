//! An emulated GPU as a [`Device`].

use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
};

use syncbn_abi::{GpuKernel, SHARED_LIMIT};

use super::{
    Accumulation, Communicator, EmulatedStream, Emulator, communicator,
    graph::{EmulatedGraph, Recording, Work},
};
use crate::{
    error::{Error, Result},
    gpu::{
        EmulatedGpus,
        device::{Device, Replay},
        part::EmulatedKernel,
        stream::{self, Stream},
    },
};

/// Sets the order in which blocks and warps run: 0 or absent for 0, 1, …, else random.
pub const SEED_VARIABLE: &str = "SYNCBN_EMULATOR_SEED";

/// Threads that a block may have.
const MOST_THREADS: u32 = 1024;

/// Emulated GPUs.
#[unsafe(export_name = "syncbn_rt_emulator")]
pub static GPUS: EmulatedGpus = EmulatedGpus {
    open: |part| {
        let kernels = part.model.gpu.as_ref().map(|gpu| gpu.kernels.clone());
        let entries = part.emulated_kernels.to_vec();
        Ok(Box::new(EmulatedDevice::new(
            kernels.unwrap_or_default(),
            entries,
        )?))
    },
};

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

impl EmulatedDevice {
    /// A GPU with its kernels and their code in the same order. They run in the order of [`SEED_VARIABLE`], and add as
    /// [`super::ACCUMULATION_VARIABLE`] says.
    pub fn new(kernels: Vec<GpuKernel>, entries: Vec<EmulatedKernel>) -> Result<Self> {
        let seed = match std::env::var(SEED_VARIABLE) {
            Err(_) => 0,
            Ok(text) => text
                .parse()
                .map_err(|_| Error::user(format!("{SEED_VARIABLE} is \"{text}\", which is not a number")))?,
        };
        Self::with(kernels, entries, seed, Accumulation::of_environment()?)
    }

    /// As [`EmulatedDevice::new`], in the order that `seed` gives.
    #[cfg(test)]
    pub fn with_seed(kernels: Vec<GpuKernel>, entries: Vec<EmulatedKernel>, seed: u64) -> Result<Self> {
        Self::with(kernels, entries, seed, Accumulation::default())
    }

    /// As [`EmulatedDevice::new`], in the order that `seed` gives, adding as `accumulation` says.
    pub fn with(
        kernels: Vec<GpuKernel>,
        entries: Vec<EmulatedKernel>,
        seed: u64,
        accumulation: Accumulation,
    ) -> Result<Self> {
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
                "{kernel} wants blocks of {} threads with {} bytes of shared memory",
                kernel.block, kernel.shared
            )));
        }
        Ok(EmulatedDevice {
            emulator: Rc::new(Emulator::new(kernels, entries, seed, accumulation)),
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

    fn pinned(&self, bytes: u64, what: &str) -> Result<*mut u8> {
        self.emulator.memory.allocate_pinned(bytes, what)
    }

    fn upload(&self, to: *mut u8, from: &[u8]) -> Result<()> {
        self.emulator.upload(to, from)
    }

    fn download(&self, from: *const u8, to: &mut [u8]) -> Result<()> {
        self.emulator.download(from, to)
    }

    fn stream(&self) -> Result<*mut c_void> {
        let stream = EmulatedStream {
            emulator: Rc::clone(&self.emulator),
            number: self.emulator.timeline.borrow_mut().add_stream(),
        };
        Ok(stream::keep(
            &self.streams,
            Stream::new(stream, &self.collectives),
        ))
    }

    fn synchronize(&self, stream: *mut c_void) -> Result<()> {
        let stream = stream::find(&self.streams, stream)?;
        stream.of::<EmulatedStream>()?.synchronize()?;
        stream.take_failure()
    }

    fn wait(&self, waiting: *mut c_void, signalling: *mut c_void) -> Result<()> {
        let waiting = stream::find(&self.streams, waiting)?;
        waiting.wait_for(&*stream::find(&self.streams, signalling)?);
        waiting.take_failure()
    }

    unsafe fn copy_in(&self, stream: *mut c_void, to: *mut u8, from: *const u8, bytes: usize) -> Result<()> {
        let stream = stream::find(&self.streams, stream)?;
        self.emulator.memory.check(to, bytes, "a copy to the device")?;
        self.emulator.memory.check_pinned(from, bytes)?;
        stream
            .of::<EmulatedStream>()?
            .submit(Work::Upload { to, from, bytes })
    }

    unsafe fn copy_out(&self, stream: *mut c_void, from: *const u8, to: *mut u8, bytes: usize) -> Result<()> {
        let stream = stream::find(&self.streams, stream)?;
        self.emulator
            .memory
            .check(from, bytes, "a copy from the device")?;
        self.emulator.memory.check_pinned(to, bytes)?;
        stream
            .of::<EmulatedStream>()?
            .submit(Work::Download { from, to, bytes })
    }

    fn capture(
        &self,
        stream: *mut c_void,
        enqueue: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Box<dyn Replay>> {
        let origin = stream::find(&self.streams, stream)?;
        let number = origin.of::<EmulatedStream>()?.number;
        stream::capture(&self.streams, &self.collectives, || {
            let recording = Recording::new(number);
            self.emulator.recording.replace(Some(recording));
            let enqueued = enqueue();
            let recording = self.emulator.recording.take();
            enqueued?;
            stream::take_failures(&self.streams)?;
            let recording = recording.ok_or_else(|| Error::internal("a capture has ended early"))?;
            Ok(EmulatedGraph {
                emulator: Rc::clone(&self.emulator),
                origin,
                work: recording.end()?,
            })
        })
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
            stream::Communicator::new(Rc::new(communicator)),
        ))
    }

    fn collectives(&self) -> u64 {
        self.collectives.get()
    }

    fn aborter(&self) -> Box<dyn Fn() + Send> {
        let communicators = self.communicators.borrow();
        let aborters: Vec<_> = communicators
            .iter()
            .filter_map(|communicator| communicator.of::<Rc<Communicator>>().ok()?.aborter())
            .collect();
        Box::new(move || aborters.iter().for_each(|abort| abort()))
    }
}
