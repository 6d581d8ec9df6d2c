//! Races in global memory: two threads of a launch touch a byte, one of them writes it, and no barrier of their block
//! lies between.
//!
//! Every thread has a *mark* for the time between two barriers of its block. Marks only grow: those of a launch are
//! larger than all before, and so are those of a block and of an interval within it. Every piece of memory keeps the mark
//! of its last writer and of its readers, so that nothing need be cleared between launches.

use std::fmt;

use super::{
    access::Access,
    memory::Range,
    shadow::{Mark, Shadow, layer},
};
use crate::error::Result;

/// Who has touched which byte of global memory.
#[derive(Debug, Default)]
pub(super) struct Races {
    shadows: Vec<Shadow>,
    now: Now,
    /// The first mark that nobody has.
    next: Mark,
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
            self.shadows.push(Shadow::new(range)?);
        }
        for layer in self.shadows.iter_mut().flat_map(|shadow| &mut shadow.layers) {
            (layer.used, layer.reads) = (false, false);
        }
        if self.next > Mark::MAX / 2 {
            self.forget();
        }
        self.next = self.next.max(1);
        self.now.launch = self.next;
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
        for layer in self.shadows.iter_mut().flat_map(|shadow| &mut shadow.layers) {
            layer.writers.all().fill(0);
            layer.readers.all().fill(0);
        }
        self.next = 0;
    }

    /// The allocation that an address lies in, for the other functions.
    pub fn find(&self, address: usize) -> Option<usize> {
        let inside = |shadow: &Shadow| (shadow.begin..=shadow.begin + shadow.bytes).contains(&address);
        self.shadows.iter().position(inside)
    }

    /// Notes that `thread` accesses an allocation, or says who else has touched the same bytes.
    pub fn note(&mut self, allocation: usize, access: &Access, thread: usize) -> Result<(), Conflict> {
        let (now, own) = (self.now, self.own(thread));
        let shadow = &mut self.shadows[allocation];
        let begin = access.address - shadow.begin;
        let bytes = begin..begin + access.bytes;
        for layer in shadow.layers.iter_mut().filter(|layer| layer.used) {
            let pieces = layer.pieces(&bytes);
            now.check(&layer.writers.all()[pieces.clone()], own, "written")?;
            if access.write && layer.reads {
                now.check(&layer.readers.all()[pieces], own, "read")?;
            }
        }
        let layer = &mut shadow.layers[layer(access)];
        let pieces = layer.pieces(&bytes);
        layer.used = true;
        if access.write {
            layer.writers.all()[pieces].fill(own);
            return Ok(());
        }
        layer.reads = true;
        for mark in &mut layer.readers.all()[pieces] {
            // What a block before has read conflicts with every write to come, so that its mark stays.
            if now.is_before(*mark, own) {
                *mark = own;
            } else if *mark > now.interval {
                *mark = now.interval;
            }
        }
        Ok(())
    }

    /// As [`Races::note`] where that takes no thought; false, with nothing noted, where it may.
    pub fn note_quickly(&mut self, allocation: usize, access: &Access, thread: usize) -> bool {
        match (layer(access), access.bytes) {
            (1, 2) => self.note_pieces::<1>(allocation, access, 1, thread),
            (2, 4) => self.note_pieces::<1>(allocation, access, 2, thread),
            (2, 8) => self.note_pieces::<2>(allocation, access, 2, thread),
            (2, 16) => self.note_pieces::<4>(allocation, access, 2, thread),
            _ => false,
        }
    }

    fn note_pieces<const N: usize>(
        &mut self,
        allocation: usize,
        access: &Access,
        layer: usize,
        thread: usize,
    ) -> bool {
        let (now, own) = (self.now, self.own(thread));
        let Some(shadow) = self.shadows.get_mut(allocation) else {
            return false;
        };
        let begin = access.address.wrapping_sub(shadow.begin) >> layer;
        let mixed = (0..3).any(|other| other != layer && shadow.layers[other].used);
        let layer = &mut shadow.layers[layer];
        let (Some(writers), Some(readers)) = (layer.writers.some::<N>(begin), layer.readers.some::<N>(begin))
        else {
            return false;
        };
        // No branch for each mark, so that all are compared at once.
        let free = |marks: &[Mark; N]| {
            let each = marks.iter().map(|&mark| (mark < now.launch) | (mark == own));
            each.fold(true, |all, one| all & one)
        };
        if mixed || !free(writers) {
            return false;
        }
        if access.write {
            if layer.reads && !free(readers) {
                return false;
            }
            layer.used = true;
            *writers = [own; N];
            return true;
        }
        (layer.used, layer.reads) = (true, true);
        if free(readers) {
            *readers = [own; N];
            return true;
        }
        *readers == [now.interval; N]
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
        let write = |address| Access {
            address,
            bytes: 4,
            write: true,
            base: 0,
        };
        let mut races = Races::default();
        races.start_launch(&[range]).unwrap();
        races.next = Mark::MAX - 100;
        races.now.launch = races.next;
        for block in 0..10 {
            let at = 4096 + 4 * block;
            races.start_block(32);
            races.note(0, &write(at), 0).unwrap();
            races.start_interval(32);
            races.note(0, &write(at), 1).unwrap();
            assert!(races.note(0, &write(at), 2).is_err());
        }
        assert!(races.next < 1000, "marks did not run out");
    }
}
