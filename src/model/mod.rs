//! The description of a compiled model: what the runtime and `info` read.

mod steps;
mod tensors;
mod work;

use syncbn_abi::{Arenas, Model, Parameter};
use syncbn_codegen::Cpu;
use syncbn_ir::ops::{Op, RunningVar};
use syncbn_ir::{DType, Graph};
use syncbn_mlir::order;
use syncbn_passes::{BatchNormMode, Layout, Loss, Plan};

use crate::compile::{Graphs, Planned, no_plan, schedules_of};
use crate::data::Bytes;
use crate::options::Device;
use crate::{Error, Options};
use steps::{batch_norms, collective, hash, nodes};
use tensors::{abi_type, inputs, outputs, parameter, target};

/// Describes the network `graph` as optimised; initial values go to `data`.
pub fn describe(
    graph: &Graph,
    graphs: &Graphs,
    (options, device): (&Options, Device),
    cpu: &Cpu,
    data: &mut Bytes,
) -> Result<Model, Error> {
    let dtype = graphs.dtype;
    let main = graphs.train.as_ref().or(graphs.infer.as_ref());
    let main = main.ok_or_else(|| Error::internal("nothing was compiled"))?;
    let plan = main.plan.as_ref().ok_or_else(|| no_plan(&main.graph))?;
    let mut tensors = |list: &[syncbn_passes::Tensor]| -> Result<Vec<Parameter>, Error> {
        Error::all(list.iter().map(|tensor| parameter(tensor, options.seed, data)))
    };
    let (parameters, statistics) =
        Error::both(tensors(&plan.layout.parameters), tensors(&plan.layout.statistics))?;
    let mut collectives = Vec::new();
    if let Some(train) = &graphs.train {
        for (id, scope) in order::collectives(&train.graph)? {
            collectives.push(collective(&train.graph, id, scope));
        }
    }
    // Without `combine-all-reduce` there is no difference.
    let before = graphs.train.as_ref().and_then(|train| train.uncombined);
    let uncombined = syncbn_abi::Uncombined {
        collectives: before.map_or(collectives.len() as u64, |b| b.collectives),
        bytes: before.map_or(collectives.iter().map(|c| c.bytes).sum(), |b| b.bytes),
    };
    Ok(Model {
        compiler: env!("CARGO_PKG_VERSION").to_string(),
        name: graph.name.clone(),
        flags: flags(options, device, dtype),
        targets: options.targets.names(),
        gpu: None,
        cpu: processor(cpu),
        glibc: None,
        element_type: abi_type(dtype)?,
        batch_bound: options.batch as u64,
        train: graphs.train.is_some(),
        infer: graphs.infer.is_some(),
        threads: true,
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
            .map(|p| nodes(&p.graph, options.batch))
            .transpose()?
            .unwrap_or_default(),
        infer_nodes: graphs
            .infer
            .as_ref()
            .map(|p| nodes(&p.graph, options.batch))
            .transpose()?
            .unwrap_or_default(),
        arenas: arenas(graphs, &plan.layout, options.batch),
        parameters,
        statistics,
        warnings: graphs.warnings.iter().map(ToString::to_string).collect(),
    })
}

/// Describes a processor.
pub fn processor(cpu: &Cpu) -> syncbn_abi::Cpu {
    syncbn_abi::Cpu {
        flag: cpu.flag.name().to_string(),
        name: cpu.name.clone(),
        features: cpu.features.clone(),
    }
}

/// The bytes of a graph's constants, as its plan places them.
pub fn constants(graph: &Graph) -> Result<Vec<u8>, Error> {
    let mut bytes = Bytes::default();
    for id in graph.nodes() {
        if let Op::Constant(constant) = graph.op(id) {
            let (place, _) = order::place(graph, id.into())?;
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

fn flags(options: &Options, device: Device, dtype: DType) -> Vec<(String, String)> {
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
        ("bucket-bytes", options.bucket_bytes.to_string()),
        ("loss", loss.to_string()),
        ("precision", dtype.name().to_string()),
        ("cpu", options.cpu.name().to_string()),
    ];
    if device == Device::Cpu && options.fast {
        flags.push((
            "winograd",
            if options.winograd { "on" } else { "off" }.to_string(),
        ));
    }
    if device == Device::Gpu || options.fast {
        let schedules = schedules_of(options, device).into_iter();
        flags.extend(schedules.map(|s| ("schedule", format!("{}={}", s.node, s.schedule))));
    }
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

fn arenas(graphs: &Graphs, layout: &Layout, batch_bound: usize) -> Arenas {
    let size = |planned: &Option<Planned>, bytes: fn(&Plan) -> u64| {
        planned.as_ref().and_then(|p| p.plan.as_ref()).map_or(0, bytes)
    };
    let planned = [&graphs.train, &graphs.infer].into_iter().flatten();
    let workspaces = planned.flat_map(|planned| {
        let graph = &planned.graph;
        let placed = graph.nodes().filter(|&id| graph.node(id).workspace.is_some());
        placed.map(|id| graph.workspace_bytes(id, batch_bound))
    });
    let planned = [&graphs.train, &graphs.infer].into_iter().flatten();
    let partials = planned.flat_map(|planned| {
        let graph = &planned.graph;
        graph.nodes().map(|id| graph.partial_bytes(id, batch_bound))
    });
    Arenas {
        weights: layout.weight_bytes,
        trained: layout.trained_bytes,
        statistics: layout.statistic_bytes,
        prepared: size(&graphs.infer, |p| p.prepared_bytes),
        train_step: size(&graphs.train, |p| p.step_bytes),
        infer_step: size(&graphs.infer, |p| p.step_bytes),
        scratch: workspaces.max().unwrap_or(0),
        partials: partials.max().unwrap_or(0),
    }
}
