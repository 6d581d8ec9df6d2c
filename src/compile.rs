//! The stages after import: passes, lowering, code generation, link.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use syncbn_abi::Model;
use syncbn_codegen::{Cpu, Emit, generate};
use syncbn_ir::{DType, Graph};
use syncbn_mlir::cpu::{INFER_CONSTANTS, Part, Program, TRAIN_CONSTANTS};
use syncbn_mlir::gpu::Products;
use syncbn_passes::{Collectives, PassContext, PassRun, Plan, Selection, run_passes};

use crate::data::{Blob, Bytes, model_blobs, object_file};
use crate::options::Device;
use crate::output::write_atomically;
use crate::{Error, Options, gpu, link, model, runtime, worker};

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
    pub warnings: Vec<String>,
}

/// Which passes run for one part of the executable, whose pipeline is named.
fn selection(options: &Options, pipeline: &str) -> Selection {
    Selection {
        passes: (options.passes.clone()).unwrap_or_else(|| vec![pipeline.to_string()]),
        skip: options.skip.clone(),
        stop_after: options.stop_after.clone(),
        print_ir_after: options.print_after.clone(),
    }
}

/// Runs the passes. `show` receives the name of a pass and the graph after it, where options ask for that.
pub fn optimize(
    graph: &Graph,
    options: &Options,
    part: Device,
    show: &mut dyn FnMut(&str, &str),
) -> Result<Graphs, Error> {
    let on_gpu = part == Device::Gpu;
    let mut warnings = Vec::new();
    let mut layout = None;
    let mut run = |mode: syncbn_passes::Mode| -> Result<Planned, Error> {
        let mut cx = PassContext::new(syncbn_passes::Options {
            mode,
            batch_norm: options.batch_norm,
            running_var: options.running_var,
            loss: options.loss,
            loss_output: options.loss_output.clone(),
            input_gradients: false,
            batch_bound: options.batch,
            bucket_bytes: options.bucket_bytes,
            channels_last: on_gpu,
            bf16_activations: on_gpu && options.products == Products::Bf16,
        });
        cx.layout = layout.clone();
        let pipeline = match mode {
            syncbn_passes::Mode::Train => "train",
            syncbn_passes::Mode::Infer => "infer",
        };
        let selection = selection(options, pipeline);
        let mut graph = graph.clone();
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
        warnings.push("no parameter is trained: training changes running statistics only".to_string());
    }
    Ok(Graphs {
        train,
        infer,
        warnings,
    })
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

fn part(planned: &Option<Planned>) -> Result<Option<Part<'_>>, Error> {
    let Some(Planned { graph, plan, .. }) = planned else {
        return Ok(None);
    };
    let plan = plan.as_ref().ok_or_else(|| no_plan(graph))?;
    Ok(Some(Part {
        graph,
        prepare: &plan.prepare,
        step: &plan.step,
        step_bytes: plan.step_bytes,
    }))
}

/// Generates code for graphs with planned memory.
pub fn lower(
    graphs: &Graphs,
    dtype: DType,
    cpu: &Cpu,
    options: &Options,
    emit: Emit,
) -> Result<Vec<u8>, Error> {
    let program = program(graphs, dtype, cpu, options)?;
    if !options.targets.cpu {
        return gpu::emit_text(&program, cpu, options, emit);
    }
    Ok(generate(&program, cpu, emit, &mut worker::note_kernels)?)
}

/// What code is generated for.
fn program<'g>(graphs: &'g Graphs, dtype: DType, cpu: &Cpu, options: &Options) -> Result<Program<'g>, Error> {
    Ok(Program {
        train: part(&graphs.train)?,
        infer: part(&graphs.infer)?,
        dtype,
        vector_bytes: cpu.vector_bytes(),
        products: options.products,
        batch_bound: options.batch,
        trained_elements: graphs
            .train
            .as_ref()
            .and_then(|p| p.plan.as_ref())
            .map_or(0, |plan| plan.layout.trained_bytes / dtype.bytes()),
    })
}

/// A compiled network: everything but the linked file.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The descriptions that go into the executable: that of the CPU part, that of the GPU part.
    pub models: Vec<Model>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Code, by the name of its object file.
    objects: Vec<(&'static str, Vec<u8>)>,
    data: Vec<u8>,
    /// Further data, by symbol.
    blobs: Vec<(&'static str, Vec<u8>)>,
    /// What `--verbose` says of the code.
    pub(crate) notes: Vec<String>,
}

/// Compiles a network that the importer or the builder made.
pub fn compile(graph: &Graph, options: &Options) -> Result<Compiled, Error> {
    check_passes(options)?;
    let graphs = optimize(graph, options, options.targets.main(), &mut |_, _| ())?;
    finish(graph, graphs, options)
}

/// Passes without which an executable would run and compute something else.
const NEEDED: [(&str, &[&str]); 2] = [
    (
        "train",
        &[
            "plan-memory",
            "set-batch-norm-mode",
            "add-loss",
            "differentiate",
            "bn-to-syncbn",
            "insert-gradient-all-reduce",
        ],
    ),
    ("infer", &["plan-memory", "set-batch-norm-mode"]),
];

/// Refuses options under which a needed pass would not run.
pub fn check_passes(options: &Options) -> Result<(), Error> {
    let mut errors = Vec::new();
    for (part, needed) in NEEDED {
        if !(if part == "train" {
            options.mode.trains()
        } else {
            options.mode.infers()
        }) {
            continue;
        }
        let passes = match selection(options, part).list() {
            Ok(passes) => passes,
            Err(error) => {
                errors.push(error.into());
                continue;
            }
        };
        let names: Vec<&str> = passes.iter().map(|pass| pass.name()).collect();
        errors.extend(needed.iter().filter(|pass| !names.contains(pass)).map(|missing| {
            Error::user(
                format!("pass {missing} would not run, and an executable cannot {part} without it"),
                "change --passes, --skip or --stop-after, or emit a text form such as --emit graph-opt",
            )
        }));
    }
    Error::check(errors)
}

/// Code generation and description of optimised graphs: those of the main part; other parts get their own.
pub fn finish(graph: &Graph, graphs: Graphs, options: &Options) -> Result<Compiled, Error> {
    let cpu = Cpu::new(options.cpu);
    let mut data = Bytes::default();
    let mut compiled = Compiled {
        models: Vec::new(),
        warnings: graphs.warnings.clone(),
        objects: Vec::new(),
        data: Vec::new(),
        blobs: Vec::new(),
        notes: Vec::new(),
    };
    for device in options.targets.devices() {
        let own;
        let graphs = match device == options.targets.main() {
            true => &graphs,
            false => {
                own = optimize(graph, options, device, &mut |_, _| ())?;
                &own
            }
        };
        let described = model::describe(graph, graphs, options, &cpu, &mut data)?;
        let program = program(graphs, described.dtype, &cpu, options)?;
        let constants = |planned: &Option<Planned>| -> Result<Vec<u8>, Error> {
            let bytes = planned.as_ref().map(|planned| model::constants(&planned.graph));
            Ok(bytes.transpose()?.unwrap_or_default())
        };
        let (train, infer) = (constants(&graphs.train)?, constants(&graphs.infer)?);
        match device {
            Device::Cpu => {
                let code = generate(&program, &cpu, Emit::Object, &mut worker::note_kernels)?;
                compiled.objects.push(("code.o", code));
                compiled.blobs.push((TRAIN_CONSTANTS, train));
                compiled.blobs.push((INFER_CONSTANTS, infer));
                compiled.models.push(described.model);
            }
            Device::Gpu => {
                let part = gpu::part(&program, &cpu, options, described.model, (train, infer))?;
                compiled.objects.extend(part.objects);
                compiled.blobs.extend(part.blobs);
                compiled.notes.extend(part.notes);
                compiled.models.push(part.model);
            }
        }
    }
    compiled.data = data.bytes;
    Ok(compiled)
}

impl Compiled {
    /// Links the executable and puts it in place, whole or not at all.
    pub fn write_executable(&self, path: &Path) -> Result<(), Error> {
        let scratch = tempfile::Builder::new()
            .prefix("syncbn-")
            .tempdir()
            .map_err(|e| {
                Error::environment(
                    format!("no temporary folder: {e}"),
                    "set TMPDIR to a folder that can be written",
                )
            })?;
        let known = runtime::known_glibc();
        let mut linked = self.link(known.as_deref(), scratch.path())?;
        let needed = link::needed_glibc(&linked);
        // The version stands in the description inside the executable: a second link puts it right.
        if needed != known {
            linked = self.link(needed.as_deref(), scratch.path())?;
            if let Some(version) = &needed {
                runtime::remember_glibc(version);
            }
        }
        let bytes = fs::read(&linked).map_err(Error::internal)?;
        write_atomically(path, true, |file| file.write_all(&bytes)).map_err(|e| cannot_write(path, &e))
    }

    fn link(&self, glibc: Option<&str>, scratch: &Path) -> Result<PathBuf, Error> {
        let mut models = self.models.clone();
        for model in &mut models {
            model.glibc = glibc.map(str::to_string);
        }
        let description = serde_json::to_vec(&models).map_err(Error::internal)?;
        let mut blobs: Vec<Blob> = model_blobs(&self.data, &description).into();
        blobs.extend(self.blobs.iter().map(|(symbol, bytes)| Blob {
            symbol,
            length: None,
            bytes,
        }));
        let data = object_file(&blobs)?;
        let mut paths = Vec::new();
        for (name, bytes) in self.objects.iter().chain(&[("data.o", data)]) {
            let path = scratch.join(name);
            fs::write(&path, bytes).map_err(|e| cannot_write(&path, &e))?;
            paths.push(path);
        }
        let linked = scratch.join("model");
        link::link(&paths, &runtime::archive(scratch)?, &linked)?;
        Ok(linked)
    }
}

/// The error for an output that cannot be written.
pub fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    let message = format!("cannot write {}: {error}", path.display());
    Error::user(
        message,
        "choose an output in an existing folder that you may write to",
    )
}
