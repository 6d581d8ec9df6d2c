//! Sums over many terms that the threads of a rank share: the terms are cut into parts, whose number depends on that of the
//! terms alone, and the parts' sums are added in order.

use syncbn_ir::partials::MOST_PARTS;

use crate::emit::{Accumulate, Buffer, Compare, Elem, Emitter, Extent, Index, Val};

/// Rows of channels of a part at least.
pub const LEAST_ROWS: i64 = 64;
/// Steps of a part of a loss at least.
const LEAST_STEPS: i64 = 4096;
/// Neighbouring terms that a part of a loss has no fewer of, and most of them, where rows are so long.
const PIECE: [i64; 2] = [128, 1024];

/// How terms are cut.
#[derive(Clone, Copy)]
pub struct Parts<'c> {
    terms: Val<'c>,
    count: Val<'c>,
}

impl<'c> Parts<'c> {
    /// The largest power of two of parts that leaves `least` terms for each, and one at least.
    pub fn of(e: &Emitter<'c>, terms: Val<'c>, least: i64) -> Parts<'c> {
        let mut count = e.index(1);
        let mut parts = 2;
        while parts <= MOST_PARTS as i64 {
            let enough = e.compare(Compare::Ge, terms, e.index(parts * least));
            count = e.select(enough, e.index(parts), count);
            parts *= 2;
        }
        Parts { terms, count }
    }

    /// `body` for each of this thread's parts, with the terms of it.
    pub fn each(&self, e: &Emitter<'c>, body: impl FnOnce(&Emitter<'c>, Val<'c>, [Val<'c>; 2])) {
        let [low, high] = e.slice(self.count);
        e.undivided(|e| {
            e.each_in(low, high, |e, part| {
                let begin = |part: Val<'c>| e.div(e.mul(self.terms, part), self.count);
                let range = [begin(part), begin(e.add(part, e.index(1)))];
                body(e, part, range);
            });
        });
    }
}

/// What is added up of a part's sums of a channel.
pub type Terms<'c, 'b> = &'b dyn Fn(&Emitter<'c>, Val<'c>, Index<'c>, Vec<Val<'c>>) -> Vec<Val<'c>>;

/// Memory for the sums of parts, which the threads of a rank share: `[part][sum][channel]`.
#[derive(Clone, Copy)]
pub struct Partials<'c> {
    pointer: Val<'c>,
    sums: usize,
    channels: i64,
}

impl<'c> Partials<'c> {
    /// Memory for so many sums of so many channels.
    pub fn new(pointer: Val<'c>, sums: usize, channels: i64) -> Partials<'c> {
        Partials {
            pointer,
            sums,
            channels,
        }
    }

    /// The sums of a part from channel `first` on.
    pub fn array(&self, e: &Emitter<'c>, part: Val<'c>, sum: usize, first: Index<'c>) -> Buffer<'c> {
        let row = e.mul(part, e.index(self.sums as i64));
        let row = e.add(row, e.index(sum as i64));
        let at = e.index_add(Index::uniform(e.mul(row, e.index(self.channels))), first);
        let pointer = e.address(self.pointer, Elem::F64, e.index_value(at));
        Buffer::new(pointer, Elem::F64, &[1])
    }

    /// Adds up the parts of every channel of a block; `store` gets the place of a channel in the block and its sums.
    pub fn merge(
        &self,
        e: &Emitter<'c>,
        parts: &Parts<'c>,
        (first, count): (Index<'c>, i64),
        width: usize,
        store: &dyn Fn(&Emitter<'c>, Index<'c>, &[Val<'c>]),
    ) {
        let terms = |_: &Emitter<'c>, _: Val<'c>, _: Index<'c>, sums: Vec<Val<'c>>| sums;
        self.merge_terms(e, parts.count, (first, count), (self.sums, width), &terms, store);
    }

    /// [`Partials::merge`] of `parts` parts; `terms` makes of a part and its sums of a channel the `sums` numbers that are
    /// added up.
    pub fn merge_terms(
        &self,
        e: &Emitter<'c>,
        parts: Val<'c>,
        (first, count): (Index<'c>, i64),
        (sums, width): (usize, usize),
        terms: Terms<'c, '_>,
        store: &dyn Fn(&Emitter<'c>, Index<'c>, &[Val<'c>]),
    ) {
        let per_part = self.sums as i64 * self.channels;
        let all = Buffer::new(self.pointer, Elem::F64, &[per_part, self.channels, 1]);
        let axes = [Extent::Fixed(count)];
        e.map_costly(&axes, width, MOST_PARTS as i64, &|e, at| {
            let channel = e.index_add(first, at[0]);
            let zero = e.splat(e.zero(Elem::F64), e.lanes());
            let start = vec![zero; sums];
            let sums = e.for_range(e.index(0), parts, 1, &start, |e, part, sums| {
                let load = |i: usize| {
                    let place = [Index::uniform(part), Index::constant(i as i64), channel];
                    e.load(&all, &place, None)
                };
                let terms = terms(e, part, channel, (0..self.sums).map(load).collect());
                sums.iter()
                    .zip(terms)
                    .map(|(&sum, term)| e.add(sum, term))
                    .collect()
            });
            store(e, at[0], &sums);
        });
    }
}

/// The sum of all terms of `rows` rows, in f64, with lanes along a row of `row` terms, each of which takes about `cost` steps.
/// `memory` is for [`MOST_PARTS`] values; the first thread stores.
pub fn sum_in_parts<'c>(
    e: &Emitter<'c>,
    memory: Val<'c>,
    rows: Extent<'c>,
    (row, width, cost): (i64, usize, i64),
    add: Accumulate<'c, '_>,
    store: &dyn Fn(&Emitter<'c>, Val<'c>),
) {
    let piece = match (width, 1 << row.trailing_zeros()) {
        (1, _) => 1,
        (_, even) if even >= PIECE[0] => PIECE[1].min(even),
        _ => row,
    };
    let axes = [rows, Extent::Fixed(row / piece)];
    let least = (LEAST_STEPS / (piece * cost)).max(1);
    let parts = Parts::of(e, e.indices(&axes), least);
    let partials = Partials::new(memory, 1, 1);
    let first = Index::constant(0);
    parts.each(e, |e, part, [low, high]| {
        let zero = [e.zero(Elem::F64)];
        let sums = e.for_range(low, high, 1, &zero, |e, item, sum| {
            let at = e.unflatten(&axes, Index::uniform(item));
            let begin = e.index_scale(at[1], piece);
            let own = e.sum_over(&[], piece, width, &[Elem::F64], &mut |e, i, sums| {
                add(e, &[at[0], e.index_add(begin, i[0])], sums)
            });
            vec![e.add(sum[0], own[0])]
        });
        e.store(&partials.array(e, part, 0, first), &[first], sums[0]);
    });
    e.meet();
    e.by_first_thread(|e| {
        partials.merge(e, &parts, (first, 1), 1, &|e, _, sums| store(e, sums[0]));
    });
}
