//! The optimisers' updates.

use syncbn_abi::{AdamWArguments, UpdateArguments};

use super::{Element, at};

pub unsafe extern "C" fn update_sgd<T: Element>(arguments: *const UpdateArguments) -> i32 {
    // SAFETY: the runtime passes arguments that match the description, with disjoint slices.
    unsafe {
        let a = &*arguments;
        let (begin, count) = (a.begin as usize, (a.end - a.begin) as usize);
        let offset = begin * size_of::<T>();
        let p: &mut [T] = at(a.weights, offset, count);
        let g: &[T] = at(a.gradients.cast_mut(), offset, count);
        let v: &mut [T] = at(a.velocity, offset, count);
        for i in 0..count {
            let d = g[i].get() + a.weight_decay * p[i].get();
            let next = if a.first != 0 {
                d
            } else {
                a.momentum * v[i].get() + d
            };
            v[i] = T::round(next);
            let step = if a.nesterov != 0 {
                d + a.momentum * next
            } else {
                next
            };
            p[i] = T::round(p[i].get() - a.lr * step);
        }
        0
    }
}

pub unsafe extern "C" fn update_adamw<T: Element>(arguments: *const AdamWArguments) -> i32 {
    // SAFETY: as in `update_sgd`.
    unsafe {
        let a = &*arguments;
        let (begin, count) = (a.begin as usize, (a.end - a.begin) as usize);
        let offset = begin * size_of::<T>();
        let p: &mut [T] = at(a.weights, offset, count);
        let g: &[T] = at(a.gradients.cast_mut(), offset, count);
        let m: &mut [T] = at(a.first_moment, offset, count);
        let v: &mut [T] = at(a.second_moment, offset, count);
        for i in 0..count {
            let gradient = g[i].get();
            let decayed = p[i].get() * (1.0 - a.lr * a.weight_decay);
            m[i] = T::round(a.beta1 * m[i].get() + (1.0 - a.beta1) * gradient);
            v[i] = T::round(a.beta2 * v[i].get() + (1.0 - a.beta2) * gradient * gradient);
            let denominator = v[i].get().sqrt() / a.correction2.sqrt() + a.epsilon;
            p[i] = T::round(decayed - a.lr / a.correction1 * m[i].get() / denominator);
        }
        0
    }
}
