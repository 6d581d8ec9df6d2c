//! The geometry of a convolution: which input a tap of an output's window reads, and the other way round.

use syncbn_ir::TensorType;
use syncbn_ir::ops::Window;

use super::kernel::{Tensor, fixed, strides_of};
use crate::emit::{Buffer, Emitter, Extent, Index, Val};

/// The geometry of a convolution, with spatial axes merged where the window does not mix them.
pub struct Geometry {
    window: Window,
    /// Spatial sizes of the input.
    pub input: Vec<i64>,
    /// Spatial sizes of the output.
    pub output: Vec<i64>,
    /// Groups.
    pub groups: i64,
    /// Input channels of a group.
    pub c: i64,
    /// Output channels of a group.
    pub k: i64,
}

impl Geometry {
    /// The geometry of a convolution from `x` to `y`.
    pub fn new(window: Window, groups: usize, x: &TensorType, y: &TensorType) -> Geometry {
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

    /// Number of spatial axes.
    pub fn rank(&self) -> usize {
        self.input.len()
    }

    /// Sizes of the window.
    pub fn kernel(&self) -> Vec<i64> {
        self.window.kernel.iter().map(|&n| n as i64).collect()
    }

    fn image<'c>(&self, t: &Tensor<'c>, channels: i64, sizes: &[i64]) -> Buffer<'c> {
        t.view(&strides_of(t.ty.layout, &[&[1, channels], sizes].concat()))
    }

    /// The input: sample, channel, spatial axes.
    pub fn x_buffer<'c>(&self, x: &Tensor<'c>) -> Buffer<'c> {
        self.image(x, self.c * self.groups, &self.input)
    }

    /// The output: sample, channel, spatial axes.
    pub fn y_buffer<'c>(&self, y: &Tensor<'c>) -> Buffer<'c> {
        self.image(y, self.k * self.groups, &self.output)
    }

    /// The weight: output channel, input channel of its group, window axes.
    pub fn w_buffer<'c>(&self, w: &Tensor<'c>) -> Buffer<'c> {
        self.image(w, self.c, &self.kernel())
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
    pub fn read_by<'c>(
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

    /// The index of `y` whose window reads input `input` with tap `tap`, and whether there is one.
    pub fn written_by<'c>(
        &self,
        e: &mut Emitter<'c>,
        sample_and_channel: [Index<'c>; 2],
        input: &[Index<'c>],
        tap: &[Index<'c>],
    ) -> (Vec<Index<'c>>, Option<Val<'c>>) {
        let (mut index, mut guard) = (sample_and_channel.to_vec(), None);
        for i in 0..self.rank() {
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

/// Fixed extents.
pub fn extents<'c>(sizes: &[i64]) -> Vec<Extent<'c>> {
    sizes.iter().map(|&n| Extent::Fixed(n)).collect()
}

/// `g * per_group + i`
pub fn in_group<'c>(e: &mut Emitter<'c>, g: Index<'c>, per_group: i64, i: Index<'c>) -> Index<'c> {
    let first = e.index_scale(g, per_group);
    e.index_add(first, i)
}
