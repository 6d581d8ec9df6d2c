//! Convolution in its three directions, direct: lanes along the last spatial axis, four channels at a time. Threads divide
//! the positions of each result, or its channels, or the taps of a weight.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight};

use crate::emit::{Emitter, Extent, Index, Val};
use crate::ops::convolution::{Geometry, extents, in_group};
use crate::ops::kernel::{Kernel, Tensor};

/// Channels that share the loads of one operand.
const BLOCK: i64 = 4;

/// Fewer positions are not worth dividing.
const FEW_POSITIONS: i64 = 16;

/// `body` for blocks of channels, which threads divide where there are few positions.
fn each_block<'c>(
    e: &Emitter<'c>,
    channels: i64,
    positions: &[i64],
    body: &dyn Fn(&Emitter<'c>, Index<'c>, i64),
) {
    match positions.iter().product::<i64>() {
        ..FEW_POSITIONS => e.divided_blocks(channels, BLOCK, body),
        _ => e.blocks(channels, BLOCK, body),
    }
}

/// `y[n, k, o] = act(residual[n, k, o] + bias[k] + sum over c, t of x[n, c, o*stride + t*dilation - pad] * w[k, c, t])`
pub fn forward<'c>(op: &Conv, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
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
        each_block(e, g.k, &g.slide.output, &|e, k0, size| {
            let k0 = in_group(e, group, g.k, k0);
            let cost = size * g.c * g.slide.kernel().iter().product::<i64>();
            e.map_costly(&extents(&g.slide.output), k.width(elem), cost, &|e, out| {
                let start: Vec<Val<'c>> = (0..size)
                    .map(|j| {
                        let channel = e.index_offset(k0, j);
                        let v = match &bias {
                            Some(bias) => e.load(bias, &[channel], None),
                            None => e.zero(elem),
                        };
                        e.splat(v, e.lanes())
                    })
                    .collect();
                let taps = extents(&[&[g.c], &g.slide.kernel()[..]].concat());
                let sums = e.fold_nest(&taps, &start, &mut |e, tap, sums| {
                    let c = in_group(e, group, g.c, tap[0]);
                    let (xi, guard) = g.slide.read_by(e, [n, c], out, &tap[1..]);
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
pub fn backward_data<'c>(op: &ConvBackwardData, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
    let (dy, w, dx) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let g = Geometry::new(op.window(&w.ty)?, op.groups, &dx.ty, &dy.ty);
    let (dyb, wb, dxb) = (g.y_buffer(dy), g.w_buffer(w), g.x_buffer(dx));
    let elem = dx.elem();
    let outer = [k.extent(dx.ty.shape.0[0]), Extent::Fixed(g.groups)];
    e.fold_nest(&outer, &[], &mut |e, at, _| {
        let (n, group) = (at[0], at[1]);
        each_block(e, g.c, &g.slide.input, &|e, c0, size| {
            let cost = size * g.k * g.slide.kernel().iter().product::<i64>();
            e.map_costly(&extents(&g.slide.input), k.width(elem), cost, &|e, at| {
                let zero = e.zero(elem);
                let start = vec![e.splat(zero, e.lanes()); size as usize];
                let taps = extents(&[&[g.k], &g.slide.kernel()[..]].concat());
                let sums = e.fold_nest(&taps, &start, &mut |e, tap, sums| {
                    let channel = in_group(e, group, g.k, tap[0]);
                    let (oi, guard) = g.slide.written_by(e, [n, channel], at, &tap[1..]);
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
pub fn backward_weight<'c>(op: &ConvBackwardWeight, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
    let (x, dy, dw) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let g = Geometry::new(op.window(), op.groups, &x.ty, &dy.ty);
    let (xb, dyb, dwb) = (g.x_buffer(x), g.y_buffer(dy), g.w_buffer(dw));
    let elem = dw.elem();
    let batch = k.extent(x.ty.shape.0[0]);
    let last = g.slide.input.len() - 1;
    e.for_each(Extent::Fixed(g.groups), |e, group| {
        e.blocks(g.k, BLOCK, &|e, k0, size| {
            let k0 = in_group(e, group, g.k, k0);
            let taps = extents(&[&[g.c], &g.slide.kernel()[..]].concat());
            e.divided(&taps, |e, tap| {
                let c = in_group(e, group, g.c, tap[0]);
                let outer = [&[batch], &extents(&g.slide.output[..last])[..]].concat();
                let row = g.slide.output[last];
                let elems = vec![elem; size as usize];
                let sums = e.sum_over(&outer, row, k.width(elem), &elems, &mut |e, at, sums| {
                    let (n, out) = (at[0], &at[1..]);
                    let (xi, guard) = g.slide.read_by(e, [n, c], out, &tap[1..]);
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
            });
        });
    });
    Ok(())
}
