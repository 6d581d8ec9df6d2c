//! Direct convolution, and its gradient for the input: tiles of pixels x output channels in registers, over a padded
//! copy of some rows of the input.

mod tile;

use syncbn_ir::ops::{Conv, ConvBackwardData};
use syncbn_ir::schedule::axis::{
    Axis, Phase, backward_data as phases_of, blocks as blocks_of, flattened, forward as phase_of,
    leaves_moments, most, samples_of_block, three,
};

use super::Blocking;
use super::columns::{self, Columns, each_columns};
use super::epilogue::Epilogue;
use super::filter::{self, Filter};
use super::items::{Items, place};
use super::moments::{Sums, Tally};
use super::panel::{Copy, Source};
use crate::emit::{Compare, Emitter, Pointer, Val};
use crate::ops::kernel::{Kernel, Tensor, fixed};
use crate::ops::moments::moments as read_again;
use crate::ops::window::spatial;

/// `y[n, k, o] = act(residual[n, k, o] + bias[k] + sum over c, t of x[n, c, o*stride + t*dilation - pad] * w[k, c, t])`
pub fn forward<'c>(b: &Blocking<'c>, op: &Conv, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
    let (x, w, y) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let window = op.window(&w.ty)?;
    let (window, inputs, outputs) = flattened(&window, &spatial(&x.ty), &spatial(&y.ty), b.pixels);
    let groups = op.groups as i64;
    let phases = [phase_of(&window, &outputs)];
    let moments = match op.moments && leaves_moments(&phases, b.rows) {
        true => Some(Sums::new(k, &phases, b.rows)?),
        false => None,
    };
    Sum {
        blocking: *b,
        n: k.n,
        groups,
        phases: phases.to_vec(),
        source: Source::new(x, three(&inputs)),
        target: y,
        target_sizes: three(&outputs),
        reduced: fixed(x.ty.shape.0[1]) / groups,
        filter: Filter::of(
            w,
            b.lanes,
            three(&window.kernel.iter().map(|&n| n as i64).collect::<Vec<_>>()),
        ),
        epilogue: Epilogue::new(op, k),
        moments,
        panel: b.own,
    }
    .emit(e);
    if op.moments {
        e.meet();
        match moments {
            Some(moments) => moments.merge(k, e, most(&phases, 0)),
            None => read_again(k, &k.results[0], &k.results[1], e),
        }
    }
    Ok(())
}

/// `dx[n, c, i] = sum over k, t of dy[n, k, o] * w[k, c, t]` where `o*stride = i + pad - t*dilation`
pub fn backward_data<'c>(
    b: &Blocking<'c>,
    op: &ConvBackwardData,
    k: &Kernel<'c>,
    e: &Emitter<'c>,
) -> Result<(), String> {
    let (dy, w, dx) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let window = op.window(&w.ty)?;
    let (window, inputs, outputs) = flattened(&window, &spatial(&dx.ty), &spatial(&dy.ty), b.pixels);
    let groups = op.groups as i64;
    let kernel = three(&window.kernel.iter().map(|&n| n as i64).collect::<Vec<_>>());
    let own = Filter::of(w, b.lanes, kernel);
    let workspace = Pointer::new(b.workspace, w.memory_elem());
    let (transposed, used) = filter::transpose(e, &own, workspace, groups);
    e.meet();
    Sum {
        blocking: *b,
        n: k.n,
        groups,
        phases: phases_of(&window, &inputs),
        source: Source::new(dy, three(&outputs)),
        target: dx,
        target_sizes: three(&inputs),
        reduced: fixed(dy.ty.shape.0[1]) / groups,
        filter: transposed,
        epilogue: Epilogue::none(),
        moments: None,
        panel: e.shift(Pointer::new(b.own, w.memory_elem()), used).address,
    }
    .emit(e);
    Ok(())
}

/// Rows of outputs that are computed from one copy, or all rows of several samples.
#[derive(Clone, Copy)]
struct Block<'c> {
    /// Its number among those of all samples; of several, the first one's.
    number: Val<'c>,
    /// How many samples, if there may be several.
    samples: Option<Val<'c>>,
    /// What is read of it.
    copy: Copy<'c>,
    /// Elements from what is read of a sample to that of the next one.
    apart: i64,
    /// Sample, slice and first row.
    place: [Val<'c>; 3],
    /// Behind its last row.
    end: Val<'c>,
}

/// Sums over taps and channels for every element of a target.
struct Sum<'a, 'c> {
    blocking: Blocking<'c>,
    n: Val<'c>,
    groups: i64,
    phases: Vec<Phase>,
    source: Source<'c>,
    target: &'a Tensor<'c>,
    target_sizes: [i64; 3],
    /// Channels of the source of a group.
    reduced: i64,
    filter: Filter<'c>,
    epilogue: Epilogue<'c>,
    /// Sums of what is stored, if there are such.
    moments: Option<Sums<'c>>,
    /// Where this thread copies rows of the source.
    panel: Val<'c>,
}

impl<'c> Sum<'_, 'c> {
    fn emit(&self, e: &Emitter<'c>) {
        let rows = most(&self.phases, 1);
        let rows_of_block = self.blocking.rows.clamp(1, rows);
        let copy = Copy::new(
            &self.phases,
            rows_of_block,
            &self.source,
            self.panel,
            self.blocking.lanes,
        );
        let in_place = copy.is_image(&self.phases, &self.source);
        let apart = match in_place {
            true => self.source.sample(),
            false => copy.panel.elements(),
        };
        let read = |e: &Emitter<'c>, sample: Val<'c>, at: Pointer<'c>, [z, y]: [Val<'c>; 2]| {
            let image = e.advance(self.source.pointer, sample, self.source.sample());
            match in_place {
                true => copy.of_image(e, image, &self.source, [z, y]),
                false => {
                    copy.fill(e, at, &self.source, image, [z, y]);
                    copy
                }
            }
        };
        let samples = samples_of_block(&self.phases, self.blocking.rows);
        let [zero, high] = [0, rows].map(|n| e.index(n));
        if samples > 1 {
            let samples = e.index(samples);
            let blocks = e.div(e.add(self.n, e.sub(samples, e.index(1))), samples);
            let items = Items::new(e, blocks, self.items());
            return items.each(e, |e, block, part| {
                let first = e.mul(block, samples);
                let count = e.min(samples, e.sub(self.n, first));
                let first_read = match in_place {
                    true => read(e, first, copy.pointer, [zero; 2]),
                    false => {
                        e.each_in(zero, count, |e, i| {
                            read(e, e.add(first, i), e.advance(copy.pointer, i, apart), [zero; 2]);
                        });
                        copy
                    }
                };
                let block = Block {
                    number: first,
                    samples: Some(count),
                    copy: first_read,
                    apart,
                    place: [first, zero, zero],
                    end: high,
                };
                self.block(e, part, block);
            });
        }
        let [depth, blocks] = blocks_of(&self.phases, rows_of_block).map(|n| e.index(n));
        let slices = e.mul(self.n, depth);
        let items = Items::new(e, e.mul(slices, blocks), self.items());
        items.each(e, |e, number, part| {
            let place = place(e, number, [depth, blocks], rows_of_block);
            let [n, z, y] = place;
            let end = match rows % rows_of_block {
                0 => e.add(y, e.index(rows_of_block)),
                _ => e.min(e.add(y, e.index(rows_of_block)), high),
            };
            let block = Block {
                number,
                samples: None,
                copy: read(e, n, copy.pointer, [z, y]),
                apart,
                place,
                end,
            };
            self.block(e, part, block);
        });
    }

    /// Into how many parts the work on a panel can be divided: groups, or columns of tiles.
    fn items(&self) -> i64 {
        match self.groups {
            1 => columns::count(&self.blocking, self.filter.outputs),
            groups => groups,
        }
    }

    /// The outputs of a block, of these groups or columns, or of all.
    fn block(&self, e: &Emitter<'c>, part: Option<[Val<'c>; 2]>, block: Block<'c>) {
        let channels = self.filter.outputs / self.groups;
        let of_group = |e: &Emitter<'c>, group: Val<'c>, part: Option<[Val<'c>; 2]>| {
            each_columns(e, &self.blocking, (channels, part), group, |e, columns| {
                let Some(samples) = block.samples else {
                    return self.columns(e, columns, &block);
                };
                e.each_in(e.index(0), samples, |e, i| {
                    let [n, z, y] = block.place;
                    let of_sample = Block {
                        number: e.add(block.number, i),
                        copy: block.copy.at(e.advance(block.copy.pointer, i, block.apart)),
                        place: [e.add(n, i), z, y],
                        ..block
                    };
                    self.columns(e, columns, &of_sample);
                });
            });
        };
        match (self.groups, part) {
            (1, part) => of_group(e, e.index(0), part),
            (_, Some([low, high])) => e.each_in(low, high, |e, group| of_group(e, group, None)),
            (groups, None) => e.each_of(groups, |e, group| of_group(e, group, None)),
        }
    }

    /// These columns of a block's outputs.
    fn columns(&self, e: &Emitter<'c>, columns: Columns<'c>, block: &Block<'c>) {
        let tally = self.tally(e, columns, block);
        for phase in &self.phases {
            self.phase(e, phase, columns, block, tally);
        }
        if let Some(tally) = tally {
            tally.finish(e);
        }
    }

    fn phase(
        &self,
        e: &Emitter<'c>,
        phase: &Phase,
        columns: Columns<'c>,
        &Block { copy, place, end, .. }: &Block<'c>,
        tally: Option<Tally<'c>>,
    ) {
        let [az, ay, ax] = phase;
        let [n, z, y] = place;
        let body = |e: &Emitter<'c>| {
            let end = match ay.outputs < most(&self.phases, 1) {
                true => e.min(end, e.index(ay.outputs)),
                false => end,
            };
            let rows = |e: &Emitter<'c>, [first, end]: [Val<'c>; 2]| {
                e.each_in(first, end, |e, row| {
                    self.row(e, &copy, phase, columns, [n, z, y, row])
                });
            };
            match tally {
                None => rows(e, [y, end]),
                Some(tally) => {
                    let some = Tally::rows(ax.outputs);
                    e.for_range(y, end, some, &[], |e, low, _| {
                        let high = e.min(e.add(low, e.index(some)), end);
                        rows(e, [low, high]);
                        let from = self.target_row(e, phase, [n, z, low], columns);
                        let positions = e.mul(e.sub(high, low), e.index(ax.outputs));
                        tally.add(e, from, positions);
                        Vec::new()
                    });
                }
            }
        };
        match az.outputs < most(&self.phases, 0) {
            true => {
                let inside = e.compare(Compare::Below, z, e.index(az.outputs));
                e.when(inside, body);
            }
            false => body(e),
        }
    }

    /// Sums of these channels' outputs of a block, of none so far.
    fn tally(&self, e: &Emitter<'c>, columns: Columns<'c>, block: &Block<'c>) -> Option<Tally<'c>> {
        let moments = self.moments?;
        let first = self.target_row(e, &self.phases[0], block.place, columns);
        let channel = self.channel(e, columns);
        let tally = moments.tally(e, block.number, [channel, first], (columns, self.blocking.lanes));
        tally.clear(e);
        Some(tally)
    }

    /// The first of these channels, counted through all groups.
    fn channel(&self, e: &Emitter<'c>, columns: Columns<'c>) -> Val<'c> {
        let per_group = self.filter.outputs / self.groups;
        e.add(e.mul(columns.group, e.index(per_group)), columns.first)
    }

    /// Where a row's outputs of these channels begin, in elements of the target.
    fn target_row(
        &self,
        e: &Emitter<'c>,
        phase: &Phase,
        [n, z, y]: [Val<'c>; 3],
        columns: Columns<'c>,
    ) -> Val<'c> {
        let out = |i: Val<'c>, axis: &Axis| e.add(e.mul(i, e.index(axis.out_step)), e.index(axis.out_start));
        let [depth, height, width] = self.target_sizes;
        let at = e.add(e.mul(n, e.index(depth)), out(z, &phase[0]));
        let at = e.add(e.mul(at, e.index(height)), out(y, &phase[1]));
        let at = e.add(e.mul(at, e.index(width)), e.index(phase[2].out_start));
        e.add(e.mul(at, e.index(self.filter.outputs)), self.channel(e, columns))
    }
}
