//! The optimisers' updates, over a range of the flat arena of trained parameters.

use syncbn_abi::{AdamWArguments, UpdateArguments};

use crate::emit::{Buffer, Compare, Elem, Emitter, Val, fields};

/// Builds the body of an update from the pointer to its arguments, the parameters' type and the number of
/// them that fit in a vector.
pub type Build<'c> = fn(&Emitter<'c>, Val<'c>, Elem, usize);

/// Builds the body of `syncbn_update_sgd`: `d = g + weight_decay*p`, `v = first ? d : momentum*v + d`,
/// `p -= lr * (nesterov ? d + momentum*v : v)`.
pub fn sgd<'c>(e: &Emitter<'c>, arguments: Val<'c>, elem: Elem, width: usize) {
    type Of = UpdateArguments;
    let [weights, gradients, velocity] =
        fields!(e, arguments, Of, Ptr, [weights, gradients, velocity]).map(|p| Buffer::new(p, elem, &[1]));
    let range = fields!(e, arguments, Of, I64, [begin, end]);
    let flags = fields!(e, arguments, Of, I64, [first, nesterov]);
    let zero = e.int(Elem::I64, 0);
    let [first, nesterov] = flags.map(|flag| e.compare(Compare::Ne, flag, zero));
    let [lr, momentum, decay] =
        fields!(e, arguments, Of, F64, [lr, momentum, weight_decay]).map(|v| e.convert(v, elem));
    let minus_lr = e.neg(lr);
    e.each_in_range(range, width, |e, at| {
        let p = e.load(&weights, &[at], None);
        let g = e.load(&gradients, &[at], None);
        let old = e.load(&velocity, &[at], None);
        let d = e.fma(decay, p, g);
        let moved = e.fma(momentum, old, d);
        let v = e.select(first, d, moved);
        let ahead = e.fma(momentum, v, d);
        let step = e.select(nesterov, ahead, v);
        let p = e.fma(minus_lr, step, p);
        e.store(&velocity, &[at], v);
        e.store(&weights, &[at], p);
    });
}

/// Builds the body of `syncbn_update_adamw`, by the formula of [`AdamWArguments`].
pub fn adamw<'c>(e: &Emitter<'c>, arguments: Val<'c>, elem: Elem, width: usize) {
    type Of = AdamWArguments;
    let pointers = fields!(
        e,
        arguments,
        Of,
        Ptr,
        [weights, gradients, first_moment, second_moment]
    );
    let [weights, gradients, first_moment, second_moment] = pointers.map(|p| Buffer::new(p, elem, &[1]));
    let range = fields!(e, arguments, Of, I64, [begin, end]);
    let [lr, beta1, beta2, epsilon] = fields!(e, arguments, Of, F64, [lr, beta1, beta2, epsilon]);
    let [decay, correction1, correction2] =
        fields!(e, arguments, Of, F64, [weight_decay, correction1, correction2]);
    let one = e.float(Elem::F64, 1.0);
    let rest1 = e.sub(one, beta1);
    let rest2 = e.sub(one, beta2);
    let minus_lr = e.neg(lr);
    let minus_decay = e.mul(minus_lr, decay);
    let minus_rate = e.div(minus_lr, correction1);
    let root = e.sqrt(correction2);
    let scale = e.div(one, root);
    let scalars = [
        beta1,
        rest1,
        beta2,
        rest2,
        epsilon,
        minus_decay,
        minus_rate,
        scale,
    ];
    let [
        beta1,
        rest1,
        beta2,
        rest2,
        epsilon,
        minus_decay,
        minus_rate,
        scale,
    ] = scalars.map(|v| e.convert(v, elem));
    e.each_in_range(range, width, |e, at| {
        let p = e.load(&weights, &[at], None);
        let g = e.load(&gradients, &[at], None);
        let m = e.load(&first_moment, &[at], None);
        let v = e.load(&second_moment, &[at], None);
        let new = e.mul(rest1, g);
        let m = e.fma(beta1, m, new);
        let new = e.mul(rest2, g);
        let new = e.mul(new, g);
        let v = e.fma(beta2, v, new);
        let root = e.sqrt(v);
        let denominator = e.fma(root, scale, epsilon);
        let step = e.div(m, denominator);
        let p = e.fma(minus_decay, p, p);
        let p = e.fma(minus_rate, step, p);
        e.store(&first_moment, &[at], m);
        e.store(&second_moment, &[at], v);
        e.store(&weights, &[at], p);
    });
}
