//! The GPU part of an executable: its description, objects and data.

use syncbn_abi::{Gpu, Image, Images, Model, gpu_symbols};
use syncbn_codegen::{Cpu, Emit, GpuTargets, emit_gpu, generate_gpu};
use syncbn_ir::DType;
use syncbn_mlir::cpu::Program;

use crate::{Error, Options, worker};

/// The lowest compute capability of device code, as PTX says it: 8.0.
const COMPUTE_CAPABILITY: u32 = 80;

/// What the GPU part adds to an executable.
pub struct GpuPart {
    /// Its description.
    pub model: Model,
    /// Code, by the name of its object file.
    pub objects: Vec<(&'static str, Vec<u8>)>,
    /// Data, by symbol.
    pub blobs: Vec<(&'static str, Vec<u8>)>,
}

/// Generates the GPU part of a program that `model` describes without it. `constants` are those of training and
/// of inference.
pub fn part(
    program: &Program,
    cpu: &Cpu,
    options: &Options,
    mut model: Model,
    (train_constants, infer_constants): (Vec<u8>, Vec<u8>),
) -> Result<GpuPart, Error> {
    check_type(program)?;
    let targets = GpuTargets {
        cuda: options.targets.cuda,
        emulated: options.targets.emulated,
    };
    let code = generate_gpu(program, cpu, targets, &mut worker::note_kernels)?;
    let scratch = code.kernels.scratch;
    model.arenas.train_step += scratch;
    model.arenas.infer_step += scratch;
    model.gpu = Some(Gpu {
        precision: program.products.name().to_string(),
        cuda: targets.cuda,
        emulated: targets.emulated,
        kernels: code.kernels.kernels,
        train_constants: train_constants.len() as u64,
        infer_constants: infer_constants.len() as u64,
    });
    let mut part = GpuPart {
        model,
        objects: vec![("gpu-host.o", code.host)],
        blobs: vec![
            (gpu_symbols::TRAIN_CONSTANTS, train_constants),
            (gpu_symbols::INFER_CONSTANTS, infer_constants),
        ],
    };
    if let Some(object) = code.emulated {
        part.objects.push(("gpu-emulated.o", object));
    }
    if let Some(ptx) = code.ptx {
        part.blobs.push((gpu_symbols::IMAGES, images(ptx)?));
    }
    Ok(part)
}

/// The image table and the images.
fn images(ptx: String) -> Result<Vec<u8>, Error> {
    // The driver takes PTX as a C string.
    let ptx = [ptx.as_bytes(), &[0]].concat();
    let table = Images {
        images: vec![Image {
            kind: "ptx".to_string(),
            compute_capability: COMPUTE_CAPABILITY,
            bytes: ptx.len() as u64,
        }],
    };
    let mut bytes = serde_json::to_vec(&table).map_err(Error::internal)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&ptx);
    Ok(bytes)
}

/// A text form of a GPU program.
pub fn emit_text(program: &Program, emit: Emit) -> Result<Vec<u8>, Error> {
    check_type(program)?;
    Ok(emit_gpu(program, emit)?)
}

fn check_type(program: &Program) -> Result<(), Error> {
    match program.dtype {
        DType::F32 => Ok(()),
        other => Err(Error::user(
            format!("the GPU target computes in f32, and the network is {other}"),
            "give --precision cpu=f32",
        )),
    }
}
