//! The one-dimensional transforms of Winograd's minimal filtering F(4, 3) on six points
//! (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015), with common terms shared.
//!
//! A convolution's tile is `A'((G g G') * (B' d B))A` with `*` element by element; its gradient for the weights is the
//! adjoint, `G'((B' d B) * (A dy A'))G`. Those of stride 2 stand in [`super::polyphase`].

use crate::emit::{Emitter, Val};

/// Taps along an axis.
pub const TAPS: usize = 3;
/// Transformed taps along an axis.
pub const POINTS: usize = 6;

/// A transform of a vector.
pub type Transform<'c> = fn(&Emitter<'c>, &[Val<'c>]) -> Vec<Val<'c>>;

/// `c * a + b`
pub fn times<'c>(e: &Emitter<'c>, c: f64, a: Val<'c>, b: Val<'c>) -> Val<'c> {
    e.fma(e.float(a.elem, c), a, b)
}

/// `c * a`
pub fn scaled<'c>(e: &Emitter<'c>, c: f64, a: Val<'c>) -> Val<'c> {
    e.mul(a, e.float(a.elem, c))
}

/// The points are 0, `A`, `-A`, `B`, `-B` and infinity. With `A * B` about 1 no power of them is much larger than the
/// others, which halves the error that 1 and 2 have; both are exact in binary, and so is what `input` and `output` multiply by.
const A: f64 = 0.75;
const B: f64 = 1.5;
/// `A^2` and `B^2`.
const A2: f64 = A * A;
const B2: f64 = B * B;
/// What filters are divided by at `A` and at `B`: the derivative of `x (x^2 - A^2) (x^2 - B^2)`.
const AT_A: f64 = 2.0 * A2 * (A2 - B2);
const AT_B: f64 = 2.0 * B2 * (B2 - A2);

/// `B' d`: 6 inputs to 6 points.
pub fn input<'c>(e: &Emitter<'c>, d: &[Val<'c>]) -> Vec<Val<'c>> {
    let (even, odd) = (times(e, -B2, d[2], d[4]), times(e, -B2, d[1], d[3]));
    let (far, near) = (times(e, -A2, d[2], d[4]), times(e, -A2, d[1], d[3]));
    vec![
        times(e, A2 * B2, d[0], times(e, -(A2 + B2), d[2], d[4])),
        times(e, A, odd, even),
        times(e, -A, odd, even),
        times(e, B, near, far),
        times(e, -B, near, far),
        times(e, A2 * B2, d[1], times(e, -(A2 + B2), d[3], d[5])),
    ]
}

/// `A' m`: 6 points to 4 outputs.
pub fn output<'c>(e: &Emitter<'c>, m: &[Val<'c>]) -> Vec<Val<'c>> {
    let (sum1, difference1) = (e.add(m[1], m[2]), e.sub(m[1], m[2]));
    let (sum2, difference2) = (e.add(m[3], m[4]), e.sub(m[3], m[4]));
    vec![
        e.add(e.add(m[0], sum1), sum2),
        times(e, B, difference2, scaled(e, A, difference1)),
        times(e, B2, sum2, scaled(e, A2, sum1)),
        times(e, B2 * B, difference2, times(e, A2 * A, difference1, m[5])),
    ]
}

/// `G g`: 3 taps to 6 points.
pub fn filter<'c>(e: &Emitter<'c>, g: &[Val<'c>]) -> Vec<Val<'c>> {
    let pair = |point: f64, by: f64| {
        let even = times(e, 1.0 / by, g[0], scaled(e, point * point / by, g[2]));
        let odd = scaled(e, point / by, g[1]);
        [e.add(even, odd), e.sub(even, odd)]
    };
    let ([a, minus_a], [b, minus_b]) = (pair(A, AT_A), pair(B, AT_B));
    vec![scaled(e, 1.0 / (A2 * B2), g[0]), a, minus_a, b, minus_b, g[2]]
}

/// `A y`: 4 gradients of outputs to 6 points; the adjoint of [`output`].
pub fn output_adjoint<'c>(e: &Emitter<'c>, y: &[Val<'c>]) -> Vec<Val<'c>> {
    let pair = |point: f64| {
        let even = times(e, point * point, y[2], y[0]);
        let odd = times(e, point * point * point, y[3], scaled(e, point, y[1]));
        [e.add(even, odd), e.sub(even, odd)]
    };
    let ([a, minus_a], [b, minus_b]) = (pair(A), pair(B));
    vec![y[0], a, minus_a, b, minus_b, y[3]]
}

/// `G' m`: 6 points to gradients of 3 taps; the adjoint of [`filter`].
pub fn filter_adjoint<'c>(e: &Emitter<'c>, m: &[Val<'c>]) -> Vec<Val<'c>> {
    let (sum1, difference1) = (e.add(m[1], m[2]), e.sub(m[1], m[2]));
    let (sum2, difference2) = (e.add(m[3], m[4]), e.sub(m[3], m[4]));
    let both = |c1: f64, v1: Val<'c>, c2: f64, v2: Val<'c>| times(e, c1, v1, scaled(e, c2, v2));
    vec![
        times(e, 1.0 / (A2 * B2), m[0], both(1.0 / AT_A, sum1, 1.0 / AT_B, sum2)),
        both(A / AT_A, difference1, B / AT_B, difference2),
        e.add(m[5], both(A2 / AT_A, sum1, B2 / AT_B, sum2)),
    ]
}

/// A transform along both axes of a square `d[row][column]`.
pub fn both_axes<'c>(e: &Emitter<'c>, transform: Transform<'c>, d: &[Vec<Val<'c>>]) -> Vec<Vec<Val<'c>>> {
    let columns: Vec<Vec<Val<'c>>> = (0..d[0].len())
        .map(|j| transform(e, &d.iter().map(|row| row[j]).collect::<Vec<_>>()))
        .collect();
    (0..columns[0].len())
        .map(|i| transform(e, &columns.iter().map(|column| column[i]).collect::<Vec<_>>()))
        .collect()
}
