//! `ldmatrix` and `mma`, against plain products.

use super::*;

unsafe extern "C" {
    fn syncbn_emu_ldmatrix_sync_aligned_m8n8_x4_b16_p3(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_ldmatrix_sync_aligned_m8n8_x2_trans_b16_p3(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_mma_m16n8k16_row_col_bf16(arguments: *const c_void, result: *mut c_void);
    fn syncbn_emu_mma_m16n8k8_row_col_tf32(arguments: *const c_void, result: *mut c_void);
}

#[repr(C)]
struct Multiply([u32; 4], [u32; 2], [f32; 4]);

/// Where the elements of C and D are: rows `lane / 4` and 8 more, columns `2 (lane % 4)` and the next.
fn place(lane: usize, register: usize) -> usize {
    (lane / 4 + 8 * (register / 2)) * 8 + lane % 4 * 2 + register % 2
}

/// `D = A B + 1` with A (16x16, row-major) and B (16x8, row-major) in bf16 as the input, by way of `ldmatrix`.
unsafe extern "C" fn bf16(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`, and its shared memory.
    unsafe {
        let (input, output) = (
            parameter::<*const u32>(parameters, 0),
            parameter::<*mut f32>(parameters, 1),
        );
        let (lane, local) = (thread(), shared::<u32>());
        for word in (lane..192).step_by(32) {
            store(local.add(word), load(input.add(word)));
        }
        barrier();
        let row = local.cast::<u16>().add((lane % 16) * 16 + lane / 16 * 8);
        let a: [u32; 4] = call(syncbn_emu_ldmatrix_sync_aligned_m8n8_x4_b16_p3, row);
        let row = local.cast::<u16>().add(256 + (lane % 16) * 8);
        let b: [u32; 2] = call(syncbn_emu_ldmatrix_sync_aligned_m8n8_x2_trans_b16_p3, row);
        let d: [f32; 4] = call(syncbn_emu_mma_m16n8k16_row_col_bf16, Multiply(a, b, [1.0; 4]));
        for (register, value) in d.into_iter().enumerate() {
            store(output.add(place(lane, register)), value);
        }
    }
}

/// As [`bf16`], with A (16x8) and B (8x8) in tf32, read from global memory.
unsafe extern "C" fn tf32(parameters: *const *const c_void) {
    // SAFETY: the parameters of `kernel`.
    unsafe {
        let (input, output) = (
            parameter::<*const u32>(parameters, 0),
            parameter::<*mut f32>(parameters, 1),
        );
        let lane = thread();
        let (group, column) = (lane / 4, lane % 4);
        let a = [0, 1, 2, 3].map(|i| load(input.add((group + 8 * (i % 2)) * 8 + column + 4 * (i / 2))));
        let b = [0, 1].map(|i| load(input.add(128 + (column + 4 * i) * 8 + group)));
        let d: [f32; 4] = call(syncbn_emu_mma_m16n8k8_row_col_tf32, Multiply(a, b, [1.0; 4]));
        for (register, value) in d.into_iter().enumerate() {
            store(output.add(place(lane, register)), value);
        }
    }
}

unsafe extern "C" fn misaligned_rows(_: *const *const c_void) {
    // SAFETY: the emulator refuses it.
    unsafe {
        store(shared::<u32>().add(thread()), 0);
        barrier();
        let row = shared::<u16>().add(4);
        call::<_, [u32; 4]>(syncbn_emu_ldmatrix_sync_aligned_m8n8_x4_b16_p3, row);
    }
}

/// Small whole numbers, so that products and sums are exact in every precision.
fn value(index: usize) -> f32 {
    (index * 37 % 23) as f32 - 11.0
}

/// The product of a 16xK and a Kx8 matrix that follow each other, plus 1.
fn product(k: usize) -> Vec<f32> {
    let element = |row: usize, column: usize| -> f32 {
        (0..k)
            .map(|i| value(row * k + i) * value(16 * k + i * 8 + column))
            .sum()
    };
    (0..128).map(|i| 1.0 + element(i / 8, i % 8)).collect()
}

#[test]
fn bf16_fragments_multiply() {
    let halves: Vec<u32> = (0..384).map(|i| value(i).to_bits() >> 16).collect();
    let input: Vec<f32> = halves
        .chunks(2)
        .map(|pair| f32::from_bits(pair[0] | pair[1] << 16))
        .collect();
    let output = run(kernel(true, 32, 768), bf16, 1, &input, 0).unwrap();
    assert_eq!(output[..128], product(16));
}

#[test]
fn tf32_fragments_multiply_and_ignore_the_low_bits() {
    let input: Vec<f32> = (0..192)
        .map(|i| f32::from_bits(value(i).to_bits() | 0x1fff))
        .collect();
    let mut output = run(kernel(true, 32, 0), tf32, 1, &input, 0).unwrap();
    output.truncate(128);
    assert_eq!(output, product(8));
}

#[test]
fn rows_of_ldmatrix_must_be_aligned() {
    let outcome = run(kernel(true, 32, 128), misaligned_rows, 1, &[0.0f32; 32], 0);
    assert_fails(
        outcome,
        &["thread 0:", "ldmatrix reads 16 bytes", "not aligned to 16"],
    );
}

#[test]
fn matrix_operations_need_a_full_warp() {
    let outcome = run(kernel(true, 16, 128), misaligned_rows, 1, &[0.0f32; 32], 0);
    assert_fails(outcome, &["a warp that is not full"]);
}
