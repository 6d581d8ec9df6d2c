//! The functions that the GPU part of generated code calls. Their contracts stand in
//! [`syncbn_abi::gpu_symbols`].
//!
//! No panic crosses to generated code: it becomes a failure of the stream.

use std::{
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    nccl::{self, NCCL_FAILED, NCCL_SUCCESS},
    stream::{AllReduce, Communicator, Stream},
};
use crate::{error::Error, panics, trace::Trace};

/// Does `body` on a stream. A panic is a failure of the stream, and gives `otherwise`.
///
/// # Safety
/// `stream` is a pointer that a living [`super::device::Device`] gave.
unsafe fn on<R>(stream: *mut c_void, otherwise: R, body: impl FnOnce(&Stream) -> R) -> R {
    // SAFETY: the caller says that it is a stream.
    let Some(stream) = (unsafe { stream.cast::<Stream>().as_ref() }) else {
        return otherwise;
    };
    catch_unwind(AssertUnwindSafe(|| body(stream))).unwrap_or_else(|payload| {
        stream.fail(Error::internal(panics::describe(&*payload)));
        otherwise
    })
}

/// [`syncbn_abi::gpu_symbols::LAUNCH`].
///
/// # Safety
/// `stream` is one of a living device, and `parameters` points to the values of the kernel's parameters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syncbn_rt_launch(
    stream: *mut c_void,
    kernel: i64,
    grid_x: i64,
    grid_y: i64,
    grid_z: i64,
    parameters: *const *const c_void,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        on(stream, (), |stream| {
            stream.launch(kernel, [grid_x, grid_y, grid_z], parameters);
        });
    }
}

/// [`syncbn_abi::gpu_symbols::STREAM_WAIT`].
///
/// # Safety
/// Both are streams of one living device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syncbn_rt_stream_wait(waiting: *mut c_void, signalling: *mut c_void) {
    if waiting == signalling {
        return;
    }
    // SAFETY: passed on from the caller.
    unsafe {
        on(waiting, (), |waiting| {
            on(signalling, (), |signalling| waiting.wait_for(signalling));
        });
    }
}

/// [`syncbn_abi::gpu_symbols::NCCL_ALL_REDUCE`].
///
/// # Safety
/// Stream and communicator are of one living device, and the buffers hold `count` elements of the type in its
/// memory.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn ncclAllReduce(
    send: *const c_void,
    receive: *mut c_void,
    count: u64,
    data_type: i32,
    operation: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> i32 {
    let call = AllReduce {
        send: send.cast(),
        receive: receive.cast(),
        count,
        data_type,
        operation,
    };
    // SAFETY: passed on from the caller.
    unsafe {
        on(stream, NCCL_FAILED, |stream| {
            let Some(communicator) = communicator.cast::<Communicator>().as_ref() else {
                stream.fail(Error::internal("an all-reduce without a communicator"));
                return NCCL_FAILED;
            };
            match stream.all_reduce(communicator, call) {
                true => NCCL_SUCCESS,
                false => NCCL_FAILED,
            }
        })
    }
}

/// [`syncbn_abi::gpu_symbols::NCCL_GROUP_START`].
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub extern "C" fn ncclGroupStart() -> i32 {
    catch_unwind(nccl::group_start).unwrap_or(NCCL_FAILED)
}

/// [`syncbn_abi::gpu_symbols::NCCL_GROUP_END`].
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub extern "C" fn ncclGroupEnd() -> i32 {
    catch_unwind(nccl::group_end).unwrap_or(NCCL_FAILED)
}

/// [`syncbn_abi::gpu_symbols::NCCL_CHECK`].
///
/// # Safety
/// `stream` is one of a living device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syncbn_rt_nccl_check(stream: *mut c_void, status: i32) {
    if status == NCCL_SUCCESS {
        return;
    }
    // SAFETY: passed on from the caller.
    unsafe {
        on(stream, (), |stream| {
            stream.fail(nccl::error_of_status(status));
        });
    }
}

/// [`syncbn_abi::gpu_symbols::TRACE`]: waits for the stream, and notes the node if the output holds a value that
/// is not finite, or how long it took. The context is a [`Trace`].
///
/// # Safety
/// `stream` is one of a living device, `context` points to a [`Trace`], and `data` to `elements` elements of
/// the type that `output` says in the device's memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syncbn_rt_gpu_trace(
    stream: *mut c_void,
    context: *mut c_void,
    node: i64,
    output: i64,
    data: *const c_void,
    elements: i64,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        on(stream, (), |stream| {
            let Some(trace) = context.cast::<Trace>().as_ref() else {
                return;
            };
            let elements = usize::try_from(elements).unwrap_or(0);
            if elements == 0 || data.is_null() || stream.has_failed() {
                return;
            }
            if trace.is_timing() {
                // A byte, for which it waits.
                match stream.download(data.cast(), &mut [0]) {
                    Ok(()) => trace.lap(node),
                    Err(error) => return stream.fail(error),
                };
                return;
            }
            let mut bytes = vec![0; elements * trace.element_type(output).bytes() as usize];
            match stream.download(data.cast(), &mut bytes) {
                Ok(()) => trace.inspect(node, output, &bytes),
                Err(error) => stream.fail(error),
            }
        });
    }
}
