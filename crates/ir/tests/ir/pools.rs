//! Pools against values worked out by hand.

use crate::support::{array, refusal, result, results};
use syncbn_ir::ops::{AveragePool, MaxPool, MaxPoolBackward, Op};
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
    let op = MaxPool {
        dilations: vec![5],
        ..max_pool(&[2], &[1], &[5, 5], false)
    };
    assert!(refusal(op, &[&x]).contains("padding"));
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
