//! The C `main` of a produced executable, and the binding of the model's symbols.

use std::{
    ffi::{c_char, c_int, c_void},
    sync::Arc,
};

use syncbn_abi::{Images, Model};

use crate::{
    commands::run,
    cpu::part::{AdamWFunction, CpuPart, StepFunction, UpdateFunction},
    error::{Error, Result},
    gpu::{
        Devices, EmulatedGpus, Gpus,
        part::{EmulatedKernel, GpuFunction, GpuPart},
    },
    program::Program,
};

/// Longest line of JSON before the images of the device code.
const IMAGES_LINE: usize = 1 << 20;

// A model without one of the parts, without training or without inference lacks the symbols of it. Weak
// references leave 0 in the table then, which Rust's own extern items cannot express.
macro_rules! table {
    ($($symbol:literal),* $(,)?) => {
        std::arch::global_asm!(
            $(concat!(".weak ", $symbol),)*
            ".pushsection .data.rel.ro.syncbn_rt_symbols, \"aw\", @progbits",
            ".balign 8",
            ".globl syncbn_rt_symbols",
            ".hidden syncbn_rt_symbols",
            ".type syncbn_rt_symbols, @object",
            "syncbn_rt_symbols:",
            $(concat!(".quad ", $symbol),)*
            ".size syncbn_rt_symbols, . - syncbn_rt_symbols",
            ".popsection",
        );
    };
}

table!(
    "syncbn_train_step",
    "syncbn_update_sgd",
    "syncbn_update_adamw",
    "syncbn_infer_prepare",
    "syncbn_infer_step",
    "syncbn_gpu_train_step",
    "syncbn_gpu_update_sgd",
    "syncbn_gpu_update_adamw",
    "syncbn_gpu_infer_prepare",
    "syncbn_gpu_infer_step",
    "syncbn_gpu_train_constants",
    "syncbn_gpu_infer_constants",
    "syncbn_gpu_images",
    "syncbn_emulated_kernels",
    "syncbn_cuda",
    "syncbn_emulator",
);

/// The addresses of the table; null where the model lacks the symbol.
#[repr(C)]
struct Symbols {
    train_step: Option<StepFunction>,
    update_sgd: Option<UpdateFunction>,
    update_adamw: Option<AdamWFunction>,
    infer_prepare: Option<StepFunction>,
    infer_step: Option<StepFunction>,
    gpu_train_step: Option<GpuFunction>,
    gpu_update_sgd: Option<GpuFunction>,
    gpu_update_adamw: Option<GpuFunction>,
    gpu_infer_prepare: Option<GpuFunction>,
    gpu_infer_step: Option<GpuFunction>,
    gpu_train_constants: *const u8,
    gpu_infer_constants: *const u8,
    gpu_images: *const u8,
    emulated_kernels: *const EmulatedKernel,
    /// To a pointer to [`Gpus`].
    cuda: *const *const c_void,
    /// To a pointer to [`EmulatedGpus`].
    emulator: *const *const c_void,
}

unsafe extern "C" {
    static syncbn_rt_symbols: Symbols;
    static syncbn_model: u8;
    static syncbn_model_length: u64;
    static syncbn_data: u8;
    static syncbn_data_length: u64;
}

/// The entry point.
#[unsafe(no_mangle)]
pub extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    // SAFETY: nothing else runs yet. Rust's own start-up, which this `main` replaces, does the same: a write
    // to a closed pipe is an error value, not the end of the process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    run::main(bind, std::env::args_os().collect())
}

/// The linked model.
fn bind() -> Result<Program> {
    // SAFETY: the model object defines these symbols as `syncbn_abi::symbols` says, and the linker checked
    // the ABI hash.
    let (description, data, symbols) = unsafe {
        (
            std::slice::from_raw_parts(&raw const syncbn_model, syncbn_model_length as usize),
            std::slice::from_raw_parts(&raw const syncbn_data, syncbn_data_length as usize),
            &syncbn_rt_symbols,
        )
    };
    let models: Vec<Model> = serde_json::from_slice(description)
        .map_err(|cause| Error::internal(format!("the model's description is malformed: {cause}")))?;
    let (mut cpu, mut gpu) = (None, None);
    for model in models {
        match model.gpu {
            None => cpu = Some(Arc::new(cpu_part(model, data, symbols))),
            Some(_) => gpu = Some(Arc::new(gpu_part(model, data, symbols)?)),
        }
    }
    Ok(Program { cpu, gpu })
}

fn cpu_part(model: Model, data: &'static [u8], symbols: &Symbols) -> CpuPart {
    CpuPart {
        model,
        data,
        train_step: symbols.train_step,
        update_sgd: symbols.update_sgd,
        update_adamw: symbols.update_adamw,
        infer_prepare: symbols.infer_prepare,
        infer_step: symbols.infer_step,
    }
}

fn gpu_part(model: Model, data: &'static [u8], symbols: &Symbols) -> Result<GpuPart> {
    let (mut kernels, mut sizes) = (0, (0, 0));
    if let Some(gpu) = &model.gpu {
        kernels = gpu.kernels.len();
        sizes = (gpu.train_constants as usize, gpu.infer_constants as usize);
    }
    // SAFETY: the model object defines the symbols as `syncbn_abi::gpu_symbols` and the description say.
    unsafe {
        Ok(GpuPart {
            model,
            data,
            train_step: symbols.gpu_train_step,
            update_sgd: symbols.gpu_update_sgd,
            update_adamw: symbols.gpu_update_adamw,
            infer_prepare: symbols.gpu_infer_prepare,
            infer_step: symbols.gpu_infer_step,
            train_constants: elements(symbols.gpu_train_constants, sizes.0),
            infer_constants: elements(symbols.gpu_infer_constants, sizes.1),
            images: images(symbols.gpu_images)?,
            emulated_kernels: elements(symbols.emulated_kernels, kernels),
            devices: Devices {
                cuda: symbols.cuda.cast::<&'static Gpus>().as_ref().copied(),
                emulated: symbols.emulator.cast::<&'static EmulatedGpus>().as_ref().copied(),
            },
        })
    }
}

/// The `count` elements from `first` on; none if the symbol is absent.
///
/// # Safety
/// The elements are there and never change.
unsafe fn elements<T>(first: *const T, count: usize) -> &'static [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: passed on from the caller.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// The line that describes the images, and the images.
///
/// # Safety
/// If `start` is not null, a line with the JSON text of [`Images`] starts there, and the images follow it.
unsafe fn images(start: *const u8) -> Result<&'static [u8]> {
    if start.is_null() {
        return Ok(&[]);
    }
    let malformed = |cause: &str| Error::internal(format!("the table of device code is malformed: {cause}"));
    let length = (0..IMAGES_LINE)
        // SAFETY: the line ends within the symbol, and the search ends with it.
        .find(|&index| unsafe { *start.add(index) } == b'\n')
        .ok_or_else(|| malformed("it has no end"))?;
    // SAFETY: the bytes were just read.
    let line = unsafe { std::slice::from_raw_parts(start, length) };
    let table: Images = serde_json::from_slice(line).map_err(|cause| malformed(&cause.to_string()))?;
    let bytes: u64 = table.images.iter().map(|image| image.bytes).sum();
    // SAFETY: the images follow their table.
    Ok(unsafe { std::slice::from_raw_parts(start, length + 1 + bytes as usize) })
}
