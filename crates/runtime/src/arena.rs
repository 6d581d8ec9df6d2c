//! Zero-initialised memory for the arenas that generated code works in.

use std::{ffi::c_void, ptr::NonNull};

use crate::error::{Error, Result};

/// A huge page of x86-64.
const HUGE: usize = 2 << 20;

/// Memory that is zero at first. Pages are touched only when they are used, so each lands on the memory of
/// the thread that works in it.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
    bytes: usize,
    /// The whole mapping, which begins before `start` where that is aligned to a huge page.
    mapping: (*mut c_void, usize),
}

// SAFETY: an arena owns its mapping, and the safe accessors go through `&mut self`. Whoever uses the raw
// pointer of `as_ptr` answers for the accesses made through it.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives out the pointer and the size only.
unsafe impl Sync for Arena {}

/// Asks the system to take back the memory of these bytes, which it can read from the executable's file again, should they
/// be needed. They stay as they are, and it may refuse: it does where another process uses them.
pub fn give_back(bytes: &[u8]) {
    const PAGE: usize = 4096;
    let skipped = bytes.as_ptr().align_offset(PAGE).min(bytes.len());
    let whole = (bytes.len() - skipped) / PAGE * PAGE;
    // SAFETY: whole pages within the slice; the advice changes no content, whatever the memory is.
    unsafe {
        let start = bytes.as_ptr().add(skipped).cast_mut();
        libc::madvise(start.cast(), whole, libc::MADV_PAGEOUT);
    }
}

impl Arena {
    /// Maps `bytes` of zeros; `what` names them in the error. From the size of a huge page on they lie in such pages
    /// where the system has them: a step goes through all of its memory, and far fewer translations serve it.
    pub fn zeroed(bytes: u64, what: &str) -> Result<Self> {
        Self::map(bytes, what, bytes >= HUGE as u64)
    }

    /// As [`Arena::zeroed`], in small pages: for what is touched here and there.
    pub fn sparse(bytes: u64, what: &str) -> Result<Self> {
        Self::map(bytes, what, false)
    }

    fn map(wanted: u64, what: &str, huge: bool) -> Result<Self> {
        let too_large = || {
            Error::environment(format!("cannot get {wanted} bytes of memory for {what}")).help(
                "use a smaller --batch, fewer --ranks or --threads-per-rank, or a machine with more memory",
            )
        };
        let bytes = usize::try_from(wanted).map_err(|_| too_large())?;
        let slack = if huge { HUGE } else { 0 };
        let mapped = bytes.max(1).checked_add(slack).ok_or_else(too_large)?;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no other memory.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(too_large());
        }
        let offset = if huge { mapping.align_offset(HUGE) } else { 0 };
        let start: NonNull<u8> =
            NonNull::new(mapping.wrapping_byte_add(offset).cast()).ok_or_else(too_large)?;
        if huge {
            // A system without huge pages refuses, and small ones serve as well.
            // SAFETY: within the mapping; the advice changes no content.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Ok(Arena {
            start,
            bytes,
            mapping: (mapping, mapped),
        })
    }

    /// The first byte. Valid, even if the arena is empty, and aligned to pages.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the arena has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The content. It takes `&mut self` so that nothing that got [`Arena::as_ptr`] through a shared
    /// reference can still be at work.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `bytes` long, initialised, and exclusively borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let (start, bytes) = self.mapping;
        // SAFETY: exactly the mapping that `map` made; nothing can refer to it any more.
        unsafe { libc::munmap(start, bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arenas_are_zero_and_aligned() {
        let mut arena = Arena::zeroed(1000, "a test").unwrap();
        assert_eq!(arena.as_ptr() as u64 % syncbn_abi::ALIGNMENT, 0);
        assert_eq!(arena.bytes(), &[0; 1000]);
        arena.bytes()[999] = 7;
        assert_eq!(arena.bytes()[999], 7);
        assert!(Arena::zeroed(0, "a test").unwrap().bytes().is_empty());
    }

    #[test]
    fn large_arenas_are_aligned_to_huge_pages_and_zero_to_their_end() {
        for bytes in [HUGE, HUGE + 1, 3 * HUGE - 64] {
            let mut arena = Arena::zeroed(bytes as u64, "a test").unwrap();
            assert_eq!(arena.as_ptr().align_offset(HUGE), 0);
            assert_eq!(arena.len(), bytes);
            assert!(arena.bytes().iter().all(|&byte| byte == 0));
            arena.bytes().fill(1);
        }
        let sparse = Arena::sparse(4 * HUGE as u64, "a test").unwrap();
        assert_eq!(sparse.as_ptr() as u64 % syncbn_abi::ALIGNMENT, 0);
    }

    #[test]
    fn too_much_memory_is_an_error_that_names_it() {
        for bytes in [u64::MAX / 2, u64::MAX] {
            let error = Arena::zeroed(bytes, "the step arena").unwrap_err();
            assert!(error.message.contains("the step arena"), "{error}");
            assert_eq!(error.kind, crate::error::Kind::Environment);
        }
    }
}
