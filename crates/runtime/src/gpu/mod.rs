//! GPU ranks: devices, the execution of a program's GPU part on one, and the processes that train together.
//!
//! Every rank is a process with a device and private copies of all arenas. The processes are started by the
//! launcher of [`process`] or by another one (torchrun, srun, mpirun); [`control`] connects them. All of them
//! run the same loop on the same data; only rank 0 writes.
//!
//! A [`device::Device`] is a GPU behind the CUDA driver ([`cuda`]) or the [`emulator`]. Generated code sees streams and
//! communicators ([`stream`]) as opaque pointers that it passes to the functions of [`symbols`].

pub mod control;
pub mod cuda;
pub mod device;
pub mod emulator;
pub mod execution;
mod group;
mod library;
pub mod nccl;
pub mod part;
pub mod process;
pub mod stream;
pub mod survey;
pub mod symbols;

use crate::error::{Error, Result};

use self::{device::Device, part::GpuPart, survey::Survey};

/// What kind of device the GPU part runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// NVIDIA GPUs, through the CUDA driver.
    Cuda,
    /// The emulator.
    Emulated,
}

/// NVIDIA GPUs.
#[derive(Debug, Clone, Copy)]
pub struct Gpus {
    /// Number of GPUs that this process sees, or why it can use none.
    pub count: fn() -> Result<usize>,
    /// Opens the GPU with the given index.
    pub open: fn(&GpuPart, usize) -> Result<Box<dyn Device>>,
    /// What of GPUs the machine has.
    pub survey: fn(&GpuPart) -> Survey,
}

/// Emulated GPUs.
#[derive(Debug, Clone, Copy)]
pub struct EmulatedGpus {
    /// Opens one.
    pub open: fn(&GpuPart) -> Result<Box<dyn Device>>,
}

/// Where devices come from. The objects of a GPU part name what it needs, and an executable carries nothing else: so
/// nothing but [`cuda`] and [`emulator`] themselves, and tests, may name what opens their devices.
#[derive(Debug, Clone, Copy)]
pub struct Devices {
    /// Of [`Kind::Cuda`].
    pub cuda: Option<&'static Gpus>,
    /// Of [`Kind::Emulated`].
    pub emulated: Option<&'static EmulatedGpus>,
}

/// All devices of this machine.
pub const DEVICES: Devices = Devices {
    cuda: Some(&cuda::GPUS),
    emulated: Some(&emulator::GPUS),
};

impl Devices {
    /// NVIDIA's GPUs.
    pub fn gpus(&self) -> Result<&'static Gpus> {
        self.cuda.ok_or_else(|| missing("CUDA"))
    }

    /// Opens a device: the GPU with the given index, or an emulated one.
    pub fn open(&self, part: &GpuPart, kind: Kind, index: usize) -> Result<Box<dyn Device>> {
        match kind {
            Kind::Cuda => (self.gpus()?.open)(part, index),
            Kind::Emulated => (self.emulated.ok_or_else(|| missing("the emulator"))?.open)(part),
        }
    }
}

fn missing(what: &str) -> Error {
    Error::internal(format!("the executable was linked without {what}"))
}

/// Number of devices that this process sees, at least 1; the emulator has as many as are wanted.
pub fn visible(part: &GpuPart, kind: Kind) -> Result<usize> {
    if kind == Kind::Emulated {
        return Ok(1);
    }
    match (part.devices.gpus()?.count)()? {
        0 => Err(Error::environment("the CUDA driver sees no GPU")
            .help("check CUDA_VISIBLE_DEVICES and nvidia-smi, or use --device cpu")),
        count => Ok(count),
    }
}
