//! Shared memory of the emulated block, and what is known of each of its bytes.
//!
//! Every two bytes have a record: whether they were written, by which thread and in which *interval* (the time
//! between two barriers), who read them last, and whether an asynchronous copy to them is under way. An access
//! of single bytes counts for both.

use std::{
    cell::UnsafeCell,
    sync::{Mutex, MutexGuard, PoisonError},
};

use syncbn_abi::SHARED_LIMIT;

/// Threads of a warp.
pub(super) const WARP: usize = 32;

/// What [`syncbn_abi::gpu_symbols::EMULATED_SHARED`] names.
#[repr(C, align(1024))]
pub struct SharedMemory(UnsafeCell<[u8; SHARED_LIMIT as usize]>);

// SAFETY: only the launch that holds the lock of `SHARED` touches the bytes, from one thread.
unsafe impl Sync for SharedMemory {}

/// The shared memory of the block that runs: one in a process at a time.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static syncbn_emulated_shared: SharedMemory = SharedMemory(UnsafeCell::new([0; SHARED_LIMIT as usize]));

static SHARED: Mutex<Vec<Record>> = Mutex::new(Vec::new());

/// No thread.
const NOBODY: u16 = u16::MAX;
/// Several threads of different warps.
const MANY: u16 = u16::MAX - 1;

/// What is known of two bytes.
#[derive(Debug, Clone, Copy)]
struct Record {
    write_interval: u32,
    read_interval: u32,
    writer: u16,
    reader: u16,
    state: State,
}

/// What two bytes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing.
    Unwritten,
    /// What a thread stored.
    Stored,
    /// An asynchronous copy that the writer has not waited for.
    Pending,
    /// An asynchronous copy that the writer has waited for: others see it after a barrier.
    Copied,
}

const UNTOUCHED: Record = Record {
    write_interval: 0,
    read_interval: 0,
    writer: NOBODY,
    reader: NOBODY,
    state: State::Unwritten,
};

/// Exclusive use of the shared memory.
pub(super) struct Shared {
    records: MutexGuard<'static, Vec<Record>>,
    bytes: usize,
    interval: u32,
}

impl Shared {
    /// Waits for other launches of this process to end.
    pub fn lock() -> Self {
        Shared {
            records: SHARED.lock().unwrap_or_else(PoisonError::into_inner),
            bytes: 0,
            interval: 0,
        }
    }

    /// Starts a block with `bytes` bytes, all of them 0xff, which is NaN in every float format.
    pub fn start_block(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.interval = 0;
        self.records.clear();
        self.records.resize(bytes.div_ceil(2), UNTOUCHED);
        // SAFETY: `bytes` is at most the size of the static, and this object is the only user.
        unsafe { std::ptr::write_bytes(start(), 0xff, bytes) };
    }

    /// All threads of the block have met.
    pub fn barrier(&mut self) {
        self.interval += 1;
    }

    /// The offset of an address in shared memory, be it in the block's bytes or not.
    pub fn offset(address: usize) -> Option<usize> {
        address
            .checked_sub(start() as usize)
            .filter(|&offset| offset < SHARED_LIMIT as usize)
    }

    /// Notes an access of `thread`, or says why it is wrong.
    pub fn access(&mut self, thread: usize, offset: usize, bytes: usize, write: bool) -> Result<(), String> {
        self.check_bounds(offset, bytes)?;
        let interval = self.interval;
        for (index, record) in self.records[offset / 2..(offset + bytes).div_ceil(2)]
            .iter_mut()
            .enumerate()
        {
            let at = || format!("shared memory at offset {}", (offset / 2 + index) * 2);
            record
                .check(thread, interval, write)
                .map_err(|reason| format!("{}: {reason}", at()))?;
            if write {
                record.writer = thread as u16;
                record.write_interval = interval;
                record.state = State::Stored;
            } else if record.read_interval != interval || record.reader == NOBODY {
                record.reader = thread as u16;
                record.read_interval = interval;
            } else if record.reader != MANY && !same_warp(record.reader, thread) {
                record.reader = MANY;
            }
        }
        Ok(())
    }

    /// An asynchronous copy to these bytes begins: they are undefined until [`Shared::end_copy`].
    pub fn begin_copy(&mut self, thread: usize, offset: usize, bytes: usize) -> Result<(), String> {
        self.access(thread, offset, bytes, true)?;
        self.mark(offset, bytes, State::Pending);
        // SAFETY: `access` has checked that the bytes belong to the block.
        unsafe { std::ptr::write_bytes(start().add(offset), 0xff, bytes) };
        Ok(())
    }

    /// The thread that began the copy has waited for it.
    pub fn end_copy(&mut self, offset: usize, bytes: usize) {
        let interval = self.interval;
        self.mark(offset, bytes, State::Copied);
        for record in &mut self.records[offset / 2..(offset + bytes).div_ceil(2)] {
            record.write_interval = interval;
        }
    }

    fn mark(&mut self, offset: usize, bytes: usize, state: State) {
        for record in &mut self.records[offset / 2..(offset + bytes).div_ceil(2)] {
            record.state = state;
        }
    }

    fn check_bounds(&self, offset: usize, bytes: usize) -> Result<(), String> {
        if offset + bytes <= self.bytes {
            return Ok(());
        }
        Err(format!(
            "shared memory at offset {offset}: ends {} bytes past the block's {} bytes",
            offset + bytes - self.bytes,
            self.bytes
        ))
    }
}

impl Record {
    fn check(&self, thread: usize, interval: u32, write: bool) -> Result<(), String> {
        let writer = self.writer;
        match self.state {
            State::Pending => {
                return Err(format!(
                    "thread {writer} has not waited for its asynchronous copy to it"
                ));
            }
            State::Unwritten if !write => return Err("nothing was written there".to_string()),
            State::Copied if self.write_interval == interval && usize::from(writer) != thread => {
                return Err(format!(
                    "no barrier since thread {writer} waited for its asynchronous copy to it"
                ));
            }
            State::Stored if self.write_interval == interval && !same_warp(writer, thread) => {
                return Err(format!(
                    "no barrier since thread {writer} of another warp wrote it"
                ));
            }
            State::Unwritten | State::Copied | State::Stored => {}
        }
        let read_by_others = self.reader == MANY || !same_warp(self.reader, thread);
        if write && self.reader != NOBODY && self.read_interval == interval && read_by_others {
            return Err("no barrier since a thread of another warp read it".to_string());
        }
        Ok(())
    }
}

fn same_warp(known: u16, thread: usize) -> bool {
    usize::from(known) / WARP == thread / WARP
}

fn start() -> *mut u8 {
    syncbn_emulated_shared.0.get().cast()
}
