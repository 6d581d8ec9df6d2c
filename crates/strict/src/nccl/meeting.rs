//! Where the ranks of a communicator meet: a file that all of them map, and whose name is made of the identifier. Its
//! name is removed once all have joined, its memory ends with the last of them.

use std::{
    ffi::{c_int, c_void},
    fs::{File, OpenOptions},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::ID_BYTES;

/// Numbers of a rank before its descriptions: whether it has joined, its GPU, its number of all-reduces, whether it has
/// ended the communicator.
const HEAD: usize = 8;
const JOINED: usize = 0;
const DEVICE: usize = 1;
const ARRIVED: usize = 2;
const ENDED: usize = 3;
/// Descriptions that a rank keeps. It can be ahead by no more than what it enqueues without waiting.
const KEPT: u64 = 1 << 14;
/// Numbers of a rank.
const RANK: usize = HEAD + KEPT as usize;

/// A place where ranks meet.
#[derive(Debug)]
pub struct Meeting {
    path: PathBuf,
    memory: *mut c_void,
    ranks: usize,
    complete: bool,
}

// SAFETY: the memory is shared with other processes and used through atomics only.
unsafe impl Send for Meeting {}

impl Meeting {
    /// Joins as `rank` of `ranks` on GPU `device`. The file lies beside the log.
    pub fn join(
        log: Option<&Path>,
        id: &[u8; ID_BYTES],
        (rank, ranks): (usize, usize),
        device: c_int,
    ) -> Option<Self> {
        let name: String = id[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = log
            .and_then(Path::parent)
            .map_or_else(std::env::temp_dir, Path::to_path_buf);
        let path = folder.join(format!("meeting-{name}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .ok()?;
        let memory = map(&file, ranks)?;
        let meeting = Meeting {
            path,
            memory,
            ranks,
            complete: false,
        };
        meeting
            .number(rank, DEVICE)
            .store(device as u64, Ordering::Relaxed);
        meeting.number(rank, JOINED).store(1, Ordering::Release);
        Some(meeting)
    }

    fn number(&self, rank: usize, index: usize) -> &AtomicU64 {
        let index = rank.min(self.ranks - 1) * RANK + index.min(RANK - 1);
        // SAFETY: the memory has so many numbers for each rank, is aligned to a page, and lives as long as this.
        unsafe { &*self.memory.cast::<AtomicU64>().add(index) }
    }

    /// Whether all ranks have joined.
    pub fn is_complete(&mut self) -> bool {
        if !self.complete {
            self.complete =
                (0..self.ranks).all(|rank| self.number(rank, JOINED).load(Ordering::Acquire) == 1);
            if self.complete {
                let _ = std::fs::remove_file(&self.path);
            }
        }
        self.complete
    }

    /// Whether two ranks have one GPU.
    pub fn has_duplicates(&self) -> bool {
        let device = |rank| self.number(rank, DEVICE).load(Ordering::Relaxed);
        (0..self.ranks).any(|rank| (0..rank).any(|other| device(other) == device(rank)))
    }

    /// Says that `rank` has enqueued all-reduce `number`.
    pub fn arrive(&self, rank: usize, number: u64, of: (u64, c_int)) {
        let place = HEAD + (number % KEPT) as usize;
        self.number(rank, place)
            .store(packed(number, of), Ordering::Relaxed);
        self.number(rank, ARRIVED).store(number + 1, Ordering::Release);
    }

    /// Whether all ranks have enqueued all-reduce `number`.
    pub fn have_arrived(&self, number: u64) -> bool {
        (0..self.ranks).all(|rank| self.number(rank, ARRIVED).load(Ordering::Acquire) > number)
    }

    /// Says that `rank` ends the communicator.
    pub fn end(&self, rank: usize) {
        self.number(rank, ENDED).store(1, Ordering::Release);
    }

    /// Whether all ranks have said that they end the communicator.
    pub fn has_ended(&self) -> bool {
        (0..self.ranks).all(|rank| self.number(rank, ENDED).load(Ordering::Acquire) == 1)
    }

    /// A rank whose all-reduce `number` is another one than `of`, and what that is. All have enqueued it.
    pub fn other(&self, number: u64, of: (u64, c_int)) -> Option<(usize, (u64, c_int))> {
        let place = HEAD + (number % KEPT) as usize;
        (0..self.ranks).find_map(|rank| {
            let found = self.number(rank, place).load(Ordering::Relaxed);
            // A rank that is far ahead has forgotten it.
            let is_known = found >> 48 == number & 0xffff;
            let (count, data_type) = (found >> 8 & 0xff_ffff_ffff, (found & 0xff) as c_int);
            (is_known && (count, data_type) != of).then_some((rank, (count, data_type)))
        })
    }
}

/// An all-reduce in one number: 16 bits of its own number, 40 of its count, 8 of its type.
fn packed(number: u64, (count, data_type): (u64, c_int)) -> u64 {
    (number & 0xffff) << 48 | (count & 0xff_ffff_ffff) << 8 | data_type as u64 & 0xff
}

/// Maps a file, which is made as large as it must be.
fn map(file: &File, ranks: usize) -> Option<*mut c_void> {
    let bytes = ranks * RANK * 8;
    file.set_len(bytes as u64).ok()?;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping of a file that is as long.
    let place = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            protection,
            flags,
            file.as_raw_fd(),
            0,
        )
    };
    (place != libc::MAP_FAILED).then_some(place)
}

impl Drop for Meeting {
    fn drop(&mut self) {
        // SAFETY: nothing uses the mapping any more.
        unsafe { libc::munmap(self.memory, self.ranks * RANK * 8) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranks_wait_for_each_other_and_compare() {
        let folder = std::env::temp_dir().join(format!("strict-meeting-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (log, id) = (folder.join("log"), [7; ID_BYTES]);
        let mut first = Meeting::join(Some(&log), &id, (0, 2), 0).unwrap();
        assert!(!first.is_complete());
        let mut second = Meeting::join(Some(&log), &id, (1, 2), 0).unwrap();
        assert!(first.is_complete() && second.is_complete());
        assert!(first.has_duplicates());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        first.arrive(0, 0, (10, 7));
        assert!(!first.have_arrived(0));
        second.arrive(1, 0, (10, 7));
        assert!(first.have_arrived(0));
        assert_eq!(first.other(0, (10, 7)), None);
        first.arrive(0, 1, (10, 7));
        second.arrive(1, 1, (11, 7));
        assert_eq!(first.other(1, (10, 7)), Some((1, (11, 7))));
        first.end(0);
        assert!(!second.has_ended());
        second.end(1);
        assert!(first.has_ended());
        std::fs::remove_dir(&folder).unwrap();
    }
}
