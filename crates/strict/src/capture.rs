//! Captures: their work with what each piece waits for.

use std::ffi::c_int;

use crate::{
    call::CAPTURING,
    rule::Rule,
    state::{Point, State},
    status,
    work::Work,
};

/// A capture that goes on, or has ended.
#[derive(Debug, Default)]
pub struct Capture {
    /// The stream that it began on.
    pub origin: u64,
    /// Streams that take part, with the pieces that their next one waits for.
    streams: Vec<(u64, Vec<usize>)>,
    /// The pieces. One without work stands for a stream's entry, so that it must be waited for too.
    nodes: Vec<(Option<Work>, Vec<usize>)>,
    /// Whether something happened that its end reports.
    pub invalid: bool,
    /// Whether it has ended.
    pub ended: bool,
}

impl Capture {
    /// One that begins on `origin`.
    pub fn new(origin: u64) -> Self {
        Capture {
            origin,
            streams: vec![(origin, Vec::new())],
            ..Capture::default()
        }
    }

    fn tail(&mut self, stream: u64) -> Option<&mut Vec<usize>> {
        let found = self.streams.iter_mut().find(|(known, _)| *known == stream);
        found.map(|(_, tail)| tail)
    }

    /// Appends work to a stream.
    pub fn add(&mut self, stream: u64, work: Option<Work>) {
        let node = self.nodes.len();
        if let Some(tail) = self.tail(stream) {
            let before = std::mem::replace(tail, vec![node]);
            self.nodes.push((work, before));
        }
    }

    /// Where a stream is.
    pub fn position(&mut self, stream: u64) -> Vec<usize> {
        self.tail(stream).map_or_else(Vec::new, |tail| tail.clone())
    }

    /// Lets a stream wait for a point, and take part if it does not yet.
    pub fn wait(&mut self, stream: u64, point: &[usize]) {
        match self.tail(stream) {
            Some(tail) => tail.extend(point),
            None => {
                self.streams.push((stream, point.to_vec()));
                self.add(stream, None);
            }
        }
    }

    /// The streams that take part.
    pub fn members(&self) -> impl Iterator<Item = u64> {
        self.streams.iter().map(|(stream, _)| *stream)
    }

    /// Whether the origin waits for everything.
    fn is_joined(&mut self) -> bool {
        let mut seen = vec![false; self.nodes.len()];
        let mut rest = self.position(self.origin);
        while let Some(node) = rest.pop() {
            if !std::mem::replace(&mut seen[node], true) {
                rest.extend(&self.nodes[node].1);
            }
        }
        seen.iter().all(|seen| *seen)
    }

    /// Its work, in an order in which it may be done.
    fn work(&self) -> Vec<Work> {
        self.nodes.iter().filter_map(|(work, _)| work.clone()).collect()
    }
}

impl State {
    /// The capture that a stream takes part in.
    pub fn capture_of(&self, stream: u64) -> Option<u64> {
        self.streams.get(&stream)?.capture
    }

    /// Lets a capture fail at its end.
    pub fn invalidate(&mut self, capture: u64) {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.invalid = true;
        }
    }

    /// Begins a capture.
    pub fn begin_capture(&mut self, stream: u64) -> Result<(), c_int> {
        if self.capture_of(stream).is_some() || CAPTURING.get() != 0 {
            self.violation(Rule::CaptureState, "the stream or thread captures already");
            return Err(status::ILLEGAL_STATE);
        }
        let id = self.next_number();
        self.captures.insert(id, Capture::new(stream));
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.capture = Some(id);
        }
        CAPTURING.set(id);
        Ok(())
    }

    /// Ends a capture; its work.
    pub fn end_capture(&mut self, stream: u64) -> Result<Vec<Work>, c_int> {
        let id = self.capture_of(stream).unwrap_or(0);
        let Some(mut capture) = self.captures.remove(&id) else {
            self.violation(Rule::CaptureState, "the stream does not capture");
            return Err(status::ILLEGAL_STATE);
        };
        let outcome = if capture.origin != stream {
            self.violation(Rule::CaptureState, "the capture began on another stream");
            Err(status::CAPTURE_UNMATCHED)
        } else if CAPTURING.get() != id {
            self.violation(Rule::CaptureState, "the capture began in another thread");
            Err(status::CAPTURE_WRONG_THREAD)
        } else if capture.invalid {
            Err(status::CAPTURE_INVALIDATED)
        } else if !capture.is_joined() {
            self.violation(Rule::Unjoined, "a stream's work is not waited for at the end");
            Err(status::CAPTURE_UNJOINED)
        } else {
            Ok(capture.work())
        };
        for member in capture.members() {
            if let Some(stream) = self.streams.get_mut(&member) {
                stream.capture = None;
            }
        }
        capture.ended = true;
        self.captures.insert(id, capture);
        CAPTURING.set(0);
        outcome
    }

    /// Lets a stream wait for an event that was recorded in a capture.
    pub fn wait_captured(&mut self, stream: u64, capture: u64, point: &[usize]) -> Result<(), c_int> {
        let own = self.capture_of(stream);
        let ended = self.captures.get(&capture).is_none_or(|capture| capture.ended);
        if ended {
            self.violation(Rule::CapturedEvent, "the event's capture has ended");
            return Err(status::CAPTURED_EVENT);
        }
        if own.is_some_and(|own| own != capture) {
            self.violation(Rule::CaptureIsolation, "stream and event are of two captures");
            self.invalidate(capture);
            return Err(status::CAPTURE_ISOLATION);
        }
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.wait(stream, point);
        }
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.capture = Some(capture);
        }
        Ok(())
    }

    /// Where a stream is now.
    pub fn point(&mut self, stream: u64) -> Point {
        match self
            .capture_of(stream)
            .and_then(|id| Some((id, self.captures.get_mut(&id)?)))
        {
            Some((id, capture)) => Point::Captured(id, capture.position(stream)),
            None => Point::Stream(
                stream,
                self.streams.get(&stream).map_or(0, |stream| stream.enqueued()),
            ),
        }
    }
}
