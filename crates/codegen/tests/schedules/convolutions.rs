//! Convolutions, as cases of a schedule in all directions.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, UnaryFunction};
use syncbn_ir::{DType, Layout, Schedule, TensorType};

use crate::module::{Case, image};

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
    let conv = |activation, moments| Conv {
        strides: strides.clone(),
        pads: pads.clone(),
        dilations: dilations.clone(),
        groups,
        moments,
        activation,
    };
    let case = |name: &str, op, operands: &[&TensorType], result| Case {
        name: format!("{name} {dtype} {schedule:?} {shape:?}"),
        op,
        operands: operands.iter().map(|&ty| ty.clone()).collect(),
        result,
        schedule,
        tolerance,
        mean: 0.0,
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
    let forward = |activation| conv(activation, false).into();
    let far_from_zero = Case {
        mean: 1000.0,
        ..case("moments", conv(None, true).into(), &[&x, &w, &bias], Layout::Nhwc)
    };
    vec![
        case("forward", forward(None), &[&x, &w], Layout::Nhwc),
        case(
            "epilogue",
            forward(Some(UnaryFunction::Silu)),
            &[&x, &w, &bias, &y],
            Layout::Nhwc,
        ),
        far_from_zero,
        case("backward data", backward_data.into(), &[&y, &w], Layout::Nhwc),
        case("backward weight", backward_weight.into(), &[&x, &y], filter),
    ]
}
