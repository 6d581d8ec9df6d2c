//! A strict stand-in for the CUDA driver and NCCL. It computes nothing and needs no GPU: device memory is ordinary
//! memory, kernels are checked and not run, and work on streams is done as late as it may be, when something waits for it.
//! What real libraries take without a word, or answer with an error somewhere else, is a line of its log.
//!
//! A test puts a folder with a link `libcuda.so.1` to the library into `LD_LIBRARY_PATH`, and names the library by
//! `SYNCBN_NCCL_LIBRARY`. The ranks of a communicator meet in a file beside the log: an all-reduce is done once all
//! have enqueued theirs, so that whoever waits for a dead rank waits for ever, unless its communicator is aborted.
//!
//! # Environment
//!
//! | variable | does |
//! |---|---|
//! | `STRICT_LOG=PATH` | each rank writes `PATH.RANK`; a process that only looks for GPUs writes `PATH.launcher` if something is wrong |
//! | `STRICT_GPUS=N` | number of GPUs, 1 if not set; two ranks on one need `NCCL_MULTI_RANK_GPU_ENABLE=1`, as with NCCL |
//! | `STRICT_FAIL=FUNCTION:N[:RANK]` | call number N (from 1) of the function returns an error, on all ranks or on one; several stand with commas between them |
//! | `STRICT_HANG=FUNCTION:N[:RANK]` | that call never returns |
//! | `STRICT_DIE=FUNCTION:N[:RANK]` | the process ends in that call with exit code 77 |
//! | `STRICT_PROGRESS=N` | joining a communicator returns `ncclInProgress`, and it stays so for N calls of `ncclCommGetAsyncError` |
//! | `STRICT_PLANT=NAME` | a fault of the caller, one of [`PLANTS`], is put into its calls |
//! | `STRICT_ONLY=VARIABLE=VALUE` | failures, hangs, deaths and faults only where the variable has the value |
//!
//! # Log
//!
//! `COMMUNICATOR` (number, rank), `MODULE`, `GRAPH` (what was captured), `COLLECTIVE` (communicator, count, type; when it
//! is enqueued, also by a graph), `FAILURE`, `HANG`, `DEATH`, `VIOLATION` (rule, function, what), and at an ordinary end of
//! the process `END` with counts. `DUPLICATE` says that two ranks have one GPU. The rules are those of [`Rule`].

mod arena;
mod call;
mod capture;
mod device;
mod driver;
mod export;
mod function;
mod image;
mod log;
mod nccl;
mod plant;
mod rule;
mod settings;
mod state;
mod status;
mod work;

pub use function::{FUNCTIONS, Function, Needs};
pub use plant::PLANTS;
pub use rule::Rule;

/// Compute capability of the GPUs.
pub const CAPABILITY: u32 = 90;
/// Most bytes of shared memory of a block.
pub const MOST_SHARED: u32 = 232_448;
