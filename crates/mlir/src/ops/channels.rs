//! Loops over `[n, channels, positions]` with work that is done once a channel.

use super::kernel::{Image, Kernel, VECTORS};
use super::parts::Partials;
use super::rows::{self, Constants, Kept, Row, Run, Totals};
use super::target::{Channels, Sums};
use crate::emit::{Elem, Emitter, Extent, Index, Inner, Val};

/// Adds what stands at an index to the sums of its channel.
type Add<'c, 'b, P> = &'b dyn Fn(&Emitter<'c>, &P, &[Index<'c>], &[Val<'c>]) -> Vec<Val<'c>>;
/// Stores the sums of a channel.
pub type Store<'c, 'b, P> = &'b dyn Fn(&Emitter<'c>, Index<'c>, &P, &[Val<'c>]);

/// Runs `body` over `[n, channels, positions]` with what `channel` prepares once a channel. Lanes run over
/// positions, or over channels where they are innermost.
pub fn per_channel<'c, P: Constants<'c>>(
    k: &Kernel<'c>,
    e: &Emitter<'c>,
    image: Image<'c>,
    width: usize,
    channel: &dyn Fn(&Emitter<'c>, Index<'c>) -> P,
    body: &dyn Fn(&Emitter<'c>, &P, &[Index<'c>]),
) {
    let axes = [
        image.n,
        Extent::Fixed(image.channels),
        Extent::Fixed(image.positions),
    ];
    let by_threads = k.manner.channels == Channels::ByThreads;
    if by_threads && image.has_channels_innermost() {
        let rows = [axes[0], axes[2]];
        return e.map_rows(&rows, image.channels, channel, &|e, prepared, at| {
            body(e, prepared, &[at[0], at[2], at[1]]);
        });
    }
    if by_threads {
        return e.map_along(&axes, &image.strides, width, &|e, at| {
            let prepared = channel(e, at[1]);
            body(e, &prepared, at);
        });
    }
    if image.has_channels_innermost() {
        let rows = e.slice(rows::count(e, image));
        return e.undivided(|e| {
            e.blocks(image.channels, rows::MOST_CHANNELS, &|e, first, count| {
                let kept = Kept::new(e, first, count, width, channel);
                let width = VECTORS * width;
                // Memory is read in order. Several rows at a time, which would share what is loaded for a channel, take
                // twice as long.
                rows::each(e, image, rows, |e, row| {
                    e.map(&[Extent::Fixed(count)], width, &|e, at| {
                        let prepared = kept.load(e, at[0]);
                        body(e, &prepared, &row.at(e.index_add(first, at[0])));
                    });
                });
            });
        });
    }
    e.divided(&axes[..2], |e, at| {
        let prepared = channel(e, at[1]);
        e.map(&axes[2..], width, &|e, i| {
            body(e, &prepared, &[at[0], at[1], i[0]])
        });
    });
}

/// Lanes of a sum: those of f64, or where rows of channels are added up, those of several vectors of `elem`, since
/// one sum waits for its last addition.
pub fn width_of_sums<'c>(k: &Kernel<'c>, image: Image<'c>, elem: Elem) -> usize {
    match image.has_channels_innermost() && k.manner.sums == Sums::InLoops {
        true => VECTORS * k.width(elem),
        false => k.width(Elem::F64),
    }
}

/// Memory for parts of so many sums, where the kernel has such.
pub fn partials<'c>(k: &Kernel<'c>, sums: usize, image: Image<'c>) -> Option<Partials<'c>> {
    k.partials
        .map(|pointer| Partials::new(pointer, sums, image.channels))
}

/// Sums over samples and positions of every channel, in f64; `store` gets the channel and its sums. Where channels are
/// innermost and loops take sums, `body` adds up the rows of a run in `elems`, one for each sum.
pub fn channel_sums<'c, P: Constants<'c>>(
    k: &Kernel<'c>,
    e: &Emitter<'c>,
    image: Image<'c>,
    (elems, width): (&[Elem], usize),
    channel: &dyn Fn(&Emitter<'c>, Index<'c>) -> P,
    body: Add<'c, '_, P>,
    store: Store<'c, '_, P>,
) {
    let exact = vec![Elem::F64; elems.len()];
    if k.manner.sums == Sums::InThreads {
        let kept = [Extent::Fixed(image.channels)];
        let summed = [image.n, Extent::Fixed(image.positions)];
        let inner = if image.has_channels_innermost() {
            Inner::Kept
        } else {
            Inner::Summed
        };
        let mut add = |e: &Emitter<'c>, at: &[Index<'c>], sums: &[Val<'c>]| {
            // This does not depend on the term, so it leaves the loop.
            let prepared = e.prepared(|e| channel(e, at[0]));
            body(e, &prepared, &[at[1], at[0], at[2]], sums)
        };
        return e.sum_in_threads(&kept, &summed, inner, &exact, &mut add, &|e, at, sums| {
            let prepared = channel(e, at[0]);
            store(e, at[0], &prepared, sums);
        });
    }
    if image.has_channels_innermost() {
        return e.blocks(image.channels, rows::MOST_CHANNELS, &|e, first, count| {
            let kept = e.undivided(|e| Kept::new(e, first, count, width, channel));
            let add = |e: &Emitter<'c>, run: &Run<'c>, totals: &Totals<'c>| {
                let of_row = |e: &Emitter<'c>, i: Index<'c>, row: Row<'c>, sums: &[Val<'c>]| {
                    body(e, &kept.load(e, i), &row.at(e.index_add(first, i)), sums)
                };
                run.sums(e, elems, (count, width), &of_row, &|e, i, sums| {
                    totals.add(e, i, sums)
                });
            };
            let store = |e: &Emitter<'c>, i: Index<'c>, sums: &[Val<'c>]| {
                store(e, e.index_add(first, i), &kept.load(e, i), sums);
            };
            let partials = partials(k, elems.len(), image);
            let size = (elems.len(), width);
            rows::sums(e, image, partials.as_ref(), (first, count), size, &add, &store);
        });
    }
    e.divided(&[Extent::Fixed(image.channels)], |e, at| {
        let c = at[0];
        let prepared = channel(e, c);
        let total = e.sum_over(&[image.n], image.positions, width, &exact, &mut |e, at, inner| {
            body(e, &prepared, &[at[0], c, at[1]], inner)
        });
        e.with_lanes(1, |e| store(e, c, &prepared, &total));
    });
}
