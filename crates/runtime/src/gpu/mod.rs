//! GPU ranks: devices, the execution of a program's GPU part on one, and the processes that train together.
//!
//! Every rank is a process with a device and private copies of all arenas. The processes are started by the
//! launcher of [`process`] or by another one (torchrun, srun, mpirun); [`control`] connects them. All of them
//! run the same loop on the same data; only rank 0 writes.

pub mod control;
pub mod device;
pub mod execution;
pub mod process;

use crate::{
    error::{Error, Result},
    program::GpuPart,
};

use self::device::Device;

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
}

/// The devices of this machine.
pub const DEVICES: Devices = Devices { count, open };

fn count() -> Result<usize> {
    Err(Error::environment("no CUDA driver was found"))
}

fn open(_: &GpuPart, kind: Kind, index: usize) -> Result<Box<dyn Device>> {
    Err(Error::unsupported(format!("cannot open {kind:?} device {index}")))
}
