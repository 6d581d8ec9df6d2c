//! The group of NCCL's calls that this thread is in: its all-reduces count as one, and what communicators have not
//! finished in it is waited for at its end.

use std::{cell::RefCell, ffi::c_int, sync::Arc};

/// A communicator that may not have finished a call of a group.
pub(super) trait Member {
    /// Waits for the end of the calls so far; their status.
    fn finish(&self) -> c_int;
}

/// An open group.
#[derive(Default)]
pub(super) struct Group {
    /// Whether its all-reduces have been counted.
    counted: bool,
    /// The communicators that it has called so far.
    members: Vec<Arc<dyn Member>>,
    /// Whether a call of one of them had not finished.
    unfinished: bool,
}

/// A call that begins or ends groups, and its status.
type Failure = (&'static str, c_int);

thread_local! {
    /// The open group, and why the last one could not begin or end.
    static STATE: RefCell<(Option<Group>, Option<Failure>)> = const { RefCell::new((None, None)) };
}

/// Begins a group.
pub(super) fn begin() {
    STATE.with_borrow_mut(|(group, _)| *group = Some(Group::default()));
}

/// Ends the group.
pub(super) fn end() -> Group {
    STATE
        .with_borrow_mut(|(group, _)| group.take())
        .unwrap_or_default()
}

/// Whether an all-reduce that comes now counts: all do but a group's later ones.
pub(super) fn counts() -> bool {
    STATE.with_borrow_mut(|(group, _)| match group {
        Some(group) => !std::mem::replace(&mut group.counted, true),
        None => true,
    })
}

/// Adds a communicator, a call of which may be `unfinished`, to the group. False if there is none.
pub(super) fn add<M: Member + 'static>(member: &Arc<M>, unfinished: bool) -> bool {
    STATE.with_borrow_mut(|(group, _)| {
        let Some(group) = group else {
            return false;
        };
        group.unfinished |= unfinished;
        let same = |known: &Arc<dyn Member>| Arc::as_ptr(known).addr() == Arc::as_ptr(member).addr();
        if !group.members.iter().any(same) {
            group.members.push(Arc::<M>::clone(member));
        }
        true
    })
}

/// Notes how `call`, which begins or ends groups, went: none fails until the next such call.
pub(super) fn note(failure: Option<Failure>) {
    STATE.with_borrow_mut(|(_, kept)| *kept = failure);
}

/// The call that began or ended the last group, if it failed.
pub(super) fn failure() -> Option<Failure> {
    STATE.with_borrow(|(_, failure)| *failure)
}

/// As [`failure`], which is forgotten.
pub(super) fn take_failure() -> Option<Failure> {
    STATE.with_borrow_mut(|(_, failure)| failure.take())
}

impl Group {
    /// Whether a call of it had not finished.
    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Waits for its members, up to the first that fails; the first status that is not `success`.
    pub(super) fn finish(&self, success: c_int) -> c_int {
        let mut ends = self.members.iter().map(|member| member.finish());
        ends.find(|&end| end != success).unwrap_or(success)
    }
}
