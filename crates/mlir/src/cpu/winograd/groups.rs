//! How the values of a transformed tile meet transformed weights.

use crate::emit::{Emitter, Val};

/// Values of a tile that meet weights in the same way: a grid of matrices, in which a tile has one or several rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// First row and column of the values of a tile.
    first: [usize; 2],
    /// Rows and columns of matrices; along an axis with one, all values of the tile share it.
    pub matrices: [usize; 2],
    /// Rows of a matrix for each tile.
    pub rows: i64,
    /// The transformed weights that the first matrix meets.
    pub weights: usize,
    /// From one matrix to the next in the weights, along each axis.
    pub steps: [usize; 2],
}

/// All values of F(4x4, 3x3).
pub const SINGLE: &[Group] = &[Group {
    first: [0, 0],
    matrices: [6, 6],
    rows: 1,
    weights: 0,
    steps: [6, 1],
}];

/// Those of stride 2: along each axis five points, and four values that share the middle tap.
pub const PHASES: &[Group] = &[
    Group {
        first: [0, 0],
        matrices: [5, 5],
        rows: 1,
        weights: 0,
        steps: [6, 1],
    },
    Group {
        first: [0, 5],
        matrices: [5, 1],
        rows: 4,
        weights: 5,
        steps: [6, 0],
    },
    Group {
        first: [5, 0],
        matrices: [1, 5],
        rows: 4,
        weights: 30,
        steps: [0, 1],
    },
    Group {
        first: [5, 5],
        matrices: [1, 1],
        rows: 16,
        weights: 35,
        steps: [0, 0],
    },
];

impl Group {
    /// The matrix and row of a value, if it is of this group.
    pub fn place(&self, at: [usize; 2]) -> Option<(usize, usize)> {
        let [i, j] = [0, 1].map(|axis| at[axis].checked_sub(self.first[axis]));
        let (i, j) = (i?, j?);
        let shared = |axis: usize, i: usize| self.matrices[axis] == 1 && i < 4;
        let inside = |axis: usize, i: usize| i < self.matrices[axis] || shared(axis, i);
        if !inside(0, i) || !inside(1, j) {
            return None;
        }
        Some(match (self.matrices[0] == 1, self.matrices[1] == 1) {
            (false, false) => (i * self.matrices[1] + j, 0),
            (false, true) => (i, j),
            (true, false) => (j, i),
            (true, true) => (0, i * 4 + j),
        })
    }
}

/// The number of a matrix along the axes of its group.
pub fn weights_of<'c>(e: &Emitter<'c>, group: &Group, matrix: Val<'c>) -> Val<'c> {
    let columns = e.index(group.matrices[1] as i64);
    let [i, j] = [e.div(matrix, columns), e.rem(matrix, columns)];
    let [di, dj] = group.steps.map(|step| e.index(step as i64));
    let steps = e.add(e.mul(i, di), e.mul(j, dj));
    e.add(steps, e.index(group.weights as i64))
}
