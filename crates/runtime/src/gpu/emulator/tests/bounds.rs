//! Accesses past the parameter that an address is based on, into one that the kernel may touch too.

use syncbn_abi::BASE_SHARED;

use super::*;

/// Moves all elements but the last one place on; the last thread takes what lies behind the input.
unsafe fn shift(parameters: *const *const c_void, base: i64) {
    // SAFETY: the parameters of `kernel`, with the output behind the input.
    unsafe {
        let (input, output) = (
            parameter::<*const f32>(parameters, 0),
            parameter::<*mut f32>(parameters, 1),
        );
        let next = load_of(base, input.add(thread() + 1));
        if thread() > 0 {
            store_of(1, output.add(thread()), next);
        }
    }
}

unsafe extern "C" fn shift_from_the_input(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe { shift(parameters, 0) };
}

unsafe extern "C" fn shift_from_anywhere(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe { shift(parameters, BASE_UNKNOWN) };
}

/// Each thread writes the element before its own, through this base.
unsafe fn write_early(parameters: *const *const c_void, base: i64) {
    // SAFETY: the parameters of `kernel`, with the output behind the input.
    unsafe {
        store_of(
            base,
            parameter::<*mut f32>(parameters, 1).add(thread()).sub(1),
            1.0,
        )
    };
}

unsafe extern "C" fn write_before_the_output(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe { write_early(parameters, 1) };
}

unsafe extern "C" fn write_before_the_output_from_anywhere(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe { write_early(parameters, BASE_UNKNOWN) };
}

unsafe extern "C" fn write_through_the_input(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`; the emulator refuses the store.
    unsafe { store_of(0, parameter::<*mut f32>(parameters, 1).add(thread()), 1.0) };
}

unsafe extern "C" fn write_the_input_itself(parameters: *const *const c_void) {
    // SAFETY: as above.
    unsafe { store_of(0, parameter::<*mut f32>(parameters, 0).add(thread()), 1.0) };
}

unsafe extern "C" fn shared_through_the_output(_: *const *const c_void) {
    // SAFETY: the emulator refuses the store.
    unsafe { store_of(1, shared::<f32>().add(thread()), 1.0) };
}

unsafe extern "C" fn output_as_shared_memory(parameters: *const *const c_void) {
    // SAFETY: as above.
    unsafe {
        store_of(
            BASE_SHARED,
            parameter::<*mut f32>(parameters, 1).add(thread()),
            1.0,
        )
    };
}

unsafe extern "C" fn through_a_number(parameters: *const *const c_void) {
    // SAFETY: as above.
    unsafe { store_of(2, parameter::<*mut f32>(parameters, 1).add(thread()), 1.0) };
}

const INPUT: [f32; 32] = [1.0; 32];

fn fails(kernel: GpuKernel, entry: EmulatedKernel, texts: &[&str]) {
    assert_fails(run_side_by_side(kernel, entry, 1, &INPUT), texts);
}

#[test]
fn reading_the_parameter_behind_its_own_fails() {
    for cooperative in [false, true] {
        let what = "parameter 0 (ends 4 bytes past its 128 bytes)";
        let texts = ["thread 31:", "reads 4 bytes", what];
        fails(kernel(cooperative, 32, 0), shift_from_the_input, &texts);
    }
}

#[test]
fn an_address_of_unknown_base_may_lie_in_any_parameter() {
    let output = run_side_by_side(kernel(false, 32, 0), shift_from_anywhere, 1, &INPUT).unwrap();
    assert_eq!(output[1..31], [1.0; 30]);
    assert_eq!([output[0], output[31]], [0.0; 2]);
    let texts = ["thread 0:", "parameter 0 is closest: which it may only read"];
    fails(
        kernel(false, 32, 0),
        write_before_the_output_from_anywhere,
        &texts,
    );
}

#[test]
fn writing_the_parameter_before_its_own_fails() {
    let what = "parameter 1 (begins 4 bytes before its start)";
    let texts = ["thread 0:", "writes 4 bytes", what];
    fails(kernel(false, 32, 0), write_before_the_output, &texts);
}

#[test]
fn a_base_says_which_memory_and_which_direction() {
    for (entry, what) in [
        (
            write_through_the_input as EmulatedKernel,
            "parameter 0 (ends 4 bytes past its 128 bytes)",
        ),
        (write_the_input_itself, "parameter 0 (which it may only read)"),
        (
            shared_through_the_output,
            "outside what it may touch; parameter 1",
        ),
        (output_as_shared_memory, "which is not shared memory"),
        (through_a_number, "there is no parameter 2"),
    ] {
        fails(
            kernel(true, 32, 128),
            entry,
            &["thread 0:", "writes 4 bytes", what],
        );
    }
}

#[test]
fn a_kernel_without_described_parameters_may_touch_every_allocation_through_any_base() {
    let undescribed = GpuKernel {
        parameters: None,
        ..kernel(false, 32, 0)
    };
    run_side_by_side(undescribed, shift_from_the_input, 1, &INPUT).unwrap();
}
