//! Operators whose result element depends on single elements of the operands: elementwise functions and
//! moves. One strided form serves all: the result's axes, and a stride for each operand.

use syncbn_ir::ops::{Binary, Pad, Slice, Transpose, Unary, UnaryBackward};
use syncbn_ir::{Dim, Layout, Shape, TensorType};

use super::kernel::{Kernel, Tensor, fixed, strides};
use super::tiles::Tiles;
use crate::emit::{AHEAD, Buffer, Elem, Emitter, Extent, Index, Val};

/// Strides with which a tensor is read along the axes of `shape`, to which it broadcasts.
fn broadcast_strides(ty: &TensorType, shape: &Shape) -> Vec<i64> {
    let own = strides(ty);
    let missing = shape.rank() - own.len();
    (0..shape.rank())
        .map(|i| match i.checked_sub(missing) {
            Some(j) if ty.shape.0[j] == shape.0[i] => own[j],
            _ => 0,
        })
        .collect()
}

/// The axes of `shape` in the order of the last tensor's memory, of which neighbours that every tensor walks through with
/// one stride are merged. The batch stays an axis of its own, outermost; an empty shape becomes one axis of size 1. Axis 0
/// of a tensor in blocks has no one stride, so that it is not merged where there is such a tensor.
fn merge<'c>(
    k: &Kernel<'c>,
    shape: &Shape,
    strides: &[Vec<i64>],
    blocked: bool,
) -> (Vec<Extent<'c>>, Vec<Vec<i64>>) {
    let first = usize::from(shape.has_batch());
    let mut order: Vec<usize> = (first..shape.rank()).collect();
    if let Some(result) = strides.last() {
        order.sort_by_key(|&i| std::cmp::Reverse(result[i]));
    }
    let mut sizes: Vec<i64> = Vec::new();
    let mut merged: Vec<Vec<i64>> = vec![Vec::new(); strides.len()];
    let mut before = None;
    for i in order {
        let outer = before.replace(i);
        let size = fixed(shape.0[i]);
        let mut pairs = strides.iter().zip(&merged);
        let joins = pairs.all(|(s, m)| m.last().is_some_and(|&last| last == s[i] * size));
        let joins = joins && !(blocked && outer == Some(0));
        match sizes.last_mut() {
            Some(last) if joins => *last *= size,
            _ => {
                sizes.push(size);
                merged.iter_mut().for_each(|m| m.push(0));
            }
        }
        for (m, s) in merged.iter_mut().zip(strides) {
            if let Some(last) = m.last_mut() {
                *last = s[i];
            }
        }
    }
    if sizes.is_empty() {
        sizes.push(1);
        merged.iter_mut().for_each(|m| m.push(0));
    }
    let mut extents: Vec<Extent<'c>> = sizes.into_iter().map(Extent::Fixed).collect();
    if first == 1 {
        extents.insert(0, k.extent(shape.0[0]));
        for (m, s) in merged.iter_mut().zip(strides) {
            m.insert(0, s[0]);
        }
    }
    (extents, merged)
}

/// `result[i] = f(operands[i])` over the axes of `shape`; the last tensor is the result.
pub(super) fn strided<'c>(
    k: &Kernel<'c>,
    e: &Emitter<'c>,
    shape: &Shape,
    tensors: &[(&Tensor<'c>, Vec<i64>, i64)],
    f: &dyn Fn(&Emitter<'c>, &[Val<'c>]) -> Val<'c>,
) {
    let strides: Vec<Vec<i64>> = tensors.iter().map(|(_, s, _)| s.clone()).collect();
    let blocked = tensors.iter().any(|(t, ..)| t.ty.layout.block().is_some());
    let (extents, merged) = merge(k, shape, &strides, blocked);
    let mut buffers: Vec<Buffer<'c>> = Vec::new();
    for ((tensor, _, offset), strides) in tensors.iter().zip(&merged) {
        let mut buffer = tensor.view(strides);
        buffer.offset = *offset;
        buffers.push(buffer);
    }
    let Some((result, operands)) = buffers.split_last() else {
        return;
    };
    let widest = buffers.iter().map(|b| b.elem.bytes()).max().unwrap_or(8);
    let width = (k.vector_bytes as i64 / widest) as usize;
    if let [x] = operands
        && let Some(tiles) = Tiles::of(&extents, x, result, (k.manner.lanes, width))
    {
        let copied = |e: &Emitter<'c>, v: Val<'c>| e.convert(f(e, &[v]), result.elem);
        return tiles.copy(e, &extents, [x, result], width, &copied);
    }
    e.map(&extents, width, &|e, at| {
        let load = |b: &Buffer<'c>| match ahead(&extents, b) {
            Some(elements) => e.load_ahead(b, at, elements),
            None => e.load(b, at, None),
        };
        let values: Vec<Val<'c>> = operands.iter().map(load).collect();
        let v = f(e, &values);
        let v = e.convert(v, result.elem);
        match ahead(&extents, result) {
            Some(elements) => e.store_ahead(result, at, elements, v),
            None => e.store(result, at, v),
        }
    });
}

/// Elements from what is read or written to what should be asked for: some lines further, which are those of a later row where
/// rows are apart. What is broadcast stays in the cache.
fn ahead<'c>(extents: &[Extent<'c>], buffer: &Buffer<'c>) -> Option<i64> {
    let near = AHEAD / buffer.elem.bytes();
    match (extents, &buffer.strides[..]) {
        (_, strides) if strides.contains(&0) => None,
        ([.., Extent::Fixed(size)], [.., row, 1]) if row != size => Some((near + size - 1) / size * row),
        _ => Some(near),
    }
}

pub(super) fn whole<'c, 't>(tensor: &'t Tensor<'c>, shape: &Shape) -> (&'t Tensor<'c>, Vec<i64>, i64) {
    (tensor, broadcast_strides(&tensor.ty, shape), 0)
}

/// `result = f(operands)`, where operands broadcast to the result.
fn elementwise<'c>(k: &Kernel<'c>, e: &Emitter<'c>, f: &dyn Fn(&Emitter<'c>, &[Val<'c>]) -> Val<'c>) {
    let shape = &k.results[0].ty.shape;
    let tensors: Vec<_> = k
        .operands
        .iter()
        .chain(&k.results)
        .map(|t| whole(t, shape))
        .collect();
    strided(k, e, shape, &tensors, f);
}

/// `y = f(x)`
pub fn unary<'c>(op: &Unary, k: &Kernel<'c>, e: &Emitter<'c>) {
    elementwise(k, e, &|e, v| e.unary(op.function, v[0]));
}

/// `dx = dy * f'(x)`
pub fn unary_backward<'c>(op: &UnaryBackward, k: &Kernel<'c>, e: &Emitter<'c>) {
    elementwise(k, e, &|e, v| e.unary_backward(op.function, v[0], v[1]));
}

/// `y = f(a, b)`, broadcasting.
pub fn binary<'c>(op: &Binary, k: &Kernel<'c>, e: &Emitter<'c>) {
    elementwise(k, e, &|e, v| e.binary_function(op.function, v[0], v[1]));
}

/// `y = x` broadcast, or in another element type.
pub fn copy<'c>(k: &Kernel<'c>, e: &Emitter<'c>) {
    elementwise(k, e, &|_, v| v[0]);
}

/// `y = x` with the same elements in the same order, whatever the shapes.
pub fn reshape<'c>(k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    if x.ty.shape == y.ty.shape {
        return copy(k, e);
    }
    if x.ty.layout != Layout::Plain || y.ty.layout != Layout::Plain {
        return reorder(k, e);
    }
    let (extents, strides) = k.rows(&y.ty);
    let (xb, yb) = (x.view(&strides), y.view(&strides));
    e.map(&extents, k.width(y.elem()), &|e, at| {
        let v = e.load(&xb, at, None);
        e.store(&yb, at, v);
    });
}

/// [`reshape`] where an operand or result is not row-major: element by element, by logical position.
fn reorder<'c>(k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let (xb, yb) = (x.buffer(), y.buffer());
    let sizes = |t: &Tensor<'c>| t.ty.shape.0.iter().map(|&d| fixed(d)).collect::<Vec<i64>>();
    let (from, to) = (sizes(x), sizes(y));
    k.each(e, y, 1, &|e, at| {
        let mut flat = Index::constant(0);
        for (&i, &size) in at.iter().zip(&to) {
            flat = e.index_scale(flat, size);
            flat = e.index_add(flat, i);
        }
        let mut source = vec![Index::constant(0); from.len()];
        for axis in (1..from.len()).rev() {
            let (rest, own) = e.index_split(flat, from[axis]);
            source[axis] = own;
            flat = rest;
        }
        if let Some(first) = source.first_mut() {
            *first = flat;
        }
        let v = e.load(&xb, &source, None);
        e.store(&yb, at, v);
    });
}

/// Axis `i` of the result is axis `permutation[i]` of the operand.
pub fn transpose<'c>(op: &Transpose, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let own = strides(&x.ty);
    let strides = op.permutation.iter().map(|&i| own[i]).collect();
    strided(
        k,
        e,
        &y.ty.shape,
        &[(x, strides, 0), whole(y, &y.ty.shape)],
        &|_, v| v[0],
    );
}

/// Every `step`-th of `begin..end` of one axis.
pub fn slice<'c>(op: &Slice, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let mut strides = strides(&x.ty);
    let offset = op.begin as i64 * strides[op.axis];
    strides[op.axis] *= op.step.get() as i64;
    strided(
        k,
        e,
        &y.ty.shape,
        &[(x, strides, offset), whole(y, &y.ty.shape)],
        &|_, v| v[0],
    );
}

/// Element `i` of the axis is that of `x` at `(i - before) / step`, where there is one, else 0.
pub fn pad<'c>(op: &Pad, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let (dims, axis) = (&y.ty.shape.0, op.axis);
    let size = fixed(x.ty.shape.0[axis]);
    let (before, step) = (op.before as i64, op.step.get() as i64);
    let source = |e: &Emitter<'c>, at: &[Index<'c>], along: usize| {
        let from = e.index_offset(at[along], -before);
        let (source, exact) = e.index_divide(from, step);
        let below = e.index_below(source, size);
        let mut read = at.to_vec();
        read[along] = source;
        (read, e.both(exact, Some(below)))
    };
    if !k.manner.joins_axes || x.ty.layout != Layout::Plain || y.ty.layout != Layout::Plain {
        let (xb, yb) = (x.buffer(), y.buffer());
        return k.each(e, y, k.width(y.elem()), &|e, at| {
            let (read, guard) = source(e, at, axis);
            let v = e.load(&xb, &read, guard);
            e.store(&yb, at, v);
        });
    }
    let (xs, ys) = (strides(&x.ty), strides(&y.ty));
    // Axes before and after the padded one are walked through as one each.
    let first = usize::from(y.ty.shape.has_batch());
    let product = |dims: &[Dim]| dims.iter().map(|&d| fixed(d)).product();
    let (outer, inner): (i64, i64) = (product(&dims[first..axis]), product(&dims[axis + 1..]));
    let batch = if first == 1 {
        k.extent(dims[0])
    } else {
        Extent::Fixed(1)
    };
    let extents = [
        batch,
        Extent::Fixed(outer),
        Extent::Fixed(fixed(dims[axis])),
        Extent::Fixed(inner),
    ];
    let view = |t: &Tensor<'c>, own: &[i64]| {
        let size = fixed(t.ty.shape.0[axis]);
        t.view(&[outer * size * inner, size * inner, own[axis], 1])
    };
    let (xb, yb) = (view(x, &xs), view(y, &ys));
    // Without elements after the axis, lanes go along the axis itself.
    let rank = if inner == 1 { 3 } else { 4 };
    e.map(&extents[..rank], k.width(Elem::I64), &|e, at| {
        let (read, guard) = source(e, at, 2);
        let v = e.load(&xb, &read, guard);
        e.store(&yb, at, v);
    });
}
