//! A window sliding over one plane, for the reference evaluation of convolutions and pools.

use super::window::Window;

/// Outputs in a row, and the inputs that one element of the window (a tap) reads for them.
pub(super) struct Run {
    /// Row-major position in the window.
    pub tap: usize,
    input: usize,
    output: usize,
    count: usize,
    stride: usize,
}

impl Run {
    /// (input offset, output offset) of every output of the run.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (input, output, stride) = (self.input, self.output, self.stride);
        (0..self.count).map(move |j| (input + j * stride, output + j))
    }
}

/// All runs of a window over a plane of 1 to 3 axes, in the order of their taps. Inputs in the padding are in
/// no run.
pub(super) struct Slide {
    window: Window,
    input: Vec<usize>,
    /// Spatial sizes of the result.
    pub output: Vec<usize>,
    /// The runs.
    pub runs: Vec<Run>,
}

impl Slide {
    pub fn new(window: &Window, input: &[usize], ceil_mode: bool) -> Result<Slide, String> {
        let mut slide = Slide {
            window: window.clone(),
            input: input.to_vec(),
            output: window.output(input, ceil_mode)?,
            runs: Vec::new(),
        };
        slide.add_runs(0, 0, 0, 0);
        Ok(slide)
    }

    /// Elements of the plane.
    pub fn inputs(&self) -> usize {
        self.input.iter().product()
    }

    /// Elements of the result.
    pub fn outputs(&self) -> usize {
        self.output.iter().product()
    }

    /// Elements of the window.
    pub fn taps(&self) -> usize {
        self.window.volume()
    }

    /// The first and one past the last output of an axis for which tap `k` reads inside the plane, that is
    /// `0 <= o * stride + k * dilation - pad < input`.
    fn range(&self, axis: usize, k: usize) -> (usize, usize) {
        let (stride, pad) = (self.window.strides[axis], self.window.pad_begin(axis));
        let reach = k * self.window.dilations[axis];
        let begin = pad.saturating_sub(reach).div_ceil(stride);
        let end = (self.input[axis] + pad).saturating_sub(reach).div_ceil(stride);
        (begin, end.min(self.output[axis]))
    }

    /// Adds the runs for fixed taps, inputs and outputs of the axes before `axis`, given as row-major prefixes.
    fn add_runs(&mut self, axis: usize, tap: usize, input: usize, output: usize) {
        let (stride, pad) = (self.window.strides[axis], self.window.pad_begin(axis));
        for k in 0..self.window.kernel[axis] {
            let (begin, end) = self.range(axis, k);
            let tap = tap * self.window.kernel[axis] + k;
            let start = input * self.input[axis] + k * self.window.dilations[axis];
            let at = |o: usize| start + o * stride - pad;
            if axis + 1 < self.window.rank() {
                for o in begin..end {
                    let (input, output) = (at(o), output * self.output[axis] + o);
                    self.add_runs(axis + 1, tap, input, output);
                }
            } else if begin < end {
                let run = Run {
                    tap,
                    input: at(begin),
                    output: output * self.output[axis] + begin,
                    count: end - begin,
                    stride,
                };
                self.runs.push(run);
            }
        }
    }

    /// What an average divides by, for each output: the window's elements inside the plane or, with
    /// `include_pad`, inside the plane and its padding.
    pub fn divisors(&self, include_pad: bool) -> Vec<f64> {
        let mut divisors = vec![1.0];
        for axis in 0..self.window.rank() {
            let (begin, end) = match include_pad {
                true => (
                    0,
                    self.window.pad_begin(axis) + self.input[axis] + self.window.pad_end(axis),
                ),
                false => (
                    self.window.pad_begin(axis),
                    self.window.pad_begin(axis) + self.input[axis],
                ),
            };
            let count = |o: usize| {
                let at = |k: usize| o * self.window.strides[axis] + k * self.window.dilations[axis];
                let taps = 0..self.window.kernel[axis];
                taps.filter(|&k| (begin..end).contains(&at(k))).count() as f64
            };
            let counts: Vec<f64> = (0..self.output[axis]).map(count).collect();
            divisors = divisors
                .iter()
                .flat_map(|&d| counts.iter().map(move |&c| d * c))
                .collect();
        }
        divisors
    }
}
