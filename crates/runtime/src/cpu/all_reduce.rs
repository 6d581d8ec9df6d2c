//! The shared-memory all-reduce (sum) of a team of ranks.
//!
//! Every rank publishes its segments; after a barrier each rank sums its own slice of every segment over
//! the ranks in rank order and stores the result into everyone's buffers; a second barrier ends the call.
//! The order of additions depends on the number of ranks only, so that results have the same bits in every
//! run and on every rank. f32 values are added in f64 and rounded once.

use std::sync::{PoisonError, RwLock};

use syncbn_abi::Segment;

use crate::cpu::barrier::{Barrier, Poisoned};

/// Elements that are summed at a time; the sums stay in the innermost cache.
const CHUNK: usize = 256;

/// Why an all-reduce did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Another rank failed first.
    Poisoned,
    /// The ranks disagree, or an argument is malformed: a defect of the caller.
    Mismatch(String),
}

impl From<Poisoned> for Failure {
    fn from(_: Poisoned) -> Self {
        Failure::Poisoned
    }
}

/// What a rank publishes for the duration of one call.
#[derive(Debug)]
struct Published {
    collective: i64,
    segments: Vec<Segment>,
}

// SAFETY: the segments' pointers are only followed between the two barriers of a call, where the callers
// of all ranks have lent what they point to.
unsafe impl Send for Published {}
// SAFETY: as above.
unsafe impl Sync for Published {}

/// The ranks that take part in one sum.
#[derive(Debug)]
pub struct Team {
    /// Ends the publishing; a failing rank poisons it.
    entered: Barrier,
    /// Ends the summing. It is never poisoned: whoever passed `entered` reaches it, and nobody may take its
    /// buffers back before.
    left: Barrier,
    slots: Vec<RwLock<Published>>,
}

impl Team {
    /// A team of `ranks` threads; `spin` as in [`Barrier::new`].
    pub fn new(ranks: usize, spin: bool) -> Self {
        let participants = u32::try_from(ranks).unwrap_or(u32::MAX);
        let empty = || {
            RwLock::new(Published {
                collective: -1,
                segments: Vec::new(),
            })
        };
        Team {
            entered: Barrier::new(participants, spin),
            left: Barrier::new(participants, spin),
            slots: (0..ranks).map(|_| empty()).collect(),
        }
    }

    /// Ends every current and future call with [`Failure::Poisoned`].
    pub fn poison(&self) {
        self.entered.poison();
    }

    /// Waits for the whole team.
    pub fn barrier(&self) -> Result<(), Failure> {
        Ok(self.entered.wait()?)
    }

    /// Sums `segments` over the team, in place. `member` is this rank's index in the team; `collective`
    /// is compared, so that ranks that diverged get an error instead of a wrong sum.
    ///
    /// # Safety
    /// Each segment must be valid for reads and writes of its elements and be used by nobody else during
    /// the call, and each member must be used by one thread at a time.
    pub unsafe fn all_reduce(
        &self,
        member: usize,
        collective: i64,
        segments: &[Segment],
    ) -> Result<(), Failure> {
        let slot = self
            .slots
            .get(member)
            .ok_or_else(|| Failure::Mismatch("no such rank".into()))?;
        {
            let mut own = slot.write().unwrap_or_else(PoisonError::into_inner);
            own.collective = collective;
            own.segments.clear();
            own.segments.extend_from_slice(segments);
        }
        self.entered.wait()?;
        let summed = {
            let read = |slot| RwLock::read(slot).unwrap_or_else(PoisonError::into_inner);
            let published: Vec<_> = self.slots.iter().map(read).collect();
            let published: Vec<&Published> = published.iter().map(|rank| &**rank).collect();
            // SAFETY: the caller vouches for its segments, and so did every member that passed the barrier.
            agree(&published).map(|()| unsafe { sum(&published, member) })
        };
        // Cannot fail, as nobody poisons it.
        self.left.wait()?;
        summed.map_err(|text| {
            self.poison();
            Failure::Mismatch(text)
        })
    }
}

/// Checks that all ranks mean the same sum. Every rank comes to the same verdict.
fn agree(published: &[&Published]) -> Result<(), String> {
    let Some(first) = published.first() else {
        return Ok(());
    };
    let collective = first.collective;
    for (rank, other) in published.iter().enumerate() {
        if other.collective != collective {
            let text = format!(
                "rank 0 entered collective {collective}, rank {rank} {}",
                other.collective
            );
            return Err(text);
        }
        let shape = |segment: &Segment| (segment.elements, segment.element_type);
        if !other
            .segments
            .iter()
            .map(shape)
            .eq(first.segments.iter().map(shape))
        {
            return Err(format!(
                "the segments of rank 0 and rank {rank} differ in collective {collective}"
            ));
        }
        for segment in &other.segments {
            let bytes = match segment.element_type {
                0 => 4,
                1 => 8,
                _ => return Err(format!("unknown element type in collective {collective}")),
            };
            if segment.elements < 0 || !(segment.data as usize).is_multiple_of(bytes) {
                return Err(format!(
                    "malformed segment of rank {rank} in collective {collective}"
                ));
            }
        }
    }
    Ok(())
}

/// Sums member `member`'s slice of every segment.
///
/// # Safety
/// All published segments are valid, the ranks agree, and nobody else touches this member's slices.
unsafe fn sum(published: &[&Published], member: usize) {
    let count = published.first().map_or(0, |first| first.segments.len());
    for index in 0..count {
        let Segment {
            elements,
            element_type,
            ..
        } = published[0].segments[index];
        let data: Vec<*mut u8> = published.iter().map(|rank| rank.segments[index].data).collect();
        // SAFETY: passed on from the caller; `agree` checked element types, counts and alignment.
        unsafe {
            if element_type == 0 {
                sum_slice::<f32>(&data, elements as usize, member);
            } else {
                sum_slice::<f64>(&data, elements as usize, member);
            }
        }
    }
}

/// An element that sums in f64.
trait Sum: Copy {
    fn widen(self) -> f64;
    fn narrow(sum: f64) -> Self;
}

impl Sum for f32 {
    fn widen(self) -> f64 {
        f64::from(self)
    }
    fn narrow(sum: f64) -> Self {
        sum as f32
    }
}

impl Sum for f64 {
    fn widen(self) -> f64 {
        self
    }
    fn narrow(sum: f64) -> Self {
        sum
    }
}

/// Sums member `member`'s slice of `data` and stores it to every rank, with the widest vectors of this processor: they
/// change no bit of a sum.
///
/// # Safety
/// Every pointer is valid for `elements` elements, and nobody else touches this member's slice.
unsafe fn sum_slice<T: Sum>(data: &[*mut u8], elements: usize, member: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        /// [`add_up`] with AVX-512.
        ///
        /// # Safety
        /// As [`add_up`], on a processor that has it.
        #[target_feature(enable = "avx512f")]
        unsafe fn avx512<T: Sum>(data: &[*mut u8], elements: usize, member: usize) {
            // SAFETY: passed on from the caller.
            unsafe { add_up::<T>(data, elements, member) }
        }
        /// [`add_up`] with AVX2.
        ///
        /// # Safety
        /// As [`add_up`], on a processor that has it.
        #[target_feature(enable = "avx2")]
        unsafe fn avx2<T: Sum>(data: &[*mut u8], elements: usize, member: usize) {
            // SAFETY: passed on from the caller.
            unsafe { add_up::<T>(data, elements, member) }
        }
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: passed on from the caller, and the processor was asked.
            return unsafe { avx512::<T>(data, elements, member) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2::<T>(data, elements, member) };
        }
    }
    // SAFETY: passed on from the caller.
    unsafe { add_up::<T>(data, elements, member) }
}

/// As [`sum_slice`], with the vectors of the function that it is part of.
///
/// # Safety
/// As [`sum_slice`].
#[inline(always)]
unsafe fn add_up<T: Sum>(data: &[*mut u8], elements: usize, member: usize) {
    let (mut begin, end) = slice_of(elements, size_of::<T>(), member, data.len());
    while begin < end {
        let length = CHUNK.min(end - begin);
        let mut sums = [0.0_f64; CHUNK];
        for (rank, start) in data.iter().enumerate() {
            // SAFETY: within this member's slice of a valid buffer, which only this thread touches now.
            let source = unsafe { std::slice::from_raw_parts(start.cast::<T>().add(begin), length) };
            for (sum, value) in sums.iter_mut().zip(source) {
                // The first rank's value is taken as it is, so that -0.0 survives.
                *sum = if rank == 0 {
                    value.widen()
                } else {
                    *sum + value.widen()
                };
            }
        }
        for start in data {
            // SAFETY: as above; the shared slice of this buffer has ended.
            let target = unsafe { std::slice::from_raw_parts_mut(start.cast::<T>().add(begin), length) };
            for (value, sum) in target.iter_mut().zip(&sums) {
                *value = T::narrow(*sum);
            }
        }
        begin += length;
    }
}

/// The elements `[begin, end)` that part `part` of `parts` owns: whole blocks of 64 bytes, as even as
/// possible.
pub fn slice_of(elements: usize, element_bytes: usize, part: usize, parts: usize) -> (usize, usize) {
    let block = 64 / element_bytes;
    let blocks = elements.div_ceil(block);
    let bound =
        |part: usize| ((blocks as u128 * part as u128 / parts as u128) as usize * block).min(elements);
    (bound(part), bound(part + 1))
}

#[cfg(test)]
mod tests;
