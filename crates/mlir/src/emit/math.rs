//! Elementary functions.

use syncbn_ir::ops::{BinaryFunction, UnaryFunction};

use super::arith::Compare;
use super::{Elem, Emitter, Val};

impl<'c> Emitter<'c> {
    /// `exp(x)`: `2^k * exp(r)` with `k = rint(x / ln 2)` and `|r| <= ln(2)/2`, where the Taylor polynomial of
    /// degree 7 (f32) or 13 (f64) is exact to half a unit in the last place. Results outside the normal range
    /// saturate at its ends; NaN stays NaN.
    pub fn exp(&self, x: Val<'c>) -> Val<'c> {
        let elem = x.elem;
        let (low, high, degree, bits, bias, mantissa) = match elem {
            Elem::F32 => (-87.0, 88.0, 7, Elem::I32, 127, 23),
            _ => (-708.0, 709.0, 13, Elem::I64, 1023, 52),
        };
        let x = self.min(self.max(x, self.float(elem, low)), self.float(elem, high));
        // In a sum with this number the last bits are those of an integer: of k, and of the exponent that 2^k has.
        let shift = self.float(elem, 1.5 * 2f64.powi(mantissa) + f64::from(bias));
        let shifted = self.fma(x, self.float(elem, std::f64::consts::LOG2_E), shift);
        let k = self.sub(shifted, shift);
        // ln 2 in two parts: the first has few enough bits that its product with k is exact.
        let (ln2_high, ln2_low) = match elem {
            Elem::F32 => (0.693_359_375, -2.121_944_400_546_905_8e-4),
            _ => (0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10),
        };
        let r = self.fma(k, self.float(elem, -ln2_high), x);
        let r = self.fma(k, self.float(elem, -ln2_low), r);
        let p = self.taylor(r, 0, degree);
        let power = self.shift_left(self.bitcast(shifted, bits), self.int(bits, i64::from(mantissa)));
        self.mul(p, self.bitcast(power, elem))
    }

    /// The sum of `r^(i - least) / i!` for `i` in `least..=degree`.
    fn taylor(&self, r: Val<'c>, least: i32, degree: i32) -> Val<'c> {
        let elem = r.elem;
        let mut factorial = (1..=degree).map(f64::from).product::<f64>();
        let mut p = self.float(elem, 1.0 / factorial);
        for i in (least..degree).rev() {
            factorial /= f64::from(i + 1);
            let coefficient = self.float(elem, 1.0 / factorial);
            p = self.fma(p, r, coefficient);
        }
        p
    }

    /// `tanh(x) = m / (m + 2)` with `m = exp(2x) - 1`, which near 0 is the Taylor polynomial without its 1, so
    /// that small results have all their digits.
    pub fn tanh(&self, x: Val<'c>) -> Val<'c> {
        let elem = x.elem;
        let degree = if elem == Elem::F32 { 7 } else { 13 };
        let (one, two) = (self.float(elem, 1.0), self.float(elem, 2.0));
        let twice = self.add(x, x);
        let power = self.exp(twice);
        let far = self.sub(power, one);
        let near = self.taylor(twice, 1, degree);
        let near = self.mul(twice, near);
        let bound = self.float(elem, std::f64::consts::LN_2 / 2.0);
        let minus_bound = self.float(elem, -std::f64::consts::LN_2 / 2.0);
        let below = self.compare(Compare::Lt, twice, bound);
        let above = self.compare(Compare::Gt, twice, minus_bound);
        let is_near = self.and(below, above);
        let m = self.select(is_near, near, far);
        let sum = self.add(m, two);
        self.div(m, sum)
    }

    /// `min(max(x, low), high)`; NaN stays NaN.
    fn clamp(&self, x: Val<'c>, low: f64, high: f64) -> Val<'c> {
        let (low, high) = (self.float(x.elem, low), self.float(x.elem, high));
        let below = self.compare(Compare::Lt, x, low);
        let above = self.compare(Compare::Gt, x, high);
        let y = self.select(above, high, x);
        self.select(below, low, y)
    }

    /// `ln(x)` of a normal positive f64: `k ln 2 + 2 artanh(s)` with `x = 2^k m`, `m` in `[3/4, 3/2)` and
    /// `s = (m - 1)/(m + 1)`, at most 1/5 in size, whose series is taken to `s^23`.
    pub fn log(&self, x: Val<'c>) -> Val<'c> {
        let elem = Elem::F64;
        let (three_quarters, one) = (0x3fe8_0000_0000_0000_u64, 0x3ff0_0000_0000_0000_u64);
        let bits = self.bitcast(x, Elem::I64);
        let (threshold, one_bits) = (
            self.int(Elem::I64, three_quarters as i64),
            self.int(Elem::I64, one as i64),
        );
        let above = self.sub(bits, threshold);
        let mantissa_bits = self.int(Elem::I64, 52);
        let k = self.binary("", "arith.shrsi", above, mantissa_bits);
        let whole = self.shift_left(k, mantissa_bits);
        let m = self.sub(bits, whole);
        let m = self.bitcast(m, elem);
        let one = self.bitcast(one_bits, elem);
        let (difference, sum) = (self.sub(m, one), self.add(m, one));
        let s = self.div(difference, sum);
        let square = self.mul(s, s);
        let mut series = self.float(elem, 1.0 / 23.0);
        for i in (0..11).rev() {
            let coefficient = self.float(elem, 1.0 / f64::from(2 * i + 1));
            series = self.fma(series, square, coefficient);
        }
        let twice = self.add(s, s);
        let log_m = self.mul(twice, series);
        let k = self.convert(k, elem);
        let ln2 = self.float(elem, std::f64::consts::LN_2);
        self.fma(k, ln2, log_m)
    }

    /// `sqrt(x)`
    pub fn sqrt(&self, x: Val<'c>) -> Val<'c> {
        self.op1("math.sqrt", &[x], (x.elem, x.lanes), &[])
    }

    /// `1 / (1 + exp(-x))`. A true division: processors disagree about the estimates that would be faster, and one executable
    /// gives the same bits on all of them.
    pub fn sigmoid(&self, x: Val<'c>) -> Val<'c> {
        let one = self.float(x.elem, 1.0);
        let sum = self.add(self.exp(self.neg(x)), one);
        self.div(one, sum)
    }

    /// A function of one number.
    pub fn unary(&self, function: UnaryFunction, x: Val<'c>) -> Val<'c> {
        let elem = x.elem;
        match function {
            UnaryFunction::Relu => {
                let zero = self.float(elem, 0.0);
                // An ordered comparison is false for NaN, which therefore passes through.
                let negative = self.compare(Compare::Le, x, zero);
                self.select(negative, zero, x)
            }
            UnaryFunction::Sigmoid => self.sigmoid(x),
            UnaryFunction::Silu => {
                let s = self.sigmoid(x);
                self.mul(x, s)
            }
            UnaryFunction::Clip { min, max } => self.clamp(x, min, max),
            UnaryFunction::HardSigmoid { alpha, beta } => {
                let (alpha, beta) = (self.float(elem, alpha), self.float(elem, beta));
                let y = self.fma(x, alpha, beta);
                self.clamp(y, 0.0, 1.0)
            }
            UnaryFunction::HardSwish => {
                let (sixth, half) = (self.float(elem, 1.0 / 6.0), self.float(elem, 0.5));
                let gate = self.fma(x, sixth, half);
                let gate = self.clamp(gate, 0.0, 1.0);
                self.mul(x, gate)
            }
            UnaryFunction::LeakyRelu { alpha } => {
                let (zero, alpha) = (self.float(elem, 0.0), self.float(elem, alpha));
                let positive = self.compare(Compare::Gt, x, zero);
                let scaled = self.mul(x, alpha);
                self.select(positive, x, scaled)
            }
            UnaryFunction::Tanh => self.tanh(x),
            UnaryFunction::Erf => self.erf(x),
            UnaryFunction::Gelu => self.gelu(x),
            UnaryFunction::GeluTanh => self.gelu_tanh(x),
            UnaryFunction::Neg => self.neg(x),
            UnaryFunction::Sqrt => self.sqrt(x),
            UnaryFunction::Rsqrt => {
                let one = self.float(elem, 1.0);
                let root = self.sqrt(x);
                self.div(one, root)
            }
        }
    }

    /// `dy * function'(x)`
    pub fn unary_backward(&self, function: UnaryFunction, x: Val<'c>, dy: Val<'c>) -> Val<'c> {
        let elem = x.elem;
        let zero = self.float(elem, 0.0);
        match function {
            UnaryFunction::Relu => {
                let positive = self.compare(Compare::Gt, x, zero);
                self.select(positive, dy, zero)
            }
            UnaryFunction::Sigmoid => {
                let one = self.float(elem, 1.0);
                let s = self.sigmoid(x);
                let rest = self.sub(one, s);
                let slope = self.mul(s, rest);
                self.mul(dy, slope)
            }
            UnaryFunction::Silu => {
                let one = self.float(elem, 1.0);
                let s = self.sigmoid(x);
                let rest = self.sub(one, s);
                let slope = self.fma(x, rest, one);
                let slope = self.mul(s, slope);
                self.mul(dy, slope)
            }
            UnaryFunction::Clip { min, max } => {
                let (min, max) = (self.float(elem, min), self.float(elem, max));
                let above = self.compare(Compare::Ge, x, min);
                let below = self.compare(Compare::Le, x, max);
                let inside = self.and(above, below);
                self.select(inside, dy, zero)
            }
            UnaryFunction::HardSigmoid { alpha, beta } => {
                let (alpha, beta) = (self.float(elem, alpha), self.float(elem, beta));
                let one = self.float(elem, 1.0);
                let y = self.fma(x, alpha, beta);
                let above = self.compare(Compare::Gt, y, zero);
                let below = self.compare(Compare::Lt, y, one);
                let inside = self.and(above, below);
                let slope = self.select(inside, alpha, zero);
                self.mul(dy, slope)
            }
            UnaryFunction::HardSwish => {
                let (third, half) = (self.float(elem, 1.0 / 3.0), self.float(elem, 0.5));
                let (low, high) = (self.float(elem, -3.0), self.float(elem, 3.0));
                let one = self.float(elem, 1.0);
                let slope = self.fma(x, third, half);
                let below = self.compare(Compare::Le, x, low);
                let above = self.compare(Compare::Ge, x, high);
                let slope = self.select(above, one, slope);
                let slope = self.select(below, zero, slope);
                self.mul(dy, slope)
            }
            UnaryFunction::LeakyRelu { alpha } => {
                let alpha = self.float(elem, alpha);
                let positive = self.compare(Compare::Gt, x, zero);
                let scaled = self.mul(dy, alpha);
                self.select(positive, dy, scaled)
            }
            UnaryFunction::Tanh => {
                let one = self.float(elem, 1.0);
                let y = self.tanh(x);
                let square = self.mul(y, y);
                let slope = self.sub(one, square);
                self.mul(dy, slope)
            }
            UnaryFunction::Erf => {
                let slope = self.erf_slope(x);
                self.mul(dy, slope)
            }
            UnaryFunction::Gelu => {
                let slope = self.gelu_slope(x);
                self.mul(dy, slope)
            }
            UnaryFunction::GeluTanh => {
                let slope = self.gelu_tanh_slope(x);
                self.mul(dy, slope)
            }
            UnaryFunction::Neg => self.neg(dy),
            UnaryFunction::Sqrt => {
                let half = self.float(elem, 0.5);
                let root = self.sqrt(x);
                let slope = self.div(half, root);
                self.mul(dy, slope)
            }
            UnaryFunction::Rsqrt => {
                let half = self.float(elem, -0.5);
                let root = self.sqrt(x);
                let cube = self.mul(x, root);
                let slope = self.div(half, cube);
                self.mul(dy, slope)
            }
        }
    }

    /// A function of two numbers.
    pub fn binary_function(&self, function: BinaryFunction, a: Val<'c>, b: Val<'c>) -> Val<'c> {
        match function {
            BinaryFunction::Add => self.add(a, b),
            BinaryFunction::Sub => self.sub(a, b),
            BinaryFunction::Mul => self.mul(a, b),
            BinaryFunction::Div => self.div(a, b),
        }
    }
}
