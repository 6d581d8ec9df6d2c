//! The threads of a rank, which run a function of the CPU together: each takes slices of the function's loops.

use super::{Compare, Elem, Emitter, Val};

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
