//! Schedules of a GPU: one thread an element, and sums in two stages.
//!
//! An operator may need several kernels, because nothing but the end of a kernel orders the writes of one block
//! before the reads of another. Its lowering runs once for each of these *stages*; what belongs to another stage
//! emits nothing.

use super::control::{Accumulate, Extent};
use super::grid::{Blocks, THREADS, Work};
use super::lanes::Each;
use super::numbers::Sharing;
use super::{Buffer, Elem, Emitter, Index, Val};

/// Threads that a sum is split over, in all. Fixed, so that the order of additions depends on shapes
/// and the largest batch alone.
const SUM_THREADS: i64 = 1 << 16;

/// Stores the sums that belong to an index.
pub type Finish<'c, 'b> = &'b dyn Fn(&mut Emitter<'c>, &[Index<'c>], &[Val<'c>]);

/// What neighbouring threads of a sum differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// In what they sum up for.
    Kept,
    /// In what they add.
    Summed,
}

/// The state of a GPU kernel under construction.
#[derive(Debug, Clone)]
pub struct Device<'c> {
    /// The stage that is being built.
    stage: usize,
    /// The stage that the lowering has reached.
    position: usize,
    /// Largest batch.
    pub batch_bound: i64,
    /// Samples of this rank.
    n: Val<'c>,
    /// Memory for partial sums.
    pub scratch: Val<'c>,
    /// Bytes of it that are used.
    pub scratch_bytes: i64,
    /// What the stage has to do: the largest of its loops.
    pub work: Work,
    /// How its grid is made.
    pub blocks: Blocks,
    /// How it is shared.
    pub sharing: Sharing<'c>,
}

impl<'c> Device<'c> {
    /// For stage `stage` of a kernel with these arguments.
    pub fn new(stage: usize, batch_bound: i64, n: Val<'c>, scratch: Val<'c>) -> Device<'c> {
        Device {
            stage,
            position: 0,
            batch_bound,
            n,
            scratch,
            scratch_bytes: 0,
            work: Work::default(),
            blocks: Blocks::of_threads(THREADS),
            sharing: Sharing::default(),
        }
    }

    /// Number of stages, once the lowering has run.
    pub fn stages(&self) -> usize {
        self.position + 1
    }

    fn needs(&mut self, work: Work) {
        self.work.fixed = self.work.fixed.max(work.fixed);
        self.work.per_sample = self.work.per_sample.max(work.per_sample);
    }
}

/// Number of elements: in all, or of one sample when there is a batch.
fn elements(extents: &[Extent]) -> (bool, i64) {
    let mut batch = false;
    let mut product = 1;
    for extent in extents {
        match extent {
            Extent::Fixed(n) => product *= n,
            Extent::Batch(_) => batch = true,
        }
    }
    (batch, product)
}

impl<'c> Emitter<'c> {
    /// On a GPU, what follows sees what was written before; on the CPU that is always so.
    pub fn then(&mut self) {
        if let Some(device) = &mut self.device {
            device.position += 1;
        }
    }

    /// Whether what is emitted now belongs to the kernel under construction.
    pub fn is_current(&self) -> bool {
        self.device.as_ref().is_none_or(|d| d.stage == d.position)
    }

    /// Runs `body` once: on a GPU in one thread.
    pub fn once(&mut self, body: impl FnOnce(&mut Self)) {
        if self.device.is_none() {
            return body(self);
        }
        if !self.is_current() {
            return;
        }
        if let Some(device) = &mut self.device {
            device.needs(Work {
                fixed: 1,
                per_sample: 0,
            });
        }
        let (id, zero) = (self.thread()[0], self.index(0));
        let first = self.compare(super::Compare::Eq, id, zero);
        self.when(first, body);
    }

    /// Number of this thread in the grid, and number of threads in the grid.
    fn thread(&mut self) -> [Val<'c>; 2] {
        let [thread, block, size, blocks] = ["tid", "ctaid", "ntid", "nctaid"]
            .map(|name| self.op1(&format!("nvvm.read.ptx.sreg.{name}.x"), &[], (Elem::I32, 1), &[]));
        let first = self.mul(block, size);
        [self.add(first, thread), self.mul(size, blocks)]
    }

    /// The size of an extent.
    fn size(&mut self, extent: Extent<'c>) -> Val<'c> {
        match extent {
            Extent::Fixed(n) => self.index(n),
            Extent::Batch(n) => n,
        }
    }

    /// Row-major indices along `extents` of element `flat`.
    fn unflatten(&mut self, extents: &[Extent<'c>], flat: Index<'c>) -> Vec<Index<'c>> {
        let mut rest = flat;
        let mut at = vec![Index::constant(0); extents.len()];
        for (i, &extent) in extents.iter().enumerate().rev() {
            if let Extent::Fixed(1) = extent {
                continue;
            }
            if extents[..i].iter().all(|e| matches!(e, Extent::Fixed(1))) {
                at[i] = rest;
                break;
            }
            let (size, value) = (self.size(extent), self.index_value(rest));
            at[i] = Index::uniform(self.rem(value, size));
            rest = Index::uniform(self.div(value, size));
        }
        at
    }

    /// Number of elements along extents, at run time.
    fn count(&mut self, extents: &[Extent<'c>]) -> Val<'c> {
        let (batch, per) = elements(extents);
        let per = self.index(per);
        match (batch, &self.device) {
            (true, Some(device)) => {
                let n = device.n;
                self.mul(per, n)
            }
            _ => per,
        }
    }

    /// `body` for every index of the axes, one thread each.
    pub(super) fn map_threads(&mut self, extents: &[Extent<'c>], body: Each<'c, '_>) {
        if !self.is_current() {
            return;
        }
        let (batch, per) = elements(extents);
        if let Some(device) = &mut self.device {
            device.needs(match batch {
                true => Work {
                    fixed: 0,
                    per_sample: per,
                },
                false => Work {
                    fixed: per,
                    per_sample: 0,
                },
            });
        }
        let [id, threads] = self.thread();
        let count = self.count(extents);
        self.for_steps([id, count, threads], &[], |e, i, _| {
            let at = e.unflatten(extents, Index::uniform(i));
            body(e, &at);
            Vec::new()
        });
    }

    /// `body` for every index of `low..high`, which are known at run time only, one thread each.
    pub fn range_in_threads(&mut self, [low, high]: [Val<'c>; 2], body: impl Fn(&mut Self, Index<'c>)) {
        let [id, threads] = self.thread();
        let first = self.add(low, id);
        self.for_steps([first, high, threads], &[], |e, i, _| {
            body(e, Index::uniform(i));
            Vec::new()
        });
    }

    /// Sums over `summed` for every index of `kept`, whose extents are fixed: partial sums of many threads, and
    /// in the next stage their sum in f64, in a fixed order. `body` gets the indices of `kept` and then those of
    /// `summed`; `store` gets an index of `kept` and its sums.
    pub fn sum_in_threads(
        &mut self,
        kept: &[Extent<'c>],
        summed: &[Extent<'c>],
        inner: Inner,
        elems: &[Elem],
        body: Accumulate<'c, '_>,
        store: Finish<'c, '_>,
    ) {
        let Some(device) = &self.device else { return };
        let (_, outputs) = elements(kept);
        let (batch, rows) = elements(summed);
        let bound = if batch { rows * device.batch_bound } else { rows };
        let parts = (SUM_THREADS / outputs).clamp(1, bound.max(1));
        let buffers = self.partials(outputs, parts, inner, elems);
        let split = [Extent::Fixed(parts), Extent::Fixed(outputs)];
        if self.is_current() {
            let order = match inner {
                Inner::Kept => split,
                Inner::Summed => [split[1], split[0]],
            };
            let body = std::cell::RefCell::new(body);
            self.map_threads(&order, &|e, at| {
                let (part, output) = match inner {
                    Inner::Kept => (at[0], at[1]),
                    Inner::Summed => (at[1], at[0]),
                };
                let kept_at = e.unflatten(kept, output);
                let start: Vec<Val<'c>> = elems.iter().map(|&elem| e.zero(elem)).collect();
                let (low, high, step) = (e.index_value(part), e.count(summed), e.index(parts));
                let sums = e.for_steps([low, high, step], &start, |e, row, sums| {
                    let row = e.unflatten(summed, Index::uniform(row));
                    (body.borrow_mut())(e, &[kept_at.clone(), row].concat(), sums)
                });
                for (buffer, sum) in buffers.iter().zip(sums) {
                    e.store(buffer, &[part, output], sum);
                }
            });
        }
        self.then();
        self.map_threads(kept, &|e, at| {
            let mut output = Index::constant(0);
            for (&i, extent) in at.iter().zip(kept) {
                if let Extent::Fixed(n) = *extent {
                    output = e.index_scale(output, n);
                }
                output = e.index_add(output, i);
            }
            let start: Vec<Val<'c>> = elems.iter().map(|_| e.zero(Elem::F64)).collect();
            let sums = e.fold(Extent::Fixed(parts), &start, |e, part, sums| {
                buffers
                    .iter()
                    .zip(sums)
                    .map(|(buffer, &sum)| {
                        let v = e.load(buffer, &[part, output], None);
                        let v = e.convert(v, Elem::F64);
                        e.add(sum, v)
                    })
                    .collect()
            });
            store(e, at, &sums);
        });
    }

    /// Buffers `[part, output]` in scratch memory, one for each sum.
    fn partials(&mut self, outputs: i64, parts: i64, inner: Inner, elems: &[Elem]) -> Vec<Buffer<'c>> {
        let strides = match inner {
            Inner::Kept => [outputs, 1],
            Inner::Summed => [1, parts],
        };
        let Some(device) = &mut self.device else {
            return Vec::new();
        };
        let scratch = device.scratch;
        let mut used: i64 = 0;
        let mut offsets = Vec::new();
        for elem in elems {
            let offset = (used + 255) / 256 * 256;
            offsets.push(offset);
            used = offset + outputs * parts * elem.bytes();
        }
        device.scratch_bytes = device.scratch_bytes.max(used);
        let buffer = |(offset, &elem): (i64, &Elem)| {
            let mut buffer = Buffer::new(scratch, elem, &strides);
            buffer.offset = offset / elem.bytes();
            buffer
        };
        offsets.into_iter().zip(elems).map(buffer).collect()
    }
}
