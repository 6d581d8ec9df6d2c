//! Convolutions: cases by hand, and random ones.

use syncbn_codegen::{Cpu, CpuFlag};
use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, UnaryFunction};
use syncbn_ir::schedule::{Direct, Winograd};
use syncbn_ir::{DType, Layout, Schedule, TensorType};

use crate::harness::{Case, image, noise, run};

/// A convolution, and how it is blocked.
#[derive(Debug, Clone)]
pub struct Shape {
    pub c: usize,
    pub k: usize,
    pub input: Vec<usize>,
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub pads: Vec<usize>,
    pub dilations: Vec<usize>,
    pub groups: usize,
}

impl Shape {
    pub fn new(c: usize, k: usize, input: &[usize], kernel: usize, stride: usize, pad: usize) -> Shape {
        let rank = input.len();
        Shape {
            c,
            k,
            input: input.to_vec(),
            kernel: vec![kernel; rank],
            strides: vec![stride; rank],
            pads: vec![pad; 2 * rank],
            dilations: vec![1; rank],
            groups: 1,
        }
    }

    pub fn output(&self) -> Option<Vec<usize>> {
        let rank = self.input.len();
        (0..rank)
            .map(|i| {
                let padded = self.input[i] + self.pads[i] + self.pads[rank + i];
                let reach = (self.kernel[i] - 1) * self.dilations[i] + 1;
                Some(padded.checked_sub(reach)? / self.strides[i] + 1)
            })
            .collect()
    }
}

/// The three directions of a convolution under a schedule.
pub fn directions(
    shape: &Shape,
    dtype: DType,
    schedule: Schedule,
    plain_input: bool,
    tolerance: f64,
) -> Vec<Case> {
    let lanes = schedule.lanes().unwrap_or(1);
    let output = shape.output().unwrap();
    let input_layout = if plain_input { Layout::Plain } else { Layout::Nhwc };
    let x = image(dtype, shape.c, &shape.input, input_layout);
    let dx = image(dtype, shape.c, &shape.input, Layout::Nhwc);
    let y = image(dtype, shape.k, &output, Layout::Nhwc);
    let filter = match schedule.blocks_filters() {
        true => Layout::Filter(lanes),
        false => Layout::Plain,
    };
    let w = TensorType {
        layout: filter,
        ..TensorType::fixed(
            dtype,
            &[&[shape.k, shape.c / shape.groups], &shape.kernel[..]].concat(),
        )
    };
    let bias = TensorType::fixed(dtype, &[shape.k]);
    let (strides, pads, dilations, groups) = (
        shape.strides.clone(),
        shape.pads.clone(),
        shape.dilations.clone(),
        shape.groups,
    );
    let conv = |activation| Conv {
        strides: strides.clone(),
        pads: pads.clone(),
        dilations: dilations.clone(),
        groups,
        moments: false,
        activation,
    };
    let case = |name: &str, op, operands: &[&TensorType], result| Case {
        name: format!("{name} {dtype} {schedule:?} {shape:?}"),
        op,
        operands: operands.iter().map(|&ty| ty.clone()).collect(),
        result,
        schedule,
        tolerance,
    };
    let backward_data = ConvBackwardData {
        strides: strides.clone(),
        pads: pads.clone(),
        dilations: dilations.clone(),
        groups,
        input: shape.input.clone(),
    };
    let backward_weight = ConvBackwardWeight {
        strides: strides.clone(),
        pads: pads.clone(),
        dilations: dilations.clone(),
        groups,
        kernel: shape.kernel.clone(),
    };
    let forward = |activation| conv(activation).into();
    vec![
        case("forward", forward(None), &[&x, &w], Layout::Nhwc),
        case(
            "epilogue",
            forward(Some(UnaryFunction::Silu)),
            &[&x, &w, &bias, &y],
            Layout::Nhwc,
        ),
        case("backward data", backward_data.into(), &[&y, &w], Layout::Nhwc),
        case("backward weight", backward_weight.into(), &[&x, &y], filter),
    ]
    .into_iter()
    .filter(|case| dx.shape.rank() > 0 && !case.operands.is_empty())
    .collect()
}

/// Bytes of the vectors that this machine has.
pub fn widths() -> Vec<usize> {
    let most = Cpu::new(CpuFlag::Native).vector_bytes();
    [16, 32, 64].into_iter().filter(|&bytes| bytes <= most).collect()
}

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
    all
}

fn direct(lanes: usize, pixels: usize, vectors: usize, rows: usize) -> Schedule {
    Schedule::Direct(Direct {
        lanes,
        pixels,
        vectors,
        rows,
    })
}

#[test]
fn direct_convolutions_agree_in_all_directions_and_widths() {
    for vector_bytes in widths() {
        for dtype in [DType::F32, DType::F64] {
            let lanes = vector_bytes / dtype.bytes() as usize;
            let tolerance = if dtype == DType::F32 { 5e-6 } else { 1e-13 };
            let mut cases = Vec::new();
            for (i, shape) in shapes().into_iter().enumerate() {
                let per_group = [shape.c, shape.k].map(|n| n / shape.groups);
                if shape.groups > 1 && per_group.iter().any(|n| n % lanes > 0) {
                    continue;
                }
                let rows = [1, 3, 4, 100][i % 4];
                let pixels = [8, 6, 14][i % 3];
                let plain = i % 2 == 1;
                cases.extend(directions(
                    &shape,
                    dtype,
                    direct(lanes, pixels, 2, rows),
                    plain,
                    tolerance,
                ));
            }
            run(&cases, vector_bytes, &[3, 5, 0]);
        }
    }
}

fn winograd(lanes: usize, tiles: usize, chunked: bool) -> Schedule {
    let blocking = Winograd {
        lanes,
        pixels: 8,
        vectors: 2,
        tiles,
        chunked,
    };
    Schedule::Winograd(blocking)
}

#[test]
fn winograds_algorithm_agrees_in_all_directions_and_widths() {
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
    for vector_bytes in widths() {
        for dtype in [DType::F32, DType::F64] {
            let lanes = vector_bytes / dtype.bytes() as usize;
            let tolerance = if dtype == DType::F32 { 2e-5 } else { 1e-13 };
            let mut cases = Vec::new();
            for (i, shape) in shapes.iter().enumerate() {
                for chunked in [false, true] {
                    // A gradient for weights that is taken chunk by chunk needs all tiles at once.
                    let tiles = if chunked { 64 } else { [8, 16, 32][i % 3] };
                    cases.extend(directions(
                        shape,
                        dtype,
                        winograd(lanes, tiles, chunked),
                        false,
                        tolerance,
                    ));
                }
            }
            run(&cases, vector_bytes, &[3, 5, 0]);
        }
    }
}

fn polyphase(lanes: usize, tiles: usize, chunked: bool) -> Schedule {
    let blocking = Winograd {
        lanes,
        pixels: 8,
        vectors: 2,
        tiles,
        chunked,
    };
    Schedule::Polyphase(blocking)
}

#[test]
fn polyphase_convolutions_agree_in_all_directions_and_widths() {
    let shapes = [
        Shape::new(16, 32, &[16, 16], 3, 2, 1),
        Shape::new(20, 40, &[9, 7], 3, 2, 1),
        Shape::new(33, 65, &[15, 18], 3, 2, 1),
        Shape::new(16, 16, &[8, 24], 3, 2, 1),
    ];
    for vector_bytes in widths() {
        for dtype in [DType::F32, DType::F64] {
            let lanes = vector_bytes / dtype.bytes() as usize;
            let tolerance = if dtype == DType::F32 { 2e-5 } else { 1e-13 };
            let mut cases = Vec::new();
            for (i, shape) in shapes.iter().enumerate() {
                for chunked in [false, true] {
                    let tiles = if chunked { 64 } else { [8, 16, 32][i % 3] };
                    cases.extend(directions(
                        shape,
                        dtype,
                        polyphase(lanes, tiles, chunked),
                        false,
                        tolerance,
                    ));
                }
            }
            run(&cases, vector_bytes, &[3, 5, 0]);
        }
    }
}

/// Keeps the generator of random numbers in one place.
#[test]
fn noise_is_not_constant() {
    let values = noise(1, 100);
    assert!(values.iter().any(|v| *v > 0.5) && values.iter().any(|v| *v < -0.5));
}
