//! Integer tensors that are known during import: shapes, axes and what is computed of them, with the batch
//! as a symbol.

use syncbn_ir::{Dim, Shape};

/// Largest number of elements of an integer tensor that is evaluated.
pub(crate) const MAX_ELEMENTS: usize = 1 << 16;

/// `batch * n + constant`, or unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A known combination.
    Known {
        /// Factor of the batch.
        batch: i64,
        /// What is added.
        constant: i64,
    },
    /// Depends on the batch in another way.
    Unknown,
}

impl From<i64> for Size {
    fn from(constant: i64) -> Size {
        Size::Known { batch: 0, constant }
    }
}

impl From<Dim> for Size {
    fn from(dim: Dim) -> Size {
        match dim {
            Dim::Batch => Size::Known {
                batch: 1,
                constant: 0,
            },
            Dim::Fixed(n) => Size::from(n as i64),
        }
    }
}

impl Size {
    /// The number, if it does not depend on the batch.
    pub(crate) fn constant(self) -> Option<i64> {
        match self {
            Size::Known { batch: 0, constant } => Some(constant),
            _ => None,
        }
    }

    /// The dimension of this size.
    pub(crate) fn dim(self) -> Option<Dim> {
        match self {
            Size::Known {
                batch: 1,
                constant: 0,
            } => Some(Dim::Batch),
            other => usize::try_from(other.constant()?).ok().map(Dim::Fixed),
        }
    }

    fn known(batch: Option<i64>, constant: Option<i64>) -> Size {
        match (batch, constant) {
            (Some(batch), Some(constant)) => Size::Known { batch, constant },
            _ => Size::Unknown,
        }
    }

    fn parts(self) -> Option<(i64, i64)> {
        match self {
            Size::Known { batch, constant } => Some((batch, constant)),
            Size::Unknown => None,
        }
    }

    pub(crate) fn add(self, other: Size) -> Size {
        let (Some((a, b)), Some((c, d))) = (self.parts(), other.parts()) else {
            return Size::Unknown;
        };
        Size::known(a.checked_add(c), b.checked_add(d))
    }

    pub(crate) fn sub(self, other: Size) -> Size {
        let (Some((a, b)), Some((c, d))) = (self.parts(), other.parts()) else {
            return Size::Unknown;
        };
        Size::known(a.checked_sub(c), b.checked_sub(d))
    }

    pub(crate) fn mul(self, other: Size) -> Size {
        let (Some((a, b)), Some((c, d))) = (self.parts(), other.parts()) else {
            return Size::Unknown;
        };
        match (a, c) {
            (0, _) => Size::known(c.checked_mul(b), d.checked_mul(b)),
            (_, 0) => Size::known(a.checked_mul(d), b.checked_mul(d)),
            _ => Size::Unknown,
        }
    }

    /// Division that truncates, as ONNX's; None for a division by zero.
    pub(crate) fn div(self, other: Size) -> Option<Size> {
        let (Some((a, b)), Some((c, d))) = (self.parts(), other.parts()) else {
            return Some(Size::Unknown);
        };
        if (c, d) == (0, 0) {
            return None;
        }
        Some(match (a, c) {
            (0, 0) => Size::known(Some(0), b.checked_div(d)),
            (_, 0) if a.checked_rem(d) == Some(0) && b.checked_rem(d) == Some(0) => {
                Size::known(a.checked_div(d), b.checked_div(d))
            }
            (_, _) if b == 0 && d == 0 && a.checked_rem(c) == Some(0) => {
                Size::known(Some(0), a.checked_div(c))
            }
            _ => Size::Unknown,
        })
    }

    pub(crate) fn min(self, other: Size) -> Size {
        match (self.constant(), other.constant()) {
            (Some(a), Some(b)) => Size::from(a.min(b)),
            _ if self == other => self,
            _ => Size::Unknown,
        }
    }

    pub(crate) fn max(self, other: Size) -> Size {
        match (self.constant(), other.constant()) {
            (Some(a), Some(b)) => Size::from(a.max(b)),
            _ if self == other => self,
            _ => Size::Unknown,
        }
    }

    /// 1 where equal, else 0. A batch is at least 1, so it differs from every number below.
    pub(crate) fn equal(self, other: Size) -> Size {
        let (Some((a, b)), Some((c, d))) = (self.parts(), other.parts()) else {
            return Size::Unknown;
        };
        if a == c {
            return Size::from(i64::from(b == d));
        }
        let (high, low) = if a > c { ((a, b), (c, d)) } else { ((c, d), (a, b)) };
        let above = high.0 > 0 && low.0 == 0 && high.1 >= 0 && low.1 <= 0;
        if above { Size::from(0) } else { Size::Unknown }
    }
}

/// An integer (or bool) tensor whose values are known, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Integers {
    /// Sizes.
    pub dims: Vec<usize>,
    /// Values.
    pub values: Vec<Size>,
}

/// Number of elements of a shape, if it may be evaluated.
pub(crate) fn small(dims: &[usize]) -> Option<usize> {
    let total = dims.iter().try_fold(1usize, |p, &d| p.checked_mul(d))?;
    (total <= MAX_ELEMENTS).then_some(total)
}

impl Integers {
    /// A rank-1 tensor.
    pub(crate) fn vector(values: Vec<Size>) -> Integers {
        Integers {
            dims: vec![values.len()],
            values,
        }
    }

    /// A rank-0 tensor.
    pub(crate) fn scalar(value: Size) -> Integers {
        Integers {
            dims: Vec::new(),
            values: vec![value],
        }
    }

    /// All values, if none depends on the batch.
    pub(crate) fn constants(&self) -> Option<Vec<i64>> {
        self.values.iter().map(|v| v.constant()).collect()
    }

    /// As a shape whose only batch dimension, if any, is in front.
    pub(crate) fn shape(&self) -> Option<Shape> {
        let dims: Vec<Dim> = self.values.iter().map(|v| v.dim()).collect::<Option<_>>()?;
        let batch_in_front = dims.iter().skip(1).all(|d| *d != Dim::Batch);
        batch_in_front.then_some(Shape(dims))
    }

    /// The elements at these indices of an axis, all in range; None if they are too many.
    pub(crate) fn select(&self, axis: usize, indices: &[usize]) -> Option<Integers> {
        let mut dims = self.dims.clone();
        dims[axis] = indices.len();
        small(&dims)?;
        let inner: usize = self.dims[axis + 1..].iter().product();
        let outer: usize = self.dims[..axis].iter().product();
        let row = |o: usize, i: usize| {
            let start = (o * self.dims[axis] + i) * inner;
            &self.values[start..start + inner]
        };
        let rows = (0..outer).flat_map(|o| indices.iter().map(move |&i| row(o, i)));
        let values = rows.flatten().copied().collect();
        Some(Integers { dims, values })
    }

    /// A matrix with its axes exchanged.
    pub(crate) fn transposed(&self) -> Option<Integers> {
        let &[rows, columns] = self.dims.as_slice() else {
            return None;
        };
        let order = (0..columns).flat_map(|j| (0..rows).map(move |i| i * columns + j));
        Some(Integers {
            dims: vec![columns, rows],
            values: order.map(|at| self.values[at]).collect(),
        })
    }

    /// Broadcast to `dims`, or None where it does not broadcast or is too large.
    pub(crate) fn broadcast(&self, dims: &[usize]) -> Option<Integers> {
        let total = small(dims)?;
        let offset = dims.len().checked_sub(self.dims.len())?;
        let mut strides = vec![0; dims.len()];
        let mut stride = 1;
        for (i, &d) in self.dims.iter().enumerate().rev() {
            if d == dims[offset + i] {
                strides[offset + i] = stride;
            } else if d != 1 {
                return None;
            }
            stride *= d;
        }
        let values = (0..total)
            .map(|flat| {
                let (mut rest, mut at) = (flat, 0);
                for (&d, &s) in dims.iter().zip(&strides).rev() {
                    at += (rest % d) * s;
                    rest /= d;
                }
                self.values[at]
            })
            .collect();
        Some(Integers {
            dims: dims.to_vec(),
            values,
        })
    }
}

/// The shape that both shapes broadcast to.
pub(crate) fn broadcast_dims(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect()
}
