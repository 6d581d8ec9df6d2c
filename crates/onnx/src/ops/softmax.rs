//! Softmax and LogSoftmax at the end of a network.

use syncbn_ir::Warning;

use crate::attributes::{OnnxNode, axis};
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;

/// A final softmax over the classes is left out: the loss is taken before it.
pub(super) fn softmax(cx: &mut Importer, node: &OnnxNode) -> Result<Vec<Binding>, ImportError> {
    node.expect_inputs(1, 1)?;
    let op = node.proto.op_type();
    let name = node.proto.output.first().map(String::as_str).unwrap_or_default();
    let x = cx.value(node, 0)?;
    let ty = cx.ty(x);
    let default = if node.opset < 13 { 1 } else { -1 };
    let at = axis("axis", node.int("axis")?.unwrap_or(default), ty.shape.rank())?;
    // Below opset 13 all axes from `axis` on are normalised together.
    let over_classes = at == 1 && (node.opset >= 13 || ty.shape.rank() == 2);
    let last = cx.names.is_output(name) && cx.names.readers(name).is_empty();
    if !last || !over_classes {
        let text = format!(
            "{op} (opset {}) is supported over the classes of an output only",
            node.opset
        );
        return Err(ImportError::unsupported(text));
    }
    let text =
        format!("it ends the network: the loss is taken before it, and output \"{name}\" holds logits");
    cx.warnings.push(
        Warning::new(text)
            .at(format!("node \"{}\" ({op})", node.name))
            .help("apply softmax to the executable's outputs where probabilities are wanted"),
    );
    cx.softmax_outputs.push(name.to_string());
    Ok(vec![x.into()])
}
