//! What the direct and depthwise forms copy of their input, and what they are written out for.

use super::axis::{self, Panel, Phase};
use super::{Convolution, Direction, Pointwise, Schedule};
use crate::ops::Op;
use crate::types::TensorType;

/// The most phases that code is written out for: those of an image's gradient with stride 7.
pub const MOST_PHASES: usize = 49;
/// The most bytes of a copy.
pub const MOST_COPIED: i64 = 256 << 20;

/// The blocks of rows of a convolution, each of which is computed from a copy of what it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// What is computed apart.
    pub phases: Vec<Phase>,
    channels: i64,
    /// Channels of a stripe, where the copy is in such.
    stripe: Option<i64>,
    bytes: i64,
}

/// Fewer input channels than this share a register tile of backward weights with those of neighbouring taps.
pub const FEW_CHANNELS: usize = 8;
/// Bytes between stripes, without which all would begin in the same sets of a cache.
pub const BETWEEN_STRIPES: i64 = 64;

/// Channels of the stripes that backward weights copies its input in: those of a register tile.
pub fn stripe(channels: usize, groups: usize, pixels: usize) -> Option<i64> {
    (groups == 1 && channels >= FEW_CHANNELS).then_some(pixels.max(1) as i64)
}

impl Copies {
    /// Those of the direct form whose register tiles have so many pixels; None where there are more than [`MOST_PHASES`].
    pub fn of_direct(conv: &Convolution, pixels: usize) -> Option<Copies> {
        let (input, output) = (signed(&conv.input), signed(&conv.output));
        let (window, input, output) = match conv.direction {
            Direction::BackwardWeight => (conv.window.clone(), input, output),
            _ => axis::flattened(&conv.window, &input, &output, pixels as i64),
        };
        (conv.phases() <= MOST_PHASES).then(|| Copies {
            phases: match conv.direction {
                Direction::BackwardData => axis::backward_data(&window, &input),
                Direction::Forward | Direction::BackwardWeight => vec![axis::forward(&window, &output)],
            },
            channels: match conv.direction {
                Direction::BackwardData => conv.k as i64,
                Direction::Forward | Direction::BackwardWeight => conv.c as i64,
            },
            stripe: match conv.direction {
                Direction::BackwardWeight => stripe(conv.c, conv.groups, pixels),
                Direction::Forward | Direction::BackwardData => None,
            },
            bytes: conv.dtype.bytes() as i64,
        })
    }

    /// Those of the depthwise form, likewise.
    pub fn of_depthwise(conv: &Convolution) -> Option<Copies> {
        (conv.phases() <= MOST_PHASES).then(|| Copies {
            phases: match conv.direction {
                Direction::BackwardData => axis::backward_data(&conv.window, &signed(&conv.input)),
                Direction::Forward | Direction::BackwardWeight => {
                    vec![axis::forward(&conv.window, &signed(&conv.output))]
                }
            },
            channels: conv.c as i64,
            stripe: None,
            bytes: conv.dtype.bytes() as i64,
        })
    }

    /// Rows of outputs of an image, or of a slice.
    pub fn rows(&self) -> i64 {
        axis::most(&self.phases, 1)
    }

    /// Bytes of the copy for so many rows of outputs.
    pub fn bytes(&self, rows: i64) -> i64 {
        let rows = rows.clamp(1, self.rows().max(1));
        let width = self.stripe.unwrap_or(self.channels);
        let panel = Panel::new(&self.phases, rows, width, self.bytes);
        let stripes = (self.channels + width - 1) / width.max(1);
        let bytes = panel.elements().saturating_mul(self.bytes);
        bytes.saturating_mul(stripes)
    }

    /// Bytes of the copies that a block of so many rows has: of several samples where it has more than one's.
    pub fn of_block(&self, rows: i64) -> i64 {
        let samples = axis::samples_of_block(&self.phases, rows);
        let between = self.stripe.map_or(0, |width| {
            (self.channels + width - 1) / width.max(1) * BETWEEN_STRIPES
        });
        self.bytes(rows).saturating_mul(samples).saturating_add(between)
    }

    /// Copies of one sample where each is for so many rows.
    pub fn blocks(&self, rows: i64) -> i64 {
        let [slices, blocks] = axis::blocks(&self.phases, rows);
        slices.saturating_mul(blocks)
    }

    /// Rows of outputs that the depthwise form computes from one copy.
    pub fn rows_of_depthwise(&self) -> i64 {
        axis::rows_of_copy(&self.phases, self.channels, self.bytes)
    }
}

impl Convolution {
    /// What the direct forms compute apart: in the gradient for the input, each rest by the strides.
    pub fn phases(&self) -> usize {
        match self.direction {
            Direction::Forward | Direction::BackwardWeight => 1,
            Direction::BackwardData => {
                let along = self.window.strides.iter().zip(&self.input);
                along.fold(1, |all: usize, (&stride, &size)| {
                    all.saturating_mul(stride.min(size))
                })
            }
        }
    }
}

impl Schedule {
    /// Blocks of rows of a sample, for each of which a convolution with moments leaves sums of what it stores; None where the
    /// result is read again instead, and for all other operators.
    pub fn blocks_with_moments(
        &self,
        op: &Op,
        operands: &[&TensorType],
        results: &[&TensorType],
    ) -> Option<u64> {
        let Op::Conv(of) = op else {
            return None;
        };
        let conv = Convolution::of(op, operands, results).filter(|_| of.moments)?;
        let (copies, rows) = match self {
            Schedule::Direct(s) | Schedule::Pointwise(Pointwise(s)) => {
                (Copies::of_direct(&conv, s.pixels)?, s.rows as i64)
            }
            Schedule::Depthwise(_) => {
                let copies = Copies::of_depthwise(&conv)?;
                let rows = copies.rows_of_depthwise();
                (copies, rows)
            }
            _ => return None,
        };
        axis::leaves_moments(&copies.phases, rows).then_some(copies.blocks(rows) as u64)
    }
}

fn signed(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&n| n as i64).collect()
}
