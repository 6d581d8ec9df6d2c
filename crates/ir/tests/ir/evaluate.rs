//! The reference evaluation of every operator against values worked out by hand.

use crate::support::{array, assert_close, refusal, result, results};
use syncbn_ir::ops::*;
use syncbn_ir::types::Dim;
use syncbn_ir::{Array, DType, Literal, Shape};

fn conv(strides: &[usize], pads: &[usize], dilations: &[usize], groups: usize) -> Conv {
    Conv {
        strides: strides.to_vec(),
        pads: pads.to_vec(),
        dilations: dilations.to_vec(),
        groups,
        moments: false,
        activation: None,
    }
}

#[test]
fn conv_pads_strides_and_adds_its_bias() {
    let x = array(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]);
    let w = array(&[1, 1, 2], &[10.0, 1.0]);
    let bias = array(&[1], &[0.5]);
    let y = result(conv(&[2], &[1, 1], &[1], 1), &[&x, &w, &bias]);
    assert_eq!(y, array(&[1, 1, 3], &[1.5, 23.5, 40.5]));
}

#[test]
fn conv_in_groups_and_with_dilation() {
    let x = array(&[1, 2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let w = array(&[2, 1, 1, 2], &[1.0, 10.0, 1.0, 100.0]);
    let y = result(conv(&[1, 1], &[0, 0, 0, 0], &[1, 2], 2), &[&x, &w]);
    assert_eq!(y, array(&[1, 2, 1, 1], &[31.0, 604.0]));
}

#[test]
fn conv_gives_moments_of_what_its_activation_makes() {
    let x = array(&[2, 1, 1], &[-3.0, 4.0]);
    let w = array(&[1, 1, 1], &[1.0]);
    let op = Conv {
        moments: true,
        activation: Some(UnaryFunction::Relu),
        ..conv(&[1], &[0, 0], &[1], 1)
    };
    let expected = [array(&[2, 1, 1], &[0.0, 4.0]), array(&[3], &[2.0, 4.0, 16.0])];
    assert_eq!(results(op, &[&x, &w]), expected);
}

#[test]
fn operators_of_an_empty_rank_give_empty_results() {
    let x = Array::zeros(&[0, 2, 3]);
    let y = result(
        conv(&[1], &[0, 0], &[1], 1),
        &[&x, &array(&[4, 2, 2], &[1.0; 16])],
    );
    assert_eq!(y, Array::zeros(&[0, 4, 2]));
    assert_eq!(result(Moments {}, &[&x]), Array::zeros(&[5]));
    let sum = Reduce {
        function: ReduceFunction::Sum,
        axes: vec![0, 2],
        keep_dims: false,
    };
    assert_eq!(result(sum, &[&x]), Array::zeros(&[2]));
    let logits = Array::zeros(&[0, 3]);
    assert_eq!(
        result(SoftmaxCrossEntropy {}, &[&logits, &Array::zeros(&[0])]),
        Array::zeros(&[1])
    );
    let product = MatMul {
        transpose_a: true,
        transpose_b: false,
        wide: false,
    };
    assert_eq!(
        result(product, &[&logits, &Array::zeros(&[0, 2])]),
        Array::zeros(&[3, 2])
    );
}

#[test]
fn matmul_transposes_either_side() {
    let (a, b) = (
        array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        array(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 2.0, 2.0]),
    );
    let a_t = array(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let b_t = array(&[2, 3], &[1.0, 0.0, 2.0, 0.0, 1.0, 2.0]);
    let expected = array(&[2, 2], &[7.0, 8.0, 16.0, 17.0]);
    for (a, transpose_a) in [(&a, false), (&a_t, true)] {
        for (b, transpose_b) in [(&b, false), (&b_t, true)] {
            let op = MatMul {
                transpose_a,
                transpose_b,
                wide: false,
            };
            assert_eq!(result(op, &[a, b]), expected);
        }
    }
}

fn batch_norm(training: bool, running_var: RunningVar) -> BatchNorm {
    BatchNorm {
        epsilon: 1.0,
        momentum: 0.25,
        running_var,
        training,
        onnx_training: false,
    }
}

#[test]
fn batch_norm_follows_its_formulas() {
    // Mean 3 and variance 8 in the only channel; with epsilon 1 the deviation is 3.
    let x = array(&[3, 1], &[1.0, 1.0, 7.0]);
    let one = |v: f64| array(&[1], &[v]);
    let (scale, bias, mean, var) = (one(6.0), one(10.0), one(4.0), one(24.0));
    let operands = [&x, &scale, &bias, &mean, &var];
    let third = 1.0 / 3.0;
    let y = array(&[3, 1], &[6.0, 6.0, 18.0]);
    for (rule, next) in [
        (RunningVar::Pytorch, 24.0 * 0.75 + 0.25 * 12.0),
        (RunningVar::Population, 24.0 * 0.75 + 0.25 * 8.0),
    ] {
        let expected = [y.clone(), one(3.0), one(third), one(3.75), one(next)];
        for (found, expected) in results(batch_norm(true, rule), &operands).iter().zip(&expected) {
            assert_close(found, expected, 1e-15);
        }
    }
    // In inference the running statistics normalise: deviation 5, mean 4.
    let y = result(batch_norm(false, RunningVar::Pytorch), &operands);
    assert_close(&y, &array(&[3, 1], &[6.4, 6.4, 13.6]), 1e-15);
}

#[test]
fn one_value_per_channel_cannot_be_normalised() {
    let one = array(&[1], &[1.0]);
    let x = array(&[1, 1], &[1.0]);
    let message = refusal(
        batch_norm(true, RunningVar::Pytorch),
        &[&x, &one, &one, &one, &one],
    );
    assert!(message.contains("no variance"), "{message}");
}

#[test]
fn finalize_of_no_samples_keeps_the_running_statistics() {
    let op = BatchNormFinalize {
        epsilon: 1e-5,
        momentum: 0.1,
        running_var: RunningVar::Pytorch,
    };
    let (mean, var) = (array(&[2], &[1.0, 2.0]), array(&[2], &[3.0, 4.0]));
    let zeros = Array::zeros(&[2]);
    let expected = [
        Array::zeros(&[1]),
        zeros.clone(),
        zeros,
        mean.clone(),
        var.clone(),
    ];
    assert_eq!(results(op, &[&Array::zeros(&[5]), &mean, &var]), expected);
}

#[test]
fn moments_survive_a_mean_far_from_zero() {
    let x = array(&[4, 1], &[1e8 + 1.0, 1e8 - 1.0, 1e8 + 1.0, 1e8 - 1.0]);
    assert_eq!(result(Moments {}, &[&x]), array(&[3], &[4.0, 4e8, 4.0 + 4e16]));
}

#[test]
fn unary_functions() {
    let x = array(&[3], &[-1.0, 0.25, 4.0]);
    let unary = |function| result(Unary { function }, &[&x]).data;
    let sigmoid: Vec<f64> = x.data.iter().map(|x| x.exp() / (1.0 + x.exp())).collect();
    assert_eq!(unary(UnaryFunction::Relu), [0.0, 0.25, 4.0]);
    assert_eq!(
        unary(UnaryFunction::Clip { min: -0.5, max: 3.0 }),
        [-0.5, 0.25, 3.0]
    );
    assert_eq!(unary(UnaryFunction::Neg), [1.0, -0.25, -4.0]);
    assert_eq!(unary(UnaryFunction::Sqrt)[1..], [0.5, 2.0]);
    assert_eq!(unary(UnaryFunction::Rsqrt)[1..], [2.0, 0.5]);
    let close = |found: Vec<f64>, expected: Vec<f64>| {
        assert_close(&array(&[3], &found), &array(&[3], &expected), 1e-15);
    };
    close(unary(UnaryFunction::Sigmoid), sigmoid.clone());
    close(
        unary(UnaryFunction::Silu),
        sigmoid.iter().zip(&x.data).map(|(s, x)| s * x).collect(),
    );
    let nan = array(&[1], &[f64::NAN]);
    for function in [UnaryFunction::Relu, UnaryFunction::Clip { min: 0.0, max: 6.0 }] {
        assert!(
            result(Unary { function }, &[&nan]).data[0].is_nan(),
            "{function:?} drops NaN"
        );
    }
}

#[test]
fn binary_functions_broadcast() {
    let a = array(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
    let b = array(&[2, 1], &[10.0, 20.0]);
    let binary = |function| result(Binary { function }, &[&a, &b]);
    let add = [11.0, 12.0, 21.0, 22.0, 13.0, 14.0, 23.0, 24.0];
    assert_eq!(binary(BinaryFunction::Add), array(&[2, 2, 2], &add));
    assert_eq!(binary(BinaryFunction::Sub).data[..2], [-9.0, -8.0]);
    assert_eq!(binary(BinaryFunction::Mul).data[6..], [60.0, 80.0]);
    assert_eq!(binary(BinaryFunction::Div).data[4..6], [0.3, 0.4]);
}

#[test]
fn reductions_keep_or_drop_their_axes() {
    let x = array(&[2, 2, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let reduce = |function, axes: &[usize], keep_dims| {
        let axes = axes.to_vec();
        let op = Reduce {
            function,
            axes,
            keep_dims,
        };
        result(op, &[&x])
    };
    let sums = [14.0, 22.0];
    assert_eq!(reduce(ReduceFunction::Sum, &[0, 2], false), array(&[2], &sums));
    assert_eq!(
        reduce(ReduceFunction::Sum, &[0, 2], true),
        array(&[1, 2, 1], &sums)
    );
    assert_eq!(
        reduce(ReduceFunction::Mean, &[1], false),
        array(&[2, 2], &[2.0, 3.0, 6.0, 7.0])
    );
}

#[test]
fn shapes_change_without_values_changing() {
    let x = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let permutation = vec![1, 0];
    assert_eq!(
        result(Transpose { permutation }, &[&x]),
        array(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0])
    );
    let slice = Slice {
        axis: 1,
        begin: 1,
        end: 3,
        step: std::num::NonZeroUsize::MIN,
    };
    assert_eq!(result(slice, &[&x]), array(&[2, 2], &[2.0, 3.0, 5.0, 6.0]));
    let y = array(&[2, 1], &[-1.0, -2.0]);
    let joined = array(&[2, 4], &[1.0, 2.0, 3.0, -1.0, 4.0, 5.0, 6.0, -2.0]);
    assert_eq!(result(Concat { axis: 1 }, &[&x, &y]), joined);
    let shape = Shape(vec![Dim::Batch, Dim::Fixed(1), Dim::Fixed(3)]);
    assert_eq!(result(Reshape { shape }, &[&x]).dims, [2, 1, 3]);
    let shape = Shape(vec![Dim::Batch, Dim::Fixed(2)]);
    assert_eq!(
        result(Expand { shape }, &[&array(&[2], &[7.0, 8.0])]),
        array(&[2, 2], &[7.0, 8.0, 7.0, 8.0])
    );
    assert_eq!(result(Identity {}, &[&x]), x);
    assert_eq!(result(Dropout { ratio: 0.5 }, &[&x]), x);
    let cast = Cast { dtype: DType::I64 };
    assert_eq!(result(cast, &[&array(&[2], &[1.9, -1.9])]).data, [1.0, -1.0]);
}

#[test]
fn constants_have_their_values_and_sources_none() {
    let constant = literal(Literal::from_f64(DType::F32, &[2], &[1.5, 2.5]));
    assert_eq!(result(constant, &[]), array(&[2], &[1.5, 2.5]));
    let input = Input {
        name: "x".to_string(),
        role: Role::Data,
        ty: syncbn_ir::TensorType::batched(DType::F32, &[1]),
    };
    assert!(refusal(input, &[]).contains("\"x\""));
}

#[test]
fn cross_entropy_is_a_share_of_the_global_mean() {
    // Two samples of two pixels and two classes; the scores of a pixel differ by ln 3.
    let third = 3.0f64.ln();
    let logits = array(&[2, 2, 2], &[0.0, 0.0, third, third, 1000.0, 0.0, 1000.0, 0.0]);
    let target = array(&[2, 2], &[0.0, 1.0, 1.0, 0.0]);
    let (ln2, total) = (2.0f64.ln(), 10.0);
    let loss = (4.0f64.ln() + (4.0f64.ln() - third) + ln2 + ln2) / total;
    assert_close(
        &result(SoftmaxCrossEntropy {}, &[&logits, &target]),
        &array(&[1], &[loss]),
        1e-14,
    );
    let gradient = [-0.075, 0.025, 0.075, -0.025, 0.05, -0.05, -0.05, 0.05];
    let found = result(SoftmaxCrossEntropyBackward {}, &[&logits, &target]);
    assert_close(&found, &array(&[2, 2, 2], &gradient), 1e-14);
    for bad in [-1.0, 2.0, -100.0, f64::NAN] {
        let target = array(&[2, 2], &[0.0, bad, 0.0, 0.0]);
        let message = refusal(SoftmaxCrossEntropy {}, &[&logits, &target]);
        assert!(message.contains("is not in 0..2"), "{message}");
    }
}

#[test]
fn squared_error_is_a_share_of_the_global_mean() {
    let (p, t) = (
        array(&[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        array(&[2, 2], &[1.0, 0.0, 0.0, 4.0]),
    );
    assert_eq!(result(MeanSquaredError {}, &[&p, &t]).data, [1.3]);
    assert_eq!(
        result(MeanSquaredErrorBackward {}, &[&p, &t]).data,
        [0.0, 0.4, 0.6, 0.0]
    );
}
