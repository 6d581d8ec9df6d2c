//! The network's GPU part. Its functions work on an emulated device's memory themselves, instead of launching
//! kernels; collectives and tracing are those of every GPU part.

use std::ffi::c_void;

use syncbn_abi::{
    AdamWArguments, Gpu, GpuArguments, GpuKernel, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM, Segment,
    UpdateArguments,
};
use syncbn_runtime::{
    error::Error,
    gpu::symbols::{ncclAllReduce, ncclGroupEnd, ncclGroupStart, syncbn_rt_gpu_trace, syncbn_rt_nccl_check},
    gpu::{DEVICES, Devices, Kind},
    program::GpuPart,
};

use super::{
    EPSILON,
    description::model,
    element::Element,
    inference::{infer_prepare, infer_step},
    train,
    update::{update_adamw, update_sgd},
};

/// Epsilon comes from here, so that constants that are missing on the device are noticed.
static CONSTANTS: [u8; 8] = EPSILON.to_le_bytes();

pub fn part<T: Element>(mode: &str, data: &'static [u8]) -> GpuPart {
    let mut model = model(T::TYPE, mode);
    model.targets = vec!["cuda-emulated".into()];
    model.gpu = Some(Gpu {
        precision: "f32".into(),
        cuda: false,
        emulated: true,
        kernels: vec![GpuKernel {
            name: "unused_kernel".into(),
            block: 128,
            shared: 512,
            cooperative: false,
            parameters: Some(vec![]),
        }],
        train_constants: CONSTANTS.len() as u64,
        infer_constants: 0,
    });
    GpuPart {
        model,
        data,
        train_step: Some(train_step::<T>),
        update_sgd: Some(sgd::<T>),
        update_adamw: Some(adamw::<T>),
        infer_prepare: Some(prepare::<T>),
        infer_step: Some(infer::<T>),
        train_constants: &CONSTANTS,
        infer_constants: &[],
        images: b"{\"images\":[]}\n",
        emulated_kernels: &[unused_kernel],
        devices: DEVICES,
    }
}

/// How many GPUs there are; without it, no driver.
pub const GPUS: &str = "SYNCBN_TEST_GPUS";

/// Makes a part for CUDA of one for the emulator: the GPUs that [`GPUS`] counts are emulated ones.
pub fn add_device_code(part: &mut GpuPart) {
    part.model.gpu.as_mut().unwrap().cuda = true;
    part.devices = Devices {
        count: || match std::env::var(GPUS) {
            Ok(count) => Ok(count.parse().unwrap()),
            Err(_) => Err(Error::environment("the driver is absent")),
        },
        open: |part, kind, index| {
            if kind == Kind::Cuda {
                let count: usize = std::env::var(GPUS).unwrap().parse().unwrap();
                assert!(index < count);
            }
            (DEVICES.open)(part, Kind::Emulated, index)
        },
    };
}

unsafe extern "C" fn unused_kernel(_: *const *const c_void) {}

unsafe extern "C" fn train_step<T: Element>(arguments: *const GpuArguments) -> i32 {
    // SAFETY: the runtime passes arguments that match the description.
    unsafe {
        let a = &*arguments;
        let reduce = |collective: i64, segments: &[Segment]| {
            let communicator = *a.communicators.add(collective as usize);
            ncclGroupStart();
            for segment in segments {
                let kind = [NCCL_FLOAT32, NCCL_FLOAT64][segment.element_type as usize];
                let (data, count) = (segment.data.cast(), segment.elements as u64);
                let status = ncclAllReduce(data, data, count, kind, NCCL_SUM, communicator, a.stream);
                syncbn_rt_nccl_check(a.stream, status);
            }
            ncclGroupEnd();
            0
        };
        let trace = |node, output, data, elements: usize| {
            syncbn_rt_gpu_trace(a.stream, a.step.context, node, output, data, elements as i64);
        };
        train::<T>(&a.step, *a.constants.cast(), reduce, trace)
    }
}

unsafe extern "C" fn sgd<T: Element>(arguments: *const GpuArguments) -> i32 {
    // SAFETY: as in `train_step`.
    unsafe { update_sgd::<T>((*arguments).update.cast::<UpdateArguments>()) }
}

unsafe extern "C" fn adamw<T: Element>(arguments: *const GpuArguments) -> i32 {
    // SAFETY: as in `train_step`.
    unsafe { update_adamw::<T>((*arguments).update.cast::<AdamWArguments>()) }
}

unsafe extern "C" fn prepare<T: Element>(arguments: *const GpuArguments) -> i32 {
    // SAFETY: as in `train_step`.
    unsafe { infer_prepare::<T>(&raw const (*arguments).step) }
}

unsafe extern "C" fn infer<T: Element>(arguments: *const GpuArguments) -> i32 {
    // SAFETY: as in `train_step`.
    unsafe { infer_step::<T>(&raw const (*arguments).step) }
}
