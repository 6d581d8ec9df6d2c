//! A window that slides over an image: which input a tap of an output's window reads, and the other way round.

use syncbn_ir::TensorType;
use syncbn_ir::ops::Window;

use super::kernel::fixed;
use super::target::Borders;
use crate::emit::{Accumulate, Emitter, Extent, Index, Val};

/// Spatial sizes of a type of rank 2 or more.
pub fn spatial(ty: &TensorType) -> Vec<i64> {
    ty.shape.0[2..].iter().map(|&d| fixed(d)).collect()
}

/// What is done at a tap: its place in the other tensor, its place in the window, its guard, and values to next values.
pub type Tap<'c, 'b> =
    &'b mut dyn FnMut(&Emitter<'c>, &[Index<'c>], &[Index<'c>], Option<Val<'c>>, &[Val<'c>]) -> Vec<Val<'c>>;

/// A window on the spatial axes of an image.
#[derive(Debug, Clone)]
pub struct Sliding {
    /// Its sizes and steps.
    pub window: Window,
    /// Spatial sizes of the input.
    pub input: Vec<i64>,
    /// Spatial sizes of the output, whose elements are windows.
    pub output: Vec<i64>,
}

impl Sliding {
    /// A window that slides over `x` and makes `y`.
    pub fn new(window: Window, x: &TensorType, y: &TensorType) -> Sliding {
        Sliding {
            window,
            input: spatial(x),
            output: spatial(y),
        }
    }

    /// Sizes of the window.
    pub fn kernel(&self) -> Vec<i64> {
        self.window.kernel.iter().map(|&n| n as i64).collect()
    }

    /// The input index that tap `tap` of window `out` reads on axis `i`, and its guard unless it is always
    /// inside.
    pub fn input_index<'c>(
        &self,
        e: &Emitter<'c>,
        i: usize,
        out: Index<'c>,
        tap: Index<'c>,
    ) -> (Index<'c>, Option<Val<'c>>) {
        let w = &self.window;
        let (stride, dilation, pad) = (w.strides[i] as i64, w.dilations[i] as i64, w.pad_begin(i) as i64);
        let start = e.index_scale(out, stride);
        let reach = e.index_scale(tap, dilation);
        let at = e.index_add(start, reach);
        let at = e.index_offset(at, -pad);
        let guard = (!self.is_inside(i, 0, self.input[i])).then(|| e.index_below(at, self.input[i]));
        (at, guard)
    }

    /// Whether all windows lie in `-before..limit` on axis `i`.
    pub fn is_inside(&self, i: usize, before: i64, limit: i64) -> bool {
        let w = &self.window;
        let (stride, dilation, pad) = (w.strides[i] as i64, w.dilations[i] as i64, w.pad_begin(i) as i64);
        pad <= before && (self.output[i] - 1) * stride + (w.kernel[i] as i64 - 1) * dilation - pad < limit
    }

    /// The index of the input that tap `tap` of the window at `out` reads, and its guard unless it is always inside.
    /// `first` is the index of the sample and of the channel.
    pub fn read_by<'c>(
        &self,
        e: &Emitter<'c>,
        first: [Index<'c>; 2],
        out: &[Index<'c>],
        tap: &[Index<'c>],
    ) -> (Vec<Index<'c>>, Option<Val<'c>>) {
        let (mut index, mut guard) = (first.to_vec(), None);
        for i in 0..self.input.len() {
            let (along, inside) = self.input_index(e, i, out[i], tap[i]);
            index.push(along);
            guard = e.both(guard, inside);
        }
        (index, guard)
    }

    /// The index of the output whose window reads input `input` with tap `tap`, and whether there is one.
    pub fn written_by<'c>(
        &self,
        e: &Emitter<'c>,
        first: [Index<'c>; 2],
        input: &[Index<'c>],
        tap: &[Index<'c>],
    ) -> (Vec<Index<'c>>, Option<Val<'c>>) {
        let (mut index, mut guard) = (first.to_vec(), None);
        for i in 0..self.output.len() {
            let (out, exists) = self.output_index(e, i, input[i], tap[i]);
            guard = e.both(guard, exists);
            index.push(out);
        }
        (index, guard)
    }

    /// On axis `i` the output whose window reads input `input` with tap `tap`, and whether there is one.
    fn output_index<'c>(
        &self,
        e: &Emitter<'c>,
        i: usize,
        input: Index<'c>,
        tap: Index<'c>,
    ) -> (Index<'c>, Option<Val<'c>>) {
        let reach = e.index_scale(tap, -(self.window.dilations[i] as i64));
        let from = e.index_add(input, reach);
        let from = e.index_offset(from, self.window.pad_begin(i) as i64);
        let (out, exact) = e.index_divide(from, self.window.strides[i] as i64);
        let below = e.index_below(out, self.output[i]);
        (out, e.both(exact, Some(below)))
    }

    /// Folds over the inputs that the window at output `at` reads: `body` gets the input's index, its tap and, where
    /// it may not exist, its guard.
    pub fn fold_read<'c>(
        &self,
        (e, borders): (&Emitter<'c>, Borders),
        at: &[Index<'c>],
        start: &[Val<'c>],
        body: Tap<'c, '_>,
    ) -> Vec<Val<'c>> {
        let axis = |e: &Emitter<'c>, i: usize| {
            let some = walks(borders, at[2 + i]) && !self.is_inside(i, 0, self.input[i]);
            some.then(|| self.taps_inside(e, i, at[2 + i]))
        };
        self.fold_axes(e, &axis, &[], start, &mut |e, taps, values| {
            let (mut index, mut guard) = (at[..2].to_vec(), None);
            for (i, &tap) in taps.iter().enumerate() {
                let (along, inside) = self.input_index(e, i, at[2 + i], tap);
                index.push(along);
                guard = e.both(guard, inside.filter(|_| !walks(borders, at[2 + i])));
            }
            body(e, &index, taps, guard, values)
        })
    }

    /// Folds over the windows that read input `at`: `body` gets the index of the output, its tap that reads the input
    /// and, where there may be none, its guard.
    pub fn fold_written<'c>(
        &self,
        (e, borders): (&Emitter<'c>, Borders),
        at: &[Index<'c>],
        start: &[Val<'c>],
        body: Tap<'c, '_>,
    ) -> Vec<Val<'c>> {
        let walks_windows = |i: usize| walks(borders, at[2 + i]) && self.window.dilations[i] == 1;
        let axis = |e: &Emitter<'c>, i: usize| walks_windows(i).then(|| self.windows_at(e, i, at[2 + i]));
        self.fold_axes(e, &axis, &[], start, &mut |e, turns, values| {
            let (mut index, mut taps, mut guard) = (at[..2].to_vec(), Vec::new(), None);
            for (i, &turn) in turns.iter().enumerate() {
                let input = at[2 + i];
                if walks_windows(i) {
                    let begin = e.index_scale(turn, -(self.window.strides[i] as i64));
                    let tap = e.index_offset(e.index_add(input, begin), self.window.pad_begin(i) as i64);
                    index.push(turn);
                    taps.push(tap);
                } else {
                    let (out, exists) = self.output_index(e, i, input, turn);
                    index.push(out);
                    taps.push(turn);
                    guard = e.both(guard, exists);
                }
            }
            body(e, &index, &taps, guard, values)
        })
    }

    /// Loops over the axes: over the range that `axis` gives, or else over all taps.
    fn fold_axes<'c>(
        &self,
        e: &Emitter<'c>,
        axis: &dyn Fn(&Emitter<'c>, usize) -> Option<[Val<'c>; 2]>,
        at: &[Index<'c>],
        carried: &[Val<'c>],
        body: Accumulate<'c, '_>,
    ) -> Vec<Val<'c>> {
        let i = at.len();
        if i == self.input.len() {
            return body(e, at, carried);
        }
        match axis(e, i) {
            Some([low, high]) => e.for_range(low, high, 1, carried, |e, turn, values| {
                let at = [at, &[Index::uniform(turn)]].concat();
                self.fold_axes(e, axis, &at, values, body)
            }),
            None => e.fold(
                Extent::Fixed(self.window.kernel[i] as i64),
                carried,
                |e, turn, values| self.fold_axes(e, axis, &[at, &[turn]].concat(), values, body),
            ),
        }
    }

    /// The taps of window `out` that lie inside the input on axis `i`.
    fn taps_inside<'c>(&self, e: &Emitter<'c>, i: usize, out: Index<'c>) -> [Val<'c>; 2] {
        let w = &self.window;
        let (dilation, zero) = (w.dilations[i] as i64, e.index(0));
        let start = e.index_offset(e.index_scale(out, w.strides[i] as i64), -(w.pad_begin(i) as i64));
        let behind = e.index_scale(start, -1);
        let up = |e: &Emitter<'c>, distance: Val<'c>| {
            let distance = e.index_offset(Index::uniform(e.max(distance, zero)), dilation - 1);
            e.index_value(e.index_divide(distance, dilation).0)
        };
        let low = up(e, e.index_value(behind));
        let high = up(e, e.index_value(e.index_offset(behind, self.input[i])));
        [low, e.min(high, e.index(w.kernel[i] as i64))]
    }

    /// The windows without gaps that read input `input` on axis `i`.
    fn windows_at<'c>(&self, e: &Emitter<'c>, i: usize, input: Index<'c>) -> [Val<'c>; 2] {
        let (stride, kernel) = (self.window.strides[i] as i64, self.window.kernel[i] as i64);
        let last = e.index_offset(input, self.window.pad_begin(i) as i64);
        let first = e.max(e.index_value(e.index_offset(last, 1 - kernel)), e.index(0));
        let first = e
            .index_divide(e.index_offset(Index::uniform(first), stride - 1), stride)
            .0;
        let end = e.index_offset(e.index_divide(last, stride).0, 1);
        [
            e.index_value(first),
            e.min(e.index_value(end), e.index(self.output[i])),
        ]
    }
}

/// Whether a loop along an axis is over what exists: where all lanes are at the same index.
fn walks(borders: Borders, at: Index) -> bool {
    borders == Borders::LeftOut && at.is_uniform()
}
