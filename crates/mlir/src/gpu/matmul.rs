//! Matrix product: on tensor cores where its schedule says so, else in its plain form, one thread an element, or a sum in two stages where the samples are summed.

use syncbn_ir::Dim;
use syncbn_ir::ops::MatMul;

use super::implicit_gemm::{Epilogue, Linear, Problem, of_matmul};
use super::machine::{Gpu, UNFIT};
use crate::emit::{Emitter, Index, Inner, Val};
use crate::ops::kernel::{Kernel, elem, matrix};
use crate::ops::stage::Stage;
use crate::ops::target::{Stages, Types};

/// `y[m, n] = sum over k of a[m, k] * b[k, n]`
pub fn lower<'a>(op: &'a MatMul, gpu: &Gpu, types: &Types) -> Stages<'a> {
    let [a, b] = [types.operands[0], types.operands[1]];
    let Some(schedule) = gpu.schedule(types)? else {
        return Ok(vec![Stage::new(|k, e| plain(op, k, e))]);
    };
    let (direction, shape) = of_matmul(gpu.products, op, [a, b]).ok_or(UNFIT)?;
    let problem = Problem {
        shape,
        gpu: *gpu,
        schedule,
        result: elem(types.results[0].dtype),
    };
    Ok(match direction {
        Linear::Forward => problem.forward(&Epilogue::default()),
        Linear::BackwardData => problem.backward_data(),
        Linear::BackwardWeight => problem.backward_weight([1, 0]),
    })
}

/// [`lower`] for all matrices.
fn plain<'c>(op: &MatMul, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (a, b, y) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let (m, inner, am, ak) = matrix(&a.ty, op.transpose_a);
    let (_, n, bk, bn) = matrix(&b.ty, op.transpose_b);
    let (ab, bb, yb) = (a.view(&[am, ak]), b.view(&[bk, bn]), y.buffer());
    let of = y.elem();
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
            &[of],
            &mut add,
            &|e, at, sums| {
                let sum = e.convert(sums[0], of);
                e.store(&yb, at, sum);
            },
        );
    }
    let add = std::cell::RefCell::new(add);
    e.map(&outputs, 1, &|e, at| {
        let zero = e.zero(of);
        let sum = e.fold(summed, &[zero], |e, i, sum| {
            (add.borrow_mut())(e, &[at[0], at[1], i], sum)
        });
        e.store(&yb, at, sum[0]);
    });
}
