//! What handlers ask about operands: sizes, integers and constants.

use std::collections::BTreeMap;
use std::rc::Rc;

use syncbn_ir::ops::StepInfo;
use syncbn_ir::{Array, NodeId, Op, Shape, Value};

use crate::attributes::OnnxNode;
use crate::binding::Binding;
use crate::error::ImportError;
use crate::importer::Importer;
use crate::initializers::as_integers;
use crate::integers::Integers;

/// Most elements of a value that is folded during import, and most nodes.
const MAX_FOLD: usize = 1 << 16;

impl Importer<'_> {
    /// The sizes of an operand without a batch dimension.
    pub(crate) fn dims(&self, binding: &Binding) -> Option<Vec<usize>> {
        self.dims_of(&self.shape(binding)?)
    }

    /// The sizes of a shape without a batch dimension.
    pub(crate) fn dims_of(&self, shape: &Shape) -> Option<Vec<usize>> {
        (!shape.has_batch()).then(|| shape.sizes(0))
    }

    /// The shape of an operand.
    pub(crate) fn shape(&self, binding: &Binding) -> Option<Shape> {
        match binding {
            Binding::Value(value) => Some(self.graph.ty(*value).shape.clone()),
            Binding::Integers(integers) => Some(Shape::fixed(&integers.dims)),
            Binding::Weight(weight) => Some(Shape::fixed(&self.initializers[weight.index].dims)),
            Binding::Sequence(_) | Binding::Failed => None,
        }
    }

    /// Input `i` as known integers, which may depend on the batch.
    pub(crate) fn integers(&self, node: &OnnxNode, i: usize) -> Result<Rc<Integers>, ImportError> {
        let binding = self.binding(node, i)?;
        as_integers(&binding).ok_or_else(|| {
            let name = node.input(i).unwrap_or_default();
            match binding {
                Binding::Weight(_) => {
                    ImportError::user(format!("input \"{name}\" must be an integer tensor"))
                }
                _ => ImportError::unsupported(format!("input \"{name}\" is not known during compilation")),
            }
        })
    }

    /// Input `i` as integers that do not depend on the batch.
    pub(crate) fn integers_of(&self, node: &OnnxNode, i: usize) -> Result<Vec<i64>, ImportError> {
        let integers = self.integers(node, i)?;
        integers.constants().ok_or_else(|| {
            let name = node.input(i).unwrap_or_default();
            ImportError::unsupported(format!("input \"{name}\" depends on the batch"))
        })
    }

    /// The values of input `i`, if it is a constant; initializers count.
    pub(crate) fn constant(&self, node: &OnnxNode, i: usize) -> Result<Option<Vec<f64>>, ImportError> {
        Ok(match self.binding(node, i)? {
            Binding::Integers(integers) => integers
                .constants()
                .map(|values| values.into_iter().map(|v| v as f64).collect()),
            Binding::Weight(weight) if self.is_small(weight.index) => {
                self.weight_literal(&weight)?.map(|literal| literal.to_f64())
            }
            Binding::Value(value) => self.fold(value).map(|array| array.data),
            Binding::Weight(_) | Binding::Sequence(_) | Binding::Failed => None,
        })
    }

    fn is_small(&self, initializer: usize) -> bool {
        self.initializers[initializer]
            .dims
            .iter()
            .try_fold(1usize, |p, &d| p.checked_mul(d))
            .is_some_and(|n| n <= MAX_FOLD)
    }

    /// The value of a small subgraph of constants, in float64.
    pub(crate) fn fold(&self, value: Value) -> Option<Array> {
        let mut done: BTreeMap<NodeId, Vec<Array>> = BTreeMap::new();
        let mut stack = vec![value.node];
        while let Some(&id) = stack.last() {
            if done.contains_key(&id) {
                stack.pop();
                continue;
            }
            if stack.len() + done.len() > MAX_FOLD {
                return None;
            }
            let small = |ty: &syncbn_ir::TensorType| {
                !ty.shape.has_batch() && ty.shape.elements_per_sample().is_some_and(|n| n <= MAX_FOLD)
            };
            if !is_cheap(self.graph.op(id)) || !self.graph.node(id).outputs.iter().all(|o| small(&o.ty)) {
                return None;
            }
            let operands = self.graph.operands(id);
            let before = stack.len();
            stack.extend(operands.iter().map(|v| v.node).filter(|n| !done.contains_key(n)));
            if stack.len() > before {
                continue;
            }
            let arrays: Vec<&Array> = operands
                .iter()
                .filter_map(|v| done.get(&v.node)?.get(v.slot))
                .collect();
            let results = self
                .graph
                .op(id)
                .evaluate(&arrays, StepInfo { n: 0, total: 0 })
                .ok()?;
            stack.pop();
            done.insert(id, results);
        }
        done.remove(&value.node)?.into_iter().nth(value.slot)
    }
}

/// Whether an operator takes time in proportion to its operands and results, and reads nothing but these.
fn is_cheap(op: &Op) -> bool {
    matches!(
        op,
        Op::Constant(_)
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Reduce(_)
            | Op::Expand(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Concat(_)
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Cast(_)
            | Op::Identity(_)
            | Op::Dropout(_)
    )
}
