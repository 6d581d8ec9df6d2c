//! `recognize-composites`: finds functions that a file spells out in primitive operators.
//!
//! Before:
//! ```text
//! %1 = unary(%0) {function = sigmoid}
//! %2 = binary(%0, %1) {function = mul}
//! ```
//! After:
//! ```text
//! %2 = unary(%0) {function = silu}
//! ```
//!
//! Either operand order matches. A sigmoid that others read too stays for them. It leaves alone a product of
//! the sigmoid of another value (the gate of a squeeze-and-excitation block).

use syncbn_ir::ops::{BinaryFunction, Unary, UnaryFunction};
use syncbn_ir::{Graph, NodeId, Op};

use crate::error::PassError;
use crate::pass::{Changes, Pass, PassContext};
use crate::rewrite::{Patch, Rule, rewrite};

/// The pass.
pub struct RecognizeComposites;

impl Pass for RecognizeComposites {
    fn name(&self) -> &'static str {
        "recognize-composites"
    }

    fn summary(&self) -> &'static str {
        "finds functions that a file spells out in primitive operators: silu"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        let rule = Rule {
            name: "silu",
            matcher: silu,
        };
        rewrite(graph, &[rule], cx)
    }
}

fn silu(graph: &Graph, id: NodeId, _: &mut PassContext) -> Result<Option<Patch>, PassError> {
    let (Op::Binary(op), &[a, b]) = (graph.op(id), graph.operands(id).as_slice()) else {
        return Ok(None);
    };
    if op.function != BinaryFunction::Mul {
        return Ok(None);
    }
    for (x, gate) in [(a, b), (b, a)] {
        let sigmoid = matches!(graph.op(gate.node), Op::Unary(u) if u.function == UnaryFunction::Sigmoid);
        if sigmoid && graph.operand(gate.node, 0) == Some(x) {
            let silu = Unary {
                function: UnaryFunction::Silu,
            };
            return Patch::replace_with(graph, id.into(), silu, &[x]).map(Some);
        }
    }
    Ok(None)
}
