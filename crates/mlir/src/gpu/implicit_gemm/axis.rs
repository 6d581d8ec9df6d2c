//! One spatial axis of a gather: which source coordinate an output and a tap of the window read.

use crate::emit::ceil;

/// `source = i*stride + t*reach + start` for output `i < count` and tap `t < taps`; tap `t` is number
/// `first_tap + t*tap_stride` of the window, and output `i` stands at `i*spread + phase` of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Size of the source.
    pub source: i64,
    /// Number of outputs.
    pub count: i64,
    /// Source elements from one output to the next.
    pub stride: i64,
    /// Source elements from one tap to the next.
    pub reach: i64,
    /// Source element of output 0 and tap 0.
    pub start: i64,
    /// Number of taps.
    pub taps: i64,
    /// Tap 0 in the window.
    pub first_tap: i64,
    /// Taps of the window from one tap to the next.
    pub tap_stride: i64,
    /// Result elements from one output to the next.
    pub spread: i64,
    /// Result element of output 0.
    pub phase: i64,
}

/// A convolution along one spatial axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slide {
    /// Size of the input.
    pub input: i64,
    /// Size of the output.
    pub output: i64,
    /// Size of the window.
    pub taps: i64,
    /// Step between windows.
    pub stride: i64,
    /// Step between taps.
    pub dilation: i64,
    /// Padding before the input.
    pub pad: i64,
}

impl Axis {
    /// Whether every output and tap read inside the source.
    pub fn is_inside(&self) -> bool {
        let ends = [0, self.count - 1]
            .map(|i| [0, self.taps - 1].map(|t| self.start + i * self.stride + t * self.reach));
        self.taps > 0 && ends.iter().flatten().all(|&at| (0..self.source).contains(&at))
    }
}

impl Slide {
    /// Outputs gather the input: the forward pass, and the input's side of the gradient of the weights.
    pub fn forward(&self) -> Axis {
        Axis {
            source: self.input,
            count: self.output,
            stride: self.stride,
            reach: self.dilation,
            start: -self.pad,
            taps: self.taps,
            first_tap: 0,
            tap_stride: 1,
            spread: 1,
            phase: 0,
        }
    }

    /// Inputs gather the gradient of the output: one axis for each phase `a` of the input coordinate
    /// `stride*i + a`.
    pub fn backward(&self) -> Vec<Axis> {
        (0..self.phases()).map(|phase| self.phase(phase)).collect()
    }

    /// Number of phases.
    pub fn phases(&self) -> i64 {
        self.stride.min(self.input)
    }

    /// How taps come back from phase to phase.
    pub fn cycle(&self) -> Cycle {
        let (common, factor) = gcd(self.dilation, self.stride);
        let length = self.stride / common;
        Cycle {
            common,
            length,
            inverse: factor.rem_euclid(length),
        }
    }

    /// Whether kernels can compute with it in i32 (see [`Slide::phase`]).
    pub fn fits(&self) -> bool {
        let numbers = [self.stride, self.dilation, self.pad, self.input, self.taps];
        let products = [
            (self.stride + self.pad) * self.stride,
            self.stride + self.pad + self.stride * self.dilation,
            self.pad + self.input + self.taps * self.dilation,
        ];
        numbers.iter().all(|n| *n < 1 << 28) && products.iter().all(|n| *n < 1 << 28)
    }

    /// The axis of phase `a`. Output `o` reaches it with tap `r` where `stride*o = stride*i + a + pad - r*dilation`,
    /// so the taps of a phase are those with `stride | a + pad - r*dilation`: none, or every `length`-th from the first
    /// one, which solves `r * dilation/common = (a + pad)/common` modulo `length`.
    pub fn phase(&self, a: i64) -> Axis {
        let Cycle {
            common,
            length,
            inverse,
        } = self.cycle();
        let distance = a + self.pad;
        let first = distance / common * inverse % length;
        let taps = match distance % common {
            0 => more_or_less(self.taps, length, first),
            _ => 0,
        };
        // `dilation` is added and taken away again so that nothing negative is divided.
        let start = distance + self.stride * self.dilation - first * self.dilation;
        Axis {
            source: self.output,
            count: more_or_less(self.input, self.stride, a),
            stride: 1,
            reach: -(self.dilation / common),
            start: start / self.stride - self.dilation,
            taps,
            first_tap: first,
            tap_stride: length,
            spread: self.stride,
            phase: a,
        }
    }
}

/// How taps of a window come back from phase to phase of the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cycle {
    /// Greatest common divisor of stride and dilation.
    pub common: i64,
    /// Taps from one of a phase to the next.
    pub length: i64,
    /// Inverse of `dilation/common` modulo `length`.
    pub inverse: i64,
}

/// How many of `first`, `first + step`, ... are below `size`.
fn more_or_less(size: i64, step: i64, first: i64) -> i64 {
    let [more, limit] = split(size, step);
    if first < limit { more } else { more - 1 }
}

/// How many numbers below `size` one gets in steps of `step`: the first result where one starts below the second one,
/// and one less where one starts between that and `step`.
pub fn split(size: i64, step: i64) -> [i64; 2] {
    [ceil(size, step), (size - 1) % step + 1]
}

/// The greatest common divisor of `a` and `b`, and what `a` is multiplied by to give it modulo `b` (Euclid's extended
/// algorithm).
fn gcd(a: i64, b: i64) -> (i64, i64) {
    let (mut last, mut rest) = ((a, 1), (b, 0));
    while rest.0 != 0 {
        let quotient = last.0 / rest.0;
        (last, rest) = (rest, (last.0 - quotient * rest.0, last.1 - quotient * rest.1));
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of output and tap that the convolution has, found by definition.
    fn pairs(slide: &Slide) -> Vec<[i64; 3]> {
        let mut pairs = Vec::new();
        for output in 0..slide.output {
            for tap in 0..slide.taps {
                let input = output * slide.stride + tap * slide.dilation - slide.pad;
                if (0..slide.input).contains(&input) {
                    pairs.push([input, output, tap]);
                }
            }
        }
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn phases_have_every_pair_once() {
        let five = |i: i64, place: u32| 1 + i / 5_i64.pow(place) % 5;
        for i in 0..5_i64.pow(5) {
            let [stride, dilation, taps, pad] = [0, 1, 2, 3].map(|place| five(i, place));
            let (stride, pad, input) = (stride + stride / 5, pad - 1, [1, 2, 5, 9, 12][i as usize % 5]);
            let free = input + 2 * pad - dilation * (taps - 1) - 1;
            if free < 0 {
                continue;
            }
            let slide = Slide {
                input,
                output: free / stride + 1,
                taps,
                stride,
                dilation,
                pad,
            };
            let mut found = Vec::new();
            let mut written = Vec::new();
            for axis in slide.backward() {
                for i in 0..axis.count {
                    let input = i * axis.spread + axis.phase;
                    written.push(input);
                    for t in 0..axis.taps {
                        let output = i * axis.stride + t * axis.reach + axis.start;
                        if (0..axis.source).contains(&output) {
                            found.push([input, output, axis.first_tap + t * axis.tap_stride]);
                        }
                    }
                }
            }
            found.sort_unstable();
            written.sort_unstable();
            assert_eq!(found, pairs(&slide), "{slide:?}");
            assert_eq!(written, (0..input).collect::<Vec<i64>>(), "{slide:?}");
        }
    }
}
