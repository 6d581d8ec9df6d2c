//! Matrix product: on tensor cores where it is a linear layer that fits them, else in its plain form, one thread an element, or a sum in two stages where the samples are summed.

use syncbn_ir::Dim;
use syncbn_ir::ops::MatMul;

use super::implicit_gemm::{Finish, Linear, Problem, of_matmul};
use crate::Products;
use crate::emit::{Emitter, Index, Inner, Val};
use crate::ops::kernel::{Kernel, matrix};

/// `y[m, n] = sum over k of a[m, k] * b[k, n]`
pub fn lower<'c>(op: &MatMul, products: Products, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (a, b, y) = (&k.operands[0], &k.operands[1], &k.results[0]);
    if let Some((direction, shape)) = of_matmul(products, op, [&a.ty, &b.ty]) {
        let problem = Problem {
            shape,
            products,
            result: y.memory_elem(),
            n: k.n,
        };
        let (a, b, y) = (a.pointer, b.pointer, y.pointer);
        return match direction {
            Linear::Forward => problem.forward(e, [a, b, y], Finish::default(), None),
            Linear::BackwardData => problem.backward_data(e, [a, b, y]),
            Linear::BackwardWeight => problem.backward_weight(e, [b, a, y]),
        };
    }
    let (m, inner, am, ak) = matrix(&a.ty, op.transpose_a);
    let (_, n, bk, bn) = matrix(&b.ty, op.transpose_b);
    let (ab, bb, yb) = (a.view(&[am, ak]), b.view(&[bk, bn]), y.buffer());
    let elem = y.elem();
    let outputs = [k.extent(m), k.extent(n)];
    let summed = k.extent(inner);
    let mut add = |e: &Emitter<'c>, at: &[Index<'c>], sum: &[Val<'c>]| {
        let av = e.load(&ab, &[at[0], at[2]], None);
        let bv = e.load(&bb, &[at[2], at[1]], None);
        vec![e.fma(av, bv, sum[0])]
    };
    if inner == Dim::Batch {
        return e.sum_in_threads(
            &outputs,
            &[summed],
            Inner::Kept,
            &[elem],
            &mut add,
            &|e, at, sums| {
                let sum = e.convert(sums[0], elem);
                e.store(&yb, at, sum);
            },
        );
    }
    let add = std::cell::RefCell::new(add);
    e.map(&outputs, 1, &|e, at| {
        let zero = e.zero(elem);
        let sum = e.fold(summed, &[zero], |e, i, sum| {
            (add.borrow_mut())(e, &[at[0], at[1], i], sum)
        });
        e.store(&yb, at, sum[0]);
    });
}
