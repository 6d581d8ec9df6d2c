//! Loops over `[n, channels, positions]` with work that is done once a channel.

use super::kernel::Image;
use crate::emit::{Elem, Emitter, Extent, Index, Inner, Val};

/// Adds what stands at an index to the sums of its channel.
type Add<'c, 'b, P> = &'b dyn Fn(&Emitter<'c>, &P, &[Index<'c>], &[Val<'c>]) -> Vec<Val<'c>>;
/// Stores the sums of a channel.
type Store<'c, 'b, P> = &'b dyn Fn(&Emitter<'c>, Index<'c>, &P, &[Val<'c>]);

/// Runs `body` over `[n, channels, positions]` with what `channel` prepares once a channel. Lanes run over
/// positions, or over channels where there is one position or (on a GPU) where they are innermost.
pub fn per_channel<'c, P>(
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
    if e.is_device() && image.has_channels_innermost() {
        let rows = [axes[0], axes[2]];
        return e.map_rows(&rows, image.channels, channel, &|e, prepared, at| {
            body(e, prepared, &[at[0], at[2], at[1]]);
        });
    }
    if e.is_device() {
        return e.map_along(&axes, &image.strides, width, &|e, at| {
            let prepared = channel(e, at[1]);
            body(e, &prepared, at);
        });
    }
    if image.positions == 1 {
        return e.map(&axes[..2], width, &|e, at| {
            let prepared = channel(e, at[1]);
            body(e, &prepared, &[at[0], at[1], Index::constant(0)]);
        });
    }
    e.for_each(image.n, |e, n| {
        e.for_each(Extent::Fixed(image.channels), |e, c| {
            let prepared = channel(e, c);
            e.map(&[Extent::Fixed(image.positions)], width, &|e, at| {
                body(e, &prepared, &[n, c, at[0]])
            });
        });
    });
}

/// Sums over samples and positions of every channel, in f64; `store` gets the channel and its sums.
pub fn channel_sums<'c, P>(
    e: &Emitter<'c>,
    image: Image<'c>,
    width: usize,
    sums: usize,
    channel: &dyn Fn(&Emitter<'c>, Index<'c>) -> P,
    body: Add<'c, '_, P>,
    store: Store<'c, '_, P>,
) {
    let elems = vec![Elem::F64; sums];
    if e.is_device() {
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
        return e.sum_in_threads(&kept, &summed, inner, &elems, &mut add, &|e, at, sums| {
            let prepared = channel(e, at[0]);
            store(e, at[0], &prepared, sums);
        });
    }
    if image.positions == 1 {
        return e.map(&[Extent::Fixed(image.channels)], width, &|e, at| {
            let prepared = channel(e, at[0]);
            let zero = e.zero(Elem::F64);
            let start = vec![e.splat(zero, e.lanes()); sums];
            let total = e.fold(image.n, &start, |e, n, inner| {
                body(e, &prepared, &[n, at[0], Index::constant(0)], inner)
            });
            store(e, at[0], &prepared, &total);
        });
    }
    e.for_each(Extent::Fixed(image.channels), |e, c| {
        let prepared = channel(e, c);
        let total = e.sum_over(&[image.n], image.positions, width, &elems, &mut |e, at, inner| {
            body(e, &prepared, &[at[0], c, at[1]], inner)
        });
        e.with_lanes(1, |e| store(e, c, &prepared, &total));
    });
}
