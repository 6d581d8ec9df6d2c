//! `differentiate`: adds the backward pass, by reverse mode from the loss.
//!
//! Before:
//! ```text
//! %1 = matmul(%x, %w)
//! %2 = softmax_cross_entropy(%1, %target)
//! loss "loss" %2
//! ```
//! After:
//! ```text
//! %3 = softmax_cross_entropy_backward(%1, %target)
//! %4 = matmul(%x, %3) {transpose_a = true}
//! loss "loss" %2
//! gradient "w" %4
//! ```
//!
//! Every trained parameter becomes a `gradient` output, in the order of the parameters: of a rank's own
//! samples, so that the sum over ranks is the gradient. A parameter that the loss does not reach gets zeros.
//! Gradients of data inputs are taken only for tests; nothing is computed that no output needs.
//!
//! It leaves alone a graph that has gradients, and refuses operators that are already lowered (`normalize`, a
//! convolution with an epilogue, an all-reduce): their derivative is not stated.

mod accumulate;
mod batch_norm;
mod products;
mod rules;

use std::collections::BTreeSet;

use syncbn_ir::ops::{Expand, Role, literal};
use syncbn_ir::{Graph, Literal, NodeId, Op, Output, OutputKind, TensorType, Value};

use crate::error::{Fault, Faults, PassError};
use crate::pass::{Changes, Pass, PassContext};

use accumulate::Backward;

/// The pass.
pub struct Differentiate;

impl Pass for Differentiate {
    fn name(&self) -> &'static str {
        "differentiate"
    }

    fn summary(&self) -> &'static str {
        "adds the backward pass: the gradient of every trained parameter"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        if graph.outputs.iter().any(|o| o.kind == OutputKind::Gradient) {
            return Ok(0);
        }
        let loss = graph.outputs.iter().find(|o| o.kind == OutputKind::Loss);
        let loss = loss.map(|o| o.value).ok_or_else(|| {
            Fault::user("the graph has no loss to differentiate").help("run add-loss before")
        })?;
        let sources = sources(graph, cx.options.input_gradients);
        let order = graph.topological()?;
        let needed = reached_from(graph, &order, &sources);
        let mut backward = Backward::new(graph, needed, loss);
        let mut faults = Faults::default();
        for &id in order.iter().rev() {
            let done = rules::differentiate_node(&mut backward, id);
            if faults.keep(done)?.is_none() {
                // The walk goes on with zeros, so that what comes before is checked too.
                for operand in backward.graph.operands(id) {
                    let operand = Value::from(operand.node);
                    let ty = backward.graph.ty(operand).clone();
                    if backward.needs(operand) && ty.dtype.is_float() {
                        let zeros = zeros(backward.graph, "", ty)?;
                        backward.contribute(operand, zeros);
                    }
                }
            }
        }
        faults.check()?;
        let mut gradients = Vec::with_capacity(sources.len());
        for (name, id) in sources {
            let value = match backward.gradient(id.into())? {
                Some(value) => value,
                None => zeros(backward.graph, &name, backward.graph.ty(id.into()).clone())?,
            };
            gradients.push(Output {
                kind: OutputKind::Gradient,
                name,
                value,
            });
        }
        let changes = gradients.len();
        graph.outputs.extend(gradients);
        graph.remove_dead();
        Ok(changes)
    }
}

/// What gradients are taken of: trained parameters, then inputs if these are wanted.
fn sources(graph: &Graph, inputs: bool) -> Vec<(String, NodeId)> {
    let parameters = graph.nodes().filter_map(|id| match graph.op(id) {
        Op::Parameter(p) if p.trained => Some((p.name.clone(), id)),
        _ => None,
    });
    let data = graph.nodes().filter_map(|id| match graph.op(id) {
        Op::Input(i) if inputs && i.role == Role::Data && i.ty.dtype.is_float() => Some((i.name.clone(), id)),
        _ => None,
    });
    parameters.chain(data).collect()
}

fn reached_from(graph: &Graph, order: &[NodeId], sources: &[(String, NodeId)]) -> BTreeSet<NodeId> {
    let mut set: BTreeSet<NodeId> = sources.iter().map(|&(_, id)| id).collect();
    for &id in order {
        if graph.operands(id).iter().any(|v| set.contains(&v.node)) {
            set.insert(id);
        }
    }
    set
}

/// Zeros of a type, batch or not.
fn zeros(graph: &mut Graph, name: &str, ty: TensorType) -> Result<Value, PassError> {
    let zero = graph.add_value(literal(Literal::scalar(ty.dtype, 0.0)), name, &[])?;
    Ok(graph.add_value(Expand { shape: ty.shape }, name, &[zero])?)
}
