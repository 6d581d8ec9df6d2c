//! The stages after import: passes, lowering, code generation, link.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use syncbn_abi::Model;
use syncbn_codegen::{Cpu, Emit, generate};
use syncbn_ir::{DType, Graph};
use syncbn_mlir::cpu::{INFER_CONSTANTS, Part, Program, TRAIN_CONSTANTS};
use syncbn_passes::{Collectives, PassContext, PassRun, Plan, Selection, run_passes};

use crate::data::{Blob, Bytes, model_blobs, object_file};
use crate::output::write_atomically;
use crate::{Error, Options, link, model, runtime, worker};

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
pub fn optimize(graph: &Graph, options: &Options, show: &mut dyn FnMut(&str, &str)) -> Result<Graphs, Error> {
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
    }))
}

/// Generates code for graphs with planned memory.
pub fn lower(graphs: &Graphs, dtype: DType, cpu: &Cpu, emit: Emit) -> Result<Vec<u8>, Error> {
    let program = Program {
        train: part(&graphs.train)?,
        infer: part(&graphs.infer)?,
        dtype,
        vector_bytes: cpu.vector_bytes(),
    };
    Ok(generate(&program, cpu, emit, &mut worker::note_kernels)?)
}

/// A compiled network: everything but the linked file.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The description that goes into the executable.
    pub model: Model,
    /// What the user should know.
    pub warnings: Vec<String>,
    object: Vec<u8>,
    data: Vec<u8>,
    constants: Vec<(&'static str, Vec<u8>)>,
}

/// Compiles a network that the importer or the builder made.
pub fn compile(graph: &Graph, options: &Options) -> Result<Compiled, Error> {
    check_passes(options)?;
    let graphs = optimize(graph, options, &mut |_, _| ())?;
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

/// Code generation and description of optimised graphs.
pub fn finish(graph: &Graph, graphs: Graphs, options: &Options) -> Result<Compiled, Error> {
    let cpu = Cpu::new(options.cpu);
    let mut data = Bytes::default();
    let described = model::describe(graph, &graphs, options, &cpu, &mut data)?;
    let object = lower(&graphs, described.dtype, &cpu, Emit::Object)?;
    let mut constants = Vec::new();
    for (symbol, planned) in [(TRAIN_CONSTANTS, &graphs.train), (INFER_CONSTANTS, &graphs.infer)] {
        if let Some(planned) = planned {
            constants.push((symbol, model::constants(&planned.graph)?));
        }
    }
    Ok(Compiled {
        model: described.model,
        warnings: graphs.warnings,
        object,
        data: data.bytes,
        constants,
    })
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
        let mut model = self.model.clone();
        model.glibc = runtime::known_glibc();
        let mut linked = self.link(&model, scratch.path())?;
        let needed = link::needed_glibc(&linked);
        // The version stands in the description inside the executable: a second link puts it right.
        if needed != model.glibc {
            model.glibc = needed;
            linked = self.link(&model, scratch.path())?;
            if let Some(version) = &model.glibc {
                runtime::remember_glibc(version);
            }
        }
        let bytes = fs::read(&linked).map_err(Error::internal)?;
        write_atomically(path, true, |file| file.write_all(&bytes)).map_err(|e| cannot_write(path, &e))
    }

    fn link(&self, model: &Model, scratch: &Path) -> Result<PathBuf, Error> {
        let description = serde_json::to_vec(model).map_err(Error::internal)?;
        let mut blobs: Vec<Blob> = model_blobs(&self.data, &description).into();
        blobs.extend(self.constants.iter().map(|(symbol, bytes)| Blob {
            symbol,
            length: None,
            bytes,
        }));
        let objects = [("code.o", self.object.clone()), ("data.o", object_file(&blobs)?)];
        let mut paths = Vec::new();
        for (name, bytes) in objects {
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
