//! Which convolutions and linear layers the tensor cores take, and their shape.

use syncbn_ir::ops::{MatMul, Window};
use syncbn_ir::{Dim, Layout, TensorType};

use super::axis::{Axis, Slide};
use crate::ops::kernel::fixed;
use crate::program::Products;

/// A 2-D convolution of NHWC images with KRSC weights, without groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Along height and width.
    pub slides: [Slide; 2],
    /// Input channels.
    pub c: i64,
    /// Output channels.
    pub k: i64,
}

impl Shape {
    /// The shape of a convolution from `x` to `y`; None where it is not for tensor cores. Operands must be of
    /// [`Products::operand`].
    pub fn of_conv(
        products: Products,
        window: &Window,
        groups: usize,
        [x, w, y]: [&TensorType; 3],
    ) -> Option<Shape> {
        let tensors = [x, w, y];
        let fits = products != Products::Exact
            // A group has too few channels to fill a tile.
            && groups == 1
            && window.kernel.len() == 2
            && tensors.iter().all(|ty| ty.layout == Layout::Nhwc)
            && [x, y].iter().all(|ty| ty.shape.0[1].fixed().is_some_and(|n| n % products.channels_at_once() == 0));
        if !fits {
            return None;
        }
        let slide = |i: usize| Slide {
            input: fixed(x.shape.0[2 + i]),
            output: fixed(y.shape.0[2 + i]),
            taps: window.kernel[i] as i64,
            stride: window.strides[i] as i64,
            dilation: match window.kernel[i] {
                // The distance of one tap to the next does not matter where there is one.
                1 => 1,
                _ => window.dilations[i] as i64,
            },
            pad: window.pad_begin(i) as i64,
        };
        let slides = [slide(0), slide(1)];
        slides.iter().all(Slide::fits).then(|| Shape {
            slides,
            c: fixed(x.shape.0[1]),
            k: fixed(y.shape.0[1]),
        })
    }

    /// Axes of each phase of the backward pass.
    pub fn backward(&self) -> Vec<[Axis; 2]> {
        let [rows, columns] = self.slides.map(|slide| slide.backward());
        let pairs = rows.iter().flat_map(|&h| columns.iter().map(move |&w| [h, w]));
        pairs.collect()
    }

    /// Spatial sizes of the window.
    pub fn window(&self) -> [i64; 2] {
        self.slides.map(|slide| slide.taps)
    }

    /// Taps of the window.
    pub fn taps(&self) -> i64 {
        self.window().iter().product()
    }

    /// Outputs of a sample.
    pub fn positions(&self) -> i64 {
        self.slides.iter().map(|slide| slide.output).product()
    }
}

/// Which direction of a linear layer a matrix product is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linear {
    /// `y = x w^T`
    Forward,
    /// `dx = dy w`
    BackwardData,
    /// `dw = dy^T x`
    BackwardWeight,
}

/// A matrix product as a direction of a convolution with a 1x1 window of 1x1 images; None where it is none, or not
/// for tensor cores.
pub fn of_matmul(products: Products, op: &MatMul, [a, b]: [&TensorType; 2]) -> Option<(Linear, Shape)> {
    let size = |ty: &TensorType, axis: usize| ty.shape.0[axis].fixed().map(|n| n as i64);
    let samples = |ty: &TensorType| ty.shape.0[0] == Dim::Batch;
    let (direction, c, k) = match (op.transpose_a, op.transpose_b, samples(a), samples(b)) {
        (false, true, true, false) => (Linear::Forward, size(b, 1)?, size(b, 0)?),
        (false, false, true, false) => (Linear::BackwardData, size(b, 1)?, size(b, 0)?),
        (true, false, true, true) => (Linear::BackwardWeight, size(b, 1)?, size(a, 1)?),
        _ => return None,
    };
    let fits = products != Products::Exact
        && [a, b].iter().all(|ty| ty.dtype == products.operand())
        && [c, k]
            .iter()
            .all(|n| *n % products.channels_at_once() as i64 == 0);
    let slide = Slide {
        input: 1,
        output: 1,
        taps: 1,
        stride: 1,
        dilation: 1,
        pad: 0,
    };
    let shape = Shape {
        slides: [slide, slide],
        c,
        k,
    };
    fits.then_some((direction, shape))
}
