//! What this target cannot lower, found on all nodes before any of them is lowered.

use syncbn_ir::ops::Op;
use syncbn_ir::{DType, Graph, Layout, NodeId, TensorType};

use crate::error::{LowerError, Unsupported};
use crate::program::{Part, Program};

/// Which layouts a target knows.
pub type Known<'a> = &'a dyn Fn(Layout) -> bool;

/// Refuses a program that has nodes without a lowering, or in other layouts or element types than these, and names all
/// of them.
pub fn check(program: &Program, layouts: Known, dtypes: &[DType]) -> Result<(), LowerError> {
    let mut list: Vec<Unsupported> = Vec::new();
    for Part {
        graph, prepare, step, ..
    } in program.train.iter().chain(&program.infer)
    {
        for &id in prepare.iter().chain(*step) {
            let node = graph.node(id);
            let found = reasons(graph, id, (layouts, dtypes))
                .into_iter()
                .map(|(message, help)| Unsupported {
                    node: node.name.clone(),
                    op: node.op.name().to_string(),
                    message,
                    help: help.to_string(),
                });
            for unsupported in found {
                if !list.contains(&unsupported) {
                    list.push(unsupported);
                }
            }
        }
    }
    match list.is_empty() {
        true => Ok(()),
        false => Err(LowerError::Unsupported(list)),
    }
}

/// Why a node cannot be lowered, and what to do.
fn reasons(graph: &Graph, id: NodeId, (known, dtypes): (Known, &[DType])) -> Vec<(String, &'static str)> {
    let node = graph.node(id);
    let mut reasons = Vec::new();
    let whole = match &node.op {
        Op::BatchNorm(op) => op.training,
        Op::BatchNormBackward(_) => true,
        _ => false,
    };
    if whole {
        reasons.push((
            "is lowered only after bn-to-syncbn has replaced it".to_string(),
            "let bn-to-syncbn run: see --passes and --skip",
        ));
    }
    let operands = graph.operands(id).into_iter().map(|v| graph.ty(v));
    let types: Vec<&TensorType> = operands
        .chain(node.outputs.iter().map(|output| &output.ty))
        .collect();
    let mut layouts: Vec<Layout> = types
        .iter()
        .map(|ty| ty.layout)
        .filter(|&layout| !known(layout))
        .collect();
    layouts.dedup();
    reasons.extend(layouts.iter().map(|layout| {
        let message = format!("layout {layout} has no schedule on this target");
        (message, "give another --target, or the tensors another layout")
    }));
    if let Some(ty) = types.iter().find(|ty| !dtypes.contains(&ty.dtype)) {
        let message = format!("this target does not compute with {}", ty.dtype);
        reasons.push((message, "give another --target or --precision"));
    }
    reasons
}
