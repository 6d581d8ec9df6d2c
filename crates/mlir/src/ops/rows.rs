//! Walking through rows of channels in loops: memory is read in order, and what belongs to a channel stands in arrays
//! that stay in the cache. Those are the function's own, but for the sums of parts, which the rank's threads share.

use std::cell::RefCell;

use super::kernel::{Image, VECTORS};
use super::parts::{LEAST_ROWS, Partials, Parts};
use crate::emit::{Buffer, Elem, Emitter, Extent, Index, Val};

/// Channels that are taken at once, so that their arrays fit on the stack of any thread.
pub const MOST_CHANNELS: i64 = 2048;
/// Rows that are summed in the element type. Longer runs would lose digits, shorter ones time.
pub const RUN: i64 = 64;

/// Values that are the same for all elements of a channel.
pub trait Constants<'c> {
    /// The same with every value replaced.
    fn map(&self, f: &mut dyn FnMut(Val<'c>) -> Val<'c>) -> Self;
}

/// What was prepared for every channel of a block, in memory.
pub struct Kept<'c, P> {
    form: Option<P>,
    arrays: Vec<Buffer<'c>>,
}

impl<'c, P: Constants<'c>> Kept<'c, P> {
    /// Prepares `count` channels from `first` on.
    pub fn new(
        e: &Emitter<'c>,
        first: Index<'c>,
        count: i64,
        width: usize,
        prepare: &dyn Fn(&Emitter<'c>, Index<'c>) -> P,
    ) -> Kept<'c, P> {
        let arrays: RefCell<Vec<Buffer<'c>>> = RefCell::default();
        let form = RefCell::new(None);
        e.map(&[Extent::Fixed(count)], width, &|e, at| {
            let prepared = prepare(e, e.index_add(first, at[0]));
            let mut next = 0;
            let kept = prepared.map(&mut |v| {
                let mut arrays = arrays.borrow_mut();
                if arrays.len() == next {
                    arrays.push(e.local(v.elem, count));
                }
                e.store(&arrays[next], at, v);
                next += 1;
                v
            });
            form.replace(Some(kept));
        });
        Kept {
            form: form.into_inner(),
            arrays: arrays.into_inner(),
        }
    }

    /// What was prepared for channel `i` of the block.
    pub fn load(&self, e: &Emitter<'c>, i: Index<'c>) -> P {
        let Some(form) = &self.form else {
            unreachable!("a block has a channel");
        };
        let mut arrays = self.arrays.iter();
        form.map(&mut |v| arrays.next().map_or(v, |array| e.load(array, &[i], None)))
    }
}

/// Sums in f64 of every channel of a block, in memory.
pub struct Totals<'c> {
    arrays: Vec<Buffer<'c>>,
}

impl<'c> Totals<'c> {
    /// Zeros in arrays of this thread's own.
    fn new(e: &Emitter<'c>, sums: usize, count: i64, width: usize) -> Totals<'c> {
        let arrays = (0..sums).map(|_| e.local(Elem::F64, count)).collect();
        Totals::zeros(e, arrays, count, width)
    }

    /// Zeros in these arrays.
    fn zeros(e: &Emitter<'c>, arrays: Vec<Buffer<'c>>, count: i64, width: usize) -> Totals<'c> {
        e.map(&[Extent::Fixed(count)], width, &|e, at| {
            let zero = e.zero(Elem::F64);
            arrays.iter().for_each(|array| e.store(array, at, zero));
        });
        Totals { arrays }
    }

    /// The sums of channel `i` of the block.
    fn load(&self, e: &Emitter<'c>, i: Index<'c>) -> Vec<Val<'c>> {
        self.arrays
            .iter()
            .map(|array| e.load(array, &[i], None))
            .collect()
    }

    /// Adds to the sums of channel `i` of the block.
    pub fn add(&self, e: &Emitter<'c>, i: Index<'c>, terms: &[Val<'c>]) {
        for (array, &term) in self.arrays.iter().zip(terms) {
            let sum = e.add(e.load(array, &[i], None), e.convert(term, Elem::F64));
            e.store(array, &[i], sum);
        }
    }
}

/// One row of channels.
#[derive(Clone, Copy)]
pub struct Row<'c> {
    sample: Index<'c>,
    position: Index<'c>,
}

impl<'c> Row<'c> {
    /// The row's element of channel `c`, as an index of an image.
    pub fn at(self, c: Index<'c>) -> [Index<'c>; 3] {
        [self.sample, c, self.position]
    }
}

/// Row `number` of an image, counted through all samples.
fn row<'c>(e: &Emitter<'c>, image: Image<'c>, number: Index<'c>) -> Row<'c> {
    let (sample, position) = match image.has_rows {
        true => (Index::constant(0), number),
        false => e.index_split(number, image.positions),
    };
    Row { sample, position }
}

/// Number of rows.
pub fn count<'c>(e: &Emitter<'c>, image: Image<'c>) -> Val<'c> {
    match image.n {
        Extent::Fixed(n) => e.index(n * image.positions),
        Extent::Batch(n) => e.mul(n, e.index(image.positions)),
    }
}

/// Adds what stands in a row at the place of a channel to the channel's sums.
pub type AddRow<'c, 'b> = &'b dyn Fn(&Emitter<'c>, Index<'c>, Row<'c>, &[Val<'c>]) -> Vec<Val<'c>>;

/// Neighbouring rows.
pub struct Run<'c> {
    image: Image<'c>,
    low: Val<'c>,
    high: Val<'c>,
}

impl<'c> Run<'c> {
    /// Its first row.
    pub fn first(&self, e: &Emitter<'c>) -> Row<'c> {
        row(e, self.image, Index::uniform(self.low))
    }

    /// Number of rows, in f64.
    pub fn length(&self, e: &Emitter<'c>) -> Val<'c> {
        e.convert(e.sub(self.high, self.low), Elem::F64)
    }

    /// Sums over the rows for each of `count` channels, in element types of their own: `add` adds what stands in a row at the
    /// place of a channel, and `finish` gets the place and its sums.
    pub fn sums(
        &self,
        e: &Emitter<'c>,
        elems: &[Elem],
        (count, width): (i64, usize),
        add: AddRow<'c, '_>,
        finish: &dyn Fn(&Emitter<'c>, Index<'c>, &[Val<'c>]),
    ) {
        let channels = [Extent::Fixed(count)];
        if count <= width as i64 {
            return e.map(&channels, width, &|e, at| {
                let sums = self.fold(e, elems, |e, row, sums| add(e, at[0], row, sums));
                finish(e, at[0], &sums);
            });
        }
        // Longer rows are read as memory has them, one after the other, while their sums stand in the first cache.
        let arrays: Vec<Buffer<'c>> = elems.iter().map(|&elem| e.local(elem, count)).collect();
        let load = |e: &Emitter<'c>, at: &[Index<'c>]| -> Vec<Val<'c>> {
            arrays.iter().map(|array| e.load(array, at, None)).collect()
        };
        let store = |e: &Emitter<'c>, at: &[Index<'c>], sums: &[Val<'c>]| {
            arrays
                .iter()
                .zip(sums)
                .for_each(|(array, &sum)| e.store(array, at, sum));
        };
        e.map(&channels, width, &|e, at| {
            let zeros: Vec<Val<'c>> = elems.iter().map(|&elem| e.zero(elem)).collect();
            store(e, at, &zeros);
        });
        each(e, self.image, [self.low, self.high], |e, row| {
            e.map(&channels, width, &|e, at| {
                let sums = add(e, at[0], row, &load(e, at));
                store(e, at, &sums);
            });
        });
        e.map(&channels, width, &|e, at| finish(e, at[0], &load(e, at)));
    }

    /// Sums over the rows, each in an element type of its own.
    fn fold(
        &self,
        e: &Emitter<'c>,
        elems: &[Elem],
        body: impl FnOnce(&Emitter<'c>, Row<'c>, &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        let start: Vec<Val<'c>> = elems
            .iter()
            .map(|&elem| e.splat(e.zero(elem), e.lanes()))
            .collect();
        e.for_range(self.low, self.high, 1, &start, |e, i, inner| {
            body(e, row(e, self.image, Index::uniform(i)), inner)
        })
    }
}

/// `body` for each of these rows, in order.
pub fn each<'c>(
    e: &Emitter<'c>,
    image: Image<'c>,
    [first, end]: [Val<'c>; 2],
    body: impl FnOnce(&Emitter<'c>, Row<'c>),
) {
    e.each_in(first, end, |e, i| body(e, row(e, image, Index::uniform(i))));
}

/// `body` for runs of up to `most` of these rows, in order.
pub fn runs<'c>(
    e: &Emitter<'c>,
    image: Image<'c>,
    [first, end]: [Val<'c>; 2],
    most: i64,
    body: impl FnOnce(&Emitter<'c>, &Run<'c>),
) {
    e.for_range(first, end, most, &[], |e, low, _| {
        let high = e.min(e.add(low, e.index(most)), end);
        body(e, &Run { image, low, high });
        Vec::new()
    });
}

/// Sums over all rows of every channel of a block, which begins with `first` and has `count` channels: `add` adds those of a
/// run to totals, and `store` gets the place of a channel in the block and its sums. Where there is memory for parts, threads
/// share the rows, and else the channels. `width` are the lanes that `add` has.
pub fn sums<'c>(
    e: &Emitter<'c>,
    image: Image<'c>,
    partials: Option<&Partials<'c>>,
    (first, count): (Index<'c>, i64),
    (sums, width): (usize, usize),
    add: &dyn Fn(&Emitter<'c>, &Run<'c>, &Totals<'c>),
    store: &dyn Fn(&Emitter<'c>, Index<'c>, &[Val<'c>]),
) {
    let rows = self::count(e, image);
    let Some(partials) = partials else {
        // Every loop over the channels is divided alike, so that a thread finds what it left.
        let totals = Totals::new(e, sums, count, width);
        runs(e, image, [e.index(0), rows], RUN, |e, run| add(e, run, &totals));
        return e.map(&[Extent::Fixed(count)], width, &|e, at| {
            store(e, at[0], &totals.load(e, at[0]));
        });
    };
    let parts = Parts::of(e, rows, LEAST_ROWS);
    parts.each(e, |e, part, range| {
        let arrays = (0..sums).map(|sum| partials.array(e, part, sum, first)).collect();
        let totals = Totals::zeros(e, arrays, count, width);
        runs(e, image, range, RUN, |e, run| add(e, run, &totals));
    });
    e.meet();
    partials.merge(e, &parts, (first, count), width / VECTORS, store);
}
