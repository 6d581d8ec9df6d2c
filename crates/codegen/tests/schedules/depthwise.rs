//! Depthwise convolutions: cases by hand.

use syncbn_ir::schedule::Depthwise;
use syncbn_ir::{DType, Schedule};

use crate::convolutions::{Shape, directions};
use crate::harness::run_in_all_widths;
use crate::module::Case;

fn shape(channels: usize, input: &[usize], kernel: usize, stride: usize, pad: usize) -> Shape {
    Shape {
        groups: channels,
        ..Shape::new(channels, channels, input, kernel, stride, pad)
    }
}

fn shapes() -> Vec<Shape> {
    let mut all = vec![
        shape(16, &[8, 8], 3, 1, 1),
        shape(40, &[9, 11], 3, 2, 1),
        shape(7, &[13, 6], 5, 1, 2),
        shape(33, &[10, 9], 5, 2, 2),
        shape(18, &[17], 3, 1, 1),
        shape(5, &[21], 9, 2, 4),
        shape(6, &[4, 5, 6], 3, 2, 1),
        shape(20, &[11, 12], 7, 3, 3),
        shape(256, &[6, 5], 3, 1, 0),
        shape(24, &[5, 5], 1, 2, 0),
        // Too large for one copy.
        shape(144, &[23, 41], 3, 1, 1),
    ];
    all.push(Shape {
        dilations: vec![2, 3],
        pads: vec![2, 3, 1, 4],
        ..shape(17, &[9, 12], 3, 1, 0)
    });
    all.push(Shape {
        dilations: vec![2, 2],
        ..shape(19, &[12, 12], 3, 3, 2)
    });
    // Rows, columns and tiles that are padding alone, and strides that skip most of what there is.
    all.push(shape(24, &[6, 7], 1, 1, 2));
    all.push(Shape {
        dilations: vec![12, 12],
        ..shape(16, &[9, 30], 3, 1, 12)
    });
    all.push(Shape {
        strides: vec![1, 40],
        ..shape(16, &[3, 170], 2, 1, 1)
    });
    all.push(Shape {
        kernel: vec![3, 11],
        pads: vec![0, 5, 2, 4],
        ..shape(12, &[6, 15], 1, 1, 0)
    });
    all
}

/// Depthwise convolutions.
pub fn depthwise(dtype: DType, lanes: usize) -> Vec<Case> {
    let tolerance = if dtype == DType::F32 { 5e-6 } else { 1e-13 };
    let mut cases = Vec::new();
    for (i, shape) in shapes().into_iter().enumerate() {
        let pixels = [8, 3, 14, 1][i % 4];
        let schedule = Schedule::Depthwise(Depthwise { lanes, pixels });
        cases.extend(directions(&shape, dtype, schedule, i % 5 == 1, tolerance));
    }
    cases
}

#[test]
fn depthwise_convolutions_agree_in_all_directions_and_widths() {
    run_in_all_widths(depthwise);
}
