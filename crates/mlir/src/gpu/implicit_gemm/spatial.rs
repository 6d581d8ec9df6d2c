//! The spatial axes of a gather as a kernel's code sees them: numbers that are open, and phases of which a block finds
//! its own.

use super::axis::{Axis, Cycle, Slide, split};
use crate::emit::{Compare, Divisor, Emitter, Index, Number, Numbers};

/// An [`Axis`], in numbers of a plan or in a kernel's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spatial<T> {
    /// As [`Axis::source`].
    pub source: T,
    /// As [`Axis::count`].
    pub count: Divisor<T>,
    /// As [`Axis::stride`].
    pub stride: T,
    /// As [`Axis::reach`].
    pub reach: T,
    /// As [`Axis::start`].
    pub start: T,
    /// As [`Axis::taps`].
    pub taps: Divisor<T>,
    /// As [`Axis::first_tap`].
    pub first_tap: T,
    /// As [`Axis::tap_stride`].
    pub tap_stride: T,
    /// As [`Axis::spread`].
    pub spread: T,
    /// As [`Axis::phase`].
    pub phase: T,
    /// Whether it is known that every output and tap read inside the source.
    pub inside: bool,
}

impl Spatial<Number> {
    /// The plan of an axis of the forward pass. `inside` says whether the code may know that nothing outside the source is
    /// read. Windows share code whatever their stride, but for those of one pixel, which without a stride save a product
    /// for each output.
    pub fn forward(slide: &Slide, inside: bool, numbers: &mut Numbers) -> Spatial<Number> {
        let axis = slide.forward();
        let stride = match axis.taps {
            1 => numbers.number(axis.stride),
            _ => numbers.open(axis.stride),
        };
        Spatial::new(&axis, stride, inside, numbers)
    }

    /// The plan of an axis of the backward pass without strides, as [`Spatial::forward`].
    fn backward(slide: &Slide, inside: bool, numbers: &mut Numbers) -> Spatial<Number> {
        Spatial::new(&slide.phase(0), Number::Fixed(1), inside, numbers)
    }

    fn new(axis: &Axis, stride: Number, inside: bool, numbers: &mut Numbers) -> Spatial<Number> {
        Spatial {
            source: numbers.number(axis.source),
            count: numbers.divisor(axis.count),
            stride,
            reach: numbers.number(axis.reach),
            start: numbers.offset(axis.start),
            taps: numbers.divisor(axis.taps),
            first_tap: numbers.number(axis.first_tap),
            tap_stride: numbers.number(axis.tap_stride),
            spread: numbers.number(axis.spread),
            phase: numbers.number(axis.phase),
            inside: inside && axis.is_inside(),
        }
    }

    /// Its values.
    pub fn values<'c>(&self, e: &Emitter<'c>) -> Spatial<Index<'c>> {
        Spatial {
            source: e.number(self.source),
            count: e.divisor(self.count),
            stride: e.number(self.stride),
            reach: e.number(self.reach),
            start: e.number(self.start),
            taps: e.divisor(self.taps),
            first_tap: e.number(self.first_tap),
            tap_stride: e.number(self.tap_stride),
            spread: e.number(self.spread),
            phase: e.number(self.phase),
            inside: self.inside,
        }
    }
}

/// A size that is one of two neighbouring ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Either {
    /// The larger one, for what is below `limit`.
    more: Divisor<Number>,
    less: Divisor<Number>,
    limit: Number,
}

impl Either {
    /// How many multiples of `step` lie below `size`, by where one starts.
    fn new(size: i64, step: i64, numbers: &mut Numbers) -> Either {
        let [more, limit] = split(size, step);
        Either {
            more: numbers.open_divisor(more),
            less: numbers.open_divisor(more - 1),
            limit: numbers.open(limit),
        }
    }

    fn from<'c>(&self, e: &Emitter<'c>, first: Index<'c>) -> Divisor<Index<'c>> {
        let [more, less] = [self.more, self.less].map(|divisor| e.divisor(divisor));
        let limit = e.number(self.limit);
        let below = e.index_compare(Compare::Lt, first, limit);
        e.divisor_select(below, &more, &less)
    }
}

/// All phases of the backward pass along an axis (see [`Slide::phase`]), of which a block takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Phases {
    phases: Divisor<Number>,
    /// The phase that comes first, which has the most taps.
    heaviest: Number,
    pad: Number,
    common: Divisor<Number>,
    length: Divisor<Number>,
    inverse: Number,
    dilation: Number,
    stride: Divisor<Number>,
    reach: Number,
    source: Number,
    count: Either,
    taps: Either,
}

impl Phases {
    fn new(slide: &Slide, numbers: &mut Numbers) -> Phases {
        let Cycle {
            common,
            length,
            inverse,
        } = slide.cycle();
        let taps = |phase: &i64| slide.phase(*phase).taps;
        let heaviest = (0..slide.phases()).rev().max_by_key(taps).unwrap_or(0);
        Phases {
            phases: numbers.divisor(slide.phases()),
            heaviest: numbers.open(heaviest),
            pad: numbers.open(slide.pad),
            common: numbers.divisor(common),
            length: numbers.divisor(length),
            inverse: numbers.open(inverse),
            dilation: numbers.open(slide.dilation),
            stride: numbers.divisor(slide.stride),
            reach: numbers.open(-(slide.dilation / common)),
            source: numbers.open(slide.output),
            count: Either::new(slide.input, slide.stride, numbers),
            taps: Either::new(slide.taps, length, numbers),
        }
    }

    /// The axis of the phase at place `place`; mirrors [`Slide::phase`].
    fn at<'c>(&self, e: &Emitter<'c>, place: Index<'c>) -> Spatial<Index<'c>> {
        let [phases, common, length, stride] =
            [self.phases, self.common, self.length, self.stride].map(|divisor| e.divisor(divisor));
        let [heaviest, pad, inverse, dilation, reach, source] = [
            self.heaviest,
            self.pad,
            self.inverse,
            self.dilation,
            self.reach,
            self.source,
        ]
        .map(|number| e.number(number));
        let turned = e.index_add(place, heaviest);
        let (_, phase) = e.index_divide_by(turned, &phases);
        let distance = e.index_add(phase, pad);
        let (quotient, rest) = e.index_divide_by(distance, &common);
        let solved = e.index_product(quotient, inverse);
        let (_, first_tap) = e.index_divide_by(solved, &length);
        let mut taps = self.taps.from(e, first_tap);
        if self.common.size != Number::Fixed(1) {
            let reaches = e.index_compare(Compare::Eq, rest, Index::constant(0));
            taps.size = e.index_select(reaches, taps.size, Index::constant(0));
        }
        let bias = e.index_product(stride.size, dilation);
        let before = e.index_product(first_tap, dilation);
        let start = e.index_add(distance, bias);
        let start = e.index_subtract(start, before);
        let (start, _) = e.index_divide_by(start, &stride);
        Spatial {
            source,
            count: self.count.from(e, phase),
            stride: Index::constant(1),
            reach,
            start: e.index_subtract(start, dilation),
            taps,
            first_tap,
            tap_stride: length.size,
            spread: stride.size,
            phase,
            inside: false,
        }
    }
}

/// The spatial axes of a gather.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Space {
    /// The same for all blocks; outputs stand in the result one after the other.
    Dense(Box<[Spatial<Number>; 2]>),
    /// Those of the plane's phase. Planes are numbered by height, then by width.
    Strided(Box<[Phases; 2]>),
}

// A gather looks at the height of every pixel, since rows past the last one lie outside it, and at the width only where
// it must.
impl Space {
    /// Of the forward pass.
    pub fn forward(slides: &[Slide; 2], numbers: &mut Numbers) -> Space {
        Space::Dense(Box::new(
            [0, 1].map(|i| Spatial::forward(&slides[i], i == 1, numbers)),
        ))
    }

    /// Of the gradient for the input.
    pub fn backward(slides: &[Slide; 2], numbers: &mut Numbers) -> Space {
        if slides.iter().all(|slide| slide.stride == 1) {
            return Space::Dense(Box::new(
                [0, 1].map(|i| Spatial::backward(&slides[i], i == 1, numbers)),
            ));
        }
        Space::Strided(Box::new([0, 1].map(|i| Phases::new(&slides[i], numbers))))
    }

    /// The axes of a block in plane `plane`.
    pub fn axes<'c>(&self, e: &Emitter<'c>, plane: Index<'c>) -> [Spatial<Index<'c>>; 2] {
        match self {
            Space::Dense(axes) => axes.map(|axis| axis.values(e)),
            Space::Strided(phases) => {
                let [h, w] = phases.as_ref();
                let across = e.divisor(w.phases);
                let (down, across) = e.index_divide_by(plane, &across);
                [h.at(e, down), w.at(e, across)]
            }
        }
    }
}
