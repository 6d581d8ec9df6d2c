//! BatchNormalization.

use std::sync::Arc;

use syncbn_ir::ops::{BatchNorm, ParameterData, RunningVar, Statistic};
use syncbn_ir::{Array, DType, Dim, Literal, Op, TensorType, Value, Warning};

use crate::attributes::OnnxNode;
use crate::binding::{Binding, Slot};
use crate::error::ImportError;
use crate::importer::Importer;
use crate::weights::check_variance;

/// `BatchNormalization` of opsets 7 to 15.
pub(super) fn batch_normalization(cx: &mut Importer, node: &OnnxNode) -> Result<Vec<Binding>, ImportError> {
    if node.inputs() != 5 || (0..5).any(|i| node.input(i).is_none()) {
        let given = (0..5).filter(|&i| node.input(i).is_some()).count();
        return Err(ImportError::user(format!(
            "expected 5 inputs (x, scale, bias, mean, var), found {}",
            if node.inputs() == 5 { given } else { node.inputs() }
        )));
    }
    let onnx_training = training_mode(cx, node)?;
    if node.opset < 9 && node.int("spatial")?.is_some_and(|s| s != 1) {
        return Err(ImportError::unsupported(
            "attribute spatial = 0 normalises each position by itself",
        ));
    }
    let epsilon = epsilon(cx, node)?;
    let momentum = momentum(node)?;
    let x = cx.value(node, 0)?;
    let channels = check_shapes(cx, node, x)?;
    let mut operands = vec![x];
    for (i, slot) in [Slot::Scale, Slot::Bias, Slot::Mean, Slot::Variance]
        .into_iter()
        .enumerate()
    {
        operands.push(slot_value(cx, node, i + 1, slot, channels)?);
    }
    let op = BatchNorm {
        epsilon,
        momentum,
        running_var: RunningVar::Pytorch,
        training: false,
        onnx_training,
    };
    Ok(vec![cx.add(node, op, &operands)?.into()])
}

/// Whether the node is in its training form, and the rules for the number of outputs.
fn training_mode(cx: &Importer, node: &OnnxNode) -> Result<bool, ImportError> {
    let outputs = node
        .proto
        .output
        .iter()
        .rposition(|o| !o.is_empty())
        .map_or(0, |i| i + 1);
    let training = if node.opset >= 14 {
        let training = node.flag("training_mode", false)?;
        if outputs > 3 || (outputs > 1 && !training) {
            return Err(ImportError::user(format!(
                "has {outputs} outputs with training_mode = {}; 3 outputs need training_mode = 1",
                i64::from(training)
            )));
        }
        training
    } else {
        if outputs > 5 {
            return Err(ImportError::user(format!(
                "expected 1 to 5 outputs, found {outputs}"
            )));
        }
        outputs > 1
    };
    let extra = node
        .proto
        .output
        .iter()
        .skip(1)
        .find(|o| !o.is_empty() && cx.names.is_used(o));
    match extra {
        Some(name) => Err(ImportError::unsupported(format!(
            "its statistics output \"{name}\" is used; running statistics are kept by the executable"
        ))),
        None => Ok(training),
    }
}

/// The float64 that a float32 attribute stands for: the shortest decimal that rounds to it.
pub(crate) fn decimal(value: f32) -> f64 {
    format!("{value:e}").parse().unwrap_or(f64::from(value))
}

fn epsilon(cx: &mut Importer, node: &OnnxNode) -> Result<f64, ImportError> {
    let epsilon = node.float("epsilon")?.unwrap_or(1e-5);
    if !epsilon.is_finite() || epsilon < 0.0 {
        return Err(ImportError::user(format!(
            "attribute epsilon is {epsilon}: must be a number above 0"
        )));
    }
    if epsilon == 0.0 {
        let warning = Warning::new("epsilon is 0; a channel of variance 0 divides by 0");
        let warning = warning.at(format!("node \"{}\" (BatchNormalization)", node.name));
        cx.warnings
            .push(warning.help("set the attribute epsilon, such as to 1e-5"));
    }
    Ok(decimal(epsilon))
}

/// The share of the new value: 1 - ONNX momentum, computed on the decimal so that 0.9 gives 0.1.
fn momentum(node: &OnnxNode) -> Result<f64, ImportError> {
    let momentum = node.float("momentum")?.unwrap_or(0.9);
    if !(0.0..=1.0).contains(&momentum) {
        return Err(ImportError::user(format!(
            "attribute momentum is {momentum}: must lie in 0 to 1"
        )));
    }
    Ok(one_minus(momentum))
}

/// `1 - value` in decimal arithmetic.
fn one_minus(value: f32) -> f64 {
    let text = format!("{value}");
    let digits = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let exact = || -> Option<f64> {
        let scale = 10i128.checked_pow(u32::try_from(digits.len()).ok()?)?;
        let whole: i128 = text.replace('.', "").parse().ok()?;
        format!("{}e-{}", scale.checked_sub(whole)?, digits.len())
            .parse()
            .ok()
    };
    exact().unwrap_or(1.0 - f64::from(value))
}

/// Channels of `x`; scale, bias, mean and var must have one value for each.
fn check_shapes(cx: &Importer, node: &OnnxNode, x: Value) -> Result<usize, ImportError> {
    let ty = cx.ty(x);
    let channels = match ty.shape.0.get(1) {
        Some(Dim::Fixed(c)) => *c,
        _ => {
            let text = format!("its input of type {ty} has no channel axis (axis 1)");
            return Err(ImportError::user(text));
        }
    };
    let roles = ["scale", "bias", "mean", "var"];
    for (i, role) in roles.into_iter().enumerate() {
        let Some(dims) = cx.dims(&cx.binding(node, i + 1)?) else {
            continue;
        };
        if dims != [channels] {
            return Err(ImportError::user(format!(
                "{role} \"{}\" has shape {dims:?}, expected [{channels}]: one value for each channel of {ty}",
                node.input(i + 1).unwrap_or_default()
            )));
        }
    }
    Ok(channels)
}

fn slot_value(
    cx: &mut Importer,
    node: &OnnxNode,
    i: usize,
    slot: Slot,
    channels: usize,
) -> Result<Value, ImportError> {
    let binding = cx.binding(node, i)?;
    let value = match &binding {
        Binding::Weight(weight) => return cx.weight(weight, slot, &node.name),
        _ => cx.value(node, i)?,
    };
    if !matches!(slot, Slot::Mean | Slot::Variance) {
        return Ok(value);
    }
    // Weight standardisation passes the weight's own statistics.
    let x = cx.value(node, 0)?;
    let data = cx
        .graph
        .depends_on_data()
        .map_err(|e| ImportError::user(e.to_string()))?;
    if !data.contains(&x.node) {
        return Ok(value);
    }
    let name = node.input(i).unwrap_or_default().to_string();
    let known = cx.statistics.get(&(name.clone(), slot.name())).copied();
    if let Some(statistic) = known {
        return Ok(statistic);
    }
    let array = cx.fold(value).ok_or_else(|| {
        ImportError::unsupported(format!(
            "its {} \"{name}\" is computed by nodes of the graph",
            slot.name()
        ))
        .note("running statistics must be initializers or constants")
    })?;
    let statistic = add_statistic(cx, node, &name, slot, channels, &array, cx.ty(value).dtype)?;
    cx.statistics.insert((name, slot.name()), statistic);
    Ok(statistic)
}

/// A running statistic that starts with the values of a constant.
fn add_statistic(
    cx: &mut Importer,
    node: &OnnxNode,
    name: &str,
    slot: Slot,
    channels: usize,
    array: &Array,
    dtype: DType,
) -> Result<Value, ImportError> {
    let literal = Literal::from_f64(dtype, &[channels], &array.data);
    if array.data.len() != channels {
        return Err(ImportError::user(format!(
            "{} \"{name}\" has not one value per channel",
            slot.name()
        )));
    }
    if slot == Slot::Variance {
        check_variance(name, &literal)?;
    }
    let free = if cx.tensor_names.contains(name) {
        cx.free_name(name, &node.name, slot)
    } else {
        name.to_string()
    };
    let op: Op = Statistic {
        name: free.clone(),
        ty: TensorType::fixed(dtype, &[channels]),
        data: ParameterData::Values(Arc::new(literal)),
    }
    .into();
    let value = cx.graph_value(op, &free, &[])?;
    cx.tensor_names.insert(free);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::{decimal, one_minus};

    #[test]
    fn attributes_are_the_decimals_they_were_written_as() {
        assert_eq!(decimal(0.9f32).to_bits(), 0.9f64.to_bits());
        assert_eq!(decimal(1e-5f32).to_bits(), 1e-5f64.to_bits());
        assert_eq!(one_minus(0.9f32).to_bits(), 0.1f64.to_bits());
        assert_eq!(one_minus(0.99f32).to_bits(), 0.01f64.to_bits());
        assert_eq!(one_minus(0.997f32).to_bits(), 0.003f64.to_bits());
        assert_eq!(one_minus(1.0f32), 0.0);
        assert_eq!(one_minus(0.0f32), 1.0);
        assert_eq!(one_minus(1e-40f32), 1.0);
    }
}
