//! What happens before what on the streams of an emulated device, by vector clocks.
//!
//! Emulated work is done when it is enqueued, so a missing event changes no number. It is noticed here: all-reduces
//! must be ordered by events also where they use different communicators (or ranks could take them in different
//! orders and wait for each other forever), and so must copies of a stream of their own and the kernels that
//! touch what they copy.

use super::memory::Range;
use crate::error::{Error, Result};

/// For each stream how much of its work has happened.
type Clock = Vec<u64>;

/// A piece of work: the `index`-th of `stream`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    stream: usize,
    index: u64,
}

/// Memory that a stream copies to.
#[derive(Debug)]
struct Copied {
    range: Range,
    at: Point,
    /// The last kernel of each stream that touched it since.
    users: Vec<Point>,
}

/// The streams of a device.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// For each stream what happens before its next work, and the work itself.
    streams: Vec<Clock>,
    /// What the host has waited for.
    host: Clock,
    collective: Option<Point>,
    copies: Vec<Copied>,
}

impl Timeline {
    /// A new stream; its number.
    pub fn add_stream(&mut self) -> usize {
        self.streams.push(Clock::new());
        self.streams.len() - 1
    }

    /// The host waits for all work of a stream.
    pub fn synchronize(&mut self, stream: usize) {
        merge(&mut self.host, &self.streams[stream]);
    }

    /// Later work of `waiting` happens after all work that `signalling` has.
    pub fn wait(&mut self, waiting: usize, signalling: usize) {
        let known = self.streams[signalling].clone();
        merge(&mut self.streams[waiting], &known);
    }

    /// A stream gets a kernel that touches `ranges`; an error if it and a copy could overlap in time.
    pub fn launch(&mut self, stream: usize, ranges: &[Range]) -> Result<(), String> {
        let point = self.next(stream);
        let clock = &self.streams[stream];
        for copied in &mut self.copies {
            if !ranges.iter().any(|range| range.meets(&copied.range)) {
                continue;
            }
            if !happened(clock, copied.at) {
                return Err("touches what another stream copies, without waiting for it".to_string());
            }
            copied.users.retain(|user| user.stream != stream);
            copied.users.push(point);
        }
        Ok(())
    }

    /// A stream gets a copy to `range`; an error if it could overlap in time with a kernel that touches it, or with
    /// another copy.
    pub fn copy(&mut self, stream: usize, range: Range) -> Result<()> {
        let at = self.next(stream);
        let clock = &self.streams[stream];
        let early = |copied: &Copied| {
            let mut before = copied.users.iter().chain([&copied.at]);
            copied.range.meets(&range) && !before.all(|&point| happened(clock, point))
        };
        if self.copies.iter().any(early) {
            return Err(Error::internal(
                "a copy does not wait for the kernels that still use its destination",
            ));
        }
        self.copies.retain(|copied| !copied.range.meets(&range));
        self.copies.push(Copied {
            range,
            at,
            users: Vec::new(),
        });
        Ok(())
    }

    /// A stream gets an all-reduce; an error if it is not ordered after the one before.
    pub fn all_reduce(&mut self, stream: usize) -> Result<()> {
        let point = self.next(stream);
        if let Some(before) = self.collective.replace(point)
            && !happened(&self.streams[stream], before)
        {
            return Err(Error::internal(
                "no event orders an all-reduce after the one before",
            ));
        }
        Ok(())
    }

    /// The next work of a stream.
    fn next(&mut self, stream: usize) -> Point {
        let clock = &mut self.streams[stream];
        merge(clock, &self.host);
        if clock.len() <= stream {
            clock.resize(stream + 1, 0);
        }
        clock[stream] += 1;
        Point {
            stream,
            index: clock[stream],
        }
    }
}

/// Whether a piece of work lies before what `clock` tells of.
fn happened(clock: &Clock, point: Point) -> bool {
    clock.get(point.stream).is_some_and(|&index| index >= point.index)
}

fn merge(into: &mut Clock, from: &Clock) {
    if into.len() < from.len() {
        into.resize(from.len(), 0);
    }
    for (known, new) in into.iter_mut().zip(from) {
        *known = (*known).max(*new);
    }
}

/// Which streams take part in a capture, and what of their work the first of them has waited for.
#[derive(Debug)]
pub(super) struct Members {
    origin: usize,
    /// For each stream, if it takes part.
    clocks: Vec<Option<Clock>>,
}

impl Members {
    /// A capture that begins on `origin`.
    pub fn new(origin: usize) -> Self {
        let mut members = Members {
            origin,
            clocks: Vec::new(),
        };
        *members.slot(origin) = Some(Clock::new());
        members
    }

    fn slot(&mut self, stream: usize) -> &mut Option<Clock> {
        if self.clocks.len() <= stream {
            self.clocks.resize(stream + 1, None);
        }
        &mut self.clocks[stream]
    }

    /// A stream gets work; an error if it does not take part.
    pub fn work(&mut self, stream: usize) -> Result<()> {
        let Some(clock) = self.slot(stream) else {
            return Err(Error::internal(
                "work on a stream that has not waited for the captured one",
            ));
        };
        if clock.len() <= stream {
            clock.resize(stream + 1, 0);
        }
        clock[stream] += 1;
        Ok(())
    }

    /// `waiting` waits for `signalling`, and thereby joins the capture; an error if it takes part and the other
    /// does not.
    pub fn wait(&mut self, waiting: usize, signalling: usize) -> Result<()> {
        let Some(known) = self.slot(signalling).clone() else {
            return match self.slot(waiting) {
                Some(_) => Err(Error::internal(
                    "a captured stream waits for one that is not captured",
                )),
                None => Ok(()),
            };
        };
        // A wait is work, so that a stream that only waited must be waited for too.
        merge(self.slot(waiting).get_or_insert_default(), &known);
        self.work(waiting)
    }

    /// Ends the capture; an error unless the first stream has waited for all work of the others.
    pub fn end(&self) -> Result<()> {
        let joined = self.clocks[self.origin].clone().unwrap_or_default();
        let all = self.clocks.iter().enumerate().all(|(stream, clock)| {
            let index = clock.as_ref().and_then(|clock| clock.get(stream)).copied();
            happened(
                &joined,
                Point {
                    stream,
                    index: index.unwrap_or(0),
                },
            ) || index.unwrap_or(0) == 0
        });
        if all {
            return Ok(());
        }
        Err(Error::internal("a captured stream was not waited for at the end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(streams: usize) -> Timeline {
        let mut timeline = Timeline::default();
        (0..streams).for_each(|_| {
            timeline.add_stream();
        });
        timeline
    }

    fn range(begin: usize, end: usize) -> Range {
        Range {
            begin,
            end,
            written: true,
        }
    }

    #[test]
    fn all_reduces_of_two_streams_must_be_ordered() {
        let mut timeline = timeline(3);
        timeline.all_reduce(0).unwrap();
        timeline.all_reduce(0).unwrap();
        timeline.wait(1, 0);
        timeline.all_reduce(1).unwrap();
        // Stream 0 has waited for stream 2 only, which knows nothing of stream 1.
        timeline.wait(0, 2);
        assert!(timeline.all_reduce(0).is_err());
        timeline.synchronize(0);
        timeline.all_reduce(2).unwrap();
        // An order by way of another stream is one.
        timeline.wait(1, 2);
        timeline.wait(0, 1);
        timeline.all_reduce(0).unwrap();
    }

    #[test]
    fn copies_and_kernels_must_be_ordered_both_ways() {
        let mut timeline = timeline(2);
        let (a, b) = (range(0, 8), range(8, 16));
        timeline.copy(1, a).unwrap();
        timeline.launch(0, &[b]).unwrap();
        assert!(timeline.launch(0, &[a]).is_err());
        timeline.wait(0, 1);
        timeline.launch(0, &[a, b]).unwrap();
        timeline.copy(1, b).unwrap();
        assert!(timeline.copy(1, range(4, 6)).is_err());
        timeline.wait(1, 0);
        timeline.copy(1, a).unwrap();
        timeline.synchronize(1);
        timeline.launch(0, &[a]).unwrap();
        assert!(timeline.copy(1, a).is_err());
        timeline.synchronize(0);
        timeline.copy(1, a).unwrap();
    }

    #[test]
    fn a_capture_has_the_streams_that_waited_and_were_waited_for() {
        let mut members = Members::new(0);
        assert!(members.work(1).is_err());
        assert!(members.wait(0, 1).is_err());
        members.work(0).unwrap();
        members.wait(1, 0).unwrap();
        assert!(members.end().is_err());
        members.work(1).unwrap();
        members.wait(2, 1).unwrap();
        members.wait(0, 1).unwrap();
        assert!(members.end().is_err());
        members.wait(0, 2).unwrap();
        members.end().unwrap();
        // Streams outside may do among themselves what they like.
        members.wait(3, 4).unwrap();
        members.end().unwrap();
    }
}
