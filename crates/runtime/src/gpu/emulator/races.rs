//! Races in global memory: two threads of a launch touch a byte, one of them writes it, and no barrier of their block
//! lies between.
//!
//! Every thread has a *mark* for the time between two barriers of its block. Marks only grow: those of a launch are
//! larger than all before, and so are those of a block and of an interval within it. Every byte keeps the mark of its last
//! writer and of its readers, so that nothing need be cleared between launches.

use std::fmt;

use super::memory::Range;
use crate::{arena::Arena, error::Result};

/// A thread between two barriers of its block. 0 is none.
type Mark = u32;

/// One mark for each byte of an allocation. Pages that nobody touches take no memory.
#[derive(Debug)]
struct Marks(Arena);

impl Marks {
    fn new(bytes: usize) -> Result<Self> {
        let arena = Arena::zeroed(
            (bytes * size_of::<Mark>()) as u64,
            "the emulator's record of accesses",
        )?;
        Ok(Marks(arena))
    }

    fn all(&mut self) -> &mut [Mark] {
        // SAFETY: the arena is aligned to pages, every bit pattern is a mark, and `self` is borrowed as long.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().cast(), self.0.len() / size_of::<Mark>()) }
    }
}

/// What is known of an allocation.
#[derive(Debug)]
struct Shadow {
    begin: usize,
    bytes: usize,
    writers: Marks,
    /// The reader's mark, or that of several threads of an interval.
    readers: Marks,
}

/// Who has touched which byte of global memory.
#[derive(Debug, Default)]
pub(super) struct Races {
    shadows: Vec<Shadow>,
    now: Now,
    /// The first mark that nobody has.
    next: Mark,
    /// Whether a read was noted in the launch.
    reads: bool,
}

/// The interval that runs. Its first mark stands for several of its threads; that of thread `t` is `t + 1` more.
#[derive(Debug, Default, Clone, Copy)]
struct Now {
    /// The first mark of the launch.
    launch: Mark,
    /// The first mark of the current block.
    block: Mark,
    /// The first mark of the interval.
    interval: Mark,
}

impl Now {
    /// Whether what has this mark happened before what the thread that has `own` does now.
    fn is_before(self, mark: Mark, own: Mark) -> bool {
        mark < self.launch || mark == own || (self.block <= mark && mark < self.interval)
    }

    /// Whether all that left these marks happened before.
    fn check(self, marks: &[Mark], own: Mark, verb: &'static str) -> Result<(), Conflict> {
        match marks.iter().find(|&&mark| !self.is_before(mark, own)) {
            None => Ok(()),
            Some(&mark) => Err(Conflict {
                thread: mark.checked_sub(self.interval),
                verb,
            }),
        }
    }
}

/// Another thread of the launch has touched what a thread touches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conflict {
    /// Its number in the block, from 1, or 0 for one of several; None if it is of another block.
    thread: Option<u32>,
    verb: &'static str,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let verb = self.verb;
        match self.thread {
            None => write!(f, "a thread of another block has {verb} it in the same launch"),
            Some(0) => write!(f, "no barrier since other threads have {verb} it"),
            Some(number) => write!(f, "no barrier since thread {} has {verb} it", number - 1),
        }
    }
}

impl Races {
    /// A launch begins on a device with these allocations, which are those of the launch before and perhaps more.
    pub fn start_launch(&mut self, allocated: &[Range]) -> Result<()> {
        for range in allocated.iter().skip(self.shadows.len()) {
            let bytes = range.end - range.begin;
            self.shadows.push(Shadow {
                begin: range.begin,
                bytes,
                writers: Marks::new(bytes)?,
                readers: Marks::new(bytes)?,
            });
        }
        if self.next > Mark::MAX / 2 {
            self.forget();
        }
        self.next = self.next.max(1);
        self.now.launch = self.next;
        self.reads = false;
        Ok(())
    }

    /// A block of `threads` threads begins.
    pub fn start_block(&mut self, threads: u32) {
        self.start_interval(threads);
        self.now.block = self.now.interval;
    }

    /// All threads of the block have met.
    pub fn start_interval(&mut self, threads: u32) {
        if self.next.checked_add(threads + 1).is_none() {
            // What this launch did so far goes unnoticed: nothing harmless may be refused.
            self.forget();
            self.next = 1;
            self.now = Now {
                launch: 1,
                block: 1,
                interval: 1,
            };
        }
        self.now.interval = self.next;
        self.next += threads + 1;
    }

    fn forget(&mut self) {
        for shadow in &mut self.shadows {
            shadow.writers.all().fill(0);
            shadow.readers.all().fill(0);
        }
        self.next = 0;
    }

    /// The allocation that an address lies in, for the other functions.
    pub fn find(&self, address: usize) -> Option<usize> {
        let inside = |shadow: &Shadow| (shadow.begin..=shadow.begin + shadow.bytes).contains(&address);
        self.shadows.iter().position(inside)
    }

    /// Notes that `thread` writes bytes of an allocation, or says who else has touched them.
    pub fn write(
        &mut self,
        allocation: usize,
        address: usize,
        bytes: usize,
        thread: usize,
    ) -> Result<(), Conflict> {
        let (now, own) = (self.now, self.own(thread));
        let shadow = &mut self.shadows[allocation];
        let touched = address - shadow.begin..address - shadow.begin + bytes;
        let writers = &mut shadow.writers.all()[touched.clone()];
        now.check(writers, own, "written")?;
        if self.reads {
            now.check(&shadow.readers.all()[touched], own, "read")?;
        }
        writers.fill(own);
        Ok(())
    }

    /// Notes that `thread` reads bytes of an allocation, or says who else has written them.
    pub fn read(
        &mut self,
        allocation: usize,
        address: usize,
        bytes: usize,
        thread: usize,
    ) -> Result<(), Conflict> {
        let (now, own) = (self.now, self.own(thread));
        let shadow = &mut self.shadows[allocation];
        let touched = address - shadow.begin..address - shadow.begin + bytes;
        now.check(&shadow.writers.all()[touched.clone()], own, "written")?;
        self.reads = true;
        for mark in &mut shadow.readers.all()[touched] {
            // What a block before has read conflicts with every write to come, so that its mark stays.
            if now.is_before(*mark, own) {
                *mark = own;
            } else if *mark > now.interval {
                *mark = now.interval;
            }
        }
        Ok(())
    }

    fn own(&self, thread: usize) -> Mark {
        self.now.interval + 1 + thread as Mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_marks_run_out_nothing_harmless_is_refused_and_races_are_still_found() {
        let range = Range {
            begin: 4096,
            end: 4096 + 64,
            written: true,
        };
        let mut races = Races::default();
        races.start_launch(&[range]).unwrap();
        races.next = Mark::MAX - 100;
        races.now.launch = races.next;
        for block in 0..10 {
            let at = 4096 + 4 * block;
            races.start_block(32);
            races.write(0, at, 4, 0).unwrap();
            races.start_interval(32);
            races.write(0, at, 4, 1).unwrap();
            assert!(races.write(0, at, 4, 2).is_err());
        }
        assert!(races.next < 1000, "marks did not run out");
    }
}
