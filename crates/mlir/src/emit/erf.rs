//! The error function and what is made of it.
//!
//! For `x >= 0`, `erfc(x) = exp(-x^2) * p(t) / (x + 3)` with `t = (x - 3) / (x + 3)`, which takes all `x` to -1..1.
//! `p` is the polynomial through the Chebyshev nodes of `erfc(x) * exp(x^2) * (x + 3)`, computed with 60 digits; its
//! terms beyond the last one kept sum up to 1e-17 (f64) and 6e-9 (f32). The rounding error of `x^2` goes into the
//! exponential, so that small values have their digits too: the error is below 4 units in the last place.

use syncbn_ir::ops::GELU_CUBIC;

use super::arith::Compare;
use super::{Elem, Emitter, Val};

/// Coefficients of `p` for f64, the constant first.
const F64: [f64; 25] = [
    1.0740069070883398,
    -0.8833944531698834,
    0.5902283571041017,
    -0.3104672619005836,
    0.11952776128729657,
    -0.026827234624041664,
    -0.0012124166273809992,
    0.0030340619959404215,
    -0.000548309689252168,
    -0.0002767778132333872,
    0.00010756146675383789,
    3.03980483596444e-05,
    -1.747047597754263e-05,
    -4.749019807941394e-06,
    2.7651479916016476e-06,
    9.988024518234282e-07,
    -4.0756884426822985e-07,
    -2.3383735980435184e-07,
    4.565470037225715e-08,
    5.117094154651631e-08,
    -7.153751145495182e-10,
    -8.68917229673563e-09,
    -1.0795037278510775e-09,
    8.102668624003257e-10,
    1.8102815683637526e-10,
];

/// Coefficients of `p` for f32, the constant first.
const F32: [f64; 12] = [
    1.0740069125081804,
    -0.8833944518416128,
    0.5902279660047566,
    -0.3104673577902075,
    0.11953237679033603,
    -0.0268261005191854,
    -0.0012325827531790546,
    0.0030290836852934675,
    -0.0005076097819249036,
    -0.0002666347703907909,
    6.773367487365605e-05,
    2.025413201689923e-05,
];

/// `2 * sqrt(2/pi)`
const TWICE_ROOT_2_OVER_PI: f64 = std::f64::consts::FRAC_1_SQRT_2 * std::f64::consts::FRAC_2_SQRT_PI * 2.0;

/// `erfc(x)` and `exp(-x^2)` of one `x >= 0`.
struct Tail<'c> {
    share: Val<'c>,
    density: Val<'c>,
}

impl<'c> Emitter<'c> {
    /// `erf(x)`; near 0 the Taylor polynomial, so that small results have all their digits.
    pub fn erf(&self, x: Val<'c>) -> Val<'c> {
        let elem = x.elem;
        let size = self.magnitude(x);
        let one = self.float(elem, 1.0);
        let tail = self.erfc(size, size, 1.0);
        let far = self.sub(one, tail.share);
        let minus = self.neg(far);
        let zero = self.float(elem, 0.0);
        let negative = self.compare(Compare::Lt, x, zero);
        let far = self.select(negative, minus, far);
        let square = self.mul(x, x);
        let near = self.erf_series(square);
        let near = self.mul(x, near);
        let half = self.float(elem, 0.5);
        let is_near = self.compare(Compare::Lt, size, half);
        self.select(is_near, near, far)
    }

    /// `erf(x) / x` for `|x| < 1/2`: the sum of `2/sqrt(pi) * (-x^2)^i / (i! (2i + 1))`.
    fn erf_series(&self, square: Val<'c>) -> Val<'c> {
        let elem = square.elem;
        let terms = if elem == Elem::F32 { 6 } else { 13 };
        let factor = |i: i32| {
            let factorial: f64 = (1..=i).map(f64::from).product();
            let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
            sign * std::f64::consts::FRAC_2_SQRT_PI / (factorial * f64::from(2 * i + 1))
        };
        let mut p = self.float(elem, factor(terms - 1));
        for i in (0..terms - 1).rev() {
            let coefficient = self.float(elem, factor(i));
            p = self.fma(p, square, coefficient);
        }
        p
    }

    /// `2/sqrt(pi) * exp(-x^2)`
    pub fn erf_slope(&self, x: Val<'c>) -> Val<'c> {
        let size = self.magnitude(x);
        let tail = self.erfc(size, size, 1.0);
        let factor = self.float(x.elem, std::f64::consts::FRAC_2_SQRT_PI);
        self.mul(tail.density, factor)
    }

    /// The share of the standard normal distribution below `x`, and its density at `x`.
    fn normal(&self, x: Val<'c>) -> (Val<'c>, Val<'c>) {
        let elem = x.elem;
        let (zero, one) = (self.float(elem, 0.0), self.float(elem, 1.0));
        let half = self.float(elem, 0.5);
        let size = self.magnitude(x);
        let root = self.float(elem, std::f64::consts::FRAC_1_SQRT_2);
        let scaled = self.mul(size, root);
        let tail = self.erfc(scaled, size, 0.5);
        let below = self.mul(tail.share, half);
        let above = self.sub(one, below);
        let positive = self.compare(Compare::Gt, x, zero);
        let share = self.select(positive, above, below);
        let factor = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2 / 2.0;
        let factor = self.float(elem, factor);
        (share, self.mul(tail.density, factor))
    }

    /// `x / 2 * (1 + erf(x / sqrt(2)))`
    pub fn gelu(&self, x: Val<'c>) -> Val<'c> {
        let (share, _) = self.normal(x);
        self.mul(x, share)
    }

    /// The derivative of [`Emitter::gelu`].
    pub fn gelu_slope(&self, x: Val<'c>) -> Val<'c> {
        let (share, density) = self.normal(x);
        self.fma(x, density, share)
    }

    /// `x * s` with `s = sigmoid(2u)`, which is `(1 + tanh(u)) / 2`, and `u = sqrt(2/pi) * (x + 0.044715 x^3)`.
    pub fn gelu_tanh(&self, x: Val<'c>) -> Val<'c> {
        let (share, _) = self.gelu_gate(x);
        self.mul(x, share)
    }

    /// The derivative of [`Emitter::gelu_tanh`]: `s + x * s * (1 - s) * 2u'`.
    pub fn gelu_tanh_slope(&self, x: Val<'c>) -> Val<'c> {
        let elem = x.elem;
        let (share, square) = self.gelu_gate(x);
        let one = self.float(elem, 1.0);
        let rest = self.sub(one, share);
        let slope = self.mul(share, rest);
        let slope = self.mul(slope, x);
        let cubic = self.float(elem, 3.0 * GELU_CUBIC);
        let inner = self.fma(square, cubic, one);
        let factor = self.float(elem, TWICE_ROOT_2_OVER_PI);
        let inner = self.mul(inner, factor);
        self.fma(slope, inner, share)
    }

    /// `sigmoid(2u)` and `x^2`. From 64 on the sigmoid is 0 or 1, and infinite powers would make no number of it.
    fn gelu_gate(&self, x: Val<'c>) -> (Val<'c>, Val<'c>) {
        let elem = x.elem;
        let (low, high) = (self.float(elem, -64.0), self.float(elem, 64.0));
        let x = self.max(x, low);
        let x = self.min(x, high);
        let square = self.mul(x, x);
        let (cubic, one) = (self.float(elem, GELU_CUBIC), self.float(elem, 1.0));
        let inner = self.fma(square, cubic, one);
        let factor = self.float(elem, TWICE_ROOT_2_OVER_PI);
        let scaled = self.mul(x, factor);
        let twice = self.mul(scaled, inner);
        (self.sigmoid(twice), square)
    }

    fn magnitude(&self, x: Val<'c>) -> Val<'c> {
        let minus = self.neg(x);
        let size = self.max(x, minus);
        // From here on the exponential is 0; infinity would make the polynomial's argument no number.
        let bound = self.float(x.elem, 64.0);
        self.min(size, bound)
    }

    /// `erfc(x)` and `exp(-x^2)` for `x = y * sqrt(factor) >= 0`, where `factor` is a power of two: the square is
    /// taken of `y`, which carries no rounding error.
    fn erfc(&self, x: Val<'c>, y: Val<'c>, factor: f64) -> Tail<'c> {
        let elem = x.elem;
        let (zero, one) = (self.float(elem, 0.0), self.float(elem, 1.0));
        let (three, six) = (self.float(elem, 3.0), self.float(elem, -6.0));
        let shifted = self.add(x, three);
        let inverse = self.div(one, shifted);
        let t = self.fma(six, inverse, one);
        let coefficients: &[f64] = if elem == Elem::F32 { &F32 } else { &F64 };
        let mut p = zero;
        for &coefficient in coefficients.iter().rev() {
            let coefficient = self.float(elem, coefficient);
            p = self.fma(p, t, coefficient);
        }
        let minus = self.neg(y);
        let high = self.mul(y, minus);
        let rest = self.neg(high);
        let low = self.fma(y, minus, rest);
        let factor = self.float(elem, factor);
        let high = self.mul(high, factor);
        // exp(high + low) = exp(high) * (1 + low): the square of low is below half a unit.
        let low = self.fma(low, factor, one);
        let power = self.exp(high);
        let power = self.mul(power, low);
        // Below this `exp` stays at the smallest normal number.
        let least = self.float(elem, if elem == Elem::F32 { -87.0 } else { -708.0 });
        let vanishes = self.compare(Compare::Lt, high, least);
        let density = self.select(vanishes, zero, power);
        let share = self.mul(p, inverse);
        Tail {
            share: self.mul(share, density),
            density,
        }
    }
}
