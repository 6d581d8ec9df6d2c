//! Direct and pointwise convolutions, and the general form: cases by hand.

use syncbn_ir::schedule::{Direct, Pointwise};
use syncbn_ir::{DType, Schedule};

use crate::convolutions::{Shape, directions};
use crate::harness::run_in_all_widths;
use crate::module::Case;

fn shapes() -> Vec<Shape> {
    let mut all = vec![
        Shape::new(16, 32, &[8, 8], 3, 1, 1),
        Shape::new(3, 32, &[9, 11], 3, 1, 1),
        Shape::new(3, 8, &[15, 14], 7, 2, 3),
        Shape::new(40, 24, &[7, 7], 1, 1, 0),
        Shape::new(16, 48, &[8, 6], 1, 2, 0),
        Shape::new(20, 33, &[9, 10], 3, 2, 1),
        Shape::new(64, 64, &[4, 4], 3, 1, 1),
        Shape::new(5, 7, &[13], 5, 2, 2),
        Shape::new(6, 18, &[4, 5, 6], 3, 2, 1),
        Shape::new(256, 16, &[6, 5], 3, 1, 0),
        Shape::new(64, 64, &[5, 5], 3, 1, 1),
    ];
    all.push(Shape {
        dilations: vec![2, 3],
        pads: vec![2, 3, 1, 4],
        ..Shape::new(17, 19, &[9, 12], 3, 1, 0)
    });
    all.push(Shape {
        dilations: vec![2, 2],
        ..Shape::new(8, 16, &[12, 12], 3, 3, 2)
    });
    all.push(Shape {
        groups: 2,
        ..Shape::new(32, 64, &[6, 7], 3, 1, 1)
    });
    all.push(Shape {
        kernel: vec![1, 5],
        pads: vec![0, 2, 0, 2],
        ..Shape::new(12, 16, &[6, 9], 1, 1, 0)
    });
    // Few channels of long rows, which are woven in registers where images are plain: those of odd places here.
    all.push(Shape::new(8, 16, &[3, 37], 3, 1, 1));
    all.push(Shape::new(9, 16, &[3, 37], 3, 1, 1));
    all.push(Shape::new(3, 16, &[4, 36], 3, 2, 1));
    all.push(Shape::new(16, 16, &[2, 33], 3, 1, 1));
    all.push(Shape::new(2, 16, &[3, 40], 3, 1, 1));
    // Rows and slices that are padding alone, behind those that need no copy.
    all.push(Shape {
        pads: vec![0, 0, 1, 0],
        ..Shape::new(24, 16, &[5, 6], 1, 1, 0)
    });
    all.push(Shape {
        pads: vec![0, 0, 0, 2, 0, 0],
        ..Shape::new(24, 16, &[3, 4, 5], 1, 1, 0)
    });
    // Several samples in a block, of groups too, and a stride that a window of one element skips along one axis only.
    all.push(Shape {
        groups: 2,
        ..Shape::new(64, 64, &[3, 4], 1, 1, 0)
    });
    all.push(Shape {
        kernel: vec![1, 3],
        strides: vec![2, 2],
        ..Shape::new(16, 32, &[7, 9], 1, 1, 0)
    });
    all
}

/// Direct convolutions.
pub fn direct(dtype: DType, lanes: usize) -> Vec<Case> {
    let tolerance = if dtype == DType::F32 { 5e-6 } else { 1e-13 };
    let mut cases = Vec::new();
    for (i, shape) in shapes().into_iter().enumerate() {
        let per_group = [shape.c, shape.k].map(|n| n / shape.groups);
        if shape.groups > 1 && per_group.iter().any(|n| n % lanes > 0) {
            continue;
        }
        let schedule = Schedule::Direct(Direct {
            lanes,
            pixels: [8, 6, 14][i % 3],
            vectors: 2,
            rows: [1, 3, 4, 100][i % 4],
        });
        cases.extend(directions(&shape, dtype, schedule, i % 2 == 1, tolerance));
    }
    // More output channels than backward weights packs at a time.
    let several = Schedule::Direct(Direct {
        lanes,
        pixels: 8,
        vectors: 2,
        rows: 100,
    });
    cases.extend(directions(
        &Shape::new(9, 600, &[3, 2], 1, 1, 0),
        dtype,
        several,
        false,
        tolerance,
    ));
    cases
}

/// Pointwise convolutions.
pub fn pointwise(dtype: DType, lanes: usize) -> Vec<Case> {
    let tolerance = if dtype == DType::F32 { 5e-6 } else { 1e-13 };
    let shapes = [
        Shape::new(40, 24, &[7, 7], 1, 1, 0),
        Shape::new(16, 48, &[8, 6], 1, 2, 0),
        Shape::new(5, 33, &[19], 1, 3, 0),
        Shape::new(64, 7, &[3, 4, 5], 1, 1, 0),
    ];
    let mut cases = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        for vectors in [1, 2, 3] {
            let schedule = Schedule::Pointwise(Pointwise(Direct {
                lanes,
                pixels: [8, 6, 14][(i + vectors) % 3],
                vectors,
                rows: [1, 3, 100][i % 3],
            }));
            cases.extend(directions(shape, dtype, schedule, false, tolerance));
        }
    }
    cases
}

/// The general form, which is for every shape.
pub fn general(dtype: DType, _lanes: usize) -> Vec<Case> {
    let tolerance = if dtype == DType::F32 { 5e-6 } else { 1e-13 };
    let mut shapes = shapes();
    shapes.push(Shape {
        groups: 3,
        ..Shape::new(12, 15, &[6, 7], 3, 1, 1)
    });
    shapes.push(Shape {
        groups: 9,
        ..Shape::new(9, 18, &[6, 7], 3, 2, 1)
    });
    let cases =
        |(i, shape): (usize, &Shape)| directions(shape, dtype, Schedule::General, i % 2 == 1, tolerance);
    shapes.iter().enumerate().flat_map(cases).collect()
}

#[test]
fn direct_convolutions_agree_in_all_directions_and_widths() {
    run_in_all_widths(direct);
}

#[test]
fn pointwise_convolutions_agree_in_all_directions_and_widths() {
    run_in_all_widths(pointwise);
}

#[test]
fn the_general_form_agrees_in_all_directions_and_widths() {
    run_in_all_widths(general);
}
