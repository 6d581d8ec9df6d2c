//! Constant and ConstantOfShape.

use std::sync::Arc;

use syncbn_ir::ops::{Constant, Expand};
use syncbn_ir::{DType, Literal, Shape};

use crate::attributes::OnnxNode;
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::initializers::integers;
use crate::integers::{Integers, Size, small};
use crate::proto::TensorProto;
use crate::tensors::{Element, Tensor};

type Imported = Result<Vec<Binding>, ImportError>;

fn add(cx: &mut Importer, node: &OnnxNode, literal: Literal) -> Result<Binding, ImportError> {
    let op = Constant {
        value: Arc::new(literal),
    };
    Ok(cx.add(node, op, &[])?.into())
}

/// A tensor attribute as a binding.
fn tensor(cx: &mut Importer, node: &OnnxNode, tensor: &TensorProto) -> Result<Binding, ImportError> {
    let header = Tensor::check(tensor, cx.folder)?;
    match header.element {
        Element::Float(dtype) => {
            if header.dims.contains(&0) {
                return Err(ImportError::user(format!(
                    "a constant of shape {:?} is empty",
                    header.dims
                )));
            }
            let literal = header.literal(tensor, cx.float_dtype(dtype))?;
            add(cx, node, literal)
        }
        _ => Ok(integers(tensor, &header)?.into()),
    }
}

pub(super) fn constant(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(0, 0)?;
    let given = node
        .proto
        .attribute
        .iter()
        .map(|a| a.name())
        .filter(|n| n.starts_with("value"))
        .count();
    if given > 1 {
        return Err(ImportError::user("has more than one value attribute"));
    }
    let dtype = cx.float_dtype(DType::F32);
    let floats = |dims: &[usize], values: &[f32]| {
        let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        Literal::from_f64(dtype, dims, &values)
    };
    let binding = if let Some(value) = node.tensor("value")? {
        tensor(cx, node, value)?
    } else if let Some(value) = node.float("value_float")? {
        add(cx, node, floats(&[], &[value]))?
    } else if let Some(values) = node.floats("value_floats")? {
        add(cx, node, floats(&[values.len()], values))?
    } else if let Some(value) = node.int("value_int")? {
        Integers::scalar(Size::from(value)).into()
    } else if let Some(values) = node.ints("value_ints")? {
        Integers::vector(values.iter().map(|&v| Size::from(v)).collect()).into()
    } else if node.has("sparse_value") {
        return Err(ImportError::unsupported("sparse constants are not supported"));
    } else if given > 0 {
        return Err(ImportError::unsupported("string constants are not supported"));
    } else {
        return Err(ImportError::user("has no value"));
    };
    Ok(vec![binding])
}

pub(super) fn constant_of_shape(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let sizes = cx.integers(node, 0)?;
    let Some(shape) = sizes.shape() else {
        return Err(ImportError::unsupported(
            "its shape has the batch elsewhere than in front, or negative sizes",
        ));
    };
    let value = node.tensor("value")?;
    let header = value.map(|v| Tensor::check(v, cx.folder)).transpose()?;
    if let (Some(value), Some(header)) = (value, &header)
        && !matches!(header.element, Element::Float(_))
    {
        let dims = cx.dims_of(&shape);
        let list = integers(value, header)?;
        return match (dims.as_deref().and_then(small), list.values.as_slice()) {
            (Some(total), &[value]) => Ok(vec![
                Integers {
                    dims: dims.unwrap_or_default(),
                    values: vec![value; total],
                }
                .into(),
            ]),
            (None, _) => Err(ImportError::unsupported(
                "an integer tensor of this shape is not supported",
            )),
            _ => Err(ImportError::user("its value must have one element")),
        };
    }
    let literal = match (value, header) {
        (Some(value), Some(header)) => {
            let dtype = cx.graph_dtype(header.element)?;
            header.literal(value, dtype)?
        }
        _ => Literal::from_f64(cx.float_dtype(DType::F32), &[1], &[0.0]),
    };
    if literal.len() != 1 {
        return Err(ImportError::user("its value must have one element"));
    }
    expand(cx, node, literal, shape)
}

fn expand(cx: &mut Importer, node: &OnnxNode, mut literal: Literal, shape: Shape) -> Imported {
    literal.dims.clear();
    let scalar = Constant {
        value: Arc::new(literal),
    };
    let scalar = cx.add(node, scalar, &[])?;
    Ok(vec![cx.add(node, Expand { shape }, &[scalar])?.into()])
}
