//! The state of a GPU's kernel under construction, and what is known of a kernel besides its code.

use super::control::Extent;
use super::cost::Cost;
use super::grid::{Blocks, THREADS, Work};
use super::{Buffer, Elem, Emitter, Index, Val};

/// What a kernel has to do, needs and costs: all that is known of it besides its code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Footprint {
    /// What there is to do: the largest of its loops.
    pub work: Work,
    /// How its grid is made.
    pub blocks: Blocks,
    /// What it costs.
    pub cost: Cost,
    /// Bytes of its node's workspace that are used.
    pub workspace_bytes: i64,
}

/// What is found out about a body with lanes.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// Whether all its accesses are scalars or whole vectors.
    pub(super) possible: bool,
    /// Bytes of the widest element of a vector that is not prepared for several ones.
    pub(super) widest: i64,
}

/// The state of a GPU kernel under construction.
#[derive(Debug, Clone)]
pub struct Device<'c> {
    /// Largest batch.
    pub batch_bound: i64,
    /// Samples of this rank.
    n: Val<'c>,
    /// The node's workspace.
    pub workspace: Val<'c>,
    /// Parts that a sum is taken in.
    pub(super) parts: i64,
    /// Whether it adds what another kernel of its stage left of a sum, and does nothing else.
    pub(super) merges: bool,
    /// Whether another kernel must add what it leaves of a sum.
    pub leaves_parts: bool,
    /// What it does and needs.
    pub footprint: Footprint,
    /// The open numbers of its launch.
    pub(super) numbers: Vec<Val<'c>>,
    /// Present while lanes are tried.
    pub(super) trial: Option<Trial>,
}

impl<'c> Device<'c> {
    /// For a kernel with these arguments that takes a sum in so many parts, or adds what another one left of it if it
    /// `merges`.
    pub fn new(batch_bound: i64, [n, workspace]: [Val<'c>; 2], (parts, merges): (i64, bool)) -> Device<'c> {
        Device {
            batch_bound,
            n,
            workspace,
            parts,
            merges,
            leaves_parts: false,
            footprint: Footprint {
                work: Work::default(),
                blocks: Blocks::of_threads(THREADS),
                cost: Cost::default(),
                workspace_bytes: 0,
            },
            numbers: Vec::new(),
            trial: None,
        }
    }

    /// Takes account of a loop over this many threads: in all, or for each sample when there is a batch.
    pub(super) fn needs(&mut self, batch: bool, threads: i64) {
        let work = &mut self.footprint.work;
        match batch {
            true => work.per_sample = work.per_sample.max(threads),
            false => work.fixed = work.fixed.max(threads),
        }
    }

    /// Takes account of memory in the workspace.
    pub(super) fn uses_workspace(&mut self, bytes: i64) {
        self.footprint.workspace_bytes = self.footprint.workspace_bytes.max(bytes);
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
    /// Leaves the threads of the kernel under construction the registers of so many blocks in a multiprocessor.
    pub fn bound_resident(&self, blocks: u32) {
        if let Some(mut device) = self.device_mut() {
            device.footprint.blocks.resident = Some(blocks);
        }
    }

    /// A buffer in a node's workspace on a GPU, from its beginning. Sums use it too.
    pub fn workspace(&self, elem: Elem, strides: &[i64], elements: i64) -> Buffer<'c> {
        let Some(mut device) = self.device_mut() else {
            unreachable!("only kernels of a GPU have a workspace here");
        };
        device.uses_workspace(elements * elem.bytes());
        Buffer::new(device.workspace, elem, strides)
    }

    /// Runs `body` once: on a GPU in one thread, and before the parts of a sum are added.
    pub fn once(&self, body: impl FnOnce(&Self)) {
        if !self.is_device() {
            return self.by_first_thread(body);
        }
        match self.device_mut() {
            Some(device) if device.merges => return,
            Some(mut device) => device.needs(false, 1),
            None => {}
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
    pub fn unflatten(&self, extents: &[Extent<'c>], flat: Index<'c>) -> Vec<Index<'c>> {
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
