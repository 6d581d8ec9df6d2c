//! `add-loss`: takes the loss of an output.
//!
//! Before:
//! ```text
//! output "logits" %1
//! ```
//! After, with `--loss cross-entropy` and `%1 : f32[batch, 10]`:
//! ```text
//! %2 = input {name = "target", role = target, ty = i64[batch]}
//! %3 = softmax_cross_entropy(%1, %2)
//! output "logits" %1
//! loss "loss" %3
//! ```
//!
//! `--loss mse` takes a target of the output's type. It leaves alone a graph that has a loss.

use syncbn_ir::ops::{Input, MeanSquaredError, Role, SoftmaxCrossEntropy};
use syncbn_ir::{DType, Graph, Op, Output, OutputKind, TensorType};

use crate::error::PassError;
use crate::options::Loss;
use crate::pass::{Changes, Pass, PassContext};

/// Name of the input that holds the target.
pub const TARGET: &str = "target";

/// The pass.
pub struct AddLoss;

impl Pass for AddLoss {
    fn name(&self) -> &'static str {
        "add-loss"
    }

    fn summary(&self) -> &'static str {
        "takes the loss of an output (--loss, --loss-output)"
    }

    fn run(&self, graph: &mut Graph, cx: &mut PassContext) -> Result<Changes, PassError> {
        if graph.outputs.iter().any(|o| o.kind == OutputKind::Loss) {
            return Ok(0);
        }
        let output = choose(graph, cx.options.loss_output.as_deref())?;
        let ty = graph.ty(output.value).clone();
        let name = &output.name;
        if let Some(id) = graph
            .nodes()
            .find(|&id| matches!(graph.op(id), Op::Input(i) if i.name == TARGET))
        {
            return Err(PassError::User(format!(
                "input \"{}\" has the name that training data keeps for the target: rename it in the model",
                graph.node(id).name
            )));
        }
        if !ty.dtype.is_float() || !ty.shape.has_batch() || ty.shape.rank() < 2 {
            return Err(PassError::User(format!(
                "the loss cannot be taken of output \"{name}\" of type {ty}: it must be floating point and have a batch and a class axis; name another output with --loss-output"
            )));
        }
        let target = match cx.options.loss {
            Loss::CrossEntropy => {
                let mut labels = TensorType::new(DType::I64, ty.shape.clone());
                labels.shape.0.remove(1);
                labels
            }
            Loss::MeanSquaredError => ty,
        };
        let input = Input {
            name: TARGET.to_string(),
            role: Role::Target,
            ty: target,
        };
        let target = graph.add_value(input, TARGET, &[])?;
        let operands = [output.value, target];
        let value = match cx.options.loss {
            Loss::CrossEntropy => graph.add_value(SoftmaxCrossEntropy {}, "loss", &operands)?,
            Loss::MeanSquaredError => graph.add_value(MeanSquaredError {}, "loss", &operands)?,
        };
        graph.outputs.push(Output {
            kind: OutputKind::Loss,
            name: "loss".to_string(),
            value,
        });
        Ok(1)
    }
}

fn choose(graph: &Graph, name: Option<&str>) -> Result<Output, PassError> {
    let outputs: Vec<&Output> = graph
        .outputs
        .iter()
        .filter(|o| o.kind == OutputKind::Output)
        .collect();
    let names = || {
        let names: Vec<String> = outputs.iter().map(|o| format!("\"{}\"", o.name)).collect();
        names.join(", ")
    };
    match (name, outputs.as_slice()) {
        (_, []) => Err(PassError::User(
            "the network has no output to take the loss of".to_string(),
        )),
        (None, &[only]) => Ok(only.clone()),
        (None, _) => Err(PassError::User(format!(
            "the network has several outputs: name the one that the loss is taken of with --loss-output; outputs are {}",
            names()
        ))),
        (Some(name), _) => match outputs.iter().find(|o| o.name == name) {
            Some(&output) => Ok(output.clone()),
            None => Err(PassError::User(format!(
                "--loss-output \"{name}\" is not an output; outputs are {}",
                names()
            ))),
        },
    }
}
