//! Tiles of an image: where they lie, what of them is there, and the memory of what they are transformed to.

use syncbn_ir::schedule::gap;

use super::groups::Group;
use super::transform::POINTS;
use crate::emit::{Compare, Emitter, Pointer, Val};
use crate::ops::kernel::{Tensor, fixed};
use crate::ops::window::spatial;

/// Matrices of transformed weights.
pub const WEIGHTS: i64 = (POINTS * POINTS) as i64;

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
    /// From one tile to the next along an axis.
    pub step: i64,
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
    /// A tensor whose tiles begin at `start` and have so many elements, from one to the next.
    pub fn new(t: &Tensor<'c>, start: [i64; 2], (extent, step): (usize, i64), tiles: [i64; 2]) -> Image<'c> {
        let sizes = spatial(&t.ty);
        Image {
            pointer: Pointer::new(t.pointer, t.memory_elem()),
            channels: fixed(t.ty.shape.0[1]),
            sizes: [sizes[0], sizes[1]],
            start,
            extent,
            step,
            tiles,
        }
    }

    /// Tiles of a sample.
    pub fn count(&self) -> i64 {
        self.tiles[0] * self.tiles[1]
    }

    /// Tile `number` of all samples.
    pub fn place(&self, e: &Emitter<'c>, number: Val<'c>) -> Place<'c> {
        let (count, columns) = (e.index(self.count()), e.index(self.tiles[1]));
        let inside = e.rem(number, count);
        let first =
            |tile: Val<'c>, axis: usize| e.add(e.mul(tile, e.index(self.step)), e.index(self.start[axis]));
        Place {
            sample: e.div(number, count),
            first: [first(e.div(inside, columns), 0), first(e.rem(inside, columns), 1)],
        }
    }

    /// Whether element `i` of a tile along an axis is inside the image, for all tiles.
    fn always(&self, axis: usize, i: usize) -> bool {
        let last = (self.tiles[axis] - 1) * self.step + self.start[axis] + i as i64;
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

/// Values of tiles: for each group its matrices `[blocks][tiles * rows][lanes]`, for blocks of channels.
#[derive(Debug, Clone)]
pub struct Points<'c> {
    /// The first element.
    pub pointer: Pointer<'c>,
    /// For each group where it begins, and elements from a matrix to the next one.
    places: Vec<(i64, i64)>,
    groups: &'static [Group],
    tiles: i64,
    lanes: i64,
}

impl<'c> Points<'c> {
    /// For so many blocks of channels and tiles; returns what is behind it too.
    pub fn new(
        e: &Emitter<'c>,
        at: Pointer<'c>,
        groups: &'static [Group],
        [blocks, tiles]: [i64; 2],
        lanes: usize,
    ) -> (Points<'c>, Pointer<'c>) {
        let (lanes, between) = (lanes as i64, gap(lanes) as i64);
        let mut end = 0;
        let mut places = Vec::new();
        for group in groups {
            let matrix = blocks * tiles * group.rows * lanes + between;
            places.push((end, matrix));
            end += (group.matrices[0] * group.matrices[1]) as i64 * matrix;
        }
        let points = Points {
            pointer: at,
            places,
            groups,
            tiles,
            lanes,
        };
        (points, e.shift(at, end))
    }

    /// Elements from a block of a group's matrix to the next one.
    pub fn block(&self, group: &Group) -> i64 {
        self.tiles * group.rows * self.lanes
    }

    /// The groups, each with where its first matrix begins, and elements from one to the next.
    pub fn groups(&self) -> impl Iterator<Item = (&'static Group, i64, i64)> + '_ {
        self.groups
            .iter()
            .zip(&self.places)
            .map(|(group, &(first, matrix))| (group, first, matrix))
    }

    /// Addresses of all values `[row][column]` of a tile of a block.
    fn addresses(
        &self,
        e: &Emitter<'c>,
        block: Val<'c>,
        tile: Val<'c>,
        values: usize,
    ) -> Vec<Vec<(Pointer<'c>, i64)>> {
        let starts: Vec<Pointer<'c>> = self
            .groups
            .iter()
            .map(|group| {
                let start = e.advance(self.pointer, block, self.block(group));
                e.advance(start, tile, group.rows * self.lanes)
            })
            .collect();
        let address = |i: usize, j: usize| {
            let found = self.groups.iter().enumerate().find_map(|(g, group)| {
                let (matrix, row) = group.place([i, j])?;
                let (first, step) = self.places[g];
                Some((starts[g], first + matrix as i64 * step + row as i64 * self.lanes))
            });
            found.unwrap_or((self.pointer, 0))
        };
        (0..values)
            .map(|i| (0..values).map(|j| address(i, j)).collect())
            .collect()
    }

    /// Writes all values of a tile of a block.
    pub fn write(&self, e: &Emitter<'c>, block: Val<'c>, tile: Val<'c>, values: &[Vec<Val<'c>>]) {
        let addresses = self.addresses(e, block, tile, values.len());
        for (row, addresses) in values.iter().zip(addresses) {
            for (&value, (pointer, at)) in row.iter().zip(addresses) {
                e.write(pointer, at, value);
            }
        }
    }

    /// Asks for the values of the tile behind this one, which lie in as many places as there are matrices.
    pub fn fetch(&self, e: &Emitter<'c>, [block, tile]: [Val<'c>; 2], values: usize, written: bool) {
        let next = e.add(tile, e.index(1));
        for (pointer, at) in self.addresses(e, block, next, values).into_iter().flatten() {
            e.prefetch(pointer, at, written);
        }
    }

    /// Reads all values of a tile of a block.
    pub fn read(&self, e: &Emitter<'c>, block: Val<'c>, tile: Val<'c>, values: usize) -> Vec<Vec<Val<'c>>> {
        let read = |(pointer, at): (Pointer<'c>, i64)| e.read(pointer, at, self.lanes as usize);
        let row = |row: Vec<(Pointer<'c>, i64)>| row.into_iter().map(read).collect();
        self.addresses(e, block, tile, values)
            .into_iter()
            .map(row)
            .collect()
    }
}

/// Reads the sums of transformed weights, whose matrices are `stride` elements apart.
pub fn read_points<'c>(e: &Emitter<'c>, from: Pointer<'c>, stride: i64, lanes: usize) -> Vec<Vec<Val<'c>>> {
    let point = |i: usize, j: usize| e.read(from, (i * POINTS + j) as i64 * stride, lanes);
    (0..POINTS)
        .map(|i| (0..POINTS).map(|j| point(i, j)).collect())
        .collect()
}

/// Tiles of `made` elements that cover a tensor, along both axes.
pub fn cover(t: &Tensor, made: i64) -> [i64; 2] {
    let sizes = spatial(&t.ty);
    [0, 1].map(|axis| (sizes[axis] + made - 1) / made)
}
