//! Sums on a GPU, in two kernels: partial sums of many threads, and their sum in a fixed order.

use std::cell::Ref;

use syncbn_ir::schedule::partials_begin;

use super::control::{Accumulate, Extent};
use super::cost::Share;
use super::device::elements;
use super::{Buffer, Device, Elem, Emitter, Index, Val};

/// Lanes of a sum at most: it has several f64 values for each.
pub(super) const LANES: usize = 4;

/// Adds a term to the sums that it belongs to.
type Add<'c, 'b> = &'b dyn Fn(&Emitter<'c>, &[Index<'c>], &[Val<'c>]) -> Vec<Val<'c>>;

/// Stores the sums that belong to an index.
pub type Finish<'c, 'b> = &'b dyn Fn(&Emitter<'c>, &[Index<'c>], &[Val<'c>]);

/// What neighbouring threads of a sum differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// In what they sum up for.
    Kept,
    /// In what they add.
    Summed,
}

/// A sum to be taken.
pub(super) struct Sum<'c, 'b> {
    pub(super) kept: &'b [Extent<'c>],
    pub(super) summed: &'b [Extent<'c>],
    pub(super) inner: Inner,
    pub(super) elems: &'b [Elem],
    pub(super) body: Add<'c, 'b>,
    pub(super) store: Finish<'c, 'b>,
    /// Results at the largest batch.
    pub(super) results: i64,
}

impl Sum<'_, '_> {
    /// Bytes of all partial sums.
    pub(super) fn partial_bytes(&self, parts: i64) -> i64 {
        self.results * parts * self.result_bytes()
    }

    /// Bytes of one partial sum of a result.
    pub(super) fn result_bytes(&self) -> i64 {
        self.elems.iter().map(|elem| elem.bytes()).sum()
    }
}

impl<'c> Emitter<'c> {
    /// Sums over `summed` for every index of `kept`: partial sums of as many threads as the device is told, and in a second
    /// kernel of the stage their sum in f64, in a fixed order. The stage has no other loops, but for [`Emitter::once`].
    /// `body` gets the indices of `kept` and then those of `summed`; `store` gets an index of `kept` and its sums. Where one
    /// thread is enough for a result there is one kernel.
    pub fn sum_in_threads(
        &self,
        kept: &[Extent<'c>],
        summed: &[Extent<'c>],
        inner: Inner,
        elems: &[Elem],
        body: Accumulate<'c, '_>,
        store: Finish<'c, '_>,
    ) {
        let of_device = |device: Ref<'_, Device<'c>>| (device.batch_bound, device.merges, device.parts);
        let Some((batch_bound, merges, parts)) = self.device().map(of_device) else {
            return;
        };
        let bound = |extents: &[Extent<'c>]| match elements(extents) {
            (true, per) => per * batch_bound,
            (false, all) => all,
        };
        let body = std::cell::RefCell::new(body);
        let sum = Sum {
            kept,
            summed,
            inner,
            elems,
            body: &|e, at, sums| (body.borrow_mut())(e, at, sums),
            store,
            results: bound(kept),
        };
        match merges {
            true => {
                let buffers = self.partial_sums(&sum, parts);
                self.merge(&sum, parts, &buffers);
            }
            false => {
                let lanes = self.lanes_of_sum(&sum, parts);
                self.add_in_threads(&sum, lanes, parts);
            }
        }
    }

    /// How many neighbouring results a thread adds up.
    fn lanes_of_sum(&self, sum: &Sum<'c, '_>, parts: i64) -> usize {
        match (sum.inner, sum.kept.last()) {
            (Inner::Kept, Some(&Extent::Fixed(size))) => {
                self.lanes_for_threads(size, LANES, &|e| e.add_parts(sum, parts))
            }
            _ => 1,
        }
    }

    /// The first kernel.
    fn add_in_threads(&self, sum: &Sum<'c, '_>, lanes: usize, parts: i64) {
        let (batch, per) = elements(sum.kept);
        if let Some(mut device) = self.device_mut() {
            device.needs(batch, per * parts / lanes as i64);
            device.leaves_parts = parts > 1;
        }
        self.note_cost(|cost| {
            cost.lanes = lanes as i64;
            if parts > 1 {
                cost.share = Share::Partial;
                cost.workspace_written = sum.partial_bytes(parts);
            }
        });
        self.with_lanes(lanes, |e| e.add_parts(sum, parts));
    }

    /// Adds every `parts`-th term of a result, for every part and result.
    fn add_parts(&self, sum: &Sum<'c, '_>, parts: i64) {
        let buffers = self.partial_sums(sum, parts);
        let mut kept = sum.kept.to_vec();
        if let Some(Extent::Fixed(size)) = kept.last_mut() {
            *size /= self.lanes() as i64;
        }
        let split = [Extent::Fixed(parts)];
        let order = match sum.inner {
            Inner::Kept => [&split, &kept[..]].concat(),
            Inner::Summed => [&kept[..], &split].concat(),
        };
        let [id, threads] = self.thread();
        let count = self.count(&order);
        self.for_steps([id, count, threads], &[], |e, i, _| {
            let mut at = e.unflatten(&order, Index::uniform(i));
            let part = match sum.inner {
                Inner::Kept => at.remove(0),
                Inner::Summed => at.pop().unwrap_or(Index::constant(0)),
            };
            if let Some(last) = at.last_mut() {
                *last = e.lanes_of(*last);
            }
            let zeros = sum.elems.iter().map(|&elem| e.zero(elem));
            let zeros: Vec<Val<'c>> = zeros.collect();
            let start: Vec<Val<'c>> = zeros.into_iter().map(|zero| e.splat(zero, e.lanes())).collect();
            let (low, high, step) = (e.index_value(part), e.count(sum.summed), e.index(parts));
            let sums = e.for_steps([low, high, step], &start, |e, term, sums| {
                let term = e.unflatten(sum.summed, Index::uniform(term));
                (sum.body)(e, &[at.as_slice(), &term].concat(), sums)
            });
            e.prepared(|e| {
                if parts == 1 {
                    let sums: Vec<Val<'c>> = sums.iter().map(|&v| e.convert(v, Elem::F64)).collect();
                    return (sum.store)(e, &at, &sums);
                }
                let result = e.flatten(sum.kept, &at);
                for (buffer, &sum) in buffers.iter().zip(&sums) {
                    e.store(buffer, &[part, result], sum);
                }
            });
            Vec::new()
        });
    }

    /// Row-major number of an index along `extents`.
    pub(super) fn flatten(&self, extents: &[Extent<'c>], at: &[Index<'c>]) -> Index<'c> {
        let mut flat = Index::constant(0);
        for (&i, extent) in at.iter().zip(extents) {
            if let Extent::Fixed(n) = *extent {
                flat = self.index_scale(flat, n);
            }
            flat = self.index_add(flat, i);
        }
        flat
    }

    /// Buffers `[part, result]` in the workspace, one for each sum.
    fn partial_sums(&self, sum: &Sum<'c, '_>, parts: i64) -> Vec<Buffer<'c>> {
        let strides = match sum.inner {
            Inner::Kept => [sum.results, 1],
            Inner::Summed => [1, parts],
        };
        let Some(mut device) = self.device_mut() else {
            return Vec::new();
        };
        let workspace = device.workspace;
        let mut used: i64 = 0;
        let mut offsets = Vec::new();
        for elem in sum.elems {
            let offset = partials_begin(used as u64) as i64;
            offsets.push(offset);
            used = offset + sum.results * parts * elem.bytes();
        }
        if parts > 1 && device.trial.is_none() {
            device.uses_workspace(used);
        }
        let buffer = |(offset, &elem): (i64, &Elem)| {
            let mut buffer = Buffer::new(workspace, elem, &strides);
            buffer.offset = offset / elem.bytes();
            buffer
        };
        offsets.into_iter().zip(sum.elems).map(buffer).collect()
    }
}
