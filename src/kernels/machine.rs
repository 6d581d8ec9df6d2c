//! The GPUs that a report is about, and every constant of the time model.
//!
//! Each has its source beside it, or is called an assumption: nothing here was measured on a GPU. A number changes for
//! a measurement on the hardware only; then the text beside it says which. What the code of kernels does, such as how
//! many loads it makes at once, is no constant of the model, and stands where they are lowered (`crates/mlir`).

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
    /// Multiply-adds in f32 of the other units in a cycle of a multiprocessor.
    pub arithmetic: f64,
}

/// Share of the data sheet's bandwidth that a copy from device to device reaches: 4.3 of the 4.8 TB/s of an H200. That
/// is a reported figure, taken as an assumption here, and for the other GPUs too.
const COPY: f64 = 4.3 / 4.8;

impl Gpu {
    /// Its numbers.
    ///
    /// Multiprocessors, bandwidth and L2: NVIDIA's data sheets and the whitepapers of the A100 and of the H100. Shared
    /// memory: CUDA C++ Programming Guide, technical specifications by compute capability; multiply-adds in f32: its
    /// throughput of arithmetic instructions. Clocks: 1.41 GHz is the A100's boost clock, which its peak of 312 TFLOP/s
    /// is stated for; 1.755 GHz is an assumption for Hopper under load (an H100 for PCIe reports it as its highest
    /// clock; the stated peak of the SXM form is for 1.83). Multiply-adds of `mma.sync` are assumptions too: near the
    /// stated peak of 1024 (bf16) and 512 (tf32) on Ampere, and 58% of 2048 and 1024 on Hopper, whose full rate needs
    /// `wgmma`; arXiv 2206.02874 and 2402.13499 are about such measurements.
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
                arithmetic: 64.0,
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
                arithmetic: 128.0,
            },
        }
    }
}

// These are of a multiprocessor and the same on all of the GPUs. Where no other source is named, it is the CUDA C++
// Programming Guide: the technical specifications by compute capability, and the sections on 8.x and 9.0.

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
/// Instructions of warps in a cycle: one for each of the schedulers.
pub const ISSUED: f64 = 4.0;
/// Bytes to or from shared memory in a cycle: 4 for each of 32 banks.
pub const SHARED_BYTES: f64 = 128.0;
/// Bytes from the L2 cache in a cycle (assumption, which tiles are ranked by too; the whitepaper of the A100 has 5120
/// for all its multiprocessors, which is 47 for each).
pub const L2_BYTES: f64 = 40.0;

/// Seconds of a launch in a graph besides its work: the gap after the one before, its ramp, and until its first loads
/// have arrived (assumption).
pub const LAUNCH: f64 = 1.5e-6;
/// A kernel of independent threads that takes less than so many launches is listed as bounded by the launch. It is a
/// convention of the report, which changes no time.
pub const MOSTLY_LAUNCH: f64 = 2.0;
/// Seconds until a load from memory has arrived and the next turn begins, on a GPU under load (assumption; an idle GPU
/// has some 480 cycles, as arXiv 2402.13499 measures them).
pub const MEMORY_LATENCY: f64 = 0.75e-6;
/// Cycles until a load from the L2 cache has arrived: about what microbenchmarks find (arXiv 2402.13499).
pub const L2_LATENCY: f64 = 263.0;
/// Share of a copy's bandwidth that kernels of independent threads reach, which walk through several tensors
/// (assumption).
pub const SEVERAL_STREAMS: f64 = 0.85;

// What follows is about products on tensor cores.

/// Share of its limit that a step reaches: barriers, replays and dependencies take the rest (assumption).
pub const BUSY: f64 = 0.80;
/// Cycles until the copies of a step have arrived (assumption: more than an idle GPU's latency, and less than that of
/// memory under load, because blocks share operands in the L2 cache).
pub const COPY_LATENCY: f64 = 800.0;
/// Cycles of a block before its first step and after its last one (assumption).
pub const BLOCK_CYCLES: f64 = 2300.0;
/// Cycles of a block for its result besides those for its bytes (assumption).
pub const RESULT_CYCLES: f64 = 1200.0;
/// Share of the cycles for results that the steps of other blocks do not hide (assumption).
pub const RESULTS_SHOWN: f64 = 0.5;
/// Waves up to which the last one is a whole one; more blend into each other (assumption, which tiles are ranked by
/// too).
pub const FEW_WAVES: f64 = 4.0;

/// Instructions of a warp for each matrix instruction in the main loop of a product, by tile: 64x32 results of a warp
/// in blocks of 128x128, then in other blocks; 32x32; 32x16 or 16x32.
///
/// The source is `tests/fixtures/sass`, for sm_90: the worst kernel of a kind, with windows and strides. Tiles that the
/// network there does not use, which are named below, have the worst kernel of ResNet-50 in batches of 2 to 128,
/// counted in the same way (ptxas 13.0.88).
pub fn instructions(tiles: &Tiles) -> f64 {
    let [forward, backward_data, backward_weight] = match (tiles.operand_bytes, tiles.products) {
        // Forward: the last one. Backward data: the last two. Backward weight: the first two.
        (2, _) => [
            [3.78, 4.59, 4.62, 9.25],
            [4.03, 5.12, 6.06, 9.56],
            [4.38, 5.22, 7.00, 11.88],
        ],
        // Forward: the last one. Backward data: the last two. Backward weight: the second one.
        (_, 1) => [
            [6.91, 7.66, 8.69, 15.38],
            [7.50, 8.66, 10.78, 16.50],
            [9.00, 9.62, 12.66, 20.38],
        ],
        // Forward and backward data: the second one. Backward weight: the third one, and 8.00 is an assumption, for
        // ResNet-50 does not use such a tile. There is no tile for the first ones.
        (_, _) => [
            [7.06, 7.06, 8.47, 12.10],
            [7.32, 7.32, 8.92, 12.48],
            [8.00, 8.00, 9.58, 13.77],
        ],
    };
    let by_tile = match tiles.direction {
        Direction::Forward => forward,
        Direction::BackwardData => backward_data,
        Direction::BackwardWeight => backward_weight,
    };
    let [rows, columns] = tiles.warp;
    match (rows.min(columns), tiles.block) {
        (..32, _) => by_tile[3],
        (_, [128, 128, _]) => by_tile[0],
        (_, _) if rows > 32 => by_tile[1],
        (_, _) => by_tile[2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [(&str, i64, i64); 3] = [
        (include_str!("../../tests/fixtures/sass/bf16.txt"), 2, 1),
        (include_str!("../../tests/fixtures/sass/tf32.txt"), 4, 1),
        (include_str!("../../tests/fixtures/sass/f32.txt"), 4, 3),
    ];
    /// A figure of the table stands for those of several kernels, which differ by so much at most.
    const TOLERANCE: f64 = 0.05;

    /// Rows and columns of the blocks and warps that have so many threads and bytes of shared memory.
    fn tiles_of(threads: &str, shared: &str) -> &'static [([i64; 2], [i64; 2])] {
        match (threads, shared) {
            ("256", "69632") => &[([128, 128], [64, 32])],
            ("128", "49152") => &[([128, 64], [64, 32]), ([64, 64], [32, 32])],
            ("128", "40960") => &[([128, 32], [32, 32])],
            ("128", "36864") => &[([64, 32], [32, 16]), ([32, 64], [16, 32])],
            _ => &[],
        }
    }

    /// Each product of the golden files has a tile whose figure is the recorded one.
    #[test]
    fn instructions_are_those_of_the_golden_files() {
        let mut compared = 0;
        for (golden, operand_bytes, products) in GOLDEN {
            let lines = golden.lines().filter_map(|line| line.strip_prefix("sm_90 "));
            for line in lines.filter(|line| line.contains(" products=")) {
                let word = |name: &str| {
                    let mut words = line.split([' ', ':']);
                    words
                        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                        .unwrap()
                };
                let direction = match line.split(' ').next().unwrap() {
                    "conv" => Direction::Forward,
                    "conv_backward_data" => Direction::BackwardData,
                    "conv_backward_weight" => Direction::BackwardWeight,
                    other => panic!("{other} has products, and no figure"),
                };
                let recorded: f64 = word("instructions").parse().unwrap();
                let tiles = tiles_of(word("threads"), word("shared")).iter();
                let figures: Vec<f64> = tiles
                    .map(|&([rows, columns], warp)| {
                        instructions(&Tiles {
                            direction,
                            operand_bytes,
                            products,
                            block: [rows, columns, 32],
                            warp,
                            stages: 4,
                            splits: 1,
                            steps: 1.0,
                        })
                    })
                    .collect();
                let is_recorded = |figure: &f64| (figure - recorded).abs() <= TOLERANCE * recorded;
                assert!(figures.iter().any(is_recorded), "{figures:?} for {line}");
                compared += 1;
            }
        }
        assert!(compared >= 20, "{compared} kinds have products");
    }
}
