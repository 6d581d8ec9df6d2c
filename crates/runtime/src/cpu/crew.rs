//! The ranks of a process: threads that run one job at a time, each on its own private state.
//!
//! Rank 0 is the calling thread. Between jobs nobody works, so that the caller may look into every rank's
//! state. A rank that fails or panics poisons the collectives, so that the others end too.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use crate::{
    cpu::{barrier::Barrier, collectives::Collectives, rank::Rank},
    error::{Error, Kind, Result},
    panics,
};

/// Generated code may keep tiles on the stack.
pub(super) const STACK_BYTES: usize = 16 << 20;

/// What every rank does in one phase.
type Job = Arc<dyn Fn(&mut Rank) -> Result<()> + Send + Sync>;

struct Shared {
    start: Barrier,
    done: Barrier,
    /// None ends the threads.
    job: Mutex<Option<Job>>,
    errors: Mutex<Vec<Error>>,
    collectives: Arc<Collectives>,
}

/// The ranks of this process.
pub struct Crew {
    shared: Arc<Shared>,
    ranks: Vec<Arc<Mutex<Rank>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts a thread for each rank but the first; `spin` as in [`Barrier::new`].
    pub fn start(ranks: Vec<Rank>, collectives: Arc<Collectives>, spin: bool) -> Result<Self> {
        let count = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            start: Barrier::new(count, spin),
            done: Barrier::new(count, spin),
            job: Mutex::new(None),
            errors: Mutex::new(Vec::new()),
            collectives,
        });
        let ranks: Vec<_> = ranks.into_iter().map(|rank| Arc::new(Mutex::new(rank))).collect();
        let mut crew = Crew {
            shared,
            ranks,
            threads: Vec::new(),
        };
        for (index, rank) in crew.ranks.iter().enumerate().skip(1) {
            let (shared, rank) = (Arc::clone(&crew.shared), Arc::clone(rank));
            let thread = thread::Builder::new()
                .name(format!("rank {index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || follow(&shared, &rank));
            match thread {
                Ok(thread) => crew.threads.push(thread),
                Err(cause) => {
                    // Threads that already wait are released by the poison, as the crew is incomplete.
                    crew.shared.start.poison();
                    return Err(Error::environment(format!(
                        "cannot start a thread for rank {index}: {cause}"
                    ))
                    .help("use fewer --ranks"));
                }
            }
        }
        Ok(crew)
    }

    /// Number of ranks.
    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    /// Never: there is at least rank 0.
    pub fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    /// Runs `job` on every rank; returns when all are done. Of several errors the one that caused the others
    /// is returned.
    pub fn run(&self, job: impl Fn(&mut Rank) -> Result<()> + Send + Sync + 'static) -> Result<()> {
        *lock(&self.shared.job) = Some(Arc::new(job));
        let started = self.shared.start.wait().is_ok();
        perform(&self.shared, &self.ranks[0]);
        let ended = self.shared.done.wait().is_ok();
        let mut errors = std::mem::take(&mut *lock(&self.shared.errors));
        errors.sort_by_key(|error| error.kind == Kind::RankDied);
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None if started && ended => Ok(()),
            None => Err(Error::internal("the ranks ended early")),
        }
    }

    /// A rank's private state. Not to be called from a job.
    pub fn rank(&self, index: usize) -> MutexGuard<'_, Rank> {
        lock(&self.ranks[index])
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        *lock(&self.shared.job) = None;
        // An incomplete crew was poisoned; its threads have ended already.
        if self.threads.len() + 1 == self.ranks.len() {
            let _ = self.shared.start.wait();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A worker thread: performs jobs until there are none.
fn follow(shared: &Shared, rank: &Mutex<Rank>) {
    while shared.start.wait().is_ok() {
        if !perform(shared, rank) || shared.done.wait().is_err() {
            return;
        }
    }
}

/// Performs the current job; false if there is none.
fn perform(shared: &Shared, rank: &Mutex<Rank>) -> bool {
    let Some(job) = lock(&shared.job).clone() else {
        return false;
    };
    let mut rank = lock(rank);
    let outcome = catch_unwind(AssertUnwindSafe(|| job(&mut rank)));
    let error = match outcome {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => error,
        Err(payload) => {
            let text = panics::describe(payload.as_ref());
            Error::internal(format!("rank {} panicked: {text}", rank.index()))
        }
    };
    lock(&shared.errors).push(error);
    shared.collectives.poison();
    true
}

/// Locks. A panicking job ends the run, so what it left behind is never used for a result.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
