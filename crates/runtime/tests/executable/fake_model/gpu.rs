//! The network's GPU part, with kernels of one thread. Collectives and tracing are those of every GPU part.

use std::{ffi::c_void, ptr};

use syncbn_abi::{
    AdamWArguments, Gpu, GpuArguments, GpuKernel, GpuParameter, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM,
    Segment, StepArguments, UpdateArguments,
};
use syncbn_runtime::{
    error::Error,
    gpu::{
        DEVICES, Gpus, Kind, cuda,
        part::{EmulatedKernel, GpuPart},
        symbols::{
            ncclAllReduce, ncclGroupEnd, ncclGroupStart, syncbn_rt_gpu_trace, syncbn_rt_launch,
            syncbn_rt_nccl_check, syncbn_rt_stream_wait,
        },
    },
};

use super::{
    CLASSES, EPSILON, FEATURES, Phase,
    description::model,
    element::Element,
    inference::{infer_prepare, infer_step},
    moments, rest, train,
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
        emulated_cpu: None,
        kernels: kernels(T::TYPE.bytes()),
        train_constants: CONSTANTS.len() as u64,
        infer_constants: 0,
    });
    GpuPart {
        model,
        data,
        train_step: Some(train_step::<T>),
        update_sgd: Some(sgd),
        update_adamw: Some(adamw),
        infer_prepare: Some(prepare),
        infer_step: Some(infer),
        train_constants: &CONSTANTS,
        infer_constants: &[],
        images: b"{\"images\":[]}\n",
        emulated_kernels: const {
            &[
                unused_kernel,
                moments_kernel::<T>,
                rest_kernel::<T>,
                prepare_kernel::<T>,
                infer_kernel::<T>,
                sgd_kernel::<T>,
                adamw_kernel::<T>,
                unused_kernel,
            ] as &[EmulatedKernel]
        },
        devices: DEVICES,
    }
}

/// How many GPUs there are; without it, no driver.
pub const GPUS: &str = "SYNCBN_TEST_GPUS";

static EMULATED: Gpus = Gpus {
    count: || match std::env::var(GPUS) {
        Ok(count) => Ok(count.parse().unwrap()),
        Err(_) => Err(Error::environment("the driver is absent")),
    },
    open: |part, index| {
        let count: usize = std::env::var(GPUS).unwrap().parse().unwrap();
        assert!(index < count);
        DEVICES.open(part, Kind::Emulated, index)
    },
    survey: cuda::GPUS.survey,
};

/// Makes a part for CUDA of one for the emulator: the GPUs that [`GPUS`] counts are emulated ones.
pub fn add_device_code(part: &mut GpuPart) {
    part.model.gpu.as_mut().unwrap().cuda = true;
    part.devices.cuda = Some(&EMULATED);
}

/// A rank whose launcher's `RANK` is this waits for the GPU in its steps, which cannot be captured.
pub const WAITS: &str = "SYNCBN_TEST_WAITS";

/// The kernels by index.
#[derive(Clone, Copy)]
enum Kernel {
    Moments = 1,
    Rest,
    Prepare,
    Infer,
    Sgd,
    AdamW,
}

fn kernels(width: u64) -> Vec<GpuKernel> {
    let fixed = GpuParameter {
        bytes: 1,
        bytes_per_sample: 0,
        written: true,
    };
    let batch = |bytes_per_sample, written| GpuParameter {
        bytes: 0,
        bytes_per_sample,
        written,
    };
    let tensors = [
        batch(FEATURES as u64 * width, false),
        batch(8, false),
        batch(CLASSES as u64 * width, true),
    ];
    let step = Some([&tensors[..], &[fixed; 7]].concat());
    let kernel = |name: &str, block, shared, parameters| GpuKernel {
        name: name.into(),
        block,
        shared,
        cooperative: false,
        parameters,
        numbers: 0,
        nodes: Vec::new(),
    };
    vec![
        kernel("unused_kernel", 128, 512, Some(vec![])),
        kernel("moments", 1, 0, step.clone()),
        kernel("rest", 1, 0, step.clone()),
        kernel("prepare", 1, 0, step.clone()),
        kernel("infer", 1, 0, step),
        kernel("sgd", 1, 0, None),
        kernel("adamw", 1, 0, None),
        // For tensors of other sizes.
        kernel("unused_kernel", 128, 512, Some(vec![])),
    ]
}

unsafe extern "C" fn unused_kernel(_: *const *const c_void) {}

/// Launches a kernel of a step or of inference.
///
/// # Safety
/// The arguments match the description.
unsafe fn launch(a: &GpuArguments, kernel: Kernel) {
    // SAFETY: passed on from the caller.
    unsafe {
        let step = &a.step;
        let pointers: [*const u8; 10] = [
            *step.inputs,
            *step.inputs.add(1),
            *step.outputs,
            step.weights,
            step.gradients,
            step.statistics,
            step.prepared,
            step.step,
            step.loss.cast(),
            a.constants,
        ];
        let (n, total) = (step.n as i32, step.total);
        let mut parameters: Vec<*const c_void> = pointers
            .iter()
            .map(|pointer| ptr::from_ref(pointer).cast())
            .collect();
        parameters.extend([(&raw const n).cast::<c_void>(), (&raw const total).cast()]);
        syncbn_rt_launch(a.stream, kernel as i64, 1, 1, 1, parameters.as_ptr());
    }
}

/// What `body` does with the arguments that the parameters of [`launch`] stand for, and with the constants.
///
/// # Safety
/// The parameters are those of [`launch`].
unsafe fn with<R>(parameters: *const *const c_void, body: impl FnOnce(&StepArguments, *const u8) -> R) -> R {
    // SAFETY: passed on from the caller.
    unsafe {
        let pointer = |index: usize| (*parameters.add(index)).cast::<*mut u8>().read();
        let inputs = [pointer(0).cast_const(), pointer(1).cast_const()];
        let outputs = [pointer(2)];
        let arguments = StepArguments {
            context: ptr::null_mut(),
            weights: pointer(3),
            gradients: pointer(4),
            statistics: pointer(5),
            prepared: pointer(6),
            step: pointer(7),
            inputs: inputs.as_ptr(),
            outputs: outputs.as_ptr(),
            loss: pointer(8).cast(),
            n: i64::from((*parameters.add(10)).cast::<i32>().read()),
            total: (*parameters.add(11)).cast::<i64>().read(),
            ranks: 1,
            trace: 0,
            thread: 0,
            threads: 1,
            scratch: std::ptr::null_mut(),
            partials: std::ptr::null_mut(),
        };
        body(&arguments, pointer(9))
    }
}

unsafe extern "C" fn moments_kernel<T: Element>(parameters: *const *const c_void) {
    // SAFETY: the kernel is launched by `launch`, in a training step.
    unsafe { with(parameters, |a, _| moments::<T>(a)) }
}

unsafe extern "C" fn rest_kernel<T: Element>(parameters: *const *const c_void) {
    // SAFETY: as above.
    unsafe { with(parameters, |a, constants| rest::<T>(a, *constants.cast())) }
}

unsafe extern "C" fn prepare_kernel<T: Element>(parameters: *const *const c_void) {
    // SAFETY: the kernel is launched by `launch`, before inference.
    unsafe { with(parameters, |a, _| infer_prepare::<T>(a)) };
}

unsafe extern "C" fn infer_kernel<T: Element>(parameters: *const *const c_void) {
    // SAFETY: the kernel is launched by `launch`, in inference.
    unsafe { with(parameters, |a, _| infer_step::<T>(a)) };
}

unsafe extern "C" fn sgd_kernel<T: Element>(parameters: *const *const c_void) {
    // SAFETY: the parameter points to a pointer to the arguments.
    unsafe { update_sgd::<T>((*parameters).cast::<*const UpdateArguments>().read()) };
}

unsafe extern "C" fn adamw_kernel<T: Element>(parameters: *const *const c_void) {
    // SAFETY: as above.
    unsafe { update_adamw::<T>((*parameters).cast::<*const AdamWArguments>().read()) };
}

unsafe extern "C" fn train_step<T: Element>(arguments: *const GpuArguments) -> i32 {
    // SAFETY: the runtime passes arguments that match the description.
    unsafe {
        let a = &*arguments;
        let reduce = |collective: i64, segments: &[Segment]| {
            // As in generated code, gradients have a stream of their own, and every collective waits for the other's.
            let (stream, other) = match collective {
                2 => (a.gradient_stream, a.stream),
                _ => (a.stream, a.gradient_stream),
            };
            syncbn_rt_stream_wait(stream, other);
            let communicator = *a.communicators.add(collective as usize);
            ncclGroupStart();
            for segment in segments {
                let kind = [NCCL_FLOAT32, NCCL_FLOAT64][segment.element_type as usize];
                let (data, count) = (segment.data.cast(), segment.elements as u64);
                let status = ncclAllReduce(data, data, count, kind, NCCL_SUM, communicator, stream);
                syncbn_rt_nccl_check(stream, status);
            }
            ncclGroupEnd();
            0
        };
        let trace = |node, output, data, elements: usize| {
            syncbn_rt_gpu_trace(a.stream, a.step.context, node, output, data, elements as i64);
        };
        let run = |phase| match phase {
            Phase::Moments => launch(a, Kernel::Moments),
            Phase::Rest => launch(a, Kernel::Rest),
        };
        if let (Ok(waiting), Ok(rank)) = (std::env::var(WAITS), std::env::var("RANK"))
            && waiting == rank
        {
            trace(0, 0, a.step.weights.cast_const().cast(), 1);
        }
        let status = train::<T>(&a.step, run, reduce, trace);
        syncbn_rt_stream_wait(a.stream, a.gradient_stream);
        status
    }
}

/// Launches an update's kernel.
///
/// # Safety
/// The arguments match the description.
unsafe fn update(a: &GpuArguments, kernel: Kernel) -> i32 {
    let parameters = [(&raw const a.update).cast::<c_void>()];
    // SAFETY: passed on from the caller.
    unsafe { syncbn_rt_launch(a.stream, kernel as i64, 1, 1, 1, parameters.as_ptr()) };
    0
}

unsafe extern "C" fn sgd(arguments: *const GpuArguments) -> i32 {
    // SAFETY: as in `train_step`.
    unsafe { update(&*arguments, Kernel::Sgd) }
}

unsafe extern "C" fn adamw(arguments: *const GpuArguments) -> i32 {
    // SAFETY: as in `train_step`.
    unsafe { update(&*arguments, Kernel::AdamW) }
}

unsafe extern "C" fn prepare(arguments: *const GpuArguments) -> i32 {
    // SAFETY: as in `train_step`.
    unsafe { launch(&*arguments, Kernel::Prepare) };
    0
}

unsafe extern "C" fn infer(arguments: *const GpuArguments) -> i32 {
    // SAFETY: as in `train_step`.
    unsafe { launch(&*arguments, Kernel::Infer) };
    0
}
