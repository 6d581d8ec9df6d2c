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

use self::{cuda::CudaDevice, device::Device, emulator::EmulatedDevice, part::GpuPart, survey::Survey};

/// What kind of device the GPU part runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// NVIDIA GPUs, through the CUDA driver.
    Cuda,
    /// The emulator.
    Emulated,
}

/// Where devices come from.
#[derive(Debug, Clone, Copy)]
pub struct Devices {
    /// Number of GPUs that this process sees, or why it can use none.
    pub count: fn() -> Result<usize>,
    /// Opens a device: the GPU with the given index, or an emulated one.
    pub open: fn(&GpuPart, Kind, usize) -> Result<Box<dyn Device>>,
    /// What of GPUs the machine has.
    pub survey: fn(&GpuPart) -> Survey,
}

/// The devices of this machine.
pub const DEVICES: Devices = Devices {
    count: cuda::count,
    open,
    survey: survey::survey,
};

fn open(part: &GpuPart, kind: Kind, index: usize) -> Result<Box<dyn Device>> {
    let kernels = part.model.gpu.as_ref().map(|gpu| gpu.kernels.clone());
    let kernels = kernels.unwrap_or_default();
    Ok(match kind {
        Kind::Cuda => Box::new(CudaDevice::open(index, kernels, part)?),
        Kind::Emulated => Box::new(EmulatedDevice::new(kernels, part.emulated_kernels.to_vec())?),
    })
}

/// Number of devices that this process sees, at least 1; the emulator has as many as are wanted.
pub fn visible(part: &GpuPart, kind: Kind) -> Result<usize> {
    if kind == Kind::Emulated {
        return Ok(1);
    }
    match (part.devices.count)()? {
        0 => Err(Error::environment("the CUDA driver sees no GPU")
            .help("check CUDA_VISIBLE_DEVICES and nvidia-smi, or use --device cpu")),
        count => Ok(count),
    }
}
