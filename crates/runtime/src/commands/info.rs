//! `info`: the description of the compiled network.

use std::collections::BTreeMap;

use serde::Serialize;
use syncbn_abi::{Cpu, GpuKernel, Image, Images, Model, Parameter, Target};

use crate::{
    cli,
    error::{Error, Result},
    gpu::{part::GpuPart, survey::Survey},
    program::Program,
    report,
};

/// What `info --json` adds to a model's own description.
#[derive(Serialize)]
struct Description<'a> {
    #[serde(flatten)]
    model: &'a Model,
    trained: Vec<&'a str>,
    constant: Vec<&'a str>,
    collectives_per_step: usize,
    collective_bytes_per_step: u64,
    collectives_per_step_uncombined: u64,
    collective_bytes_per_step_uncombined: u64,
    /// Bytes of each image of the device code, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<BTreeMap<String, u64>>,
    /// The GPU part, beside that of the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_part: Option<Box<Description<'a>>>,
    /// What `--device` asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Survey>,
}

/// Runs `info`: describes the CPU part, and with or without it the GPU part.
pub fn run(program: &Program, flags: &cli::Info) -> Result<()> {
    let cpu = program.cpu.as_ref().map(|part| describe(&part.model, None));
    let gpu = match &program.gpu {
        Some(part) => Some(describe(&part.model, Some(images(part)?))),
        None => None,
    };
    let device = match (&program.gpu, flags.device) {
        (_, false) => None,
        (Some(part), true) => Some((part.devices.gpus()?.survey)(part)),
        (None, true) => {
            let error = Error::environment("info --device: this executable has no GPU part");
            return Err(error.help("compile the network with --target cpu,cuda"));
        }
    };
    let mut description = match (cpu, gpu) {
        (Some(cpu), gpu) => Description {
            gpu_part: gpu.map(Box::new),
            ..cpu
        },
        (None, Some(gpu)) => gpu,
        (None, None) => return Err(Error::internal("the executable holds no model")),
    };
    description.device = device;
    if !flags.json {
        if let Some(device) = &description.device {
            let lines = device
                .lines()
                .into_iter()
                .map(|(name, value)| format!("{name:<12}{value}"));
            return report::result(&lines.collect::<Vec<_>>().join("\n"));
        }
        let mut texts = vec![text(&description)];
        texts.extend(description.gpu_part.as_deref().map(text));
        return report::result(texts.join("\n\n\n").trim_end());
    }
    let text = serde_json::to_string_pretty(&description)
        .map_err(|cause| Error::internal(format!("cannot describe the model: {cause}")))?;
    report::result(&text)
}

fn describe(model: &Model, images: Option<BTreeMap<String, u64>>) -> Description<'_> {
    let names = |trained| {
        let chosen = model
            .parameters
            .iter()
            .filter(move |tensor| tensor.trained == trained);
        chosen.map(|tensor| tensor.name.as_str()).collect::<Vec<_>>()
    };
    Description {
        model,
        trained: names(true),
        constant: names(false),
        collectives_per_step: model.collectives.len(),
        collective_bytes_per_step: bytes(model),
        collectives_per_step_uncombined: model.uncombined.collectives,
        collective_bytes_per_step_uncombined: model.uncombined.bytes,
        images,
        gpu_part: None,
        device: None,
    }
}

/// The images of the device code and their bytes, such as `ptx for sm_80`.
fn images(part: &GpuPart) -> Result<BTreeMap<String, u64>> {
    let line = part
        .images
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    if line.is_empty() {
        return Ok(BTreeMap::new());
    }
    let table: Images = serde_json::from_slice(line)
        .map_err(|cause| Error::internal(format!("the table of device code is malformed: {cause}")))?;
    let name = |image: &Image| format!("{} for sm_{}", image.kind, image.compute_capability);
    Ok(table
        .images
        .iter()
        .map(|image| (name(image), image.bytes))
        .collect())
}

fn bytes(model: &Model) -> u64 {
    model.collectives.iter().map(|collective| collective.bytes).sum()
}

fn text(description: &Description) -> String {
    let model = description.model;
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<12}{value}"));
    line("network", model.name.clone());
    line("compiler", format!("syncbn-compile {}", model.compiler));
    line("targets", model.targets.join(", "));
    line("processor", processor(&model.cpu));
    let flags: Vec<_> = model
        .flags
        .iter()
        .map(|(name, value)| format!("--{name} {value}"))
        .collect();
    line("flags", flags.join(" "));
    line(
        "glibc",
        model
            .glibc
            .as_ref()
            .map_or("unknown".into(), |version| format!("{version} or later")),
    );
    if let Some(gpu) = &model.gpu {
        line("part", "GPU".into());
        line("precision", gpu.precision.clone());
        let runs = [(gpu.cuda, "cuda"), (gpu.emulated, "cuda-emulated")];
        let runs: Vec<_> = runs
            .iter()
            .filter(|(there, _)| *there)
            .map(|(_, name)| *name)
            .collect();
        line("devices", runs.join(", "));
        if let Some(cpu) = &gpu.emulated_cpu {
            line("emulated on", processor(cpu));
        }
        for (name, bytes) in description.images.iter().flatten() {
            line("image", format!("{name}, {bytes} bytes"));
        }
    }
    line("elements", format!("{:?}", model.element_type).to_lowercase());
    line("batch", format!("up to {} a rank", model.batch_bound));
    let functions = [(model.train, "train"), (model.infer, "infer")];
    let functions: Vec<_> = functions
        .iter()
        .filter(|(there, _)| *there)
        .map(|(_, name)| *name)
        .collect();
    line("functions", functions.join(", "));
    for input in &model.inputs {
        line("input", format!("{} {}", input.name, batched(&input.shape)));
    }
    match &model.target {
        Some(Target::Classes { classes, shape }) => {
            line(
                "target",
                format!(
                    "target {}: labels 0 to {}",
                    batched(shape),
                    classes.saturating_sub(1)
                ),
            );
        }
        Some(Target::Values { shape }) => line("target", format!("target {}: values", batched(shape))),
        None => {}
    }
    for output in &model.outputs {
        line("output", format!("{} {}", output.name, batched(&output.shape)));
    }
    for warning in &model.warnings {
        line("warning", warning.clone());
    }
    let sum = |trained| {
        let chosen = model.parameters.iter().filter(|tensor| tensor.trained == trained);
        chosen.map(Parameter::elements).sum::<u64>()
    };
    lines.push(format!("\ntrained tensors ({} elements)", sum(true)));
    lines.extend(tensors(&model.parameters, true));
    lines.push(format!("\nconstant tensors ({} elements)", sum(false)));
    lines.extend(tensors(&model.parameters, false));
    lines.push(format!(
        "\nBatchNorm layers ({}, --bn {})",
        model.batch_norms.len(),
        model.batch_norm_mode
    ));
    for layer in &model.batch_norms {
        lines.push(format!(
            "  {} {} channels, {} positions",
            layer.name, layer.channels, layer.positions
        ));
    }
    lines.push(format!(
        "\ncollectives in a training step of several ranks ({}, {} bytes a rank)",
        model.collectives.len(),
        bytes(model)
    ));
    lines.push(format!(
        "  before independent ones were merged: {}, {} bytes",
        model.uncombined.collectives, model.uncombined.bytes
    ));
    for collective in &model.collectives {
        let scope = match collective.group {
            0 => "all ranks".to_string(),
            size => format!("groups of {size}"),
        };
        lines.push(format!(
            "  {} {} bytes, {scope}",
            collective.name, collective.bytes
        ));
    }
    if let Some(gpu) = &model.gpu {
        let mut alike: Vec<(&GpuKernel, usize)> = Vec::new();
        for kernel in &gpu.kernels {
            match alike.iter_mut().find(|(known, _)| known.name == kernel.name) {
                Some((_, shapes)) => *shapes += 1,
                None => alike.push((kernel, 1)),
            }
        }
        lines.push(format!("\nkernels ({})", alike.len()));
        for (kernel, shapes) in alike {
            let shared = match shapes {
                1 => String::new(),
                _ => format!(", for {shapes} shapes"),
            };
            lines.push(format!(
                "  {} {} threads a block, {} bytes of shared memory{shared}",
                kernel.name, kernel.block, kernel.shared
            ));
        }
    }
    let arenas = &model.arenas;
    let (mut train_constants, mut infer_constants) = (None, None);
    if let Some(gpu) = &model.gpu {
        train_constants = Some(("training constants", gpu.train_constants));
        infer_constants = Some(("inference constants", gpu.infer_constants));
    }
    lines.push("\narenas in bytes".into());
    let sizes = [
        ("weights", arenas.weights),
        ("of which trained", arenas.trained),
        ("statistics, a rank", arenas.statistics),
        ("prepared", arenas.prepared),
        ("training step, a rank", arenas.train_step),
        ("inference step, a rank", arenas.infer_step),
    ];
    for (name, size) in sizes.into_iter().chain(train_constants).chain(infer_constants) {
        lines.push(format!("  {name:<24}{size}"));
    }
    lines.join("\n")
}

/// A processor, with the flag that chose it where it is not any x86-64.
fn processor(cpu: &Cpu) -> String {
    match cpu.features.is_empty() {
        true => cpu.name.clone(),
        false => format!("{} (--cpu {})", cpu.name, cpu.flag),
    }
}

fn batched(shape: &[u64]) -> String {
    let sizes: String = shape.iter().map(|size| format!(", {size}")).collect();
    format!("[n{sizes}]")
}

fn tensors(all: &[Parameter], trained: bool) -> impl Iterator<Item = String> {
    all.iter()
        .filter(move |tensor| tensor.trained == trained)
        .map(|tensor| {
            let sizes: Vec<_> = tensor.shape.iter().map(u64::to_string).collect();
            format!("  {} [{}]", tensor.name, sizes.join(", "))
        })
}
