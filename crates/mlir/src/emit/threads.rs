//! The `Map` schedule of a GPU: one thread an element, or several neighbours that are one access of memory.
//!
//! A thread's elements are lanes. Whether an operator's body can have them is found out by emitting it: every load and
//! store must be of one element for all lanes, or of a whole vector.

use melior::ir::Block;

use super::control::Extent;
use super::device::{Trial, elements};
use super::grid::ceil;
use super::lanes::Each;
use super::{COPY_BYTES, Elem, Emitter, Index, Val};

/// Lanes that are tried first: a full access in f32.
const LANES: usize = 4;
/// Threads that fill a large GPU, when each has many registers. Where there are more rows, a thread takes several.
const RESIDENT: i64 = 132 * 1024;
/// Rows that a thread takes at most.
const MOST_ROWS: i64 = 16;

impl<'c> Emitter<'c> {
    /// Whether neighbours from here on are one vector of memory, as all tensors begin at a multiple of 16 bytes.
    pub(super) fn is_whole_vector(&self, first: Index<'c>, elem: Elem) -> bool {
        if let Some(trial) = self.device_mut().as_mut().and_then(|d| d.trial.as_mut()) {
            trial.widest = trial.widest.max(elem.bytes());
        }
        first.is_whole_vector(self.lanes())
    }

    /// What is being emitted cannot have lanes on a GPU.
    pub(super) fn refuse_lanes(&self) {
        if let Some(trial) = self.device_mut().as_mut().and_then(|d| d.trial.as_mut()) {
            trial.possible = false;
        }
    }

    /// What is prepared once for several vectors may have elements of any size.
    pub fn prepared<P>(&self, prepare: impl FnOnce(&Self) -> P) -> P {
        let widest = self.device().and_then(|d| d.trial).map(|t| t.widest);
        let prepared = prepare(self);
        let mut device = self.device_mut();
        let trial = device.as_mut().and_then(|d| d.trial.as_mut());
        if let (Some(trial), Some(widest)) = (trial, widest) {
            trial.widest = widest;
        }
        prepared
    }

    /// Emits into nothing with this number of lanes: whether they are possible.
    fn try_lanes(&self, lanes: usize, emit: &dyn Fn(&Self)) -> Option<Trial> {
        let untried = Trial {
            possible: true,
            widest: 1,
        };
        self.device_mut()?.trial = Some(untried);
        self.with_lanes(lanes, |e| e.in_block(&Block::new(&[]), emit));
        let trial = self.device_mut()?.trial.take();
        trial.filter(|trial| trial.possible)
    }

    /// The most lanes along an axis of `size` elements for what `emit` emits: up to 16 bytes of the widest element,
    /// and up to `most`.
    pub(super) fn lanes_for_threads(&self, size: i64, most: usize, emit: &dyn Fn(&Self)) -> usize {
        let fits = |lanes: usize| lanes <= most && size % lanes as i64 == 0;
        let mut lanes = LANES;
        while lanes > 1 {
            let trial = fits(lanes).then(|| self.try_lanes(lanes, emit)).flatten();
            let Some(trial) = trial else {
                lanes /= 2;
                continue;
            };
            let full = (COPY_BYTES / trial.widest) as usize;
            if full > lanes {
                let double = 2 * lanes;
                let wider = fits(double) && self.try_lanes(double, emit).is_some();
                return if wider { double } else { lanes };
            }
            return full.min(lanes).max(1);
        }
        1
    }

    /// Emits with this number of lanes.
    pub fn with_lanes<R>(&self, lanes: usize, emit: impl FnOnce(&Self) -> R) -> R {
        let outer = self.lanes.replace(lanes);
        let result = emit(self);
        self.lanes.set(outer);
        result
    }

    /// The lanes of chunk `chunk` of an axis.
    pub(super) fn lanes_of(&self, chunk: Index<'c>) -> Index<'c> {
        if self.lanes() == 1 {
            return chunk;
        }
        let first = self.index_scale(chunk, self.lanes() as i64);
        self.index_add(first, Index::Const { base: 0, stride: 1 })
    }

    /// `body` for every index of the axes, one thread for each or, where `width` is not 1, for several neighbours along
    /// the last axis.
    pub(super) fn map_threads(&self, extents: &[Extent<'c>], width: usize, body: Each<'c, '_>) {
        let each = |e: &Self| e.each_in_threads(extents, body);
        let lanes = match extents.last() {
            Some(&Extent::Fixed(size)) if width > 1 => self.lanes_for_threads(size, usize::MAX, &each),
            _ => 1,
        };
        let (batch, per) = elements(extents);
        if let Some(mut device) = self.device_mut() {
            device.needs(batch, per / lanes as i64);
        }
        self.note_cost(|cost| cost.lanes = lanes as i64);
        self.with_lanes(lanes, each);
    }

    fn each_in_threads(&self, extents: &[Extent<'c>], body: Each<'c, '_>) {
        let mut chunks = extents.to_vec();
        if let Some(Extent::Fixed(size)) = chunks.last_mut() {
            *size /= self.lanes() as i64;
        }
        let [id, threads] = self.thread();
        let count = self.count(&chunks);
        self.for_steps([id, count, threads], &[], |e, i, _| {
            let mut at = e.unflatten(&chunks, Index::uniform(i));
            if let Some(last) = at.last_mut() {
                *last = e.lanes_of(*last);
            }
            body(e, &at);
            Vec::new()
        });
    }

    /// `body` for every index of `rows`, then of `columns`, which are neighbours in memory. A thread keeps its columns,
    /// for which `prepare` works once, and takes several rows, as far apart as there are threads for a column.
    pub fn map_rows<P>(
        &self,
        rows: &[Extent<'c>],
        columns: i64,
        prepare: &dyn Fn(&Self, Index<'c>) -> P,
        body: &dyn Fn(&Self, &P, &[Index<'c>]),
    ) {
        let (batch, per) = elements(rows);
        let bound = self.device().map_or(1, |device| device.batch_bound);
        let bound = if batch { per * bound } else { per };
        let emit = |e: &Self, taken: i64| e.rows_in_threads((rows, taken), columns, prepare, body);
        // More lanes would not leave what is prepared in registers.
        let lanes = self.lanes_for_threads(columns, LANES, &|e| emit(e, MOST_ROWS));
        let chunks = columns / lanes as i64;
        let taken = (bound * chunks / RESIDENT).clamp(1, MOST_ROWS);
        let of_column = ceil(per, taken);
        if let Some(mut device) = self.device_mut() {
            device.needs(batch, of_column * chunks);
        }
        self.note_cost(|cost| cost.lanes = lanes as i64);
        self.with_lanes(lanes, |e| emit(e, taken));
    }

    fn rows_in_threads<P>(
        &self,
        (rows, taken): (&[Extent<'c>], i64),
        columns: i64,
        prepare: &dyn Fn(&Self, Index<'c>) -> P,
        body: &dyn Fn(&Self, &P, &[Index<'c>]),
    ) {
        let (batch, per) = elements(rows);
        let chunks = columns / self.lanes() as i64;
        let of_column = self.in_all(batch, ceil(per, taken));
        let per_thread = self.index(chunks);
        let all = self.mul(of_column, per_thread);
        let [id, threads] = self.thread();
        let count = self.count(rows);
        self.for_steps([id, all, threads], &[], |e, i, _| {
            let (first, chunk) = e.index_split(Index::uniform(i), chunks);
            let column = e.lanes_of(chunk);
            let prepared = e.prepared(|e| prepare(e, column));
            let first = e.index_value(first);
            let one = |e: &Self, row: Val<'c>| {
                let at = e.unflatten(rows, Index::uniform(row));
                body(e, &prepared, &[at.as_slice(), &[column]].concat());
            };
            if taken == 1 {
                one(e, first);
            } else {
                e.for_steps([first, count, of_column], &[], |e, row, _| {
                    one(e, row);
                    Vec::new()
                });
            }
            Vec::new()
        });
    }

    /// `body` for every index of `low..high`, which are known at run time only: whole vectors of `lanes` elements in one
    /// thread each, then the rest. `low` is a multiple of `lanes`.
    pub(super) fn range_in_threads(
        &self,
        [low, high]: [Val<'c>; 2],
        lanes: usize,
        body: impl Fn(&Self, Index<'c>),
    ) {
        let [id, threads] = self.thread();
        let size = self.index(lanes as i64);
        let all = self.sub(high, low);
        let chunks = self.div(all, size);
        let first = Index::Scalar {
            base: low,
            stride: 0,
            divisor: lanes as i64,
        };
        self.with_lanes(lanes, |e| {
            e.for_steps([id, chunks, threads], &[], |e, chunk, _| {
                let at = e.lanes_of(Index::uniform(chunk));
                let at = e.index_add(first, at);
                body(e, at);
                Vec::new()
            });
        });
        let done = self.mul(chunks, size);
        let rest = self.add(low, done);
        let own = self.add(rest, id);
        self.for_steps([own, high, threads], &[], |e, i, _| {
            body(e, Index::uniform(i));
            Vec::new()
        });
    }
}
