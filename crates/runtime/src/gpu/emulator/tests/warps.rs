//! Shuffles.

use super::*;

unsafe extern "C" {
    fn syncbn_emu_shfl_sync_bfly_i32(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_shfl_sync_bfly_f32(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_shfl_sync_idx_i32(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_shfl_sync_down_i32p(arguments: *const c_void, result: *mut c_void);
}

#[repr(C)]
struct Shuffle<T>(u32, T, i32, i32);

#[repr(C)]
#[derive(Default)]
struct Checked {
    value: i32,
    in_range: bool,
}

unsafe fn transform<T: Copy>(parameters: *const *const c_void, function: impl Fn(T) -> T) {
    // SAFETY: the parameters of `kernel`.
    unsafe {
        let (input, output) = (
            parameter::<*const T>(parameters, 0),
            parameter::<*mut T>(parameters, 1),
        );
        let value = function(load(input.add(global_thread())));
        store(output.add(global_thread()), value);
    }
}

unsafe extern "C" fn warp_sum(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe {
        transform(parameters, |mut value: f32| {
            for lanes in [16, 8, 4, 2, 1] {
                value += call::<_, f32>(syncbn_emu_shfl_sync_bfly_f32, Shuffle(!0, value, lanes, 31));
            }
            value
        });
    }
}

unsafe extern "C" fn broadcast(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe {
        transform(parameters, |value: i32| {
            call(syncbn_emu_shfl_sync_idx_i32, Shuffle(!0, value, 3, 31))
        })
    };
}

unsafe extern "C" fn next(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe {
        transform(parameters, |value: i32| {
            let next: Checked = call(syncbn_emu_shfl_sync_down_i32p, Shuffle(!0, value, 1, 31));
            if next.in_range { next.value } else { -1 }
        });
    }
}

unsafe extern "C" fn halves(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe {
        transform(parameters, |value: i32| {
            let mask = if thread() % 32 < 16 { 0xffff } else { 0xffff_0000 };
            call(syncbn_emu_shfl_sync_bfly_i32, Shuffle(mask, value, 1, 31))
        });
    }
}

unsafe extern "C" fn across_halves(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe {
        transform(parameters, |value: i32| {
            let mask = if thread() % 32 < 16 { 0xffff } else { 0xffff_0000 };
            call(syncbn_emu_shfl_sync_bfly_i32, Shuffle(mask, value, 16, 31))
        });
    }
}

unsafe extern "C" fn diverge(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe {
        transform(parameters, |value: i32| {
            if thread() == 7 {
                return value;
            }
            call(syncbn_emu_shfl_sync_bfly_i32, Shuffle(!0, value, 1, 31))
        });
    }
}

unsafe extern "C" fn not_in_mask(parameters: *const *const c_void) {
    // SAFETY: passed on.
    unsafe {
        transform(parameters, |value: i32| {
            call(syncbn_emu_shfl_sync_bfly_i32, Shuffle(0xff, value, 1, 31))
        });
    }
}

#[test]
fn butterflies_sum_a_warp() {
    let input: Vec<f32> = (0..128).map(|i| i as f32).collect();
    for seed in [0, 5] {
        let output = run(kernel(true, 64, 0), warp_sum, 2, &input, seed).unwrap();
        for (warp, sums) in output.chunks(32).enumerate() {
            assert_eq!(sums, [496.0 + 1024.0 * warp as f32; 32]);
        }
    }
}

#[test]
fn lanes_read_the_lane_they_name() {
    let input: Vec<i32> = (0..64).collect();
    let output = run(kernel(true, 64, 0), broadcast, 1, &input, 0).unwrap();
    assert_eq!(output, [[3; 32], [35; 32]].concat());
    let mut expected: Vec<i32> = (1..65).collect();
    (expected[31], expected[63]) = (-1, -1);
    assert_eq!(run(kernel(true, 64, 0), next, 1, &input, 0).unwrap(), expected);
}

#[test]
fn groups_of_lanes_shuffle_by_themselves() {
    let input: Vec<i32> = (0..32).collect();
    let expected: Vec<i32> = (0..32).map(|lane| lane ^ 1).collect();
    assert_eq!(run(kernel(true, 32, 0), halves, 1, &input, 0).unwrap(), expected);
}

#[test]
fn a_lane_outside_the_mask_cannot_be_read() {
    let outcome = run(kernel(true, 32, 0), across_halves, 1, &[0i32; 32], 0);
    assert_fails(
        outcome,
        &["thread 0:", "shuffles from lane 16, which does not take part"],
    );
}

#[test]
fn a_shuffle_that_a_lane_never_reaches_fails() {
    let outcome = run(kernel(true, 32, 0), diverge, 1, &[0i32; 32], 0);
    assert_fails(outcome, &["thread 0:", "Shuffle", "thread 7 has ended"]);
}

#[test]
fn a_lane_must_be_in_its_own_mask() {
    let outcome = run(kernel(true, 32, 0), not_in_mask, 1, &[0i32; 32], 0);
    assert_fails(outcome, &["thread 8:", "lanes 0xff, which it is not one of"]);
}
