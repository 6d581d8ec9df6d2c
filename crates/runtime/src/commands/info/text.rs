//! What `info` prints for people.

use std::{collections::BTreeMap, fmt::Display};

use syncbn_abi::{Cpu, Gpu, GpuKernel, Model, Parameter, Target};

/// The lines of a text, under construction.
#[derive(Default)]
pub struct Lines(Vec<String>);

impl Lines {
    /// A name and what it stands for.
    pub fn line(&mut self, name: &str, value: impl Display) {
        self.0.push(format!("{name:<12}{value}"));
    }

    /// All of them.
    pub fn text(&self) -> String {
        self.0.join("\n")
    }

    /// The head of a section.
    fn section(&mut self, head: impl Display) {
        self.0.push(format!("\n{head}"));
    }

    /// A line of a section.
    fn item(&mut self, item: impl Display) {
        self.0.push(format!("  {item}"));
    }
}

/// The whole text; `images` are the sizes of the device code's images by name.
pub fn text(model: &Model, images: Option<&BTreeMap<String, u64>>) -> String {
    let mut lines = Lines::default();
    origin(&mut lines, model);
    if let Some(gpu) = &model.gpu {
        gpu_part(&mut lines, gpu, images.into_iter().flatten());
    }
    interface(&mut lines, model);
    for warning in &model.warnings {
        lines.line("warning", warning);
    }
    tensors(&mut lines, &model.parameters);
    batch_norms(&mut lines, model);
    collectives(&mut lines, model);
    if let Some(gpu) = &model.gpu {
        kernels(&mut lines, &gpu.kernels);
    }
    arenas(&mut lines, model);
    lines.text()
}

/// What the part was compiled from and for.
fn origin(lines: &mut Lines, model: &Model) {
    lines.line("network", &model.name);
    lines.line("compiler", format!("syncbn-compile {}", model.compiler));
    lines.line("targets", model.targets.join(", "));
    lines.line("processor", processor(&model.cpu));
    let flags = model
        .flags
        .iter()
        .map(|(name, value)| format!("--{name} {value}"));
    lines.line("flags", flags.collect::<Vec<_>>().join(" "));
    let glibc = model.glibc.as_ref();
    lines.line(
        "glibc",
        glibc.map_or("unknown".into(), |version| format!("{version} or later")),
    );
}

fn gpu_part<'a>(lines: &mut Lines, gpu: &Gpu, images: impl Iterator<Item = (&'a String, &'a u64)>) {
    lines.line("part", "GPU");
    lines.line("precision", &gpu.precision);
    let runs = [(gpu.cuda, "cuda"), (gpu.emulated, "cuda-emulated")];
    lines.line("devices", present(&runs));
    if let Some(cpu) = &gpu.emulated_cpu {
        lines.line("emulated on", processor(cpu));
    }
    for (name, bytes) in images {
        lines.line("image", format!("{name}, {bytes} bytes"));
    }
}

/// What the part takes and gives.
fn interface(lines: &mut Lines, model: &Model) {
    lines.line("elements", format!("{:?}", model.element_type).to_lowercase());
    lines.line("batch", format!("up to {} a rank", model.batch_bound));
    lines.line(
        "functions",
        present(&[(model.train, "train"), (model.infer, "infer")]),
    );
    for input in &model.inputs {
        lines.line("input", format!("{} {}", input.name, batched(&input.shape)));
    }
    match &model.target {
        Some(Target::Classes { classes, shape }) => {
            let last = classes.saturating_sub(1);
            lines.line("target", format!("target {}: labels 0 to {last}", batched(shape)));
        }
        Some(Target::Values { shape }) => lines.line("target", format!("target {}: values", batched(shape))),
        None => {}
    }
    for output in &model.outputs {
        lines.line("output", format!("{} {}", output.name, batched(&output.shape)));
    }
}

/// The names of what is there.
fn present(all: &[(bool, &str)]) -> String {
    let there = all.iter().filter(|(there, _)| *there).map(|(_, name)| *name);
    there.collect::<Vec<_>>().join(", ")
}

fn tensors(lines: &mut Lines, all: &[Parameter]) {
    for (kind, trained) in [("trained", true), ("constant", false)] {
        let chosen = all.iter().filter(|tensor| tensor.trained == trained);
        let elements: u64 = chosen.clone().map(Parameter::elements).sum();
        lines.section(format!("{kind} tensors ({elements} elements)"));
        for tensor in chosen {
            let sizes: Vec<_> = tensor.shape.iter().map(u64::to_string).collect();
            lines.item(format!("{} [{}]", tensor.name, sizes.join(", ")));
        }
    }
}

fn batch_norms(lines: &mut Lines, model: &Model) {
    let (count, mode) = (model.batch_norms.len(), &model.batch_norm_mode);
    lines.section(format!("BatchNorm layers ({count}, --bn {mode})"));
    for layer in &model.batch_norms {
        let (name, channels, positions) = (&layer.name, layer.channels, layer.positions);
        lines.item(format!("{name} {channels} channels, {positions} positions"));
    }
}

fn collectives(lines: &mut Lines, model: &Model) {
    lines.section(format!(
        "collectives in a training step of several ranks ({}, {} bytes a rank)",
        model.collectives.len(),
        model.collectives.iter().map(|one| one.bytes).sum::<u64>()
    ));
    lines.item(format!(
        "before independent ones were merged: {}, {} bytes",
        model.uncombined.collectives, model.uncombined.bytes
    ));
    for collective in &model.collectives {
        let scope = match collective.group {
            0 => "all ranks".to_string(),
            size => format!("groups of {size}"),
        };
        lines.item(format!("{} {} bytes, {scope}", collective.name, collective.bytes));
    }
}

/// The kernels, each once however many shapes it serves.
fn kernels(lines: &mut Lines, all: &[GpuKernel]) {
    let mut alike: Vec<(&GpuKernel, usize)> = Vec::new();
    for kernel in all {
        match alike.iter_mut().find(|(known, _)| known.name == kernel.name) {
            Some((_, shapes)) => *shapes += 1,
            None => alike.push((kernel, 1)),
        }
    }
    lines.section(format!("kernels ({})", alike.len()));
    for (kernel, shapes) in alike {
        let shapes = match shapes {
            1 => String::new(),
            _ => format!(", for {shapes} shapes"),
        };
        lines.item(format!(
            "{} {} threads a block, {} bytes of shared memory{shapes}",
            kernel.name, kernel.block, kernel.shared
        ));
    }
}

fn arenas(lines: &mut Lines, model: &Model) {
    let arenas = &model.arenas;
    let mut sizes = vec![
        ("weights", arenas.weights),
        ("of which trained", arenas.trained),
        ("statistics, a rank", arenas.statistics),
        ("prepared", arenas.prepared),
        ("training step, a rank", arenas.train_step),
        ("inference step, a rank", arenas.infer_step),
    ];
    if model.threads {
        sizes.push(("parts of sums, a rank", arenas.partials));
        sizes.push(("a further thread", arenas.scratch));
    }
    if let Some(gpu) = &model.gpu {
        sizes.push(("training constants", gpu.train_constants));
        sizes.push(("inference constants", gpu.infer_constants));
    }
    lines.section("arenas in bytes");
    for (name, size) in sizes {
        lines.item(format!("{name:<24}{size}"));
    }
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
