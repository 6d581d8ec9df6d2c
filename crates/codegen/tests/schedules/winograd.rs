//! Winograd's algorithm for strides 1 and 2: cases by hand.

use syncbn_ir::schedule::Winograd;
use syncbn_ir::{DType, Op, Schedule};

use crate::convolutions::{Shape, directions};
use crate::harness::run_in_all_widths;
use crate::module::Case;

/// Pixels, vectors and tiles.
const TILES: [[usize; 3]; 6] = [
    [8, 2, 8],
    [4, 1, 16],
    [6, 3, 12],
    [16, 2, 64],
    [1, 3, 8],
    [3, 1, 24],
];

/// The blockings of the `i`th shape: three of those that there are, one of them in chunks, one for weights that come
/// transformed.
fn blockings(lanes: usize, i: usize) -> [Winograd; 3] {
    [(false, false), (true, false), (false, true)].map(|(chunked, prepared)| {
        let other = usize::from(chunked) + 3 * usize::from(prepared);
        let [pixels, vectors, tiles] = TILES[(2 * i + i / 3 + other) % TILES.len()];
        Winograd {
            lanes,
            pixels,
            vectors,
            tiles,
            chunked,
            prepared,
        }
    })
}

/// The directions that a schedule is for.
fn wanted(case: &Case) -> bool {
    case.schedule.transformed_filter().is_none() || matches!(case.op, Op::Conv(_))
}

/// Stride 1.
pub fn winograd(dtype: DType, lanes: usize) -> Vec<Case> {
    let tolerance = if dtype == DType::F32 { 2e-5 } else { 1e-13 };
    let mut shapes = vec![
        Shape::new(16, 32, &[8, 8], 3, 1, 1),
        Shape::new(20, 40, &[9, 6], 3, 1, 1),
        Shape::new(64, 64, &[4, 4], 3, 1, 1),
        Shape::new(33, 65, &[7, 11], 3, 1, 0),
        Shape::new(16, 16, &[5, 5], 3, 1, 2),
    ];
    shapes.push(Shape {
        pads: vec![0, 1, 2, 1],
        ..Shape::new(24, 48, &[10, 9], 3, 1, 0)
    });
    let mut cases = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        for blocking in blockings(lanes, i) {
            let schedule = Schedule::Winograd(blocking);
            let all = directions(shape, dtype, schedule, false, tolerance);
            cases.extend(all.into_iter().filter(wanted));
        }
    }
    cases
}

/// Stride 2.
pub fn polyphase(dtype: DType, lanes: usize) -> Vec<Case> {
    let tolerance = if dtype == DType::F32 { 2e-5 } else { 1e-13 };
    let shapes = [
        Shape::new(16, 32, &[16, 16], 3, 2, 1),
        Shape::new(20, 40, &[9, 7], 3, 2, 1),
        Shape::new(33, 65, &[15, 18], 3, 2, 1),
        Shape::new(16, 16, &[8, 24], 3, 2, 1),
    ];
    let mut cases = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        for blocking in blockings(lanes, i) {
            let schedule = Schedule::Polyphase(blocking);
            let all = directions(shape, dtype, schedule, false, tolerance);
            cases.extend(all.into_iter().filter(wanted));
        }
    }
    cases
}

#[test]
fn winograds_algorithm_agrees_in_all_directions_and_widths() {
    run_in_all_widths(winograd);
}

#[test]
fn polyphase_convolutions_agree_in_all_directions_and_widths() {
    run_in_all_widths(polyphase);
}
