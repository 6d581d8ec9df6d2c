//! Types of values: element type, shape with a symbolic batch, and layout.

use std::fmt;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// 64-bit IEEE float.
    F64,
    /// The upper half of a 32-bit IEEE float: what activations are stored in where a target computes in f32.
    BF16,
    /// 64-bit signed integer: labels and indices.
    I64,
    /// 8-bit unsigned integer: window-local positions of max pooling.
    U8,
}

impl DType {
    /// Size of one element in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            DType::F32 => 4,
            DType::F64 | DType::I64 => 8,
            DType::BF16 => 2,
            DType::U8 => 1,
        }
    }

    /// Whether arithmetic on it is floating point.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::BF16)
    }

    /// The type that arithmetic on it has, and parameters and sums beside it: f32 for bf16, else itself.
    pub fn arithmetic(self) -> DType {
        match self {
            DType::BF16 => DType::F32,
            other => other,
        }
    }

    /// The text form.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::U8 => "u8",
        }
    }

    /// The element type with this text form.
    pub fn from_name(name: &str) -> Option<DType> {
        [DType::F32, DType::F64, DType::BF16, DType::I64, DType::U8]
            .into_iter()
            .find(|d| d.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// The number of samples of a rank in this step: known at run time, bounded at compile time.
    Batch,
    /// A size known at compile time.
    Fixed(usize),
}

impl Dim {
    /// The size, when it is known at compile time.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Dim::Batch => None,
            Dim::Fixed(n) => Some(n),
        }
    }

    /// The size for a batch of `n`.
    pub fn size(self, n: usize) -> usize {
        self.fixed().unwrap_or(n)
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Fixed(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Batch => f.write_str("batch"),
            Dim::Fixed(n) => write!(f, "{n}"),
        }
    }
}

/// A shape. The verifier allows [`Dim::Batch`] only in front.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A shape without a batch dimension.
    pub fn fixed(sizes: &[usize]) -> Shape {
        Shape(sizes.iter().map(|&n| Dim::Fixed(n)).collect())
    }

    /// `[batch, sizes...]`.
    pub fn batched(sizes: &[usize]) -> Shape {
        Shape(
            std::iter::once(Dim::Batch)
                .chain(sizes.iter().map(|&n| Dim::Fixed(n)))
                .collect(),
        )
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Whether the first dimension is the batch.
    pub fn has_batch(&self) -> bool {
        self.0.first() == Some(&Dim::Batch)
    }

    /// All sizes for a batch of `n`.
    pub fn sizes(&self, n: usize) -> Vec<usize> {
        self.0.iter().map(|d| d.size(n)).collect()
    }

    /// Number of elements of one sample (of the whole tensor when there is no batch dimension), or None when
    /// it does not fit 63 bits.
    pub fn elements_per_sample(&self) -> Option<usize> {
        self.0
            .iter()
            .filter_map(|d| d.fixed())
            .try_fold(1usize, |p, n| p.checked_mul(n))
            .filter(|&p| p <= i64::MAX as usize)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// How the elements of a tensor lie in memory. Operators see logical indices only; a layout maps them to
/// offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Layout {
    /// Row-major in logical order: NCHW for images.
    #[default]
    Plain,
    /// Channels (axis 1) innermost.
    Nhwc,
    /// Weights of a convolution, `[K/V][spatial...][C/groups][V]`: output channels (axis 0) in blocks of V, a block
    /// innermost and input channels before it; the last block is padded with zeros.
    Filter(usize),
    /// Weights of a 3x3 convolution as Winograd's algorithm for stride 1 multiplies them, `[K/V][6][6][C][V]`: each filter
    /// as its transform. Only the copy that makes it and convolutions with such a schedule know it.
    Winograd(usize),
    /// The same for stride 2.
    Polyphase(usize),
}

impl Layout {
    /// Output channels of a block, of layouts that have blocks.
    pub fn block(self) -> Option<usize> {
        match self {
            Layout::Plain | Layout::Nhwc => None,
            Layout::Filter(v) | Layout::Winograd(v) | Layout::Polyphase(v) => Some(v),
        }
    }

    /// Whether memory holds transforms of filters.
    pub fn is_transformed(self) -> bool {
        matches!(self, Layout::Winograd(_) | Layout::Polyphase(_))
    }

    /// What memory holds of an axis of a window with so many taps.
    pub fn stored_taps(self, taps: usize) -> usize {
        match self.is_transformed() {
            true => POINTS,
            false => taps,
        }
    }
}

/// Taps of a filter that has a transform, and values of its transform, along an axis.
const TAPS: usize = 3;
const POINTS: usize = 6;

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Plain => f.write_str("plain"),
            Layout::Nhwc => f.write_str("nhwc"),
            Layout::Filter(v) => write!(f, "filter{v}"),
            Layout::Winograd(v) => write!(f, "winograd{v}"),
            Layout::Polyphase(v) => write!(f, "polyphase{v}"),
        }
    }
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Logical shape.
    pub shape: Shape,
    /// Layout in memory.
    pub layout: Layout,
}

impl TensorType {
    /// A tensor in plain layout.
    pub fn new(dtype: DType, shape: Shape) -> TensorType {
        TensorType {
            dtype,
            shape,
            layout: Layout::Plain,
        }
    }

    /// A plain tensor without a batch dimension.
    pub fn fixed(dtype: DType, sizes: &[usize]) -> TensorType {
        TensorType::new(dtype, Shape::fixed(sizes))
    }

    /// A plain tensor of shape `[batch, sizes...]`.
    pub fn batched(dtype: DType, sizes: &[usize]) -> TensorType {
        TensorType::new(dtype, Shape::batched(sizes))
    }

    /// Bytes for a batch of `n`, or None on overflow.
    pub fn bytes(&self, n: usize) -> Option<u64> {
        let per_sample = self.stored_elements_per_sample()? as u64;
        let samples = if self.shape.has_batch() { n as u64 } else { 1 };
        per_sample
            .checked_mul(samples)?
            .checked_mul(self.dtype.bytes())
            .filter(|&b| b <= i64::MAX as u64)
    }

    /// Elements in memory of one sample: with the padding of blocks, and with the points of transforms instead of taps.
    pub fn stored_elements_per_sample(&self) -> Option<usize> {
        let mut stored = self.shape.clone();
        if let (Some(v), Some(Dim::Fixed(k))) = (self.layout.block(), self.shape.0.first()) {
            stored.0[0] = Dim::Fixed(k.checked_next_multiple_of(v)?);
        }
        for dim in stored.0.iter_mut().skip(2) {
            *dim = dim
                .fixed()
                .map_or(*dim, |taps| Dim::Fixed(self.layout.stored_taps(taps)));
        }
        stored.elements_per_sample()
    }

    /// Whether it is the type of weights whose filters have transforms.
    pub fn has_transform(&self) -> bool {
        let spatial = self.shape.0.get(2..).unwrap_or_default();
        !self.shape.has_batch() && spatial == [Dim::Fixed(TAPS); 2]
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)?;
        if self.layout != Layout::Plain {
            write!(f, ":{}", self.layout)?;
        }
        Ok(())
    }
}
