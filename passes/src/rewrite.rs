//! Local rewrites: a [`Rule`] looks at one node and returns a checked [`Patch`]; [`rewrite`] walks the graph,
//! applies, counts and bounds the fixpoint. No pass walks the graph for a local rewrite itself.

use syncbn_ir::{Graph, NodeId, Op, TensorType, Value};

use crate::error::PassError;
use crate::pass::{Changes, PassContext};

/// A value that a patch names: of the graph, or of a node that the patch adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchValue {
    /// A value of the graph.
    Old(Value),
    /// Output `slot` of the patch's node `node`.
    New {
        /// Index among the added nodes.
        node: usize,
        /// Which of its outputs.
        slot: usize,
    },
}

impl From<Value> for PatchValue {
    fn from(value: Value) -> PatchValue {
        PatchValue::Old(value)
    }
}

impl PatchValue {
    /// Another output of the same node.
    pub fn slot(self, slot: usize) -> PatchValue {
        match self {
            PatchValue::Old(v) => PatchValue::Old(Value { node: v.node, slot }),
            PatchValue::New { node, .. } => PatchValue::New { node, slot },
        }
    }
}

#[derive(Debug)]
struct PatchNode {
    op: Op,
    name: String,
    operands: Vec<PatchValue>,
    types: Vec<TensorType>,
}

/// Nodes to add and values to replace by others of the same type. Nodes that lose their last user are
/// removed by the driver.
#[derive(Debug, Default)]
pub struct Patch {
    nodes: Vec<PatchNode>,
    replacements: Vec<(Value, PatchValue)>,
}

impl Patch {
    /// A patch that replaces one value by another of the graph.
    pub fn forward(old: Value, new: Value) -> Patch {
        let mut patch = Patch::default();
        patch.replace(old, new);
        patch
    }

    /// A patch that replaces one value by a new node's first output.
    pub fn replace_with(
        graph: &Graph,
        old: Value,
        op: impl Into<Op>,
        operands: &[Value],
    ) -> Result<Patch, PassError> {
        let mut patch = Patch::default();
        let operands: Vec<PatchValue> = operands.iter().map(|&v| v.into()).collect();
        let new = patch.add(graph, op, &graph.node(old.node).name, &operands)?;
        patch.replace(old, new);
        Ok(patch)
    }

    /// Adds a node and returns its first output. Types are inferred at once.
    pub fn add(
        &mut self,
        graph: &Graph,
        op: impl Into<Op>,
        name: &str,
        operands: &[PatchValue],
    ) -> Result<PatchValue, PassError> {
        let op = op.into();
        let operand_types: Option<Vec<&TensorType>> = operands.iter().map(|&v| self.ty(graph, v)).collect();
        let types = match operand_types {
            Some(types) => op.infer(&types),
            None => Err("an operand does not exist".to_string()),
        };
        let types = types.map_err(|message| syncbn_ir::GraphError::Type {
            name: name.to_string(),
            op: op.name().to_string(),
            message,
        })?;
        self.nodes.push(PatchNode {
            op,
            name: name.to_string(),
            operands: operands.to_vec(),
            types,
        });
        Ok(PatchValue::New {
            node: self.nodes.len() - 1,
            slot: 0,
        })
    }

    /// Lets every reader of `old` read `new` once the patch is applied. Replacements happen in the order in
    /// which they are asked for.
    pub fn replace(&mut self, old: Value, new: impl Into<PatchValue>) {
        self.replacements.push((old, new.into()));
    }

    /// The type of a value of the graph or of the patch.
    pub fn ty<'a>(&'a self, graph: &'a Graph, value: PatchValue) -> Option<&'a TensorType> {
        match value {
            PatchValue::Old(v) => graph.try_type(v),
            PatchValue::New { node, slot } => self.nodes.get(node)?.types.get(slot),
        }
    }

    fn check(&self, graph: &Graph) -> Result<(), String> {
        for &(old, new) in &self.replacements {
            let (old_ty, new_ty) = (graph.try_type(old), self.ty(graph, new));
            match (old_ty, new_ty) {
                (Some(a), Some(b)) if a == b => {}
                (Some(a), Some(b)) => return Err(format!("replaces a value of type {a} by one of type {b}")),
                _ => return Err("replaces a value that does not exist".to_string()),
            }
        }
        match self.replacements.is_empty() {
            true => Err("replaces nothing".to_string()),
            false => Ok(()),
        }
    }

    /// Applies the patch; returns the nodes that may be dead now: those that lost readers, and those it added.
    fn apply(self, graph: &mut Graph) -> Result<Vec<NodeId>, PassError> {
        let mut added: Vec<NodeId> = Vec::with_capacity(self.nodes.len());
        let find = |added: &[NodeId], v: PatchValue| match v {
            PatchValue::Old(v) => v,
            PatchValue::New { node, slot } => Value {
                node: added[node],
                slot,
            },
        };
        for node in self.nodes {
            let operands: Vec<Value> = node.operands.iter().map(|&v| find(&added, v)).collect();
            added.push(graph.add(node.op, &node.name, &operands)?);
        }
        for &(old, new) in &self.replacements {
            graph.replace_uses(old, find(&added, new))?;
        }
        added.extend(self.replacements.iter().map(|(old, _)| old.node));
        Ok(added)
    }
}

/// A rule's function: looks at one node, changes nothing, returns the patch if it matches.
pub type Matcher = fn(&Graph, NodeId, &mut PassContext) -> Result<Option<Patch>, PassError>;

/// A local rewrite.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Its name, for messages.
    pub name: &'static str,
    /// Its function.
    pub matcher: Matcher,
}

/// Applies the rules everywhere, operands before users, until none matches; removes what dies. Returns the
/// number of patches applied and of nodes that were dead before. Fails when the rules do not come to an end.
pub fn rewrite(graph: &mut Graph, rules: &[Rule], cx: &mut PassContext) -> Result<Changes, PassError> {
    let mut changes = graph.remove_dead();
    let bound = 16 * graph.len() + 256;
    loop {
        let before = changes;
        for id in graph.topological()? {
            for rule in rules {
                if !graph.contains(id) {
                    break;
                }
                let Some(patch) = (rule.matcher)(graph, id, cx)? else {
                    continue;
                };
                let error = |message| PassError::Rule {
                    rule: rule.name,
                    message,
                };
                patch.check(graph).map_err(error)?;
                let replaced = patch.apply(graph)?;
                graph.remove_unread(&replaced);
                changes += 1;
                if changes > bound {
                    return Err(error(format!(
                        "the rules did not come to an end after {bound} patches"
                    )));
                }
            }
        }
        if changes == before {
            return Ok(changes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncbn_ir::ops::{Cast, Identity, Input, Role, Unary, UnaryFunction};
    use syncbn_ir::{DType, Output, OutputKind};

    fn graph() -> Graph {
        let mut graph = Graph::new("g");
        let ty = TensorType::batched(DType::F32, &[2]);
        let name = "x".to_string();
        let x = graph
            .add_value(
                Input {
                    name,
                    role: Role::Data,
                    ty,
                },
                "x",
                &[],
            )
            .unwrap();
        let relu = Unary {
            function: UnaryFunction::Relu,
        };
        let value = graph.add_value(relu, "relu", &[x]).unwrap();
        graph.outputs.push(Output {
            kind: OutputKind::Output,
            name: "y".to_string(),
            value,
        });
        graph
    }

    #[test]
    fn a_patch_of_another_type_is_refused() {
        let rule = Rule {
            name: "to-f64",
            matcher: |graph, id, _| match graph.op(id) {
                Op::Unary(_) => {
                    let cast = Cast { dtype: DType::F64 };
                    let operand = graph.operands(id)[0];
                    Patch::replace_with(graph, id.into(), cast, &[operand]).map(Some)
                }
                _ => Ok(None),
            },
        };
        let error = rewrite(&mut graph(), &[rule], &mut PassContext::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("f32[batch, 2] by one of type f64[batch, 2]"),
            "{error}"
        );
    }

    #[test]
    fn rules_without_an_end_are_stopped() {
        let rule = Rule {
            name: "grow",
            matcher: |graph, id, _| match graph.op(id) {
                Op::Unary(_) | Op::Identity(_) => {
                    let operand = graph.operands(id)[0];
                    Patch::replace_with(graph, id.into(), Identity {}, &[operand]).map(Some)
                }
                _ => Ok(None),
            },
        };
        let error = rewrite(&mut graph(), &[rule], &mut PassContext::default()).unwrap_err();
        assert!(error.to_string().contains("grow"), "{error}");
    }
}
