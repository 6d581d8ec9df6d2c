//! Sums on a GPU outside tensor cores: many threads take a few terms each of a result, and a second kernel adds what they
//! leave, in a fixed order.

use super::convolution::Convolution;
use crate::ops::{ConvBackwardWeight, MatMul, Op, Reduce};
use crate::types::{DType, Dim, Layout, TensorType};

/// Threads that a sum is split over, in all. Fixed, so that the order of additions depends on shapes
/// and the largest batch alone.
const SUM_THREADS: i64 = 1 << 16;
/// Terms that a thread adds at least, if so many threads have work then.
const LEAST_TERMS: i64 = 16;
const LEAST_THREADS: i64 = 1 << 10;
/// Fewer parts are not worth a second kernel.
const LEAST_PARTS: i64 = 4;
/// Partial sums of one result.
const MOST_PARTS: i64 = 1 << 14;
/// Neighbouring results that a thread adds up, the most first: it has several values for each.
const LANES: [i64; 2] = [4, 2];
/// Bytes that a thread loads of one tensor at a time, at most.
const ACCESS: u64 = 16;
/// Where the partial sums of one kind begin: at a multiple of this.
const ALIGNMENT: u64 = 256;

/// The sums that a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadSums {
    /// Results of each kind of sum.
    pub results: i64,
    /// Terms of a result, at the largest batch.
    pub terms: i64,
    /// Neighbouring results that a thread adds up.
    pub lanes: i64,
    /// Kinds of sums that are taken of the same terms.
    pub kinds: usize,
    /// Element type of partial sums.
    pub dtype: DType,
}

impl ThreadSums {
    /// What an operator in its general form sums so, for batches up to `batch_bound`; None where it takes no sums.
    pub fn of(
        op: &Op,
        operands: &[&TensorType],
        results: &[&TensorType],
        batch_bound: usize,
    ) -> Option<ThreadSums> {
        let sizes = Sizes { batch_bound };
        match op {
            Op::Conv(conv) if conv.moments => sizes.of_channels(results.first()?, &[]),
            Op::Moments(_) => sizes.of_channels(operands.first()?, &[]),
            Op::BatchNormBackwardReduce(_) => {
                let residual = operands.get(6).into_iter();
                let others = operands.iter().skip(1).take(1).chain(residual);
                let others: Vec<&TensorType> = others.chain(results.iter().skip(1)).copied().collect();
                sizes.of_channels(operands.first()?, &others)
            }
            Op::Reduce(reduce) => Some(sizes.of_reduce(reduce, [operands.first()?, results.first()?])),
            Op::MatMul(op) => sizes.of_product(op, operands, results.first()?.dtype),
            Op::ConvBackwardWeight(op) => sizes.of_weights(op, operands, results),
            Op::SoftmaxCrossEntropy(_) | Op::MeanSquaredError(_) => {
                let dims = &operands.first()?.shape.0;
                let is_term = |axis: usize| axis != 1 || matches!(op, Op::MeanSquaredError(_));
                let terms = (0..dims.len())
                    .filter(|&axis| is_term(axis))
                    .map(|axis| dims[axis]);
                Some(ThreadSums {
                    results: 1,
                    terms: sizes.product(terms),
                    lanes: 1,
                    kinds: 1,
                    dtype: DType::F64,
                })
            }
            _ => None,
        }
    }

    /// Threads that share a result. One leaves nothing to a second kernel.
    pub fn parts(&self) -> i64 {
        let share = |threads: i64| threads * self.lanes / self.results.max(1);
        let least = share(LEAST_THREADS).min(self.terms);
        match share(SUM_THREADS).min(least.max(self.terms / LEAST_TERMS)) {
            ..LEAST_PARTS => 1,
            parts => parts.min(MOST_PARTS),
        }
    }

    /// Bytes of all partial sums; 0 where there is one part.
    pub fn bytes(&self) -> u64 {
        let parts = self.parts();
        if parts == 1 {
            return 0;
        }
        let elements = (self.results as u64).saturating_mul(parts as u64);
        let of_kind = elements.saturating_mul(self.dtype.bytes());
        (0..self.kinds).fold(0, |used, _| partials_begin(used).saturating_add(of_kind))
    }
}

/// Where the partial sums of one kind begin, behind so many bytes of others.
pub fn partials_begin(used: u64) -> u64 {
    used.saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

/// The most neighbours that a thread takes of rows of `size` elements, where accesses of so many are `possible`; the widest
/// element that is accessed has `widest` bytes.
fn lanes(size: i64, widest: u64, possible: impl Fn(i64) -> bool) -> i64 {
    let most = LANES
        .into_iter()
        .find(|&lanes| size % lanes == 0 && possible(lanes));
    most.map_or(1, |lanes| lanes.min((ACCESS / widest.max(1)) as i64).max(1))
}

fn fixed(ty: &TensorType, axis: usize) -> Option<i64> {
    ty.shape.0.get(axis)?.fixed().map(|n| n as i64)
}

/// Elements from one index to the next along each axis; of axis 0 it does not matter.
fn strides(ty: &TensorType) -> Vec<i64> {
    let rank = ty.shape.rank();
    let mut order: Vec<usize> = (0..rank).collect();
    if ty.layout == Layout::Nhwc && rank > 2 {
        order[1..].rotate_left(1);
    }
    let (mut strides, mut product) = (vec![1; rank], 1);
    for &axis in order.iter().rev() {
        strides[axis] = product;
        product *= fixed(ty, axis).unwrap_or(1);
    }
    strides
}

/// Whether neighbours in memory are channels.
pub(super) fn has_channels_innermost(ty: &TensorType) -> bool {
    strides(ty).get(1) == Some(&1)
}

fn widest<'t>(types: impl IntoIterator<Item = &'t TensorType>) -> u64 {
    types.into_iter().map(|ty| ty.dtype.bytes()).max().unwrap_or(1)
}

/// Sizes at the largest batch.
struct Sizes {
    batch_bound: usize,
}

impl Sizes {
    fn product(&self, dims: impl IntoIterator<Item = Dim>) -> i64 {
        let size = |dim: Dim| dim.size(self.batch_bound) as i64;
        dims.into_iter()
            .fold(1, |n: i64, dim| n.saturating_mul(size(dim)))
    }

    /// Two sums in f64 over samples and positions for every channel of `image`, at each element of which `others` are
    /// accessed too.
    fn of_channels(&self, image: &TensorType, others: &[&TensorType]) -> Option<ThreadSums> {
        let channels = fixed(image, 1)?;
        let accessed = || others.iter().copied().chain([image]);
        let dims = image.shape.0.iter().enumerate();
        Some(ThreadSums {
            results: channels,
            terms: self.product(dims.filter(|(axis, _)| *axis != 1).map(|(_, &dim)| dim)),
            lanes: lanes(channels, widest(accessed()), |_| {
                accessed().all(has_channels_innermost)
            }),
            kinds: 2,
            dtype: DType::F64,
        })
    }

    fn of_reduce(&self, op: &Reduce, [x, y]: [&TensorType; 2]) -> ThreadSums {
        let is_reduced = |axis: usize| op.axes.contains(&axis);
        let dims = || x.shape.0.iter().copied().enumerate();
        let product = |reduced: bool| {
            let of_kind = dims().filter(|&(axis, _)| is_reduced(axis) == reduced);
            self.product(of_kind.map(|(_, dim)| dim))
        };
        ThreadSums {
            results: product(false),
            terms: product(true),
            lanes: lanes(innermost_kept(op, [x, y]), x.dtype.bytes(), |_| true),
            kinds: 1,
            dtype: DType::F64,
        }
    }

    /// A product whose terms are the samples. Others are no sums of many threads.
    fn of_product(&self, op: &MatMul, operands: &[&TensorType], dtype: DType) -> Option<ThreadSums> {
        let [a, b] = operands[..] else {
            return None;
        };
        if !op.transpose_a || a.shape.0.first() != Some(&Dim::Batch) {
            return None;
        }
        let (rows, columns) = (fixed(a, 1)?, fixed(b, 1)?);
        Some(ThreadSums {
            results: rows.saturating_mul(columns),
            terms: self.batch_bound as i64,
            lanes: lanes(columns, b.dtype.bytes(), |_| true),
            kinds: 1,
            dtype: in_registers(dtype),
        })
    }

    /// A gradient for weights. Neighbours are input channels of a group, or the groups where they have one; where channels
    /// are not neighbours in memory a thread takes one result.
    fn of_weights(
        &self,
        op: &ConvBackwardWeight,
        operands: &[&TensorType],
        results: &[&TensorType],
    ) -> Option<ThreadSums> {
        let [x, dy] = operands[..] else {
            return None;
        };
        let op = Op::ConvBackwardWeight(op.clone());
        let conv = Convolution::of(&op, operands, results)?;
        let groups = conv.groups.max(1);
        let [own, made] = [conv.c / groups, conv.k / groups].map(|n| n as i64);
        let all = conv.k as i64;
        let per_thread = match (has_channels_innermost(x), own) {
            (false, _) => 1,
            (true, 1) => {
                // A thread's channels are of as many groups, or of one.
                let alike = |lanes: i64| groups == 1 || made == 1 || made % lanes == 0;
                let reads_several = groups > 1 && made == 1;
                let read = [dy].into_iter().chain(reads_several.then_some(x));
                lanes(all, widest(read), |lanes| {
                    has_channels_innermost(dy) && alike(lanes)
                })
            }
            (true, _) => lanes(own, x.dtype.bytes(), |_| true),
        };
        let taps = conv.window.volume() as i64;
        Some(ThreadSums {
            results: all.saturating_mul(own).saturating_mul(taps),
            terms: self.product([conv.samples]).saturating_mul(conv.outputs() as i64),
            lanes: per_thread,
            kinds: 1,
            dtype: in_registers(results.first()?.dtype),
        })
    }
}

/// The type that values have in registers.
fn in_registers(dtype: DType) -> DType {
    match dtype {
        DType::BF16 => DType::F32,
        other => other,
    }
}

/// Neighbouring elements of `x` that are all kept and are neighbours in the result `y`; 1 where neighbours are reduced, or
/// samples. Axes are merged as the lowering does.
fn innermost_kept(op: &Reduce, [x, y]: [&TensorType; 2]) -> i64 {
    let (own, of_result) = (strides(x), strides(y));
    let (mut kept, mut axes) = (0, Vec::new());
    for (axis, &stride) in own.iter().enumerate() {
        let is_reduced = op.axes.contains(&axis);
        let slot = if op.keep_dims { axis } else { kept };
        let result = of_result.get(slot).filter(|_| !is_reduced).copied();
        kept += usize::from(!is_reduced);
        axes.push((fixed(x, axis), stride, result));
    }
    axes.sort_by_key(|&(size, stride, _)| (size.is_some(), std::cmp::Reverse(stride)));
    let mut inner = 1;
    let mut next: Option<(i64, i64)> = None;
    for (size, stride, result) in axes.into_iter().rev() {
        let (Some(size), Some(result)) = (size, result) else {
            break;
        };
        if next.is_some_and(|(own, of_result)| (stride, result) != (own, of_result)) {
            break;
        }
        inner *= size;
        next = Some((stride * size, result * size));
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(results: i64, terms: i64, lanes: i64) -> ThreadSums {
        ThreadSums {
            results,
            terms,
            lanes,
            kinds: 2,
            dtype: DType::F64,
        }
    }

    #[test]
    fn a_sum_has_parts_where_terms_are_many() {
        // 2^16 threads for 64 results, 4 of which are one thread's.
        assert_eq!(sums(64, 1 << 20, 4).parts(), 4096);
        assert_eq!(sums(64, 1 << 20, 1).parts(), 1024);
        // At least 16 terms each, unless too few threads had work then.
        assert_eq!(sums(64, 1 << 14, 4).parts(), 1024);
        assert_eq!(sums(64, 40, 4).parts(), 40);
        assert_eq!(sums(4096, 1 << 20, 1).parts(), 16);
        assert_eq!(sums(1 << 16, 1 << 20, 1).parts(), 1);
        assert_eq!(sums(1, 1 << 30, 1).parts(), MOST_PARTS);
    }

    #[test]
    fn partial_sums_of_each_kind_begin_apart() {
        // 40 parts of 3 results in f64.
        let sums = sums(3, 40, 1);
        assert_eq!(sums.parts(), 40);
        assert_eq!(sums.bytes(), 1024 + 960);
        let one = ThreadSums { terms: 1, ..sums };
        assert_eq!((one.parts(), one.bytes()), (1, 0));
    }
}
