//! What several tests share.

use syncbn_ir::ops::{Op, StepInfo};
use syncbn_ir::{Array, Named, RankInputs, RankOutputs, State, evaluate, parse, verify};

/// Results of one operator for 2 of 5 samples; the sample counts matter to losses only.
pub fn results(op: impl Into<Op>, operands: &[&Array]) -> Vec<Array> {
    op.into().evaluate(operands, StepInfo { n: 2, total: 5 }).unwrap()
}

/// The first result of one operator.
pub fn result(op: impl Into<Op>, operands: &[&Array]) -> Array {
    results(op, operands).remove(0)
}

/// Why an operator refuses to be evaluated.
pub fn refusal(op: impl Into<Op>, operands: &[&Array]) -> String {
    op.into()
        .evaluate(operands, StepInfo { n: 2, total: 5 })
        .unwrap_err()
}

pub fn array(dims: &[usize], data: &[f64]) -> Array {
    Array::new(dims, data.to_vec())
}

/// Compares arrays up to `tolerance` of the largest expected magnitude.
#[track_caller]
pub fn assert_close(found: &Array, expected: &Array, tolerance: f64) {
    assert_close_to_scale(found, expected, tolerance, 0.0);
}

/// As [`assert_close`], where the magnitude counts as at least `scale`.
#[track_caller]
pub fn assert_close_to_scale(found: &Array, expected: &Array, tolerance: f64, scale: f64) {
    assert_eq!(found.dims, expected.dims);
    let scale = expected.data.iter().fold(scale, |s, x| s.max(x.abs()));
    for (i, (f, e)) in found.data.iter().zip(&expected.data).enumerate() {
        let error = (f - e).abs();
        assert!(
            error <= tolerance * scale,
            "element {i}: {f} instead of {e}, error {:e} of scale {scale}",
            error / scale
        );
    }
}

/// Evaluates a graph in text form that is valid.
pub fn run(text: &str, ranks: &[RankInputs], parameters: &Named, statistics: &Named) -> Vec<RankOutputs> {
    let graph = parse(text).unwrap();
    assert_eq!(verify(&graph), Ok(()));
    let state = State {
        parameters: parameters.clone(),
        statistics: vec![statistics.clone()],
        ..State::default()
    };
    evaluate(&graph, ranks, &state).unwrap()
}

/// Named arrays.
pub fn named(list: &[(&str, &Array)]) -> Named {
    list.iter()
        .map(|(name, array)| (name.to_string(), (*array).clone()))
        .collect()
}

/// Inputs of one rank; `n` is the size of the first array's first axis.
pub fn inputs(list: &[(&str, &Array)]) -> RankInputs {
    RankInputs {
        n: list[0].1.dims[0],
        values: named(list),
    }
}

/// Samples `begin..end`.
pub fn samples(x: &Array, begin: usize, end: usize) -> Array {
    let size: usize = x.dims[1..].iter().product();
    let mut dims = x.dims.clone();
    dims[0] = end - begin;
    Array::new(&dims, x.data[begin * size..end * size].to_vec())
}

/// Arrays one after another along axis 0.
pub fn joined(parts: &[&Array]) -> Array {
    let mut dims = parts[0].dims.clone();
    dims[0] = parts.iter().map(|p| p.dims[0]).sum();
    Array::new(&dims, parts.iter().flat_map(|p| p.data.clone()).collect())
}
