//! The functions that the stand-in exports, and what each needs.

use std::ffi::c_int;

/// What must have been done before a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// `cuInit`.
    Initialised,
    /// The thread has a current context.
    Context,
}

/// An exported function.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Its symbol.
    pub name: &'static str,
    /// What must have been done before.
    pub needs: Needs,
    /// Whether a thread that captures may call it.
    pub in_capture: bool,
    /// Whether it ends something, also where it returns an error.
    pub ends: bool,
}

/// `CUDA_ERROR_UNKNOWN`, what an injected failure of the driver returns.
pub const DRIVER_FAILURE: c_int = 999;
/// `ncclSystemError`, what an injected failure of NCCL returns.
pub const NCCL_FAILURE: c_int = 2;

impl Function {
    /// What an injected failure returns.
    pub fn failure(&self) -> c_int {
        if self.name.starts_with("nccl") {
            NCCL_FAILURE
        } else {
            DRIVER_FAILURE
        }
    }
}

const fn function(name: &'static str, needs: Needs) -> Function {
    Function {
        name,
        needs,
        in_capture: true,
        ends: false,
    }
}

/// Not in a thread that captures.
const fn outside(name: &'static str) -> Function {
    Function {
        in_capture: false,
        ..function(name, Needs::Context)
    }
}

const fn ending(function: Function) -> Function {
    Function {
        ends: true,
        ..function
    }
}

use Needs::{Context, Initialised, Nothing};

/// Every exported function that returns a status.
pub const FUNCTIONS: [Function; 50] = [
    function("cuInit", Nothing),
    function("cuDriverGetVersion", Nothing),
    function("cuGetErrorName", Nothing),
    function("cuGetErrorString", Nothing),
    function("cuDeviceGetCount", Initialised),
    function("cuDeviceGet", Initialised),
    function("cuDeviceGetName", Initialised),
    function("cuDeviceGetAttribute", Initialised),
    function("cuDevicePrimaryCtxRetain", Initialised),
    function("cuDevicePrimaryCtxRelease_v2", Initialised),
    function("cuCtxSetCurrent", Initialised),
    outside("cuCtxSynchronize"),
    outside("cuMemAlloc_v2"),
    ending(outside("cuMemFree_v2")),
    function("cuMemsetD8Async", Context),
    outside("cuMemHostAlloc"),
    ending(outside("cuMemFreeHost")),
    function("cuMemcpyHtoDAsync_v2", Context),
    function("cuMemcpyDtoHAsync_v2", Context),
    outside("cuStreamCreate"),
    ending(outside("cuStreamDestroy_v2")),
    outside("cuStreamQuery"),
    outside("cuStreamSynchronize"),
    function("cuStreamWaitEvent", Context),
    outside("cuEventCreate"),
    ending(outside("cuEventDestroy_v2")),
    function("cuEventRecord", Context),
    outside("cuEventSynchronize"),
    outside("cuModuleLoadDataEx"),
    ending(outside("cuModuleUnload")),
    outside("cuModuleGetFunction"),
    outside("cuFuncSetAttribute"),
    function("cuLaunchKernel", Context),
    function("cuStreamBeginCapture_v2", Context),
    ending(function("cuStreamEndCapture", Context)),
    outside("cuGraphInstantiateWithFlags"),
    outside("cuGraphLaunch"),
    ending(outside("cuGraphExecDestroy")),
    ending(outside("cuGraphDestroy")),
    function("ncclGetVersion", Nothing),
    function("ncclGetUniqueId", Nothing),
    outside("ncclCommInitRank"),
    outside("ncclCommInitRankConfig"),
    function("ncclAllReduce", Context),
    function("ncclGroupStart", Nothing),
    ending(function("ncclGroupEnd", Nothing)),
    function("ncclCommGetAsyncError", Nothing),
    function("ncclCommFinalize", Nothing),
    ending(function("ncclCommAbort", Nothing)),
    ending(function("ncclCommDestroy", Nothing)),
];
