//! BatchNorms that a file spells out in primitive operators, as some exporters do, become `batch_norm` before the
//! parameters are classified: their mean and variance are running statistics, not trained shifts.
//!
//! Before, with `d = mul(scale, rsqrt(add(var, epsilon)))` in any of the forms below:
//! ```text
//! add(mul(sub(x, mean), d), bias)
//! add(mul(x, d), sub(bias, mul(mean, d)))
//! ```
//! After:
//! ```text
//! batch_norm(x, scale, bias, mean, var)
//! ```
//! The inverse deviation is `1 / sqrt(v)`, `rsqrt(v)` or a division by `sqrt(v)`; it is applied before the scale or
//! after it. Operands come in either order, and vectors lie along axis 1 (`[C, 1, 1]`, `[1, C, 1, 1]`, `[C]` for a
//! matrix, or a reshape of such).
//!
//! It leaves alone what has no scale or no bias, which may be the standardisation of an input; statistics with
//! other readers or negative variances; and a precomputed inverse deviation, which nothing tells from any other
//! factor.

use std::sync::Arc;

use syncbn_ir::ops::{
    BatchNorm, BinaryFunction, Parameter, ParameterData, Reshape, RunningVar, Statistic, UnaryFunction,
};
use syncbn_ir::{Dim, Graph, Literal, NodeId, Op, Shape, TensorType, Value};

use crate::error::ImportError;
use crate::importer::Importer;
use crate::ops::batch_norm::decimal;

/// Share of the new value in running statistics, which primitive operators do not say: PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// What a BatchNorm in primitive operators normalises, and by what.
struct Found {
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    var: Value,
    epsilon: f64,
}

/// Replaces them all, with a remark for each.
pub(crate) fn recognize(importer: &mut Importer) -> Result<(), ImportError> {
    let internal = |e: syncbn_ir::GraphError| ImportError::user(e.to_string());
    for id in importer.graph.topological().map_err(internal)? {
        let graph = &mut importer.graph;
        if !graph.contains(id) {
            continue;
        }
        let Some(found) = find(graph, id) else { continue };
        let name = graph.node(id).name.clone();
        let Some(new) = build(graph, &found, &name).map_err(internal)? else {
            continue;
        };
        graph.replace_uses(id.into(), new).map_err(internal)?;
        graph.remove_dead();
        importer.notes.push(format!(
            "node \"{name}\": a batch normalisation in primitive operators is treated as BatchNormalization, with momentum {MOMENTUM}"
        ));
    }
    Ok(())
}

fn find(graph: &Graph, id: NodeId) -> Option<Found> {
    let mut sums = either_order(graph, id.into(), BinaryFunction::Add).into_iter();
    sums.find_map(|(scaled, shift)| {
        centred_first(graph, scaled, shift).or_else(|| shift_last(graph, scaled, shift))
    })
}

/// `(x - mean) * d + bias`
fn centred_first(graph: &Graph, scaled: Value, bias: Value) -> Option<Found> {
    let (factors, var) = factors(graph, scaled)?;
    let &[a, b] = factors.as_slice() else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(centred, scale)| {
        let (x, mean) = operands(graph, centred, BinaryFunction::Sub)?;
        found(graph, [x, scale, bias, mean, var])
    })
}

/// `x * d + (bias - mean * d)`
fn shift_last(graph: &Graph, scaled: Value, shift: Value) -> Option<Found> {
    let (bias, offset) = operands(graph, shift, BinaryFunction::Sub)?;
    let products = either_order(graph, scaled, BinaryFunction::Mul).into_iter();
    let mut pairs = products.flat_map(|(x, d)| {
        let offsets = either_order(graph, offset, BinaryFunction::Mul).into_iter();
        offsets
            .filter(move |&(_, other)| other == d)
            .map(move |(mean, _)| (x, mean, d))
    });
    pairs.find_map(|(x, mean, d)| {
        let (factors, var) = factors(graph, d)?;
        let &[scale] = factors.as_slice() else { return None };
        found(graph, [x, scale, bias, mean, var])
    })
}

/// The factors of a product of an inverse deviation and one or two others, and the variance plus epsilon.
fn factors(graph: &Graph, v: Value) -> Option<(Vec<Value>, Value)> {
    let (mut factors, mut shifted, mut open) = (Vec::new(), None, vec![v]);
    while let Some(v) = open.pop() {
        if let Some(sum) = inverse_root(graph, v).filter(|_| shifted.is_none()) {
            shifted = Some(sum);
        } else if let Some((a, b)) = operands(graph, v, BinaryFunction::Mul) {
            open.extend([b, a]);
        } else if let Some((a, b)) = operands(graph, v, BinaryFunction::Div) {
            shifted = match shifted {
                None => Some(argument(graph, b, UnaryFunction::Sqrt)?),
                Some(_) => return None,
            };
            open.push(a);
        } else {
            factors.push(v);
        }
        if factors.len() > 2 {
            return None;
        }
    }
    Some((factors, shifted?))
}

/// The `v` of `1 / sqrt(v)`.
fn inverse_root(graph: &Graph, v: Value) -> Option<Value> {
    if let Some(sum) = argument(graph, v, UnaryFunction::Rsqrt) {
        return Some(sum);
    }
    let (one, root) = operands(graph, v, BinaryFunction::Div)?;
    (number(graph, one) == Some(1.0)).then(|| argument(graph, root, UnaryFunction::Sqrt))?
}

fn found(graph: &Graph, [x, scale, bias, mean, shifted]: [Value; 5]) -> Option<Found> {
    let channels = graph.ty(x).shape.0.get(1)?.fixed()?;
    let rank = graph.ty(x).shape.rank();
    let mut sums = either_order(graph, shifted, BinaryFunction::Add).into_iter();
    let (var, epsilon) = sums.find_map(|(var, epsilon)| Some((var, number(graph, epsilon)?)))?;
    let vectors = [scale, bias, mean, var];
    let fit = vectors
        .iter()
        .all(|&v| lies_along_channels(graph, v, channels, rank));
    let own = |v: Value| only_parameter(graph, v).is_some();
    (fit && own(mean) && own(var) && mean != var && epsilon >= 0.0).then_some(Found {
        x,
        scale,
        bias,
        mean,
        var,
        epsilon: shortest(epsilon),
    })
}

/// The decimal that a number which came from a float32 was written as.
fn shortest(value: f64) -> f64 {
    match value as f32 {
        short if f64::from(short) == value => decimal(short),
        _ => value,
    }
}

/// Whether a vector broadcasts along axis 1 of a tensor of this rank.
fn lies_along_channels(graph: &Graph, v: Value, channels: usize, rank: usize) -> bool {
    let shape = &graph.ty(v).shape;
    let Some(from_last) = rank.checked_sub(2).map(|n| n + 1) else {
        return false;
    };
    let sizes: Vec<Option<usize>> = shape.0.iter().map(|d| d.fixed()).collect();
    let axis = sizes.len().checked_sub(from_last);
    let fits = |(i, size): (usize, &Option<usize>)| *size == Some(if Some(i) == axis { channels } else { 1 });
    axis.is_some() && sizes.len() <= rank && sizes.iter().enumerate().all(fits)
}

/// The parameter behind reshapes, where nothing else reads it.
fn only_parameter(graph: &Graph, v: Value) -> Option<&Parameter> {
    match graph.op(v.node) {
        _ if graph.use_count(v) != 1 => None,
        Op::Parameter(p) => Some(p),
        Op::Reshape(_) => only_parameter(graph, graph.operand(v.node, 0)?),
        _ => None,
    }
}

/// Adds the BatchNorm; None where the variances have no square root.
fn build(graph: &mut Graph, found: &Found, name: &str) -> Result<Option<Value>, syncbn_ir::GraphError> {
    let [mean, var] = [found.mean, found.var].map(|v| only_parameter(graph, v).cloned());
    let (Some(mean), Some(var)) = (mean, var) else {
        return Ok(None);
    };
    if matches!(&var.data, ParameterData::Values(v) if v.to_f64().iter().any(|v| v.is_nan() || *v < 0.0)) {
        return Ok(None);
    }
    let mut vector = |v: Value| {
        let channels = graph.ty(v).shape.elements_per_sample().unwrap_or(0);
        let shape = Shape(vec![Dim::Fixed(channels)]);
        match graph.ty(v).shape == shape {
            true => Ok(v),
            false => graph.add_value(Reshape { shape }, name, &[v]),
        }
    };
    let (scale, bias) = (vector(found.scale)?, vector(found.bias)?);
    let (mean, var) = (statistic(graph, mean)?, statistic(graph, var)?);
    let op = BatchNorm {
        epsilon: found.epsilon,
        momentum: MOMENTUM,
        running_var: RunningVar::Pytorch,
        training: false,
        onnx_training: false,
    };
    graph
        .add_value(op, name, &[found.x, scale, bias, mean, var])
        .map(Some)
}

fn statistic(graph: &mut Graph, parameter: Parameter) -> Result<Value, syncbn_ir::GraphError> {
    let channels = parameter.ty.shape.elements_per_sample().unwrap_or(0);
    let data = match parameter.data {
        ParameterData::Values(v) => {
            ParameterData::Values(Arc::new(Literal::from_f64(v.dtype(), &[channels], &v.to_f64())))
        }
        other => other,
    };
    let name = parameter.name.clone();
    let op = Statistic {
        name: parameter.name,
        ty: TensorType::fixed(parameter.ty.dtype, &[channels]),
        data,
    };
    graph.add_value(op, &name, &[])
}

fn operands(graph: &Graph, v: Value, function: BinaryFunction) -> Option<(Value, Value)> {
    match (graph.op(v.node), graph.operands(v.node).as_slice()) {
        (Op::Binary(op), &[a, b]) if op.function == function => Some((a, b)),
        _ => None,
    }
}

fn either_order(graph: &Graph, v: Value, function: BinaryFunction) -> Vec<(Value, Value)> {
    let orders = operands(graph, v, function).map(|(a, b)| vec![(a, b), (b, a)]);
    orders.unwrap_or_default()
}

/// The operand of a function of one number.
fn argument(graph: &Graph, v: Value, function: UnaryFunction) -> Option<Value> {
    match graph.op(v.node) {
        Op::Unary(op) if op.function == function => graph.operand(v.node, 0),
        _ => None,
    }
}

/// The number that a constant or an initializer of one element holds.
fn number(graph: &Graph, v: Value) -> Option<f64> {
    match graph.op(v.node) {
        Op::Constant(c) => c.value.splat(),
        Op::Parameter(p) if p.ty.shape.elements_per_sample() == Some(1) => match &p.data {
            ParameterData::Values(value) => value.splat(),
            _ => None,
        },
        Op::Expand(_) | Op::Reshape(_) => number(graph, graph.operand(v.node, 0)?),
        _ => None,
    }
}
