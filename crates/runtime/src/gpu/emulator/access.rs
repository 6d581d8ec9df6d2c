//! What the threads of a launch may touch, and the check before each access.

use std::cell::Cell;

use syncbn_abi::{BASE_SHARED, BASE_UNKNOWN, GpuKernel};

use super::{
    launch::{Launch, current, intrinsic},
    memory::{self, Range},
    races::Races,
    shared::Shared,
};

/// What a kernel may touch.
pub(super) struct Bounds {
    /// One for each parameter, or for each allocation.
    places: Vec<Place>,
    /// Whether there is one for each parameter.
    described: bool,
    /// The place of the last access whose base is unknown.
    recent: Cell<usize>,
}

/// Memory that a kernel may touch.
#[derive(Debug, Clone, Copy)]
struct Place {
    range: Range,
    /// The allocation that it lies in.
    allocation: usize,
    /// Whether the kernel may write some of it, perhaps by way of another parameter.
    changes: bool,
}

/// An access to memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    pub address: usize,
    pub bytes: usize,
    pub write: bool,
    /// What the address is based on, as in [`syncbn_abi::gpu_symbols::EMULATED_ACCESS`].
    pub base: i64,
}

impl Bounds {
    /// Those of a kernel that may touch `ranges`.
    pub fn new(kernel: &GpuKernel, ranges: Vec<Range>, races: &Races) -> Self {
        let changes = |range: &Range| ranges.iter().any(|other| other.written && other.meets(range));
        let place = |range: &Range| Place {
            range: *range,
            allocation: races.find(range.begin).unwrap_or(0),
            changes: changes(range),
        };
        Bounds {
            places: ranges.iter().map(place).collect(),
            described: kernel.parameters.is_some(),
            recent: Cell::new(0),
        }
    }

    /// The number of the place that allows an access to global memory, and the place.
    fn allowing(&self, access: &Access) -> Option<(usize, &Place)> {
        let allows = |place: &Place| place.range.allows(access.address, access.bytes, access.write);
        let at = |index: usize| {
            let place = self.places.get(index).filter(|place| allows(place))?;
            Some((index, place))
        };
        if let Some(parameter) = self.parameter(access) {
            return at(parameter);
        }
        at(self.recent.get()).or_else(|| {
            let index = self.places.iter().position(allows)?;
            self.recent.set(index);
            at(index)
        })
    }

    /// The parameter that an address is based on, if it is known and described.
    fn parameter(&self, access: &Access) -> Option<usize> {
        usize::try_from(access.base).ok().filter(|_| self.described)
    }

    /// Why no place allows an access.
    fn explain(&self, access: &Access) -> String {
        let &Access { address, bytes, .. } = access;
        if let Some(parameter) = self.parameter(access) {
            return match self.places.get(parameter) {
                Some(place) => format!("parameter {parameter} ({})", place.range.explain(address, bytes)),
                None => format!("there is no parameter {parameter}"),
            };
        }
        let ranges: Vec<Range> = self.places.iter().map(|place| place.range).collect();
        memory::explain(&ranges, self.kind(), address, bytes)
    }

    /// What a place is.
    fn kind(&self) -> &'static str {
        if self.described { "parameter" } else { "allocation" }
    }
}

impl Launch<'_> {
    /// Checks an access of the current thread to global or shared memory.
    pub fn access(&self, access: Access, alignment: usize) -> Result<(), String> {
        let Access {
            address,
            bytes,
            write,
            base,
        } = access;
        let verb = if write { "writes" } else { "reads" };
        if !address.is_multiple_of(alignment.max(1)) {
            return Err(format!(
                "{verb} {bytes} bytes at {address:#x}, which is not aligned to {alignment}"
            ));
        }
        if base == BASE_SHARED || base == BASE_UNKNOWN {
            if let Some(offset) = Shared::offset(address) {
                let mut shared = self.shared.borrow_mut();
                return shared
                    .access(self.thread.get(), offset, bytes, write)
                    .map_err(|reason| format!("{verb} {bytes} bytes of {reason}"));
            }
            if base == BASE_SHARED {
                return Err(format!(
                    "{verb} {bytes} bytes at {address:#x}, which is not shared memory"
                ));
            }
        }
        self.access_global(&access)
    }

    /// Notes which banks an access of the current thread to shared memory needs.
    fn note_banks(&self, place: u64, access: &Access) {
        if let (Some(banks), Some(offset)) = (&mut *self.banks.borrow_mut(), Shared::offset(access.address)) {
            banks.access(self.thread.get(), (place, access.write), offset, access.bytes);
        }
    }

    /// Whether an access to global memory is right; false also where that takes some thought.
    fn passes(&self, access: &Access) -> bool {
        let Some((_, place)) = self.bounds.allowing(access) else {
            return false;
        };
        !place.changes
            || self
                .races
                .try_borrow_mut()
                .is_ok_and(|mut races| races.note_quickly(place.allocation, access, self.thread.get()))
    }

    fn access_global(&self, access: &Access) -> Result<(), String> {
        let &Access {
            address,
            bytes,
            write,
            ..
        } = access;
        let verb = if write { "writes" } else { "reads" };
        let Some((index, place)) = self.bounds.allowing(access) else {
            return Err(format!(
                "{verb} {bytes} bytes at {address:#x}, outside what it may touch; {}",
                self.bounds.explain(access)
            ));
        };
        if !place.changes {
            return Ok(());
        }
        let mut races = self.races.borrow_mut();
        let noted = races.note(place.allocation, access, self.thread.get());
        noted.map_err(|conflict| {
            let (kind, offset) = (self.bounds.kind(), address - place.range.begin);
            format!("{verb} {bytes} bytes at offset {offset} of {kind} {index}: {conflict}")
        })
    }
}

/// [`syncbn_abi::gpu_symbols::EMULATED_ACCESS`].
#[unsafe(no_mangle)]
extern "C" fn syncbn_emu_access(
    address: usize,
    place: i64,
    bytes: i64,
    alignment: i64,
    write: i64,
    base: i64,
) {
    let Some(launch) = current() else { return };
    let access = Access {
        address,
        bytes: bytes as usize,
        write: write != 0,
        base,
    };
    let alignment = alignment as usize;
    // Almost all accesses end here, without the cost of catching panics.
    let aligned = address & alignment.wrapping_sub(1) == 0;
    if aligned && base != BASE_SHARED && launch.passes(&access) {
        return;
    }
    intrinsic(|launch| {
        launch.access(access, alignment)?;
        launch.note_banks(place as u64, &access);
        Ok(())
    });
}
