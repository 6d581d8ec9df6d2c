//! NCCL's functions.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    io::Read,
};

use super::{ID_BYTES, check_sum};
use crate::{
    call::{CURRENT, GROUPS, Then, call},
    export::{export, give},
    function::NCCL_FAILURE,
    plant,
    rule::Rule,
    state::{Kind, State},
    status,
};

type Handle = *mut c_void;

/// Of NCCL 2.30.7.
const VERSION: c_int = 23_007;
/// Of `ncclConfig_t`.
const CONFIGURATION: c_uint = 0xcafe_beef;

/// `ncclUniqueId`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct UniqueId([u8; ID_BYTES]);

/// The beginning of `ncclConfig_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Configuration {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

/// The device of the calling thread.
fn device(state: &State) -> c_int {
    state
        .contexts
        .get(&CURRENT.get())
        .map_or(0, |(device, _)| *device)
}

/// Whether calls of communicators wait, where nothing else is said.
fn blocks() -> bool {
    !std::env::var("NCCL_COMM_BLOCKING").is_ok_and(|value| value == "0")
}

export! {
    /// NCCL's version.
    fn ncclGetVersion(version: *mut c_int) {
        call("ncclGetVersion", |state| give(state, version, VERSION).map(|()| Then::Return))
    }

    /// A new identifier.
    fn ncclGetUniqueId(id: *mut UniqueId) {
        call("ncclGetUniqueId", |state| {
            let mut bytes = [0; ID_BYTES];
            let random = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
            random.map_err(|_| NCCL_FAILURE)?;
            bytes[ID_BYTES - 1] = check_sum(&bytes);
            give(state, id, UniqueId(bytes)).map(|()| Then::Return)
        })
    }

    /// Joins a communicator, and waits for all of its ranks.
    fn ncclCommInitRank(communicator: *mut Handle, ranks: c_int, id: UniqueId, rank: c_int) {
        call("ncclCommInitRank", |state| {
            let device = device(state);
            state.join(communicator, (ranks, rank), &id.0, device, blocks())
        })
    }

    /// As `ncclCommInitRank`, with a configuration.
    fn ncclCommInitRankConfig(
        communicator: *mut Handle,
        ranks: c_int,
        id: UniqueId,
        rank: c_int,
        configuration: *const Configuration,
    ) {
        call("ncclCommInitRankConfig", |state| {
            // SAFETY: null, or a configuration.
            let blocking = match unsafe { configuration.as_ref() } {
                None => blocks(),
                Some(known) if known.magic == CONFIGURATION && known.size >= size_of::<Configuration>() => {
                    if known.blocking == c_int::MIN { blocks() } else { known.blocking == 1 }
                }
                Some(_) => return state.refuse(Rule::Argument, "no configuration", status::NCCL_INVALID_ARGUMENT),
            };
            let device = device(state);
            state.join(communicator, (ranks, rank), &id.0, device, blocking)
        })
    }

    /// Enqueues an all-reduce.
    fn ncclAllReduce(
        send: *const c_void,
        receive: *mut c_void,
        count: usize,
        data_type: c_int,
        operation: c_int,
        communicator: Handle,
        stream: Handle,
    ) {
        let reduce = plant::AllReduce {
            buffers: (send as u64, receive as u64),
            count: count as u64,
            form: (data_type, operation),
            communicator: communicator as u64,
            stream: stream as u64,
        };
        let mut status = status::SUCCESS;
        for one in plant::reorder(reduce) {
            status = call("ncclAllReduce", |state| {
                let (communicator, stream) = (one.communicator as Handle, one.stream as Handle);
                state.all_reduce(one.buffers, one.count, one.form, communicator, stream)
            });
        }
        status
    }

    /// Begins a group.
    fn ncclGroupStart() {
        call("ncclGroupStart", |_| {
            GROUPS.set(GROUPS.get() + 1);
            Ok(Then::Return)
        })
    }

    /// Ends a group.
    fn ncclGroupEnd() {
        call("ncclGroupEnd", State::end_group)
    }

    /// An error of a communicator since its calls.
    fn ncclCommGetAsyncError(communicator: Handle, error: *mut c_int) {
        call("ncclCommGetAsyncError", |state| {
            let found = state.asynchronous_error(communicator)?;
            give(state, error, found).map(|()| Then::Return)
        })
    }

    /// Prepares a communicator's end.
    fn ncclCommFinalize(communicator: Handle) {
        call("ncclCommFinalize", |state| state.find(Kind::Communicator, communicator).map(|_| Then::Return))
    }

    /// Ends a communicator and the waits for it.
    fn ncclCommAbort(communicator: Handle) {
        call("ncclCommAbort", |state| state.abort(communicator))
    }

    /// Ends a communicator.
    fn ncclCommDestroy(communicator: Handle) {
        call("ncclCommDestroy", |state| state.destroy(communicator))
    }
}

/// Text of a status.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn ncclGetErrorString(status: c_int) -> *const c_char {
    status::nccl_text(status).as_ptr()
}
