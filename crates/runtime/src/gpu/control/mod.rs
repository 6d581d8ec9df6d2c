//! The control connection: every rank's process talks to rank 0's over TCP.
//!
//! It carries what the processes agree on (identifiers of communicators, data for rank 0, the end after a
//! signal), and it finds dead ranks: a connection that ends without a word, or 5 s without a sign of life.
//! Rank 0 then tells the others, and a thread of each process ends it with exit code 5, even if its main
//! thread waits in a collective that never ends.

mod connect;
mod frame;
mod state;
mod watch;

use std::{
    net::TcpStream,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub use connect::join;
pub use frame::Death;
use frame::Frame;
use state::{Doom, State};

use crate::error::{Error, Kind, Result};

/// How long the end of a run may take on its processes.
const GRACE: Duration = Duration::from_secs(3);
/// How long to wait for news of a dead rank after a collective failed.
const NEWS: Duration = Duration::from_secs(6);

/// What ends communicators from another thread.
type Aborter = Box<dyn Fn() + Send>;

/// This process's end of the control connection.
pub struct Control {
    rank: usize,
    ranks: usize,
    /// By rank; on ranks above 0 only rank 0's is there.
    writers: Vec<Option<Mutex<TcpStream>>>,
    state: Mutex<State>,
    changed: Condvar,
    /// The last step that this rank finished.
    step: AtomicU64,
    /// Set by a signal of this process.
    signalled: Arc<AtomicBool>,
    aborter: Mutex<Option<Aborter>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control {{ rank: {}, ranks: {} }}", self.rank, self.ranks)
    }
}

impl Control {
    /// Sets what ends this process's communicators when the run fails.
    pub fn set_aborter(&self, aborter: Aborter) {
        *lock(&self.aborter) = Some(aborter);
    }

    /// Gives the communicators back to their device, which may end them now. Unless the run ends in order they are
    /// aborted first: NCCL ends communicators in order only where all ranks do, and the device frees no memory while a
    /// collective waits for another rank.
    pub fn end_communicators(&self, in_order: bool) {
        if in_order {
            lock(&self.aborter).take();
        } else {
            watch::abort(self);
        }
    }

    /// Sends `bytes` to rank 0, which gets those of all ranks, in rank order; others get nothing.
    pub fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        if self.rank != 0 {
            self.send(0, &Frame::Data(bytes))?;
            return Ok(Vec::new());
        }
        let mut all = vec![bytes];
        for rank in 1..self.ranks {
            all.push(self.receive(rank)?);
        }
        Ok(all)
    }

    /// Rank 0's `bytes`, on all ranks; those of others are ignored.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        if self.rank != 0 {
            return self.receive(0);
        }
        let frame = Frame::Data(bytes);
        for rank in 1..self.ranks {
            self.send(rank, &frame)?;
        }
        match frame {
            Frame::Data(bytes) => Ok(bytes),
            _ => Ok(Vec::new()),
        }
    }

    /// Waits until all ranks are here.
    pub fn barrier(&self) -> Result<()> {
        self.gather(Vec::new())?;
        self.broadcast(Vec::new())?;
        Ok(())
    }

    /// Ends step `step`, counted from 1; whether the run ends with it because of a signal, which all ranks
    /// answer alike. A signal ends the run one step after rank 0 learns of it: by then its word is everywhere,
    /// so that nobody waits.
    pub fn end_step(&self, step: u64) -> Result<bool> {
        self.step.store(step, Ordering::Relaxed);
        let mut state = lock(&self.state);
        if self.rank == 0 {
            if state.stop_after.is_none() && (state.interrupted || self.signalled.load(Ordering::Relaxed)) {
                state.stop_after = Some(step + 1);
            }
            let stop_after = state.stop_after;
            drop(state);
            for rank in 1..self.ranks {
                self.send(rank, &Frame::Verdict { step, stop_after })?;
            }
            return Ok(stop_after.is_some_and(|last| last <= step));
        }
        drop(state);
        self.send(0, &Frame::Alive { step })?;
        let state = self.wait(0, |state| (state.verdicts + 1 >= step).then_some(()))?;
        Ok(state.1.stop_after.is_some_and(|last| last <= step))
    }

    /// Whether a signal asked some rank for the end. Ranks learn of it at different times.
    pub fn interrupted(&self) -> bool {
        self.signalled.load(Ordering::Relaxed) || lock(&self.state).interrupted
    }

    /// The error behind `error`, which a collective or the device returned: a dead rank, if there is one.
    pub fn explain(&self, error: Error) -> Error {
        let patience = if error.kind == Kind::RankDied {
            NEWS
        } else {
            Duration::from_millis(200)
        };
        let state = lock(&self.state);
        let waited = self
            .changed
            .wait_timeout_while(state, patience, |state| state.doom.is_none());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.doom.as_ref().map_or(error, Doom::error)
    }

    /// Ends this process's part in the run. Returns the exit code, or an error that is to be reported: one
    /// that rank 0 or the watching thread reports is not.
    pub fn conclude(&self, outcome: Result<()>) -> Result<i32> {
        let ended = |code, message: &str| Frame::Ended {
            code,
            message: message.to_string(),
        };
        // Whoever dies on the way out of the driver is noticed by the others.
        let outcome = outcome.and_then(|()| self.barrier());
        let mut state = lock(&self.state);
        state.concluding = true;
        if let (Err(error), Some(doom)) = (&outcome, state.doom.clone()) {
            return self.end_doomed(state, &doom, error);
        }
        drop(state);
        let Err(error) = outcome else {
            self.tell_all(&ended(0, ""));
            return Ok(0);
        };
        let code = error.kind.exit_code();
        self.tell_all(&ended(code, &error.message));
        if self.rank == 0 {
            let own = matches!(error.kind, Kind::Environment | Kind::Internal);
            return Err(if own { error.note("on rank 0") } else { error });
        }
        // Most errors are found by all ranks alike, and then rank 0 reports them.
        let state = lock(&self.state);
        let silent = |state: &mut State| state.doom.is_none() && state.peers[0].ended.is_none();
        let waited = self.changed.wait_timeout_while(state, GRACE, silent);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.doom.clone() {
            Some(doom) => self.end_doomed(state, &doom, &error),
            None => Err(error),
        }
    }

    /// The end of a process whose run failed. A death is reported by the watching thread, which has to pass
    /// it on first; an error of rank 0 by rank 0.
    fn end_doomed(&self, state: MutexGuard<'_, State>, doom: &Doom, error: &Error) -> Result<i32> {
        match doom {
            Doom::Died(_) => {
                let told = |state: &mut State| !state.told;
                let _ = self.changed.wait_timeout_while(state, GRACE, told);
                Ok(doom.exit_code())
            }
            Doom::Ended { code, message } => {
                let same = error.kind == Kind::RankDied || error.message == *message;
                if same { Ok(*code) } else { Err(error.clone()) }
            }
        }
    }

    /// Sends a frame to every rank that this one is connected with, as far as that is possible.
    fn tell_all(&self, frame: &Frame) {
        for writer in self.writers.iter().flatten() {
            let _ = frame::write(&mut *lock(writer), frame);
        }
    }

    fn send(&self, rank: usize, frame: &Frame) -> Result<()> {
        let Some(writer) = &self.writers[rank] else {
            return Err(Error::internal(format!("there is no connection to rank {rank}")));
        };
        let written = frame::write(&mut *lock(writer), frame);
        written.map_err(|cause| {
            let error = format!("the connection to rank {rank} failed: {cause}");
            self.explain(Error::new(Kind::RankDied, error))
        })
    }

    fn receive(&self, rank: usize) -> Result<Vec<u8>> {
        self.wait(rank, |state| state.peers[rank].inbox.pop_front())
            .map(|(bytes, _)| bytes)
    }

    /// Waits until `take` finds something; an error if the run fails or `rank`, which should send it, ends.
    fn wait<T>(
        &self,
        rank: usize,
        mut take: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<(T, MutexGuard<'_, State>)> {
        let mut state = lock(&self.state);
        loop {
            if let Some(found) = take(&mut state) {
                return Ok((found, state));
            }
            if let Some(doom) = &state.doom {
                return Err(doom.error());
            }
            if state.peers[rank]
                .ended
                .as_ref()
                .is_some_and(|ended| ended.code == 0)
            {
                let text = format!("rank {rank} ended while rank {} waits for it", self.rank);
                return Err(Error::internal(text));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that the run fails, if nothing else was noted before.
    fn condemn(&self, doom: Doom) {
        let mut state = lock(&self.state);
        if state.doom.is_none() {
            state.doom = Some(doom);
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Locks. What a panicking thread left behind is still a consistent state, as every change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
