//! Which register tiles of a row meet the padding: those leave taps out and are written out one by one, where images are
//! read as they lie.

use std::ops::Range;

use super::axis::{Axis, Phase};
use crate::types::Layout;

/// The most tiles of a row that are written out because of the padding, in all phases.
const MOST_AT_BORDERS: i64 = 16;
/// The most taps of a row of the window that these are written out for.
pub const MOST_TAPS: i64 = 8;

/// Whether every tap of `pixels` outputs along an axis, from `first` on, reads one of the `size` elements of the source.
pub fn is_inner(axis: &Axis, size: i64, first: i64, pixels: i64) -> bool {
    let read = |j: i64, t: i64| (j * axis.in_step + t * axis.in_tap) * axis.spread + axis.in_start;
    axis.taps == 0 || (read(first, 0) >= 0 && read(first + pixels - 1, axis.taps - 1) < size)
}

/// Of the whole tiles of `pixels` outputs along an axis those whose every tap reads one of the `size` elements of the source.
pub fn inner_tiles(axis: &Axis, size: i64, pixels: i64) -> Range<i64> {
    let whole = axis.outputs / pixels;
    if axis.taps == 0 {
        return 0..whole;
    }
    let step = axis.in_step * axis.spread;
    let first = (-axis.in_start).max(0).saturating_add(pixels * step - 1) / (pixels * step);
    // What the last tap of a tile's last output reads may be the last element.
    let reach = ((axis.taps - 1) * axis.in_tap)
        .saturating_mul(axis.spread)
        .saturating_add((pixels - 1) * step);
    let last = (size - 1 - axis.in_start).saturating_sub(reach);
    let end = match last {
        ..0 => 0,
        _ => last / (pixels * step) + 1,
    };
    let first = first.min(whole);
    first..end.clamp(first, whole)
}

/// Whether tiles of `pixels` outputs read an image of this layout, whose rows have `width` elements, where it lies: channels are
/// innermost, and few tiles meet the padding, with few taps.
pub fn reads_image(layout: Layout, phases: &[Phase], width: i64, pixels: i64) -> bool {
    let at_borders = |phase: &Phase| {
        let inner = inner_tiles(&phase[2], width, pixels);
        phase[2].outputs / pixels - (inner.end - inner.start)
    };
    let is_short = |phase: &Phase| phase[2].taps <= MOST_TAPS;
    let few = phases.iter().map(at_borders).sum::<i64>() <= MOST_AT_BORDERS;
    layout == Layout::Nhwc && few && phases.iter().all(is_short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Window;
    use crate::schedule::axis::{backward_data, forward};

    #[test]
    fn inner_tiles_are_those_without_a_tap_in_the_padding() {
        for (kernel, stride, dilation, pad, size, pixels) in [
            (3, 1, 1, 1, 56, 14),
            (3, 2, 1, 1, 112, 14),
            (5, 1, 2, 4, 33, 3),
            (7, 3, 1, 0, 29, 2),
            (3, 1, 36, 36, 65, 13),
            (1, 2, 1, 0, 9, 2),
            (1, 1, 1, 2, 9, 2),
        ] {
            let window = Window {
                kernel: vec![kernel],
                strides: vec![stride],
                pads: vec![pad, pad],
                dilations: vec![dilation],
            };
            let outputs = (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
            let mut phases = backward_data(&window, &[size as i64]);
            let widths = vec![outputs as i64; phases.len()];
            phases.push(forward(&window, &[outputs as i64]));
            for (phase, width) in phases.iter().zip(widths.into_iter().chain([size as i64])) {
                let axis = phase[2];
                let is_inner = |tile: i64| {
                    let inner = (tile * pixels..(tile + 1) * pixels).all(|j| {
                        (0..axis.taps).all(|t| {
                            let read = (j * axis.in_step + t * axis.in_tap) * axis.spread + axis.in_start;
                            (0..width).contains(&read)
                        })
                    });
                    assert_eq!(is_inner(&axis, width, tile * pixels, pixels), inner);
                    inner
                };
                let wanted: Vec<i64> = (0..axis.outputs / pixels).filter(|&i| is_inner(i)).collect();
                let found: Vec<i64> = inner_tiles(&axis, width, pixels).collect();
                assert_eq!(found, wanted, "kernel {kernel}, stride {stride}, {axis:?}");
            }
        }
    }

    #[test]
    fn plain_images_and_many_tiles_in_the_padding_are_copied() {
        let window = |dilation: usize| Window {
            kernel: vec![3],
            strides: vec![1],
            pads: vec![dilation; 2],
            dilations: vec![dilation],
        };
        let reads = |layout, dilation: usize, width: i64| {
            reads_image(layout, &[forward(&window(dilation), &[width])], width, 4)
        };
        assert!(reads(Layout::Nhwc, 1, 100));
        assert!(!reads(Layout::Plain, 1, 100));
        assert!(!reads(Layout::Nhwc, 40, 100));
    }
}
