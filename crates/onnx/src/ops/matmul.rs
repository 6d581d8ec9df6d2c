//! Gemm and MatMul.

use syncbn_ir::ops::{Binary, BinaryFunction, MatMul, literal};
use syncbn_ir::{Literal, Value};

use crate::attributes::OnnxNode;
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;

type Imported = Result<Vec<Binding>, ImportError>;

/// `Gemm`: `alpha * a * b + beta * c`; factors of 1 leave nothing behind.
pub(super) fn gemm(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(2, 3)?;
    let op = MatMul {
        transpose_a: node.flag("transA", false)?,
        transpose_b: node.flag("transB", false)?,
        wide: false,
    };
    let alpha = f64::from(node.float("alpha")?.unwrap_or(1.0));
    let beta = f64::from(node.float("beta")?.unwrap_or(1.0));
    let (a, b) = (cx.value(node, 0)?, cx.value(node, 1)?);
    let c = cx.optional_value(node, 2)?;
    let product = cx.add(node, op, &[a, b])?;
    let mut y = scale(cx, node, product, alpha)?;
    if let Some(c) = c.filter(|_| beta != 0.0) {
        let c = scale(cx, node, c, beta)?;
        y = cx.add(
            node,
            Binary {
                function: BinaryFunction::Add,
            },
            &[y, c],
        )?;
        if cx.ty(y).shape != cx.ty(product).shape {
            let text = format!("c of type {} does not broadcast to {}", cx.ty(c), cx.ty(product));
            return Err(ImportError::user(text));
        }
    }
    Ok(vec![y.into()])
}

fn scale(cx: &mut Importer, node: &OnnxNode, x: Value, factor: f64) -> Result<Value, ImportError> {
    if factor == 1.0 {
        return Ok(x);
    }
    let factor = Literal::scalar(cx.ty(x).dtype, factor);
    let factor = cx.add(node, literal(factor), &[])?;
    cx.add(
        node,
        Binary {
            function: BinaryFunction::Mul,
        },
        &[x, factor],
    )
}

/// `MatMul` of two matrices.
pub(super) fn matmul(cx: &mut Importer, node: &OnnxNode) -> Imported {
    node.expect_inputs(2, 2)?;
    let (a, b) = (cx.value(node, 0)?, cx.value(node, 1)?);
    let (left, right) = (cx.ty(a), cx.ty(b));
    if left.shape.rank() != 2 || right.shape.rank() != 2 {
        return Err(ImportError::unsupported(format!(
            "MatMul (opset {}) of {left} and {right}: only matrices are supported",
            node.opset
        )));
    }
    let op = MatMul {
        transpose_a: false,
        transpose_b: false,
        wide: false,
    };
    Ok(vec![cx.add(node, op, &[a, b])?.into()])
}
