//! What tiles of a depthwise convolution read: an image as it lies, where taps in the padding are left out, or a copy
//! of some of its rows, padding included.

use std::ops::Range;

use syncbn_ir::schedule::axis::{Axis, Phase};
use syncbn_ir::schedule::borders::{inner_tiles, is_inner};

use crate::cpu::conv::panel::{Copy, Source};
use crate::emit::{Emitter, Pointer, Val};

/// Where and how far apart the elements are that taps read.
#[derive(Clone, Copy)]
pub struct View<'c> {
    /// The first element of the image or of the copy.
    pub pointer: Pointer<'c>,
    /// Depth, height, width.
    sizes: [i64; 3],
    /// Elements from one column to the next.
    pub column: i64,
    /// The slice and row of outputs that the copy begins with, if it is one.
    copied: Option<[Val<'c>; 2]>,
    /// What the copy begins with along each axis; 0 of an image.
    least: [i64; 3],
}

/// What the outputs of an axis read: element `start + j * step + t * tap` for the `t`-th tap of output `j`.
#[derive(Clone, Copy)]
pub struct Along {
    pub start: i64,
    pub step: i64,
    pub tap: i64,
    pub taps: i64,
    /// How many elements there are.
    pub size: i64,
    /// Whether all that is read is there.
    inside: bool,
}

impl<'c> View<'c> {
    /// An image that is read where it lies.
    pub fn of_image(image: Pointer<'c>, source: &Source<'c>) -> View<'c> {
        View {
            pointer: image,
            sizes: source.sizes,
            column: source.channels,
            copied: None,
            least: [0; 3],
        }
    }

    /// A copy for the outputs from this slice and row on.
    pub fn of_copy(copy: &Copy<'c>, place: [Val<'c>; 2]) -> View<'c> {
        View {
            pointer: copy.pointer,
            sizes: copy.panel.sizes,
            column: copy.panel.column,
            copied: Some(place),
            least: copy.panel.least,
        }
    }

    /// What a phase reads along an axis.
    pub fn along(&self, phase: &Phase, axis: usize) -> Along {
        let Axis {
            outputs,
            in_step,
            spread,
            in_start,
            taps,
            in_tap,
            ..
        } = phase[axis];
        let size = self.sizes[axis];
        // The distance of a single tap from others means nothing.
        let in_tap = if taps > 1 { in_tap } else { 1 };
        if self.copied.is_some() {
            return Along {
                start: in_start - self.least[axis],
                step: in_step,
                tap: in_tap,
                taps,
                size,
                inside: true,
            };
        }
        let [step, tap] = [in_step, in_tap].map(|n| n * spread);
        let last = (outputs - 1) * step + (taps - 1).max(0) * tap + in_start;
        Along {
            start: in_start,
            step,
            tap,
            taps,
            size,
            inside: in_start >= 0 && last < size,
        }
    }

    /// What the first taps of slice `z` and row `y` of outputs read along these axes.
    pub fn origin(&self, e: &Emitter<'c>, [z, y]: [Val<'c>; 2], along: [Along; 2]) -> [Val<'c>; 2] {
        let [z, y] = match self.copied {
            Some([first_z, first_y]) => [e.sub(z, first_z), e.sub(y, first_y)],
            None => [z, y],
        };
        [(z, along[0]), (y, along[1])].map(|(i, a)| e.add(e.mul(i, e.index(a.step)), e.index(a.start)))
    }

    /// Elements up to the row of a slice.
    pub fn row(&self, e: &Emitter<'c>, [z, y]: [Val<'c>; 2]) -> Val<'c> {
        let row = e.add(e.mul(z, e.index(self.sizes[1])), y);
        e.mul(row, e.index(self.sizes[2] * self.column))
    }

    /// Whether `pixels` outputs of a row from `first` on leave no tap out.
    pub fn is_inner(&self, phase: &Phase, first: i64, pixels: i64) -> bool {
        self.copied.is_some() || is_inner(&phase[2], self.sizes[2], first, pixels)
    }

    /// Of the whole tiles of a row those that leave no tap out.
    pub fn inner_tiles(&self, phase: &Phase, pixels: i64) -> Range<i64> {
        match self.copied {
            Some(_) => 0..phase[2].outputs / pixels,
            None => inner_tiles(&phase[2], self.sizes[2], pixels),
        }
    }
}

impl Along {
    /// `body` for the taps that read what is there, given what the first tap reads, with values that it returns new ones of.
    pub fn each_tap<'c>(
        &self,
        e: &Emitter<'c>,
        origin: Val<'c>,
        carried: &[Val<'c>],
        body: impl FnOnce(&Emitter<'c>, Val<'c>, &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        if self.inside {
            return e.fold_of(self.taps, carried, body);
        }
        // How many taps read what comes before an element.
        let before = |end: Val<'c>| {
            let reach = e.max(e.sub(end, origin), e.index(0));
            let taps = match self.tap {
                1 => reach,
                tap => e.div(e.add(reach, e.index(tap - 1)), e.index(tap)),
            };
            e.min(taps, e.index(self.taps))
        };
        let [low, high] = [0, self.size].map(|end| before(e.index(end)));
        e.for_range(low, high, 1, carried, body)
    }
}
