//! The GPU target without a GPU: its kernels and host code run under the emulator, a process for each rank.

mod assembly;
mod corpus;
mod devices;
mod dialect;
mod modes;
mod mutants;
mod random;
mod scripts;
mod targets;

/// What a compilation for the emulator is asked for.
const EMULATED: [&str; 4] = ["--target", "cuda-emulated", "--precision", "f32"];
