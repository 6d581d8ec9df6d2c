//! Threads of a launch that touch the same bytes of global memory.

use super::*;

/// The kernel's output.
unsafe fn output<T>(parameters: *const *const c_void) -> *mut T {
    // SAFETY: the parameters of `kernel`.
    unsafe { parameter(parameters, 1) }
}

unsafe extern "C" fn all_write_one(parameters: *const *const c_void) {
    // SAFETY: the output has elements.
    unsafe { store_of(1, output::<f32>(parameters), 1.0) };
}

unsafe extern "C" fn first_threads_write_one(parameters: *const *const c_void) {
    // SAFETY: as above.
    unsafe {
        if thread() == 0 {
            store_of(1, output::<f32>(parameters), 1.0);
        }
    }
}

unsafe extern "C" fn read_the_one_before(parameters: *const *const c_void) {
    // SAFETY: the output has an element for each thread.
    unsafe {
        let own = output::<f32>(parameters).add(thread());
        store_of(1, own, 1.0);
        load_of(1, own.sub(thread().min(1)));
    }
}

unsafe extern "C" fn read_the_one_behind(parameters: *const *const c_void) {
    // SAFETY: the output has an element for each thread, and one more.
    unsafe {
        let own = output::<f32>(parameters).add(thread());
        store_of(1, own, 1.0 + load_of(1, own.add(1)));
    }
}

unsafe extern "C" fn all_read_what_the_last_writes(parameters: *const *const c_void) {
    // SAFETY: the output has elements.
    unsafe {
        let one = output::<f32>(parameters);
        load_of(1, one);
        if thread() == 31 {
            store_of(1, one, 1.0);
        }
    }
}

unsafe extern "C" fn rewrite(parameters: *const *const c_void) {
    // SAFETY: the output has an element for each thread.
    unsafe {
        let own = output::<f32>(parameters).add(global_thread());
        for _ in 0..3 {
            store_of(1, own, 1.0 + load_of(1, own));
        }
    }
}

/// Each element is turned round twice within its block, with barriers between.
unsafe extern "C" fn meet_in_blocks(parameters: *const *const c_void) {
    // SAFETY: the output has an element for each thread.
    unsafe {
        let begin = output::<f32>(parameters).add(global_thread() - thread());
        let (own, other) = (begin.add(thread()), begin.add(63 - thread()));
        store_of(1, own, global_thread() as f32);
        barrier();
        let (first, one) = (load_of(1, begin), load_of(1, other));
        barrier();
        store_of(1, own, one - first);
    }
}

unsafe extern "C" fn meet_across_blocks(parameters: *const *const c_void) {
    // SAFETY: the output has an element for each thread.
    unsafe {
        let all = output::<f32>(parameters);
        store_of(1, all.add(global_thread()), 1.0);
        barrier();
        load_of(1, all.add(global_thread().saturating_sub(64)));
    }
}

unsafe extern "C" fn single_bytes(parameters: *const *const c_void) {
    // SAFETY: the output has four bytes for each thread.
    unsafe {
        store_of(
            1,
            output::<u8>(parameters).add(global_thread()),
            global_thread() as u8,
        )
    };
}

unsafe extern "C" fn a_byte_and_a_word(parameters: *const *const c_void) {
    // SAFETY: as above.
    unsafe {
        match thread() {
            0 => store_of(1, output::<u8>(parameters).add(7), 1),
            1 => store_of(1, output::<u32>(parameters).add(1), 1),
            _ => {}
        }
    }
}

const INPUT: [f32; 128] = [0.0; 128];

/// Runs two blocks of 64 threads, alone and together; their output.
fn passes(entry: EmulatedKernel, cooperative: &[bool]) -> Vec<f32> {
    let mut outputs = cooperative
        .iter()
        .map(|&together| run(kernel(together, 64, 0), entry, 2, &INPUT, 5).unwrap());
    let first = outputs.next().unwrap();
    outputs.for_each(|output| assert_eq!(output, first));
    first
}

fn fails(entry: EmulatedKernel, blocks: i64, texts: &[&str]) {
    for cooperative in [false, true] {
        let outcome = run(kernel(cooperative, 32, 0), entry, blocks, &INPUT, 0);
        assert_fails(outcome, texts);
    }
}

#[test]
fn two_threads_that_write_one_element_fail() {
    let what = "writes 4 bytes at offset 0 of parameter 1: no barrier since thread 0 has written it";
    fails(all_write_one, 1, &["block (0, 0, 0), thread 1:", what]);
    let what = "a thread of another block has written it in the same launch";
    fails(first_threads_write_one, 2, &["block (1, 0, 0), thread 0:", what]);
    fails(
        a_byte_and_a_word,
        1,
        &["thread 1:", "writes 4 bytes at offset 4", "thread 0 has written"],
    );
}

#[test]
fn reading_what_another_thread_writes_fails_in_either_order() {
    let what = "reads 4 bytes at offset 0 of parameter 1: no barrier since thread 0 has written it";
    fails(read_the_one_before, 1, &["thread 1:", what]);
    let what = "writes 4 bytes at offset 4 of parameter 1: no barrier since thread 0 has read it";
    fails(read_the_one_behind, 1, &["thread 1:", what]);
    let what = "no barrier since other threads have read it";
    fails(all_read_what_the_last_writes, 1, &["thread 31:", what]);
}

#[test]
fn a_thread_may_rewrite_what_it_wrote() {
    assert_eq!(passes(rewrite, &[false, true]), [3.0; 128]);
}

#[test]
fn neighbouring_bytes_are_no_race() {
    let expected: Vec<u8> = (0..128).collect();
    let input: [u32; 128] = [0; 128];
    let output = run(kernel(false, 64, 0), single_bytes, 2, &input, 0).unwrap();
    let bytes: Vec<u8> = output.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes[..128], expected);
}

#[test]
fn a_barrier_orders_the_threads_of_a_block_and_no_others() {
    let expected: Vec<f32> = (0..128).map(|i| (63 - i % 64) as f32).collect();
    assert_eq!(passes(meet_in_blocks, &[true]), expected);
    let outcome = run(kernel(true, 64, 0), meet_across_blocks, 2, &INPUT, 0);
    let what = "a thread of another block has written it in the same launch";
    assert_fails(
        outcome,
        &["block (1, 0, 0), thread 0: reads 4 bytes at offset 0", what],
    );
}

#[test]
fn launches_are_in_order() {
    let device = EmulatedDevice::with_seed(vec![kernel(false, 64, 0)], vec![rewrite], 0).unwrap();
    let from = device.allocate(512, "the input").unwrap();
    let to = device.allocate(512, "the output").unwrap();
    for round in 1..=3 {
        let blocks = if round == 2 { 1 } else { 2 };
        let output = run_between(&device, blocks, &INPUT, from, to).unwrap();
        assert_eq!(output[0], 3.0 * round as f32);
    }
}

#[test]
fn a_race_is_found_after_other_launches() {
    let kernels = vec![kernel(false, 32, 0)];
    let device = EmulatedDevice::with_seed(kernels, vec![all_write_one], 0).unwrap();
    for _ in 0..3 {
        assert_fails(
            run_on(&device, 1, &INPUT),
            &["thread 1:", "thread 0 has written it"],
        );
    }
}
