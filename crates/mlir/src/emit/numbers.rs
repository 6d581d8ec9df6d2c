//! Numbers that a kernel's code leaves open: they come with a launch, so that one kernel serves many shapes.
//!
//! A kernel is planned with [`Number`]s before anything is emitted. The plan decides what the code is; two launches
//! with one plan and different values of its open numbers share a kernel.

use super::{Elem, Emitter, Index, Val};

/// A number in the plan of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Number {
    /// Part of the code.
    Fixed(i64),
    /// The launch's number at this place.
    Open(usize),
}

/// A number that indices are divided by.
///
/// For `0 <= x < 2^31`, `x / size = (high(x * multiplier) + x) >> shift`, where `high` is the upper word of a product
/// of two words: with `2^(shift - 1) < size <= 2^shift` and `multiplier = floor(2^32 (2^shift - size) / size) + 1`
/// (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994, figure 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Divisor<T> {
    /// The number.
    pub size: T,
    multiplier: T,
    shift: T,
}

impl Divisor<Index<'_>> {
    /// Whether it is known to be `value`.
    pub fn is(&self, value: i64) -> bool {
        matches!(self.size, Index::Const { base, .. } if base == value)
    }
}

/// The open numbers of one launch, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(Vec<i32>);

impl Numbers {
    /// A number that code leaves open.
    pub fn open(&mut self, value: i64) -> Number {
        // What does not fit is a multiplier, which is a word without sign.
        self.0.push(value as i32);
        Number::Open(self.0.len() - 1)
    }

    /// A number that code leaves open unless it is -1, 0 or 1: with these, code is shorter.
    pub fn number(&mut self, value: i64) -> Number {
        match value {
            -1..=1 => Number::Fixed(value),
            _ => self.open(value),
        }
    }

    /// A number that code leaves open unless it is 0.
    pub fn offset(&mut self, value: i64) -> Number {
        match value {
            0 => Number::Fixed(0),
            _ => self.open(value),
        }
    }

    /// A divisor, at least 1, that code leaves open unless it is 1.
    pub fn divisor(&mut self, size: i64) -> Divisor<Number> {
        match size {
            1 => Divisor {
                size: Number::Fixed(1),
                multiplier: Number::Fixed(1),
                shift: Number::Fixed(0),
            },
            _ => self.open_divisor(size),
        }
    }

    /// A divisor that code leaves open. One that may be 0 divides nothing then.
    pub fn open_divisor(&mut self, size: i64) -> Divisor<Number> {
        let (multiplier, shift) = reciprocal(size);
        Divisor {
            size: self.open(size),
            multiplier: self.open(multiplier),
            shift: self.open(shift),
        }
    }

    /// The numbers.
    pub fn values(&self) -> &[i32] {
        &self.0
    }
}

/// The multiplier and the shift of a [`Divisor`] between 1 and 2^30.
fn reciprocal(size: i64) -> (i64, i64) {
    let size = size.max(1);
    let shift = (size as u64).next_power_of_two().ilog2();
    ((((1 << shift) - size) << 32) / size + 1, i64::from(shift))
}

impl<'c> Emitter<'c> {
    /// Leaves so many numbers of the kernel under construction open.
    pub fn open_numbers(&self, count: usize) {
        let values = self.by_value(count);
        if let Some(mut device) = self.device_mut() {
            device.numbers = values;
        }
    }

    /// The words of a further parameter, which is passed by value.
    pub fn by_value(&self, count: usize) -> Vec<Val<'c>> {
        let pointer = self.add_parameter(Elem::ParameterPtr);
        (0..count as i64)
            .map(|i| {
                let i = self.index(i);
                let address = self.address(pointer, Elem::I32, i);
                self.load_scalar(address, Elem::I32)
            })
            .collect()
    }

    /// A number of the plan.
    pub fn number(&self, number: Number) -> Index<'c> {
        match (number, self.device()) {
            (Number::Fixed(value), _) => Index::constant(value),
            (Number::Open(i), Some(device)) => Index::uniform(device.numbers[i]),
            (Number::Open(_), None) => unreachable!("only kernels of a device have open numbers"),
        }
    }

    /// A divisor of the plan.
    pub fn divisor(&self, divisor: Divisor<Number>) -> Divisor<Index<'c>> {
        Divisor {
            size: self.number(divisor.size),
            multiplier: self.number(divisor.multiplier),
            shift: self.number(divisor.shift),
        }
    }

    /// `condition ? a : b`
    pub fn divisor_select(
        &self,
        condition: Val<'c>,
        a: &Divisor<Index<'c>>,
        b: &Divisor<Index<'c>>,
    ) -> Divisor<Index<'c>> {
        Divisor {
            size: self.index_select(condition, a.size, b.size),
            multiplier: self.index_select(condition, a.multiplier, b.multiplier),
            shift: self.index_select(condition, a.shift, b.shift),
        }
    }

    /// `(a / by, a % by)` of an index that is not negative.
    pub fn index_divide_by(&self, a: Index<'c>, by: &Divisor<Index<'c>>) -> (Index<'c>, Index<'c>) {
        if let Index::Const { base, .. } = by.size {
            return self.index_split(a, base);
        }
        if let Index::Const { base: 0, .. } = a {
            return (a, a);
        }
        let [x, multiplier, shift] = [a, by.multiplier, by.shift].map(|i| self.index_value(i));
        let [wide, factor] = [x, multiplier].map(|v| self.op1("arith.extui", &[v], (Elem::I64, 1), &[]));
        let product = self.mul(wide, factor);
        let word = self.int(Elem::I64, 32);
        let high = self.op1("arith.shrui", &[product, word], (Elem::I64, 1), &[]);
        let high = self.op1("arith.trunci", &[high], (Elem::I32, 1), &[]);
        let sum = self.add(high, x);
        let quotient = Index::uniform(self.op1("arith.shrui", &[sum, shift], (Elem::I32, 1), &[]));
        let whole = self.index_product(quotient, by.size);
        (quotient, self.index_subtract(a, whole))
    }

    /// `a * b`
    pub fn index_product(&self, a: Index<'c>, b: Index<'c>) -> Index<'c> {
        match (a, b) {
            (Index::Const { base, .. }, other) | (other, Index::Const { base, .. }) => {
                self.index_scale(other, base)
            }
            _ => {
                let (a, b) = (self.index_value(a), self.index_value(b));
                Index::uniform(self.mul(a, b))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocals_divide_exactly() {
        let near = |x: i64| [x - 1, x, x + 1];
        let sizes = (1..2000)
            .chain((0..30).flat_map(|i| near(1 << i)))
            .filter(|&n| n > 0);
        for size in sizes {
            let (multiplier, shift) = reciprocal(size);
            assert!((0..1 << 32).contains(&multiplier), "{size}");
            let most = (1 << 31) - 1;
            let multiples = [1, 2, 3, most / size / 2, most / size].map(|n| n * size);
            let values = multiples.into_iter().flat_map(near).chain([0, most]);
            for x in values.filter(|x| (0..=most).contains(x)) {
                let sum = ((x * multiplier) >> 32) + x;
                assert!(sum < 1 << 32, "{x} / {size}");
                assert_eq!(sum >> shift, x / size, "{x} / {size}");
            }
        }
    }
}
