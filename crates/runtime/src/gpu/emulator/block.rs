//! Runs the blocks of a launch, one after the other.

use std::ptr;

use super::{
    fiber::{Fiber, Stacks},
    launch::{Launch, Thread, Wait, intrinsic},
    shared::WARP,
    warp,
};
use crate::error::Result;

/// The order of blocks and warps: 0, 1, …, or a random one if the seed is not 0.
#[derive(Debug)]
pub(super) struct Order(u64);

/// An order of blocks: from `first` on, up or down, all the way round.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    count: u64,
    first: u64,
    down: bool,
}

impl Blocks {
    /// The block at each place of the order.
    fn each(self) -> impl Iterator<Item = u64> {
        (0..self.count).map(move |place| {
            let block = (self.first + place) % self.count;
            if self.down { self.count - 1 - block } else { block }
        })
    }
}

impl Order {
    /// The order that a seed gives.
    pub fn new(seed: u64) -> Self {
        Order(seed)
    }

    /// The next order of `warps` warps.
    fn next(&mut self, warps: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..warps).collect();
        if self.0 != 0 {
            for last in (1..warps).rev() {
                order.swap(last, self.random() as usize % (last + 1));
            }
        }
        order
    }

    /// The order of `count` blocks.
    fn blocks(&mut self, count: u64) -> Blocks {
        let random = self.random();
        Blocks {
            count,
            first: (random >> 1) % count.max(1),
            down: random & 1 == 1,
        }
    }

    /// Marsaglia's xorshift64, which stays 0 if it is.
    fn random(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Runs all blocks of a kernel whose threads do not meet: a plain loop, in a fiber so that it can be left.
pub(super) fn run_alone(launch: &Launch, stacks: &mut Stacks, order: &mut Order) -> Result<()> {
    let blocks = order.blocks(launch.blocks());
    launch.threads.replace(vec![Thread::new()]);
    let this: *const Launch<'static> = ptr::from_ref(launch).cast();
    let mut fiber = Fiber::new(stacks, move |way| {
        // SAFETY: the launch outlives its fibers.
        let launch = unsafe { &*this };
        launch.threads.borrow_mut()[0].way = way;
        for block in blocks.each() {
            launch.start_block(block);
            for thread in 0..launch.kernel.block {
                launch.thread.set(thread as usize);
                // SAFETY: `this` is the launch under way, with the parameters of its kernel.
                unsafe { launch.call.run() };
                launch.end_thread();
            }
        }
    })?;
    launch.enter(|| fiber.resume());
    fiber.end(stacks);
    launch.outcome()
}

/// Runs all blocks of a kernel whose threads meet: a fiber for each thread.
pub(super) fn run_together(launch: &Launch, stacks: &mut Stacks, order: &mut Order) -> Result<()> {
    for block in order.blocks(launch.blocks()).each() {
        launch.start_block(block);
        let count = launch.kernel.block as usize;
        launch
            .threads
            .replace((0..count).map(|_| Thread::new()).collect());
        let mut fibers = Vec::with_capacity(count);
        for thread in 0..count {
            fibers.push(begin(launch, thread, stacks)?);
        }
        launch.enter(|| schedule(launch, &mut fibers, order));
        fibers.into_iter().for_each(|fiber| fiber.end(stacks));
        launch.outcome()?;
        launch.end_block();
    }
    Ok(())
}

fn begin(launch: &Launch, thread: usize, stacks: &mut Stacks) -> Result<Fiber> {
    let this: *const Launch<'static> = ptr::from_ref(launch).cast();
    Fiber::new(stacks, move |way| {
        // SAFETY: the launch outlives its fibers.
        let launch = unsafe { &*this };
        launch.threads.borrow_mut()[thread].way = way;
        // SAFETY: `this` is the launch under way, with the parameters of its kernel.
        unsafe { launch.call.run() };
        launch.end_thread();
    })
}

/// Runs the threads of a block until all have ended or something is wrong.
fn schedule(launch: &Launch, fibers: &mut [Fiber], order: &mut Order) {
    let count = fibers.len();
    loop {
        let mut progress = false;
        for index in order.next(count.div_ceil(WARP)) {
            let lanes = index * WARP..((index + 1) * WARP).min(count);
            loop {
                let mut ran = false;
                for thread in lanes.clone() {
                    if !matches!(launch.threads.borrow()[thread].wait, Wait::Nothing) {
                        continue;
                    }
                    launch.thread.set(thread);
                    fibers[thread].resume();
                    ran = true;
                }
                let resolved = warp::resolve(launch, lanes.clone()).unwrap_or_else(|(thread, reason)| {
                    launch.blame(thread, &reason);
                    false
                });
                if launch.is_faulty() {
                    return;
                }
                if !ran && !resolved {
                    break;
                }
                progress = true;
            }
        }
        if meet(launch) {
            return;
        }
        if !progress
            && !launch
                .threads
                .borrow()
                .iter()
                .any(|thread| matches!(thread.wait, Wait::Nothing))
        {
            let (thread, reason) = explain(launch);
            launch.blame(thread, &reason);
            return;
        }
    }
}

/// Lets the threads of the block pass the barrier if all of them wait at it; whether all have ended.
fn meet(launch: &Launch) -> bool {
    let mut threads = launch.threads.borrow_mut();
    let first = threads[0].wait;
    match first {
        Wait::Barrier(number)
            if threads
                .iter()
                .all(|thread| matches!(thread.wait, Wait::Barrier(other) if other == number)) =>
        {
            threads.iter_mut().for_each(|thread| thread.wait = Wait::Nothing);
            launch.pass_barrier();
            false
        }
        Wait::Ended => threads.iter().all(|thread| matches!(thread.wait, Wait::Ended)),
        _ => false,
    }
}

/// Why no thread of the block can go on: the first that waits, and what each kind of thread does.
fn explain(launch: &Launch) -> (usize, String) {
    let threads = launch.threads.borrow();
    let describe = |wait: &Wait| match wait {
        Wait::Nothing => "can run".to_string(),
        Wait::Barrier(number) => format!("waits at barrier {number}"),
        Wait::Warp(request) => format!("waits in {:?} for lanes {:#x}", request.operation, request.mask),
        Wait::Ended => "has ended".to_string(),
    };
    let blamed = threads
        .iter()
        .position(|thread| !matches!(thread.wait, Wait::Ended))
        .unwrap_or(0);
    let own = describe(&threads[blamed].wait);
    let other = threads
        .iter()
        .enumerate()
        .map(|(index, thread)| (index, describe(&thread.wait)))
        .find(|(_, other)| *other != own);
    let reason = match other {
        Some((index, other)) => format!("{own} for ever, as thread {index} {other}"),
        None => format!("{own} for ever"),
    };
    (blamed, reason)
}

/// `void (i32 number)`: waits for all threads of the block.
#[unsafe(no_mangle)]
unsafe extern "C" fn syncbn_emu_barrier_cta_sync_aligned_all(arguments: *const u8, _: *mut u8) {
    // SAFETY: the number is the only argument.
    let number = unsafe { arguments.cast::<i32>().read_unaligned() };
    intrinsic(|launch| launch.wait(Wait::Barrier(number)));
}

/// `void ()`: barrier 0.
#[unsafe(no_mangle)]
unsafe extern "C" fn syncbn_emu_barrier0(_: *const u8, _: *mut u8) {
    intrinsic(|launch| launch.wait(Wait::Barrier(0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_comes_once_in_every_order() {
        for seed in [0, 1, 2, 3, 12345] {
            let mut order = Order::new(seed);
            for count in [1, 2, 7, 100] {
                let mut blocks: Vec<u64> = order.blocks(count).each().collect();
                if seed == 0 {
                    assert!(blocks.is_sorted());
                }
                blocks.sort_unstable();
                assert!(blocks.into_iter().eq(0..count));
            }
        }
    }

    #[test]
    fn a_seed_changes_the_order_of_warps_and_blocks() {
        let mut order = Order::new(7);
        let rounds: Vec<_> = (0..8).map(|_| order.next(8)).collect();
        assert!(rounds.iter().any(|round| !round.is_sorted()));
        assert!((0..8).any(|_| !order.blocks(50).each().is_sorted()));
    }
}
