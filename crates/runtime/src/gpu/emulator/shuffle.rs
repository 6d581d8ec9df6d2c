//! `shfl.sync`: lanes read each other's values. Semantics and names after the PTX ISA.

use super::{
    shared::WARP,
    warp::{Failure, Lanes, Operation, meet},
};

/// Which lane a lane reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A lower one.
    Up,
    /// A higher one.
    Down,
    /// The one whose number differs in the bits of the argument.
    Butterfly,
    /// The one that the argument names.
    Index,
}

/// Arguments: mask, value, b, c; result: the value, and after it whether the lane was in range.
pub(super) fn execute(mode: Mode, predicate: bool, lanes: &Lanes) -> Result<(), Failure> {
    for (lane, request) in lanes.iter().enumerate() {
        let Some(request) = request else { continue };
        // SAFETY: these are the arguments of every shuffle.
        let (b, c) = unsafe { (request.argument::<u32>(8) & 31, request.argument::<u32>(12)) };
        let (source, in_range) = source(mode, lane as u32, b, c);
        let Some(from) = lanes.get(source).copied().flatten() else {
            return Err((
                lane,
                format!("shuffles from lane {source}, which does not take part"),
            ));
        };
        // SAFETY: as above.
        unsafe {
            request.answer(0, from.argument::<u32>(4));
            if predicate {
                request.answer(4, u8::from(in_range));
            }
        }
    }
    Ok(())
}

/// The lane that `lane` reads, and whether it was in range; out of range, a lane reads itself.
fn source(mode: Mode, lane: u32, b: u32, c: u32) -> (usize, bool) {
    let segment = c >> 8 & 31;
    let clamp = c & 31;
    let lowest = lane & segment;
    let highest = lowest | (clamp & !segment);
    let source = match mode {
        Mode::Up => lane.wrapping_sub(b),
        Mode::Down => lane + b,
        Mode::Butterfly => lane ^ b,
        Mode::Index => lowest | (b & !segment),
    };
    let in_range = match mode {
        Mode::Up => source as i32 >= highest as i32,
        Mode::Down | Mode::Butterfly | Mode::Index => source <= highest && source < WARP as u32,
    };
    (if in_range { source } else { lane } as usize, in_range)
}

macro_rules! shuffles {
    ($($name:ident: $mode:ident $predicate:literal;)*) => { $(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(arguments: *const u8, result: *mut u8) {
            // SAFETY: the mask is the first argument.
            let mask = unsafe { arguments.cast::<u32>().read_unaligned() };
            let operation = Operation::Shuffle { mode: Mode::$mode, predicate: $predicate };
            meet(operation, mask, arguments, result);
        }
    )* };
}

shuffles! {
    syncbn_emu_shfl_sync_up_i32: Up false;
    syncbn_emu_shfl_sync_up_f32: Up false;
    syncbn_emu_shfl_sync_up_i32p: Up true;
    syncbn_emu_shfl_sync_up_f32p: Up true;
    syncbn_emu_shfl_sync_down_i32: Down false;
    syncbn_emu_shfl_sync_down_f32: Down false;
    syncbn_emu_shfl_sync_down_i32p: Down true;
    syncbn_emu_shfl_sync_down_f32p: Down true;
    syncbn_emu_shfl_sync_bfly_i32: Butterfly false;
    syncbn_emu_shfl_sync_bfly_f32: Butterfly false;
    syncbn_emu_shfl_sync_bfly_i32p: Butterfly true;
    syncbn_emu_shfl_sync_bfly_f32p: Butterfly true;
    syncbn_emu_shfl_sync_idx_i32: Index false;
    syncbn_emu_shfl_sync_idx_f32: Index false;
    syncbn_emu_shfl_sync_idx_i32p: Index true;
    syncbn_emu_shfl_sync_idx_f32p: Index true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_follow_the_instruction_set_manual() {
        assert_eq!(source(Mode::Butterfly, 5, 16, 0x1f), (21, true));
        assert_eq!(source(Mode::Index, 5, 31, 0x1f), (31, true));
        assert_eq!(source(Mode::Down, 30, 1, 0x1f), (31, true));
        assert_eq!(source(Mode::Down, 31, 1, 0x1f), (31, false));
        assert_eq!(source(Mode::Up, 0, 1, 0), (0, false));
        assert_eq!(source(Mode::Up, 7, 3, 0), (4, true));
        // Segments of eight lanes: the mask 0x18 keeps the upper bits.
        assert_eq!(source(Mode::Index, 13, 2, 0x181f), (10, true));
        assert_eq!(source(Mode::Down, 15, 1, 0x1807), (15, false));
    }
}
