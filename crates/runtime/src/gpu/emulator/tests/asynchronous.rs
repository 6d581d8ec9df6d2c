//! `cp.async`.

use super::*;

unsafe extern "C" {
    fn syncbn_emu_cp_async_ca_shared_global_4(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_cp_async_cg_shared_global_16_s(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_cp_async_commit_group(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_cp_async_wait_group(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_cp_async_wait_all(arguments: *const c_void, result: *mut c_void);
}

#[repr(C)]
struct Copy4(*mut f32, *const f32, i64);
#[repr(C)]
struct CopySome(*mut f32, *const f32, u32, i64);

fn commit() {
    call::<_, ()>(syncbn_emu_cp_async_commit_group, ());
}

fn wait(pending: u32) {
    call::<_, ()>(syncbn_emu_cp_async_wait_group, pending);
}

/// Three stages of one element per thread, of which the second is read; what is done before reading it.
unsafe fn stages(parameters: *const *const c_void, before: impl Fn()) {
    // SAFETY: the parameters of `kernel`, and shared memory of three stages.
    unsafe {
        let (input, output) = (
            parameter::<*const f32>(parameters, 0),
            parameter::<*mut f32>(parameters, 1),
        );
        for stage in 0..3 {
            let place = 64 * stage + thread();
            call::<_, ()>(
                syncbn_emu_cp_async_ca_shared_global_4,
                Copy4(shared::<f32>().add(place), input.add(place), 0),
            );
            commit();
        }
        before();
        store(
            output.add(thread()),
            load(shared::<f32>().add(64 + thread().saturating_sub(1))),
        );
        wait(0);
    }
}

unsafe extern "C" fn right(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe {
        stages(parameters, || {
            wait(1);
            barrier();
        });
    }
}

unsafe extern "C" fn wrong_count(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe {
        stages(parameters, || {
            wait(2);
            barrier();
        });
    }
}

unsafe extern "C" fn no_barrier(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe { stages(parameters, || wait(1)) };
}

unsafe extern "C" fn never_waited(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`.
    unsafe {
        let input = parameter::<*const f32>(parameters, 0).add(thread());
        call::<_, ()>(
            syncbn_emu_cp_async_ca_shared_global_4,
            Copy4(shared::<f32>().add(thread()), input, 0),
        );
        commit();
    }
}

/// Copies 4 elements, of which only the thread's number are read; the address of the last thread is out of bounds.
unsafe fn some(parameters: *const *const c_void, elements: u32) {
    // SAFETY: the parameters of `kernel`.
    unsafe {
        let (input, output) = (
            parameter::<*const f32>(parameters, 0),
            parameter::<*mut f32>(parameters, 1),
        );
        let place = shared::<f32>().add(4 * thread());
        let from = input.add(4 * thread());
        call::<_, ()>(
            syncbn_emu_cp_async_cg_shared_global_16_s,
            CopySome(place, from, 4 * elements, 0),
        );
        call::<_, ()>(syncbn_emu_cp_async_wait_all, ());
        if thread() < 8 {
            for element in 0..4 {
                store(output.add(4 * thread() + element), load(place.add(element)));
            }
        }
    }
}

unsafe extern "C" fn zero_filled(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe { some(parameters, if thread() < 8 { thread() as u32 % 5 } else { 0 }) };
}

unsafe extern "C" fn out_of_bounds(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe { some(parameters, 1) };
}

unsafe extern "C" fn misaligned(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`; the emulator refuses the copy.
    unsafe {
        let input = parameter::<*const f32>(parameters, 0).add(1);
        call::<_, ()>(
            syncbn_emu_cp_async_cg_shared_global_16_s,
            CopySome(shared(), input, 16, 0),
        );
    }
}

unsafe extern "C" fn past_the_input(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`; the emulator refuses the last copy.
    unsafe {
        let from = parameter::<*const f32>(parameters, 0).add(thread() + 1);
        let place = shared::<f32>().add(thread());
        call::<_, ()>(syncbn_emu_cp_async_ca_shared_global_4, Copy4(place, from, 0));
        call::<_, ()>(syncbn_emu_cp_async_wait_all, ());
    }
}

unsafe extern "C" fn of_anothers_output(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`; the emulator refuses the second copy.
    unsafe {
        let output = parameter::<*mut f32>(parameters, 1).add(thread());
        store_of(1, output, 1.0);
        let place = shared::<f32>().add(thread());
        let from = output.sub(thread().min(1));
        call::<_, ()>(syncbn_emu_cp_async_ca_shared_global_4, Copy4(place, from, 1));
        call::<_, ()>(syncbn_emu_cp_async_wait_all, ());
    }
}

fn input() -> Vec<f32> {
    (0..192).map(|i| i as f32).collect()
}

#[test]
fn a_pipeline_with_waits_and_barriers_delivers() {
    for seed in [0, 3] {
        let output = run(kernel(true, 64, 768), right, 1, &input(), seed).unwrap();
        let expected: Vec<f32> = (0..64)
            .map(|i: usize| (64 + i.saturating_sub(1)) as f32)
            .collect();
        assert_eq!(output[..64], expected);
    }
}

#[test]
fn reading_before_the_copy_was_waited_for_fails() {
    let outcome = run(kernel(true, 64, 768), wrong_count, 1, &input(), 0);
    assert_fails(
        outcome,
        &[
            "thread 0:",
            "reads 4 bytes",
            "has not waited for its asynchronous copy",
        ],
    );
}

#[test]
fn reading_anothers_copy_without_a_barrier_fails() {
    let outcome = run(kernel(true, 64, 768), no_barrier, 1, &input(), 0);
    assert_fails(
        outcome,
        &[
            "thread 1:",
            "no barrier since thread 0 waited for its asynchronous copy",
        ],
    );
}

#[test]
fn copies_must_be_waited_for() {
    for cooperative in [false, true] {
        let outcome = run(kernel(cooperative, 64, 768), never_waited, 1, &input(), 0);
        assert_fails(
            outcome,
            &["thread 0:", "asynchronous copies that it has not waited for"],
        );
    }
}

#[test]
fn bytes_that_are_not_read_become_zero_and_need_no_valid_address() {
    let output = run(kernel(true, 32, 512), zero_filled, 1, &input()[..32], 0).unwrap();
    let expected: Vec<f32> = (0..32)
        .map(|i| if i % 4 < i / 4 % 5 { i as f32 } else { 0.0 })
        .collect();
    assert_eq!(output, expected);
}

#[test]
fn copies_are_checked_for_bounds_and_alignment() {
    let outcome = run(kernel(true, 32, 512), out_of_bounds, 1, &input()[..32], 0);
    assert_fails(outcome, &["thread 8:", "cp.async reads 4 bytes", "parameter 0"]);
    let outcome = run(kernel(true, 32, 512), misaligned, 1, &input(), 0);
    assert_fails(outcome, &["cp.async of 16 bytes", "not both aligned to 16"]);
}

#[test]
fn a_copy_from_the_parameter_behind_its_own_fails() {
    let outcome = run_side_by_side(kernel(true, 32, 128), past_the_input, 1, &input()[..32]);
    let texts = [
        "thread 31:",
        "cp.async reads 4 bytes",
        "parameter 0 (ends 4 bytes past its 128 bytes)",
    ];
    assert_fails(outcome, &texts);
}

#[test]
fn a_copy_of_what_another_thread_has_written_fails() {
    let outcome = run(kernel(true, 32, 128), of_anothers_output, 1, &input()[..32], 0);
    let texts = [
        "thread 1:",
        "cp.async reads 4 bytes",
        "no barrier since thread 0 has written it",
    ];
    assert_fails(outcome, &texts);
}
