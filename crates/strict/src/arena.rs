//! Memory of one kind, device or pinned: ordinary memory whose addresses are never used a second time, so that a use
//! after the end is always known for what it is.

use std::collections::BTreeMap;

/// Bytes of addresses. Only what is allocated takes memory.
const RESERVED: u64 = 1 << 40;
const PAGE: u64 = 4096;
/// What the driver aligns allocations to, and no more.
const ALIGNMENT: u64 = 256;

/// Why memory cannot be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It was freed before.
    Freed,
    /// No allocation begins there.
    Unknown,
}

/// A range of addresses and the allocations in it.
#[derive(Debug, Default)]
pub struct Arena {
    /// 0 before the first allocation.
    start: u64,
    next: u64,
    live: BTreeMap<u64, u64>,
    freed: BTreeMap<u64, u64>,
}

impl Arena {
    /// New memory; None if there is none.
    pub fn allocate(&mut self, bytes: u64) -> Option<u64> {
        if self.start == 0 {
            self.start = map(0, RESERVED, false)?;
            self.next = self.start;
        }
        let pages = bytes.checked_add(ALIGNMENT)?.checked_next_multiple_of(PAGE)?;
        // A page that nobody may touch follows.
        let next = self.next.checked_add(pages)?.checked_add(PAGE)?;
        if next > self.start + RESERVED {
            return None;
        }
        let address = map(self.next, pages, true)? + ALIGNMENT;
        self.next = next;
        self.live.insert(address, bytes);
        Some(address)
    }

    /// Frees what begins at `address`.
    pub fn free(&mut self, address: u64) -> Result<(), Refusal> {
        let Some(bytes) = self.live.remove(&address) else {
            return Err(match self.freed.contains_key(&address) {
                true => Refusal::Freed,
                false => Refusal::Unknown,
            });
        };
        let pages = (bytes + ALIGNMENT).next_multiple_of(PAGE);
        map(address - ALIGNMENT, pages, false);
        self.freed.insert(address, bytes);
        Ok(())
    }

    /// The allocation in which `[address, address + bytes)` lies.
    pub fn find(&self, address: u64, bytes: u64) -> Option<u64> {
        let (&start, &size) = self.live.range(..=address).next_back()?;
        let offset = address - start;
        (offset <= size && bytes <= size - offset).then_some(start)
    }

    /// Whether an allocation begins at `start`.
    pub fn is_live(&self, start: u64) -> bool {
        self.live.contains_key(&start)
    }

    /// What an address is that lies in no allocation, for messages.
    pub fn describe(&self, address: u64) -> String {
        let before = |of: &BTreeMap<u64, u64>| of.range(..=address).next_back().map(|(&s, &n)| (s, n));
        match (before(&self.live), before(&self.freed)) {
            (_, Some((start, bytes))) if address <= start + bytes => {
                format!("{address:#x} lies in freed memory of {bytes} bytes")
            }
            (Some((start, bytes)), _) if address - start < bytes + PAGE => {
                format!("{address:#x} is byte {} of {bytes} bytes", address - start)
            }
            _ => format!("{address:#x} lies in no memory of this kind"),
        }
    }

    /// Number of allocations.
    pub fn allocations(&self) -> usize {
        self.live.len()
    }

    /// Whether an address lies in the range, allocated or not.
    pub fn spans(&self, address: u64) -> bool {
        self.start != 0 && (self.start..self.start + RESERVED).contains(&address)
    }
}

/// Maps memory, at `address` unless that is 0, to use or only to reserve it.
fn map(address: u64, bytes: u64, used: bool) -> Option<u64> {
    let protection = if used {
        libc::PROT_READ | libc::PROT_WRITE
    } else {
        libc::PROT_NONE
    };
    let fixed = if address == 0 { 0 } else { libc::MAP_FIXED };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let length = usize::try_from(bytes).ok()?;
    // SAFETY: a fixed address lies in what was reserved for this arena, so that nothing else is replaced.
    let place = unsafe { libc::mmap(address as *mut libc::c_void, length, protection, flags, -1, 0) };
    (place != libc::MAP_FAILED).then_some(place as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_never_used_again() {
        let mut arena = Arena::default();
        let first = arena.allocate(100).unwrap();
        assert_eq!((first % 256, first % 512), (0, 256));
        assert_eq!(arena.find(first + 40, 60), Some(first));
        assert_eq!(arena.find(first + 40, 61), None);
        assert_eq!(arena.free(first), Ok(()));
        assert_eq!(arena.free(first), Err(Refusal::Freed));
        assert_eq!(arena.free(first + 1), Err(Refusal::Unknown));
        let second = arena.allocate(100).unwrap();
        assert!(second > first + 100);
        assert_eq!(arena.find(first, 1), None);
        assert!(arena.describe(first + 5).contains("freed memory of 100 bytes"));
        assert!(arena.describe(second + 200).contains("byte 200 of 100 bytes"));
        assert!(arena.spans(second + 4096) && !arena.spans(8));
    }
}
