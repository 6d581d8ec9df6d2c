//! Special registers: where the current thread is. `i32 ()`; 0 outside a launch.

use super::{
    launch::{Launch, current},
    shared::WARP,
};

macro_rules! registers {
    ($($name:ident: $read:expr;)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> u32 {
            let read: fn(&Launch) -> u32 = $read;
            current().map_or(0, read)
        }
    )* };
}

// Blocks are one-dimensional.
registers! {
    syncbn_emu_read_ptx_sreg_tid_x: |launch| launch.thread.get() as u32;
    syncbn_emu_read_ptx_sreg_tid_y: |_| 0;
    syncbn_emu_read_ptx_sreg_tid_z: |_| 0;
    syncbn_emu_read_ptx_sreg_ntid_x: |launch| launch.kernel.block;
    syncbn_emu_read_ptx_sreg_ntid_y: |_| 1;
    syncbn_emu_read_ptx_sreg_ntid_z: |_| 1;
    syncbn_emu_read_ptx_sreg_ctaid_x: |launch| launch.block.get()[0];
    syncbn_emu_read_ptx_sreg_ctaid_y: |launch| launch.block.get()[1];
    syncbn_emu_read_ptx_sreg_ctaid_z: |launch| launch.block.get()[2];
    syncbn_emu_read_ptx_sreg_nctaid_x: |launch| launch.grid[0];
    syncbn_emu_read_ptx_sreg_nctaid_y: |launch| launch.grid[1];
    syncbn_emu_read_ptx_sreg_nctaid_z: |launch| launch.grid[2];
    syncbn_emu_read_ptx_sreg_laneid: |launch| (launch.thread.get() % WARP) as u32;
    syncbn_emu_read_ptx_sreg_warpsize: |_| WARP as u32;
}
