//! The threads of the control connection: one reads from each peer, one watches over all.

use std::{
    io::{BufReader, ErrorKind},
    net::TcpStream,
    sync::{Arc, TryLockError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    Control,
    frame::{self, Death, Frame},
    lock,
    state::{Doom, Ended},
};
use crate::{
    error::{Error, Kind, Result},
    report,
};

/// How often the watching thread looks.
const TICK: Duration = Duration::from_millis(25);
/// How often a sign of life is sent.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A rank that was silent for so long is dead.
const SILENCE: Duration = Duration::from_secs(5);
/// How long rank 0 may take to end by itself after another rank's error.
const OWN_END: Duration = Duration::from_millis(1500);
/// How long communicators may take to abort.
const ABORT: Duration = Duration::from_secs(2);

/// Starts the threads. `streams` are the peers' connections, by rank.
pub fn start(control: &Arc<Control>, streams: Vec<Option<TcpStream>>) -> Result<()> {
    let failed = |cause| Error::environment(format!("cannot start a thread: {cause}"));
    for (rank, stream) in streams.into_iter().enumerate() {
        let Some(stream) = stream else { continue };
        let control = Arc::clone(control);
        thread::Builder::new()
            .name(format!("control of rank {rank}"))
            .spawn(move || listen(&control, rank, stream))
            .map_err(failed)?;
    }
    let control = Arc::clone(control);
    thread::Builder::new()
        .name("watch".into())
        .spawn(move || watch(&control))
        .map_err(failed)?;
    Ok(())
}

/// Reads a peer's frames until its connection ends.
fn listen(control: &Control, rank: usize, stream: TcpStream) {
    let mut input = BufReader::new(stream);
    let alive = || lock(&control.state).peers[rank].heard = Instant::now();
    let cause = loop {
        match frame::read(&mut input, u64::MAX, alive) {
            Ok(frame) => take(control, rank, frame),
            Err(cause)
                if matches!(
                    cause.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                break "its connection ended".to_string();
            }
            Err(cause) => break format!("its connection failed: {cause}"),
        }
    };
    let state = lock(&control.state);
    let peer = &state.peers[rank];
    if peer.ended.is_none() && !state.concluding {
        let step = peer.step;
        drop(state);
        control.condemn(Doom::Died(Death { rank, step, cause }));
    }
}

/// Acts on a frame of `rank`.
fn take(control: &Control, rank: usize, frame: Frame) {
    let mut state = lock(&control.state);
    state.peers[rank].heard = Instant::now();
    match frame {
        Frame::Data(bytes) => state.peers[rank].inbox.push_back(bytes),
        Frame::Alive { step } => {
            let known = &mut state.peers[rank].step;
            *known = step.max(*known);
            return;
        }
        Frame::Verdict { step, stop_after } => {
            state.verdicts = step;
            state.stop_after = stop_after;
            state.peers[rank].step = step;
        }
        Frame::Interrupted => state.interrupted = true,
        Frame::Ended { code, message } => {
            if control.rank != 0 && code != 0 && state.doom.is_none() {
                state.doom = Some(Doom::Ended {
                    code,
                    message: message.clone(),
                });
            }
            let at = Instant::now();
            state.peers[rank].ended = Some(Ended { at, code, message });
        }
        // Rank 0 saw this rank end, which it is about to do.
        Frame::Died(death) if death.rank == control.rank && state.concluding => {
            state.peers[rank].ended = Some(Ended {
                at: Instant::now(),
                code: Kind::RankDied.exit_code(),
                message: death.cause,
            });
        }
        Frame::Died(death) => {
            if state.doom.is_none() {
                state.doom = Some(Doom::Died(death));
            }
        }
        // Rank 0 speaks these before the threads start, and nobody else does.
        Frame::Hello(_) | Frame::Welcome | Frame::Refused(_) => return,
    }
    drop(state);
    control.changed.notify_all();
}

/// Sends signs of life, looks for dead ranks, and ends the process when the run fails.
fn watch(control: &Control) {
    let (mut beaten, mut relayed) = (None::<Instant>, false);
    loop {
        if beaten.is_none_or(|at| at.elapsed() >= HEARTBEAT) {
            let step = control.step.load(Ordering::Relaxed);
            try_tell_all(control, &Frame::Alive { step });
            beaten = Some(Instant::now());
        }
        if !relayed && control.interrupted() {
            try_tell_all(control, &Frame::Interrupted);
            relayed = true;
        }
        if let Some(death) = find_dead(control) {
            control.condemn(Doom::Died(death));
        }
        let state = lock(&control.state);
        let (doom, concluding) = (state.doom.clone(), state.concluding);
        drop(state);
        match doom {
            Some(doom) => return end(control, &doom),
            None if concluding && control.rank == 0 => return,
            None => thread::sleep(TICK),
        }
    }
}

/// The first peer that is silent, or that failed while this rank goes on.
fn find_dead(control: &Control) -> Option<Death> {
    let state = lock(&control.state);
    if state.concluding {
        return None;
    }
    let watched = state.peers.iter().enumerate();
    watched
        .filter(|(rank, _)| control.writers[*rank].is_some())
        .find_map(|(rank, peer)| {
            let cause = match &peer.ended {
                None if peer.heard.elapsed() > SILENCE => {
                    format!("it gave no sign of life for {} s", SILENCE.as_secs())
                }
                Some(ended) if ended.code != 0 && ended.at.elapsed() > OWN_END => {
                    format!("it ended with an error: {}", ended.message)
                }
                _ => return None,
            };
            let step = peer.step;
            Some(Death { rank, step, cause })
        })
}

/// Passes the news on, reports it, and ends the process unless the main thread does so in time.
fn end(control: &Control, doom: &Doom) {
    if let Doom::Died(death) = doom {
        if control.rank == 0 {
            try_tell_all(control, &Frame::Died(death.clone()));
        }
        report::complaint(&doom.error().to_string());
    }
    lock(&control.state).told = true;
    control.changed.notify_all();
    let start = Instant::now();
    abort(control);
    while start.elapsed() < ABORT && !lock(&control.state).concluding {
        thread::sleep(TICK);
    }
    if lock(&control.state).concluding {
        // The main thread is about to leave by itself, and may have something to say.
        thread::sleep(ABORT);
    }
    // The main thread may be in the driver; what would run at an ordinary exit may wait for it.
    // SAFETY: ends the process; lines were written out one by one, and files are replaced whole.
    unsafe { libc::_exit(doom.exit_code()) }
}

/// Aborts the communicators, so that the main thread comes back from its collectives; for at most [`ABORT`].
pub fn abort(control: &Control) {
    let Some(aborter) = lock(&control.aborter).take() else {
        return;
    };
    // It may hang; then it ends with the process.
    let aborting = thread::Builder::new().spawn(aborter);
    let running = || aborting.as_ref().is_ok_and(|thread| !thread.is_finished());
    let start = Instant::now();
    while start.elapsed() < ABORT && running() {
        thread::sleep(TICK);
    }
}

/// Sends a frame to every peer that nobody writes to right now: whoever does shows life by that.
fn try_tell_all(control: &Control, frame: &Frame) {
    for writer in control.writers.iter().flatten() {
        match writer.try_lock() {
            Ok(mut stream) => {
                let _ = frame::write(&mut *stream, frame);
            }
            Err(TryLockError::Poisoned(poisoned)) => {
                let _ = frame::write(&mut *poisoned.into_inner(), frame);
            }
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64},
    };

    use super::*;
    use crate::gpu::control::state::State;

    /// The control connection of a run of one rank.
    fn control() -> Control {
        Control {
            rank: 0,
            ranks: 1,
            writers: Vec::new(),
            state: Mutex::new(State {
                peers: Vec::new(),
                verdicts: 0,
                stop_after: None,
                interrupted: false,
                doom: None,
                told: false,
                concluding: false,
            }),
            changed: Condvar::new(),
            step: AtomicU64::new(0),
            signalled: Arc::default(),
            aborter: Mutex::new(None),
        }
    }

    #[test]
    fn communicators_are_aborted_once_from_another_thread() {
        let control = control();
        let (caller, calls) = (thread::current().id(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&calls);
        control.set_aborter(Box::new(move || {
            assert_ne!(thread::current().id(), caller);
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        abort(&control);
        abort(&control);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_abort_that_hangs_is_given_up_after_its_time() {
        let (control, ended) = (control(), Arc::new(AtomicBool::new(false)));
        let seen = Arc::clone(&ended);
        control.set_aborter(Box::new(move || {
            while !seen.load(Ordering::Relaxed) {
                thread::sleep(TICK);
            }
        }));
        let start = Instant::now();
        abort(&control);
        let waited = start.elapsed();
        ended.store(true, Ordering::Relaxed);
        assert!(waited >= ABORT && waited < 2 * ABORT, "{waited:?}");
    }
}
