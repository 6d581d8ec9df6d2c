//! The one-dimensional transforms of a 3-tap convolution of stride 2: the even inputs meet the outer taps, which is
//! F(4, 2) on the points 0, 1, -1, 2 and infinity, and the odd ones the middle tap alone. Nine values for four outputs: the
//! five points, then the four odd inputs.
//!
//! The gradient for the input is the same with inputs and outputs exchanged: an odd element of it comes from two
//! neighbours, an even one from one (for a padding of 1).

use super::transform::{scaled, times};
use crate::emit::{Emitter, Val};

/// Points of F(4, 2).
const POINTS: usize = 5;

/// `B' d` of F(4, 2): 5 inputs to 5 points.
fn points<'c>(e: &Emitter<'c>, d: [Val<'c>; 5]) -> Vec<Val<'c>> {
    let (far, near) = (e.sub(d[3], d[1]), e.sub(d[3], d[2]));
    vec![
        times(e, 2.0, e.sub(d[0], d[2]), far),
        times(e, -2.0, d[1], near),
        times(e, 2.0, e.sub(d[1], d[2]), near),
        far,
        times(e, -2.0, far, e.sub(d[4], d[2])),
    ]
}

/// `A' m` of F(4, 2): 5 points to 4 outputs.
fn sums<'c>(e: &Emitter<'c>, m: &[Val<'c>]) -> [Val<'c>; 4] {
    let (sum, difference) = (e.add(m[1], m[2]), e.sub(m[1], m[2]));
    [
        e.add(e.add(m[0], sum), m[3]),
        times(e, 2.0, m[3], difference),
        times(e, 4.0, m[3], sum),
        e.add(times(e, 8.0, m[3], difference), m[4]),
    ]
}

/// 9 inputs to 9 values.
pub fn input<'c>(e: &Emitter<'c>, d: &[Val<'c>]) -> Vec<Val<'c>> {
    let mut values = points(e, [d[0], d[2], d[4], d[6], d[8]]);
    values.extend([d[1], d[3], d[5], d[7]]);
    values
}

/// 9 values to 4 outputs.
pub fn output<'c>(e: &Emitter<'c>, m: &[Val<'c>]) -> Vec<Val<'c>> {
    let even = sums(e, &m[..POINTS]);
    even.iter()
        .zip(&m[POINTS..])
        .map(|(&a, &b)| e.add(a, b))
        .collect()
}

/// 5 gradients of outputs to 9 values.
pub fn input_backward<'c>(e: &Emitter<'c>, d: &[Val<'c>]) -> Vec<Val<'c>> {
    let mut values = points(e, [d[0], d[1], d[2], d[3], d[4]]);
    values.extend(&d[..4]);
    values
}

/// 9 values to 8 gradients of inputs.
pub fn output_backward<'c>(e: &Emitter<'c>, m: &[Val<'c>]) -> Vec<Val<'c>> {
    let odd = sums(e, &m[..POINTS]);
    m[POINTS..]
        .iter()
        .zip(odd)
        .flat_map(|(&even, odd)| [even, odd])
        .collect()
}

/// 3 taps to 5 points, and the middle tap.
pub fn filter<'c>(e: &Emitter<'c>, g: &[Val<'c>]) -> Vec<Val<'c>> {
    vec![
        scaled(e, 0.5, g[0]),
        scaled(e, -0.5, e.add(g[0], g[2])),
        scaled(e, -1.0 / 6.0, e.sub(g[0], g[2])),
        scaled(e, 1.0 / 6.0, times(e, 2.0, g[2], g[0])),
        g[2],
        g[1],
    ]
}

/// 4 gradients of outputs to 9 values; the adjoint of [`output`].
pub fn output_adjoint<'c>(e: &Emitter<'c>, y: &[Val<'c>]) -> Vec<Val<'c>> {
    let (even, odd) = (e.add(y[0], y[2]), e.add(y[1], y[3]));
    let (even2, odd2) = (
        times(e, 4.0, y[2], y[0]),
        times(e, 8.0, y[3], scaled(e, 2.0, y[1])),
    );
    let mut values = vec![y[0], e.add(even, odd), e.sub(even, odd), e.add(even2, odd2), y[3]];
    values.extend(y);
    values
}

/// 5 points and the middle tap to gradients of 3 taps; the adjoint of [`filter`].
pub fn filter_adjoint<'c>(e: &Emitter<'c>, m: &[Val<'c>]) -> Vec<Val<'c>> {
    let sixth = |v: Val<'c>, more: Val<'c>| times(e, 1.0 / 6.0, v, more);
    let third = times(e, 1.0 / 3.0, m[3], scaled(e, 1.0 / 6.0, m[2]));
    vec![
        sixth(e.sub(m[3], m[2]), scaled(e, 0.5, e.sub(m[0], m[1]))),
        m[5],
        e.add(times(e, -0.5, m[1], m[4]), third),
    ]
}
