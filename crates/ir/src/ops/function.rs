//! Functions of one or two numbers that elementwise operators apply.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use crate::attributes::Word;

/// A function of one number.
#[derive(Debug, Clone, Copy)]
pub enum UnaryFunction {
    /// `max(x, 0)`
    Relu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x * sigmoid(x)`
    Silu,
    /// `min(max(x, min), max)`; the derivative is 1 where `min <= x <= max`, else 0 (PyTorch)
    Clip {
        /// Lower bound.
        min: f64,
        /// Upper bound.
        max: f64,
    },
    /// `min(max(alpha * x + beta, 0), 1)`; the derivative is 0 where a bound is reached (PyTorch)
    HardSigmoid {
        /// Slope between the bounds.
        alpha: f64,
        /// Value at 0.
        beta: f64,
    },
    /// `x * min(max(x / 6 + 1/2, 0), 1)`; the derivative is 0 up to -3 and 1 from 3 (PyTorch)
    HardSwish,
    /// `x` where positive, else `alpha * x`; the derivative at 0 is `alpha` (PyTorch)
    LeakyRelu {
        /// Slope of what is not positive.
        alpha: f64,
    },
    /// `tanh(x)`
    Tanh,
    /// `2/sqrt(pi)` times the integral of `exp(-t^2)` over `t` from 0 to `x`
    Erf,
    /// `x` times the normal distribution's share below `x`: `x / 2 * (1 + erf(x / sqrt(2)))`
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`
    GeluTanh,
    /// `-x`
    Neg,
    /// `sqrt(x)`
    Sqrt,
    /// `1 / sqrt(x)`
    Rsqrt,
}

impl Word for UnaryFunction {
    fn to_word(&self) -> (String, Vec<f64>) {
        let (word, args) = match *self {
            UnaryFunction::Relu => ("relu", vec![]),
            UnaryFunction::Sigmoid => ("sigmoid", vec![]),
            UnaryFunction::Silu => ("silu", vec![]),
            UnaryFunction::Clip { min, max } => ("clip", vec![min, max]),
            UnaryFunction::HardSigmoid { alpha, beta } => ("hard_sigmoid", vec![alpha, beta]),
            UnaryFunction::HardSwish => ("hard_swish", vec![]),
            UnaryFunction::LeakyRelu { alpha } => ("leaky_relu", vec![alpha]),
            UnaryFunction::Tanh => ("tanh", vec![]),
            UnaryFunction::Erf => ("erf", vec![]),
            UnaryFunction::Gelu => ("gelu", vec![]),
            UnaryFunction::GeluTanh => ("gelu_tanh", vec![]),
            UnaryFunction::Neg => ("neg", vec![]),
            UnaryFunction::Sqrt => ("sqrt", vec![]),
            UnaryFunction::Rsqrt => ("rsqrt", vec![]),
        };
        (word.to_string(), args)
    }
    fn from_word(word: &str, args: &[f64]) -> Option<UnaryFunction> {
        match (word, args) {
            ("relu", []) => Some(UnaryFunction::Relu),
            ("sigmoid", []) => Some(UnaryFunction::Sigmoid),
            ("silu", []) => Some(UnaryFunction::Silu),
            ("clip", &[min, max]) => Some(UnaryFunction::Clip { min, max }),
            ("hard_sigmoid", &[alpha, beta]) => Some(UnaryFunction::HardSigmoid { alpha, beta }),
            ("hard_swish", []) => Some(UnaryFunction::HardSwish),
            ("leaky_relu", &[alpha]) => Some(UnaryFunction::LeakyRelu { alpha }),
            ("tanh", []) => Some(UnaryFunction::Tanh),
            ("erf", []) => Some(UnaryFunction::Erf),
            ("gelu", []) => Some(UnaryFunction::Gelu),
            ("gelu_tanh", []) => Some(UnaryFunction::GeluTanh),
            ("neg", []) => Some(UnaryFunction::Neg),
            ("sqrt", []) => Some(UnaryFunction::Sqrt),
            ("rsqrt", []) => Some(UnaryFunction::Rsqrt),
            _ => None,
        }
    }
}

impl UnaryFunction {
    /// Its value at `x`.
    pub fn value(self, x: f64) -> f64 {
        match self {
            // `f64::max` drops NaN, which frameworks propagate.
            UnaryFunction::Relu => {
                if x > 0.0 || x.is_nan() {
                    x
                } else {
                    0.0
                }
            }
            UnaryFunction::Sigmoid => sigmoid(x),
            UnaryFunction::Silu => x * sigmoid(x),
            UnaryFunction::Clip { min, max } => clamp(x, min, max),
            UnaryFunction::HardSigmoid { alpha, beta } => clamp(alpha * x + beta, 0.0, 1.0),
            UnaryFunction::HardSwish => x * clamp(x / 6.0 + 0.5, 0.0, 1.0),
            UnaryFunction::LeakyRelu { alpha } => {
                if x > 0.0 {
                    x
                } else {
                    alpha * x
                }
            }
            UnaryFunction::Tanh => x.tanh(),
            UnaryFunction::Erf => libm::erf(x),
            UnaryFunction::Gelu => x * normal_share(x),
            UnaryFunction::GeluTanh => 0.5 * x * (1.0 + gelu_angle(x).tanh()),
            UnaryFunction::Neg => -x,
            UnaryFunction::Sqrt => x.sqrt(),
            UnaryFunction::Rsqrt => 1.0 / x.sqrt(),
        }
    }

    /// Its derivative at `x`.
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            UnaryFunction::Relu => {
                if x > 0.0 {
                    1.0
                } else {
                    0.0
                }
            }
            UnaryFunction::Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
            UnaryFunction::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
            UnaryFunction::Clip { min, max } => {
                if (min..=max).contains(&x) {
                    1.0
                } else {
                    0.0
                }
            }
            UnaryFunction::HardSigmoid { alpha, beta } => {
                let y = alpha * x + beta;
                if y > 0.0 && y < 1.0 { alpha } else { 0.0 }
            }
            UnaryFunction::HardSwish => {
                if x <= -3.0 {
                    0.0
                } else if x < 3.0 {
                    x / 3.0 + 0.5
                } else {
                    1.0
                }
            }
            UnaryFunction::LeakyRelu { alpha } => {
                if x > 0.0 {
                    1.0
                } else {
                    alpha
                }
            }
            UnaryFunction::Tanh => 1.0 - x.tanh() * x.tanh(),
            UnaryFunction::Erf => FRAC_2_SQRT_PI * (-x * x).exp(),
            UnaryFunction::Gelu => {
                let density = 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI * (-0.5 * x * x).exp();
                normal_share(x) + x * density
            }
            UnaryFunction::GeluTanh => {
                let t = gelu_angle(x).tanh();
                let slope = FRAC_1_SQRT_2 * FRAC_2_SQRT_PI * (1.0 + 3.0 * GELU_CUBIC * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
            }
            UnaryFunction::Neg => -1.0,
            UnaryFunction::Sqrt => 0.5 / x.sqrt(),
            UnaryFunction::Rsqrt => -0.5 / (x * x.sqrt()),
        }
    }
}

/// `min(max(x, min), max)`; NaN stays NaN.
fn clamp(x: f64, min: f64, max: f64) -> f64 {
    if x < min {
        min
    } else if x > max {
        max
    } else {
        x
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Share of the standard normal distribution below `x`. The complement keeps the digits of small shares.
fn normal_share(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// Factor of the cubic term of the tanh form of gelu.
pub const GELU_CUBIC: f64 = 0.044715;

/// What the tanh form of gelu takes the tanh of; `sqrt(2/pi)` is `1/sqrt(2) * 2/sqrt(pi)`.
fn gelu_angle(x: f64) -> f64 {
    FRAC_1_SQRT_2 * FRAC_2_SQRT_PI * (x + GELU_CUBIC * x * x * x)
}

/// A function of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryFunction {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
}

impl Word for BinaryFunction {
    fn to_word(&self) -> (String, Vec<f64>) {
        let word = match self {
            BinaryFunction::Add => "add",
            BinaryFunction::Sub => "sub",
            BinaryFunction::Mul => "mul",
            BinaryFunction::Div => "div",
        };
        (word.to_string(), Vec::new())
    }
    fn from_word(word: &str, args: &[f64]) -> Option<BinaryFunction> {
        let all = [
            BinaryFunction::Add,
            BinaryFunction::Sub,
            BinaryFunction::Mul,
            BinaryFunction::Div,
        ];
        all.into_iter().find(|f| f.to_word().0 == word && args.is_empty())
    }
}

impl BinaryFunction {
    /// Its value.
    pub fn value(self, a: f64, b: f64) -> f64 {
        match self {
            BinaryFunction::Add => a + b,
            BinaryFunction::Sub => a - b,
            BinaryFunction::Mul => a * b,
            BinaryFunction::Div => a / b,
        }
    }
}
