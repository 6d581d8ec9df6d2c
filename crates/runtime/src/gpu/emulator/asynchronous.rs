//! `cp.async`: copies from global to shared memory that a thread waits for in groups. A copy happens when it is
//! waited for; until then its destination holds NaN, and touching it is an error.

use std::collections::VecDeque;

use super::{
    access::Access,
    launch::{Launch, intrinsic},
    shared::Shared,
};

/// The copies of a thread.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Copies that no group has yet.
    open: Vec<Copy>,
    /// Committed groups, oldest first.
    groups: VecDeque<Vec<Copy>>,
}

/// A copy under way.
#[derive(Debug, Clone, Copy)]
struct Copy {
    to: *mut u8,
    from: *const u8,
    bytes: usize,
    /// Bytes that are read; the rest becomes 0.
    read: usize,
}

impl Copies {
    /// Whether there are copies that were not waited for.
    pub fn under_way(&self) -> bool {
        !self.open.is_empty() || self.groups.iter().any(|group| !group.is_empty())
    }
}

fn begin(launch: &Launch, copy: Copy, base: i64) -> Result<(), String> {
    let Copy {
        to,
        from,
        bytes,
        read,
    } = copy;
    if !(to as usize).is_multiple_of(bytes) || !(from as usize).is_multiple_of(bytes) {
        return Err(format!(
            "cp.async of {bytes} bytes from {from:p} to {to:p}, which are not both aligned to {bytes}"
        ));
    }
    if read > 0 {
        let access = Access {
            address: from as usize,
            bytes: read,
            write: false,
            base,
        };
        launch
            .access(access, 1)
            .map_err(|reason| format!("cp.async {reason}"))?;
    }
    let Some(offset) = Shared::offset(to as usize) else {
        return Err(format!("cp.async to {to:p}, which is not shared memory"));
    };
    launch
        .shared
        .borrow_mut()
        .begin_copy(launch.thread.get(), offset, bytes)
        .map_err(|reason| format!("cp.async writes {bytes} bytes of {reason}"))?;
    if let Some(banks) = &mut *launch.banks.borrow_mut() {
        banks.copy(launch.thread.get(), offset, bytes);
    }
    let slot = launch.slot();
    launch.threads.borrow_mut()[slot].copies.open.push(copy);
    Ok(())
}

fn commit(launch: &Launch) {
    let slot = launch.slot();
    let copies = &mut launch.threads.borrow_mut()[slot].copies;
    copies.groups.push_back(std::mem::take(&mut copies.open));
}

/// Waits until at most `pending` groups are left.
fn wait(launch: &Launch, pending: usize) {
    let slot = launch.slot();
    let copies = &mut launch.threads.borrow_mut()[slot].copies;
    let done = copies.groups.len().saturating_sub(pending);
    for copy in copies.groups.drain(..done).flatten() {
        // SAFETY: `begin` has checked both places, and nothing else runs.
        unsafe {
            std::ptr::copy_nonoverlapping(copy.from, copy.to, copy.read);
            std::ptr::write_bytes(copy.to.add(copy.read), 0, copy.bytes - copy.read);
        }
        if let Some(offset) = Shared::offset(copy.to as usize) {
            launch.shared.borrow_mut().end_copy(offset, copy.bytes);
        }
    }
}

/// The arguments of a copy, and what its source is based on.
#[repr(C)]
struct Arguments(*mut u8, *const u8, i64);

/// Those of a copy of which only so many bytes are read.
#[repr(C)]
struct PartialArguments(*mut u8, *const u8, u32, i64);

macro_rules! copies {
    ($($name:ident $with_size:ident: $bytes:literal;)*) => { $(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(arguments: *const u8, _: *mut u8) {
            // SAFETY: generated code passes these.
            let Arguments(to, from, base) = unsafe { arguments.cast::<Arguments>().read_unaligned() };
            let copy = Copy { to, from, bytes: $bytes, read: $bytes };
            intrinsic(|launch| begin(launch, copy, base));
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn $with_size(arguments: *const u8, _: *mut u8) {
            // SAFETY: as above.
            let passed = unsafe { arguments.cast::<PartialArguments>().read_unaligned() };
            let PartialArguments(to, from, read, base) = passed;
            let copy = Copy { to, from, bytes: $bytes, read: (read as usize).min($bytes) };
            intrinsic(|launch| begin(launch, copy, base));
        }
    )* };
}

copies! {
    syncbn_emu_cp_async_ca_shared_global_4 syncbn_emu_cp_async_ca_shared_global_4_s: 4;
    syncbn_emu_cp_async_ca_shared_global_8 syncbn_emu_cp_async_ca_shared_global_8_s: 8;
    syncbn_emu_cp_async_ca_shared_global_16 syncbn_emu_cp_async_ca_shared_global_16_s: 16;
    syncbn_emu_cp_async_cg_shared_global_16 syncbn_emu_cp_async_cg_shared_global_16_s: 16;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn syncbn_emu_cp_async_commit_group(_: *const u8, _: *mut u8) {
    intrinsic(|launch| {
        commit(launch);
        Ok(())
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn syncbn_emu_cp_async_wait_group(arguments: *const u8, _: *mut u8) {
    // SAFETY: the argument is the number of groups that may be left.
    let pending = unsafe { arguments.cast::<u32>().read_unaligned() };
    intrinsic(|launch| {
        wait(launch, pending as usize);
        Ok(())
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn syncbn_emu_cp_async_wait_all(_: *const u8, _: *mut u8) {
    intrinsic(|launch| {
        commit(launch);
        wait(launch, 0);
        Ok(())
    });
}
