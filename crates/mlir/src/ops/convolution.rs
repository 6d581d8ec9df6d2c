//! The geometry of a convolution: its window, and its tensors as the window sees them.

use syncbn_ir::TensorType;
use syncbn_ir::ops::Window;

use super::kernel::{Tensor, fixed, strides_of};
use super::window::Sliding;
use crate::emit::{Buffer, Emitter, Extent, Index};

/// The geometry of a convolution, with spatial axes merged where the window does not mix them.
pub struct Geometry {
    /// The window.
    pub slide: Sliding,
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
        let channels = |ty: &TensorType| fixed(ty.shape.0[1]) / groups as i64;
        let mut slide = Sliding::new(window, x, y);
        let ones = |v: &[usize]| v.iter().all(|&n| n == 1);
        let w = &slide.window;
        if ones(&w.kernel) && ones(&w.strides) && w.pads.iter().all(|&p| p == 0) {
            slide = Sliding {
                window: Window {
                    kernel: vec![1],
                    strides: vec![1],
                    pads: vec![0, 0],
                    dilations: vec![1],
                },
                input: vec![slide.input.iter().product()],
                output: vec![slide.output.iter().product()],
            };
        }
        Geometry {
            slide,
            groups: groups as i64,
            c: channels(x),
            k: channels(y),
        }
    }

    fn image<'c>(&self, t: &Tensor<'c>, channels: i64, sizes: &[i64]) -> Buffer<'c> {
        t.view(&strides_of(t.ty.layout, &[&[1, channels], sizes].concat()))
    }

    /// The input: sample, channel, spatial axes.
    pub fn x_buffer<'c>(&self, x: &Tensor<'c>) -> Buffer<'c> {
        self.image(x, self.c * self.groups, &self.slide.input)
    }

    /// The output: sample, channel, spatial axes.
    pub fn y_buffer<'c>(&self, y: &Tensor<'c>) -> Buffer<'c> {
        self.image(y, self.k * self.groups, &self.slide.output)
    }

    /// The weight: output channel, input channel of its group, window axes.
    pub fn w_buffer<'c>(&self, w: &Tensor<'c>) -> Buffer<'c> {
        self.image(w, self.c, &self.slide.kernel())
    }
}

/// Fixed extents.
pub fn extents<'c>(sizes: &[i64]) -> Vec<Extent<'c>> {
    sizes.iter().map(|&n| Extent::Fixed(n)).collect()
}

/// `g * per_group + i`
pub fn in_group<'c>(e: &Emitter<'c>, g: Index<'c>, per_group: i64, i: Index<'c>) -> Index<'c> {
    let first = e.index_scale(g, per_group);
    e.index_add(first, i)
}
