//! The optimiser's update, over a range of the flat arena of trained parameters.

use syncbn_abi::UpdateArguments;

use crate::emit::{Buffer, Compare, Elem, Emitter, Extent, Index, Val};

/// Reads a field of the argument structure.
fn field<'c>(e: &mut Emitter<'c>, arguments: Val<'c>, offset: usize, elem: Elem) -> Val<'c> {
    let offset = e.index(offset as i64);
    let address = e.address(arguments, Elem::I8, offset);
    e.load_scalar(address, elem)
}

macro_rules! field {
    ($e:expr, $arguments:expr, $name:ident, $elem:expr) => {
        field(
            $e,
            $arguments,
            std::mem::offset_of!(UpdateArguments, $name),
            $elem,
        )
    };
}

/// Builds the body of `syncbn_update_sgd`: `d = g + weight_decay*p`, `v = first ? d : momentum*v + d`,
/// `p -= lr * (nesterov ? d + momentum*v : v)`.
pub fn sgd<'c>(e: &mut Emitter<'c>, arguments: Val<'c>, elem: Elem, width: usize) {
    let [weights, gradients, velocity] = [
        field!(e, arguments, weights, Elem::Ptr),
        field!(e, arguments, gradients, Elem::Ptr),
        field!(e, arguments, velocity, Elem::Ptr),
    ]
    .map(|pointer| Buffer::new(pointer, elem, &[1]));
    let begin = field!(e, arguments, begin, Elem::I64);
    let end = field!(e, arguments, end, Elem::I64);
    let zero = e.index(0);
    let first = field!(e, arguments, first, Elem::I64);
    let first = e.compare(Compare::Ne, first, zero);
    let nesterov = field!(e, arguments, nesterov, Elem::I64);
    let nesterov = e.compare(Compare::Ne, nesterov, zero);
    let [lr, momentum, decay] = [
        field!(e, arguments, lr, Elem::F64),
        field!(e, arguments, momentum, Elem::F64),
        field!(e, arguments, weight_decay, Elem::F64),
    ]
    .map(|v| e.convert(v, elem));
    let minus_lr = e.neg(lr);
    let one = |e: &mut Emitter<'c>, at: Index<'c>| {
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
    };
    let count = e.sub(end, begin);
    let lanes = e.index(width as i64);
    let chunks = e.div(count, lanes);
    e.lanes = width;
    e.for_each(Extent::Batch(chunks), |e, chunk| {
        let offset = e.index_scale(chunk, width as i64);
        let base = e.index_add(offset, Index::uniform(begin));
        let at = e.index_add(base, Index::Const { base: 0, stride: 1 });
        one(e, at);
    });
    e.lanes = 1;
    let done = e.mul(chunks, lanes);
    let from = e.add(begin, done);
    e.for_range(from, end, 1, &[], |e, i, _| {
        one(e, Index::uniform(i));
        Vec::new()
    });
}
