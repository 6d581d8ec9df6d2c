//! The state of a GPU's kernel: its stages, and what they have to do.
//!
//! An operator may need several kernels, because nothing but the end of a kernel orders the writes of one block
//! before the reads of another. Its lowering runs once for each of these *stages*; what belongs to another stage
//! emits nothing.

use super::control::Extent;
use super::cost::Cost;
use super::grid::{Blocks, THREADS, Work};
use super::numbers::Sharing;
use super::threads::Trial;
use super::{Buffer, Elem, Emitter, Index, Val};

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
    /// What the stage costs.
    pub cost: Cost,
    /// How it is shared.
    pub sharing: Sharing<'c>,
    /// Present while lanes are tried.
    pub(super) trial: Option<Trial>,
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
            cost: Cost::default(),
            sharing: Sharing::default(),
            trial: None,
        }
    }

    /// Number of stages, once the lowering has run.
    pub fn stages(&self) -> usize {
        self.position + 1
    }

    /// Whether the lowering has not passed the stage that is being built.
    pub(super) fn has_reached_stage(&self) -> bool {
        self.position <= self.stage
    }

    /// Takes account of a loop over this many threads: in all, or for each sample when there is a batch.
    pub(super) fn needs(&mut self, batch: bool, threads: i64) {
        match batch {
            true => self.work.per_sample = self.work.per_sample.max(threads),
            false => self.work.fixed = self.work.fixed.max(threads),
        }
    }
}

/// Number of elements: in all, or of one sample when there is a batch.
pub(super) fn elements(extents: &[Extent]) -> (bool, i64) {
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
    pub fn then(&self) {
        if let Some(mut device) = self.device_mut() {
            device.position += 1;
        }
    }

    /// Whether what is emitted now belongs to the kernel under construction.
    pub fn is_current(&self) -> bool {
        self.device().is_none_or(|d| d.stage == d.position)
    }

    /// Leaves the threads of the kernel under construction the registers of so many blocks in a multiprocessor.
    pub fn bound_resident(&self, blocks: u32) {
        let current = self.is_current();
        if let Some(mut device) = self.device_mut().filter(|_| current) {
            device.blocks.resident = Some(blocks);
        }
    }

    /// A buffer in a GPU's scratch memory, from its beginning. Sums use it too.
    pub fn scratch(&self, elem: Elem, strides: &[i64], elements: i64) -> Buffer<'c> {
        let Some(mut device) = self.device_mut() else {
            unreachable!("only kernels of a GPU have scratch memory");
        };
        device.scratch_bytes = device.scratch_bytes.max(elements * elem.bytes());
        Buffer::new(device.scratch, elem, strides)
    }

    /// Runs `body` once: on a GPU in one thread.
    pub fn once(&self, body: impl FnOnce(&Self)) {
        if !self.is_device() {
            return body(self);
        }
        if !self.is_current() {
            return;
        }
        if let Some(mut device) = self.device_mut() {
            device.needs(false, 1);
        }
        let (id, zero) = (self.thread()[0], self.index(0));
        let first = self.compare(super::Compare::Eq, id, zero);
        self.when(first, body);
    }

    /// Number of this thread in the grid, and number of threads in the grid.
    pub(super) fn thread(&self) -> [Val<'c>; 2] {
        let [thread, block, size, blocks] = ["tid", "ctaid", "ntid", "nctaid"]
            .map(|name| self.op1(&format!("nvvm.read.ptx.sreg.{name}.x"), &[], (Elem::I32, 1), &[]));
        let first = self.mul(block, size);
        [self.add(first, thread), self.mul(size, blocks)]
    }

    /// The size of an extent.
    fn size(&self, extent: Extent<'c>) -> Val<'c> {
        match extent {
            Extent::Fixed(n) => self.index(n),
            Extent::Batch(n) => n,
        }
    }

    /// Row-major indices along `extents` of element `flat`.
    pub(super) fn unflatten(&self, extents: &[Extent<'c>], flat: Index<'c>) -> Vec<Index<'c>> {
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
    pub(super) fn count(&self, extents: &[Extent<'c>]) -> Val<'c> {
        let (batch, per) = elements(extents);
        self.in_all(batch, per)
    }

    /// `per`, or where there is a batch so many for each sample.
    pub(super) fn in_all(&self, batch: bool, per: i64) -> Val<'c> {
        let per = self.index(per);
        match self.device().filter(|_| batch).map(|device| device.n) {
            Some(n) => self.mul(per, n),
            None => per,
        }
    }
}
