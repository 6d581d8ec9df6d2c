//! `gelu` in primitive operators: a product of `x`, `1 + erf(x / sqrt(2))` and numbers that make up one half.

use std::f64::consts::FRAC_1_SQRT_2;

use syncbn_ir::ops::{BinaryFunction, Unary, UnaryFunction};
use syncbn_ir::{Graph, NodeId, Value};

use super::{argument, either_order};
use crate::canonicalize::splat;
use crate::error::PassError;
use crate::pass::PassContext;
use crate::rewrite::Patch;

/// Factors of a gelu, numbers included: `x`, the sum, and a half, which may be two numbers.
const MAX_FACTORS: usize = 4;

/// The rule.
pub fn gelu(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let Some(x) = gated(graph, id.into(), MAX_FACTORS) else {
        return Ok(None);
    };
    // A constant of another shape can broadcast the product to a larger one.
    let is_gelu = factors(graph, id.into(), x, MAX_FACTORS) == Some((0.5, 1, 1));
    if !is_gelu || graph.ty(x) != graph.ty(id.into()) {
        return Ok(None);
    }
    let function = UnaryFunction::Gelu;
    Patch::replace_with(graph, id.into(), Unary { function }, &[x]).map(Some)
}

/// The `x` of a factor `1 + erf(x / sqrt(2))`.
fn gated(graph: &Graph, v: Value, depth: usize) -> Option<Value> {
    if depth == 0 {
        return None;
    }
    if let Some(x) = argument_of_sum(graph, v) {
        return Some(x);
    }
    if let Some((a, _)) = quotient(graph, v) {
        return gated(graph, a, depth - 1);
    }
    let orders = either_order(graph, v.node, BinaryFunction::Mul).into_iter();
    orders.filter_map(|(a, _)| gated(graph, a, depth - 1)).next()
}

/// The product of the numbers in a product, and how often `x` and its sum are factors; None with any other factor.
fn factors(graph: &Graph, v: Value, x: Value, depth: usize) -> Option<(f64, usize, usize)> {
    if v == x {
        return Some((1.0, 1, 0));
    }
    if let Some(number) = splat(graph, v) {
        return Some((number, 0, 0));
    }
    if argument_of_sum(graph, v) == Some(x) {
        return Some((1.0, 0, 1));
    }
    let depth = depth.checked_sub(1)?;
    if let Some((a, number)) = quotient(graph, v) {
        let (rest, xs, sums) = factors(graph, a, x, depth)?;
        return Some((rest / number, xs, sums));
    }
    let &(a, b) = either_order(graph, v.node, BinaryFunction::Mul).first()?;
    let (a, b) = (factors(graph, a, x, depth)?, factors(graph, b, x, depth)?);
    Some((a.0 * b.0, a.1 + b.1, a.2 + b.2))
}

/// What `v` divides by a number, and the number.
fn quotient(graph: &Graph, v: Value) -> Option<(Value, f64)> {
    let &(a, b) = either_order(graph, v.node, BinaryFunction::Div).first()?;
    Some((a, splat(graph, b)?))
}

/// The `x` of `1 + erf(x / sqrt(2))`.
fn argument_of_sum(graph: &Graph, sum: Value) -> Option<Value> {
    let mut sums = either_order(graph, sum.node, BinaryFunction::Add).into_iter();
    let (erf, _) = sums.find(|&(_, one)| splat(graph, one) == Some(1.0))?;
    let scaled = argument(graph, erf, |f| f == UnaryFunction::Erf)?;
    // Exporters write the root in float32.
    let is_root = |number: f64| (number - FRAC_1_SQRT_2).abs() <= 1e-7;
    if let Some((x, number)) = quotient(graph, scaled) {
        return is_root(1.0 / number).then_some(x);
    }
    let mut products = either_order(graph, scaled.node, BinaryFunction::Mul).into_iter();
    let product = products.find(|&(_, number)| splat(graph, number).is_some_and(is_root));
    product.map(|(x, _)| x)
}
