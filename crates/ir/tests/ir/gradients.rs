//! Backward operators against finite differences of the forward operators.

use crate::support::{assert_close, result, results};
use syncbn_ir::Array;
use syncbn_ir::ops::*;
use syncbn_ir::training::Generator;

/// The gradient of `sum(dy * forward(x))` by central differences of width `2h`.
fn differences(forward: impl Fn(&Array) -> Array, x: &Array, dy: &Array, h: f64) -> Array {
    let weighted = |x: &Array| -> f64 {
        let y = forward(x);
        assert_eq!(y.dims, dy.dims);
        y.data.iter().zip(&dy.data).map(|(y, d)| y * d).sum()
    };
    let mut gradient = Array::zeros(&x.dims);
    for i in 0..x.len() {
        let at = |value: f64| {
            let mut moved = x.clone();
            moved.data[i] = value;
            weighted(&moved)
        };
        gradient.data[i] = (at(x.data[i] + h) - at(x.data[i] - h)) / (2.0 * h);
    }
    gradient
}

struct Case {
    input: &'static [usize],
    kernel: &'static [usize],
    strides: &'static [usize],
    pads: &'static [usize],
    dilations: &'static [usize],
}

const fn case(
    input: &'static [usize],
    kernel: &'static [usize],
    strides: &'static [usize],
    pads: &'static [usize],
    dilations: &'static [usize],
) -> Case {
    Case {
        input,
        kernel,
        strides,
        pads,
        dilations,
    }
}

/// Strides that skip inputs, padding on one side only, dilations, and one to three axes.
const WINDOWS: [Case; 8] = [
    case(&[5], &[3], &[1], &[1, 1], &[1]),
    case(&[8], &[2], &[3], &[0, 1], &[1]),
    case(&[7], &[3], &[2], &[2, 0], &[2]),
    case(&[4, 5], &[3, 2], &[1, 2], &[1, 0, 2, 1], &[1, 1]),
    case(&[6, 6], &[1, 1], &[2, 2], &[0; 4], &[1, 1]),
    case(&[5, 6], &[2, 3], &[2, 1], &[0, 2, 1, 3], &[3, 2]),
    case(
        &[3, 4, 2],
        &[2, 2, 1],
        &[1, 2, 1],
        &[1, 0, 0, 0, 1, 0],
        &[1, 1, 1],
    ),
    case(
        &[4, 3, 3],
        &[2, 3, 2],
        &[2, 1, 1],
        &[0, 1, 1, 1, 1, 0],
        &[2, 1, 1],
    ),
];

#[test]
fn convolution_backward() {
    let mut random = Generator(1);
    for (w, groups) in WINDOWS.iter().flat_map(|w| [1, 2].map(|groups| (w, groups))) {
        let (c, k) = (4, 6);
        let x = random.array(&[&[2, c], w.input].concat());
        let weight = random.array(&[&[k, c / groups], w.kernel].concat());
        let (strides, pads, dilations) = (w.strides.to_vec(), w.pads.to_vec(), w.dilations.to_vec());
        let forward = Conv {
            strides: strides.clone(),
            pads: pads.clone(),
            dilations: dilations.clone(),
            groups,
            moments: false,
            activation: None,
        };
        let dy = random.array(&result(forward.clone(), &[&x, &weight]).dims);
        let data = ConvBackwardData {
            strides: strides.clone(),
            pads: pads.clone(),
            dilations: dilations.clone(),
            groups,
            input: w.input.to_vec(),
        };
        // The convolution is linear in either operand, so that a wide difference is exact.
        let dx = differences(|x| result(forward.clone(), &[x, &weight]), &x, &dy, 1.0);
        assert_close(&result(data, &[&dy, &weight]), &dx, 1e-13);
        let by_weight = ConvBackwardWeight {
            strides,
            pads,
            dilations,
            groups,
            kernel: w.kernel.to_vec(),
        };
        let dw = differences(|w| result(forward.clone(), &[&x, w]), &weight, &dy, 1.0);
        assert_close(&result(by_weight, &[&x, &dy]), &dw, 1e-13);
    }
}

#[test]
fn pools_backward() {
    let mut random = Generator(2);
    let bools = [false, true];
    for (w, ceil_mode) in WINDOWS.iter().flat_map(|w| bools.map(|c| (w, c))) {
        let reach = |i: usize| (w.kernel[i] - 1) * w.dilations[i] + 1;
        let axes = w.kernel.len();
        // Pools refuse padding as wide as a window; the other windows are cut down to what they take.
        let pads: Vec<usize> = (0..2 * axes)
            .map(|i| w.pads[i].min(reach(i % axes) - 1))
            .collect();
        let x = random.array(&[&[2, 3], w.input].concat());
        let (kernel, strides, dilations) = (w.kernel.to_vec(), w.strides.to_vec(), w.dilations.to_vec());
        let input = w.input.to_vec();
        for count_include_pad in bools {
            let forward = AveragePool {
                kernel: kernel.clone(),
                strides: strides.clone(),
                pads: pads.clone(),
                dilations: dilations.clone(),
                ceil_mode,
                count_include_pad,
            };
            let backward = AveragePoolBackward {
                kernel: kernel.clone(),
                strides: strides.clone(),
                pads: pads.clone(),
                dilations: dilations.clone(),
                ceil_mode,
                count_include_pad,
                input: input.clone(),
            };
            let dy = random.array(&result(forward.clone(), &[&x]).dims);
            let dx = differences(|x| result(forward.clone(), &[x]), &x, &dy, 1.0);
            assert_close(&result(backward, &[&dy]), &dx, 1e-13);
        }
        let forward = MaxPool {
            kernel: kernel.clone(),
            strides: strides.clone(),
            pads: pads.clone(),
            dilations: dilations.clone(),
            ceil_mode,
        };
        let backward = MaxPoolBackward {
            kernel,
            strides,
            pads,
            dilations,
            ceil_mode,
            input,
        };
        let found = results(forward.clone(), &[&x]);
        let dy = random.array(&found[0].dims);
        let dx = differences(|x| result(forward.clone(), &[x]), &x, &dy, 1e-6);
        assert_close(&result(backward, &[&dy, &found[1]]), &dx, 1e-8);
    }
}

#[test]
fn unary_backward() {
    let mut random = Generator(3);
    let clip = UnaryFunction::Clip { min: -0.5, max: 0.7 };
    let anywhere = [
        UnaryFunction::Relu,
        UnaryFunction::Sigmoid,
        UnaryFunction::Silu,
        clip,
        UnaryFunction::Neg,
    ];
    let positive = [UnaryFunction::Sqrt, UnaryFunction::Rsqrt];
    let (x, dy) = (random.array(&[40]), random.array(&[40]));
    let roots = Array::new(&[40], x.data.iter().map(|x| x.abs() + 0.5).collect());
    let cases = anywhere
        .iter()
        .map(|f| (f, &x))
        .chain(positive.iter().map(|f| (f, &roots)));
    for (&function, x) in cases {
        let expected = differences(|x| result(Unary { function }, &[x]), x, &dy, 1e-5);
        assert_close(&result(UnaryBackward { function }, &[x, &dy]), &expected, 1e-8);
    }
}

#[test]
fn the_derivative_of_clip_is_one_on_its_bounds() {
    let function = UnaryFunction::Clip { min: 0.0, max: 6.0 };
    let found: Vec<f64> = [-0.1, 0.0, 6.0, 6.1].map(|x| function.derivative(x)).to_vec();
    assert_eq!(found, [0.0, 1.0, 1.0, 0.0]);
}

#[test]
fn batch_norm_backward() {
    let mut random = Generator(4);
    let forward = BatchNorm {
        epsilon: 1e-3,
        momentum: 0.1,
        running_var: RunningVar::Pytorch,
        training: true,
        onnx_training: false,
    };
    let (x, dy) = (random.array(&[3, 2, 2]), random.array(&[3, 2, 2]));
    let (scale, bias, zero) = (random.array(&[2]), random.array(&[2]), Array::zeros(&[2]));
    let y =
        |x: &Array, scale: &Array, bias: &Array| results(forward.clone(), &[x, scale, bias, &zero, &zero]);
    let saved = y(&x, &scale, &bias);
    let found = results(BatchNormBackward {}, &[&x, &dy, &scale, &saved[1], &saved[2]]);
    let dx = differences(|x| y(x, &scale, &bias).remove(0), &x, &dy, 1e-5);
    let dscale = differences(|scale| y(&x, scale, &bias).remove(0), &scale, &dy, 1e-5);
    let dbias = differences(|bias| y(&x, &scale, bias).remove(0), &bias, &dy, 1e-5);
    for (found, expected) in found.iter().zip([dx, dscale, dbias]) {
        assert_close(found, &expected, 1e-8);
    }
}

#[test]
fn losses_backward() {
    let mut random = Generator(5);
    let one = Array::new(&[1], vec![1.0]);
    let (logits, classes) = (
        random.array(&[2, 3, 2]),
        Array::new(&[2, 2], vec![0.0, 2.0, 1.0, 1.0]),
    );
    let expected = differences(
        |x| result(SoftmaxCrossEntropy {}, &[x, &classes]),
        &logits,
        &one,
        1e-5,
    );
    let found = result(SoftmaxCrossEntropyBackward {}, &[&logits, &classes]);
    assert_close(&found, &expected, 1e-8);
    let target = random.array(&[2, 3, 2]);
    let expected = differences(
        |x| result(MeanSquaredError {}, &[x, &target]),
        &logits,
        &one,
        1e-5,
    );
    assert_close(
        &result(MeanSquaredErrorBackward {}, &[&logits, &target]),
        &expected,
        1e-8,
    );
}
