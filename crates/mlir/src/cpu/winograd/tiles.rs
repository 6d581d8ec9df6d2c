//! Tiles of an image: where they lie, what of them is there, and the memory of what they are transformed to.

use syncbn_ir::schedule::gap;

use super::transform::{OUTPUTS, POINTS};
use crate::emit::{Compare, Emitter, Pointer, Val};

/// Points of a tile.
pub const ALL: i64 = (POINTS * POINTS) as i64;

/// An image in memory with channels innermost, cut into tiles.
#[derive(Debug, Clone, Copy)]
pub struct Image<'c> {
    /// The first element of the first sample.
    pub pointer: Pointer<'c>,
    /// Channels.
    pub channels: i64,
    /// Height and width.
    pub sizes: [i64; 2],
    /// Where the first tile begins; below 0 in the padding.
    pub start: [i64; 2],
    /// Elements of a tile along an axis.
    pub extent: usize,
    /// Rows and columns of tiles.
    pub tiles: [i64; 2],
}

/// A tile of one image.
#[derive(Debug, Clone)]
pub struct Place<'c> {
    /// Its sample.
    sample: Val<'c>,
    /// Its first row and column; may be outside.
    first: [Val<'c>; 2],
}

impl<'c> Image<'c> {
    /// Tiles of a sample.
    pub fn count(&self) -> i64 {
        self.tiles[0] * self.tiles[1]
    }

    /// Tile `number` of all samples.
    pub fn place(&self, e: &Emitter<'c>, number: Val<'c>) -> Place<'c> {
        let (count, columns) = (e.index(self.count()), e.index(self.tiles[1]));
        let inside = e.rem(number, count);
        let first = |tile: Val<'c>, axis: usize| {
            e.add(e.mul(tile, e.index(OUTPUTS as i64)), e.index(self.start[axis]))
        };
        Place {
            sample: e.div(number, count),
            first: [first(e.div(inside, columns), 0), first(e.rem(inside, columns), 1)],
        }
    }

    /// Whether element `i` of a tile along an axis is inside the image, for all tiles.
    fn always(&self, axis: usize, i: usize) -> bool {
        let last = (self.tiles[axis] - 1) * OUTPUTS as i64 + self.start[axis] + i as i64;
        self.start[axis] + i as i64 >= 0 && last < self.sizes[axis]
    }

    /// Whether it is, for this tile; None if for all.
    pub fn inside(&self, e: &Emitter<'c>, place: &Place<'c>, axis: usize, i: usize) -> Option<Val<'c>> {
        if self.always(axis, i) {
            return None;
        }
        let at = e.add(place.first[axis], e.index(i as i64));
        Some(e.compare(Compare::Below, at, e.index(self.sizes[axis])))
    }

    /// Element of the image that a tile begins with.
    pub fn start_of(&self, e: &Emitter<'c>, place: &Place<'c>) -> Val<'c> {
        let [height, width] = self.sizes.map(|size| e.index(size));
        let row = e.add(e.mul(place.sample, height), place.first[0]);
        let at = e.add(e.mul(row, width), place.first[1]);
        e.mul(at, e.index(self.channels))
    }

    /// All rows of a tile; rows outside are those of `zeros`, which has as many zeros as a row of a tile.
    pub fn rows(&self, e: &Emitter<'c>, place: &Place<'c>, zeros: Pointer<'c>) -> Vec<Pointer<'c>> {
        let first = e.advance(self.pointer, self.start_of(e, place), 1);
        let row = |i: usize| {
            let row = e.shift(first, i as i64 * self.sizes[1] * self.channels);
            match self.inside(e, place, 0, i) {
                Some(inside) => e.choose(inside, row, zeros),
                None => row,
            }
        };
        (0..self.extent).map(row).collect()
    }

    /// For each column of a tile, the lanes that may be read: None for all.
    pub fn columns(&self, e: &Emitter<'c>, place: &Place<'c>, lanes: usize) -> Vec<Option<Val<'c>>> {
        (0..self.extent)
            .map(|j| Some(e.splat(self.inside(e, place, 1, j)?, lanes)))
            .collect()
    }
}

/// A vector of channels of a tile, as `d[row][column]`. `active` lanes are channels.
pub fn read_tile<'c>(
    e: &Emitter<'c>,
    rows: &[Pointer<'c>],
    columns: &[Option<Val<'c>>],
    column: i64,
    (lanes, active): (usize, usize),
) -> Vec<Vec<Val<'c>>> {
    let channels = (active < lanes).then(|| e.first_lanes(lanes, active));
    let read = |row: Pointer<'c>, j: usize| match e.both(columns[j], channels) {
        Some(mask) => e.read_where(row, j as i64 * column, mask),
        None => e.read(row, j as i64 * column, lanes),
    };
    rows.iter()
        .map(|&row| (0..columns.len()).map(|j| read(row, j)).collect())
        .collect()
}

/// One matrix of `[blocks][tiles][lanes]` for each point, for blocks of channels.
#[derive(Debug, Clone, Copy)]
pub struct Points<'c> {
    /// The first element.
    pub pointer: Pointer<'c>,
    /// Elements from a point to the next one.
    pub point: i64,
    /// Tiles.
    pub tiles: i64,
    /// Lanes.
    pub lanes: i64,
}

impl<'c> Points<'c> {
    /// For so many blocks of channels; returns what is behind it too.
    pub fn new(
        e: &Emitter<'c>,
        at: Pointer<'c>,
        blocks: i64,
        tiles: i64,
        lanes: usize,
    ) -> (Points<'c>, Pointer<'c>) {
        let lanes = lanes as i64;
        let point = blocks * tiles * lanes + gap(lanes as usize) as i64;
        let points = Points {
            pointer: at,
            point,
            tiles,
            lanes,
        };
        (points, e.shift(at, ALL * point))
    }

    /// Elements from a block to the next one.
    pub fn block(&self) -> i64 {
        self.tiles * self.lanes
    }

    /// Where a tile of a block begins, for the first point.
    pub fn at(&self, e: &Emitter<'c>, block: Val<'c>, tile: Val<'c>) -> Pointer<'c> {
        e.advance(e.advance(self.pointer, block, self.block()), tile, self.lanes)
    }

    /// Writes all points of a tile of a block.
    pub fn write(&self, e: &Emitter<'c>, to: Pointer<'c>, values: &[Vec<Val<'c>>]) {
        for (i, row) in values.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                e.write(to, (i * POINTS + j) as i64 * self.point, value);
            }
        }
    }

    /// Reads all points of a tile of a block.
    pub fn read(&self, e: &Emitter<'c>, from: Pointer<'c>) -> Vec<Vec<Val<'c>>> {
        read_points(e, from, self.point, self.lanes as usize)
    }
}

/// Reads all points, `stride` elements apart.
pub fn read_points<'c>(e: &Emitter<'c>, from: Pointer<'c>, stride: i64, lanes: usize) -> Vec<Vec<Val<'c>>> {
    let point = |i: usize, j: usize| e.read(from, (i * POINTS + j) as i64 * stride, lanes);
    (0..POINTS)
        .map(|i| (0..POINTS).map(|j| point(i, j)).collect())
        .collect()
}
