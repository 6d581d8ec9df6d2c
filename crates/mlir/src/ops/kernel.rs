//! What an operator's lowering works with: the operands and results of one kernel.

use syncbn_ir::{DType, Dim, Layout, Schedule, TensorType};

use super::target::{Lanes, Manner};
use crate::emit::{Buffer, Each, Elem, Emitter, Extent, Val};

/// Vectors of channels that are taken at once: what belongs to them stays in registers, and sums do not wait for each
/// other.
pub const VECTORS: usize = 4;

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
    /// How it is computed; None is the general form.
    pub schedule: Option<Schedule>,
    /// Memory that the schedule needs.
    pub workspace: Option<Val<'c>>,
    /// The same for this thread alone; of the first thread the common one.
    pub own_workspace: Option<Val<'c>>,
    /// Memory for the parts of sums that threads share, where the operator takes such sums.
    pub partials: Option<Val<'c>>,
    /// Bytes of a vector register.
    pub vector_bytes: usize,
    /// How its loops run.
    pub manner: Manner,
}

/// Element type in memory.
pub fn elem(dtype: DType) -> Elem {
    match dtype {
        DType::F32 => Elem::F32,
        DType::F64 => Elem::F64,
        DType::BF16 => Elem::BF16,
        DType::I64 => Elem::I64,
        DType::U8 => Elem::I8,
    }
}

/// A fixed size of a type that passed the verifier.
pub fn fixed(dim: Dim) -> i64 {
    dim.fixed().unwrap_or(1) as i64
}

/// Strides, in elements, of the axes of a tensor; that of axis 0 of a filter is from one block to the next.
pub fn strides(ty: &TensorType) -> Vec<i64> {
    let sizes: Vec<i64> = ty.shape.0.iter().map(|&d| fixed(d)).collect();
    strides_of(ty.layout, &sizes)
}

/// [`strides`] of a tensor with these sizes; that of axis 0 does not matter.
pub fn strides_of(layout: Layout, sizes: &[i64]) -> Vec<i64> {
    let rank = sizes.len();
    let (order, innermost): (Vec<usize>, i64) = match layout {
        Layout::Nhwc if rank < 3 => ((0..rank).collect(), 1),
        Layout::Nhwc => ([0].into_iter().chain(2..rank).chain([1]).collect(), 1),
        Layout::Filter(lanes) | Layout::Winograd(lanes) | Layout::Polyphase(lanes) => {
            let order = [0].into_iter().chain(2..rank).chain((rank > 1).then_some(1));
            (order.collect(), lanes as i64)
        }
        Layout::Plain => ((0..rank).collect(), 1),
    };
    let mut strides = vec![1; rank];
    let mut product = innermost;
    for &axis in order.iter().rev() {
        strides[axis] = product;
        product *= match axis {
            2.. => layout.stored_taps(sizes[axis] as usize) as i64,
            _ => sizes[axis],
        };
    }
    strides
}

/// `(rows, columns, stride of rows, stride of columns)` of a matrix that is read transposed or not.
pub fn matrix(ty: &TensorType, transpose: bool) -> (Dim, Dim, i64, i64) {
    let (rows, columns) = (ty.shape.0[0], ty.shape.0[1]);
    let width = fixed(columns);
    if transpose {
        (columns, rows, 1, width)
    } else {
        (rows, columns, width, 1)
    }
}

impl<'c> Tensor<'c> {
    /// The element type of its values in registers.
    pub fn elem(&self) -> Elem {
        elem(self.ty.dtype).register()
    }

    /// The element type of its values in memory.
    pub fn memory_elem(&self) -> Elem {
        elem(self.ty.dtype)
    }

    /// A view with other strides.
    pub fn view(&self, strides: &[i64]) -> Buffer<'c> {
        Buffer {
            block: self.ty.layout.block().map(|block| block as i64),
            ..Buffer::new(self.pointer, self.memory_elem(), strides)
        }
    }

    /// The buffer indexed by the type's own axes.
    pub fn buffer(&self) -> Buffer<'c> {
        self.view(&strides(&self.ty))
    }

    /// The buffer as `[n, channels, positions]`.
    pub fn image(&self) -> Buffer<'c> {
        let dims = &self.ty.shape.0;
        let positions = dims[2..].iter().map(|&d| fixed(d)).product();
        self.view(&strides_of(self.ty.layout, &[1, fixed(dims[1]), positions]))
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
    /// Their strides.
    pub strides: [i64; 3],
    /// Whether the next sample's first position follows the last position, in every tensor of this shape.
    pub has_rows: bool,
}

impl Image<'_> {
    /// Whether neighbours in memory are channels.
    pub fn has_channels_innermost(&self) -> bool {
        self.positions == 1 || self.strides[1] < self.strides[2]
    }
}

impl<'c> Kernel<'c> {
    /// A kernel on tensors of these types, of which the first so many are operands, at these addresses; `sizes` are the
    /// samples of this rank and of all ranks.
    pub fn new(
        types: &[&TensorType],
        operands: usize,
        pointers: &[Val<'c>],
        [n, total]: [Val<'c>; 2],
        (vector_bytes, manner): (usize, Manner),
    ) -> Kernel<'c> {
        let tensor = |(&ty, &pointer): (&&TensorType, &Val<'c>)| Tensor {
            ty: ty.clone(),
            pointer,
        };
        let mut tensors = types.iter().zip(pointers).map(tensor);
        Kernel {
            operands: tensors.by_ref().take(operands).collect(),
            results: tensors.collect(),
            n,
            total,
            schedule: None,
            workspace: None,
            own_workspace: None,
            partials: None,
            vector_bytes,
            manner,
        }
    }

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
        let (channels, positions) = (fixed(dims[1]), dims[2..].iter().map(|&d| fixed(d)).product());
        let strides = strides_of(ty.layout, &[1, channels, positions]);
        let mut alike = self.operands.iter().chain(&self.results).map(|t| &t.ty);
        let has_rows = strides[1] < strides[2]
            && alike.all(|other| other.shape != ty.shape || other.layout == ty.layout);
        Image {
            n: self.extent(dims[0]),
            channels,
            positions,
            strides: [strides[0], strides[1], strides[2]],
            has_rows,
        }
    }

    /// Lanes for a loop over a tensor: several vector registers of channels where they are innermost, so that what is
    /// computed for a position is for all of them, else vectors of indices.
    pub fn width_along(&self, tensor: &Tensor<'c>) -> usize {
        match (tensor.ty.layout, self.manner.lanes) {
            (Layout::Nhwc, Lanes::OfRegisters) => VECTORS * self.width(tensor.elem()),
            _ => self.width(Elem::I64),
        }
    }

    /// `body` for every index of a tensor; neighbouring threads take neighbours in memory.
    pub fn each(&self, e: &Emitter<'c>, tensor: &Tensor<'c>, width: usize, body: Each<'c, '_>) {
        let extents: Vec<Extent<'c>> = tensor.ty.shape.0.iter().map(|&d| self.extent(d)).collect();
        e.map_along(&extents, &strides(&tensor.ty), width, body);
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
    pub fn divisor(&self, e: &Emitter<'c>, positions: i64) -> Val<'c> {
        let total = e.convert(self.total, Elem::F64);
        let positions = e.float(Elem::F64, positions as f64);
        e.mul(total, positions)
    }
}
