//! Copies of plain images: columns of channels out of planes, one for each channel.

use syncbn_ir::schedule::FEW_CHANNELS;

use super::{Copy, Source, Stripes};
use crate::emit::{Emitter, Pointer, Val};

impl<'c> Copy<'c> {
    /// Copies `count` columns out of planes, one for each channel.
    pub(super) fn fill_planes(
        &self,
        e: &Emitter<'c>,
        source: &Source<'c>,
        from: Pointer<'c>,
        to: Pointer<'c>,
        count: i64,
    ) {
        let (channels, spread) = (source.channels, self.spreads[2]);
        let plane: i64 = source.sizes.iter().product();
        let lanes = self.lanes as i64;
        let mut done = 0;
        // Few channels are put between each other in registers.
        let is_vector = self.lanes > 1 && spread == 1 && self.panel.column == channels;
        if is_vector && channels <= FEW_CHANNELS as i64 {
            e.each_of(count / lanes, |e, i| {
                let (from, to) = (e.advance(from, i, lanes), e.advance(to, i, lanes * channels));
                let values: Vec<Val<'c>> = (0..channels)
                    .map(|c| e.read(e.shift(from, c * plane), 0, self.lanes))
                    .collect();
                for (i, value) in woven(e, &values).into_iter().enumerate() {
                    e.write(to, i as i64 * lanes, value);
                }
            });
            done = count / lanes * lanes;
        }
        let Stripes { width, apart } = self.stripes.unwrap_or(Stripes {
            width: channels,
            apart: 0,
        });
        let (from, to) = (
            e.shift(from, done * spread),
            e.shift(to, done * self.panel.column),
        );
        e.each_of(count - done, |e, i| {
            let (from, to) = (e.advance(from, i, spread), e.advance(to, i, self.panel.column));
            e.each_of(channels, |e, c| {
                let v = e.read(e.advance(from, c, plane), 0, 1);
                let [stripe, c] = [e.div(c, e.index(width)), e.rem(c, e.index(width))];
                e.write(e.advance(e.advance(to, stripe, apart), c, 1), 0, v);
            });
        });
    }
}

/// The lanes of some vectors in turn, as so many vectors.
fn woven<'c>(e: &Emitter<'c>, values: &[Val<'c>]) -> Vec<Val<'c>> {
    let (lanes, count) = (values[0].lanes, values.len());
    let vector = |i: usize| {
        // What comes from the vectors so far stands where it stays.
        values
            .iter()
            .enumerate()
            .skip(1)
            .fold(values[0], |woven, (c, &value)| {
                let lane = |j: usize| {
                    let (from, channel) = ((i * lanes + j) / count, (i * lanes + j) % count);
                    match channel {
                        _ if channel == c => lanes + from,
                        0 if c == 1 => from,
                        _ => j,
                    }
                };
                e.pick_lanes([woven, value], &(0..lanes).map(lane).collect::<Vec<_>>())
            })
    };
    (0..count).map(vector).collect()
}
