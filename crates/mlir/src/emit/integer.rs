//! Arithmetic on indices of one lane, folded where both sides are constants.

use super::arith::Compare;
use super::{Emitter, Index, Val};

impl<'c> Emitter<'c> {
    fn folded(
        &self,
        name: &str,
        a: Index<'c>,
        b: Index<'c>,
        fold: impl FnOnce(i64, i64) -> i64,
    ) -> Index<'c> {
        if let (Index::Const { base: p, .. }, Index::Const { base: q, .. }) = (a, b) {
            return Index::constant(fold(p, q));
        }
        let (a, b) = (self.index_value(a), self.index_value(b));
        Index::uniform(self.binary("", name, a, b))
    }

    /// The sum of several indices.
    pub fn index_sum(&self, terms: &[Index<'c>]) -> Index<'c> {
        terms
            .iter()
            .fold(Index::constant(0), |sum, &term| self.index_add(sum, term))
    }

    /// `a - b`
    pub fn index_subtract(&self, a: Index<'c>, b: Index<'c>) -> Index<'c> {
        self.folded("arith.subi", a, b, |a, b| a - b)
    }

    /// `a / k` of an index that is not negative.
    pub fn index_quotient(&self, a: Index<'c>, k: i64) -> Index<'c> {
        match k {
            1 => a,
            _ => self.folded("arith.divui", a, Index::constant(k), |a, k| a / k),
        }
    }

    /// `a mod k` of an index that is not negative.
    pub fn index_remainder(&self, a: Index<'c>, k: i64) -> Index<'c> {
        match k {
            1 => Index::constant(0),
            _ => self.folded("arith.remui", a, Index::constant(k), |a, k| a % k),
        }
    }

    /// The bits in which two indices differ.
    pub fn index_xor(&self, a: Index<'c>, b: Index<'c>) -> Index<'c> {
        match (a, b) {
            (Index::Const { base: 0, .. }, other) | (other, Index::Const { base: 0, .. }) => other,
            _ => self.folded("arith.xori", a, b, |a, b| a ^ b),
        }
    }

    /// The smaller one of two indices that are not negative.
    pub fn index_least(&self, a: Index<'c>, b: Index<'c>) -> Index<'c> {
        self.folded("arith.minui", a, b, i64::min)
    }

    /// A comparison of two indices.
    pub fn index_compare(&self, how: Compare, a: Index<'c>, b: Index<'c>) -> Val<'c> {
        let (a, b) = (self.index_value(a), self.index_value(b));
        self.compare(how, a, b)
    }

    /// `condition ? a : b`
    pub fn index_select(&self, condition: Val<'c>, a: Index<'c>, b: Index<'c>) -> Index<'c> {
        let (a, b) = (self.index_value(a), self.index_value(b));
        Index::uniform(self.select(condition, a, b))
    }
}
