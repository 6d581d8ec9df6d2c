//! Streams and events.

use std::ffi::{c_int, c_uint, c_void};

use crate::{
    call::{GROUPS, Then, call},
    export::{export, give},
    plant,
    rule::Rule,
    state::{Kind, Point, State, Stream},
    status,
    work::Work,
};

type Handle = *mut c_void;

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: c_uint = 1;
/// `CU_EVENT_DISABLE_TIMING`
const NO_TIMING: c_uint = 2;

/// The stream that is waited for, which must not capture.
fn idle(state: &mut State, stream: Handle) -> Result<u64, c_int> {
    let stream = state.find(Kind::Stream, stream)?;
    if GROUPS.get() > 0 {
        state.violation(Rule::Group, "a group is not ended");
    }
    if let Some(capture) = state.capture_of(stream) {
        state.invalidate(capture);
        return state.refuse(
            Rule::CallInCapture,
            "the stream captures",
            status::CAPTURE_UNSUPPORTED,
        );
    }
    Ok(stream)
}

export! {
    /// Makes a stream.
    fn cuStreamCreate(stream: *mut Handle, flags: c_uint) {
        call("cuStreamCreate", |state| {
            if flags != NON_BLOCKING {
                state.violation(Rule::Argument, "the stream would wait for the NULL stream");
            }
            let handle = state.handle(Kind::Stream);
            state.streams.insert(handle, Stream::default());
            give(state, stream, handle as Handle).map(|()| Then::Return)
        })
    }

    /// Destroys a stream; its work goes on.
    fn cuStreamDestroy_v2(stream: Handle) {
        call("cuStreamDestroy_v2", |state| {
            let stream = state.find(Kind::Stream, stream)?;
            if state.capture_of(stream).is_some() {
                state.violation(Rule::CallInCapture, "the stream captures");
            }
            state.end_handle(stream);
            Ok(Then::Return)
        })
    }

    /// Whether a stream's work is done. It says no at least once where there is some.
    fn cuStreamQuery(stream: Handle) {
        call("cuStreamQuery", |state| {
            let stream = idle(state, stream)?;
            let Some(known) = state.streams.get_mut(&stream) else {
                return Ok(Then::Return);
            };
            known.queries += 1;
            let asked_again = known.queries.is_multiple_of(2);
            match known.queue.is_empty() || asked_again && state.finish(stream) {
                true => Ok(Then::Return),
                false => Err(status::NOT_READY),
            }
        })
    }

    /// Waits for a stream.
    fn cuStreamSynchronize(stream: Handle) {
        let stream = plant::stream_or_event(stream);
        call("cuStreamSynchronize", |state| {
            let stream = idle(state, stream)?;
            Ok(Then::Wait(Box::new(move |state| state.finish(stream).then_some(status::SUCCESS))))
        })
    }

    /// Lets a stream wait for an event.
    fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: c_uint) {
        if plant::drops_wait(stream as u64) {
            return status::SUCCESS;
        }
        call("cuStreamWaitEvent", |state| {
            let stream = state.find(Kind::Stream, stream)?;
            let event = state.find(Kind::Event, event)?;
            if flags != 0 {
                state.violation(Rule::Argument, "flags are 0");
            }
            match state.events.get(&event).cloned().unwrap_or(Point::Nowhere) {
                Point::Nowhere => state.violation(Rule::UnrecordedEvent, "the event was never recorded"),
                Point::Captured(capture, point) => state.wait_captured(stream, capture, &point)?,
                Point::Stream(of, position) => {
                    if let Some(capture) = state.capture_of(stream) {
                        state.invalidate(capture);
                        let text = "a capturing stream waits for work outside of its capture";
                        return state.refuse(Rule::CaptureIsolation, text, status::CAPTURE_ISOLATION);
                    }
                    state.submit(stream, Work::Wait { stream: of, position });
                }
            }
            Ok(Then::Return)
        })
    }

    /// Makes an event.
    fn cuEventCreate(event: *mut Handle, flags: c_uint) {
        let status = call("cuEventCreate", |state| {
            if flags != NO_TIMING {
                state.violation(Rule::Argument, "the event would take times");
            }
            let handle = state.handle(Kind::Event);
            state.events.insert(handle, Point::Nowhere);
            give(state, event, handle as Handle).map(|()| Then::Return)
        });
        if status == status::SUCCESS && plant::once("dead-event") {
            // SAFETY: the event was just written there.
            unsafe { cuEventDestroy_v2(*event) };
        }
        status
    }

    /// Destroys an event.
    fn cuEventDestroy_v2(event: Handle) {
        call("cuEventDestroy_v2", |state| {
            let event = state.find(Kind::Event, event)?;
            state.end_handle(event);
            Ok(Then::Return)
        })
    }

    /// Puts an event at the end of a stream.
    fn cuEventRecord(event: Handle, stream: Handle) {
        if plant::drops_record() {
            return status::SUCCESS;
        }
        call("cuEventRecord", |state| {
            let event = state.find(Kind::Event, event)?;
            let stream = state.find(Kind::Stream, stream)?;
            let point = state.point(stream);
            state.events.insert(event, point);
            Ok(Then::Return)
        })
    }

    /// Waits for what lies before an event.
    fn cuEventSynchronize(event: Handle) {
        call("cuEventSynchronize", |state| {
            let event = state.find(Kind::Event, event)?;
            match state.events.get(&event) {
                Some(Point::Captured(..)) => {
                    state.refuse(Rule::CapturedEvent, "the event lies in a capture", status::CAPTURED_EVENT)
                }
                Some(&Point::Stream(stream, position)) => Ok(Then::Wait(Box::new(move |state| {
                    state.advance(stream, position).then_some(status::SUCCESS)
                }))),
                Some(Point::Nowhere) | None => Ok(Then::Return),
            }
        })
    }
}
