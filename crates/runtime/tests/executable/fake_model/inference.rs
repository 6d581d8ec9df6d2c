//! The network's inference: prepare folds the running statistics, the step applies them.

use syncbn_abi::StepArguments;

use super::{BETA, BIAS, CLASSES, EPSILON, Element, FEATURES, GAMMA, RUNNING_MEAN, RUNNING_VAR, WEIGHT, at};

pub unsafe extern "C" fn infer_prepare<T: Element>(arguments: *const StepArguments) -> i32 {
    // SAFETY: the runtime passes arguments that match the description below.
    unsafe {
        let a = &*arguments;
        let scale: &mut [T] = at(a.prepared, 0, FEATURES);
        let shift: &mut [T] = at(a.prepared, 64, FEATURES);
        let (gamma, beta): (&[T], &[T]) = (at(a.weights, GAMMA, FEATURES), at(a.weights, BETA, FEATURES));
        let mean: &[T] = at(a.statistics, RUNNING_MEAN, FEATURES);
        let var: &[T] = at(a.statistics, RUNNING_VAR, FEATURES);
        for c in 0..FEATURES {
            let factor = gamma[c].get() / (var[c].get() + EPSILON).sqrt();
            scale[c] = T::round(factor);
            shift[c] = T::round(beta[c].get() - mean[c].get() * factor);
        }
        0
    }
}

pub unsafe extern "C" fn infer_step<T: Element>(arguments: *const StepArguments) -> i32 {
    // SAFETY: the runtime passes arguments that match the description below.
    unsafe {
        let a = &*arguments;
        let n = a.n as usize;
        let x: &[T] = at((*a.inputs).cast_mut(), 0, n * FEATURES);
        let logits: &mut [T] = at(*a.outputs, 0, n * CLASSES);
        let weight: &[T] = at(a.weights, WEIGHT, CLASSES * FEATURES);
        let bias: &[T] = at(a.weights, BIAS, CLASSES);
        let (scale, shift): (&[T], &[T]) = (at(a.prepared, 0, FEATURES), at(a.prepared, 64, FEATURES));
        for (i, y) in logits.iter_mut().enumerate() {
            let (sample, k) = (i / CLASSES, i % CLASSES);
            let dot: f64 = (0..FEATURES)
                .map(|c| {
                    let z = scale[c].get() * x[sample * FEATURES + c].get() + shift[c].get();
                    weight[k * FEATURES + c].get() * z
                })
                .sum();
            *y = T::round(dot + bias[k].get());
        }
        0
    }
}
