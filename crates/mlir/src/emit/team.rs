//! The threads of a rank, which run a function of the CPU together: each takes slices of the function's loops.

use super::{Compare, Elem, Emitter, Extent, Index, Val};

/// This thread, and the others that run the function.
#[derive(Debug, Clone, Copy)]
pub struct Team<'c> {
    /// What the runtime's barrier takes.
    pub context: Val<'c>,
    /// Number of this thread, from 0.
    pub thread: Val<'c>,
    /// How many there are.
    pub threads: Val<'c>,
}

impl<'c> Emitter<'c> {
    /// From now on loops that divide their work do so between these threads.
    pub fn set_team(&self, team: Team<'c>) {
        self.team.set(Some(team));
    }

    /// The threads that loops are divided between, here.
    pub fn team(&self) -> Option<Team<'c>> {
        self.team.get()
    }

    /// This thread's slice of `0..count`; all of it where nothing is divided. No two threads share an element, and the
    /// slices come in the order of the threads.
    pub fn slice(&self, count: Val<'c>) -> [Val<'c>; 2] {
        let Some(team) = self.team.get() else {
            return [self.index(0), count];
        };
        let begin = |thread: Val<'c>| self.div(self.mul(count, thread), team.threads);
        [begin(team.thread), begin(self.add(team.thread, self.index(1)))]
    }

    /// [`Emitter::slice`] of a fixed number.
    pub fn slice_of(&self, count: i64) -> [Val<'c>; 2] {
        match self.team.get() {
            Some(_) => self.slice(self.index(count)),
            None => [self.index(0), self.index(count)],
        }
    }

    /// What `body` emits is done by every thread in full: for what belongs to the thread alone.
    pub fn undivided<R>(&self, body: impl FnOnce(&Self) -> R) -> R {
        let team = self.team.take();
        let result = body(self);
        self.team.set(team);
        result
    }

    /// `body` for this thread's slice of all indices of the axes, in order; what it emits is divided no further.
    pub fn divided(&self, extents: &[Extent<'c>], body: impl FnOnce(&Self, &[Index<'c>])) {
        if self.team.get().is_none() {
            let mut body = Some(body);
            self.fold_nest(extents, &[], &mut |e, at, _| {
                if let Some(body) = body.take() {
                    body(e, at);
                }
                Vec::new()
            });
            return;
        }
        let [low, high] = self.slice(self.indices(extents));
        self.undivided(|e| {
            e.each_in(low, high, |e, i| {
                body(e, &e.unflatten(extents, Index::uniform(i)))
            });
        });
    }

    /// [`Emitter::blocks`] for this thread's blocks; what `body` emits is divided no further.
    pub fn divided_blocks(&self, count: i64, size: i64, body: &dyn Fn(&Self, Index<'c>, i64)) {
        if self.team.get().is_none() {
            return self.blocks(count, size, body);
        }
        let (whole, rest) = (count / size, count % size);
        let [low, high] = self.slice_of(whole + i64::from(rest > 0));
        self.undivided(|e| {
            let end = e.index(whole);
            if whole > 0 {
                let high = if rest > 0 { e.min(high, end) } else { high };
                e.each_in(low, high, |e, i| {
                    body(e, e.index_scale(Index::uniform(i), size), size)
                });
            }
            if rest > 0 {
                let is_in = e.compare(Compare::Gt, high, end);
                e.when(is_in, |e| body(e, Index::constant(whole * size), rest));
            }
        });
    }

    /// How many indices the axes have.
    pub fn indices(&self, extents: &[Extent<'c>]) -> Val<'c> {
        let fixed = extents.iter().map(|extent| match extent {
            Extent::Fixed(n) => *n,
            Extent::Batch(_) => 1,
        });
        let batch = extents.iter().filter_map(|extent| match extent {
            Extent::Fixed(_) => None,
            Extent::Batch(n) => Some(*n),
        });
        batch.fold(self.index(fixed.product()), |count, n| self.mul(count, n))
    }

    /// Whether this is the first thread; None where there is but one.
    pub fn is_first_thread(&self) -> Option<Val<'c>> {
        let team = self.team.get()?;
        Some(self.compare(Compare::Eq, team.thread, self.index(0)))
    }

    /// What `body` emits is done by the first thread alone, in full.
    pub fn by_first_thread(&self, body: impl FnOnce(&Self)) {
        let first = self.is_first_thread();
        self.undivided(|e| e.where_inside(first, body));
    }

    /// Waits for the other threads: what they wrote before is seen after it. They can only fail at collectives, which
    /// stand between kernels, and there a step looks at the status.
    pub fn meet(&self) {
        if let Some(team) = self.team.get() {
            self.call(
                syncbn_abi::symbols::TEAM_BARRIER,
                &[team.context],
                Some(Elem::I32),
            );
        }
    }
}
