//! The GPU part of an executable: its description, objects and data.

use std::thread;

use syncbn_abi::{Gpu, Image, Images, Model, gpu_symbols};
use syncbn_codegen::{Cpu, Emit, GpuTargets, emit_gpu, generate_gpu};
use syncbn_mlir::{KernelSource, Program};

use crate::executable::CompiledPart;
use crate::model::processor;
use crate::ptxas::{Assembled, Ptxas};
use crate::{Error, Options, worker};

/// The lowest compute capability of device code, as PTX says it: 8.0.
const COMPUTE_CAPABILITY: u32 = 80;
/// The compute capabilities that are assembled for, where ptxas is found.
const ASSEMBLED: [u32; 2] = [80, 90];

/// Generates the GPU part of a program that `model` describes without it. `constants` are those of training and
/// of inference.
pub fn part(
    program: &Program,
    cpu: &Cpu,
    options: &Options,
    mut model: Model,
    (train_constants, infer_constants): (Vec<u8>, Vec<u8>),
) -> Result<CompiledPart, Error> {
    let targets = wanted(options);
    let code = generate_gpu(program, cpu, targets, &mut worker::note_kernels)?;
    (model.arenas.scratch, model.arenas.partials, model.threads) = (0, 0, false);
    model.cpu = processor(&cpu.host());
    model.gpu = Some(Gpu {
        precision: program.products.name().to_string(),
        cuda: targets.cuda,
        emulated: targets.emulated,
        emulated_cpu: targets.emulated.then(|| processor(cpu)),
        kernels: code.kernels.kernels,
        train_constants: train_constants.len() as u64,
        infer_constants: infer_constants.len() as u64,
    });
    let mut part = CompiledPart {
        model,
        objects: vec![("gpu-host.o".to_string(), code.host)],
        blobs: vec![
            (gpu_symbols::TRAIN_CONSTANTS, train_constants),
            (gpu_symbols::INFER_CONSTANTS, infer_constants),
        ],
        warnings: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(object) = code.emulated {
        part.objects.push(("gpu-emulated.o".to_string(), object));
    }
    if let Some(ptx) = code.ptx {
        let ptxas = Ptxas::find()?;
        part.notes.push(match &ptxas {
            Some(ptxas) => format!("  ptxas: {ptxas}, for sm_80 and sm_90"),
            None => {
                format!("  {NO_PTXAS}: the executable carries PTX only, which the driver assembles at start")
            }
        });
        let assembled = match &ptxas {
            Some(ptxas) => {
                let result = assemble(ptxas, &ptx, &code.kernels.sources);
                // Without it the driver does its work.
                let lacks = "the executable carries no assembled GPU code";
                ptxas.or_warning(result, lacks)?.unwrap_or_else(|warning| {
                    part.model.warnings.push(warning.to_string());
                    part.warnings.push(warning);
                    Vec::new()
                })
            }
            None => Vec::new(),
        };
        part.blobs.push((gpu_symbols::IMAGES, images(&ptx, &assembled)?));
    }
    Ok(part)
}

/// What stands where ptxas is wanted and not there.
const NO_PTXAS: &str = "no ptxas (pip install nvidia-cuda-nvcc, or set SYNCBN_PTXAS)";

/// Assembles for every one of [`ASSEMBLED`], at the same time.
fn assemble(ptxas: &Ptxas, ptx: &str, sources: &[KernelSource]) -> Result<Vec<Assembled>, Error> {
    let results: Vec<Result<Assembled, Error>> = thread::scope(|scope| {
        let threads =
            ASSEMBLED.map(|capability| scope.spawn(move || ptxas.assemble(ptx, capability, sources)));
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .map(|result| result.unwrap_or_else(|_| Err(Error::internal("a thread that ran ptxas panicked"))))
            .collect()
    });
    Error::all(results.into_iter())
}

/// What ptxas says of each kernel in PTX, one line a kernel and GPU.
pub fn usage(ptx: &[u8]) -> Result<Vec<String>, Error> {
    let ptx = std::str::from_utf8(ptx).map_err(Error::internal)?;
    let Some(ptxas) = Ptxas::find()? else {
        return Ok(vec![NO_PTXAS.to_string()]);
    };
    let assembled = assemble(&ptxas, ptx, &[])?;
    let of_gpu = |all: Assembled| {
        let head = format!("  sm_{}", all.capability);
        all.kernels
            .into_iter()
            .map(move |usage| format!("{head} {usage}"))
    };
    Ok(assembled.into_iter().flat_map(of_gpu).collect())
}

/// The image table and the images.
fn images(ptx: &str, assembled: &[Assembled]) -> Result<Vec<u8>, Error> {
    // The driver takes PTX as a C string.
    let ptx = [ptx.as_bytes(), &[0]].concat();
    let mut table = Images::default();
    let mut code = Vec::new();
    let cubins = assembled.iter().map(|a| ("cubin", a.capability, &a.cubin));
    for (kind, compute_capability, bytes) in cubins.chain([("ptx", COMPUTE_CAPABILITY, &ptx)]) {
        table.images.push(Image {
            kind: kind.to_string(),
            compute_capability,
            bytes: bytes.len() as u64,
        });
        code.extend_from_slice(bytes);
    }
    let mut bytes = serde_json::to_vec(&table).map_err(Error::internal)?;
    bytes.push(b'\n');
    bytes.append(&mut code);
    Ok(bytes)
}

/// A text form of a GPU program.
pub fn emit_text(program: &Program, cpu: &Cpu, options: &Options, emit: Emit) -> Result<Vec<u8>, Error> {
    Ok(emit_gpu(program, cpu, wanted(options), emit)?)
}

fn wanted(options: &Options) -> GpuTargets {
    GpuTargets {
        cuda: options.targets.cuda,
        emulated: options.targets.emulated,
    }
}
