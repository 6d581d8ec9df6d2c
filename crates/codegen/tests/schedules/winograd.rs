//! Winograd's algorithm for strides 1 and 2: cases by hand.

use syncbn_ir::schedule::Winograd;
use syncbn_ir::{DType, Schedule};

use crate::convolutions::{Shape, directions};
use crate::harness::run_in_all_widths;
use crate::module::Case;

fn blocking(lanes: usize, tiles: usize, chunked: bool) -> Winograd {
    Winograd {
        lanes,
        pixels: 8,
        vectors: 2,
        tiles,
        chunked,
    }
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
        for chunked in [false, true] {
            let tiles = [8, 16, 64][i % 3];
            let schedule = Schedule::Winograd(blocking(lanes, tiles, chunked));
            cases.extend(directions(shape, dtype, schedule, false, tolerance));
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
        for chunked in [false, true] {
            let tiles = [8, 64, 16][i % 3];
            let schedule = Schedule::Polyphase(blocking(lanes, tiles, chunked));
            cases.extend(directions(shape, dtype, schedule, false, tolerance));
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
