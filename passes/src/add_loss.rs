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

use crate::error::{Fault, Faults, PassError};
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
        let mut faults = Faults::default();
        if graph
            .nodes()
            .any(|id| matches!(graph.op(id), Op::Input(i) if i.name == TARGET))
        {
            let fault = Fault::user("has the name that training data keeps for the target");
            faults.push(
                fault
                    .at(format!("input \"{TARGET}\""))
                    .help("rename it in the model"),
            );
        }
        let Some(output) = faults.keep(choose(graph, cx.options.loss_output.as_deref()))? else {
            return faults.check().map(|()| 0);
        };
        let ty = graph.ty(output.value).clone();
        if !ty.dtype.is_float() || !ty.shape.has_batch() || ty.shape.rank() < 2 {
            let fault = Fault::user(format!(
                "the loss cannot be taken of type {ty}: it must be floating point and have a batch and a class axis"
            ));
            let place = format!("output \"{}\"", output.name);
            faults.push(fault.at(place).help("name another output with --loss-output"));
        }
        faults.check()?;
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
        (_, []) => Err(Fault::user("the network has no output to take the loss of")
            .help("export it with one, or give --mode infer")
            .into()),
        (None, &[only]) => Ok(only.clone()),
        (None, _) => {
            let fault = Fault::user("the network has several outputs, and the loss is taken of one");
            let help = format!("name it with --loss-output; outputs are {}", names());
            Err(fault.help(help).into())
        }
        (Some(name), _) => match outputs.iter().find(|o| o.name == name) {
            Some(&output) => Ok(output.clone()),
            None => {
                let fault = Fault::user(format!("the network has no output \"{name}\""));
                let place = format!("--loss-output {name}");
                Err(fault.at(place).help(format!("outputs are {}", names())).into())
            }
        },
    }
}
