//! The one-dimensional transforms of Winograd's minimal filtering F(4, 3) on the points 0, 1, -1, 2, -2 and infinity
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

/// `B' d`: 6 inputs to 6 points.
pub fn input<'c>(e: &Emitter<'c>, d: &[Val<'c>]) -> Vec<Val<'c>> {
    let (even, odd) = (times(e, -4.0, d[2], d[4]), times(e, -4.0, d[1], d[3]));
    let (far, near) = (e.sub(d[4], d[2]), e.sub(d[3], d[1]));
    vec![
        times(e, 4.0, d[0], times(e, -5.0, d[2], d[4])),
        e.add(even, odd),
        e.sub(even, odd),
        times(e, 2.0, near, far),
        times(e, -2.0, near, far),
        times(e, 4.0, d[1], times(e, -5.0, d[3], d[5])),
    ]
}

/// `A' m`: 6 points to 4 outputs.
pub fn output<'c>(e: &Emitter<'c>, m: &[Val<'c>]) -> Vec<Val<'c>> {
    let (sum1, difference1) = (e.add(m[1], m[2]), e.sub(m[1], m[2]));
    let (sum2, difference2) = (e.add(m[3], m[4]), e.sub(m[3], m[4]));
    vec![
        e.add(e.add(m[0], sum1), sum2),
        times(e, 2.0, difference2, difference1),
        times(e, 4.0, sum2, sum1),
        e.add(times(e, 8.0, difference2, difference1), m[5]),
    ]
}

/// `G g`: 3 taps to 6 points.
pub fn filter<'c>(e: &Emitter<'c>, g: &[Val<'c>]) -> Vec<Val<'c>> {
    let (outer, inner) = (
        scaled(e, -1.0 / 6.0, e.add(g[0], g[2])),
        scaled(e, 1.0 / 6.0, g[1]),
    );
    let far = times(e, 1.0 / 24.0, g[0], scaled(e, 1.0 / 6.0, g[2]));
    let near = scaled(e, 1.0 / 12.0, g[1]);
    vec![
        scaled(e, 0.25, g[0]),
        e.sub(outer, inner),
        e.add(outer, inner),
        e.add(far, near),
        e.sub(far, near),
        g[2],
    ]
}

/// `A y`: 4 gradients of outputs to 6 points; the adjoint of [`output`].
pub fn output_adjoint<'c>(e: &Emitter<'c>, y: &[Val<'c>]) -> Vec<Val<'c>> {
    let (even, odd) = (e.add(y[0], y[2]), e.add(y[1], y[3]));
    let (even2, odd2) = (
        times(e, 4.0, y[2], y[0]),
        times(e, 8.0, y[3], scaled(e, 2.0, y[1])),
    );
    vec![
        y[0],
        e.add(even, odd),
        e.sub(even, odd),
        e.add(even2, odd2),
        e.sub(even2, odd2),
        y[3],
    ]
}

/// `G' m`: 6 points to gradients of 3 taps; the adjoint of [`filter`].
pub fn filter_adjoint<'c>(e: &Emitter<'c>, m: &[Val<'c>]) -> Vec<Val<'c>> {
    let (sum1, difference1) = (e.add(m[1], m[2]), e.sub(m[2], m[1]));
    let (sum2, difference2) = (e.add(m[3], m[4]), e.sub(m[3], m[4]));
    let sixth = |v: Val<'c>, more: Val<'c>| times(e, -1.0 / 6.0, v, more);
    vec![
        times(e, 0.25, m[0], sixth(sum1, scaled(e, 1.0 / 24.0, sum2))),
        times(e, 1.0 / 6.0, difference1, scaled(e, 1.0 / 12.0, difference2)),
        e.add(m[5], sixth(sum1, scaled(e, 1.0 / 6.0, sum2))),
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
