//! A window that slides over an image: which input a tap of an output's window reads, and the other way round.

use syncbn_ir::TensorType;
use syncbn_ir::ops::Window;

use super::kernel::fixed;
use crate::emit::{Emitter, Extent, Index, Val};

/// Spatial sizes of a type of rank 2 or more.
pub fn spatial(ty: &TensorType) -> Vec<i64> {
    ty.shape.0[2..].iter().map(|&d| fixed(d)).collect()
}

/// A window on the spatial axes of an image.
#[derive(Debug, Clone)]
pub struct Sliding {
    /// Its sizes and steps.
    pub window: Window,
    /// Spatial sizes of the input.
    pub input: Vec<i64>,
    /// Spatial sizes of the output, whose elements are windows.
    pub output: Vec<i64>,
}

impl Sliding {
    /// A window that slides over `x` and makes `y`.
    pub fn new(window: Window, x: &TensorType, y: &TensorType) -> Sliding {
        Sliding {
            window,
            input: spatial(x),
            output: spatial(y),
        }
    }

    /// Sizes of the window.
    pub fn kernel(&self) -> Vec<i64> {
        self.window.kernel.iter().map(|&n| n as i64).collect()
    }

    /// Extents of the window.
    pub fn taps<'c>(&self) -> Vec<Extent<'c>> {
        self.kernel().into_iter().map(Extent::Fixed).collect()
    }

    /// The input index that tap `tap` of window `out` reads on axis `i`, and its guard unless it is always
    /// inside.
    pub fn input_index<'c>(
        &self,
        e: &Emitter<'c>,
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

    /// The index of the input that tap `tap` of the window at `out` reads, and its guard unless it is always inside.
    /// `first` is the index of the sample and of the channel.
    pub fn read_by<'c>(
        &self,
        e: &Emitter<'c>,
        first: [Index<'c>; 2],
        out: &[Index<'c>],
        tap: &[Index<'c>],
    ) -> (Vec<Index<'c>>, Option<Val<'c>>) {
        let (mut index, mut guard) = (first.to_vec(), None);
        for i in 0..self.input.len() {
            let (along, inside) = self.input_index(e, i, out[i], tap[i]);
            index.push(along);
            guard = e.both(guard, inside);
        }
        (index, guard)
    }

    /// The index of the output whose window reads input `input` with tap `tap`, and whether there is one.
    pub fn written_by<'c>(
        &self,
        e: &Emitter<'c>,
        first: [Index<'c>; 2],
        input: &[Index<'c>],
        tap: &[Index<'c>],
    ) -> (Vec<Index<'c>>, Option<Val<'c>>) {
        let (mut index, mut guard) = (first.to_vec(), None);
        for i in 0..self.output.len() {
            let reach = e.index_scale(tap[i], -(self.window.dilations[i] as i64));
            let from = e.index_add(input[i], reach);
            let from = e.index_offset(from, self.window.pad_begin(i) as i64);
            let (out, exact) = e.index_divide(from, self.window.strides[i] as i64);
            let below = e.index_below(out, self.output[i]);
            guard = e.both(guard, exact);
            guard = e.both(guard, Some(below));
            index.push(out);
        }
        (index, guard)
    }
}
