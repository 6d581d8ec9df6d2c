//! How communicators end.

use std::ffi::c_void;

use super::meeting::Meeting;
use crate::{
    call::{GROUPS, Outcome, Then},
    rule::Rule,
    state::{Kind, State},
    status,
    work::Work,
};

impl State {
    /// Ends a communicator's waits.
    pub(super) fn abort(&mut self, handle: *mut c_void) -> Outcome {
        let handle = self.find(Kind::Communicator, handle)?;
        if let Some(communicator) = self.communicators.get_mut(&handle) {
            communicator.aborted = true;
        }
        self.end_handle(handle);
        Ok(Then::Return)
    }

    /// Ends a communicator after its work, once all its ranks do so: NVIDIA's manual has `ncclCommDestroy` as a
    /// collective call. It waits for ever for a rank that has died, aborted or gone elsewhere.
    pub(super) fn destroy(&mut self, handle: *mut c_void) -> Outcome {
        let handle = self.find(Kind::Communicator, handle)?;
        let uses = |work: &Work| matches!(work, Work::Reduce(reduce) if reduce.communicator == handle);
        let graphs = self
            .executables
            .values()
            .filter(|graph| graph.iter().any(uses))
            .count();
        if graphs > 0 {
            self.violation(Rule::CommunicatorInGraph, &format!("{graphs} graphs use it"));
        }
        if GROUPS.get() > 0 {
            self.violation(Rule::Group, "a group is not ended");
        }
        self.end_handle(handle);
        if let Some(communicator) = self.communicators.get(&handle) {
            communicator.meeting.end(communicator.rank);
        }
        let pending = move |state: &State| {
            let mut queued = state.streams.values().flat_map(|stream| &stream.queue);
            queued.any(|queued| matches!(&queued.work, Work::Reduce(reduce) if reduce.communicator == handle))
        };
        Ok(Then::Wait(Box::new(move |state| {
            state.finish_all();
            let others = state.communicators.get(&handle).map(|own| &own.meeting);
            let ended = others.is_none_or(Meeting::has_ended);
            (!pending(state) && ended).then_some(status::SUCCESS)
        })))
    }
}
