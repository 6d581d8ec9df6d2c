//! Convolution in its three directions: on tensor cores where its schedule says so, else in the plain form that takes every
//! attribute, where a thread takes one element or neighbouring channels.

use std::rc::Rc;

use syncbn_ir::TensorType;
use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, Window};

use super::implicit_gemm::{Epilogue, Problem, Shape};
use super::machine::{Gpu, UNFIT};
use crate::emit::{Buffer, Emitter, Extent, Index, Inner, Share, Val, in_place};
use crate::ops::convolution::{Geometry, extents, in_group};
use crate::ops::kernel::{Kernel, Tensor, elem, strides};
use crate::ops::moments::moments;
use crate::ops::stage::Stage;
use crate::ops::target::{Stages, Types};

/// The group that a channel belongs to.
fn group_of<'c>(e: &Emitter<'c>, g: &Geometry, channel: Index<'c>, per_group: i64) -> Index<'c> {
    match g.groups {
        1 => Index::constant(0),
        _ => e.index_split(channel, per_group).0,
    }
}

/// Taps of a window at most whose loads, all at once, leave registers for three blocks.
const FEW_TAPS: i64 = 9;

/// Has a multiprocessor hold fewer blocks where a thread loads many taps. With three, ptxas spills in depthwise
/// convolutions of EfficientNet-B0.
fn leave_registers(e: &Emitter, g: &Geometry) {
    if g.slide.kernel().iter().product::<i64>() > FEW_TAPS {
        e.bound_resident(2);
    }
}

/// Whether neighbours in memory are channels.
fn channels_are_innermost(image: &TensorType) -> bool {
    strides(image)[1] == 1
}

/// A copy of a weight in the workspace with its output channels innermost, so that a thread reads those of several
/// channels at once.
fn with_channels_innermost<'c>(e: &Emitter<'c>, g: &Geometry, w: &Tensor<'c>) -> Buffer<'c> {
    let mut strides = vec![1];
    let mut elements = g.groups * g.k;
    for &size in inner_sizes(g).iter().rev() {
        strides.insert(1, elements);
        elements *= size;
    }
    e.workspace(w.memory_elem(), &strides, elements)
}

/// Sizes of a weight after its output channels.
fn inner_sizes(g: &Geometry) -> Vec<i64> {
    [&[g.c], &g.slide.kernel()[..]].concat()
}

/// The stage that makes [`with_channels_innermost`], of operand 1 of a convolution.
fn copy_weight<'a>(g: &Rc<Geometry>) -> Stage<'a> {
    let g = Rc::clone(g);
    Stage::new(move |k, e| {
        let w = &k.operands[1];
        let (from, to) = (g.w_buffer(w), with_channels_innermost(e, &g, w));
        let (inner, channels) = (inner_sizes(&g), g.groups * g.k);
        e.map(&extents(&[&inner[..], &[channels]].concat()), 1, &|e, at| {
            let own: Vec<Index> = [&at[inner.len()..], &at[..inner.len()]].concat();
            let v = e.load(&from, &own, None);
            e.store(&to, &own, v);
        });
        let elements = channels * inner.iter().product::<i64>();
        e.note_cost(|cost| {
            cost.share = Share::Weights;
            cost.workspace_written = elements * w.memory_elem().bytes();
        });
    })
}

/// The weight as the plain form reads it.
fn weight<'c>(e: &Emitter<'c>, g: &Geometry, w: &Tensor<'c>, is_copied: bool) -> Buffer<'c> {
    match is_copied {
        true => with_channels_innermost(e, g, w),
        false => g.w_buffer(w),
    }
}

/// The convolution from x to y with weights w, if its schedule is for tensor cores.
fn on_tensor_cores(
    gpu: &Gpu,
    types: &Types,
    window: &Window,
    groups: usize,
    tensors: [&TensorType; 3],
) -> Result<Option<Problem>, String> {
    let Some(schedule) = gpu.schedule(types)? else {
        return Ok(None);
    };
    let shape = Shape::of_conv(gpu.products, window, groups, tensors);
    Ok(Some(Problem {
        shape: shape.ok_or(UNFIT)?,
        gpu: *gpu,
        schedule,
        result: elem(types.results[0].dtype),
    }))
}

/// `y[n, k, o] = act(residual[n, k, o] + bias[k] + sum over c, t of x[n, c, o*stride + t*dilation - pad] * w[k, c, t])`,
/// and the moments of y where the operator has them.
pub fn forward<'a>(op: &'a Conv, gpu: &Gpu, types: &Types) -> Stages<'a> {
    let (x, w, y) = (types.operands[0], types.operands[1], types.results[0]);
    let window = op.window(w)?;
    if let Some(problem) = on_tensor_cores(gpu, types, &window, op.groups, [x, w, y])? {
        // The epilogue reads a residual where it writes the result.
        if types.operands.get(3).is_some_and(|&residual| residual != y) {
            return Err(UNFIT.to_string());
        }
        return Ok(problem.forward(&Epilogue {
            bias: types.operands.len() > 2,
            residual: types.operands.len() > 3,
            activation: op.activation,
            moments: op.moments,
        }));
    }
    let g = Rc::new(Geometry::new(window, op.groups, x, y));
    let lanes = g.k % 2 == 0 || (g.k == 1 && g.c == 1);
    let is_copied = lanes && channels_are_innermost(y);
    let mut stages = Vec::new();
    if is_copied {
        stages.push(copy_weight(&g));
    }
    stages.push(Stage::new(move |k, e| plain_forward(op, k, (&g, is_copied), e)));
    if op.moments {
        stages.push(Stage::new(|k, e| {
            e.note_cost(|cost| cost.of_result = true);
            moments(k, &k.results[0], &k.results[1], e);
        }));
    }
    Ok(stages)
}

/// [`forward`] for every attribute, without the moments.
fn plain_forward<'c>(op: &Conv, k: &Kernel<'c>, (g, is_copied): (&Geometry, bool), e: &Emitter<'c>) {
    let (x, w, y) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let (xb, yb, wb) = (g.x_buffer(x), g.y_buffer(y), weight(e, g, w, is_copied));
    let bias = k.operands.get(2).map(Tensor::flat);
    let residual = k.operands.get(3).map(|r| g.y_buffer(r));
    let elem = y.elem();
    let axes = [
        &[k.extent(y.ty.shape.0[0]), Extent::Fixed(g.groups * g.k)],
        &extents(&g.slide.output)[..],
    ]
    .concat();
    let taps = extents(&[&[g.c], &g.slide.kernel()[..]].concat());
    leave_registers(e, g);
    e.map_along(&axes, &yb.strides, k.width(elem), &|e, at| {
        let (n, channel, out) = (at[0], at[1], &at[2..]);
        let group = group_of(e, g, channel, g.k);
        let start = match &bias {
            Some(bias) => e.load(bias, &[channel], None),
            None => e.zero(elem),
        };
        let start = e.splat(start, e.lanes());
        let sum = e.fold_nest(&taps, &[start], &mut |e, tap, sum| {
            let c = in_group(e, group, g.c, tap[0]);
            let (xi, guard) = g.slide.read_by(e, [n, c], out, &tap[1..]);
            let xv = e.load(&xb, &xi, guard);
            let wv = e.load(&wb, &[&[channel], tap].concat(), None);
            vec![e.fma(xv, wv, sum[0])]
        });
        let mut z = sum[0];
        if let Some(residual) = &residual {
            let r = e.load(residual, at, None);
            z = e.add(z, r);
        }
        if let Some(f) = op.activation {
            z = e.unary(f, z);
        }
        e.store(&yb, at, z);
    });
}

/// `dx[n, c, i] = sum over k, t of dy[n, k, o] * w[k, c, t]` where `o*stride = i + pad - t*dilation`
pub fn backward_data<'a>(op: &'a ConvBackwardData, gpu: &Gpu, types: &Types) -> Stages<'a> {
    let (dy, w, dx) = (types.operands[0], types.operands[1], types.results[0]);
    let window = op.window(w)?;
    if let Some(problem) = on_tensor_cores(gpu, types, &window, op.groups, [dx, w, dy])? {
        return Ok(problem.backward_data());
    }
    let g = Rc::new(Geometry::new(window, op.groups, dx, dy));
    // Otherwise neighbouring channels are in one group, and neighbours in the weight as it is.
    let is_copied = g.k == 1 && g.c == 1 && channels_are_innermost(dx);
    let mut stages = Vec::new();
    if is_copied {
        stages.push(copy_weight(&g));
    }
    stages.push(Stage::new(move |k, e| plain_backward_data(k, (&g, is_copied), e)));
    Ok(stages)
}

/// [`backward_data`] for every attribute.
fn plain_backward_data<'c>(k: &Kernel<'c>, (g, is_copied): (&Geometry, bool), e: &Emitter<'c>) {
    let (dy, w, dx) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let (dyb, dxb, wb) = (g.y_buffer(dy), g.x_buffer(dx), weight(e, g, w, is_copied));
    let elem = dx.elem();
    let axes = [
        &[k.extent(dx.ty.shape.0[0]), Extent::Fixed(g.groups * g.c)],
        &extents(&g.slide.input)[..],
    ]
    .concat();
    let taps = extents(&[&[g.k], &g.slide.kernel()[..]].concat());
    leave_registers(e, g);
    e.map_along(&axes, &dxb.strides, k.width(elem), &|e, at| {
        let (n, channel, input) = (at[0], at[1], &at[2..]);
        let group = group_of(e, g, channel, g.c);
        let first = e.index_scale(group, -g.c);
        let c = e.index_add(channel, first);
        let zero = e.zero(elem);
        let start = e.splat(zero, e.lanes());
        let sum = e.fold_nest(&taps, &[start], &mut |e, tap, sum| {
            let out_channel = in_group(e, group, g.k, tap[0]);
            let (oi, guard) = g.slide.written_by(e, [n, out_channel], input, &tap[1..]);
            let dyv = e.load(&dyb, &oi, guard);
            let wv = e.load(&wb, &[&[out_channel, c], &tap[1..]].concat(), None);
            vec![e.fma(dyv, wv, sum[0])]
        });
        e.store(&dxb, at, sum[0]);
    });
}

/// `dw[k, c, t] = sum over n, o of x[n, c, o*stride + t*dilation - pad] * dy[n, k, o]`
pub fn backward_weight<'a>(op: &'a ConvBackwardWeight, gpu: &Gpu, types: &Types) -> Stages<'a> {
    let (x, dy, dw) = (types.operands[0], types.operands[1], types.results[0]);
    if let Some(problem) = on_tensor_cores(gpu, types, &op.window(), op.groups, [x, dw, dy])? {
        return Ok(problem.backward_weight([0, 1]));
    }
    let g = Geometry::new(op.window(), op.groups, x, dy);
    Ok(vec![Stage::new(move |k, e| plain_backward_weight(k, &g, e))])
}

/// [`backward_weight`] for every attribute.
fn plain_backward_weight<'c>(k: &Kernel<'c>, g: &Geometry, e: &Emitter<'c>) {
    let (x, dy, dw) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let (xb, dyb, dwb) = (g.x_buffer(x), g.y_buffer(dy), g.w_buffer(dw));
    let elem = dw.elem();
    // Neighbouring threads take neighbouring channels: those of a group, or the groups where they have one.
    let sizes = [&[g.groups * g.k, g.c], &g.slide.kernel()[..]].concat();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    if channels_are_innermost(&x.ty) {
        order.rotate_left(1);
        if g.c > 1 {
            order = [&[0], &(2..sizes.len()).collect::<Vec<usize>>()[..], &[1]].concat();
        }
    }
    let kept: Vec<Extent<'c>> = order.iter().map(|&axis| Extent::Fixed(sizes[axis])).collect();
    let summed = [&[k.extent(x.ty.shape.0[0])], &extents(&g.slide.output)[..]].concat();
    let mut add = |e: &Emitter<'c>, at: &[Index<'c>], sum: &[Val<'c>]| {
        let (own, rest) = at.split_at(kept.len());
        let (own, n, out) = (in_place(&order, own), rest[0], &rest[1..]);
        let group = group_of(e, g, own[0], g.k);
        let c = in_group(e, group, g.c, own[1]);
        let (xi, guard) = g.slide.read_by(e, [n, c], out, &own[2..]);
        let xv = e.load(&xb, &xi, guard);
        let dyv = e.load(&dyb, &[&[n, own[0]], out].concat(), None);
        vec![e.fma(xv, dyv, sum[0])]
    };
    e.sum_in_threads(&kept, &summed, Inner::Kept, &[elem], &mut add, &|e, at, sums| {
        let sum = e.convert(sums[0], elem);
        e.store(&dwb, &in_place(&order, at), sum);
    });
}
