//! The memory of an emulated device, and what of it a kernel may touch.

use std::cell::RefCell;

use syncbn_abi::GpuKernel;

use crate::{
    arena::Arena,
    error::{Error, Result},
};

/// Addresses `[begin, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gpu) struct Range {
    pub begin: usize,
    pub end: usize,
    /// Whether it may be written.
    pub written: bool,
}

impl Range {
    /// Whether an access may happen here.
    pub fn allows(&self, address: usize, bytes: usize, write: bool) -> bool {
        address >= self.begin
            && address <= self.end
            && bytes <= self.end - address
            && (self.written || !write)
    }

    /// Whether they have an address in common.
    pub fn meets(&self, other: &Range) -> bool {
        self.begin < other.end && other.begin < self.end
    }

    /// How far an access lies outside; 0 if it only has the wrong direction.
    fn distance(&self, address: usize, bytes: usize) -> usize {
        self.begin
            .saturating_sub(address)
            .max((address + bytes).saturating_sub(self.end))
    }

    /// What is wrong with an access that it does not allow.
    pub fn explain(&self, address: usize, bytes: usize) -> String {
        let size = self.end - self.begin;
        if address < self.begin {
            format!("begins {} bytes before its start", self.begin - address)
        } else if address + bytes > self.end {
            format!("ends {} bytes past its {size} bytes", address + bytes - self.end)
        } else {
            "which it may only read".to_string()
        }
    }
}

/// The closest of `ranges` to an access that none of them allows, as `parameter 2 is closest: ends 4 bytes past its
/// 64 bytes`.
pub(super) fn explain(ranges: &[Range], what: &str, address: usize, bytes: usize) -> String {
    let closest = ranges
        .iter()
        .enumerate()
        .filter(|(_, range)| range.end > range.begin)
        .min_by_key(|(_, range)| range.distance(address, bytes));
    match closest {
        Some((index, range)) => format!("{what} {index} is closest: {}", range.explain(address, bytes)),
        None => format!("there is no {what} to touch"),
    }
}

/// All allocations of a device.
#[derive(Debug, Default)]
pub(in crate::gpu) struct Memory {
    allocations: RefCell<Vec<Arena>>,
    /// Of host memory that is copied from and to in the order of a stream.
    pinned: RefCell<Vec<Arena>>,
}

impl Memory {
    /// Zeroed memory, aligned to pages.
    pub fn allocate(&self, bytes: u64, what: &str) -> Result<*mut u8> {
        let arena = Arena::sparse(bytes, what)?;
        let start = arena.as_ptr();
        self.allocations.borrow_mut().push(arena);
        Ok(start)
    }

    /// Zeroed host memory.
    pub fn allocate_pinned(&self, bytes: u64, what: &str) -> Result<*mut u8> {
        let arena = Arena::sparse(bytes, what)?;
        let start = arena.as_ptr();
        self.pinned.borrow_mut().push(arena);
        Ok(start)
    }

    /// An error unless `[address, address + bytes)` lies in one allocation of host memory.
    pub fn check_pinned(&self, address: *const u8, bytes: usize) -> Result<()> {
        let inside = |arena: &Arena| {
            let begin = arena.as_ptr() as usize;
            let range = Range {
                begin,
                end: begin + arena.len(),
                written: true,
            };
            range.allows(address as usize, bytes, true)
        };
        if bytes == 0 || self.pinned.borrow().iter().any(inside) {
            return Ok(());
        }
        Err(Error::internal("a copy's host memory is not the device's"))
    }

    /// Every allocation, in the order in which they were made.
    pub fn allocated(&self) -> Vec<Range> {
        let range = |arena: &Arena| Range {
            begin: arena.as_ptr() as usize,
            end: arena.as_ptr() as usize + arena.len(),
            written: true,
        };
        self.allocations.borrow().iter().map(range).collect()
    }

    /// An error unless `[address, address + bytes)` lies in one allocation; `what` names it.
    pub fn check(&self, address: *const u8, bytes: usize, what: &str) -> Result<()> {
        let allocated = self.allocated();
        let address = address as usize;
        if bytes == 0 || allocated.iter().any(|range| range.allows(address, bytes, true)) {
            return Ok(());
        }
        Err(Error::internal(format!(
            "{what} ({bytes} bytes at {address:#x}) lies outside the device's memory; {}",
            explain(&allocated, "allocation", address, bytes)
        )))
    }

    /// What a launch of `kernel` may touch: one range for each described parameter, or every allocation.
    ///
    /// # Safety
    /// `parameters` points to the values of the kernel's parameters, as its description says.
    pub unsafe fn ranges(
        &self,
        kernel: &GpuKernel,
        parameters: *const *const core::ffi::c_void,
    ) -> Result<Vec<Range>> {
        let Some(described) = &kernel.parameters else {
            return Ok(self.allocated());
        };
        // SAFETY: the samples of this rank follow the pointers.
        let n = unsafe { (*parameters.add(described.len())).cast::<i32>().read() };
        let n = u64::try_from(n).map_err(|_| Error::internal(format!("{kernel}: {n} samples")))?;
        let mut ranges = Vec::with_capacity(described.len());
        for (index, parameter) in described.iter().enumerate() {
            // SAFETY: each described parameter is a pointer.
            let begin = unsafe { (*parameters.add(index)).cast::<*const u8>().read() };
            // The first sample of a buffer always exists, and kernels read its first element where a guard is false.
            let bytes = parameter.bytes + n.max(1) * parameter.bytes_per_sample;
            let bytes = if begin.is_null() { 0 } else { bytes as usize };
            self.check(begin, bytes, &format!("{kernel}: parameter {index}"))?;
            ranges.push(Range {
                begin: begin as usize,
                end: begin as usize + bytes,
                written: parameter.written,
            });
        }
        Ok(ranges)
    }
}
