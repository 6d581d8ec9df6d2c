//! Inputs, the target, outputs and parameters of a description.

use syncbn_abi::{ElementType, Initial, Order, Parameter, Target, Tensor};
use syncbn_ir::ops::{Op, ParameterData, Role};
use syncbn_ir::{DType, Graph, Layout, OutputKind, TensorType};
use syncbn_mlir::order;
use syncbn_passes::{Fault, Loss};

use crate::Error;
use crate::data::Bytes;

/// The runtime's name of an element type.
pub fn abi_type(dtype: DType) -> Result<ElementType, Error> {
    match dtype {
        DType::F32 => Ok(ElementType::F32),
        DType::F64 => Ok(ElementType::F64),
        DType::I64 => Ok(ElementType::I64),
        DType::BF16 | DType::U8 => Err(Error::internal(format!(
            "a {dtype} tensor would cross to the runtime"
        ))),
    }
}

/// Sizes without the batch.
pub fn fixed_sizes(ty: &TensorType) -> Vec<u64> {
    ty.shape
        .0
        .iter()
        .filter_map(|d| d.fixed())
        .map(|n| n as u64)
        .collect()
}

/// Data inputs in the order of their indices.
pub fn inputs(graph: &Graph) -> Result<Vec<Tensor>, Error> {
    let mut inputs = Vec::new();
    for id in graph.nodes() {
        if let Op::Input(input) = graph.op(id)
            && input.role == Role::Data
        {
            let (place, _) = order::place(graph, id.into())?;
            let element_type = abi_type(input.ty.dtype)?;
            inputs.push((
                place.offset,
                Tensor {
                    name: input.name.clone(),
                    element_type,
                    shape: fixed_sizes(&input.ty),
                },
            ));
        }
    }
    inputs.sort_by_key(|(index, _)| *index);
    Ok(inputs.into_iter().map(|(_, tensor)| tensor).collect())
}

/// Outputs in their order.
pub fn outputs(graph: &Graph) -> Result<Vec<Tensor>, Error> {
    let named = graph.outputs.iter().filter(|o| o.kind == OutputKind::Output);
    Error::all(named.map(|o| {
        let ty = graph.ty(o.value);
        if !ty.shape.has_batch() {
            let fault = Fault::user(format!("its type {ty} does not depend on the samples"));
            let fault = fault.at(format!("output \"{}\"", o.name));
            return Err(vec![fault.help("remove the output from the network")].into());
        }
        Ok(Tensor {
            name: o.name.clone(),
            element_type: abi_type(ty.dtype)?,
            shape: fixed_sizes(ty),
        })
    }))
}

/// What the loss compares with.
pub fn target(graph: &Graph, loss: Loss) -> Result<Target, Error> {
    let ty = graph.nodes().find_map(|id| match graph.op(id) {
        Op::Input(input) if input.role == Role::Target => Some(&input.ty),
        _ => None,
    });
    let ty = ty.ok_or_else(|| Error::internal("the training graph has no target"))?;
    let shape = fixed_sizes(ty);
    match loss {
        Loss::MeanSquaredError => Ok(Target::Values { shape }),
        Loss::CrossEntropy => {
            let logits = graph.nodes().find_map(|id| match graph.op(id) {
                Op::SoftmaxCrossEntropy(_) => graph.operand(id, 0),
                _ => None,
            });
            let logits = logits.ok_or_else(|| Error::internal("the training graph has no cross-entropy"))?;
            let classes = graph.ty(logits).shape.0[1].fixed().unwrap_or(0) as u64;
            Ok(Target::Classes { classes, shape })
        }
    }
}

/// The order of a tensor in memory.
fn order(layout: Layout) -> Result<Order, Error> {
    match layout {
        Layout::Plain => Ok(Order::Plain),
        Layout::Nhwc => Ok(Order::ChannelsLast),
        Layout::Filter(block) => Ok(Order::Filter { block: block as u64 }),
        Layout::Winograd(_) | Layout::Polyphase(_) => {
            Err(Error::internal(format!("a parameter has layout {layout}")))
        }
    }
}

/// A tensor of the plan; its values, if it has some, go to `data`.
pub fn parameter(tensor: &syncbn_passes::Tensor, seed: u64, data: &mut Bytes) -> Result<Parameter, Error> {
    let initial = match &tensor.data {
        ParameterData::Values(values) => Initial::Data {
            offset: data.push(&values.to_bytes()),
        },
        ParameterData::Fill(value) => Initial::Fill { value: *value },
        ParameterData::KaimingNormal { fan_in } => Initial::KaimingNormal {
            fan_in: *fan_in as u64,
            seed,
        },
        ParameterData::Elided { .. } => {
            let fault = Fault::user("its values are elided in the text form");
            let fault = fault.at(format!("parameter \"{}\"", tensor.name));
            return Err(vec![fault.help("compile from the ONNX file")].into());
        }
    };
    Ok(Parameter {
        name: tensor.name.clone(),
        shape: fixed_sizes(&tensor.ty),
        offset: tensor.offset,
        order: order(tensor.ty.layout)?,
        trained: tensor.trained,
        initial,
    })
}
