//! What the kernels of a product cost.

use super::Problem;
use super::axis::Axis;
use super::tile::Tile;
use crate::emit::{Cost, Direction, Elem, Emitter, Share, Tiles, ceil};
use crate::program::Products;

/// Turns of the loop over partial results at most that LLVM unrolls, so that their loads stand side by side: a fact of
/// the code that it makes, as the SASS for sm_90 shows it.
const UNROLLED: i64 = 32;
/// Numbers that the kernel that merges moments loads at once, for one tile: a fact of its lowering.
const MOMENTS_AT_ONCE: i64 = 3;

impl Problem {
    fn tiles(&self, (tile, splits): (&Tile, i64), direction: Direction, steps: f64) -> Tiles {
        Tiles {
            direction,
            operand_bytes: tile.elem.bytes(),
            products: match self.gpu.products {
                Products::Exact | Products::Tf32 | Products::Bf16 => 1,
                Products::ThreeTf32 => 3,
            },
            block: [tile.rows, tile.columns, tile.depth],
            warp: [tile.warp_rows, tile.warp_columns],
            stages: tile.stages,
            splits,
            steps,
        }
    }

    /// Of the forward pass of `rows` pixels, with the moments of its result or without.
    pub(super) fn cost_of_forward(&self, tile: &Tile, rows: i64, moments: bool) -> Cost {
        let steps = ceil(self.shape.taps() * self.shape.c, tile.depth);
        let cost = Cost {
            tiles: Some(self.tiles((tile, 1), Direction::Forward, steps as f64)),
            ..Cost::default()
        };
        if !moments {
            return cost;
        }
        Cost {
            share: Share::Partial,
            workspace_written: self.schedule.moments(rows, self.shape.k) * Elem::F32.bytes(),
            ..cost
        }
    }

    /// Of the kernel that merges the moments of all tiles, which are so many elements.
    pub(super) fn cost_of_merge(&self, elements: i64) -> Cost {
        Cost {
            share: Share::Merge,
            workspace_read: elements * Elem::F32.bytes(),
            workspace_at_once: MOMENTS_AT_ONCE * Elem::F32.bytes(),
            ..Cost::default()
        }
    }

    /// Of the gradient for the input. The grid has as many blocks for each of its phases as the largest one needs.
    pub(super) fn cost_of_backward_data(&self, tile: &Tile, phases: &[[Axis; 2]]) -> Cost {
        let samples = self.gpu.batch_bound;
        let blocks = |[h, w]: &[Axis; 2]| ceil(samples * h.count * w.count, tile.rows);
        let steps = |[h, w]: &[Axis; 2]| ceil(h.taps * w.taps * self.shape.k, tile.depth);
        let most = phases.iter().map(blocks).max().unwrap_or(1).max(1);
        let all: i64 = phases.iter().map(|phase| blocks(phase) * steps(phase)).sum();
        let mean = all as f64 / (most * phases.len().max(1) as i64) as f64;
        Cost {
            tiles: Some(self.tiles((tile, 1), Direction::BackwardData, mean)),
            ..Cost::default()
        }
    }

    /// Of the gradient for `elements` weights: of `steps` in each of `splits` parts.
    pub(super) fn cost_of_backward_weight(
        &self,
        tile: &Tile,
        steps: i64,
        [splits, elements]: [i64; 2],
    ) -> Cost {
        let cost = Cost {
            tiles: Some(self.tiles((tile, splits), Direction::BackwardWeight, steps as f64)),
            ..Cost::default()
        };
        match splits {
            1 => cost,
            _ => Cost {
                share: Share::Partial,
                workspace_written: splits * elements * Elem::F32.bytes(),
                ..cost
            },
        }
    }
}

/// Of the kernel that adds the parts of a gradient for weights.
pub(super) fn note_merge_of_parts(e: &Emitter, [splits, elements]: [i64; 2]) {
    e.note_cost(|cost| {
        cost.share = Share::Merge;
        cost.workspace_read = splits * elements * Elem::F32.bytes();
        cost.workspace_at_once = splits.min(UNROLLED) * Elem::F32.bytes();
    });
}
