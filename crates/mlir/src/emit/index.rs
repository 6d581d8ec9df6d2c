//! Indices: a uniform base and what the lanes add to it.

use super::arith::Compare;
use super::{Emitter, Val};

/// An index value. Because it says how it varies over lanes, every load made from it is by construction
/// scalar, contiguous or a gather.
#[derive(Debug, Clone, Copy)]
pub enum Index<'c> {
    /// A constant, plus `stride` a lane.
    Const {
        /// Value in lane 0.
        base: i64,
        /// Added for each further lane.
        stride: i64,
    },
    /// A scalar, plus `stride` a lane.
    Scalar {
        /// Value in lane 0.
        base: Val<'c>,
        /// Added for each further lane.
        stride: i64,
        /// A power of two that divides the base.
        divisor: i64,
    },
    /// One value for each lane.
    Lanes(Val<'c>),
}

/// The largest power of two that divides `value`, up to the lanes of any vector.
fn power_of_two_in(value: i64) -> i64 {
    1 << value.trailing_zeros().min(4)
}

impl<'c> Index<'c> {
    /// A constant, the same in all lanes.
    pub fn constant(base: i64) -> Index<'c> {
        Index::Const { base, stride: 0 }
    }

    /// A scalar, the same in all lanes; what has lanes has one value for each.
    pub fn uniform(base: Val<'c>) -> Index<'c> {
        if base.lanes > 1 {
            return Index::Lanes(base);
        }
        Index::Scalar {
            base,
            stride: 0,
            divisor: 1,
        }
    }

    /// A power of two that divides the value in lane 0.
    fn divisor(self) -> i64 {
        match self {
            Index::Const { base, .. } => power_of_two_in(base),
            Index::Scalar { divisor, .. } => divisor,
            Index::Lanes(_) => 1,
        }
    }

    /// Whether `lanes` lanes are neighbours, of which the first one has a multiple of `lanes`.
    pub(super) fn is_whole_vector(self, lanes: usize) -> bool {
        let (Index::Const { stride, .. } | Index::Scalar { stride, .. }) = self else {
            return false;
        };
        stride == 1 && self.divisor() % lanes as i64 == 0
    }

    /// Whether all lanes have the same value.
    pub fn is_uniform(self) -> bool {
        matches!(
            self,
            Index::Const { stride: 0, .. } | Index::Scalar { stride: 0, .. }
        )
    }
}

impl<'c> Emitter<'c> {
    /// The value in lane 0 of an index that is not [`Index::Lanes`].
    pub(super) fn index_base(&self, i: Index<'c>) -> Val<'c> {
        match i {
            Index::Const { base, .. } => self.index(base),
            Index::Scalar { base, .. } | Index::Lanes(base) => base,
        }
    }

    /// One value for each lane; a scalar when there is one lane.
    pub(super) fn index_lanes(&self, i: Index<'c>) -> Val<'c> {
        let (base, stride) = match i {
            Index::Lanes(v) => return v,
            Index::Const { stride, .. } | Index::Scalar { stride, .. } => (self.index_base(i), stride),
        };
        let base = self.splat(base, self.lanes());
        if stride == 0 || self.lanes() == 1 {
            return base;
        }
        let offsets = self.lane_offsets(stride);
        self.add(base, offsets)
    }

    /// The index as data: a scalar if it is uniform, else one value a lane.
    pub fn index_value(&self, i: Index<'c>) -> Val<'c> {
        if i.is_uniform() {
            self.index_base(i)
        } else {
            self.index_lanes(i)
        }
    }

    /// `a + b`
    pub fn index_add(&self, a: Index<'c>, b: Index<'c>) -> Index<'c> {
        match (a, b) {
            (Index::Const { base: 0, stride: 0 }, other) | (other, Index::Const { base: 0, stride: 0 }) => {
                other
            }
            (Index::Const { base: p, stride: s }, Index::Const { base: q, stride: t }) => Index::Const {
                base: p + q,
                stride: s + t,
            },
            (Index::Lanes(_), _) | (_, Index::Lanes(_)) => {
                let (a, b) = (self.index_lanes(a), self.index_lanes(b));
                Index::Lanes(self.add(a, b))
            }
            (
                Index::Scalar {
                    base,
                    stride: s,
                    divisor,
                },
                Index::Const { base: 0, stride: t },
            )
            | (
                Index::Const { base: 0, stride: t },
                Index::Scalar {
                    base,
                    stride: s,
                    divisor,
                },
            ) => Index::Scalar {
                base,
                stride: s + t,
                divisor,
            },
            (
                Index::Const { stride: s, .. } | Index::Scalar { stride: s, .. },
                Index::Const { stride: t, .. } | Index::Scalar { stride: t, .. },
            ) => {
                let (p, q) = (self.index_base(a), self.index_base(b));
                Index::Scalar {
                    base: self.add(p, q),
                    stride: s + t,
                    divisor: a.divisor().min(b.divisor()),
                }
            }
        }
    }

    /// `a + k`
    pub fn index_offset(&self, a: Index<'c>, k: i64) -> Index<'c> {
        self.index_add(a, Index::constant(k))
    }

    /// `a * k`
    pub fn index_scale(&self, a: Index<'c>, k: i64) -> Index<'c> {
        match a {
            _ if k == 1 => a,
            _ if k == 0 => Index::constant(0),
            Index::Const { base, stride } => Index::Const {
                base: base * k,
                stride: stride * k,
            },
            Index::Scalar {
                base,
                stride,
                divisor,
            } => {
                let factor = self.index(k);
                Index::Scalar {
                    base: self.mul(base, factor),
                    stride: stride * k,
                    divisor: power_of_two_in(divisor * power_of_two_in(k)),
                }
            }
            Index::Lanes(v) => {
                let factor = self.index(k);
                Index::Lanes(self.mul(v, factor))
            }
        }
    }

    /// `(a / k, a % k == 0)`, unsigned. An index that is negative gives a huge quotient, which a later
    /// [`Emitter::index_below`] rejects.
    pub fn index_divide(&self, a: Index<'c>, k: i64) -> (Index<'c>, Option<Val<'c>>) {
        if k == 1 {
            return (a, None);
        }
        let v = self.index_value(a);
        let (factor, zero) = (self.index(k), self.index(0));
        let (quotient, rest) = (self.div(v, factor), self.rem(v, factor));
        let exact = self.compare(Compare::Eq, rest, zero);
        (Index::uniform(quotient), Some(exact))
    }

    /// `(a / k, a % k)` of an index that is not negative.
    pub fn index_split(&self, a: Index<'c>, k: i64) -> (Index<'c>, Index<'c>) {
        match a {
            _ if k == 1 => return (a, Index::constant(0)),
            Index::Const { base, stride: 0 } => {
                return (Index::constant(base / k), Index::constant(base % k));
            }
            // No multiple of k lies inside a whole vector.
            Index::Const { base, stride } if self.is_inside(a, k) => {
                let rest = Index::Const {
                    base: base % k,
                    stride,
                };
                return (Index::constant(base / k), rest);
            }
            Index::Scalar {
                base,
                stride,
                divisor,
            } if self.is_inside(a, k) => {
                let factor = self.index(k);
                let rest = Index::Scalar {
                    base: self.rem(base, factor),
                    stride,
                    divisor: divisor.min(power_of_two_in(k)),
                };
                return (Index::uniform(self.div(base, factor)), rest);
            }
            _ => {}
        }
        let v = self.index_value(a);
        let factor = self.index(k);
        let (quotient, rest) = (self.div(v, factor), self.rem(v, factor));
        (Index::uniform(quotient), Index::uniform(rest))
    }

    /// Whether all lanes of a GPU's thread have the same quotient by `k`.
    fn is_inside(&self, a: Index<'c>, k: i64) -> bool {
        self.is_device() && a.is_whole_vector(self.lanes()) && k % self.lanes() as i64 == 0
    }

    /// `0 <= a < limit`, in one unsigned comparison.
    pub fn index_below(&self, a: Index<'c>, limit: i64) -> Val<'c> {
        let v = self.index_value(a);
        let limit = self.index(limit);
        self.compare(Compare::Below, v, limit)
    }

    /// Both conditions; None is true.
    pub fn both(&self, a: Option<Val<'c>>, b: Option<Val<'c>>) -> Option<Val<'c>> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.and(a, b)),
            (a, b) => a.or(b),
        }
    }
}
