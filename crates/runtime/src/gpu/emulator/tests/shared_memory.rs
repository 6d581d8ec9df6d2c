//! Barriers, shared memory and races.

use super::*;

/// Sums `input` over blocks of 128 threads with a tree in shared memory; `STEP` is the barrier in the tree.
unsafe fn sum<const STEP: bool>(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`, and the shared memory that it has.
    unsafe {
        let (input, output) = (
            parameter::<*const f32>(parameters, 0),
            parameter::<*mut f32>(parameters, 1),
        );
        let (own, local) = (thread(), shared::<f32>());
        store(local.add(own), load(input.add(global_thread())));
        barrier();
        let mut half = 64;
        while half > 0 {
            if own < half {
                store(local.add(own), load(local.add(own)) + load(local.add(own + half)));
            }
            if STEP {
                barrier();
            }
            half /= 2;
        }
        if !STEP {
            barrier();
        }
        store(output.add(global_thread()), load(local));
    }
}

unsafe extern "C" fn sum_right(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe { sum::<true>(parameters) };
}

unsafe extern "C" fn sum_without_barrier(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe { sum::<false>(parameters) };
}

unsafe extern "C" fn read_unwritten(_: *const *const c_void) {
    // SAFETY: shared memory.
    unsafe {
        if thread() != 5 {
            store(shared::<f32>().add(thread()), 1.0);
        }
        barrier();
        load(shared::<f32>().add(thread()));
    }
}

unsafe extern "C" fn write_after_read(_: *const *const c_void) {
    // SAFETY: shared memory.
    unsafe {
        store(shared::<f32>().add(thread()), 1.0);
        barrier();
        let next = load(shared::<f32>().add((thread() + 1) % 64));
        store(shared::<f32>().add(thread()), next);
    }
}

unsafe extern "C" fn skip_the_barrier(_: *const *const c_void) {
    if thread() < 32 {
        barrier();
    }
}

unsafe extern "C" fn past_shared(_: *const *const c_void) {
    // SAFETY: the emulator refuses it.
    unsafe { store(shared::<f32>().add(thread()), 1.0) };
}

unsafe extern "C" fn meet(_: *const *const c_void) {
    barrier();
}

#[test]
fn a_tree_of_barriers_sums_blocks_in_any_order_of_warps() {
    let input: Vec<f32> = (0..256).map(|i| i as f32).collect();
    for seed in [0, 1, 2, 77] {
        let output = run(kernel(true, 128, 512), sum_right, 2, &input, seed).unwrap();
        assert!(output[..128].iter().all(|&x| x == 8128.0));
        assert!(output[128..].iter().all(|&x| x == 8128.0 + 128.0 * 128.0));
    }
}

#[test]
fn a_missing_barrier_is_a_race() {
    for seed in [0, 1, 2, 77] {
        let outcome = run(
            kernel(true, 128, 512),
            sum_without_barrier,
            2,
            &[1.0f32; 256],
            seed,
        );
        assert_fails(outcome, &["no barrier since", "of another warp"]);
    }
}

#[test]
fn writing_what_another_warp_reads_is_a_race() {
    let outcome = run(kernel(true, 64, 256), write_after_read, 1, &[1.0f32; 64], 0);
    assert_fails(outcome, &["no barrier since"]);
}

#[test]
fn reading_shared_memory_that_nobody_wrote_fails() {
    let outcome = run(kernel(true, 64, 256), read_unwritten, 1, &[1.0f32; 64], 0);
    assert_fails(
        outcome,
        &[
            "thread 5:",
            "reads 4 bytes",
            "offset 20",
            "nothing was written there",
        ],
    );
}

#[test]
fn shared_memory_of_the_block_before_is_gone() {
    let outcome = run(kernel(true, 64, 256), read_unwritten, 2, &[1.0f32; 64], 0);
    assert_fails(outcome, &["block (0, 0, 0)"]);
}

#[test]
fn an_access_past_the_blocks_shared_memory_fails() {
    let outcome = run(kernel(true, 64, 128), past_shared, 1, &[1.0f32; 64], 0);
    assert_fails(
        outcome,
        &["thread 32:", "ends 4 bytes past the block's 128 bytes"],
    );
}

#[test]
fn a_barrier_that_some_threads_never_reach_fails() {
    let outcome = run(kernel(true, 64, 0), skip_the_barrier, 1, &[1.0f32; 64], 0);
    assert_fails(
        outcome,
        &["thread 0:", "waits at barrier 0 for ever", "thread 32 has ended"],
    );
}

#[test]
fn threads_of_a_kernel_that_is_not_cooperative_may_not_meet() {
    let outcome = run(kernel(false, 64, 0), meet, 1, &[1.0f32; 64], 0);
    assert_fails(outcome, &["not cooperative"]);
}
