//! `info`: the description of the compiled network.

mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use syncbn_abi::{Image, Images, Model};
use text::{Lines, text};

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
            let mut lines = Lines::default();
            for (name, value) in device.lines() {
                lines.line(name, value);
            }
            return report::result(&lines.text());
        }
        let text_of = |part: &Description| text(part.model, part.images.as_ref());
        let mut texts = vec![text_of(&description)];
        texts.extend(description.gpu_part.as_deref().map(text_of));
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
