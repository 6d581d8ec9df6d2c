//! Counts bank conflicts of shared memory.
//!
//! Shared memory has 32 banks of 4-byte words, each of which gives one word at a time. What a warp accesses with one
//! instruction is done at once for all lanes where each has up to 4 bytes, for 16 lanes with 8 bytes, and for 8 lanes
//! with 16 (CUDA C++ Best Practices Guide, "Shared Memory and Memory Banks"; vectors of 16 bytes as measured by many and
//! assumed by CUTLASS). Such a part takes as many turns as the most distinct words that it needs of one bank; all but
//! one of them are conflicts. Rows that `ldmatrix` loads are parts of 8 lanes with 16 bytes.
//!
//! Threads run one after the other here, so accesses of a warp are put together by their instruction and by how often
//! the lane has come to it since the last barrier. One block of each launch is counted.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use serde::Serialize;

use super::shared::WARP;
use crate::report;

/// Names a file to which a process adds, when it ends, a line of JSON for each kernel with shared memory: see [`Count`].
pub const BANKS_VARIABLE: &str = "SYNCBN_EMULATOR_BANKS";

/// Bytes that are accessed at once: one word of every bank.
const ALL_BANKS: usize = 128;
/// Bytes of a word.
const WORD: usize = 4;
/// Bytes that a lane accesses at once.
const MOST: usize = 16;

/// What was counted of a kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Count {
    /// Whether it has matrix instructions.
    pub multiplies: bool,
    /// Parts of warps that accessed shared memory at once.
    pub accesses: u64,
    /// Turns that they took beside the first.
    pub conflicts: u64,
    /// The most turns of one.
    pub worst: u64,
    /// What takes the most turns: `load`, `store`, `copy` or `ldmatrix`, and bytes of a lane.
    pub at: String,
}

/// The accesses of a launch that are not counted yet, and what was counted.
#[derive(Debug, Default)]
pub(super) struct Banks {
    /// How often a thread has come to a place since the last barrier.
    turns: HashMap<(usize, Place), u32>,
    /// Lanes of a warp with their offsets and bytes, at a place for the n-th time.
    open: BTreeMap<(usize, Place, u32), Vec<[usize; 3]>>,
    count: Count,
}

/// An instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Access {
        number: u64,
        write: bool,
    },
    /// Asynchronous copies are told apart by their order.
    Copy,
}

impl Banks {
    /// A thread loads or stores at the instruction of this number.
    pub fn access(&mut self, thread: usize, (number, write): (u64, bool), offset: usize, bytes: usize) {
        self.note(thread, Place::Access { number, write }, offset, bytes);
    }

    /// A thread starts a copy to shared memory.
    pub fn copy(&mut self, thread: usize, offset: usize, bytes: usize) {
        self.note(thread, Place::Copy, offset, bytes);
    }

    fn note(&mut self, thread: usize, place: Place, offset: usize, bytes: usize) {
        let turn = self.turns.entry((thread, place)).or_default();
        let lanes = self.open.entry((thread / WARP, place, *turn)).or_default();
        *turn += 1;
        lanes.push([thread % WARP, offset, bytes]);
    }

    /// A warp loads rows of matrices.
    pub fn rows(&mut self, offsets: &[usize]) {
        for rows in offsets.chunks(8) {
            let rows: Vec<_> = rows.iter().map(|&offset| (offset, MOST)).collect();
            self.add(&rows, || "ldmatrix".to_string());
        }
    }

    /// A warp multiplies matrices.
    pub fn multiplies(&mut self) {
        self.count.multiplies = true;
    }

    /// All threads have met: what they did before is complete.
    pub fn barrier(&mut self) {
        self.turns.clear();
        for ((_, place, _), lanes) in std::mem::take(&mut self.open) {
            // What is wider than 16 bytes becomes several instructions.
            let widest = lanes.iter().map(|lane| lane[2]).max().unwrap_or(0);
            for first in (0..widest).step_by(MOST) {
                let at_once = ALL_BANKS / (widest - first).clamp(WORD, MOST);
                let mut parts: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
                for &[lane, offset, bytes] in lanes.iter().filter(|lane| lane[2] > first) {
                    let piece = (offset + first, (bytes - first).min(MOST));
                    parts.entry(lane / at_once).or_default().push(piece);
                }
                for part in parts.values() {
                    self.add(part, || format!("{} of {widest} bytes", place.verb()));
                }
            }
        }
    }

    /// What was counted, once all threads have ended.
    pub fn end(mut self) -> Count {
        self.barrier();
        self.count
    }

    fn add(&mut self, part: &[(usize, usize)], what: impl FnOnce() -> String) {
        let turns = turns(part);
        self.count.accesses += 1;
        self.count.conflicts += turns - 1;
        if turns > self.count.worst {
            self.count.worst = turns;
            self.count.at = what();
        }
    }
}

impl Place {
    fn verb(self) -> &'static str {
        match self {
            Place::Access { write: true, .. } => "store",
            Place::Access { write: false, .. } => "load",
            Place::Copy => "copy",
        }
    }
}

/// The most distinct words of one bank among these offsets and bytes; at least 1.
fn turns(part: &[(usize, usize)]) -> u64 {
    let mut words: Vec<usize> = part
        .iter()
        .flat_map(|&(offset, bytes)| offset / WORD..(offset + bytes).div_ceil(WORD))
        .collect();
    words.sort_unstable();
    words.dedup();
    let mut banks = [0u64; ALL_BANKS / WORD];
    for word in words {
        banks[word % (ALL_BANKS / WORD)] += 1;
    }
    banks.into_iter().max().unwrap_or(0).max(1)
}

/// What was counted of the kernels of a process.
#[derive(Debug)]
pub(super) struct Counts {
    file: PathBuf,
    kernels: BTreeMap<String, Count>,
}

impl Counts {
    /// Counts for the file that [`BANKS_VARIABLE`] names.
    pub fn of_environment() -> Option<Self> {
        let file = std::env::var_os(BANKS_VARIABLE)?;
        Some(Counts {
            file: file.into(),
            kernels: BTreeMap::new(),
        })
    }

    /// Adds what was counted of a launch.
    pub fn add(&mut self, kernel: &str, count: Count) {
        let all = self.kernels.entry(kernel.to_string()).or_default();
        all.multiplies |= count.multiplies;
        all.accesses += count.accesses;
        all.conflicts += count.conflicts;
        if count.worst > all.worst {
            all.worst = count.worst;
            all.at = count.at;
        }
    }

    /// Adds a line for each kernel to the file.
    fn write(&self) -> io::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            kernel: &'a str,
            #[serde(flatten)]
            count: &'a Count,
        }
        let mut file = File::options().create(true).append(true).open(&self.file)?;
        let mut text = String::new();
        for (kernel, count) in &self.kernels {
            text.push_str(&serde_json::to_string(&Line { kernel, count })?);
            text.push('\n');
        }
        file.write_all(text.as_bytes())
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        if let Err(cause) = self.write() {
            report::warning(&format!(
                "cannot write bank conflicts to {}: {cause}",
                self.file.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a warp whose lanes access `bytes` at these offsets needs.
    fn counted(bytes: usize, offset: impl Fn(usize) -> usize) -> (u64, u64, u64) {
        let mut banks = Banks::default();
        (0..WARP).for_each(|lane| banks.access(lane, (3, false), offset(lane), bytes));
        let count = banks.end();
        (count.accesses, count.conflicts, count.worst)
    }

    #[test]
    fn neighbours_and_equal_words_do_not_conflict() {
        assert_eq!(counted(4, |lane| 4 * lane), (1, 0, 1));
        assert_eq!(counted(4, |_| 64), (1, 0, 1));
        assert_eq!(counted(2, |lane| 2 * lane), (1, 0, 1));
        assert_eq!(counted(8, |lane| 8 * lane), (2, 0, 1));
        assert_eq!(counted(16, |lane| 16 * lane), (4, 0, 1));
    }

    #[test]
    fn strides_conflict() {
        assert_eq!(counted(4, |lane| 8 * lane), (1, 1, 2));
        assert_eq!(counted(4, |lane| 128 * lane), (1, 31, 32));
        assert_eq!(counted(4, |lane| 132 * lane), (1, 0, 1), "a padded row");
        assert_eq!(counted(16, |lane| 32 * lane), (4, 4, 2));
        // Two instructions of 16 bytes, each with a stride of 32.
        assert_eq!(counted(32, |lane| 32 * lane), (8, 8, 2));
    }

    #[test]
    fn lanes_that_are_switched_off_leave_the_others_in_their_parts() {
        let with = |active: fn(usize) -> bool, offset: fn(usize) -> usize| {
            let mut banks = Banks::default();
            let lanes = (0..WARP).filter(|&lane| active(lane));
            lanes.for_each(|lane| banks.access(lane, (1, false), offset(lane), 16));
            let count = banks.end();
            (count.accesses, count.conflicts)
        };
        // Lanes 4 to 7 and 8 to 11 need the same banks, and are not of one part.
        assert_eq!(with(|lane| lane >= 4, |lane| 16 * (lane % 4)), (4, 0));
        assert_eq!(
            with(|lane| lane >= 4, |lane| 16 * (lane % 4) + 128 * (lane / 8)),
            (4, 0)
        );
        assert_eq!(with(|lane| lane % 2 == 0, |lane| 128 * lane), (4, 12));
    }

    #[test]
    fn lanes_are_put_together_by_instruction_and_turn() {
        let mut banks = Banks::default();
        // Each lane runs through a loop before the next one starts; the second instruction is in one half only.
        for lane in 0..WARP {
            for turn in 0..3 {
                banks.access(lane, (1, true), 4 * (lane + 32 * turn), 4);
            }
            if lane < 16 {
                banks.access(lane, (2, false), 128 * lane, 4);
            }
        }
        assert_eq!(banks.end().conflicts, 15);
        let mut banks = Banks::default();
        for lane in 0..WARP {
            banks.access(lane, (1, false), 4 * lane, 4);
        }
        banks.barrier();
        banks.access(0, (1, false), 128, 4);
        let count = banks.end();
        assert_eq!((count.accesses, count.conflicts), (2, 0), "a barrier starts anew");
    }

    #[test]
    fn rows_of_matrices_are_taken_eight_at_a_time() {
        let mut banks = Banks::default();
        let offsets: Vec<usize> = (0..32).map(|row| 16 * row).collect();
        banks.rows(&offsets);
        assert_eq!(banks.count.conflicts, 0);
        let offsets: Vec<usize> = (0..32).map(|row| 128 * row).collect();
        banks.rows(&offsets);
        let count = banks.end();
        assert_eq!((count.accesses, count.conflicts, count.worst), (8, 28, 8));
        assert_eq!(count.at, "ldmatrix");
    }
}
