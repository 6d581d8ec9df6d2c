//! One spatial axis of a gather: which source coordinate an output and a tap of the window read.

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

    /// Whether outputs stand in the result one after the other.
    pub fn is_dense(&self) -> bool {
        self.spread == 1 && self.phase == 0
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
    /// `stride*i + a`. Output `o` reaches it with tap `r` where `stride*o = stride*i + a + pad - r*dilation`, so
    /// the taps of a phase are those with `stride | a + pad - r*dilation`: none, or every `stride/g`-th with
    /// `g = gcd(stride, dilation)`.
    pub fn backward(&self) -> Vec<Axis> {
        let common = gcd(self.stride, self.dilation);
        let phases = 0..self.stride.min(self.input);
        phases
            .map(|phase| {
                let distance = |tap: i64| phase + self.pad - tap * self.dilation;
                let mut reaching = (0..self.taps).filter(|&tap| distance(tap) % self.stride == 0);
                let first = reaching.next();
                Axis {
                    source: self.output,
                    count: (self.input - phase + self.stride - 1) / self.stride,
                    stride: 1,
                    reach: -(self.dilation / common),
                    start: distance(first.unwrap_or(0)).div_euclid(self.stride),
                    taps: first.map_or(0, |_| 1 + reaching.count() as i64),
                    first_tap: first.unwrap_or(0),
                    tap_stride: self.stride / common,
                    spread: self.stride,
                    phase,
                }
            })
            .collect()
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
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
        for (stride, dilation, taps, pad) in
            (0..256).map(|i| (1 + i % 4, 1 + i / 4 % 4, 1 + i / 16 % 4, i / 64))
        {
            let input = 9;
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
