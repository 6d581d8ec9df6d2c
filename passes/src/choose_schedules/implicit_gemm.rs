//! Implicit matrix product: tiles of a product on tensor cores, whose operands are gathered from images.
//!
//! It takes what [`Gemm::of`] takes, in each of the tiles that there are, and sums gradients of weights in parts where the
//! reduced index is long. What else has the plain form, `Gpu::product` says.

use syncbn_ir::schedule::{Direction, Gemm, ImplicitGemm, MOST_PARTIAL_BYTES, Products};

use super::gpu::Gpu;

/// Bytes of a sum.
const SUM_BYTES: i64 = 4;
/// Steps that a split of the reduced index has at least.
const LEAST_STEPS: i64 = 4;
/// Splits are powers of two below this one.
const MOST_SPLITS: i64 = 1 << 12;

/// Tiles for a GPU's products, and how many times as long as one in tf32 a multiply-add takes.
fn tiles(products: Products) -> (&'static [ImplicitGemm], f64) {
    match products {
        Products::Exact | Products::Tf32 => (&ImplicitGemm::TF32, 1.0),
        Products::ThreeTf32 => (&ImplicitGemm::THREE_TF32, 3.0),
        // Twice as many multiply-adds in a cycle.
        Products::Bf16 => (&ImplicitGemm::BF16, 0.5),
    }
}

/// All schedules of a product with the cycles that they take, tile after tile.
pub fn candidates(gpu: &Gpu, gemm: &Gemm) -> Vec<(ImplicitGemm, f64)> {
    let choices = tiles(gpu.products).0.iter().flat_map(|&tile| {
        let steps = ceil(gemm.reduced, tile.depth as i64);
        let may_split = move |splits: i64| {
            let is_long = steps / splits >= LEAST_STEPS;
            is_long && gemm.partial_bytes(splits) <= MOST_PARTIAL_BYTES
        };
        let most = match gemm.direction {
            Direction::BackwardWeight => MOST_SPLITS,
            Direction::Forward | Direction::BackwardData => 2,
        };
        let powers = std::iter::successors(Some(1), |splits| Some(2 * splits));
        powers
            .take_while(move |&splits| splits < most)
            .filter(move |&splits| splits == 1 || may_split(splits))
            .map(move |splits: i64| ImplicitGemm {
                splits: splits as usize,
                ..tile
            })
    });
    choices
        .map(|schedule| (schedule, cycles(gpu, gemm, &schedule)))
        .collect()
}

/// Cycles of a product, with those of the kernel that adds the results of parts.
pub fn cycles(gpu: &Gpu, gemm: &Gemm, s: &ImplicitGemm) -> f64 {
    let splits = s.splits as i64;
    let merge = match splits {
        1 => 0.0,
        _ => gpu.launch + gemm.partial_bytes(splits).saturating_mul(2) as f64 / gpu.memory_per_cycle,
    };
    cycles_of_parts(gpu, gemm, s) + merge
}

fn cycles_of_parts(gpu: &Gpu, gemm: &Gemm, s: &ImplicitGemm) -> f64 {
    let [rows, columns, depth, stages] = [s.rows, s.columns, s.depth, s.stages].map(|n| n as i64);
    let [warp_rows, warp_columns, resident, splits] =
        [s.warp_rows, s.warp_columns, s.resident, s.splits].map(|n| n as i64);
    let blocks = ceil(gemm.rows, rows).saturating_mul(ceil(gemm.columns, columns));
    let blocks = blocks.saturating_mul(splits);
    let steps = ceil(ceil(gemm.reduced, depth), splits).max(1);
    let depth_bytes = depth * gemm.dtype.bytes() as i64;
    let warps = (rows / warp_rows) * (columns / warp_columns);
    let fragments = warps * (warp_rows + warp_columns) * depth_bytes;
    let stage_bytes = (rows + columns) * depth_bytes;
    let needs = [
        (rows * columns * depth) as f64 * tiles(gpu.products).1,
        (stage_bytes + fragments) as f64,
        stage_bytes as f64,
    ];
    let rates = needs.iter().zip(gpu.per_cycle);
    let busy = rates.map(|(need, rate)| need / rate).fold(0.0, f64::max);
    let together = resident.min(ceil(blocks, gpu.multiprocessors)) as f64;
    let step = (busy * together).max(gpu.latency / (stages - 1) as f64);
    let waves = blocks as f64 / (gpu.multiprocessors * resident) as f64;
    // Few waves are whole ones; many blend into each other.
    let waves = if waves > 4.0 { waves } else { waves.ceil() };
    let stored = (rows * columns * SUM_BYTES) as f64 / gpu.per_cycle[2] * together;
    waves * (steps as f64 * step + gpu.block + stored)
}

fn ceil(size: i64, step: i64) -> i64 {
    size / step + i64::from(size % step > 0)
}
