//! A network written by hand the way the compiler generates one: BatchNorm over 3 features, a linear layer
//! to 4 classes, cross-entropy. Inputs can make it fail: see [`FAIL`].

mod description;
mod element;
pub mod gpu;
mod inference;
mod update;

use std::{ffi::c_void, slice, sync::Arc};

use syncbn_abi::{ElementType, Segment, StepArguments, StoredType, trace_output};
use syncbn_runtime::{
    cpu::{
        collectives::{syncbn_rt_all_reduce, syncbn_rt_trace, syncbn_team_barrier},
        part::CpuPart,
    },
    program::Program,
};

use description::model;
use element::Element;
use inference::{infer_prepare, infer_step};
use update::{update_adamw, update_sgd};

pub const FEATURES: usize = 3;
pub const CLASSES: usize = 4;
pub const BOUND: u64 = 8;
/// A rank that sees this as a sample's first feature returns a status before its first collective.
pub const FAIL: f64 = 12345.0;
/// A rank that sees this takes the collectives in another order.
pub const DIVERGE: f64 = 54321.0;
/// A rank that sees this overflows in the linear layer, not before.
pub const OVERFLOW: f64 = 777.0;
/// A rank that sees this never returns.
pub const HANG: f64 = 99999.0;

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;
// Byte offsets in the weights arena.
const WEIGHT: usize = 0;
const BIAS: usize = 128;
const GAMMA: usize = 192;
const BETA: usize = 256;
const UNUSED: usize = 320;
const TRAINED: usize = 384;
const CONSTANT: usize = 384;
// Byte offsets in the step arena.
const MEAN: usize = 0;
const INV_STD: usize = 64;
const SUMS: usize = 128;
const DZ_SUMS: usize = 192;
const XHAT: usize = 256;
// Byte offsets in the statistics arena.
const RUNNING_MEAN: usize = 0;
const RUNNING_VAR: usize = 64;

/// `count` elements at byte `offset` of an arena.
///
/// # Safety
/// The arena holds them, and nothing else refers to them.
unsafe fn at<'a, T>(arena: *mut u8, offset: usize, count: usize) -> &'a mut [T] {
    // SAFETY: passed on from the caller; arenas and offsets are aligned to 64 bytes.
    unsafe { slice::from_raw_parts_mut(arena.add(offset).cast(), count) }
}

fn segment<T: Element>(data: &mut [T]) -> Segment {
    let element_type = i64::from(T::TYPE == ElementType::F64);
    Segment {
        data: data.as_mut_ptr().cast(),
        elements: data.len() as i64,
        element_type,
    }
}

unsafe extern "C" fn train_step<T: Element>(arguments: *const StepArguments) -> i32 {
    // SAFETY: the runtime passes arguments that match the description below.
    unsafe {
        let a = &*arguments;
        let reduce = |collective: i64, segments: &[Segment]| {
            syncbn_rt_all_reduce(a.context, collective, segments.as_ptr(), segments.len() as i64)
        };
        let trace = |node: i64, output: i64, data: *const c_void, elements: usize| {
            syncbn_rt_trace(a.context, node, output, data, elements as i64);
        };
        let run = |phase| match phase {
            Phase::Moments => moments::<T>(a),
            Phase::Rest => rest::<T>(a, EPSILON),
        };
        train::<T>(a, run, reduce, trace)
    }
}

/// A training step of several threads: each stages its part of the samples, and the first one trains when all are there.
/// Thread 1 fails where a sample is [`FAIL`], before it meets the others.
unsafe extern "C" fn divided_step<T: Element>(arguments: *const StepArguments) -> i32 {
    // SAFETY: the runtime passes arguments that match the description below; each thread writes elements of its own.
    unsafe {
        let a = &*arguments;
        if a.thread == 1 && sees::<T>(a, FAIL) {
            return 7;
        }
        let count = a.n as usize * FEATURES;
        let (x, staged) = ((*a.inputs).cast::<T>(), a.step.add(XHAT).cast::<T>());
        for i in (a.thread as usize..count).step_by(a.threads as usize) {
            staged.add(i).write(x.add(i).read());
        }
        if syncbn_team_barrier(a.context) != 0 {
            return 1;
        }
        let mut status = 0;
        if a.thread == 0 {
            let bytes = |start: *const T| slice::from_raw_parts(start.cast::<u8>(), count * size_of::<T>());
            status = match bytes(x) == bytes(staged) {
                true => train_step::<T>(arguments),
                false => 9,
            };
        }
        if status != 0 {
            return status;
        }
        syncbn_team_barrier(a.context)
    }
}

/// The parts of a training step between its collectives.
#[derive(Clone, Copy)]
enum Phase {
    Moments,
    Rest,
}

/// Whether a sample of this step has `value` as its first feature.
///
/// # Safety
/// The arguments match the description below.
unsafe fn sees<T: Element>(a: &StepArguments, value: f64) -> bool {
    // SAFETY: passed on from the caller.
    let x: &[T] = unsafe { at((*a.inputs).cast_mut(), 0, a.n as usize * FEATURES) };
    x.chunks(FEATURES).any(|sample| sample[0].get() == value)
}

/// A training step with the phases, the collectives and the tracing of a target.
///
/// # Safety
/// The arguments match the description below.
unsafe fn train<T: Element>(
    a: &StepArguments,
    run: impl Fn(Phase),
    reduce: impl Fn(i64, &[Segment]) -> i32,
    trace: impl Fn(i64, i64, *const c_void, usize),
) -> i32 {
    // SAFETY: passed on from the caller.
    unsafe {
        if sees::<T>(a, FAIL) {
            return 7;
        }
        let reduce = |collective, segments: &[Segment]| match a.ranks {
            1 => 0,
            _ => reduce(collective, segments),
        };
        run(Phase::Moments);
        let sums: &mut [f64] = at(a.step, SUMS, 1 + 2 * FEATURES);
        let first = if sees::<T>(a, DIVERGE) { 1 } else { 0 };
        let status = reduce(first, &[segment(sums)]);
        if status != 0 {
            return status;
        }
        run(Phase::Rest);
        if a.trace != 0 {
            let xhat = a.step.add(XHAT).cast_const().cast();
            let elements = a.n as usize * FEATURES;
            trace(0, trace_output(0, StoredType::F64), xhat, elements);
            trace(1, 0, (*a.outputs).cast_const().cast(), a.n as usize * CLASSES);
        }
        let dz_sums: &mut [f64] = at(a.step, DZ_SUMS, 2 * FEATURES);
        let status = reduce(1, &[segment(dz_sums)]);
        if status != 0 {
            return status;
        }
        let gradients = |offset, count| -> &mut [T] { at(a.gradients, offset, count) };
        let segments = [
            segment(gradients(WEIGHT, CLASSES * FEATURES)),
            segment(gradients(BIAS, CLASSES)),
            segment(gradients(BETA, FEATURES)),
            segment(gradients(GAMMA, FEATURES)),
            segment(slice::from_mut(&mut *a.loss)),
        ];
        reduce(2, &segments)
    }
}

/// The rank's count and sums of the features and their squares.
///
/// # Safety
/// The arguments match the description below.
unsafe fn moments<T: Element>(a: &StepArguments) {
    // SAFETY: passed on from the caller.
    unsafe {
        if sees::<T>(a, HANG) {
            std::thread::sleep(std::time::Duration::MAX);
        }
        let x: &[T] = at((*a.inputs).cast_mut(), 0, a.n as usize * FEATURES);
        let sums: &mut [f64] = at(a.step, SUMS, 1 + 2 * FEATURES);
        sums.fill(0.0);
        sums[0] = a.n as f64;
        for sample in x.chunks(FEATURES) {
            for c in 0..FEATURES {
                sums[1 + c] += sample[c].get();
                sums[1 + FEATURES + c] += sample[c].get() * sample[c].get();
            }
        }
    }
}

/// Statistics, loss and the rank's gradients.
///
/// # Safety
/// The arguments match the description below.
unsafe fn rest<T: Element>(a: &StepArguments, epsilon: f64) {
    // SAFETY: passed on from the caller.
    unsafe {
        let (n, total) = (a.n as usize, a.total as f64);
        let x: &[T] = at((*a.inputs).cast_mut(), 0, n * FEATURES);
        let target: &[i64] = at((*a.inputs.add(1)).cast_mut(), 0, n);
        let logits: &mut [T] = at(*a.outputs, 0, n * CLASSES);
        let weight: &[T] = at(a.weights, WEIGHT, CLASSES * FEATURES);
        let bias: &[T] = at(a.weights, BIAS, CLASSES);
        let (gamma, beta): (&[T], &[T]) = (at(a.weights, GAMMA, FEATURES), at(a.weights, BETA, FEATURES));
        let sums: &[f64] = at(a.step, SUMS, 1 + 2 * FEATURES);
        let mean: &mut [f64] = at(a.step, MEAN, FEATURES);
        let inv_std: &mut [f64] = at(a.step, INV_STD, FEATURES);
        let running_mean: &mut [T] = at(a.statistics, RUNNING_MEAN, FEATURES);
        let running_var: &mut [T] = at(a.statistics, RUNNING_VAR, FEATURES);
        let count = sums[0];
        for c in 0..FEATURES {
            mean[c] = sums[1 + c] / count;
            let var = (sums[1 + FEATURES + c] / count - mean[c] * mean[c]).max(0.0);
            inv_std[c] = 1.0 / (var + epsilon).sqrt();
            let blend = |old: T, new: f64| T::round((1.0 - MOMENTUM) * old.get() + MOMENTUM * new);
            running_mean[c] = blend(running_mean[c], mean[c]);
            running_var[c] = blend(running_var[c], var * count / (count - 1.0));
        }
        let xhat: &mut [f64] = at(a.step, XHAT, n * FEATURES);
        for (i, value) in xhat.iter_mut().enumerate() {
            *value = (x[i].get() - mean[i % FEATURES]) * inv_std[i % FEATURES];
        }
        let gradients = |offset, count| -> &mut [T] { at(a.gradients, offset, count) };
        let d_weight = gradients(WEIGHT, CLASSES * FEATURES);
        let d_bias = gradients(BIAS, CLASSES);
        let mut dense = [0.0; CLASSES * FEATURES + CLASSES];
        let dz_sums: &mut [f64] = at(a.step, DZ_SUMS, 2 * FEATURES);
        dz_sums.fill(0.0);
        let mut loss = 0.0;
        for i in 0..n {
            let xhat = &xhat[i * FEATURES..(i + 1) * FEATURES];
            let z: Vec<f64> = (0..FEATURES)
                .map(|c| gamma[c].get() * xhat[c] + beta[c].get())
                .collect();
            let y = &mut logits[i * CLASSES..(i + 1) * CLASSES];
            for (k, y) in y.iter_mut().enumerate() {
                let dot: f64 = (0..FEATURES).map(|c| weight[k * FEATURES + c].get() * z[c]).sum();
                let scale = if x[i * FEATURES].get() == OVERFLOW {
                    f64::INFINITY
                } else {
                    1.0
                };
                *y = T::round((dot + bias[k].get()) * scale);
            }
            let largest = y.iter().map(|y| y.get()).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = y.iter().map(|y| (y.get() - largest).exp()).sum();
            let label = target[i] as usize;
            loss += (largest + sum.ln() - y[label].get()) / total;
            for k in 0..CLASSES {
                let dy = ((y[k].get() - largest).exp() / sum - f64::from(k == label)) / total;
                dense[CLASSES * FEATURES + k] += dy;
                for c in 0..FEATURES {
                    dense[k * FEATURES + c] += dy * z[c];
                    let dz = dy * weight[k * FEATURES + c].get();
                    dz_sums[c] += dz;
                    dz_sums[FEATURES + c] += dz * xhat[c];
                }
            }
        }
        // Those of the rank join the sums of the other gradients, which is right in every BatchNorm mode.
        let (d_beta, d_gamma) = (gradients(BETA, FEATURES), gradients(GAMMA, FEATURES));
        for c in 0..FEATURES {
            d_beta[c] = T::round(dz_sums[c]);
            d_gamma[c] = T::round(dz_sums[FEATURES + c]);
        }
        for (k, value) in d_weight.iter_mut().enumerate() {
            *value = T::round(dense[k]);
        }
        for (k, value) in d_bias.iter_mut().enumerate() {
            *value = T::round(dense[CLASSES * FEATURES + k]);
        }
        *a.loss = loss;
    }
}

/// fc.bias, in f32.
static BIAS32: [u8; 16] = {
    let mut bytes = [0; 16];
    bytes[3] = 0x3e;
    bytes
};
/// fc.bias, in f64.
static BIAS64: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[6] = 0xc0;
    bytes[7] = 0x3f;
    bytes
};

/// The program in an element type (`f32`, `f64`) and BatchNorm mode: `f64 sync` for the CPU, `gpu f64 sync` for
/// emulated GPUs, `both f64 sync` for both. `other` instead of `gpu` has another schedule of collectives, `cuda`
/// has device code too, and `all` is `cuda` with a CPU part; `threads` is for a CPU whose ranks have threads.
pub fn program(description: &str) -> Program {
    let (parts, rest) = match description.split_once(' ').unwrap() {
        (parts @ ("gpu" | "both" | "other" | "cuda" | "all" | "threads"), rest) => (parts, rest),
        _ => ("cpu", description),
    };
    let (element_type, mode) = rest.split_once(' ').unwrap();
    let (cpu, gpu) = match element_type {
        "f32" => (cpu_part::<f32>(mode, &BIAS32), gpu::part::<f32>(mode, &BIAS32)),
        _ => (cpu_part::<f64>(mode, &BIAS64), gpu::part::<f64>(mode, &BIAS64)),
    };
    let (mut cpu, mut gpu) = (cpu, gpu);
    match parts {
        "threads" => {
            cpu.model.threads = true;
            cpu.train_step = Some(match element_type {
                "f32" => divided_step::<f32>,
                _ => divided_step::<f64>,
            });
        }
        "other" => gpu.model.schedule_hash += 1,
        "cuda" | "all" => gpu::add_device_code(&mut gpu),
        _ => {}
    }
    Program {
        cpu: matches!(parts, "cpu" | "both" | "all" | "threads").then(|| Arc::new(cpu)),
        gpu: (!matches!(parts, "cpu" | "threads")).then(|| Arc::new(gpu)),
    }
}

fn cpu_part<T: Element>(mode: &str, data: &'static [u8]) -> CpuPart {
    CpuPart {
        model: model(T::TYPE, mode),
        data,
        train_step: Some(train_step::<T>),
        update_sgd: Some(update_sgd::<T>),
        update_adamw: Some(update_adamw::<T>),
        infer_prepare: Some(infer_prepare::<T>),
        infer_step: Some(infer_step::<T>),
    }
}
