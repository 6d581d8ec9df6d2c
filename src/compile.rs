//! The stages after import: passes, lowering, code generation.

use std::borrow::Cow;
use std::thread;

use syncbn_abi::Model;
use syncbn_abi::symbols::{INFER_CONSTANTS, TRAIN_CONSTANTS};
use syncbn_codegen::{Cpu, Emit, generate, generate_objects};
use syncbn_ir::{DType, Graph, Schedule, Warning};
use syncbn_mlir::{Part, Program};
use syncbn_passes::{Collectives, Override, PassContext, PassRun, Plan, run_passes};

use crate::executable::{Compiled, CompiledPart};
use crate::options::Device;
use crate::selection::{check_passes, selection};
use crate::target::{cpu_target, gpu_target};
use crate::{Error, Options, Targets, gpu, model, worker};

/// A graph after its passes.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The graph.
    pub graph: Graph,
    /// Its memory; None when `plan-memory` did not run.
    pub plan: Option<Plan>,
    /// What each pass did.
    pub runs: Vec<PassRun>,
    /// The collectives before `combine-all-reduce`; None when it did not run.
    pub uncombined: Option<Collectives>,
}

/// What the passes make of a network.
#[derive(Debug, Clone)]
pub struct Graphs {
    /// One training step.
    pub train: Option<Planned>,
    /// Inference.
    pub infer: Option<Planned>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// Element type of parameters and activations.
    pub dtype: DType,
}

/// The network as a part computes it, and what the user should know of that.
fn network_of(graph: &Graph, part: Device) -> Result<(Cow<'_, Graph>, DType, Vec<Warning>), Error> {
    let dtype = model::element_type(graph)?;
    if part == Device::Cpu || dtype == DType::F32 {
        return Ok((Cow::Borrowed(graph), dtype, Vec::new()));
    }
    let mut converted = graph.clone();
    converted
        .convert_floats(dtype, DType::F32)
        .map_err(Error::internal)?;
    let warning = format!("the GPU part computes in f32: its copy of the {dtype} values is rounded");
    let warning = Warning::new(warning).help("--target cpu makes no such part");
    Ok((Cow::Owned(converted), DType::F32, vec![warning]))
}

/// What a compilation asks of the passes.
pub fn pass_options(
    options: &Options,
    mode: syncbn_passes::Mode,
    target: syncbn_passes::Target,
) -> syncbn_passes::Options {
    syncbn_passes::Options {
        mode,
        batch_norm: options.batch_norm,
        running_var: options.running_var,
        loss: options.loss,
        loss_output: options.loss_output.clone(),
        input_gradients: false,
        batch_bound: options.batch,
        bucket_bytes: options.bucket_bytes,
        target,
        winograd: options.winograd,
        schedules: options.schedules.clone(),
    }
}

/// What the passes know of a part's device.
fn target(options: &Options, part: Device) -> syncbn_passes::Target {
    match part {
        Device::Cpu => cpu_target(&Cpu::new(options.cpu), options.fast),
        Device::Gpu => gpu_target(options.products),
    }
}

/// Whether a part has code for a schedule: the general form is of both.
pub fn is_of(schedule: &Schedule, part: Device) -> bool {
    let on_gpu = part == Device::Gpu;
    schedule.is_for_gpus().is_none_or(|for_gpus| for_gpus == on_gpu)
}

/// The schedules that the user names, as far as they are of a part.
pub fn schedules_of(options: &Options, part: Device) -> Vec<Override> {
    let all = options.schedules.iter();
    all.filter(|s| is_of(&s.schedule, part)).cloned().collect()
}

/// Runs the passes. `show` receives the name of a pass and the graph after it, where options ask for that.
pub fn optimize(
    graph: &Graph,
    options: &Options,
    part: Device,
    show: &mut dyn FnMut(&str, &str),
) -> Result<Graphs, Error> {
    let target = target(options, part);
    let (graph, dtype, mut warnings) = network_of(graph, part)?;
    let mut layout = None;
    let mut run = |mode: syncbn_passes::Mode| -> Result<Planned, Error> {
        let mut asked = pass_options(options, mode, target);
        asked.schedules = schedules_of(options, part);
        let mut cx = PassContext::new(asked);
        cx.layout = layout.clone();
        let pipeline = match mode {
            syncbn_passes::Mode::Train => "train",
            syncbn_passes::Mode::Infer => "infer",
        };
        let selection = selection(options, pipeline);
        let mut graph = graph.clone().into_owned();
        graph.name = format!("{}.{pipeline}", graph.name);
        let runs = run_passes(&mut graph, &selection, &mut cx, show)?;
        layout = cx.plan.as_ref().map(|p| p.layout.clone());
        for warning in cx.warnings {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        Ok(Planned {
            graph,
            plan: cx.plan,
            runs,
            uncombined: cx.uncombined,
        })
    };
    let train = options.mode.trains().then(|| run(syncbn_passes::Mode::Train));
    let infer = options.mode.infers().then(|| run(syncbn_passes::Mode::Infer));
    let (train, infer) = Error::both(train.transpose(), infer.transpose())?;
    if let Some(Planned { plan: Some(plan), .. }) = &train
        && !plan.layout.parameters.iter().any(|p| p.trained)
    {
        let warning = Warning::new("no parameter is trained: training changes running statistics only");
        warnings.push(warning.help("see --train and --freeze, or give --mode infer"));
    }
    Ok(Graphs {
        train,
        infer,
        warnings,
        dtype,
    })
}

/// How nodes are computed in each part, in training and in inference, as a text.
pub fn schedules(graph: &Graph, options: &Options) -> Result<String, Error> {
    let mut reports = Vec::new();
    for part in options.targets.devices() {
        let graphs = match optimize(graph, options, part, &mut |_, _| ()) {
            Err(error) if part == Device::Gpu && options.targets.can_do_without(&error) => continue,
            graphs => graphs?,
        };
        let modes = [
            (graphs.train, syncbn_passes::Mode::Train),
            (graphs.infer, syncbn_passes::Mode::Infer),
        ];
        for (planned, mode) in modes {
            let Some(planned) = planned else { continue };
            let asked = pass_options(options, mode, target(options, part));
            let report = syncbn_passes::schedule_report(&planned.graph, &asked);
            reports.push(report.map_err(Error::internal)?);
        }
    }
    Ok(reports.join("\n"))
}

/// The error for a graph that `plan-memory` has not seen.
pub fn no_plan(graph: &Graph) -> Error {
    Error::user(
        format!(
            "graph \"{}\" has no memory plan, so no code can be generated for it",
            graph.name
        ),
        "let plan-memory run, or emit a graph with --emit graph-opt",
    )
}

fn steps(planned: &Option<Planned>) -> Result<Option<Part<'_>>, Error> {
    let Some(Planned { graph, plan, .. }) = planned else {
        return Ok(None);
    };
    let plan = plan.as_ref().ok_or_else(|| no_plan(graph))?;
    Ok(Some(Part {
        graph,
        prepare: &plan.prepare,
        step: &plan.step,
    }))
}

/// Generates code for graphs with planned memory.
pub fn lower(graphs: &Graphs, cpu: &Cpu, options: &Options, emit: Emit) -> Result<Vec<u8>, Error> {
    let program = program(graphs, cpu, options)?;
    if !options.targets.cpu {
        return gpu::emit_text(&program, cpu, options, emit);
    }
    Ok(generate(&program, cpu, emit, &mut worker::note_kernels)?)
}

/// What code is generated for.
pub(crate) fn program<'g>(graphs: &'g Graphs, cpu: &Cpu, options: &Options) -> Result<Program<'g>, Error> {
    Ok(Program {
        train: steps(&graphs.train)?,
        infer: steps(&graphs.infer)?,
        dtype: graphs.dtype,
        vector_bytes: cpu.vector_bytes(),
        products: options.products,
        batch_bound: options.batch,
        trained_elements: graphs
            .train
            .as_ref()
            .and_then(|p| p.plan.as_ref())
            .map_or(0, |plan| plan.layout.trained_bytes / graphs.dtype.bytes()),
    })
}

/// Compiles a network that the importer or the builder made.
pub fn compile(graph: &Graph, options: &Options) -> Result<Compiled, Error> {
    check_passes(options)?;
    let graphs = optimize(graph, options, options.targets.main(), &mut |_, _| ())?;
    finish(graph, graphs, options)
}

/// Code generation and description of optimised graphs: those of the main part; other parts get their own. Parts
/// are made at the same time.
pub fn finish(graph: &Graph, graphs: Graphs, options: &Options) -> Result<Compiled, Error> {
    let cpu = Cpu::new(options.cpu);
    let mut compiled = Compiled::default();
    let mut described = Vec::new();
    for device in options.targets.devices() {
        let graphs = match device == options.targets.main() {
            true => Ok(graphs.clone()),
            false => optimize(graph, options, device, &mut |_, _| ()),
        };
        let model = graphs.and_then(|graphs| {
            let model = model::describe(graph, &graphs, (options, device), &cpu, &mut compiled.data)?;
            Ok((graphs, model))
        });
        described.push((device, model));
    }
    let cpu = &cpu;
    let made: Vec<(Device, Result<CompiledPart, Error>)> = thread::scope(|scope| {
        let threads: Vec<_> = described
            .into_iter()
            .map(|(device, described)| {
                let make = move || {
                    let (graphs, model) = described?;
                    let mut made = part(&graphs, model, device, options, cpu)?;
                    made.warnings.splice(0..0, graphs.warnings);
                    Ok(made)
                };
                let builder = thread::Builder::new().stack_size(syncbn_codegen::STACK_BYTES);
                (device, builder.spawn_scoped(scope, make))
            })
            .collect();
        let ended = threads.into_iter().map(|(device, thread)| {
            let ended = thread.map(|thread| thread.join());
            let made = match ended {
                Ok(Ok(made)) => made,
                Ok(Err(_)) => Err(Error::internal("a thread that generated code panicked")),
                Err(error) => Err(Error::internal(format!("no thread to generate code on: {error}"))),
            };
            (device, made)
        });
        ended.collect()
    });
    for (device, part) in made {
        match part {
            Ok(part) => compiled.add(part),
            Err(error) if device == Device::Gpu && options.targets.can_do_without(&error) => {
                let warning = Warning::new(format!("the executable has no GPU part: {error}"));
                let warning = warning.help("--target cpu asks for none");
                let targets = Targets {
                    cuda: false,
                    ..options.targets
                };
                for part in &mut compiled.parts {
                    part.model.targets = targets.names();
                    part.model.warnings.push(warning.to_string());
                }
                compiled.warn(warning);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(compiled)
}

/// One part of the executable, which `model` describes.
fn part(
    graphs: &Graphs,
    model: Model,
    device: Device,
    options: &Options,
    cpu: &Cpu,
) -> Result<CompiledPart, Error> {
    let program = program(graphs, cpu, options)?;
    let constants = |planned: &Option<Planned>| -> Result<Vec<u8>, Error> {
        let bytes = planned.as_ref().map(|planned| model::constants(&planned.graph));
        Ok(bytes.transpose()?.unwrap_or_default())
    };
    let (train, infer) = (constants(&graphs.train)?, constants(&graphs.infer)?);
    match device {
        Device::Cpu => Ok(CompiledPart {
            model,
            objects: generate_objects(&program, cpu, &mut worker::note_kernels)?
                .into_iter()
                .enumerate()
                .map(|(i, object)| (format!("code-{i}.o"), object))
                .collect(),
            blobs: vec![(TRAIN_CONSTANTS, train), (INFER_CONSTANTS, infer)],
            warnings: Vec::new(),
            notes: Vec::new(),
        }),
        Device::Gpu => gpu::part(&program, cpu, options, model, (train, infer)),
    }
}
