//! The description of a compiled model: what the runtime and `info` read.

use std::collections::VecDeque;

use syncbn_abi::{
    Arenas, BatchNorm, Collective, ElementType, Initial, Model, Node, Parameter, Target, Tensor,
};
use syncbn_codegen::Cpu;
use syncbn_ir::ops::{Op, ParameterData, Role, RunningVar, Scope};
use syncbn_ir::{DType, Graph, NodeId, OutputKind, TensorType, Value};
use syncbn_mlir::schedule;
use syncbn_passes::{BatchNormMode, Layout, Loss, Plan};

use crate::compile::{Graphs, Planned, no_plan};
use crate::data::Bytes;
use crate::{Error, Options};

/// A description and the element type of parameters.
pub struct Described {
    /// The description.
    pub model: Model,
    /// Element type of parameters and activations.
    pub dtype: DType,
}

/// Describes the network `graph` as optimised; initial values go to `data`.
pub fn describe(
    graph: &Graph,
    graphs: &Graphs,
    options: &Options,
    cpu: &Cpu,
    data: &mut Bytes,
) -> Result<Described, Error> {
    let dtype = element_type(graph)?;
    let main = graphs.train.as_ref().or(graphs.infer.as_ref());
    let main = main.ok_or_else(|| Error::internal("nothing was compiled"))?;
    let plan = main.plan.as_ref().ok_or_else(|| no_plan(&main.graph))?;
    let mut tensors = |list: &[syncbn_passes::Tensor]| -> Result<Vec<Parameter>, Error> {
        list.iter()
            .map(|tensor| parameter(tensor, options.seed, data))
            .collect()
    };
    let parameters = tensors(&plan.layout.parameters)?;
    let statistics = tensors(&plan.layout.statistics)?;
    let mut collectives = Vec::new();
    if let Some(train) = &graphs.train {
        for (id, scope) in schedule::collectives(&train.graph)? {
            collectives.push(collective(&train.graph, id, scope));
        }
    }
    // Without `combine-all-reduce` there is no difference.
    let before = graphs.train.as_ref().and_then(|train| train.uncombined);
    let uncombined = syncbn_abi::Uncombined {
        collectives: before.map_or(collectives.len() as u64, |b| b.collectives),
        bytes: before.map_or(collectives.iter().map(|c| c.bytes).sum(), |b| b.bytes),
    };
    let model = Model {
        compiler: env!("CARGO_PKG_VERSION").to_string(),
        name: graph.name.clone(),
        flags: flags(options, dtype),
        targets: vec!["cpu".to_string()],
        cpu: syncbn_abi::Cpu {
            flag: cpu.flag.name().to_string(),
            name: cpu.name.clone(),
            features: cpu.features.clone(),
        },
        glibc: None,
        element_type: abi_type(dtype)?,
        batch_bound: options.batch as u64,
        train: graphs.train.is_some(),
        infer: graphs.infer.is_some(),
        inputs: inputs(&main.graph)?,
        target: graphs
            .train
            .as_ref()
            .map(|t| target(&t.graph, options.loss))
            .transpose()?,
        outputs: outputs(&main.graph)?,
        batch_norms: batch_norms(graph, graphs, options)?,
        batch_norm_mode: mode_name(options.batch_norm),
        uncombined,
        schedule_hash: hash(&collectives),
        collectives,
        train_nodes: graphs
            .train
            .as_ref()
            .map(|p| nodes(&p.graph))
            .transpose()?
            .unwrap_or_default(),
        infer_nodes: graphs
            .infer
            .as_ref()
            .map(|p| nodes(&p.graph))
            .transpose()?
            .unwrap_or_default(),
        arenas: arenas(graphs, &plan.layout),
        parameters,
        statistics,
        warnings: graphs.warnings.clone(),
    };
    Ok(Described { model, dtype })
}

/// The bytes of a graph's constants, as its plan places them.
pub fn constants(graph: &Graph) -> Result<Vec<u8>, Error> {
    let mut bytes = Bytes::default();
    for id in graph.nodes() {
        if let Op::Constant(constant) = graph.op(id) {
            let (place, _) = schedule::place(graph, id.into())?;
            bytes.put(place.offset, &constant.value.to_bytes());
        }
    }
    Ok(bytes.bytes)
}

fn mode_name(mode: BatchNormMode) -> String {
    match mode {
        BatchNormMode::Sync => "sync".to_string(),
        BatchNormMode::Local => "local".to_string(),
        BatchNormMode::Frozen => "frozen".to_string(),
        BatchNormMode::Group(k) => format!("group={k}"),
    }
}

fn flags(options: &Options, dtype: DType) -> Vec<(String, String)> {
    let running_var = match options.running_var {
        RunningVar::Pytorch => "pytorch",
        RunningVar::Population => "population",
    };
    let loss = match options.loss {
        Loss::CrossEntropy => "cross-entropy",
        Loss::MeanSquaredError => "mse",
    };
    let mut flags = vec![
        ("mode", options.mode.name().to_string()),
        ("bn", mode_name(options.batch_norm)),
        ("running-var", running_var.to_string()),
        ("batch", options.batch.to_string()),
        ("loss", loss.to_string()),
        ("precision", dtype.name().to_string()),
        ("cpu", options.cpu.name().to_string()),
    ];
    flags.extend(
        options
            .loss_output
            .iter()
            .map(|name| ("loss-output", name.clone())),
    );
    flags
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect()
}

/// The element type of a network's parameters and activations.
pub fn element_type(graph: &Graph) -> Result<DType, Error> {
    let float = graph.nodes().find_map(|id| {
        let ty = &graph.node(id).outputs.first()?.ty;
        ty.dtype.is_float().then_some(ty.dtype)
    });
    float.ok_or_else(|| Error::user("the network computes nothing in floating point", "check the file"))
}

fn abi_type(dtype: DType) -> Result<ElementType, Error> {
    match dtype {
        DType::F32 => Ok(ElementType::F32),
        DType::F64 => Ok(ElementType::F64),
        DType::I64 => Ok(ElementType::I64),
        DType::U8 => Err(Error::internal("a u8 tensor would cross to the runtime")),
    }
}

fn fixed_sizes(ty: &TensorType) -> Vec<u64> {
    ty.shape
        .0
        .iter()
        .filter_map(|d| d.fixed())
        .map(|n| n as u64)
        .collect()
}

/// Data inputs in the order of their indices.
fn inputs(graph: &Graph) -> Result<Vec<Tensor>, Error> {
    let mut inputs = Vec::new();
    for id in graph.nodes() {
        if let Op::Input(input) = graph.op(id)
            && input.role == Role::Data
        {
            let (place, _) = schedule::place(graph, id.into())?;
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

fn outputs(graph: &Graph) -> Result<Vec<Tensor>, Error> {
    let named = graph.outputs.iter().filter(|o| o.kind == OutputKind::Output);
    named
        .map(|o| {
            let ty = graph.ty(o.value);
            if !ty.shape.has_batch() {
                let message = format!(
                    "output \"{}\" of type {ty} does not depend on the samples",
                    o.name
                );
                return Err(Error::user(message, "remove the output from the network"));
            }
            Ok(Tensor {
                name: o.name.clone(),
                element_type: abi_type(ty.dtype)?,
                shape: fixed_sizes(ty),
            })
        })
        .collect()
}

fn target(graph: &Graph, loss: Loss) -> Result<Target, Error> {
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

/// A tensor of the plan; its values, if it has some, go to `data`.
fn parameter(tensor: &syncbn_passes::Tensor, seed: u64, data: &mut Bytes) -> Result<Parameter, Error> {
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
            let message = format!("the values of \"{}\" are elided in the text form", tensor.name);
            return Err(Error::user(message, "compile from the ONNX file"));
        }
    };
    Ok(Parameter {
        name: tensor.name.clone(),
        shape: fixed_sizes(&tensor.ty),
        offset: tensor.offset,
        trained: tensor.trained,
        initial,
    })
}

fn collective(graph: &Graph, id: NodeId, scope: Scope) -> Collective {
    let bytes = graph
        .operands(id)
        .iter()
        .filter_map(|&v| graph.ty(v).bytes(0))
        .sum();
    let group = match scope {
        Scope::All => 0,
        Scope::Group(k) => k as u64,
    };
    Collective {
        name: graph.node(id).name.clone(),
        group,
        bytes,
    }
}

/// FNV-1a over order, scope, size and name of the collectives.
fn hash(collectives: &[Collective]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for c in collectives {
        let text = format!("{} {} {};", c.name, c.group, c.bytes);
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    hash
}

fn nodes(graph: &Graph) -> Result<Vec<Node>, Error> {
    let order = graph.topological().map_err(Error::internal)?;
    Ok(order
        .into_iter()
        .map(|id| Node {
            name: graph.node(id).name.clone(),
            op: graph.op(id).name().to_string(),
        })
        .collect())
}

fn arenas(graphs: &Graphs, layout: &Layout) -> Arenas {
    let size = |planned: &Option<Planned>, bytes: fn(&Plan) -> u64| {
        planned.as_ref().and_then(|p| p.plan.as_ref()).map_or(0, bytes)
    };
    Arenas {
        weights: layout.weight_bytes,
        trained: layout.trained_bytes,
        statistics: layout.statistic_bytes,
        prepared: size(&graphs.infer, |p| p.prepared_bytes),
        train_step: size(&graphs.train, |p| p.step_bytes),
        infer_step: size(&graphs.infer, |p| p.step_bytes),
    }
}

/// The name of the statistic behind a running mean or variance; a layer that is used twice passes it on.
fn statistic(graph: &Graph, value: Value) -> Option<String> {
    match graph.op(value.node) {
        Op::Statistic(s) => Some(s.name.clone()),
        Op::BatchNorm(_) => statistic(graph, graph.operand(value.node, value.slot)?),
        Op::BatchNormFinalize(_) => statistic(graph, graph.operand(value.node, value.slot - 2)?),
        _ => None,
    }
}

/// BatchNorm layers in the order of the imported network.
fn batch_norms(graph: &Graph, graphs: &Graphs, options: &Options) -> Result<Vec<BatchNorm>, Error> {
    let data = graph.depends_on_data().map_err(Error::internal)?;
    let mut saved: VecDeque<(String, (u64, u64))> = VecDeque::new();
    if let Some(train) = &graphs.train {
        for id in train.graph.topological().map_err(Error::internal)? {
            let Op::BatchNormFinalize(_) = train.graph.op(id) else {
                continue;
            };
            let name = train
                .graph
                .operand(id, 1)
                .and_then(|v| statistic(&train.graph, v))
                .unwrap_or_default();
            let at = |slot| schedule::place(&train.graph, Value { node: id, slot }).map(|(p, _)| p.offset);
            saved.push_back((name, (at(1)?, at(2)?)));
        }
    }
    let mut layers = Vec::new();
    for id in graph.topological().map_err(Error::internal)? {
        let Op::BatchNorm(_) = graph.op(id) else { continue };
        let operands = graph.operands(id);
        let sizes = fixed_sizes(graph.ty(operands[0]));
        let of_data = data.contains(&id);
        let skip = usize::from(graph.ty(operands[0]).shape.has_batch());
        let running = [3, 4].map(|i| statistic(graph, operands[i]).unwrap_or_default());
        let place = saved.iter().position(|(name, _)| *name == running[0]);
        layers.push(BatchNorm {
            name: graph.node(id).name.clone(),
            channels: sizes.get(1 - skip).copied().unwrap_or(0),
            positions: sizes.iter().skip(2 - skip).product(),
            counts: of_data && options.batch_norm != BatchNormMode::Frozen,
            saved: place.and_then(|i| saved.remove(i)).map(|(_, offsets)| offsets),
            running_mean: running[0].clone(),
            running_var: running[1].clone(),
        });
    }
    Ok(layers)
}
