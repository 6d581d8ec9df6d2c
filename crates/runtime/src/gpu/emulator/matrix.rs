//! `ldmatrix` and `mma.sync`: fragments of matrices across the lanes of a warp. Layouts after the PTX ISA.

use syncbn_abi::BASE_SHARED;

use super::{
    access::Access,
    accumulation::{Accumulation, multiply_add},
    launch::Launch,
    shared::{Shared, WARP},
    warp::{ALL, Failure, Lanes, Operation, Request, meet},
};

/// The parts of all lanes.
type Warp = [Request; WARP];

/// All lanes, which matrix operations need.
pub(super) fn whole(lanes: &Lanes) -> Result<Warp, Failure> {
    let first = lanes.iter().flatten().next().copied();
    let missing = lanes.iter().position(Option::is_none);
    match (first, missing) {
        (Some(first), None) => Ok(lanes.map(|lane| lane.unwrap_or(first))),
        _ => {
            let reason = "executes a matrix operation in a warp that is not full".to_string();
            Err((lanes.iter().position(Option::is_some).unwrap_or(0), reason))
        }
    }
}

/// Loads `count` matrices of 8x8 16-bit elements. Lane `8 m + r` has the address of row `r` of matrix `m`; each
/// lane `l` gets elements `2 (l % 4)` and the next of row `l / 4`, or of column `l / 4` if `transposed`.
pub(super) fn load(
    launch: &Launch,
    count: usize,
    transposed: bool,
    lanes: &Warp,
    first: usize,
) -> Result<(), Failure> {
    let mut rows = [[0u16; 8]; WARP];
    let counts = launch.banks.borrow().is_some();
    let mut offsets = Vec::new();
    for (lane, request) in lanes.iter().enumerate().take(8 * count) {
        // SAFETY: the address is the only argument.
        let address = unsafe { request.argument::<*const [u16; 8]>(0) };
        launch.thread.set(first + lane);
        let access = Access {
            address: address as usize,
            bytes: 16,
            write: false,
            base: BASE_SHARED,
        };
        launch
            .access(access, 16)
            .map_err(|reason| (lane, format!("ldmatrix {reason}")))?;
        if counts {
            offsets.extend(Shared::offset(address as usize));
        }
        // SAFETY: `access` has checked the address.
        rows[lane] = unsafe { address.read() };
    }
    if let Some(banks) = &mut *launch.banks.borrow_mut() {
        banks.rows(&offsets);
    }
    for (lane, request) in lanes.iter().enumerate() {
        let (row, column) = (lane / 4, lane % 4 * 2);
        for matrix in 0..count {
            let rows = &rows[8 * matrix..][..8];
            let pair = if transposed {
                [rows[column][row], rows[column + 1][row]]
            } else {
                [rows[row][column], rows[row][column + 1]]
            };
            // SAFETY: the result has `count` words.
            unsafe { request.answer(4 * matrix, pair) };
        }
    }
    Ok(())
}

/// `D = A B + C`, A 16x16 and B 16x8 in bf16, C and D in f32.
pub(super) fn multiply_bf16(how: Accumulation, lanes: &Warp) {
    let mut a = [[0.0; 16]; 16];
    let mut b = [[0.0; 8]; 16];
    for (lane, request) in lanes.iter().enumerate() {
        let (group, column) = (lane / 4, lane % 4 * 2);
        for half in 0..2 {
            let bf16 = |offset: usize| {
                // SAFETY: four registers of A and two of B come first, with two elements each.
                let bits = unsafe { request.argument::<u16>(offset + 2 * half) };
                f32::from_bits(u32::from(bits) << 16)
            };
            for register in 0..4 {
                a[group + 8 * (register & 1)][column + 8 * (register >> 1) + half] = bf16(4 * register);
            }
            for register in 0..2 {
                b[column + 8 * register + half][group] = bf16(16 + 4 * register);
            }
        }
    }
    accumulate(lanes, &a, &b, (how.bf16, how.extra_bits));
}

/// `D = A B + C`, A 16x8 and B 8x8 in tf32, C and D in f32. The 13 low bits of A and B are ignored.
pub(super) fn multiply_tf32(how: Accumulation, lanes: &Warp) {
    let mut a = [[0.0; 8]; 16];
    let mut b = [[0.0; 8]; 8];
    for (lane, request) in lanes.iter().enumerate() {
        let (group, column) = (lane / 4, lane % 4);
        // SAFETY: four registers of A and two of B come first.
        let tf32 = |offset: usize| f32::from_bits(unsafe { request.argument::<u32>(offset) } & !0x1fff);
        for register in 0..4 {
            a[group + 8 * (register & 1)][column + 4 * (register >> 1)] = tf32(4 * register);
        }
        for register in 0..2 {
            b[column + 4 * register][group] = tf32(16 + 4 * register);
        }
    }
    accumulate(lanes, &a, &b, (how.tf32, how.extra_bits));
}

fn accumulate<const K: usize>(lanes: &Warp, a: &[[f32; K]; 16], b: &[[f32; 8]; K], how: (usize, u32)) {
    let place =
        |lane: usize, register: usize| (lane / 4 + 8 * (register >> 1), lane % 4 * 2 + (register & 1));
    let mut sums = [[0.0f32; 8]; 16];
    for (lane, request) in lanes.iter().enumerate() {
        for register in 0..4 {
            let (row, column) = place(lane, register);
            // SAFETY: four registers of C follow those of A and B.
            sums[row][column] = unsafe { request.argument(24 + 4 * register) };
        }
    }
    multiply_add(a, b, &mut sums, how);
    for (lane, request) in lanes.iter().enumerate() {
        for register in 0..4 {
            let (row, column) = place(lane, register);
            // SAFETY: the result is four registers of D.
            unsafe { request.answer(4 * register, sums[row][column]) };
        }
    }
}

macro_rules! operations {
    ($($name:ident: $operation:expr;)*) => { $(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(arguments: *const u8, result: *mut u8) {
            meet($operation, ALL, arguments, result);
        }
    )* };
}

operations! {
    syncbn_emu_ldmatrix_sync_aligned_m8n8_x1_b16_p3: Operation::LoadMatrix { count: 1, transposed: false };
    syncbn_emu_ldmatrix_sync_aligned_m8n8_x2_b16_p3: Operation::LoadMatrix { count: 2, transposed: false };
    syncbn_emu_ldmatrix_sync_aligned_m8n8_x4_b16_p3: Operation::LoadMatrix { count: 4, transposed: false };
    syncbn_emu_ldmatrix_sync_aligned_m8n8_x1_trans_b16_p3: Operation::LoadMatrix { count: 1, transposed: true };
    syncbn_emu_ldmatrix_sync_aligned_m8n8_x2_trans_b16_p3: Operation::LoadMatrix { count: 2, transposed: true };
    syncbn_emu_ldmatrix_sync_aligned_m8n8_x4_trans_b16_p3: Operation::LoadMatrix { count: 4, transposed: true };
    syncbn_emu_mma_m16n8k16_row_col_bf16: Operation::MultiplyBf16;
    syncbn_emu_mma_m16n8k8_row_col_tf32: Operation::MultiplyTf32;
}
