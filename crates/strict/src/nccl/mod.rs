//! NCCL: communicators and their all-reduces. A communicator's ranks meet in a file that all of them map.

mod exports;
mod meeting;

use std::ffi::{c_int, c_void};

pub use exports::ncclGroupStart;

use crate::{
    call::{GROUPS, Outcome, Then},
    rule::Rule,
    state::{Kind, State},
    status,
    work::{Reduce, Work},
};
use meeting::Meeting;

/// Bytes of a unique identifier. The last one is a sum of the others, so that a cut one is noticed.
pub const ID_BYTES: usize = 128;
/// `ncclFloat32`
const FLOAT32: c_int = 7;
/// `ncclFloat64`
const FLOAT64: c_int = 8;
/// `ncclSum`
const SUM: c_int = 0;

/// A communicator.
#[derive(Debug)]
pub struct Communicator {
    /// Its number in this process, from 1: the same on all ranks, which make them in one order.
    number: u64,
    meeting: Meeting,
    rank: usize,
    /// All-reduces that it was given.
    enqueued: u64,
    /// Whether its waits are over.
    aborted: bool,
    /// How often it still says that it is in progress.
    progress: u64,
    /// Calls of a group that is not ended: stream and work.
    grouped: Vec<(u64, Reduce)>,
}

/// The sum that the last byte of an identifier is.
fn check_sum(id: &[u8; ID_BYTES]) -> u8 {
    id[..ID_BYTES - 1]
        .iter()
        .fold(0x5a, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte))
}

impl State {
    /// Joins a communicator; the handle is written at once, and `blocking` waits for all others.
    fn join(
        &mut self,
        handle: *mut *mut c_void,
        (ranks, rank): (c_int, c_int),
        id: &[u8; ID_BYTES],
        device: c_int,
        blocking: bool,
    ) -> Outcome {
        if check_sum(id) != id[ID_BYTES - 1] {
            self.violation(Rule::Argument, "the identifier is not as it was made");
            return Err(status::NCCL_INVALID_ARGUMENT);
        }
        let (Ok(ranks), Ok(rank)) = (usize::try_from(ranks), usize::try_from(rank)) else {
            return self.refuse(Rule::Argument, "a negative rank", status::NCCL_INVALID_ARGUMENT);
        };
        if rank >= ranks || handle.is_null() {
            return self.refuse(Rule::Argument, "no such rank", status::NCCL_INVALID_ARGUMENT);
        }
        let Some(meeting) = Meeting::join(self.settings.log.as_deref(), id, (rank, ranks), device) else {
            return Err(crate::function::NCCL_FAILURE);
        };
        let new = self.handle(Kind::Communicator);
        let number = self.communicators.len() as u64 + 1;
        let communicator = Communicator {
            number,
            meeting,
            rank,
            enqueued: 0,
            aborted: false,
            progress: self.settings.progress,
            grouped: Vec::new(),
        };
        self.communicators.insert(new, communicator);
        self.log
            .line(&format!("COMMUNICATOR {number} rank {rank} of {ranks}"));
        // SAFETY: checked above; the caller has room for a handle.
        unsafe { handle.write(new as *mut c_void) };
        if !blocking || self.settings.progress > 0 {
            return Err(status::NCCL_IN_PROGRESS);
        }
        Ok(Then::Wait(Box::new(move |state| state.has_met(new))))
    }

    /// The outcome of joining, once all ranks have.
    fn has_met(&mut self, communicator: u64) -> Option<c_int> {
        let communicator = self.communicators.get_mut(&communicator)?;
        if communicator.aborted {
            return Some(crate::function::NCCL_FAILURE);
        }
        if !communicator.meeting.is_complete() {
            return None;
        }
        let shared = std::env::var("NCCL_MULTI_RANK_GPU_ENABLE").is_ok_and(|value| value == "1");
        if communicator.meeting.has_duplicates() && !shared {
            self.log.line("DUPLICATE two ranks have one GPU");
            return Some(status::NCCL_INVALID_USAGE);
        }
        Some(status::SUCCESS)
    }

    /// Checks an all-reduce and enqueues it, or keeps it for the end of the group.
    fn all_reduce(
        &mut self,
        (send, receive): (u64, u64),
        count: u64,
        (data_type, operation): (c_int, c_int),
        communicator: *mut c_void,
        stream: *mut c_void,
    ) -> Outcome {
        let communicator = self.find(Kind::Communicator, communicator)?;
        let stream = self
            .find(Kind::Stream, stream)
            .map_err(|_| status::NCCL_INVALID_ARGUMENT)?;
        let element = match data_type {
            FLOAT32 => 4,
            FLOAT64 => 8,
            _ => 0,
        };
        if element == 0 || operation != SUM || count == 0 || send != receive {
            let text = format!(
                "count {count}, type {data_type}, operation {operation}, in place: {}",
                send == receive
            );
            self.violation(Rule::CollectiveForm, &text);
            return Err(status::NCCL_INVALID_ARGUMENT);
        }
        let bytes = count * element;
        for address in [send, receive] {
            if self.device.find(address, bytes).is_none() || !address.is_multiple_of(element) {
                let text = format!("{bytes} bytes: {}", self.device.describe(address));
                self.violation(Rule::CollectiveBuffer, &text);
                return Err(status::NCCL_INVALID_ARGUMENT);
            }
        }
        let reduce = Reduce {
            communicator,
            count,
            data_type,
            send,
            receive,
            bytes,
        };
        if GROUPS.get() > 0 {
            if let Some(communicator) = self.communicators.get_mut(&communicator) {
                communicator.grouped.push((stream, reduce));
            }
        } else {
            self.enqueue(stream, Work::Reduce(reduce));
        }
        Ok(Then::Return)
    }

    /// Ends a group: what it held is enqueued.
    fn end_group(&mut self) -> Outcome {
        let depth = GROUPS.get();
        if depth == 0 {
            return self.refuse(Rule::Group, "no group was begun", status::NCCL_INVALID_USAGE);
        }
        GROUPS.set(depth - 1);
        if depth == 1 {
            let all = self.communicators.values_mut();
            let grouped: Vec<_> = all
                .flat_map(|communicator| communicator.grouped.drain(..))
                .collect();
            for (stream, reduce) in grouped {
                self.enqueue(stream, Work::Reduce(reduce));
            }
        }
        Ok(Then::Return)
    }

    /// Tells the other ranks of an all-reduce that this one has enqueued; its number.
    pub fn arrive(&mut self, reduce: &Reduce) -> u64 {
        let Some(communicator) = self.communicators.get_mut(&reduce.communicator) else {
            return 0;
        };
        let number = communicator.enqueued;
        communicator.enqueued += 1;
        communicator
            .meeting
            .arrive(communicator.rank, number, describe(reduce));
        let line = format!(
            "COLLECTIVE {} {} {}",
            communicator.number, reduce.count, reduce.data_type
        );
        self.reduced += 1;
        self.log.line(&line);
        number
    }

    /// Whether all ranks have enqueued an all-reduce, which then is compared.
    pub fn is_reduced(&mut self, reduce: &Reduce, number: u64) -> bool {
        let Some(communicator) = self.communicators.get(&reduce.communicator) else {
            return true;
        };
        if communicator.aborted {
            return true;
        }
        if !communicator.meeting.have_arrived(number) {
            return false;
        }
        let own = describe(reduce);
        if let Some((rank, (count, data_type))) = communicator.meeting.other(number, own) {
            let text = format!(
                "number {number} of communicator {} is of {} elements of type {}, on rank {rank} of {count} of type {data_type}",
                communicator.number, reduce.count, reduce.data_type
            );
            self.violation(Rule::CollectiveMismatch, &text);
        }
        true
    }

    /// Ends a communicator's waits.
    fn abort(&mut self, handle: *mut c_void) -> Outcome {
        let handle = self.find(Kind::Communicator, handle)?;
        if let Some(communicator) = self.communicators.get_mut(&handle) {
            communicator.aborted = true;
        }
        self.end_handle(handle);
        Ok(Then::Return)
    }

    /// Ends a communicator after its work.
    fn destroy(&mut self, handle: *mut c_void) -> Outcome {
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
        let pending = move |state: &State| {
            let mut queued = state.streams.values().flat_map(|stream| &stream.queue);
            queued.any(|queued| matches!(&queued.work, Work::Reduce(reduce) if reduce.communicator == handle))
        };
        Ok(Then::Wait(Box::new(move |state| {
            state.finish_all();
            (!pending(state)).then_some(status::SUCCESS)
        })))
    }

    /// What a communicator says of what it does.
    fn asynchronous_error(&mut self, handle: *mut c_void) -> Result<c_int, c_int> {
        let handle = self.find(Kind::Communicator, handle)?;
        let Some(communicator) = self.communicators.get_mut(&handle) else {
            return Ok(status::SUCCESS);
        };
        if communicator.progress > 0 {
            communicator.progress -= 1;
            return Ok(status::NCCL_IN_PROGRESS);
        }
        Ok(self.has_met(handle).unwrap_or(status::NCCL_IN_PROGRESS))
    }
}

/// What ranks compare of an all-reduce.
fn describe(reduce: &Reduce) -> (u64, c_int) {
    (reduce.count, reduce.data_type)
}
