//! Matrix products on a GPU's tensor cores: what they are for, their sizes, and the tiles that there are.

use super::products::channels_of_copy;
use super::{Convolution, Direction, ImplicitGemm};
use crate::ops::{MatMul, Op};
use crate::types::{DType, Dim, TensorType};

/// Bytes that the partial results of all parts of a split have at most.
pub const MOST_PARTIAL_BYTES: i64 = 64 << 20;
/// Blocks that a grid has along its last axis, at most.
const MOST_SPLITS: usize = 0xffff;
/// Bytes of a sum.
const SUM_BYTES: i64 = 4;
/// Numbers that a tile leaves of a channel's moments: the value in its first row, and the sum and `M2` about that.
pub const MOMENTS_OF_TILE: i64 = 3;
/// What coordinates and products of them stay below, so that kernels can compute in i32.
const MOST: u64 = 1 << 28;

const fn tile(size: [usize; 3], warp: [usize; 2], stages: usize, resident: usize) -> ImplicitGemm {
    // The columns of a warp are staged as one block of 32.
    assert!(warp[1] <= 32 && 32 % warp[1] == 0);
    ImplicitGemm {
        rows: size[0],
        columns: size[1],
        depth: size[2],
        warp_rows: warp[0],
        warp_columns: warp[1],
        stages,
        resident,
        splits: 1,
    }
}

impl ImplicitGemm {
    /// Tiles for products in tf32.
    pub const TF32: [ImplicitGemm; 6] = [
        tile([128, 128, 16], [64, 32], 4, 2),
        tile([128, 64, 16], [64, 32], 4, 3),
        tile([64, 64, 32], [32, 32], 3, 4),
        tile([128, 32, 16], [32, 32], 4, 4),
        tile([64, 32, 32], [32, 16], 3, 4),
        tile([32, 64, 32], [16, 32], 3, 4),
    ];

    /// Tiles for products in bf16: of as many bytes, and twice as deep.
    pub const BF16: [ImplicitGemm; 6] = [
        tile([128, 128, 32], [64, 32], 4, 2),
        tile([128, 64, 32], [64, 32], 4, 3),
        tile([64, 64, 64], [32, 32], 3, 4),
        tile([128, 32, 32], [32, 32], 4, 4),
        tile([64, 32, 64], [32, 16], 3, 4),
        tile([32, 64, 64], [16, 32], 3, 4),
    ];

    /// Tiles for three products, which need twice the registers for their operands, and some for sums of a stage.
    pub const THREE_TF32: [ImplicitGemm; 5] = [
        tile([128, 64, 16], [64, 32], 4, 2),
        tile([64, 64, 32], [32, 32], 3, 2),
        tile([128, 32, 16], [32, 32], 4, 2),
        tile([64, 32, 32], [32, 16], 3, 3),
        tile([32, 64, 32], [16, 32], 3, 3),
    ];

    /// Elements of f32 that all tiles of a result of so many rows and columns leave of its moments.
    pub fn moments(&self, rows: i64, columns: i64) -> i64 {
        let tiles = (rows as u64).div_ceil(self.rows.max(1) as u64) as i64;
        tiles.saturating_mul(MOMENTS_OF_TILE).saturating_mul(columns)
    }

    /// Bytes of memory that a second kernel reads what the first one left from, for batches up to `batch_bound`.
    pub(super) fn workspace(
        &self,
        op: &Op,
        operands: &[&TensorType],
        results: &[&TensorType],
        batch_bound: usize,
    ) -> u64 {
        let Ok(gemm) = Gemm::of(op, operands, results, batch_bound) else {
            return 0;
        };
        let bytes = match op {
            Op::Conv(conv) if conv.moments => self.moments(gemm.rows, gemm.columns).saturating_mul(SUM_BYTES),
            _ if self.splits > 1 => gemm.partial_bytes(self.splits as i64),
            _ => 0,
        };
        bytes as u64
    }

    /// Whether kernels are written for its tile, with operands of this type.
    fn is_known(&self, dtype: DType) -> bool {
        let tile = ImplicitGemm { splits: 1, ..*self };
        match dtype {
            DType::BF16 => Self::BF16.contains(&tile),
            _ => Self::TF32.contains(&tile) || Self::THREE_TF32.contains(&tile),
        }
    }

    /// Whether a node can be computed so, or why not.
    pub(super) fn fits(
        &self,
        op: &Op,
        operands: &[&TensorType],
        results: &[&TensorType],
    ) -> Result<(), String> {
        // Neither the shape nor the bound on parts depends on the batch.
        let gemm = Gemm::of(op, operands, results, 1)?;
        if !self.is_known(gemm.dtype) {
            return Err(format!("kernels for {} have no such tile", gemm.dtype));
        }
        if self.splits == 1 {
            return Ok(());
        }
        if gemm.direction != Direction::BackwardWeight {
            return Err("only gradients of weights are summed in parts".to_string());
        }
        if self.splits > MOST_SPLITS {
            return Err(format!("a grid has at most {MOST_SPLITS} parts"));
        }
        match gemm.partial_bytes(self.splits as i64) <= MOST_PARTIAL_BYTES {
            true => Ok(()),
            false => Err(format!(
                "its parts have more than {MOST_PARTIAL_BYTES} bytes of results"
            )),
        }
    }
}

/// The matrix product that an operator implicitly is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gemm {
    /// Which direction of a convolution or linear layer it is.
    pub direction: Direction,
    /// Element type of the operands.
    pub dtype: DType,
    /// Rows.
    pub rows: i64,
    /// Columns.
    pub columns: i64,
    /// Reduced elements; of the gradient for an input those of the phase that has most.
    pub reduced: i64,
}

impl Gemm {
    /// The product that tensor cores compute for an operator with a batch of `batch`, or why they do not take it.
    pub fn of(
        op: &Op,
        operands: &[&TensorType],
        results: &[&TensorType],
        batch: usize,
    ) -> Result<Gemm, String> {
        let [a, b, ..] = operands[..] else {
            return Err("it is for convolutions and matrix products".to_string());
        };
        if a.dtype != b.dtype || !matches!(a.dtype, DType::F32 | DType::BF16) {
            return Err("it is for operands of f32 or of bf16".to_string());
        }
        let (direction, [c, k], [samples, positions, inputs], [taps, most_taps]) = match op {
            Op::MatMul(op) => {
                let linear = linear(op, [a, b]);
                let (direction, sizes) = linear.ok_or("it is for linear layers of a batch")?;
                (direction, sizes, [batch, 1, 1], [1, 1])
            }
            _ => {
                let conv = Convolution::of(op, operands, results);
                let conv = conv.ok_or("it is for convolutions and matrix products")?;
                check(&conv)?;
                let sizes = [batch, conv.outputs(), conv.inputs()];
                let taps = [conv.window.volume(), most_taps_of_phase(&conv)];
                (conv.direction, [conv.c, conv.k], sizes, taps)
            }
        };
        let multiple = channels_of_copy(a.dtype);
        if c % multiple != 0 || k % multiple != 0 {
            return Err(format!("its channels are no multiple of {multiple}"));
        }
        let product = |factors: [usize; 2]| (factors[0] as i64).saturating_mul(factors[1] as i64);
        let [rows, columns, reduced] = match direction {
            Direction::Forward => [product([samples, positions]), k as i64, product([taps, c])],
            Direction::BackwardData => [product([samples, inputs]), c as i64, product([most_taps, k])],
            Direction::BackwardWeight => [k as i64, product([taps, c]), product([samples, positions])],
        };
        Ok(Gemm {
            direction,
            dtype: a.dtype,
            rows,
            columns,
            reduced,
        })
    }

    /// Bytes of the results of so many parts.
    pub fn partial_bytes(&self, splits: i64) -> i64 {
        let elements = self.rows.saturating_mul(self.columns);
        elements.saturating_mul(SUM_BYTES).saturating_mul(splits)
    }
}

/// Which direction of a linear layer a matrix product is, and the layer's inputs and outputs.
fn linear(op: &MatMul, [a, b]: [&TensorType; 2]) -> Option<(Direction, [usize; 2])> {
    let size = |ty: &TensorType, axis: usize| ty.shape.0.get(axis)?.fixed();
    let samples = |ty: &TensorType| ty.shape.0.first() == Some(&Dim::Batch);
    match (op.transpose_a, op.transpose_b, samples(a), samples(b)) {
        (false, true, true, false) => Some((Direction::Forward, [size(b, 1)?, size(b, 0)?])),
        (false, false, true, false) => Some((Direction::BackwardData, [size(b, 1)?, size(b, 0)?])),
        (true, false, true, true) => Some((Direction::BackwardWeight, [size(b, 1)?, size(a, 1)?])),
        _ => None,
    }
}

fn check(conv: &Convolution) -> Result<(), String> {
    if conv.samples != Dim::Batch || conv.groups != 1 || conv.window.rank() != 2 {
        return Err("it is for images of a batch, without groups".to_string());
    }
    let window = &conv.window;
    let fits = (0..window.rank()).all(|i| {
        let [stride, pad, taps] =
            [window.strides[i], window.pad_begin(i), window.kernel[i]].map(|n| n as u64);
        let (input, dilation) = (conv.input[i] as u64, dilation(conv, i) as u64);
        let numbers = [stride, dilation, pad, input, taps];
        let is_small = |n: &u64| *n < MOST;
        numbers.iter().all(is_small)
            && [
                (stride + pad) * stride,
                stride + pad + stride * dilation,
                pad + input + taps * dilation,
            ]
            .iter()
            .all(is_small)
    });
    match fits {
        true => Ok(()),
        false => Err("its window is too large".to_string()),
    }
}

/// Elements from one tap to the next along an axis, which do not matter where there is one.
fn dilation(conv: &Convolution, axis: usize) -> usize {
    match conv.window.kernel[axis] {
        1 => 1,
        _ => conv.window.dilations[axis],
    }
}

/// Taps of the phase of the input that is reached by most: with strides, the taps that reach inputs of one rest by them.
fn most_taps_of_phase(conv: &Convolution) -> usize {
    let along = |axis: usize| {
        let (stride, taps) = (conv.window.strides[axis], conv.window.kernel[axis]);
        let (pad, dilation) = (conv.window.pad_begin(axis), dilation(conv, axis));
        let phases = stride.min(conv.input[axis]);
        // Taps of a phase come back every so many; the earlier its first one, the more it has.
        let period = stride / gcd(stride, dilation);
        let phase_of = |tap: usize| (tap * dilation + stride * pad - pad) % stride;
        let first = (0..period.min(taps)).find(|&tap| phase_of(tap) < phases);
        first.map_or(0, |first| (taps - first).div_ceil(period))
    };
    (0..conv.window.rank()).map(along).product()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Window;

    /// By definition: of the inputs of each rest by the stride, the taps with which some output can read them.
    fn by_definition(conv: &Convolution, axis: usize) -> usize {
        let window = &conv.window;
        let (stride, pad) = (window.strides[axis] as i64, window.pads[axis] as i64);
        let taps_of = |phase: i64| {
            let reads = |tap: &usize| (phase + pad - (tap * window.dilations[axis]) as i64) % stride == 0;
            (0..window.kernel[axis]).filter(reads).count()
        };
        let phases = window.strides[axis].min(conv.input[axis]) as i64;
        (0..phases).map(taps_of).max().unwrap_or(0)
    }

    #[test]
    fn the_phase_with_most_taps_is_found() {
        for case in 0..6_usize.pow(5) {
            let [kernel, stride, dilation, pad, input] =
                [0, 1, 2, 3, 4].map(|i| 1 + case / 6_usize.pow(i) % 6);
            let conv = Convolution {
                direction: Direction::BackwardData,
                dtype: DType::F32,
                samples: Dim::Batch,
                window: Window {
                    kernel: vec![kernel, 1],
                    strides: vec![stride, 1],
                    pads: vec![pad - 1, 0, pad - 1, 0],
                    dilations: vec![dilation, 1],
                },
                groups: 1,
                c: 4,
                k: 4,
                input: vec![input, 1],
                output: vec![1, 1],
            };
            assert_eq!(most_taps_of_phase(&conv), by_definition(&conv, 0), "{conv:?}");
        }
    }
}
