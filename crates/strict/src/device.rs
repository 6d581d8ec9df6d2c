//! The device: it does the work of streams, when it must.

use crate::{
    rule::Rule,
    state::State,
    work::{Queued, Reduce, Work, hash},
};

/// What memory holds until a copy to it is done: no number.
const UNKNOWN: u8 = 0xff;
const PAGE: u64 = 4096;

impl State {
    /// Gives a stream work, or its capture.
    pub fn enqueue(&mut self, stream: u64, work: Work) {
        match self.capture_of(stream).and_then(|id| self.captures.get_mut(&id)) {
            Some(capture) => capture.add(stream, Some(work)),
            None => self.submit(stream, work),
        }
    }

    /// Gives a stream work that does not belong to a capture.
    pub fn submit(&mut self, stream: u64, work: Work) {
        let ticket = match &work {
            // SAFETY: the memory was found in an allocation, or the caller passed it as a source.
            Work::Upload { from, bytes, .. } => unsafe { hash(*from, *bytes) },
            Work::Download { to, bytes, .. } if self.pinned.find(*to, *bytes).is_some() => {
                // SAFETY: the memory lies in an allocation, and the caller leaves it to the copy.
                unsafe { std::ptr::write_bytes(*to as *mut u8, UNKNOWN, *bytes as usize) };
                0
            }
            Work::Reduce(reduce) => self.arrive(reduce),
            _ => 0,
        };
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.queue.push_back(Queued { work, ticket });
        }
    }

    /// Does the work of a stream up to a position; whether that is done. It is not where other ranks are waited for.
    pub fn advance(&mut self, stream: u64, position: u64) -> bool {
        loop {
            let Some(next) = self.streams.get(&stream) else {
                return true;
            };
            if next.done >= position {
                return true;
            }
            let Some(queued) = next.queue.front().cloned() else {
                return true;
            };
            let done = match &queued.work {
                Work::Wait { stream, position } => self.advance(*stream, *position),
                Work::Reduce(reduce) => self.is_reduced(reduce, queued.ticket),
                _ => true,
            };
            if !done {
                return false;
            }
            self.perform(&queued);
            if let Some(stream) = self.streams.get_mut(&stream) {
                stream.queue.pop_front();
                stream.done += 1;
            }
        }
    }

    /// Does all work of a stream; whether it is done.
    pub fn finish(&mut self, stream: u64) -> bool {
        let end = self.streams.get(&stream).map_or(0, |stream| stream.enqueued());
        self.advance(stream, end)
    }

    /// Does all work of all streams; whether it is done.
    pub fn finish_all(&mut self) -> bool {
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        let waiting = streams.into_iter().filter(|stream| !self.finish(*stream));
        waiting.count() == 0
    }

    fn perform(&mut self, queued: &Queued) {
        if !self.is_usable(&queued.work, Rule::FreedInUse) {
            return;
        }
        match &queued.work {
            Work::Upload { to, from, bytes } => {
                // SAFETY: both lie in allocations; the source may be any host memory while its call goes on.
                unsafe {
                    if hash(*from, *bytes) != queued.ticket {
                        let text =
                            format!("the source {from:#x} of {bytes} bytes changed before it was copied");
                        self.violation(Rule::PinnedChanged, &text);
                    }
                    std::ptr::copy(*from as *const u8, *to as *mut u8, *bytes as usize);
                }
            }
            Work::Download { to, from, bytes } => {
                // SAFETY: as above.
                unsafe { std::ptr::copy(*from as *const u8, *to as *mut u8, *bytes as usize) };
            }
            Work::Fill { to, value, bytes } => fill(*to, *value, *bytes),
            Work::Kernel { .. } | Work::Wait { .. } | Work::Reduce(Reduce { .. }) => {}
        }
    }

    /// Whether all memory of a piece of work is there; if not, that breaks `rule`.
    pub fn is_usable(&mut self, work: &Work, rule: Rule) -> bool {
        let gone = |(start, bytes): &(u64, u64)| self.device.find(*start, *bytes).is_none();
        let device = work.device_memory().iter().find(|range| gone(range)).copied();
        let host = work
            .host_memory()
            .filter(|(start, bytes)| self.pinned.spans(*start) && self.pinned.find(*start, *bytes).is_none());
        let Some((start, _)) = device.or(host) else {
            return true;
        };
        let arena = if device.is_some() {
            &self.device
        } else {
            &self.pinned
        };
        let text = format!(
            "{} uses memory that is gone: {}",
            work.describe(),
            arena.describe(start)
        );
        self.violation(rule, &text);
        false
    }

    /// Whether work that is not done uses the allocation of device or pinned memory that begins at `start`.
    pub fn is_in_use(&self, start: u64, pinned: bool) -> Option<String> {
        let uses = |work: &Work| {
            if pinned {
                let host = work.host_memory();
                return host.is_some_and(|(at, bytes)| self.pinned.find(at, bytes) == Some(start));
            }
            let memory = work.device_memory();
            memory
                .iter()
                .any(|&(at, bytes)| self.device.find(at, bytes) == Some(start))
        };
        let mut queued = self.streams.values().flat_map(|stream| &stream.queue);
        queued
            .find(|queued| uses(&queued.work))
            .map(|queued| queued.work.describe())
    }
}

/// Fills device memory. Whole pages of zeros are given back, so that zeroed memory takes none.
fn fill(to: u64, value: u8, bytes: u64) {
    let end = to + bytes;
    let (first, last) = (to.next_multiple_of(PAGE), end / PAGE * PAGE);
    // SAFETY: the memory lies in an allocation, and an anonymous private page that is given back reads as zeros.
    unsafe {
        if value != 0 || first >= last {
            std::ptr::write_bytes(to as *mut u8, value, bytes as usize);
            return;
        }
        std::ptr::write_bytes(to as *mut u8, 0, (first - to) as usize);
        libc::madvise(
            first as *mut libc::c_void,
            (last - first) as usize,
            libc::MADV_DONTNEED,
        );
        std::ptr::write_bytes(last as *mut u8, 0, (end - last) as usize);
    }
}
