//! What an operator's lowering works with: the operands and results of one kernel.

use syncbn_ir::{DType, Dim, TensorType};

use crate::emit::{Buffer, Elem, Emitter, Extent, Val};

/// A tensor that a kernel reads or writes.
#[derive(Debug, Clone)]
pub struct Tensor<'c> {
    /// Its type.
    pub ty: TensorType,
    /// Address of its first element.
    pub pointer: Val<'c>,
}

/// One kernel: an operator on given types.
pub struct Kernel<'c> {
    /// Operands in slot order.
    pub operands: Vec<Tensor<'c>>,
    /// Results in slot order.
    pub results: Vec<Tensor<'c>>,
    /// Samples of this rank, i64.
    pub n: Val<'c>,
    /// Samples of all ranks, i64.
    pub total: Val<'c>,
    /// Bytes of a vector register.
    pub vector_bytes: usize,
}

/// Element type in memory and registers.
pub fn elem(dtype: DType) -> Elem {
    match dtype {
        DType::F32 => Elem::F32,
        DType::F64 => Elem::F64,
        DType::I64 => Elem::I64,
        DType::U8 => Elem::I8,
    }
}

/// A fixed size of a type that passed the verifier.
pub fn fixed(dim: Dim) -> i64 {
    dim.fixed().unwrap_or(1) as i64
}

/// Row-major strides, in elements, of a plain tensor.
pub fn plain_strides(ty: &TensorType) -> Vec<i64> {
    let dims = &ty.shape.0;
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * fixed(dims[i]);
    }
    strides
}

impl<'c> Tensor<'c> {
    /// Its element type.
    pub fn elem(&self) -> Elem {
        elem(self.ty.dtype)
    }

    /// A view with other strides.
    pub fn view(&self, strides: &[i64]) -> Buffer<'c> {
        Buffer::new(self.pointer, self.elem(), strides)
    }

    /// The buffer indexed by the type's own axes.
    pub fn buffer(&self) -> Buffer<'c> {
        self.view(&plain_strides(&self.ty))
    }

    /// The buffer as a vector of all its elements.
    pub fn flat(&self) -> Buffer<'c> {
        self.view(&[1])
    }
}

/// A tensor `[n, channels, positions]`: what per-channel operators see.
#[derive(Debug, Clone, Copy)]
pub struct Image<'c> {
    /// First axis.
    pub n: Extent<'c>,
    /// Second axis.
    pub channels: i64,
    /// Product of the further axes.
    pub positions: i64,
}

impl<'c> Image<'c> {
    /// Strides of its three axes.
    pub fn strides(&self) -> [i64; 3] {
        [self.channels * self.positions, self.positions, 1]
    }
}

impl<'c> Kernel<'c> {
    /// Lanes of a full vector of this element type.
    pub fn width(&self, elem: Elem) -> usize {
        (self.vector_bytes as i64 / elem.bytes()).max(1) as usize
    }

    /// The loop extent of an axis.
    pub fn extent(&self, dim: Dim) -> Extent<'c> {
        match dim {
            Dim::Batch => Extent::Batch(self.n),
            Dim::Fixed(n) => Extent::Fixed(n as i64),
        }
    }

    /// A type of rank 2 or more as `[n, channels, positions]`.
    pub fn image(&self, ty: &TensorType) -> Image<'c> {
        let dims = &ty.shape.0;
        Image {
            n: self.extent(dims[0]),
            channels: fixed(dims[1]),
            positions: dims[2..].iter().map(|&d| fixed(d)).product(),
        }
    }

    /// A plain tensor as `[batch, elements of a sample]`, or `[elements]` without a batch.
    pub fn rows(&self, ty: &TensorType) -> (Vec<Extent<'c>>, Vec<i64>) {
        let per_sample: i64 = ty
            .shape
            .0
            .iter()
            .filter_map(|d| d.fixed())
            .map(|n| n as i64)
            .product();
        if ty.shape.has_batch() {
            (
                vec![Extent::Batch(self.n), Extent::Fixed(per_sample)],
                vec![per_sample, 1],
            )
        } else {
            (vec![Extent::Fixed(per_sample)], vec![1])
        }
    }

    /// The divisor of losses: `total * positions`, in f64.
    pub fn divisor(&self, e: &mut Emitter<'c>, positions: i64) -> Val<'c> {
        let total = e.convert(self.total, Elem::F64);
        let positions = e.float(Elem::F64, positions as f64);
        e.mul(total, positions)
    }
}
