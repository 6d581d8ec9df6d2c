//! `info`: the description of the compiled network.

use serde::Serialize;
use syncbn_abi::{Model, Parameter, Target};

use crate::{
    cli,
    error::{Error, Result},
    program::Program,
    report,
};

/// What `info --json` adds to the model's own description.
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
}

/// Runs `info`.
pub fn run(program: &Program, flags: &cli::Info) -> Result<()> {
    let model = &program.model;
    let names = |trained| {
        let chosen = model
            .parameters
            .iter()
            .filter(move |tensor| tensor.trained == trained);
        chosen.map(|tensor| tensor.name.as_str()).collect::<Vec<_>>()
    };
    if !flags.json {
        return report::result(text(model).trim_end());
    }
    let description = Description {
        model,
        trained: names(true),
        constant: names(false),
        collectives_per_step: model.collectives.len(),
        collective_bytes_per_step: bytes(model),
        collectives_per_step_uncombined: model.uncombined.collectives,
        collective_bytes_per_step_uncombined: model.uncombined.bytes,
    };
    let text = serde_json::to_string_pretty(&description)
        .map_err(|cause| Error::internal(format!("cannot describe the model: {cause}")))?;
    report::result(&text)
}

fn bytes(model: &Model) -> u64 {
    model.collectives.iter().map(|collective| collective.bytes).sum()
}

fn text(model: &Model) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<12}{value}"));
    line("network", model.name.clone());
    line("compiler", format!("syncbn-compile {}", model.compiler));
    line("targets", model.targets.join(", "));
    line(
        "processor",
        format!("{} (--cpu {})", model.cpu.name, model.cpu.flag),
    );
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
    let arenas = &model.arenas;
    lines.push("\narenas in bytes".into());
    for (name, size) in [
        ("weights", arenas.weights),
        ("of which trained", arenas.trained),
        ("statistics, a rank", arenas.statistics),
        ("prepared", arenas.prepared),
        ("training step, a rank", arenas.train_step),
        ("inference step, a rank", arenas.infer_step),
    ] {
        lines.push(format!("  {name:<24}{size}"));
    }
    lines.join("\n")
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
