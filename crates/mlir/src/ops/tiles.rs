//! Copies that change which axis is innermost, where there are vector registers: square tiles are read along one axis, turned in registers and
//! written along the other, so that every line of memory is touched once.

use super::target::Lanes;
use crate::emit::{Buffer, Emitter, Extent, Index, Val};

/// Where a copy turns tiles: the axis that is innermost in the operand, and the sizes of that one and of the last.
pub struct Tiles {
    axis: usize,
    along: i64,
    across: i64,
}

impl Tiles {
    /// Whether a copy to `y`, whose last axis is innermost, is one from `x` with another axis innermost.
    pub fn of<'c>(
        extents: &[Extent<'c>],
        x: &Buffer<'c>,
        y: &Buffer<'c>,
        (lanes, width): (Lanes, usize),
    ) -> Option<Tiles> {
        let (last, rest) = extents.split_last()?;
        let turned = y.strides.last() == Some(&1) && x.strides.last() != Some(&1);
        let axis = (0..rest.len()).find(|&i| x.strides[i] == 1)?;
        match (rest[axis], *last) {
            (Extent::Fixed(along), Extent::Fixed(across))
                if turned && lanes == Lanes::OfRegisters && width > 1 && along >= width as i64 =>
            {
                Some(Tiles { axis, along, across })
            }
            _ => None,
        }
    }

    /// `y[i] = f(x[i])` for every index of the axes.
    pub fn copy<'c>(
        &self,
        e: &Emitter<'c>,
        extents: &[Extent<'c>],
        [x, y]: [&Buffer<'c>; 2],
        width: usize,
        f: &dyn Fn(&Emitter<'c>, Val<'c>) -> Val<'c>,
    ) {
        let size = width as i64;
        let mut outer = extents[..extents.len() - 1].to_vec();
        outer.remove(self.axis);
        let lane = Index::Const { base: 0, stride: 1 };
        let place = |outer: &[Index<'c>], along: Index<'c>, across: Index<'c>| {
            let mut at = outer.to_vec();
            at.insert(self.axis, along);
            at.push(across);
            at
        };
        let rest = self.along % size;
        if rest > 0 {
            let axes = [&outer[..], &[Extent::Fixed(rest), Extent::Fixed(self.across)]].concat();
            e.map(&axes, width, &|e, i| {
                let (outer, i) = i.split_at(outer.len());
                let at = place(outer, e.index_offset(i[0], self.along - rest), i[1]);
                e.store(y, &at, f(e, e.load(x, &at, None)));
            });
        }
        outer.push(Extent::Fixed(self.along / size));
        e.divided(&outer, |e, outer| {
            if let Some((&block, outer)) = outer.split_last() {
                let along = e.index_scale(block, size);
                let at = |along, across| place(outer, along, across);
                e.blocks(self.across, size, &|e, across, columns| {
                    e.with_lanes(width, |e| {
                        let neighbours = e.index_add(along, lane);
                        let read = |j| at(neighbours, e.index_offset(across, j));
                        let values = (0..columns).map(|j| f(e, e.load(x, &read(j), None)));
                        let values: Vec<Val<'c>> = values.collect();
                        if columns < size {
                            values.iter().zip(0..).for_each(|(&v, j)| e.store(y, &read(j), v));
                            return;
                        }
                        for (v, j) in turned(e, values).into_iter().zip(0..) {
                            let place = at(e.index_offset(along, j), e.index_add(across, lane));
                            e.store(y, &place, v);
                        }
                    });
                });
            }
        });
    }
}

/// The columns of a square of rows. Interleaving the first half of the rows with the second moves the highest bit of the
/// row's number to the end of the column's, and the other way round; after all bits rows are columns.
fn turned<'c>(e: &Emitter<'c>, mut rows: Vec<Val<'c>>) -> Vec<Val<'c>> {
    let half = rows.len() / 2;
    for _ in 0..rows.len().ilog2() {
        let pairs = rows[..half].iter().zip(&rows[half..]);
        rows = pairs.flat_map(|(&a, &b)| e.interleave(a, b)).collect();
    }
    rows
}
