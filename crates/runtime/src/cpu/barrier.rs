//! A barrier for ranks that are threads of one process, which a failing rank can poison.
//!
//! One 32-bit word counts completed rounds in steps of 2; its lowest bit is set for ever once the barrier
//! is poisoned. Waiters watch that single word, so that neither a completed round nor a poisoning can be
//! missed, and all participants of a round agree on whether it completed before the poison came. They first
//! spin, if threads have cores of their own, and then sleep on the word (futex). Who ends a round calls the system only
//! if somebody sleeps.

use std::{
    ptr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How long a waiter spins before it sleeps: longer than ranks usually differ on a small layer, shorter
/// than a time slice.
const SPIN: Duration = Duration::from_micros(100);
const POISON: u32 = 1;

/// Another rank failed; there is nobody left to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poisoned;

/// A reusable barrier.
#[derive(Debug)]
pub struct Barrier {
    participants: u32,
    arrived: AtomicU32,
    round: AtomicU32,
    /// Waiters that sleep or are about to.
    sleepers: AtomicU32,
    spin: bool,
}

impl Barrier {
    /// A barrier for `participants` threads. `spin` says that each of them has a core of its own.
    pub fn new(participants: u32, spin: bool) -> Self {
        Barrier {
            participants,
            arrived: AtomicU32::new(0),
            round: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            spin,
        }
    }

    /// Waits until all participants arrived. What each wrote before is visible to all after it.
    pub fn wait(&self) -> Result<(), Poisoned> {
        let round = self.round.load(Ordering::Acquire);
        if round & POISON != 0 {
            return Err(Poisoned);
        }
        // AcqRel chains the arrivals, so that the last one's release below publishes all of them.
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.participants {
            self.arrived.store(0, Ordering::Relaxed);
            // Fails only if the poison came first; then no participant sees the round completed.
            let next = round.wrapping_add(2);
            let completed = self
                .round
                .compare_exchange(round, next, Ordering::SeqCst, Ordering::Acquire)
                .is_ok();
            self.wake();
            return if completed { Ok(()) } else { Err(Poisoned) };
        }
        let now = self.watch(round);
        if now & !POISON == round {
            Err(Poisoned)
        } else {
            Ok(())
        }
    }

    /// Makes every current and future `wait` fail.
    pub fn poison(&self) {
        self.round.fetch_or(POISON, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes the sleepers after a change of the word. One that this does not see yet counted itself after the change,
    /// in the one order of all these accesses, and so finds the word changed and does not sleep.
    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            wake_all(&self.round);
        }
    }

    /// Blocks until the word differs from `round`; returns what it became.
    fn watch(&self, round: u32) -> u32 {
        if self.spin {
            let start = Instant::now();
            while start.elapsed() < SPIN {
                for _ in 0..32 {
                    let now = self.round.load(Ordering::Acquire);
                    if now != round {
                        return now;
                    }
                    std::hint::spin_loop();
                }
            }
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let now = loop {
            let now = self.round.load(Ordering::SeqCst);
            if now != round {
                break now;
            }
            sleep_while(&self.round, round);
        };
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        now
    }
}

/// Sleeps if `word` still holds `value`. May return early.
fn sleep_while(word: &AtomicU32, value: u32) {
    let timeout: *const libc::timespec = ptr::null();
    // SAFETY: the word is valid and aligned for the whole call; FUTEX_WAIT only reads it.
    unsafe {
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, timeout);
    }
}

fn wake_all(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE uses the address as a key only.
    unsafe {
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU64, thread};

    use super::*;

    fn rounds(threads: u32, count: u64, spin: bool) {
        let barrier = Barrier::new(threads, spin);
        let sum = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for round in 1..=count {
                        sum.fetch_add(1, Ordering::Relaxed);
                        barrier.wait().unwrap();
                        assert_eq!(sum.load(Ordering::Relaxed), round * u64::from(threads));
                        barrier.wait().unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_passes_before_all_arrived() {
        let count = if cfg!(miri) { 5 } else { 2000 };
        for threads in [1, 2, 3, 8] {
            rounds(threads, count, false);
            rounds(threads, count, true);
        }
    }

    #[test]
    fn poison_wakes_sleepers_and_stays() {
        for spin in [false, true] {
            let barrier = Barrier::new(3, spin);
            thread::scope(|scope| {
                let waiters: Vec<_> = (0..2).map(|_| scope.spawn(|| barrier.wait())).collect();
                // Long enough that the waiters are most likely asleep in the kernel.
                thread::sleep(Duration::from_millis(20));
                barrier.poison();
                for waiter in waiters {
                    assert_eq!(waiter.join().unwrap(), Err(Poisoned));
                }
            });
            assert_eq!(barrier.wait(), Err(Poisoned));
        }
    }
}
