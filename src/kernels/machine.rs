//! The GPUs that a report is about, and every constant of the time model.
//!
//! A number changes for a measurement on the hardware only; then the text beside it says which.

use syncbn_mlir::gpu::{Direction, Tiles};

/// A GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Gpu {
    /// A100 (SXM, 80 GB).
    A100,
    /// H100 (SXM).
    H100,
    /// H200 (SXM).
    #[default]
    H200,
}

/// What the model knows of a GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// The flag's word.
    pub name: &'static str,
    /// Compute capability, as ptxas takes it.
    pub capability: u32,
    /// Multiprocessors.
    pub multiprocessors: u64,
    /// Cycles in a second.
    pub clock: f64,
    /// Bytes in a second that a copy reads and writes.
    pub memory: f64,
    /// Bytes of the L2 cache.
    pub l2: u64,
    /// Bytes of shared memory of a multiprocessor.
    pub shared: u64,
    /// Multiply-adds of `mma.sync` in a cycle of a multiprocessor, with operands of 2 bytes; of 4 bytes (tf32).
    pub multiply_adds: [f64; 2],
}

/// Share of the data sheet's bandwidth that a copy reaches: 4.3 of the 4.8 TB/s of an H200, measured on one by a copy
/// from device to device. Taken for the others too.
const COPY: f64 = 4.3 / 4.8;

impl Gpu {
    /// Its numbers.
    ///
    /// Multiprocessors, bandwidth and L2: NVIDIA's data sheets and the whitepapers of the A100 and of the H100. Shared
    /// memory: CUDA C++ Programming Guide, technical specifications by compute capability. Clocks: 1.41 GHz is the
    /// A100's boost clock, which its peak of 312 TFLOP/s is stated for; 1.755 GHz is an assumption for Hopper under load
    /// (an H100 for PCIe reports it as its highest clock; the stated peak of the SXM form is for 1.83). Multiply-adds are
    /// assumptions too: of `mma.sync` near the stated peak of 1024 (bf16) and 512 (tf32) on Ampere, and 58% of 2048 and 1024
    /// on Hopper, whose full rate needs `wgmma`; arXiv 2206.02874 and 2402.13499 are about such measurements.
    pub fn machine(self) -> Machine {
        match self {
            Gpu::A100 => Machine {
                name: "a100",
                capability: 80,
                multiprocessors: 108,
                clock: 1.41e9,
                memory: 2.039e12 * COPY,
                l2: 40 << 20,
                shared: 164 << 10,
                multiply_adds: [1000.0, 500.0],
            },
            Gpu::H100 => Machine {
                name: "h100",
                memory: 3.35e12 * COPY,
                ..Gpu::H200.machine()
            },
            Gpu::H200 => Machine {
                name: "h200",
                capability: 90,
                multiprocessors: 132,
                clock: 1.755e9,
                memory: 4.8e12 * COPY,
                l2: 50 << 20,
                shared: 228 << 10,
                multiply_adds: [1190.0, 600.0],
            },
        }
    }
}

// Of a multiprocessor, on all of these GPUs (CUDA C++ Programming Guide, technical specifications by compute capability).

/// Registers.
pub const REGISTERS: u64 = 65536;
/// Registers of a warp are a multiple of this.
pub const REGISTER_UNIT: u64 = 256;
/// Threads.
pub const THREADS: u64 = 2048;
/// Blocks.
pub const BLOCKS: u64 = 32;
/// Threads of a warp.
pub const WARP: u64 = 32;
/// Bytes of shared memory that the system takes for each block.
pub const SHARED_OF_SYSTEM: u64 = 1024;
/// Multiply-adds in f32 in a cycle, and instructions of warps.
pub const ARITHMETIC: f64 = 128.0;
pub const ISSUED: f64 = 4.0;
/// Bytes to or from shared memory in a cycle.
pub const SHARED_BYTES: f64 = 128.0;
/// Bytes from the L2 cache in a cycle: a share of 5.5 TB/s (assumption, as tiles are ranked by).
pub const L2_BYTES: f64 = 40.0;

/// Seconds of a launch in a graph besides its work: the gap after the one before, its ramp, and until its first loads
/// have arrived (assumption).
pub const LAUNCH: f64 = 1.5e-6;
/// Seconds until a load from memory has arrived and the next turn begins, on a GPU under load (assumption; an idle GPU
/// has some 480 cycles, as arXiv 2402.13499 measures them).
pub const MEMORY_LATENCY: f64 = 0.75e-6;
/// Cycles until a load from the L2 cache has arrived: about what microbenchmarks find (arXiv 2402.13499).
pub const L2_LATENCY: f64 = 263.0;
/// Share of a copy's bandwidth that kernels of independent threads reach, which walk through several tensors
/// (assumption).
pub const SEVERAL_STREAMS: f64 = 0.85;

// Of products on tensor cores.

/// Share of its limit that a step reaches: barriers, replays and dependencies take the rest (assumption).
pub const BUSY: f64 = 0.80;
/// Cycles until the copies of a step have arrived.
pub const COPY_LATENCY: f64 = 800.0;
/// Cycles of a block before its first step and after its last one, and for the result besides its bytes (assumption).
pub const BLOCK_CYCLES: f64 = 2300.0;
pub const RESULT_CYCLES: f64 = 1200.0;
/// Waves up to which the last one is a whole one; more blend into each other.
pub const FEW_WAVES: f64 = 4.0;

/// Instructions of a warp for 32 matrix instructions' worth of the operands, in the main loop: the SASS for sm_90 of
/// ResNet-50's kernels (ptxas 13.0.88), the mean of what its tiles have; three products for one with the 128 additions of
/// their stages.
pub fn instructions(tiles: &Tiles) -> f64 {
    let by_direction = match (tiles.operand_bytes, tiles.products) {
        (2, _) => [115.0, 125.0, 160.0],
        (_, 1) => [215.0, 245.0, 300.0],
        (_, _) => [668.0, 708.0, 913.0],
    };
    match tiles.direction {
        Direction::Forward => by_direction[0],
        Direction::BackwardData => by_direction[1],
        Direction::BackwardWeight => by_direction[2],
    }
}
