//! Pools against values worked out by hand.

use crate::support::{array, refusal, result, results};
use syncbn_ir::ops::{AveragePool, MaxPool, MaxPoolBackward, Op, Window};
use syncbn_ir::{DType, TensorType};

fn max_pool(kernel: &[usize], strides: &[usize], pads: &[usize], ceil_mode: bool) -> MaxPool {
    MaxPool {
        kernel: kernel.to_vec(),
        strides: strides.to_vec(),
        pads: pads.to_vec(),
        dilations: vec![1; kernel.len()],
        ceil_mode,
    }
}

#[test]
fn max_pool_gives_the_first_maximum_and_its_place() {
    let x = array(&[1, 1, 2, 4], &[1.0, 5.0, 2.0, 2.0, 5.0, 0.0, -1.0, 2.0]);
    let found = results(max_pool(&[2, 2], &[2, 2], &[0; 4], false), &[&x]);
    let expected = [
        array(&[1, 1, 1, 2], &[5.0, 2.0]),
        array(&[1, 1, 1, 2], &[1.0, 0.0]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn padding_never_wins_and_nan_always_does() {
    let x = array(&[1, 1, 3], &[-7.0, f64::NEG_INFINITY, -9.0]);
    let found = results(max_pool(&[2], &[1], &[1, 1], false), &[&x]);
    assert_eq!(found[0].data, [-7.0, -7.0, -9.0, -9.0]);
    assert_eq!(found[1].data, [1.0, 0.0, 1.0, 0.0]);
    let x = array(&[1, 1, 3], &[9.0, f64::NAN, f64::NAN]);
    let found = results(max_pool(&[3], &[1], &[0, 0], false), &[&x]);
    assert!(found[0].data[0].is_nan());
    assert_eq!(found[1].data, [1.0]);
    let x = array(&[1, 1, 1], &[f64::NEG_INFINITY]);
    assert_eq!(
        results(max_pool(&[1], &[1], &[0, 0], false), &[&x])[1].data,
        [0.0]
    );
}

#[test]
fn ceil_mode_adds_a_window_that_starts_inside() {
    let x = array(&[1, 1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(
        result(max_pool(&[2], &[2], &[0, 0], false), &[&x]).data,
        [2.0, 4.0]
    );
    assert_eq!(
        result(max_pool(&[2], &[2], &[0, 0], true), &[&x]).data,
        [2.0, 4.0, 5.0]
    );
}

#[test]
fn a_window_of_padding_alone_is_refused() {
    let x = array(&[1, 1, 3], &[1.0, 2.0, 3.0]);
    let pool = |dilation| MaxPool {
        dilations: vec![dilation],
        ..max_pool(&[2], &[1], &[5, 5], false)
    };
    assert!(refusal(pool(5), &[&x]).contains("padding"));
    // A mean over padding is zero where padding counts, and not defined where it does not.
    let mean = |count_include_pad| AveragePool {
        kernel: vec![2],
        strides: vec![1],
        pads: vec![5, 5],
        dilations: vec![5],
        ceil_mode: false,
        count_include_pad,
    };
    let infer = |op: Op| op.infer(&[&TensorType::batched(DType::F64, &[1, 3])]);
    for op in [Op::from(pool(5)), mean(false).into()] {
        let message = infer(op).unwrap_err();
        assert!(message.contains("axis 0 holds nothing but padding"), "{message}");
    }
    assert!(infer(mean(true).into()).is_ok());
    let y = result(mean(true), &[&x]);
    assert_eq!(y.data, [0.5, 1.0, 1.5, 0.0, 0.0, 0.5, 1.0, 1.5]);
}

/// The closed form against all windows of all small pools.
#[test]
fn windows_of_padding_alone_are_found() {
    let (mut some, mut none) = (0, 0);
    for code in 0..6_usize.pow(5) {
        let digit = |i: u32| code / 6_usize.pow(i) % 6;
        let (kernel, stride, dilation, pad, input) =
            (1 + digit(0), 1 + digit(1), 1 + digit(2), digit(3), 1 + digit(4));
        let window = Window {
            kernel: vec![kernel],
            strides: vec![stride],
            pads: vec![pad, pad],
            dilations: vec![dilation],
        };
        for ceil_mode in [false, true] {
            // A pool's padding is smaller than its window.
            let Ok(output) = window.output(&[input], ceil_mode) else {
                continue;
            };
            if pad > (kernel - 1) * dilation {
                continue;
            }
            let inside = |o: usize| {
                let mut taps = (0..kernel).map(|k| o * stride + k * dilation);
                taps.any(|at| (pad..pad + input).contains(&at))
            };
            let expected = !(0..output[0]).all(inside);
            assert_eq!(
                window.misses(0, input, output[0]),
                expected,
                "{window:?} {input} {ceil_mode}"
            );
            *(if expected { &mut some } else { &mut none }) += 1;
        }
    }
    assert!(some > 50 && none > 1000, "{some} {none}");
}

#[test]
fn max_pool_backward_adds_up_where_windows_share_their_maximum() {
    let op = MaxPoolBackward {
        kernel: vec![2],
        strides: vec![1],
        pads: vec![0, 0],
        dilations: vec![1],
        ceil_mode: false,
        input: vec![3],
    };
    let (dy, code) = (array(&[1, 1, 2], &[10.0, 1.0]), array(&[1, 1, 2], &[1.0, 0.0]));
    assert_eq!(result(op, &[&dy, &code]).data, [0.0, 11.0, 0.0]);
}

#[test]
fn average_pool_divides_by_what_counts() {
    let x = array(&[1, 1, 3], &[2.0, 4.0, 8.0]);
    let pool = |count_include_pad, ceil_mode, pads: &[usize]| {
        let op = AveragePool {
            kernel: vec![2],
            strides: vec![2],
            pads: pads.to_vec(),
            dilations: vec![1],
            ceil_mode,
            count_include_pad,
        };
        result(op, &[&x]).data
    };
    assert_eq!(pool(true, false, &[1, 0]), [1.0, 6.0]);
    assert_eq!(pool(false, false, &[1, 0]), [2.0, 6.0]);
    // The last window reaches beyond the input and what padding it has, and that never counts.
    assert_eq!(pool(true, true, &[0, 0]), [3.0, 8.0]);
    assert_eq!(pool(true, true, &[0, 1]), [3.0, 4.0]);
    assert_eq!(pool(false, true, &[0, 1]), [3.0, 8.0]);
}

#[test]
fn codes_of_large_windows_are_wider() {
    let x = TensorType::batched(DType::F32, &[1, 32, 32]);
    let code = |kernel: usize| {
        let op: Op = max_pool(&[kernel; 2], &[1, 1], &[0; 4], false).into();
        op.infer(&[&x]).unwrap()[1].dtype
    };
    assert_eq!((code(16), code(17)), (DType::U8, DType::I64));
}
