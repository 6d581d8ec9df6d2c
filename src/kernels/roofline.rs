//! How a launch occupies a GPU, and how long it takes by the model: the longest of what bounds it.

use serde::Serialize;
use syncbn_abi::GpuKernel;
use syncbn_mlir::gpu::launches::Launched;
use syncbn_mlir::gpu::{Share, Tiles};

use super::machine::{
    BLOCK_CYCLES, BLOCKS, BUSY, COPY_LATENCY, FEW_WAVES, ISSUED, L2_BYTES, L2_LATENCY, LAUNCH,
    MEMORY_LATENCY, MOSTLY_LAUNCH, Machine, REGISTER_UNIT, REGISTERS, RESULT_CYCLES, RESULTS_SHOWN,
    SEVERAL_STREAMS, SHARED_BYTES, SHARED_OF_SYSTEM, THREADS, WARP, instructions,
};

/// What the time of a launch is by the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The launch itself: all else takes less.
    Launch,
    /// Bytes, at the bandwidth of the memory.
    Memory,
    /// Bytes that are asked for at once, by how long they take to arrive.
    Latency,
    /// Operations in f32.
    Arithmetic,
    /// The steps of a product: matrix units, shared memory, instructions or copies.
    Product,
}

/// A launch on a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Occupancy {
    /// Blocks that a multiprocessor holds at once.
    pub resident: u64,
    /// Times that the GPU is filled with blocks.
    pub waves: f64,
    /// Bytes that all blocks that are there at once have asked for.
    pub in_flight: u64,
    /// Seconds.
    pub seconds: f64,
    /// What these are.
    pub bound: Bound,
}

/// Blocks that a multiprocessor holds at once: by registers (those of a thread, or without them what the kernel was
/// bounded to), shared memory, threads and blocks.
fn resident(machine: &Machine, kernel: &GpuKernel, registers: Option<u64>, bounded: Option<u32>) -> u64 {
    let threads = u64::from(kernel.block).max(1);
    let by_registers = match (registers, bounded) {
        (Some(registers), _) => {
            let of_warp = (registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT);
            REGISTERS / of_warp / threads.div_ceil(WARP)
        }
        (None, Some(blocks)) => u64::from(blocks),
        (None, None) => BLOCKS,
    };
    let by_shared = machine.shared / (u64::from(kernel.shared) + SHARED_OF_SYSTEM);
    [by_registers, by_shared, THREADS / threads, BLOCKS]
        .into_iter()
        .fold(BLOCKS, u64::min)
        .max(1)
}

/// What a launch of `kernel` is on a GPU. `registers` are those of a thread, where they are known.
pub fn occupancy(
    machine: &Machine,
    kernel: &GpuKernel,
    registers: Option<u64>,
    launched: &Launched,
) -> Occupancy {
    let blocks: u64 = launched.grid.iter().product::<u64>().max(1);
    let resident = resident(machine, kernel, registers, launched.resident);
    let at_once = blocks.min(resident * machine.multiprocessors);
    let traffic = &launched.traffic;
    let asked = match &launched.cost.tiles {
        Some(tiles) => at_once * stage_bytes(tiles) as u64 * (tiles.stages - 1) as u64,
        None => at_once * u64::from(kernel.block) * traffic.at_once,
    };
    let in_flight = asked.min(traffic.read);
    let candidates = match &launched.cost.tiles {
        Some(tiles) => product(machine, tiles, blocks, resident, launched),
        None => independent(machine, in_flight, launched),
    };
    let (seconds, bound) = candidates
        .into_iter()
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap_or((LAUNCH, Bound::Launch));
    let is_launch = launched.cost.tiles.is_none() && seconds < MOSTLY_LAUNCH * LAUNCH;
    Occupancy {
        resident,
        waves: blocks as f64 / (resident * machine.multiprocessors) as f64,
        in_flight,
        seconds,
        bound: if is_launch { Bound::Launch } else { bound },
    }
}

/// Seconds of a kernel of independent threads, by what bounds it.
fn independent(machine: &Machine, in_flight: u64, launched: &Launched) -> Vec<(f64, Bound)> {
    let traffic = &launched.traffic;
    let bytes = (traffic.read + traffic.written) as f64;
    // What the launch before has written is there still.
    let in_cache = launched.cost.share == Share::Merge && traffic.read <= machine.l2;
    let latency = if in_cache {
        L2_LATENCY / machine.clock
    } else {
        MEMORY_LATENCY
    };
    // The first turn is the launch's.
    let turns = (traffic.read as f64 / in_flight.max(1) as f64 - 1.0).max(0.0);
    // A multiply-add is two operations.
    let operations = 2.0 * machine.arithmetic * machine.multiprocessors as f64 * machine.clock;
    vec![
        (LAUNCH + bytes / (machine.memory * SEVERAL_STREAMS), Bound::Memory),
        (LAUNCH + turns * latency, Bound::Latency),
        (LAUNCH + traffic.flop as f64 / operations, Bound::Arithmetic),
    ]
}

fn stage_bytes(tiles: &Tiles) -> i64 {
    let [rows, columns, depth] = tiles.block;
    (rows + columns) * depth * tiles.operand_bytes
}

/// Seconds of a product on tensor cores, by what bounds it.
fn product(
    machine: &Machine,
    tiles: &Tiles,
    blocks: u64,
    resident: u64,
    launched: &Launched,
) -> Vec<(f64, Bound)> {
    let bytes = (launched.traffic.read + launched.traffic.written) as f64;
    let [rows, columns, depth] = tiles.block.map(|n| n as f64);
    let [warp_rows, warp_columns] = tiles.warp.map(|n| n as f64);
    let warps = rows / warp_rows * (columns / warp_columns);
    let rate = machine.multiply_adds[usize::from(tiles.operand_bytes > 2)];
    let depth_bytes = depth * tiles.operand_bytes as f64;
    // A matrix instruction has 16 rows and 8 columns and reduces 32 bytes of the operands.
    let matrix = warp_rows / 16.0 * (warp_columns / 8.0) * (depth_bytes / 32.0);
    let needs = [
        rows * columns * depth * tiles.products as f64 / rate,
        ((rows + columns) * depth_bytes + warps * (warp_rows + warp_columns) * depth_bytes) / SHARED_BYTES,
        warps * matrix * tiles.products as f64 * instructions(tiles) / ISSUED,
    ];
    let busy = needs.into_iter().fold(0.0, f64::max) / BUSY;
    let multiprocessors = machine.multiprocessors as f64;
    let together = (blocks as f64 / multiprocessors)
        .ceil()
        .clamp(1.0, resident as f64);
    let step = (busy * together).max(COPY_LATENCY / (tiles.stages - 1).max(1) as f64);
    let waves = blocks as f64 / (multiprocessors * together);
    let waves = if waves > FEW_WAVES { waves } else { waves.ceil() };
    let result = (rows * columns * 4.0 / L2_BYTES + RESULT_CYCLES) * together * RESULTS_SHOWN;
    let cycles = waves * (tiles.steps * step + BLOCK_CYCLES + result);
    vec![
        (cycles / machine.clock, Bound::Product),
        (LAUNCH + bytes / machine.memory, Bound::Memory),
    ]
}

#[cfg(test)]
mod tests {
    use syncbn_mlir::gpu::launches::Traffic;
    use syncbn_mlir::gpu::{Cost, Direction};

    use super::super::machine::Gpu;
    use super::*;

    fn kernel(block: u32, shared: u32) -> GpuKernel {
        GpuKernel {
            name: "kernel".to_string(),
            block,
            shared,
            cooperative: false,
            parameters: None,
            numbers: 0,
            nodes: Vec::new(),
        }
    }

    fn launched(blocks: u64, traffic: Traffic, cost: Cost) -> Launched {
        Launched {
            node: "node".to_string(),
            op: "op".to_string(),
            kernel: 0,
            grid: [blocks, 1],
            resident: None,
            traffic,
            cost,
        }
    }

    #[test]
    fn a_multiprocessor_holds_what_its_scarcest_resource_allows() {
        let [a100, h200] = [Gpu::A100, Gpu::H200].map(Gpu::machine);
        for (machine, block, shared, registers, bounded, blocks) in [
            // Threads are scarcest, then blocks.
            (&h200, 256, 0, Some(32), None, 8),
            (&h200, 32, 0, Some(16), None, 32),
            // 40 registers are 5 units of a warp, so there are 51 warps.
            (&h200, 256, 0, Some(40), None, 6),
            (&h200, 128, 0, Some(157), None, 3),
            // There are 69632 + 1024 bytes in 228 and 164 KiB.
            (&h200, 256, 69632, Some(80), None, 3),
            (&a100, 256, 69632, Some(80), None, 2),
            // Without ptxas it holds what the kernel was bounded to.
            (&h200, 256, 0, None, Some(3), 3),
            (&h200, 256, 0, None, None, 8),
        ] {
            let found = resident(machine, &kernel(block, shared), registers, bounded);
            assert_eq!(
                found, blocks,
                "{block} threads, {shared} bytes, {registers:?} registers"
            );
        }
    }

    #[test]
    fn time_is_that_of_the_narrowest_bound() {
        let machine = Gpu::H200.machine();
        let of = |blocks: u64, read: u64, flop: u64, at_once: u64| {
            let traffic = Traffic {
                read,
                written: read,
                least: 2 * read,
                flop,
                at_once,
            };
            occupancy(
                &machine,
                &kernel(256, 0),
                Some(32),
                &launched(blocks, traffic, Cost::default()),
            )
        };
        let close = |found: Occupancy, seconds: f64, bound: Bound| {
            assert!((found.seconds - seconds).abs() < 1e-3 * seconds, "{found:?}");
            assert_eq!(found.bound, bound, "{found:?}");
        };
        // 2 GB at 0.85 of 4.3 TB/s; 132 multiprocessors have 8 blocks each, with 256 threads of 16 bytes.
        let stream = of(100_000, 1 << 30, 0, 16);
        close(
            stream,
            1.5e-6 + (2_u64 << 30) as f64 / (0.85 * 4.3e12),
            Bound::Memory,
        );
        assert_eq!(stream.in_flight, 132 * 8 * 256 * 16);
        assert!((stream.waves - 100_000.0 / 1056.0).abs() < 1e-9);
        // One block asks for 4 KiB at once and has 256 to read: 255 turns of 0.75 us after the first one.
        close(of(1, 1 << 20, 0, 16), 1.5e-6 + 255.0 * 0.75e-6, Bound::Latency);
        // 59.3 TFLOP/s in f32.
        let peak = 2.0 * 128.0 * 132.0 * 1.755e9;
        close(
            of(1056, 1 << 20, 1 << 40, 16),
            1.5e-6 + (1u64 << 40) as f64 / peak,
            Bound::Arithmetic,
        );
    }

    /// One wave of 264 blocks, two in each multiprocessor. A step of 128x128x32 takes the matrix units 440.6 cycles (32
    /// times 128 * 128 multiply-adds at 1190), shared memory 512 (16 KiB copied and 8 warps' 64+32 rows of 64 bytes at
    /// 128) and the issue of 8 * 3.78 instructions for each of 32 matrix instructions 242; so 512 / 0.8 for each of two
    /// blocks. A block has 2300 cycles besides, and half of 2 * (65536 / 40 + 1200) for its result.
    #[test]
    fn a_product_takes_its_steps() {
        let machine = Gpu::H200.machine();
        let tiles = Tiles {
            direction: Direction::Forward,
            operand_bytes: 2,
            products: 1,
            block: [128, 128, 32],
            warp: [64, 32],
            stages: 4,
            splits: 1,
            steps: 18.0,
        };
        let traffic = Traffic {
            read: 16 << 20,
            ..Traffic::default()
        };
        let cost = Cost {
            tiles: Some(tiles),
            ..Cost::default()
        };
        let found = occupancy(
            &machine,
            &kernel(256, 69632),
            Some(128),
            &launched(264, traffic, cost),
        );
        let cycles = 18.0 * 2.0 * 512.0 / 0.8 + 2300.0 + (65536.0 / 40.0 + 1200.0);
        assert!((found.seconds - cycles / 1.755e9).abs() < 1e-9, "{found:?}");
        assert_eq!(found.bound, Bound::Product);
        assert_eq!((found.resident, found.waves), (2, 1.0));
        // Three of four stages are under way in each block.
        assert_eq!(found.in_flight, 264 * 3 * 16384);
    }
}
