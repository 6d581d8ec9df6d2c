//! Convolution in its three directions, direct: lanes along the last spatial axis, four channels at a time.

use syncbn_ir::TensorType;
use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, Window};

use super::kernel::{Kernel, Tensor, fixed};
use crate::emit::{Buffer, Emitter, Extent, Index, Val};

/// Channels that share the loads of one operand.
const BLOCK: i64 = 4;

/// The geometry of a convolution, with spatial axes merged where the window does not mix them.
struct Geometry {
    window: Window,
    input: Vec<i64>,
    output: Vec<i64>,
    groups: i64,
    /// Input channels of a group.
    c: i64,
    /// Output channels of a group.
    k: i64,
}

impl Geometry {
    fn new(window: Window, groups: usize, x: &TensorType, y: &TensorType) -> Geometry {
        let sizes = |ty: &TensorType| ty.shape.0[2..].iter().map(|&d| fixed(d)).collect::<Vec<i64>>();
        let channels = |ty: &TensorType| fixed(ty.shape.0[1]) / groups as i64;
        let (mut window, mut input, mut output) = (window, sizes(x), sizes(y));
        let ones = |v: &[usize]| v.iter().all(|&n| n == 1);
        if ones(&window.kernel) && ones(&window.strides) && window.pads.iter().all(|&p| p == 0) {
            window = Window {
                kernel: vec![1],
                strides: vec![1],
                pads: vec![0, 0],
                dilations: vec![1],
            };
            input = vec![input.iter().product()];
            output = vec![output.iter().product()];
        }
        Geometry {
            window,
            input,
            output,
            groups: groups as i64,
            c: channels(x),
            k: channels(y),
        }
    }

    fn rank(&self) -> usize {
        self.input.len()
    }

    fn kernel(&self) -> Vec<i64> {
        self.window.kernel.iter().map(|&n| n as i64).collect()
    }

    /// Strides of an image with `channels` channels in all: sample, channel, spatial axes.
    fn image_strides(&self, channels: i64, sizes: &[i64]) -> Vec<i64> {
        let mut strides = vec![1];
        for &n in [&[channels], sizes].concat().iter().rev() {
            strides.insert(0, strides[0] * n);
        }
        strides
    }

    fn x_buffer<'c>(&self, x: &Tensor<'c>) -> Buffer<'c> {
        x.view(&self.image_strides(self.c * self.groups, &self.input))
    }

    fn y_buffer<'c>(&self, y: &Tensor<'c>) -> Buffer<'c> {
        y.view(&self.image_strides(self.k * self.groups, &self.output))
    }

    /// Strides of the weight: output channel, input channel, window axes.
    fn w_buffer<'c>(&self, w: &Tensor<'c>) -> Buffer<'c> {
        w.view(&self.image_strides(self.c, &self.kernel()))
    }

    /// The input index that tap `tap` of window `out` reads on axis `i`, and its guard unless it is always
    /// inside.
    fn input_index<'c>(
        &self,
        e: &mut Emitter<'c>,
        i: usize,
        out: Index<'c>,
        tap: Index<'c>,
    ) -> (Index<'c>, Option<Val<'c>>) {
        let w = &self.window;
        let (stride, dilation, pad) = (w.strides[i] as i64, w.dilations[i] as i64, w.pad_begin(i) as i64);
        let start = e.index_scale(out, stride);
        let reach = e.index_scale(tap, dilation);
        let at = e.index_add(start, reach);
        let at = e.index_offset(at, -pad);
        let last = (self.output[i] - 1) * stride + (w.kernel[i] as i64 - 1) * dilation - pad;
        let inside = pad == 0 && last < self.input[i];
        let guard = (!inside).then(|| e.index_below(at, self.input[i]));
        (at, guard)
    }

    /// The index of `x` that tap `tap` of the window at `out` reads, and its guard unless it is always inside.
    fn read_by<'c>(
        &self,
        e: &mut Emitter<'c>,
        sample_and_channel: [Index<'c>; 2],
        out: &[Index<'c>],
        tap: &[Index<'c>],
    ) -> (Vec<Index<'c>>, Option<Val<'c>>) {
        let (mut index, mut guard) = (sample_and_channel.to_vec(), None);
        for i in 0..self.rank() {
            let (along, inside) = self.input_index(e, i, out[i], tap[i]);
            index.push(along);
            guard = e.both(guard, inside);
        }
        (index, guard)
    }
}

fn extents<'c>(sizes: &[i64]) -> Vec<Extent<'c>> {
    sizes.iter().map(|&n| Extent::Fixed(n)).collect()
}

/// `g * per_group + i`
fn in_group<'c>(e: &mut Emitter<'c>, g: Index<'c>, per_group: i64, i: Index<'c>) -> Index<'c> {
    let first = e.index_scale(g, per_group);
    e.index_add(first, i)
}

/// `y[n, k, o] = act(residual[n, k, o] + bias[k] + sum over c, t of x[n, c, o*stride + t*dilation - pad] * w[k, c, t])`
pub fn forward<'c>(op: &Conv, k: &Kernel<'c>, e: &mut Emitter<'c>) -> Result<(), String> {
    let (x, w, y) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let g = Geometry::new(op.window(&w.ty)?, op.groups, &x.ty, &y.ty);
    let (xb, wb, yb) = (g.x_buffer(x), g.w_buffer(w), g.y_buffer(y));
    let bias = k.operands.get(2).map(Tensor::flat);
    let residual = k.operands.get(3).map(|r| g.y_buffer(r));
    let elem = y.elem();
    let activation = op.activation;
    let outer = [&[k.extent(y.ty.shape.0[0]), Extent::Fixed(g.groups)], &[][..]].concat();
    e.fold_nest(&outer, &[], &mut |e, at, _| {
        let (n, group) = (at[0], at[1]);
        e.blocks(g.k, BLOCK, &|e, k0, size| {
            let k0 = in_group(e, group, g.k, k0);
            e.map(&extents(&g.output), k.width(elem), &|e, out| {
                let start: Vec<Val<'c>> = (0..size)
                    .map(|j| {
                        let channel = e.index_offset(k0, j);
                        let v = match &bias {
                            Some(bias) => e.load(bias, &[channel], None),
                            None => e.zero(elem),
                        };
                        e.splat(v, e.lanes)
                    })
                    .collect();
                let taps = extents(&[&[g.c], &g.kernel()[..]].concat());
                let sums = e.fold_nest(&taps, &start, &mut |e, tap, sums| {
                    let c = in_group(e, group, g.c, tap[0]);
                    let (xi, guard) = g.read_by(e, [n, c], out, &tap[1..]);
                    let xv = e.load(&xb, &xi, guard);
                    (0..size)
                        .map(|j| {
                            let channel = e.index_offset(k0, j);
                            let wv = e.load(&wb, &[&[channel], tap].concat(), None);
                            e.fma(xv, wv, sums[j as usize])
                        })
                        .collect()
                });
                for (j, &sum) in sums.iter().enumerate() {
                    let channel = e.index_offset(k0, j as i64);
                    let at = [&[n, channel], out].concat();
                    let z = match &residual {
                        Some(residual) => {
                            let r = e.load(residual, &at, None);
                            e.add(sum, r)
                        }
                        None => sum,
                    };
                    let v = match activation {
                        Some(f) => e.unary(f, z),
                        None => z,
                    };
                    e.store(&yb, &at, v);
                }
            });
        });
        Vec::new()
    });
    Ok(())
}

/// `dx[n, c, i] = sum over k, t of dy[n, k, o] * w[k, c, t]` where `o*stride = i + pad - t*dilation`
pub fn backward_data<'c>(op: &ConvBackwardData, k: &Kernel<'c>, e: &mut Emitter<'c>) -> Result<(), String> {
    let (dy, w, dx) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let g = Geometry::new(op.window(&w.ty)?, op.groups, &dx.ty, &dy.ty);
    let (dyb, wb, dxb) = (g.y_buffer(dy), g.w_buffer(w), g.x_buffer(dx));
    let elem = dx.elem();
    let outer = [k.extent(dx.ty.shape.0[0]), Extent::Fixed(g.groups)];
    e.fold_nest(&outer, &[], &mut |e, at, _| {
        let (n, group) = (at[0], at[1]);
        e.blocks(g.c, BLOCK, &|e, c0, size| {
            e.map(&extents(&g.input), k.width(elem), &|e, at| {
                let zero = e.zero(elem);
                let start = vec![e.splat(zero, e.lanes); size as usize];
                let taps = extents(&[&[g.k], &g.kernel()[..]].concat());
                let sums = e.fold_nest(&taps, &start, &mut |e, tap, sums| {
                    let channel = in_group(e, group, g.k, tap[0]);
                    let (mut oi, mut guard) = (vec![n, channel], None);
                    for i in 0..g.rank() {
                        let reach = e.index_scale(tap[1 + i], -(g.window.dilations[i] as i64));
                        let from = e.index_add(at[i], reach);
                        let from = e.index_offset(from, g.window.pad_begin(i) as i64);
                        let (out, exact) = e.index_divide(from, g.window.strides[i] as i64);
                        let below = e.index_below(out, g.output[i]);
                        guard = e.both(guard, exact);
                        guard = e.both(guard, Some(below));
                        oi.push(out);
                    }
                    let dyv = e.load(&dyb, &oi, guard);
                    (0..size)
                        .map(|j| {
                            let c = e.index_offset(c0, j);
                            let wv = e.load(&wb, &[&[channel, c], &tap[1..]].concat(), None);
                            e.fma(dyv, wv, sums[j as usize])
                        })
                        .collect()
                });
                for (j, &sum) in sums.iter().enumerate() {
                    let c = e.index_offset(c0, j as i64);
                    let c = in_group(e, group, g.c, c);
                    e.store(&dxb, &[&[n, c], at].concat(), sum);
                }
            });
        });
        Vec::new()
    });
    Ok(())
}

/// `dw[k, c, t] = sum over n, o of x[n, c, o*stride + t*dilation - pad] * dy[n, k, o]`
pub fn backward_weight<'c>(
    op: &ConvBackwardWeight,
    k: &Kernel<'c>,
    e: &mut Emitter<'c>,
) -> Result<(), String> {
    let (x, dy, dw) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let g = Geometry::new(op.window(), op.groups, &x.ty, &dy.ty);
    let (xb, dyb, dwb) = (g.x_buffer(x), g.y_buffer(dy), g.w_buffer(dw));
    let elem = dw.elem();
    let batch = k.extent(x.ty.shape.0[0]);
    let last = g.rank() - 1;
    e.for_each(Extent::Fixed(g.groups), |e, group| {
        e.blocks(g.k, BLOCK, &|e, k0, size| {
            let k0 = in_group(e, group, g.k, k0);
            let taps = extents(&[&[g.c], &g.kernel()[..]].concat());
            e.fold_nest(&taps, &[], &mut |e, tap, _| {
                let c = in_group(e, group, g.c, tap[0]);
                let outer = [&[batch], &extents(&g.output[..last])[..]].concat();
                let row = g.output[last];
                let elems = vec![elem; size as usize];
                let sums = e.sum_over(&outer, row, k.width(elem), &elems, &mut |e, at, sums| {
                    let (n, out) = (at[0], &at[1..]);
                    let (xi, guard) = g.read_by(e, [n, c], out, &tap[1..]);
                    let xv = e.load(&xb, &xi, guard);
                    (0..size)
                        .map(|j| {
                            let channel = e.index_offset(k0, j);
                            let dyv = e.load(&dyb, &[&[n, channel], out].concat(), None);
                            e.fma(xv, dyv, sums[j as usize])
                        })
                        .collect()
                });
                for (j, &sum) in sums.iter().enumerate() {
                    let channel = e.index_offset(k0, j as i64);
                    e.store(&dwb, &[&[channel], tap].concat(), sum);
                }
                Vec::new()
            });
        });
    });
    Ok(())
}
