//! The GPU part: devices, and what generated code calls on them.
//!
//! A [`device::Device`] is a GPU behind the CUDA driver ([`cuda`]) or the emulator ([`emulator`]). Generated
//! code sees streams and communicators ([`stream`]) as opaque pointers that it passes to the functions of
//! [`symbols`].

pub mod cuda;
pub mod device;
pub mod emulator;
mod library;
pub mod nccl;
pub mod stream;
pub mod symbols;
