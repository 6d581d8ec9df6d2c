//! The gradient of a direct convolution for its weights: tiles of input channels x output channels in registers, which
//! sum over the pixels of a block of rows, or of several images where images are small.

mod pack;

use syncbn_ir::ops::ConvBackwardWeight;
use syncbn_ir::schedule::axis::{Panel, Phase, forward, samples_of_block, three};
use syncbn_ir::schedule::{BETWEEN_STRIPES, FEW_CHANNELS, packed_channels, stripe};

use super::Blocking;
use super::columns::{self, Columns, each_columns};
use super::filter::{Filter, ragged, ragged_in};
use super::panel::{Copy, Source, Stripes};
use crate::cpu::product::microkernel::{Ahead, Later, Tile, Turns};
use crate::emit::{Compare, Emitter, Extent, Pointer, Val};
use crate::ops::kernel::{Kernel, fixed};
use crate::ops::window::spatial;
use pack::Packed;

/// `dw[k, c, t] = sum over n, o of x[n, c, o*stride + t*dilation - pad] * dy[n, k, o]`
pub fn backward_weight<'c>(
    b: &Blocking<'c>,
    op: &ConvBackwardWeight,
    k: &Kernel<'c>,
    e: &Emitter<'c>,
) -> Result<(), String> {
    let (x, dy, dw) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let window = op.window();
    let groups = op.groups as i64;
    let phase = forward(&window, &spatial(&dy.ty));
    let kernel: Vec<i64> = window.kernel.iter().map(|&n| n as i64).collect();
    let rows = phase[1].outputs;
    Gradient {
        blocking: *b,
        groups,
        phase,
        rows: b.rows.clamp(1, rows),
        images: samples_of_block(&[phase], b.rows),
        source: Source::new(x, three(&spatial(&x.ty))),
        dy: Pointer::new(dy.pointer, dy.memory_elem()),
        channels: fixed(x.ty.shape.0[1]) / groups,
        filter: Filter::of(dw, b.lanes, three(&kernel)),
    }
    .emit(e, k.n);
    Ok(())
}

/// Emits a tile: addresses of its inputs and weights, and its rows' distances in both.
type MakeTile<'c, 't> =
    &'t dyn Fn(&Emitter<'c>, Pointer<'c>, Pointer<'c>, Vec<i64>, Vec<i64>, Vec<Later<'c>>);

/// The weights that a thread computes. All groups and columns where nothing is said.
#[derive(Clone, Copy)]
struct Part<'c> {
    groups: Option<[Val<'c>; 2]>,
    /// Of few input channels: columns of tiles of output channels.
    columns: Option<[Val<'c>; 2]>,
    /// Tiles of input channels.
    tiles: Option<[Val<'c>; 2]>,
    /// The input channels of all groups that it copies, or their stripes.
    copied: Option<[Val<'c>; 2]>,
}

struct Gradient<'c> {
    blocking: Blocking<'c>,
    groups: i64,
    phase: Phase,
    /// Rows of outputs in a block.
    rows: i64,
    /// Images in a block.
    images: i64,
    source: Source<'c>,
    dy: Pointer<'c>,
    /// Input channels of a group.
    channels: i64,
    filter: Filter<'c>,
}

/// A block of rows of some images.
#[derive(Clone, Copy)]
struct Block<'c> {
    /// Number of images.
    images: Val<'c>,
    /// Number of rows.
    rows: Val<'c>,
    /// The input there.
    copy: Copy<'c>,
    /// From a register tile of input channels to the next one.
    tile: i64,
    /// Where gradients are packed.
    packed: Pointer<'c>,
    /// The first elements of the first rows of `x` and of `dy`.
    source: Pointer<'c>,
    dy: Pointer<'c>,
    /// Whether sums begin with this block.
    first: Val<'c>,
}

impl<'c> Gradient<'c> {
    fn emit(&self, e: &Emitter<'c>, n: Val<'c>) {
        let (copy, size) = self.copy();
        let stripes = copy.stripes();
        let part = self.part(e);
        let [depth, height, width] = [0, 1, 2].map(|axis| self.phase[axis].outputs);
        let zero = e.index(0);
        // A rank without samples has a gradient of zeros.
        let none = e.compare(Compare::Eq, n, zero);
        let weights = self.filter.vectors() * self.filter.vector();
        e.when(none, |e| {
            e.once(|e| e.zero_run(self.filter.pointer, weights, self.blocking.lanes));
        });
        e.for_range(zero, n, self.images, &[], |e, n0, _| {
            let end = e.min(e.add(n0, e.index(self.images)), n);
            let images = e.sub(end, n0);
            e.each_of(depth, |e, z| {
                e.for_range(e.index(0), e.index(height), self.rows, &[], |e, y, _| {
                    let image = e.advance(self.source.pointer, n0, self.source.sample());
                    e.each_in(e.index(0), images, |e, i| {
                        let image = e.advance(image, i, self.source.sample());
                        let at = e.advance(copy.pointer, i, copy.panel.elements());
                        copy.fill_channels(e, at, &self.source, image, [z, y], part.copied);
                    });
                    let until = e.min(e.add(y, e.index(self.rows)), e.index(height));
                    let row = e.add(e.mul(n0, e.index(depth)), z);
                    let row = e.add(e.mul(row, e.index(height)), y);
                    let begins = e.add(e.add(n0, z), y);
                    let block = Block {
                        images,
                        rows: e.sub(until, y),
                        copy,
                        tile: stripes.map_or(self.blocking.pixels, |stripes| stripes.apart),
                        packed: e.shift(copy.pointer, size),
                        source: e.advance(self.source.pointer, row, width * self.source.channels),
                        dy: e.advance(self.dy, row, width * self.filter.outputs),
                        first: e.compare(Compare::Eq, begins, e.index(0)),
                    };
                    self.block(e, block, part);
                    Vec::new()
                });
            });
            Vec::new()
        });
    }

    /// The copy of what a block reads, and its elements.
    fn copy(&self) -> (Copy<'c>, i64) {
        let phases = [self.phase];
        let own = &self.blocking;
        let copy = Copy::new(&phases, self.rows, &self.source, own.own, own.lanes);
        let channels = self.source.channels;
        let (groups, pixels) = (self.groups as usize, own.pixels as usize);
        let Some(width) = stripe(channels as usize, groups, pixels) else {
            return (copy, self.images * copy.panel.elements());
        };
        let bytes = self.source.pointer.elem.bytes();
        let panel = Panel::new(&phases, self.rows, width, bytes);
        let apart = self.images * panel.elements() + BETWEEN_STRIPES / bytes;
        let copy = copy.in_stripes(panel, Stripes { width, apart });
        (copy, self.tiles() * apart)
    }

    /// What this thread computes.
    fn part(&self, e: &Emitter<'c>) -> Part<'c> {
        let all = Part {
            groups: None,
            columns: None,
            tiles: None,
            copied: None,
        };
        if e.team().is_none() {
            return all;
        }
        if self.groups > 1 {
            let groups = e.slice_of(self.groups);
            return Part {
                groups: Some(groups),
                copied: Some(groups.map(|i| e.mul(i, e.index(self.channels)))),
                ..all
            };
        }
        if self.has_few() {
            let outputs = columns::count(&self.blocking, self.filter.outputs);
            return Part {
                columns: Some(e.slice_of(outputs)),
                ..all
            };
        }
        let tiles = e.slice_of(self.tiles());
        Part {
            tiles: Some(tiles),
            copied: Some(tiles),
            ..all
        }
    }

    /// Positions of a block.
    fn positions(&self) -> i64 {
        self.images * self.rows * self.phase[2].outputs
    }

    /// Register tiles that a group's input channels make.
    fn tiles(&self) -> i64 {
        let pixels = self.blocking.pixels;
        (self.channels + pixels - 1) / pixels
    }

    /// Whether register tiles have the channels of several taps.
    fn has_few(&self) -> bool {
        self.channels < FEW_CHANNELS as i64
    }

    /// Adds what the block says of the part's weights.
    fn block(&self, e: &Emitter<'c>, block: Block<'c>, part: Part<'c>) {
        let outputs = self.filter.outputs / self.groups;
        let size = self.blocking.lanes as i64 * self.blocking.vectors;
        // Threads that share few channels divide the columns, all of which they then pack at once.
        let at_once = match self.has_few() {
            true => outputs,
            false => {
                let bytes = self.positions() * self.dy.elem.bytes();
                packed_channels(outputs as usize, size as usize, bytes as usize) as i64
            }
        };
        let of_group = |e: &Emitter<'c>, group: Val<'c>| {
            let begin = e.mul(group, e.index(outputs));
            let some = |e: &Emitter<'c>, first: Val<'c>, count: i64| {
                let first = e.add(begin, first);
                self.pack(e, block, first, (count, part.columns));
                each_columns(e, &self.blocking, (count, part.columns), group, |e, columns| {
                    self.columns(e, (block, part), (first, columns));
                });
            };
            ragged(e, outputs, at_once, &|e, i, count| {
                some(e, e.mul(i, e.index(at_once)), count as i64);
            });
        };
        match part.groups {
            Some([low, high]) => e.each_in(low, high, of_group),
            None => e.each_of(self.groups, of_group),
        }
    }

    /// Of the weights of some vectors of output channels, which are counted from `begin` on.
    fn columns(
        &self,
        e: &Emitter<'c>,
        (block, part): (Block<'c>, Part<'c>),
        (begin, columns): (Val<'c>, Columns<'c>),
    ) {
        let Columns { vectors, group, .. } = columns;
        let [az, ay, ax] = self.phase;
        let (panel, f) = (&block.copy.panel, &self.filter);
        let left = e.advance(block.copy.pointer, e.mul(group, e.index(self.channels)), 1);
        let first = e.add(begin, columns.first);
        let to = e.advance(f.pointer, first, f.vector() / self.blocking.lanes as i64);
        let packed = self.packed(e, block, columns);
        e.each_of(az.taps, |e, tz| {
            e.each_of(ay.taps, |e, ty| {
                let left = e.advance(
                    e.advance(left, tz, az.in_tap * panel.slice()),
                    ty,
                    ay.in_tap * panel.row(),
                );
                let tap = e.add(e.mul(tz, e.index(ay.taps)), ty);
                let to = e.advance(to, tap, ax.taps * f.tap());
                let tile = |e: &Emitter<'c>, left, to, rows: Vec<i64>, weights: Vec<i64>, later| {
                    let tile = Tile {
                        left,
                        rows,
                        right: packed.pointer,
                        vectors: (0..vectors).map(|v| v * self.blocking.lanes as i64).collect(),
                        lanes: self.blocking.lanes,
                        last: self.blocking.lanes,
                        ahead: Ahead {
                            later,
                            ..Ahead::default()
                        },
                    };
                    self.tile(e, panel, (block, packed), &tile, to, &weights);
                };
                if self.has_few() {
                    return self.few(e, panel, left, to, &tile);
                }
                e.each_of(ax.taps, |e, tx| {
                    let (left, to) = (
                        e.advance(left, tx, ax.in_tap * panel.column),
                        e.advance(to, tx, f.tap()),
                    );
                    let pixels = self.blocking.pixels;
                    let rows = |count: i64| (0..count).collect::<Vec<i64>>();
                    let weights = |count: i64| rows(count).iter().map(|c| c * f.lanes as i64).collect();
                    ragged_in(e, (self.channels, part.tiles), pixels, &|e, i, count| {
                        let (left, to) = (
                            e.advance(left, i, block.tile),
                            e.advance(to, i, pixels * f.lanes as i64),
                        );
                        let later = self.later(e, block, first, i);
                        tile(e, left, to, rows(count as i64), weights(count as i64), later);
                    });
                });
            });
        });
    }

    /// Tiles over the channels of all taps of a row of the window.
    fn few(
        &self,
        e: &Emitter<'c>,
        panel: &Panel,
        left: Pointer<'c>,
        to: Pointer<'c>,
        tile: MakeTile<'c, '_>,
    ) {
        let ax = self.phase[2];
        let all: Vec<(i64, i64)> = (0..ax.taps)
            .flat_map(|t| (0..self.channels).map(move |c| (t, c)))
            .collect();
        for part in all.chunks(self.blocking.pixels.max(1) as usize) {
            let rows = part
                .iter()
                .map(|(t, c)| t * ax.in_tap * panel.column + c)
                .collect();
            let weights = part
                .iter()
                .map(|(t, c)| t * self.filter.tap() + c * self.filter.lanes as i64)
                .collect();
            tile(e, left, to, rows, weights, Vec::new());
        }
    }

    fn tile(
        &self,
        e: &Emitter<'c>,
        panel: &Panel,
        (block, packed): (Block<'c>, Packed<'c>),
        tile: &Tile<'c>,
        to: Pointer<'c>,
        weights: &[i64],
    ) {
        let [_, ay, ax] = self.phase;
        let loops = [
            Turns {
                count: Extent::Batch(block.images),
                left: panel.elements(),
                right: self.rows * packed.row,
            },
            Turns {
                count: Extent::Batch(block.rows),
                left: ay.in_step * panel.row(),
                right: packed.row,
            },
            Turns::fixed(ax.outputs, ax.in_step * panel.column, packed.position),
        ];
        let sums = tile.accumulate(e, &loops, &tile.zeros(e));
        let places: Vec<i64> = weights
            .iter()
            .flat_map(|w| (0..tile.vectors.len() as i64).map(move |v| w + v * self.filter.vector()))
            .collect();
        e.either(
            block.first,
            |e| {
                places
                    .iter()
                    .zip(&sums)
                    .for_each(|(&at, &sum)| e.write(to, at, sum))
            },
            |e| {
                for (&at, &sum) in places.iter().zip(&sums) {
                    let old = e.read(to, at, tile.lanes);
                    e.write(to, at, e.add(old, sum));
                }
            },
        );
    }
}
