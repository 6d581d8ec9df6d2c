//! The GPU part: devices, what generated code calls on them, and the processes that train together.
//!
//! A [`device::Device`] is a GPU behind the CUDA driver or the emulator ([`emulator`]). Generated
//! code sees streams and communicators ([`stream`]) as opaque pointers that it passes to the functions of
//! [`symbols`].
//!
//! Every rank is a process with a device and private copies of all arenas ([`execution`]). The processes are
//! started by the launcher of [`process`] or by another one (torchrun, srun, mpirun); [`control`] connects
//! them. All of them run the same loop on the same data; only rank 0 writes.

pub mod control;
pub mod device;
pub mod emulator;
pub mod execution;
pub mod process;
pub mod stream;
pub mod symbols;

use crate::{
    error::{Error, Result},
    program::GpuPart,
};

use self::{device::Device, emulator::EmulatedDevice};

/// What kind of device the GPU part runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// NVIDIA GPUs, through the CUDA driver.
    Cuda,
    /// The emulator.
    Emulated,
}

/// Number of GPUs that this process sees, or why it can use none.
pub fn count() -> Result<usize> {
    Err(Error::environment("this runtime cannot use GPUs yet").help("use --device cpu or cuda-emulated"))
}

/// Opens the device of `rank`: for [`Kind::Cuda`] the GPU with number `index` of those that this process sees.
pub fn open(part: &GpuPart, kind: Kind, rank: usize, index: usize) -> Result<Box<dyn Device>> {
    match kind {
        Kind::Cuda => count().and(Err(Error::environment(format!("there is no GPU {index}")))),
        Kind::Emulated => {
            let kernels = part
                .model
                .gpu
                .as_ref()
                .map_or(Vec::new(), |gpu| gpu.kernels.clone());
            let device = EmulatedDevice::new(rank, kernels, part.emulated_kernels.to_vec())?;
            Ok(Box::new(device))
        }
    }
}
