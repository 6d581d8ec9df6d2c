//! Operators that pass elements on: Identity, Dropout, Cast and CastLike.

use syncbn_ir::DType;
use syncbn_ir::ops::{Cast, Dropout, Identity};

use crate::attributes::OnnxNode;
use crate::binding::{Binding, Weight};
use crate::error::ImportError;
use crate::importer::Importer;
use crate::integers::{Integers, Size};
use crate::tensors::Element;

type Imported = Result<Vec<Binding>, ImportError>;

/// A copy of an initializer stays an initializer that knows the copy's name, for BatchNorm's slots.
pub(super) fn identity(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let binding = match cx.binding(node, 0)? {
        Binding::Weight(weight) => Binding::Weight(Weight {
            index: weight.index,
            copy: node.proto.output.first().cloned(),
        }),
        Binding::Value(x) => cx.add(node, Identity {}, &[x])?.into(),
        other => other,
    };
    Ok(vec![binding])
}

/// `Dropout`: kept as a node, so that its removal can be reported.
pub(super) fn dropout(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, if node.opset < 12 { 1 } else { 3 })?;
    let ratio = if node.opset < 12 {
        node.float("ratio")?.map(f64::from)
    } else if node.input(1).is_some() {
        match cx.constant(node, 1)?.as_deref() {
            Some(&[ratio]) => Some(ratio),
            _ => return Err(ImportError::unsupported("a ratio that is not a constant")),
        }
    } else {
        None
    };
    let ratio = ratio.unwrap_or(0.5);
    if !(0.0..1.0).contains(&ratio) {
        return Err(ImportError::user(format!(
            "ratio is {ratio}: must be at least 0 and below 1"
        )));
    }
    let x = cx.value(node, 0)?;
    Ok(vec![cx.add(node, Dropout { ratio }, &[x])?.into()])
}

pub(super) fn cast(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(1, 1)?;
    let to = node
        .int("to")?
        .ok_or_else(|| ImportError::user("attribute to is missing"))?;
    let number = i32::try_from(to).map_err(|_| ImportError::user(format!("element type {to} is unknown")))?;
    convert(cx, node, Element::new(number)?, number == 9)
}

pub(super) fn cast_like(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(2, 2)?;
    let element = match cx.binding(node, 1)? {
        Binding::Integers(_) => Element::Signed(8),
        other => {
            let dtype = match &other {
                Binding::Value(value) => cx.ty(*value).dtype,
                Binding::Weight(weight) => cx.weight_dtype(weight),
                _ => cx.file_dtype,
            };
            if dtype.is_float() {
                Element::Float(dtype)
            } else {
                Element::Signed(8)
            }
        }
    };
    convert(cx, node, element, false)
}

fn convert(cx: &mut Importer, node: &OnnxNode, to: Element, to_bool: bool) -> Imported {
    let binding = cx.binding(node, 0)?;
    match (&binding, to) {
        (Binding::Integers(integers), Element::Float(dtype)) => {
            let values = integers.constants().ok_or_else(|| {
                ImportError::unsupported("a size that depends on the batch becomes a floating-point number")
            })?;
            let values: Vec<f64> = values.into_iter().map(|v| v as f64).collect();
            let literal = syncbn_ir::Literal::from_f64(cx.float_dtype(dtype), &integers.dims, &values);
            Ok(vec![cx.add(node, syncbn_ir::ops::literal(literal), &[])?.into()])
        }
        (Binding::Integers(integers), _) if to_bool => {
            let truth = |&v: &Size| match v.equal(Size::from(0)) {
                Size::Unknown => Size::Unknown,
                zero => Size::from(1).sub(zero),
            };
            let values = integers.values.iter().map(truth).collect();
            Ok(vec![
                Integers {
                    dims: integers.dims.clone(),
                    values,
                }
                .into(),
            ])
        }
        (Binding::Integers(_), _) => Ok(vec![binding]),
        (_, Element::Float(dtype)) => {
            let x = cx.value(node, 0)?;
            let dtype = cx.float_dtype(dtype);
            Ok(vec![cx.add(node, Cast { dtype }, &[x])?.into()])
        }
        (_, Element::Signed(8)) => integers_of_constant(cx, node),
        _ => Err(ImportError::unsupported(
            "a conversion to an integer type is not supported",
        )),
    }
}

/// A floating-point constant that becomes an integer, as in computed sizes.
fn integers_of_constant(cx: &mut Importer, node: &OnnxNode) -> Imported {
    let dims = cx.dims(&cx.binding(node, 0)?);
    match (dims, cx.constant(node, 0)?) {
        (Some(dims), Some(values)) => {
            let values = values.into_iter().map(|v| Size::from(v as i64)).collect();
            Ok(vec![Integers { dims, values }.into()])
        }
        _ => {
            let x = cx.value(node, 0)?;
            if cx.ty(x).dtype == DType::I64 {
                return Ok(vec![x.into()]);
            }
            Err(ImportError::unsupported(
                "a conversion to an integer type is not supported",
            ))
        }
    }
}
