//! Statuses of the driver and of NCCL.

use std::ffi::{CStr, c_int};

/// `CUDA_SUCCESS`, `ncclSuccess`
pub const SUCCESS: c_int = 0;
/// `CUDA_ERROR_INVALID_VALUE`
pub const INVALID_VALUE: c_int = 1;
/// `CUDA_ERROR_OUT_OF_MEMORY`
pub const OUT_OF_MEMORY: c_int = 2;
/// `CUDA_ERROR_NOT_INITIALIZED`
pub const NOT_INITIALIZED: c_int = 3;
/// `CUDA_ERROR_INVALID_DEVICE`
pub const INVALID_DEVICE: c_int = 101;
/// `CUDA_ERROR_INVALID_IMAGE`
pub const INVALID_IMAGE: c_int = 200;
/// `CUDA_ERROR_INVALID_CONTEXT`
pub const INVALID_CONTEXT: c_int = 201;
/// `CUDA_ERROR_INVALID_HANDLE`
pub const INVALID_HANDLE: c_int = 400;
/// `CUDA_ERROR_ILLEGAL_STATE`
pub const ILLEGAL_STATE: c_int = 401;
/// `CUDA_ERROR_NOT_FOUND`
pub const NOT_FOUND: c_int = 500;
/// `CUDA_ERROR_NOT_READY`
pub const NOT_READY: c_int = 600;
/// `CUDA_ERROR_ILLEGAL_ADDRESS`
pub const ILLEGAL_ADDRESS: c_int = 700;
/// `CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED`
pub const CAPTURE_UNSUPPORTED: c_int = 900;
/// `CUDA_ERROR_STREAM_CAPTURE_INVALIDATED`
pub const CAPTURE_INVALIDATED: c_int = 901;
/// `CUDA_ERROR_STREAM_CAPTURE_UNMATCHED`
pub const CAPTURE_UNMATCHED: c_int = 903;
/// `CUDA_ERROR_STREAM_CAPTURE_UNJOINED`
pub const CAPTURE_UNJOINED: c_int = 904;
/// `CUDA_ERROR_STREAM_CAPTURE_ISOLATION`
pub const CAPTURE_ISOLATION: c_int = 905;
/// `CUDA_ERROR_CAPTURED_EVENT`
pub const CAPTURED_EVENT: c_int = 907;
/// `CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD`
pub const CAPTURE_WRONG_THREAD: c_int = 908;
/// `ncclInvalidArgument`
pub const NCCL_INVALID_ARGUMENT: c_int = 4;
/// `ncclInvalidUsage`
pub const NCCL_INVALID_USAGE: c_int = 5;
/// `ncclInProgress`
pub const NCCL_IN_PROGRESS: c_int = 7;

/// The driver's name of a status.
pub fn name(status: c_int) -> &'static CStr {
    match status {
        SUCCESS => c"CUDA_SUCCESS",
        INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        NOT_INITIALIZED => c"CUDA_ERROR_NOT_INITIALIZED",
        INVALID_DEVICE => c"CUDA_ERROR_INVALID_DEVICE",
        INVALID_IMAGE => c"CUDA_ERROR_INVALID_IMAGE",
        INVALID_CONTEXT => c"CUDA_ERROR_INVALID_CONTEXT",
        INVALID_HANDLE => c"CUDA_ERROR_INVALID_HANDLE",
        ILLEGAL_STATE => c"CUDA_ERROR_ILLEGAL_STATE",
        NOT_FOUND => c"CUDA_ERROR_NOT_FOUND",
        NOT_READY => c"CUDA_ERROR_NOT_READY",
        ILLEGAL_ADDRESS => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        CAPTURE_UNSUPPORTED => c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        CAPTURE_INVALIDATED => c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        CAPTURE_UNMATCHED => c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
        CAPTURE_UNJOINED => c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
        CAPTURE_ISOLATION => c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
        CAPTURED_EVENT => c"CUDA_ERROR_CAPTURED_EVENT",
        CAPTURE_WRONG_THREAD => c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
        _ => c"CUDA_ERROR_UNKNOWN",
    }
}

/// NCCL's text of a status.
pub fn nccl_text(status: c_int) -> &'static CStr {
    match status {
        SUCCESS => c"no error",
        2 => c"unhandled system error",
        NCCL_INVALID_ARGUMENT => c"invalid argument",
        NCCL_INVALID_USAGE => c"invalid usage",
        NCCL_IN_PROGRESS => c"NCCL operation in progress",
        _ => c"unknown result code",
    }
}
