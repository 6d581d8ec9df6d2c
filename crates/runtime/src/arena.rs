//! Zero-initialised memory aligned to pages, for the arenas that generated code works in.

use std::ptr::NonNull;

use crate::error::{Error, Result};

/// One mapping, zero at first. Pages are touched only when they are used, so each lands on the memory of
/// the thread that works in it.
#[derive(Debug)]
pub struct Arena {
    start: NonNull<u8>,
    bytes: usize,
    mapped: usize,
}

// SAFETY: an arena owns its mapping, and the safe accessors go through `&mut self`. Whoever uses the raw
// pointer of `as_ptr` answers for the accesses made through it.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives out the pointer and the size only.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `bytes` of zeros; `what` names them in the error.
    pub fn zeroed(bytes: u64, what: &str) -> Result<Self> {
        let too_large = || {
            Error::environment(format!("cannot get {bytes} bytes of memory for {what}"))
                .help("use a smaller --batch or fewer --ranks, or a machine with more memory")
        };
        let bytes = usize::try_from(bytes).map_err(|_| too_large())?;
        let mapped = bytes.max(1);
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(too_large());
        }
        let start = NonNull::new(start.cast()).ok_or_else(too_large)?;
        Ok(Arena { start, bytes, mapped })
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
        // SAFETY: exactly the mapping that `zeroed` made; nothing can refer to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped) };
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
    fn too_much_memory_is_an_error_that_names_it() {
        let error = Arena::zeroed(u64::MAX / 2, "the step arena").unwrap_err();
        assert!(error.message.contains("the step arena"), "{error}");
        assert_eq!(error.kind, crate::error::Kind::Environment);
    }
}
