//! A direction of a convolution, axis by axis, as sums over taps at constant distances.
//!
//! `target[out_start + j*out_step] += sum over t of source[(j*in_step + t*in_tap)*spread + in_start] * w[weight_start + t*weight_tap]`
//!
//! The result of a convolution is one such sum. The gradient for its input is one for each *phase*: each rest of a
//! target index by the stride, since only every so many taps meet it.

use crate::ops::Window;

/// One axis of one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Elements of the target that the phase makes.
    pub outputs: i64,
    /// The first of them.
    pub out_start: i64,
    /// From one to the next.
    pub out_step: i64,
    /// From what one reads to what the next one reads, in steps of `spread`.
    pub in_step: i64,
    /// Only every so many elements of the source are read by any: the stride, where there is a single tap.
    pub spread: i64,
    /// What the first one reads for its first tap; negative in the padding.
    pub in_start: i64,
    /// Number of taps.
    pub taps: i64,
    /// From one tap's element to the next one's.
    pub in_tap: i64,
    /// Index of the first tap in the weights.
    pub weight_start: i64,
    /// From one tap to the next in the weights.
    pub weight_tap: i64,
}

impl Axis {
    /// Whether each element of the target is made of the one element of the source that is at the same place.
    pub fn is_plain(&self) -> bool {
        let steps = [self.taps, self.in_step, self.spread, self.out_step];
        steps == [1; 4] && [self.in_start, self.out_start] == [0; 2]
    }
}

/// The three spatial axes of one phase: depth, height, width. Those that there are not have one element.
pub type Phase = [Axis; 3];

/// Sizes along three spatial axes, of which the last ones are those that there are.
pub fn three(sizes: &[i64]) -> [i64; 3] {
    let mut all = [1; 3];
    all[3 - sizes.len()..].copy_from_slice(sizes);
    all
}

/// An axis without a window.
const SINGLE: Axis = Axis {
    outputs: 1,
    out_start: 0,
    out_step: 1,
    in_step: 1,
    spread: 1,
    in_start: 0,
    taps: 1,
    in_tap: 1,
    weight_start: 0,
    weight_tap: 1,
};

/// The result of a convolution with `outputs` elements along each axis.
pub fn forward(window: &Window, outputs: &[i64]) -> Phase {
    let mut phase = [SINGLE; 3];
    let first = 3 - outputs.len();
    for (i, &outputs) in outputs.iter().enumerate() {
        let stride = window.strides[i] as i64;
        let (in_step, spread) = match window.kernel[i] {
            1 => (1, stride),
            _ => (stride, 1),
        };
        phase[first + i] = Axis {
            outputs,
            in_step,
            spread,
            in_start: -(window.pad_begin(i) as i64),
            taps: window.kernel[i] as i64,
            in_tap: window.dilations[i] as i64,
            ..SINGLE
        };
    }
    phase
}

/// The gradient for the input, which has `inputs` elements along each axis: its phases.
pub fn backward_data(window: &Window, inputs: &[i64]) -> Vec<Phase> {
    let mut phases = vec![[SINGLE; 3]];
    let first = 3 - inputs.len();
    for (i, &inputs) in inputs.iter().enumerate() {
        let stride = window.strides[i] as i64;
        let starts = 0..stride.min(inputs);
        phases = phases
            .iter()
            .flat_map(|phase| {
                starts.clone().map(move |start| {
                    let mut phase = *phase;
                    phase[first + i] = backward_axis(window, i, inputs, start);
                    phase
                })
            })
            .collect();
    }
    phases
}

fn backward_axis(window: &Window, i: usize, inputs: i64, start: i64) -> Axis {
    let (stride, dilation) = (window.strides[i] as i64, window.dilations[i] as i64);
    let reach = |tap: i64| start + window.pad_begin(i) as i64 - tap * dilation;
    let taps: Vec<i64> = (0..window.kernel[i] as i64)
        .filter(|&tap| reach(tap).rem_euclid(stride) == 0)
        .collect();
    // Taps are taken from the last one, so that what they read goes forward.
    let last = taps.last().copied().unwrap_or(0);
    let step = match taps[..] {
        [first, second, ..] => second - first,
        _ => 1,
    };
    Axis {
        outputs: (inputs - start - 1) / stride + 1,
        out_start: start,
        out_step: stride,
        in_step: 1,
        spread: 1,
        in_start: reach(last).div_euclid(stride),
        taps: taps.len() as i64,
        in_tap: dilation * step / stride,
        weight_start: last,
        weight_tap: -step,
    }
}

impl Axis {
    /// What the first output reads for its last tap.
    fn reach(&self) -> i64 {
        self.in_start + (self.taps - 1).max(0) * self.in_tap
    }
}

/// The range of elements that phases read along an axis for their first output: its first element, and how many.
pub fn span(phases: &[Phase], axis: usize) -> (i64, i64) {
    let least = phases.iter().map(|p| p[axis].in_start).min().unwrap_or(0);
    let most = phases.iter().map(|p| p[axis].reach()).max().unwrap_or(0);
    (least, most - least + 1)
}

/// The copy of some rows of an image with its padding, channels innermost, that register tiles read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panel {
    /// First element along each axis that the first output reads.
    pub least: [i64; 3],
    /// Depth, height and width.
    pub sizes: [i64; 3],
    /// Elements from one column to the next.
    pub column: i64,
}

/// Where columns that begin at a multiple of this many bytes would all lie in the same few sets of a cache.
const ALIASES: i64 = 1024;
/// Bytes of a cache line.
const LINE: i64 = 64;

impl Panel {
    /// What `rows` rows of outputs of these phases read of an image of `channels` channels of `bytes` bytes.
    pub fn new(phases: &[Phase], rows: i64, channels: i64, bytes: i64) -> Panel {
        let (mut least, mut sizes) = ([0; 3], [1; 3]);
        let steps = [0, 1, 2].map(|axis| phases.first().map_or(1, |p| p[axis].in_step));
        let turns = [1, rows, most(phases, 2)];
        for axis in 0..3 {
            let reach;
            (least[axis], reach) = span(phases, axis);
            let between = (turns[axis] - 1).saturating_mul(steps[axis]);
            sizes[axis] = between.saturating_add(reach);
        }
        let mut column = channels;
        if column.saturating_mul(steps[2]).saturating_mul(bytes) % ALIASES == 0 {
            column += LINE / bytes;
        }
        Panel { least, sizes, column }
    }

    /// Elements of the copy; the largest number where that overflows. Nothing is computed from copies of more than
    /// [`super::MOST_COPIED`] bytes, whose other sizes therefore do not overflow.
    pub fn elements(&self) -> i64 {
        let sizes = self.sizes.iter();
        sizes.fold(self.column, |all, &size| all.saturating_mul(size))
    }

    /// Elements from one row to the next.
    pub fn row(&self) -> i64 {
        self.column * self.sizes[2]
    }

    /// Elements from one slice to the next.
    pub fn slice(&self) -> i64 {
        self.row() * self.sizes[1]
    }

    /// Elements from the beginning to what the first output of the block reads for the first tap of a phase.
    pub fn start(&self, phase: &Phase) -> i64 {
        let [z, y, x] = [0, 1, 2].map(|axis| phase[axis].in_start - self.least[axis]);
        z * self.slice() + y * self.row() + x * self.column
    }
}

/// The most outputs along an axis that a phase has.
pub fn most(phases: &[Phase], axis: usize) -> i64 {
    phases.iter().map(|p| p[axis].outputs).max().unwrap_or(1)
}

/// Slices of a sample, and blocks of up to `rows` rows in each slice, of what phases make.
pub fn blocks(phases: &[Phase], rows: i64) -> [i64; 2] {
    let all = most(phases, 1).max(1);
    [most(phases, 0), (all - 1) / rows.clamp(1, all) + 1]
}

/// Bytes of a copy of rows that leave the second cache room for what is computed.
const COPY: i64 = 256 << 10;
/// How many times as many rows may be copied as are new, before a larger copy costs less than copying again.
const AGAIN: i64 = 4;

/// Rows of outputs that a depthwise convolution computes from one copy of what it reads: as many as the second cache has
/// room for; or, where that copies most rows again and again, because windows are high, so many that few are copied twice.
pub fn rows_of_copy(phases: &[Phase], channels: i64, bytes: i64) -> i64 {
    let rows = most(phases, 1);
    let copied = |rows: i64| Panel::new(phases, rows, channels, bytes);
    let fits = |rows: i64, most: i64| copied(rows).elements().saturating_mul(bytes) <= most;
    let near = (1..=rows).rev().find(|&rows| fits(rows, COPY)).unwrap_or(1);
    let step = phases.first().map_or(1, |p| p[1].in_step);
    let again = |rows: i64, times: i64| copied(rows).sizes[1] > (rows * times).saturating_mul(step);
    if !again(near, AGAIN) {
        return near;
    }
    let far = (near..=rows).find(|&rows| !again(rows, 2)).unwrap_or(rows);
    (near..=far)
        .rev()
        .find(|&rows| fits(rows, super::MOST_COPIED))
        .unwrap_or(near)
}

/// Positions that a block has at least for which sums of what it stores are kept: fewer would take as much memory as what
/// is stored.
const LEAST_POSITIONS: i64 = 16;

/// Whether a convolution keeps sums of what each block of so many rows stores.
pub fn leaves_moments(phases: &[Phase], rows: i64) -> bool {
    let [slices, of_slice] = blocks(phases, rows);
    let positions = rows
        .clamp(1, most(phases, 1).max(1))
        .saturating_mul(most(phases, 2));
    slices.saturating_mul(of_slice) == 1 || positions >= LEAST_POSITIONS
}

/// Samples that are computed together where a block has so many rows: several, if it has more than a sample's one slice.
pub fn samples_of_block(phases: &[Phase], rows: i64) -> i64 {
    match most(phases, 0) {
        1 => (rows / most(phases, 1).max(1)).max(1),
        _ => 1,
    }
}

/// Whether rows are so short that register tiles of `pixels` positions had better cross their ends.
pub fn is_short(width: i64, pixels: i64) -> bool {
    width < 2 * pixels
}

/// Sizes of input and output: those of one axis where the window takes single elements and rows are short.
pub fn flattened(
    window: &Window,
    inputs: &[i64],
    outputs: &[i64],
    pixels: i64,
) -> (Window, Vec<i64>, Vec<i64>) {
    let ones = |v: &[usize]| v.iter().all(|&n| n == 1);
    let single = ones(&window.kernel) && ones(&window.strides) && window.pads.iter().all(|&p| p == 0);
    match outputs.last() {
        Some(&width) if single && is_short(width, pixels) && outputs.len() > 1 => {
            let one = Window {
                kernel: vec![1],
                strides: vec![1],
                pads: vec![0, 0],
                dilations: vec![1],
            };
            (one, vec![inputs.iter().product()], vec![outputs.iter().product()])
        }
        _ => (window.clone(), inputs.to_vec(), outputs.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_hold_every_tap_of_every_element_once() {
        for (kernel, stride, dilation, pad, inputs) in [
            (3, 1, 1, 1, 8),
            (3, 2, 1, 1, 9),
            (4, 3, 2, 2, 11),
            (1, 2, 1, 0, 5),
            (2, 4, 3, 1, 13),
            (5, 4, 6, 0, 40),
        ] {
            let window = Window {
                kernel: vec![kernel],
                strides: vec![stride],
                pads: vec![pad, pad],
                dilations: vec![dilation],
            };
            let mut found = Vec::new();
            for phase in backward_data(&window, &[inputs]) {
                let axis = phase[2];
                for j in 0..axis.outputs {
                    for t in 0..axis.taps {
                        let target = axis.out_start + j * axis.out_step;
                        let source = j * axis.in_step + axis.in_start + t * axis.in_tap;
                        found.push((target, axis.weight_start + t * axis.weight_tap, source));
                    }
                }
            }
            found.sort_unstable();
            let mut wanted = Vec::new();
            for target in 0..inputs {
                for tap in 0..kernel as i64 {
                    let reach = target + pad as i64 - tap * dilation as i64;
                    if reach.rem_euclid(stride as i64) == 0 {
                        wanted.push((target, tap, reach.div_euclid(stride as i64)));
                    }
                }
            }
            assert_eq!(
                found, wanted,
                "kernel {kernel}, stride {stride}, dilation {dilation}"
            );
        }
    }

    fn square(kernel: usize, stride: usize, pad: usize, dilation: usize) -> Window {
        Window {
            kernel: vec![kernel; 2],
            strides: vec![stride; 2],
            pads: vec![pad; 4],
            dilations: vec![dilation; 2],
        }
    }

    #[test]
    fn copies_that_no_memory_has_are_not_small() {
        let window = Window {
            kernel: vec![3; 3],
            strides: vec![1; 3],
            pads: vec![1 << 29; 6],
            dilations: vec![1 << 29; 3],
        };
        let phases = [forward(&window, &[8, 8, 8])];
        assert_eq!(Panel::new(&phases, 8, 1 << 20, 4).elements(), i64::MAX);
        assert_eq!(rows_of_copy(&phases, 64, 4), 1);
    }

    #[test]
    fn high_windows_take_more_rows_at_a_time() {
        let rows = |dilation: usize, channels: i64| {
            let window = square(3, 1, dilation, dilation);
            rows_of_copy(&[forward(&window, &[65, 65])], channels, 4)
        };
        // What the second cache has room for.
        assert_eq!(rows(1, 64), 13);
        assert_eq!(rows(1, 2048), 1);
        // Of 24 rows that one row reads, few are copied again.
        assert_eq!(rows(12, 512), 24);
        // All rows.
        assert_eq!(rows(36, 2048), 65);
    }
}
